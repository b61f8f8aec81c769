/* Whether two sets of measurements differ, and by how much. */
#pragma once

#include <stdbool.h>

/* Two-sided p value of the Mann-Whitney U test: exact without ties and n, m <= 50, else the normal
   approximation with tie and continuity corrections. NaN for an empty side. */
double qb_mann_whitney_p(const double *x, int n, const double *y, int m);
/* The least p that the exact test can give for so many samples, 2 / binomial(n + m, n): where it is not below
   a level, no difference can be proved at that level. 1 for an empty side. */
double qb_mann_whitney_least_p(int n, int m);

/* What lies between two samples: the Hodges-Lehmann estimate of y less x and the interval that the
   Mann-Whitney test of that level does not reject. */
typedef struct qb_shift {
    double value, low, high; /* low and high are -+infinity where so few samples bound nothing */
} qb_shift;
/* x and y are not changed. All NaN for an empty side or out of memory. */
qb_shift qb_shift_between(const double *x, int n, const double *y, int m, double level);

/* Two-sided p value of Wilcoxon's signed-rank test of n paired differences. Zeros are left out; exact without
   ties and n <= 50, else the normal approximation with tie and continuity corrections. 1 when all are 0. */
double qb_wilcoxon_p(const double *differences, int n);

/* Two-sided p value of the sum of n paired differences against all 2^n choices of their signs, exact. NaN for
   n above QB_SIGN_FLIP_MAX (the normal distribution serves there), or out of memory. */
enum { QB_SIGN_FLIP_MAX = 36 };
double qb_sign_flip_p(const double *differences, int n);
/* Two-sided p value of an estimate with its standard error, by the normal distribution. */
double qb_normal_p(double value, double standard_error);
double qb_normal_quantile(double probability);
/* The same by Student's t with that many degrees of freedom. */
double qb_student_p(double value, double standard_error, double freedom);
double qb_student_quantile(double probability, double freedom);

/* What lies between two groups of runs when a run has an effect of its own beside the error within it: the
   one-way random effects model by the method of moments (Searle, Casella and McCulloch, Variance Components,
   4.5; for equal errors within, and for none, the least squares t test of the runs' figures with pooled
   variance). A group may be a single run. */
typedef struct qb_run_effect {
    double difference; /* of the means, y less x */
    double error;      /* its standard error; NaN with freedom 0 */
    double freedom;    /* n + m - 2 */
    double between;    /* variance between runs beyond the error within them, 0 or more; NaN with freedom 0 */
    double within;     /* the mean squared error within a run that was taken off */
} qb_run_effect;
/* x_within, y_within: squared standard error of one run's figure, the mean over its group. */
qb_run_effect qb_runs_differ(const double *x, int n, double x_within, const double *y, int m,
                             double y_within);

/* Holm's step-down: adjusted[i] <= alpha exactly where row i is rejected when the chance of one false alarm
   among all rows is held at alpha. NaN rows are not tested and stay NaN. p and adjusted may be one. False out
   of memory. */
bool qb_holm(const double *p, int n, double *adjusted);

/* Samples that bring an interval of this half-width from n samples down to `target`: intervals shrink as
   1/sqrt(n). At least n. */
double qb_samples_needed(double n, double half_width, double target);

/* Distribution-free interval of the median by order statistics: the narrowest symmetric pair x(k), x(n+1-k)
   that holds it with at least the confidence for independent samples of any continuous distribution (Conover,
   Practical Nonparametric Statistics, 3.2: signs are binomial(n, 1/2)). NaN where no pair does: below 6
   samples at 0.95. */
void qb_median_interval(const double *x, int n, double confidence, double *low, double *high);
