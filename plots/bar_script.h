/* A bar chart as a gnuplot script, and what its SVG shares with it. Private to plots/. */
#pragma once

#include "plots/easel.h"

qb_status qb_bars_script(const qb_bar_chart *chart, qb_canvas canvas, qb_str *script) QB_NODISCARD;
void qb_bars_csv(const qb_bar_chart *chart, qb_str *csv);
int qb_bars_height(const qb_bar_chart *chart, qb_canvas style);   /* for as many bars */
double qb_bars_left(const qb_bar_chart *chart, qb_canvas canvas); /* room that the labels take */
qb_axis qb_bars_axis(const qb_bar_chart *chart);
void qb_bar_value(double value, qb_str *out);
