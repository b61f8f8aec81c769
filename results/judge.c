#include "results/judge.h"

#include "base/significance.h"
#include "base/statistics.h"

#include <math.h>
#include <string.h>

enum {
    LEAST_FLIPS = 13, /* fewer signs cannot pass the level that some twenty rows leave to each */
    MOST_NEEDED = 9999
};

/* ---- qualities, by window ---- */

/* Root mean square of the windows' differences, of a window's mean. */
static double scatter_pct(const qb_windowed *a, const qb_windowed *b) {
    double squares = 0, sum = 0;
    for (int64_t i = 0; i < a->n; i++) {
        double d = b->nll_nats[i] - a->nll_nats[i];
        squares += d * d;
        sum += a->nll_nats[i];
    }
    return 100 * sqrt(squares / (double)a->n) / (sum / (double)a->n);
}

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
    row->scatter_pct = scatter_pct(&a->windowed, &b->windowed);
    if (n < LEAST_FLIPS || n > QB_SIGN_FLIP_MAX) {
        row->p = qb_student_p(row->paired.difference, row->paired.stderr_value, (double)n - 1);
        return;
    }
    double differences[QB_SIGN_FLIP_MAX];
    for (int64_t i = 0; i < n; i++) differences[i] = b->windowed.nll_nats[i] - a->windowed.nll_nats[i];
    row->p = qb_sign_flip_p(differences, (int)n);
}

static int64_t bounded(double n) {
    return n >= 1 && n <= MOST_NEEDED ? (int64_t)n : 0;
}

/* The same texts give the same figures. Where every window moved and their sum did not, something changed
   that the tolerance of a mean cannot see. */
static void note_scatter(const qb_comparison *c, qb_compare_row *row) {
    if (!(row->scatter_pct > c->config.perplexity_tolerance_pct)) return;
    row->verdict = QB_CHANGED;
    qb_str_printf(&row->why,
                  "each window moved by %.2g %% (root mean square), up and down: other weights or other "
                  "arithmetic, not in itself worse",
                  row->scatter_pct);
}

static void decide_windows(const qb_comparison *c, qb_compare_row *row) {
    double worse = row->higher_is_better ? -row->change_pct : row->change_pct;
    bool moved = fabs(worse) > c->config.perplexity_tolerance_pct, proved = row->p_adjusted < c->config.alpha;
    if (moved && proved) {
        row->verdict = worse > 0 ? QB_REGRESSION : QB_IMPROVEMENT;
    } else if (!moved || worse < 0) {
        row->verdict = QB_PASS;
        if (!moved) note_scatter(c, row);
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
    bool bytes = by == QB_JUDGE_MEMORY && !strcmp(a->unit, "B");
    double floor_bytes = bytes ? config->memory_floor_mb * 1e6 : 0;
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
        qb_decide_time(c, row);
}
