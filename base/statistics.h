/* Statistics of a few samples. */
#pragma once

double qb_median(const double *x, int n); /* x is not changed; NaN for n = 0 */
double qb_mean_of(const double *x, int n);
double qb_stddev(const double *x, int n); /* sample standard deviation; NaN below 2 */

void qb_sort(double *x, long n); /* ascending, in place */

/* Fewer windows of a text than this give no standard error: their spread is a matter of luck. */
enum { QB_MIN_WINDOWS = 8 };

/* The mean of n values by their sum and the sum of their squares, and its standard error: NaN for n = 1. */
typedef struct qb_estimate {
    double value, error;
} qb_estimate;
qb_estimate qb_estimate_of(double sum, double squares, double n);
