/* A figure: points with labels, reference lines and axes, turned
   into a gnuplot script whose looks are in plots/(name).gp. */
#pragma once

#include "base/memory.h"
#include "plots/axis.h"
#include "plots/gnuplot.h"
#include "plots/labels.h"

typedef struct qb_point {
    double x, y, spread; /* spread: half the error bar, NaN without */
    const char *label;
    int series;
    bool noisy; /* measured, and it stayed noisy: crossed */
} qb_point;

typedef struct qb_series {
    const char *name;
    int hue, variant; /* see plots/sheet.h */
    bool joined;      /* its points are joined by a line, in the order of x */
    bool projected;   /* drawn hollow, pale and dotted */
} qb_series;

/* A horizontal line across the picture. */
typedef struct qb_reference {
    double y;
    const char *label;
    bool is_floor; /* what nothing can pass, rather than what the others are compared with */
    bool projected;
} qb_reference;

enum { QB_REFERENCES_MAX = 4 };

typedef struct qb_figure {
    const char *title, *subtitle, *x_label, *y_label;
    qb_axis x, y;
    qb_point *points; /* by series, and within one by x */
    int n_points;
    qb_series *series;
    int n_series;
    qb_reference references[QB_REFERENCES_MAX];
    int n_references;
    qb_point *front; /* the Pareto front as steps; NULL without */
    int n_front;
} qb_figure;

/* Reads share/plots/NAME.gp and appends it; the error names the file and what to reinstall. */
qb_status qb_figure_load(const char *name, qb_str *script) QB_NODISCARD;
/* Appends style.gp, titles, axes, margins (in pixels: left, right, bottom, top). */
qb_status qb_figure_begin(const qb_figure *f, qb_canvas canvas, const double margins[4],
                          qb_str *script) QB_NODISCARD;
/* The same figure, whose axis goes on downwards on a small canvas until a label fits below the lowest
   reference. */
qb_figure qb_figure_with_room(const qb_figure *f, qb_canvas canvas);
/* Where everything of a scatter plot is drawn, in canvas pixels with the origin at the lower left. */
typedef struct qb_placed {
    qb_box area;       /* of the data */
    qb_tag *tags;      /* labels, references first */
    int *hues;         /* of the labels */
    const int *points; /* which point each label names; -1: a reference */
    int n_tags;
    qb_segment *segments; /* lines that labels keep clear of */
    int n_segments;
} qb_placed;
qb_status qb_figure_place(const qb_figure *f, qb_canvas canvas, qb_arena *arena, qb_placed *out) QB_NODISCARD;
double qb_figure_x(const qb_figure *f, const qb_placed *p, double x);
double qb_figure_y(const qb_figure *f, const qb_placed *p, double y);
/* The whole script of a scatter plot: data, labels placed, scatter.gp. */
qb_status qb_figure_scatter(const qb_figure *f, qb_canvas canvas, qb_arena *arena,
                            qb_str *script) QB_NODISCARD;
/* The data that the plot shows: series, label, x, y, half the error bar, whether it stayed noisy. */
void qb_figure_csv(const qb_figure *f, qb_str *csv);
/* One label at a pixel, vertically centred. */
void qb_figure_text(qb_canvas canvas, const char *text, double x, double y, bool flush_right,
                    const char *style, qb_str *script);
