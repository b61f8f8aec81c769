/* One axis of a plot: its range, where a value lies on it, and readable tics. */
#pragma once

#include "base/str.h"

typedef struct qb_axis {
    double min, max; /* min < max; both above 0 when log */
    bool log;
} qb_axis;

/* The range that shows [min, max] with a margin of `margin` of its length at both ends; with `from_zero` it
   begins at 0. Not finite or empty input gives a range around it that can be drawn. log is dropped where min
   is not positive. */
qb_axis qb_axis_fit(double min, double max, double margin, bool log, bool from_zero);
/* 0 at the axis' beginning, 1 at its end; nothing is further out than -1 and 2, where it is drawn outside. */
double qb_axis_place(const qb_axis *axis, double value);
/* About `wanted` round values on the axis, ascending, at most `max`; how many. */
int qb_axis_values(const qb_axis *axis, int wanted, double *values, int max);
/* Appends gnuplot's list of tics, "('5' 5, '10' 10)": about `wanted` of them, at round values. */
void qb_axis_tics(const qb_axis *axis, int wanted, qb_str *out);
/* "0.02", "250", "2×10⁵": with so many digits that values which are `step` apart differ; 0: a few. */
void qb_axis_format(double value, double step, qb_str *out);
/* The least distance of two of n ascending values; 0 below two. */
double qb_axis_step(const double *values, int n);
