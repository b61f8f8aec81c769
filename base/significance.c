#include "base/significance.h"

#include "base/memory.h"
#include "base/statistics.h"

#define MATHLIB_STANDALONE
#include <Rmath.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXACT_MAX =
        50 /* above it the exact distribution's table grows past 26 MB and the normal one is as good */
};

/* ---- ranks ---- */

typedef struct ranked {
    double value;
    bool marked; /* of the first sample, or of a positive difference */
} ranked;

static int by_value(const void *a, const void *b) {
    double x = ((const ranked *)a)->value, y = ((const ranked *)b)->value;
    return (x > y) - (x < y);
}

/* Rank sum of the marked values with midranks for ties; *ties gets sum(t^3 - t) over groups of equal ones.
   NaN where a value is NaN, which has no rank. */
static double rank_sum(ranked *all, int count, double *ties) {
    double sum = 0;
    *ties = 0;
    for (int i = 0; i < count; i++)
        if (isnan(all[i].value)) return (double)NAN;
    qsort(all, (size_t)count, sizeof *all, by_value);
    for (int i = 0; i < count;) {
        int j = i;
        while (j < count && all[j].value == all[i].value) j++;
        double t = j - i, midrank = (i + 1 + j) / 2.0;
        for (int k = i; k < j; k++) sum += all[k].marked ? midrank : 0;
        *ties += t * t * t - t;
        i = j;
    }
    return sum;
}

/* Two-sided, with the continuity correction of one half. */
static double corrected_p(double off, double sd) {
    if (!(sd > 0)) return 1; /* all values are equal */
    return fmin(1, 2 * pnorm(fmax(0, fabs(off) - 0.5) / sd, 0, 1, 0, 0));
}

/* ---- two samples ---- */

double qb_mann_whitney_p(const double *x, int n, const double *y, int m) {
    if (n < 1 || m < 1) return (double)NAN;
    ranked *all;
    int count = n + m;
    if (qb_alloc((size_t)count, sizeof *all, &all) != QB_OK) return (double)NAN;
    for (int i = 0; i < count; i++) all[i] = (ranked){i < n ? x[i] : y[i - n], i < n};
    double ties, u = rank_sum(all, count, &ties) - n * (n + 1.0) / 2;
    qb_free(all);
    if (isnan(u)) return u;
    double half = (double)n * m / 2;
    if (ties == 0 && n <= EXACT_MAX && m <= EXACT_MAX)
        return fmin(1, 2 * (u > half ? pwilcox(u - 1, n, m, 0, 0) : pwilcox(u, n, m, 1, 0)));
    return corrected_p(u - half,
                       sqrt((double)n * m / 12 * (count + 1 - ties / ((double)count * (count - 1)))));
}

double qb_mann_whitney_least_p(int n, int m) {
    if (n < 1 || m < 1) return 1;
    return fmin(1, 2 * exp(lgamma(n + 1.0) + lgamma(m + 1.0) - lgamma(n + m + 1.0)));
}

/* How many differences y - x do not exceed t; both are sorted. */
static double differences_up_to(const double *x, int n, const double *y, int m, double t) {
    double count = 0;
    int j = 0;
    for (int i = 0; i < n; i++) {
        while (j < m && y[j] - x[i] <= t) j++;
        count += j;
    }
    return count;
}

/* The k-th smallest (from 1) of all n * m differences, by bisection: no table of them is needed. */
static double nth_difference(const double *x, int n, const double *y, int m, double k) {
    double low = y[0] - x[n - 1], high = y[m - 1] - x[0];
    if (differences_up_to(x, n, y, m, low) >= k) return low;
    for (int step = 0; step < 200; step++) {
        double middle = low + (high - low) / 2;
        if (!(middle > low && middle < high)) break;
        if (differences_up_to(x, n, y, m, middle) >= k)
            high = middle;
        else
            low = middle;
    }
    return high;
}

