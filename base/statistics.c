#include "base/statistics.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
