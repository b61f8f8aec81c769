#include "base/statistics.h"

#include "base/memory.h"

#define MATHLIB_STANDALONE
#include <Rmath.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXACT_MAX = 50
}; /* above it the exact distribution's table grows past 26 MB and the normal one is as good */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void qb_sort(double *x, long n) {
    qsort(x, (size_t)n, sizeof *x, ascending);
}

qb_estimate qb_estimate_of(double sum, double squares, double n) {
    double mean = sum / n, variance = squares / n - mean * mean;
    return (qb_estimate){mean, n > 1 ? sqrt(fmax(variance, 0) / (n - 1)) : (double)NAN};
}

double qb_median(const double *x, int n) {
    if (n <= 0) return (double)NAN;
    double *sorted;
    if (qb_alloc((size_t)n, sizeof *sorted, &sorted) != QB_OK) return (double)NAN;
    memcpy(sorted, x, (size_t)n * sizeof *sorted);
    qb_sort(sorted, n);
    double median = n % 2 ? sorted[n / 2] : sorted[n / 2 - 1] + (sorted[n / 2] - sorted[n / 2 - 1]) / 2;
    qb_free(sorted);
    return median;
}

double qb_mean_of(const double *x, int n) {
    if (n <= 0) return (double)NAN;
    double mean = 0;
    for (int i = 0; i < n; i++) mean += (x[i] - mean) / (i + 1);
    return mean;
}

double qb_stddev(const double *x, int n) {
    if (n < 2) return (double)NAN;
    double mean = qb_mean_of(x, n), squares = 0;
    for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    return sqrt(squares / (n - 1));
}

typedef struct ranked {
    double value;
    bool from_x;
} ranked;

static int by_value(const void *a, const void *b) {
    return ascending(&((const ranked *)a)->value, &((const ranked *)b)->value);
}

/* Rank sum of x with midranks for ties; *ties gets sum(t^3 - t) over groups of equal values. */
static double rank_sum(const ranked *all, int count, double *ties) {
    double sum = 0;
    *ties = 0;
    for (int i = 0; i < count;) {
        int j = i;
        while (j < count && all[j].value == all[i].value) j++;
        double t = j - i, midrank = (i + 1 + j) / 2.0;
        for (int k = i; k < j; k++) sum += all[k].from_x ? midrank : 0;
        *ties += t * t * t - t;
        i = j;
    }
    return sum;
}

double qb_mann_whitney_p(const double *x, int n, const double *y, int m) {
    if (n < 1 || m < 1) return (double)NAN;
    ranked *all;
    int count = n + m;
    if (qb_alloc((size_t)count, sizeof *all, &all) != QB_OK) return (double)NAN;
    for (int i = 0; i < count; i++) all[i] = (ranked){i < n ? x[i] : y[i - n], i < n};
    qsort(all, (size_t)count, sizeof *all, by_value);
    double ties, u = rank_sum(all, count, &ties) - n * (n + 1.0) / 2;
    qb_free(all);
    double half = (double)n * m / 2, p;
    if (ties == 0 && n <= EXACT_MAX && m <= EXACT_MAX) {
        double tail = u > half ? pwilcox(u - 1, n, m, 0, 0) : pwilcox(u, n, m, 1, 0);
        p = 2 * tail;
    } else {
        double sd = sqrt((double)n * m / 12 * (count + 1 - ties / ((double)count * (count - 1))));
        if (!(sd > 0)) return 1; /* all values are equal */
        double z = fmax(0, fabs(u - half) - 0.5) / sd;
        p = 2 * pnorm(z, 0, 1, 0, 0);
    }
    return fmin(1, p);
}
