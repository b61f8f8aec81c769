#include "results/judge.h"

#include "base/significance.h"
#include "base/statistics.h"

#include <math.h>
#include <string.h>

enum {
    LEAST_FLIPS = 13, /* fewer signs cannot pass the level that some twenty rows leave to each */
    LEAST_RUNS = 3,   /* fewer tell nothing of how runs differ from each other */
    MOST_NEEDED = 9999
};
#define INTERVAL_LEVEL 0.10 /* of both sides: a change beyond either end is excluded at 95 % */

/* ---- pools ---- */

qb_status qb_pool_add(qb_pool *pool, const qb_row *row) {
    int n = row->n_samples > 0 ? row->n_samples : 1, from = pool->n;
    qb_status st;
    QB_TRY(st, qb_grow(&pool->logs, &pool->capacity, (size_t)(pool->n + n), sizeof *pool->logs));
    QB_TRY(st,
           qb_grow(&pool->centers, &pool->centers_capacity, (size_t)pool->runs + 1, sizeof *pool->centers));
    for (int i = 0; i < n; i++)
        pool->logs[pool->n++] = log(row->n_samples > 0 ? row->samples[i] : row->value);
    pool->centers[pool->runs++] = qb_median(pool->logs + from, n);
    pool->sampled |= n > 1;
out:
    return st;
}

void qb_pool_free(qb_pool *pool) {
    qb_free(pool->logs);
    qb_free(pool->centers);
    *pool = (qb_pool){0};
}

/* ---- times and speeds ---- */

/* What runs of unchanged code differ by, from the old side's: the p value of a new run's place among them and
   the half-width of the interval of the change, both by Student's t of a prediction. */
static bool between_runs(const qb_pool *before, const qb_pool *after, double *p, double *half_width) {
    if (before->runs < LEAST_RUNS) return false;
    double error = qb_stddev(before->centers, before->runs) * sqrt(1.0 / before->runs + 1.0 / after->runs);
    double change = qb_mean_of(after->centers, after->runs) - qb_mean_of(before->centers, before->runs);
    *p = qb_student_p(change, error, before->runs - 1);
    *half_width = error * qb_student_quantile(1 - INTERVAL_LEVEL / 2, before->runs - 1);
    return true;
}

static double pct_of(double log_change) {
    return 100 * expm1(log_change);
}

void qb_judge_time(const qb_pool *before, const qb_pool *after, qb_compare_row *row) {
    double run_p = 0, half_width = 0;
    bool runs = between_runs(before, after, &run_p, &half_width), samples = before->sampled && after->sampled;
    row->old_value = exp(qb_median(before->logs, before->n));
    row->new_value = exp(qb_median(after->logs, after->n));
    row->change_pct = row->old_value == row->new_value
                          ? 0
                          : pct_of(qb_median(after->logs, after->n) - qb_median(before->logs, before->n));
    row->samples[0] = before->n, row->samples[1] = after->n;
    row->runs[0] = before->runs, row->runs[1] = after->runs;
    if (!runs && !samples) {
        row->verdict = QB_INCOMPARABLE;
        qb_str_printf(&row->why, "timed once, without samples (%d or more runs in a directory compare it)",
                      LEAST_RUNS);
        return;
    }
    double change = log1p(row->change_pct / 100), low = change, high = change;
    if (samples) {
        qb_shift shift = qb_shift_between(before->logs, before->n, after->logs, after->n, INTERVAL_LEVEL);
        low = shift.low, high = shift.high;
        row->p = qb_mann_whitney_p(before->logs, before->n, after->logs, after->n);
    }
    if (runs) {
        low = fmin(low, change - half_width);
        high = fmax(high, change + half_width);
        row->p = fmax(samples ? row->p : 0, run_p);
    }
    row->low_pct = pct_of(low);
    row->high_pct = pct_of(high);
}

/* What drifts from pair to pair is in both sides of each, and their differences are free of it. The test
   takes them for symmetric about what lies between the sides (Wilcoxon), the interval for nothing at all. */
void qb_judge_pairs(const double *before, double *after, int n, qb_compare_row *row) {
    double low, high;
    row->old_value = exp(qb_median(before, n));
    row->new_value = exp(qb_median(after, n));
    for (int i = 0; i < n; i++) after[i] -= before[i];
    row->change_pct = pct_of(qb_median(after, n));
    row->p = qb_wilcoxon_p(after, n);
    qb_median_interval(after, n, 1 - INTERVAL_LEVEL, &low, &high);
    row->low_pct = isnan(low) ? -100 : pct_of(low);
    row->high_pct = isnan(high) ? (double)INFINITY : pct_of(high);
    row->samples[0] = row->samples[1] = row->pairs = n;
}

static int64_t bounded(double n) {
    return n >= 1 && n <= MOST_NEEDED ? (int64_t)n : 0;
}

/* Samples a side that the exact test needs to be able to pass this level. */
static int least_samples(double level) {
    int n = 1;
    while (n < 1000 && !(qb_mann_whitney_least_p(n, n) < level)) n++;
    return n;
}

/* The same for pairs: all differences on one side have p = 2 / 2^n. */
static int least_pairs(double level) {
    return (int)floor(1 - log2(level)) + 1;
}

