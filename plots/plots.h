/* Plots of results, drawn by gnuplot from the scripts in share/plots. */
#pragma once

#include "results/rows.h"

/* Whether gnuplot is there; version and path for `bench doctor`, the install command otherwise. */
bool qb_gnuplot_find(char version[64]);

/* Writes DIR/NAME.svg, .png (and .pdf where gnuplot has a PDF terminal) for every plot whose data the
   rows hold; only: comma-separated names, or NULL for all. *n_files counts. Files are replaced
   atomically; a plot with no data is skipped with an info line. */
qb_status qb_plots_draw(const qb_rows *rows, const char *dir, const char *only, int *n_files) QB_NODISCARD;
/* Registry for `bench plot --help`. */
typedef struct qb_plot {
    const char *name, *summary;
} qb_plot;
const qb_plot *qb_plot_at(size_t index);
