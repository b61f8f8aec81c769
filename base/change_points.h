/* Where a series of measurements changed its level. E-divisive (Matteson and James, arXiv 1306.4933) with the
   refinements of Hunter (Fleming et al., arXiv 2301.03034): Student's t between the sides in place of
   permutations, weak points at a loose level first, which are tested again at the strict one, and windows
   that slide over the series. Gives what Apache Otava gives (tools/record_change_points_golden.py). */
#pragma once

#include "base/status.h"

typedef struct qb_change_point_config {
    int window;          /* values a window holds, at least 2 */
    double level;        /* points whose p is not below it are no change points */
    double least_change; /* points of a smaller relative change are none either; 0.05 is 5 % */
} qb_change_point_config;
/* 50 values, p below 0.001, any change: Otava's defaults. */
qb_change_point_config qb_change_point_defaults(void);

typedef struct qb_change_point {
    int index; /* of the first value after the change */
    double p;  /* Student's t between what lies on either side, up to the next change points */
    double mean_before, mean_after;
} qb_change_point;

/* Change points of values[0..n), ascending. *out is the caller's, qb_free; NULL where there are none. */
qb_status qb_change_points(const double *values, int n, const qb_change_point_config *config,
                           qb_change_point **out, int *count) QB_NODISCARD;
