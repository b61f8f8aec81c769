#include "base/change_points.h"

#include "base/memory.h"
#include "base/statistics.h"

#define MATHLIB_STANDALONE
#include <Rmath.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

qb_change_point_config qb_change_point_defaults(void) {
    return (qb_change_point_config){.window = 50, .level = 0.001, .least_change = 0};
}

/* ---- a point between two sides ---- */

typedef struct side {
    double mean, variance;
    int n;
} side;

/* Otava divides the squares by n, not by n - 1; its levels are tuned to that. */
static side side_of(const double *x, int n) {
    side s = {.n = n};
    for (int i = 0; i < n; i++) s.mean += x[i];
    s.mean /= n;
    for (int i = 0; i < n; i++) s.variance += (x[i] - s.mean) * (x[i] - s.mean);
    s.variance /= n;
    return s;
}

static qb_change_point point_between(const double *x, int begin, int index, int end) {
    side a = side_of(x + begin, index - begin), b = side_of(x + index, end - index);
    qb_change_point point = {.index = index, .p = 1, .mean_before = a.mean, .mean_after = b.mean};
    double freedom = a.n + b.n - 2;
    if (freedom < 1 || a.mean == b.mean) return point;
    double pooled = ((a.n - 1) * a.variance + (b.n - 1) * b.variance) / freedom;
    double t = (a.mean - b.mean) / sqrt(pooled * (1.0 / a.n + 1.0 / b.n));
    point.p = isinf(t) ? 0 : 2 * pt(fabs(t), freedom, 0, 0);
    return point;
}

/* The larger of the relative changes there and back; 0 where a mean is 0. */
static double magnitude(const qb_change_point *point) {
    double forth = point->mean_before == 0 ? 0 : point->mean_after / point->mean_before - 1,
           back = point->mean_after == 0 ? 0 : point->mean_before / point->mean_after - 1;
    return fmax(fabs(forth), fabs(back));
}

/* ---- the best split of an interval ---- */

typedef struct candidate {
    int index;
    double divergence; /* Q of the arXiv paper, equation 7 */
} candidate;

/* For a window of n values, with m = n - 1. heights[t] is the sum of the distances of value t + 1 to those
   before it. Row t of `reach` holds, in column j, the sum of the distances of value t to values t + 1 .. j
   + 1. Sums are made in Otava's order: among splits that are equal but for their rounding the first counts,
   in Otava and here. */
typedef struct workspace {
    int m;
    double *heights;                 /* m */
    double *reach;                   /* m x m */
    double *behind, *above, *within; /* of best_split: m x m; m; m */
} workspace;

static void fill(const double *x, int n, workspace *w) {
    long m = w->m = n - 1;
    for (long t = 0; t < m; t++) {
        double height = 0, reach = 0;
        for (long i = 0; i <= t; i++) height += fabs(x[i] - x[t + 1]);
        w->heights[t] = height;
        for (long j = 0; j < m; j++) {
            reach += j >= t ? fabs(x[t] - x[j + 1]) : 0;
            w->reach[t * m + j] = reach;
        }
    }
}

/* Maximises Q over tau, the values before, and kappa, the end of the second side, for x[begin..end) of the
   window: the mean distance between the sides less those within them, each sum read off the tables. What is
   no split, kappa before tau, counts as 0, as in Otava. */
static candidate best_split(const double *x, int begin, int end, workspace *w) {
    long k = end - begin - 1, m = w->m;
    const double *reach = w->reach + begin * m + begin;
    candidate best = {.divergence = -(double)INFINITY};
    double within = 0; /* the distances among the values before tau */
    for (long i = k - 1; i >= 0; i--)
        for (long j = 0; j < k; j++)
            w->behind[i * k + j] = (i + 1 < k ? w->behind[(i + 1) * k + j] : 0) + reach[i * m + j];
    for (long j = 0; j < k; j++) {
        double earlier = 0;
        for (int i = 0; i < begin; i++) earlier += fabs(x[i] - x[begin + j + 1]);
        w->within[j] = within;
        within += w->heights[begin + j] - earlier;
        w->above[j] = 0;
    }
    for (long i = 0; i < k; i++)
        for (long j = 0; j < k; j++) {
            double tau = (double)i + 1, kappa = (double)j + 2, q = 0;
            w->above[j] += reach[i * m + j];
            if (j >= i) q = 2 / kappa * (w->above[j] - w->within[i]);
            if (j >= i && i > 0) q -= 2 * (kappa - tau) / (kappa * (tau - 1)) * w->within[i];
            if (j > i) q -= 2 * tau / (kappa * (kappa - tau - 1)) * w->behind[(i + 1) * k + j];
            if (q > best.divergence) best = (candidate){begin + (int)i + 1, q};
        }
    return best;
}

/* ---- lists of points ---- */