/* The rank whose difference bounds the interval from below: Hollander, Wolfe and Chicken, Nonparametric
   Statistical Methods, 4.3. 0: none does. */
static double bounding_rank(int n, int m, double level) {
    if (n <= EXACT_MAX && m <= EXACT_MAX) return qwilcox(level / 2, n, m, 1, 0);
    double sd = sqrt((double)n * m * (n + m + 1.0) / 12);
    return fmax(0, floor((double)n * m / 2 + qnorm(level / 2, 0, 1, 1, 0) * sd));
}

qb_shift qb_shift_between(const double *x, int n, const double *y, int m, double level) {
    qb_shift shift = {(double)NAN, (double)NAN, (double)NAN};
    double *a = NULL, *b = NULL;
    if (n < 1 || m < 1) return shift;
    if (qb_alloc((size_t)n, sizeof *a, &a) == QB_OK && qb_alloc((size_t)m, sizeof *b, &b) == QB_OK) {
        memcpy(a, x, (size_t)n * sizeof *a);
        memcpy(b, y, (size_t)m * sizeof *b);
        qb_sort(a, n);
        qb_sort(b, m);
        double all = (double)n * m, rank = bounding_rank(n, m, level);
        double below = nth_difference(a, n, b, m, floor((all + 1) / 2)),
               above = nth_difference(a, n, b, m, floor(all / 2) + 1);
        shift.value = below + (above - below) / 2;
        shift.low = rank < 1 ? -(double)INFINITY : nth_difference(a, n, b, m, rank);
        shift.high = rank < 1 ? (double)INFINITY : nth_difference(a, n, b, m, all + 1 - rank);
    }
    qb_free(a);
    qb_free(b);
    return shift;
}

/* ---- pairs ---- */

double qb_wilcoxon_p(const double *differences, int n) {
    ranked *all;
    int count = 0;
    if (n < 1) return (double)NAN;
    if (qb_alloc((size_t)n, sizeof *all, &all) != QB_OK) return (double)NAN;
    for (int i = 0; i < n; i++)
        if (differences[i] != 0) all[count++] = (ranked){fabs(differences[i]), differences[i] > 0};
    double ties, sum = rank_sum(all, count, &ties), k = count, half = k * (k + 1) / 4;
    qb_free(all);
    if (!count) return 1;
    if (isnan(sum)) return sum;
    if (ties == 0 && count <= EXACT_MAX)
        return fmin(1, 2 * (sum > half ? psignrank(sum - 1, k, 0, 0) : psignrank(sum, k, 1, 0)));
    return corrected_p(sum - half, sqrt(k * (k + 1) * (2 * k + 1) / 24 - ties / 48));
}

/* All 2^n sums of signs times d. Doubling, not one sign a step: each sum has n roundings only. */
static long all_sums(const double *d, int n, double *out) {
    long count = 1;
    out[0] = 0;
    for (int k = 0; k < n; k++, count *= 2)
        for (long i = 0; i < count; i++) {
            out[count + i] = out[i] - d[k];
            out[i] += d[k];
        }
    return count;
}

/* Half of the signs are tabled on either side, and pairs are counted by two pointers that meet: the count is
   exact at 2^(n/2) steps. By symmetry the lower tail is as heavy as the upper one. */
double qb_sign_flip_p(const double *d, int n) {
    double *a = NULL, *b = NULL, observed = 0, scale = 0, p = (double)NAN;
    if (n < 1 || n > QB_SIGN_FLIP_MAX) return p;
    int half = n / 2;
    for (int i = 0; i < n; i++) {
        observed += d[i];
        scale += fabs(d[i]);
    }
    /* Sums that are equal but for their rounding count as equal. */
    double least = fabs(observed) - 1e-13 * scale;
    if (!(least > 0)) return 1;
    if (qb_alloc((size_t)1 << half, sizeof *a, &a) == QB_OK &&
        qb_alloc((size_t)1 << (n - half), sizeof *b, &b) == QB_OK) {
        long na = all_sums(d, half, a), nb = all_sums(d + half, n - half, b), j = nb;
        double count = 0;
        qb_sort(a, na);
        qb_sort(b, nb);
        for (long i = 0; i < na; i++) {
            while (j > 0 && a[i] + b[j - 1] >= least) j--;
            count += (double)(nb - j);
        }
        p = fmin(1, 2 * count / ((double)na * (double)nb));
    }
    qb_free(a);
    qb_free(b);
    return p;
}

