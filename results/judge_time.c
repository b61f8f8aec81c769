/* Times and speeds. A run has an effect of its own (where buffers lie, the clock that the core settled on,
   what else ran), which no number of samples within it shows, so runs are what is counted: their scatter is
   taken from the runs of both sides, and where these are too few, assumed. */
#include "base/significance.h"
#include "base/statistics.h"
#include "results/judge.h"

#include <math.h>

enum {
    LEAST_FREEDOM = 2, /* three runs in all: fewer tell nothing of how runs scatter */
    MOST_NEEDED = 9999,
    MOST_RUNS = 200
};
#define INTERVAL_LEVEL  0.10   /* of both sides: a change beyond either end is excluded at 95 % */
#define MEDIAN_VARIANCE 1.5708 /* of a median of many against a mean's, for normal values: pi / 2 */

/* ---- pools ---- */

static bool has_rounds(const qb_row *row) {
    for (int i = 0; i < row->n_rounds; i++)
        if (!(row->rounds[i] > 0)) return false;
    return row->n_rounds > 0;
}

/* Squared standard error of the median of n logarithms. */
static double median_error(const double *logs, int n) {
    double sd = qb_stddev(logs, n);
    return isnan(sd) ? 0 : MEDIAN_VARIANCE * sd * sd / n;
}

qb_status qb_pool_add(qb_pool *pool, const qb_row *row) {
    int n = row->n_samples > 0 ? row->n_samples : 1, rounds = has_rounds(row) ? row->n_rounds : 1;
    int samples_from = pool->n, rounds_from = pool->rounds;
    qb_status st;
    QB_TRY(st, qb_grow(&pool->logs, &pool->capacity, (size_t)(pool->n + n), sizeof *pool->logs));
    QB_TRY(st, qb_grow(&pool->processes, &pool->processes_capacity, (size_t)(pool->rounds + rounds),
                       sizeof *pool->processes));
    QB_TRY(st,
           qb_grow(&pool->centers, &pool->centers_capacity, (size_t)pool->runs + 1, sizeof *pool->centers));
    QB_TRY(st, qb_grow(&pool->within, &pool->within_capacity, (size_t)pool->runs + 1, sizeof *pool->within));
    for (int i = 0; i < n; i++)
        pool->logs[pool->n++] = log(row->n_samples > 0 ? row->samples[i] : row->value);
    double median = qb_median(pool->logs + samples_from, n);
    for (int i = 0; i < rounds; i++)
        pool->processes[pool->rounds++] = has_rounds(row) ? log(row->rounds[i]) : median;
    /* The middle one of three processes or more is not moved by a stray one. */
    pool->centers[pool->runs] = qb_median(pool->processes + rounds_from, rounds);
    pool->within[pool->runs++] = rounds > 1 ? median_error(pool->processes + rounds_from, rounds)
                                            : median_error(pool->logs + samples_from, n);
    pool->sampled |= n > 1;
out:
    return st;
}

void qb_pool_free(qb_pool *pool) {
    qb_free(pool->logs);
    qb_free(pool->processes);
    qb_free(pool->centers);
    qb_free(pool->within);
    *pool = (qb_pool){0};
}

/* ---- the first step ---- */

static double pct_of(double log_change) {
    return 100 * expm1(log_change);
}

/* What a run's figure is uncertain by from what is within it: one value for all runs of both sides, the
   middle one, so that a stray process counts where the runs' figures show it and not twice. */
static double error_within(const qb_pool *before, const qb_pool *after) {
    double all[2] = {qb_median(before->within, before->runs), qb_median(after->within, after->runs)};
    return before->runs > 2 ? all[0] : after->runs > 2 ? all[1] : (all[0] + all[1]) / 2;
}

void qb_judge_time(const qb_pool *before, const qb_pool *after, double assumed_pct, qb_compare_row *row) {
    double within = error_within(before, after);
    qb_run_effect e =
        qb_runs_differ(before->centers, before->runs, within, after->centers, after->runs, within);
    bool measured = e.freedom >= LEAST_FREEDOM, samples = before->sampled && after->sampled;
    double was = qb_median(before->centers, before->runs), is = qb_median(after->centers, after->runs);
    row->old_value = exp(was);
    row->new_value = exp(is);
    row->change_pct = was == is ? 0 : pct_of(is - was);
    row->samples[0] = before->n, row->samples[1] = after->n;
    row->runs[0] = before->runs, row->runs[1] = after->runs;
    row->processes[0] = before->rounds, row->processes[1] = after->rounds;
    if (!measured && !samples) {
        row->verdict = QB_INCOMPARABLE;
        qb_str_printf(&row->why, "timed once, without samples (%d or more runs in all compare it)",
                      LEAST_FREEDOM + 2);
        return;
    }
    double assumed = log1p(assumed_pct / 100), half_width;
    double error = sqrt((fmax(assumed * assumed, measured ? e.between : 0) + within) *
                        (1.0 / before->runs + 1.0 / after->runs));
    qb_shift shift = {0, is - was, is - was};
    row->p_assumed = qb_normal_p(is - was, error);
    row->p_ranks = qb_mann_whitney_p(before->processes, before->rounds, after->processes, after->rounds);
    if (measured) {
        row->judged_by = QB_BY_RUNS;
        row->spread_pct = pct_of(sqrt(e.between + e.within));
        row->p = qb_student_p(e.difference, e.error, e.freedom);
        half_width = e.error * qb_student_quantile(1 - INTERVAL_LEVEL / 2, e.freedom);
    } else {
        row->judged_by = QB_BY_ASSUMPTION;
        row->spread_pct = assumed_pct;
        shift = qb_shift_between(before->logs, before->n, after->logs, after->n, INTERVAL_LEVEL);
        row->p = fmax(row->p_assumed, qb_mann_whitney_p(before->logs, before->n, after->logs, after->n));
        half_width = error * -qb_normal_quantile(INTERVAL_LEVEL / 2);
    }
    row->low_pct = pct_of(fmin(is - was - half_width, shift.low));
    row->high_pct = pct_of(fmax(is - was + half_width, shift.high));
}