typedef struct points {
    qb_change_point *list; /* ascending; room for one before each value */
    int count;
} points;

static int begin_of(const points *p, int i) {
    return i == 0 ? 0 : p->list[i - 1].index;
}

static int end_of(const points *p, int i, int n) {
    return i >= p->count ? n : p->list[i].index;
}

static void insert(points *p, qb_change_point point) {
    int at = 0;
    while (at < p->count && p->list[at].index < point.index) at++;
    if (at < p->count && p->list[at].index == point.index) return;
    memmove(p->list + at + 1, p->list + at, (size_t)(p->count - at) * sizeof *p->list);
    p->list[at] = point;
    p->count++;
}

static void test_again(const double *x, int n, points *p, int i) {
    if (i >= 0 && i < p->count)
        p->list[i] = point_between(x, begin_of(p, i), p->list[i].index, end_of(p, i + 1, n));
}

/* Splits x[0..n) where Q is greatest for as long as Student's t calls that split significant. */
static void divide(const double *x, int n, double level, workspace *w, points *p) {
    fill(x, n, w);
    for (p->count = 0;;) {
        candidate best = {.divergence = -(double)INFINITY};
        int begin = 0, end = 0;
        for (int i = 0; i <= p->count; i++) {
            int from = begin_of(p, i), to = end_of(p, i, n);
            if (to - from < 2) continue;
            candidate c = best_split(x, from, to, w);
            if (!(c.divergence > best.divergence)) continue;
            best = c;
            begin = from, end = to;
        }
        if (!end) return;
        qb_change_point point = point_between(x, begin, best.index, end);
        if (!(point.p <= level)) return;
        insert(p, point);
    }
}

/* Weak points: windows start half a window after the last one, or at its last point where that is later. */
static void split(const double *x, int n, int window, double level, workspace *w, points *found,
                  points *all) {
    for (int start = 0; start < n;) {
        divide(x + start, start + window < n ? window : n - start, level, w, found);
        int last = 0;
        for (int i = 0; i < found->count; i++) {
            found->list[i].index += start;
            last = found->list[i].index;
            insert(all, found->list[i]);
        }
        start = last > start + window / 2 ? last : start + window / 2;
    }
    for (int i = 0; i < all->count; i++) test_again(x, n, all, i);
}

/* Removes the weakest point until all are strong: by p, then by the least change. What is tested again behind
   a removal are the two points after it, as in Otava 0.8.0: the one before keeps its numbers. */
static void merge(const double *x, int n, const qb_change_point_config *config, points *p) {
    while (p->count) {
        int weakest = 0;
        for (int i = 1; i < p->count; i++)
            if (p->list[i].p > p->list[weakest].p) weakest = i;
        if (p->list[weakest].p < config->level) {
            weakest = 0;
            for (int i = 1; i < p->count; i++)
                if (magnitude(&p->list[i]) < magnitude(&p->list[weakest])) weakest = i;
            if (magnitude(&p->list[weakest]) > config->least_change) return;
        }
        p->count--;
        memmove(p->list + weakest, p->list + weakest + 1, (size_t)(p->count - weakest) * sizeof *p->list);
        test_again(x, n, p, weakest);
        test_again(x, n, p, weakest + 1);
    }
}

/* Weak points may have ten times the p, as in Otava; twice where that would not be a level any more. */
static double loose(double level) {
    return level < 0.05 ? level * 10 : level < 0.5 ? level * 2 : level;
}

qb_status qb_change_points(const double *values, int n, const qb_change_point_config *config,
                           qb_change_point **out, int *count) {
    points found = {0}, all = {0};
    workspace w = {0};
    qb_status st = QB_OK;
    *out = NULL;
    *count = 0;
    if (n < 2) return QB_OK;
    int window = config->window < n ? config->window : n;
    size_t m = (size_t)window - 1;
    QB_TRY(st, qb_alloc(m * m, sizeof(double), &w.reach));
    QB_TRY(st, qb_alloc(m * m, sizeof(double), &w.behind));
    QB_TRY(st, qb_alloc(m, sizeof(double), &w.heights));
    QB_TRY(st, qb_alloc(m, sizeof(double), &w.above));
    QB_TRY(st, qb_alloc(m, sizeof(double), &w.within));
    QB_TRY(st, qb_alloc((size_t)window, sizeof *found.list, &found.list));
    QB_TRY(st, qb_alloc((size_t)n, sizeof *all.list, &all.list));
    split(values, n, config->window, loose(config->level), &w, &found, &all);
    merge(values, n, config, &all);
    *count = all.count;
    if (all.count) {
        *out = all.list;
        all.list = NULL;
    }
out:
    qb_free(w.reach);
    qb_free(w.behind);
    qb_free(w.heights);
    qb_free(w.above);
    qb_free(w.within);
    qb_free(found.list);
    qb_free(all.list);
    return st;
}
