/* What a picture is drawn on: gnuplot's files, or the SVG of a page. Pictures (pictures.h) hand over what is
   to be seen; an easel draws it. */
#pragma once

#include "plots/figure.h"

typedef struct qb_bar {
    const char *label, *series;
    int hue;
    bool projected, noisy;             /* noisy: measured, and it stayed so; hatched */
    double value, spread, inner, mark; /* 0: none */
} qb_bar;

/* Horizontal bars, the first at the top. Inner bars and marks have a name where there are any. */
typedef struct qb_bar_chart {
    const char *title, *subtitle, *x_label, *outer_name, *inner_name, *mark_name;
    const qb_bar *bars;
    int n;
} qb_bar_chart;

typedef struct qb_easel qb_easel;
struct qb_easel {
    qb_canvas style; /* size 0: each picture's own */
    qb_status (*scatter)(qb_easel *e, const char *name, const qb_figure *f);
    qb_status (*bars)(qb_easel *e, const char *name, const qb_bar_chart *chart);
    /* A finished script of a size; an easel that is not gnuplot's leaves it. csv: what it draws. */
    qb_status (*script)(qb_easel *e, const char *name, qb_canvas canvas, const char *script, const char *csv);
    bool takes_scripts;
};

/* The canvas of a picture: the style's size, or its own times the letters' scale. */
qb_canvas qb_easel_canvas(const qb_easel *e, int width, int height);

typedef struct qb_gnuplot_easel {
    qb_easel easel;
    const char *terminals, *dir; /* terminals: as qb_gnuplot_terminals gives them */
    bool sources;                /* script and data beside each picture */
    int *n_files;                /* increased */
} qb_gnuplot_easel;
void qb_gnuplot_easel_make(qb_gnuplot_easel *e);

/* SVG elements for a page, with classes and data for its script: a group a series, a title a mark. */
typedef struct qb_svg_picture {
    const char *name, *title, *subtitle, *svg; /* from the arena */
    const char **series;                       /* that can be hidden, with their hues and variants */
    int *hues, *variants;
    int n_series;
} qb_svg_picture;
typedef struct qb_svg_easel {
    qb_easel easel;
    qb_arena *arena;
    qb_svg_picture *pictures; /* owned: qb_free */
    size_t n, capacity;
} qb_svg_easel;
void qb_svg_easel_make(qb_svg_easel *e, qb_arena *arena);