/* How many would tell: until the interval excludes no change, or the change that matters. */
static void say_needed(const qb_comparison *c, double target, qb_compare_row *row) {
    double half = (row->high_pct - row->low_pct) / 2;
    bool by_runs = row->runs[0] >= LEAST_RUNS;
    double n = by_runs ? row->runs[0] : fmin(row->samples[0], row->samples[1]);
    double needed = isfinite(half) ? qb_samples_needed(n, half, target) : n;
    double level = c->config.alpha / fmax(1, c->tested);
    if (row->pairs)
        needed = fmax(needed, least_pairs(level));
    else if (!by_runs)
        needed = fmax(needed, least_samples(level));
    row->needed = bounded(fmax(needed, n + 1));
    row->needed_of = row->pairs ? "pairs" : by_runs ? "runs" : "samples a side";
}

static void decide_time(const qb_comparison *c, qb_compare_row *row) {
    double effect = c->config.speed_effect_pct;
    double worse = row->higher_is_better ? -row->change_pct : row->change_pct;
    double worst = row->higher_is_better ? -row->low_pct : row->high_pct;
    bool moved = fabs(worse) >= effect && worse != 0, proved = row->p_adjusted < c->config.alpha;
    if (moved && proved) {
        row->verdict = worse > 0 ? QB_REGRESSION : QB_IMPROVEMENT;
    } else if (moved && worse > 0) {
        row->verdict = QB_INCONCLUSIVE;
        say_needed(c, worse, row);
        qb_str_printf(&row->why, "worse by %g %% or more, not proved", effect);
    } else {
        row->verdict = QB_PASS;
        if (effect > 0 && !(worst < effect)) say_needed(c, effect - fmax(worse, 0), row);
    }
}

/* ---- qualities, by window ---- */

void qb_judge_windows(const qb_row *a, const qb_row *b, qb_compare_row *row) {
    if (!qb_rows_paired(a, b, &row->paired)) {
        row->paired = (qb_paired){0};
        return;
    }
    int64_t n = a->windowed.n;
    bool equal = true; /* nothing random is in it, so nothing to test */
    for (int64_t i = 0; equal && i < n; i++) equal = a->windowed.nll_nats[i] == b->windowed.nll_nats[i];
    if (n < QB_MIN_WINDOWS || equal) return;
    row->sums = n;
    if (n < LEAST_FLIPS || n > QB_SIGN_FLIP_MAX) {
        row->p = qb_student_p(row->paired.difference, row->paired.stderr_value, (double)n - 1);
        return;
    }
    double differences[QB_SIGN_FLIP_MAX];
    for (int64_t i = 0; i < n; i++) differences[i] = b->windowed.nll_nats[i] - a->windowed.nll_nats[i];
    row->p = qb_sign_flip_p(differences, (int)n);
}

static void decide_windows(const qb_comparison *c, qb_compare_row *row) {
    double worse = row->higher_is_better ? -row->change_pct : row->change_pct;
    bool moved = fabs(worse) > c->config.perplexity_tolerance_pct, proved = row->p_adjusted < c->config.alpha;
    if (moved && proved) {
        row->verdict = worse > 0 ? QB_REGRESSION : QB_IMPROVEMENT;
    } else if (!moved || worse < 0) {
        row->verdict = QB_PASS;
    } else {
        row->verdict = QB_INCONCLUSIVE;
        double z = qb_student_quantile(1 - c->config.alpha / fmax(1, c->tested) / 2, (double)row->sums - 1);
        double windows = (double)row->paired.windows;
        row->needed = bounded(
            fmax(qb_samples_needed(windows, z * row->paired.stderr_value, fabs(row->paired.difference)),
                 windows + 1));
        row->needed_of = "windows";
        qb_str_printf(&row->why, "worse by more than %g %%, not proved", c->config.perplexity_tolerance_pct);
    }
}

/* ---- the rest ---- */

/* Pages and threads' buffers make some megabytes of a process's memory a matter of chance. */
void qb_judge_size(const qb_row *a, const qb_compare_config *config, qb_compare_row *row) {
    qb_judge by = qb_row_judge(a);
    double tolerance =
        by == QB_JUDGE_QUALITY ? config->perplexity_tolerance_pct : config->memory_tolerance_pct;
    double floor_bytes = by == QB_JUDGE_MEMORY ? config->memory_floor_mb * 1e6 : 0;
    bool moved = fabs(row->change_pct) > tolerance && fabs(row->new_value - row->old_value) > floor_bytes;
    bool better = (row->new_value > row->old_value) == row->higher_is_better;
    row->verdict = !moved ? QB_PASS : better ? QB_IMPROVEMENT : QB_REGRESSION;
}

void qb_judge_hash(const qb_row *a, const qb_row *b, qb_compare_row *row) {
    bool same = a->sha256 && b->sha256 ? !strcmp(a->sha256, b->sha256) : a->sha256 == b->sha256;
    row->verdict = same ? QB_PASS : QB_CHANGED;
    if (!same) qb_str_text(&row->why, "the hash differs: other arithmetic, not in itself worse");
}

void qb_judge_tested(const qb_comparison *c, qb_compare_row *row) {
    if (row->sums)
        decide_windows(c, row);
    else
        decide_time(c, row);
}