/* Student's t takes runs for normal, and they are not: a process in some dozens is off by as much as a fault
   would be. So the ranks of the processes have to agree, where they are many enough to prove anything at
   all; where not, the change has to be more than assumed scatter could make. */
void qb_judge_time_tails(const qb_comparison *c, qb_compare_row *row) {
    if (row->judged_by != QB_BY_RUNS) return;
    double level = c->config.alpha / fmax(1, c->tested);
    if (qb_mann_whitney_least_p(row->processes[0], row->processes[1]) < level) {
        row->p = fmax(row->p, row->p_ranks);
    } else {
        row->judged_by = QB_BY_RUNS_AND_ASSUMPTION;
        row->p = fmax(row->p, row->p_assumed);
    }
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
    row->judged_by = QB_BY_PAIRS;
}

/* ---- the second step ---- */

/* Samples a side that the exact test needs to be able to pass this level. */
static int least_samples(double level) {
    int n = 1;
    while (n < 1000 && !(qb_mann_whitney_least_p(n, n) < level)) n++;
    return n;
}

/* All differences of pairs on one side have p = 2 / 2^n. */
static int least_pairs(double level) {
    return (int)floor(1 - log2(level)) + 1;
}

/* Runs a side of which Student's t and the ranks of the processes tell a change of that size. */
static int64_t runs_needed(const qb_compare_row *row, double change, double t_level, double rank_level) {
    double spread = log1p(row->spread_pct / 100);
    int processes = row->processes[1] / row->runs[1];
    for (int n = 2; n <= MOST_RUNS; n++) {
        double half_width = qb_student_quantile(1 - t_level / 2, 2.0 * n - 2) * spread * sqrt(2.0 / n);
        if (half_width < change && qb_mann_whitney_least_p(n * processes, n * processes) < rank_level)
            return n;
    }
    return 0;
}

/* How many would tell: a change of `pct` from none, at the level of a verdict or of the interval. */
static void say_needed(const qb_comparison *c, double pct, bool proof, qb_compare_row *row) {
    double level = c->config.alpha / fmax(1, c->tested);
    bool samples = row->judged_by == QB_BY_ASSUMPTION && row->spread_pct == 0; /* runs do not differ */
    if (row->pairs || samples) {
        double half = (row->high_pct - row->low_pct) / 2;
        double n = row->pairs ? row->pairs : fmin(row->samples[0], row->samples[1]);
        double needed = isfinite(half) ? qb_samples_needed(n, half, pct) : n;
        needed = fmax(fmax(needed, samples ? least_samples(level) : least_pairs(level)), n + 1);
        row->needed = needed <= MOST_NEEDED ? (int64_t)needed : 0;
        row->needed_of = samples ? "samples a side" : "pairs";
    } else {
        row->needed = runs_needed(row, log1p(pct / 100), proof ? level : INTERVAL_LEVEL, proof ? level : 1.1);
        row->needed_of = "runs a side";
    }
}

void qb_decide_time(const qb_comparison *c, qb_compare_row *row) {
    double effect = c->config.speed_effect_pct;
    double worse = row->higher_is_better ? -row->change_pct : row->change_pct;
    double worst = row->higher_is_better ? -row->low_pct : row->high_pct;
    bool moved = fabs(worse) >= effect && worse != 0, proved = row->p_adjusted < c->config.alpha;
    if (moved && proved && worse > 0 && row->noisy_unmoved >= row->runs[1] && row->runs[1] > 0) {
        row->verdict = QB_INCONCLUSIVE;
        row->needed = 1, row->needed_of = "run that is not noisy";
        qb_str_printf(&row->why, "worse by %g %% or more, but not in %d noisy run%s of the new side", effect,
                      row->noisy_unmoved, row->noisy_unmoved > 1 ? "s" : "");
    } else if (moved && proved) {
        row->verdict = worse > 0 ? QB_REGRESSION : QB_IMPROVEMENT;
    } else if (moved && worse > 0) {
        row->verdict = QB_INCONCLUSIVE;
        say_needed(c, worse, true, row);
        qb_str_printf(&row->why, "worse by %g %% or more, not proved", effect);
    } else {
        row->verdict = QB_PASS;
        if (effect > 0 && !(worst < effect)) say_needed(c, effect - fmax(worse, 0), false, row);
    }
}
