/* Statistics of a few samples. */
#pragma once

double qb_median(const double *x, int n); /* x is not changed; NaN for n = 0 */
double qb_mean_of(const double *x, int n);
double qb_stddev(const double *x, int n); /* sample standard deviation; NaN below 2 */

/* Two-sided p value of the Mann-Whitney U test: exact without ties and n, m <= 50, else the normal
   approximation with tie and continuity corrections. */
double qb_mann_whitney_p(const double *x, int n, const double *y, int m);