double qb_normal_p(double value, double standard_error) {
    if (standard_error == 0) return value == 0 ? 1 : 0;
    return 2 * pnorm(fabs(value / standard_error), 0, 1, 0, 0);
}

double qb_normal_quantile(double probability) {
    return qnorm(probability, 0, 1, 1, 0);
}

double qb_student_p(double value, double standard_error, double freedom) {
    if (standard_error == 0) return value == 0 ? 1 : 0;
    return 2 * pt(fabs(value / standard_error), freedom, 0, 0);
}

double qb_student_quantile(double probability, double freedom) {
    return qt(probability, freedom, 1, 0);
}

/* ---- runs ---- */

static double squares_about_mean(const double *x, int n) {
    double mean = qb_mean_of(x, n), sum = 0;
    for (int i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

qb_run_effect qb_runs_differ(const double *x, int n, double x_within, const double *y, int m,
                             double y_within) {
    qb_run_effect e = {.difference = qb_mean_of(y, m) - qb_mean_of(x, n), .freedom = n + m - 2.0};
    if (!(e.freedom > 0)) {
        e.error = e.between = (double)NAN;
        e.within = (x_within + y_within) / 2;
        return e;
    }
    double scatter = (squares_about_mean(x, n) + squares_about_mean(y, m)) / e.freedom;
    e.within = ((n - 1) * x_within + (m - 1) * y_within) / e.freedom;
    e.between = fmax(0, scatter - e.within);
    e.error = sqrt((e.between + x_within) / n + (e.between + y_within) / m);
    return e;
}

/* ---- many rows ---- */

typedef struct numbered {
    double p;
    int index;
} numbered;

static int by_p(const void *a, const void *b) {
    double x = ((const numbered *)a)->p, y = ((const numbered *)b)->p;
    return (x > y) - (x < y);
}

bool qb_holm(const double *p, int n, double *adjusted) {
    numbered *order;
    if (n < 1) return true;
    if (qb_alloc((size_t)n, sizeof *order, &order) != QB_OK) return false;
    int count = 0;
    for (int i = 0; i < n; i++) {
        if (!isnan(p[i])) order[count++] = (numbered){p[i], i};
        adjusted[i] = p[i];
    }
    qsort(order, (size_t)count, sizeof *order, by_p);
    double so_far = 0;
    for (int k = 0; k < count; k++) {
        so_far = fmin(1, fmax(so_far, order[k].p * (count - k)));
        adjusted[order[k].index] = so_far;
    }
    qb_free(order);
    return true;
}

double qb_samples_needed(double n, double half_width, double target) {
    double ratio = half_width / target;
    return ratio <= 1 ? n : ceil(n * ratio * ratio);
}

void qb_median_interval(const double *x, int n, double confidence, double *low, double *high) {
    double *sorted, tail = (1 - confidence) / 2;
    *low = *high = (double)NAN;
    int k = 0; /* P(fewer than k of n lie below the median) is at most the tail */
    while (2 * (k + 1) <= n && pbinom(k, n, 0.5, 1, 0) <= tail) k++;
    if (k == 0 || qb_alloc((size_t)n, sizeof *sorted, &sorted) != QB_OK) return;
    memcpy(sorted, x, (size_t)n * sizeof *sorted);
    qb_sort(sorted, n);
    *low = sorted[k - 1];
    *high = sorted[n - k];
    qb_free(sorted);
}
