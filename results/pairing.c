#include "results/pairing.h"

#include "results/comparable.h"
#include "results/judge.h"
#include "results/text.h"

#include <math.h>
#include <string.h>

static const char *id_in(const qb_pairing *c, const qb_rows *set) {
    return set == c->after ? c->new_id : c->id;
}

static double change_pct(double before, double after) {
    return before == after ? 0 : before == 0 ? (double)INFINITY : (after - before) / fabs(before) * 100;
}

static bool same_row(const qb_row *a, const qb_row *b) {
    return !strcmp(a->name, b->name) && !strcmp(a->protocol, b->protocol) && !strcmp(a->dataset, b->dataset);
}

const qb_row *qb_pairing_counterpart(const qb_row *a, const qb_row_case *other) {
    int before = 0;
    for (const qb_row *r = a->of->rows; r != a; r++) before += same_row(r, a);
    for (int i = 0; i < other->n_rows; i++)
        if (same_row(&other->rows[i], a) && before-- == 0) return &other->rows[i];
    return NULL;
}

/* Why two rows are not compared; empty: they are. --force sets aside what tells speeds and memory apart. */
static void find_barrier(const qb_compare_config *config, const qb_row *a, const qb_row *b, qb_str *why) {
    qb_comparison_kind kind = qb_row_comparison(a);
    if (config->paired && kind == QB_COMPARE_SPEED) {
        if (strcmp(a->unit, b->unit) != 0) qb_str_text(why, "units differ");
        return;
    }
    bool on_device = kind != QB_COMPARE_QUALITY && !config->force;
    qb_rows_comparable(a, b, why);
    if (!why->length && !config->paired)
        qb_cases_comparable(a->of->json, b->of->json, on_device ? kind : QB_COMPARE_QUALITY, why);
    if (!why->length && on_device && !config->paired)
        qb_devices_comparable(a->of->device ? a->of->device->json : NULL,
                              b->of->device ? b->of->device->json : NULL, why);
}

/* That row in all documents of a set: those that compare with `other`, which lies on the opposite side. */
static qb_status gather(const qb_pairing *c, const qb_rows *set, const qb_row *a, const qb_row *other,
                        qb_pool *pool) {
    qb_status st = QB_OK;
    for (int d = 0; d < set->n_documents && st == QB_OK; d++) {
        const qb_row_case *in = qb_rows_case(set, &set->documents[d], id_in(c, set));
        const qb_row *r = in && in->status == QB_ROW_OK ? qb_pairing_counterpart(a, in) : NULL;
        if (!r || r->status != QB_ROW_OK || isnan(r->value) || qb_row_is_noisy(r)) continue;
        qb_str why = {0};
        find_barrier(&c->out->config, other, r, &why);
        bool comparable = why.length == 0;
        qb_str_free(&why);
        if (comparable) st = qb_pool_add(pool, r);
    }
    return st;
}

/* "noisy on the new side: 3 of 20 samples were disturbed". What is worse by the effect that matters may be a
   fault behind the noise: it is no regression, and not passed either. */
static void say_noise(const qb_pairing *c, const qb_row *a, const qb_row *b, qb_compare_row *row) {
    const qb_row *noisy = qb_row_is_noisy(b) ? b : a;
    double worse = row->higher_is_better ? -row->change_pct : row->change_pct;
    double effect = c->out->config.speed_effect_pct;
    row->verdict = QB_NOISY_ROW;
    if (worse >= effect && worse > 0) {
        row->verdict = QB_INCONCLUSIVE;
        row->needed = 1, row->needed_of = "run that is not noisy";
        qb_str_printf(&row->why, "worse by %g %% or more, but ", effect);
    }
    qb_str_printf(&row->why, "noisy on the %s side: ", noisy == b ? "new" : "old");
    if (noisy->noise)
        qb_text_clean(noisy->noise, 120, &row->why);
    else
        qb_str_printf(&row->why, "samples deviate by more than %.0f %%", 100 * QB_NOISY);
}

/* Noisy runs of the new side that show no loss: they decide nothing, and yet they do not confirm the others.
 */
static qb_status count_unmoved(const qb_pairing *c, const qb_row *b, qb_compare_row *row) {
    double effect = c->out->config.speed_effect_pct / 100;
    for (int d = 0; d < c->after->n_documents; d++) {
        const qb_row_case *in = qb_rows_case(c->after, &c->after->documents[d], c->new_id);
        const qb_row *r = in && in->status == QB_ROW_OK ? qb_pairing_counterpart(b, in) : NULL;
        if (!r || !qb_row_is_noisy(r) || !(r->value > 0)) continue;
        qb_pool pool = {0};
        qb_status st = qb_pool_add(&pool, r);
        double change = st == QB_OK ? exp(pool.centers[0]) / row->old_value - 1 : 0;
        qb_pool_free(&pool);
        if (st != QB_OK) return st;
        row->noisy_unmoved += (b->higher_is_better ? -change : change) < effect;
    }
    return QB_OK;
}

static qb_status compare_times(const qb_pairing *c, const qb_row *a, const qb_row *b, qb_compare_row *row) {
    qb_pool before = {0}, after = {0};
    qb_status st;
    QB_TRY(st, gather(c, c->before, a, b, &before));
    QB_TRY(st, gather(c, c->after, b, a, &after));
    if (!before.n || !after.n)
        say_noise(c, a, b, row);
    else
        qb_judge_time(&before, &after, c->out->config.run_spread_pct, row);
    st = count_unmoved(c, b, row);
out:
    qb_pool_free(&before);
    qb_pool_free(&after);
    return st;
}

/* The row in the i-th document of a set, or NULL. */
static const qb_row *in_document(const qb_pairing *c, const qb_rows *set, int i, const qb_row *like) {
    const qb_row_case *in = qb_rows_case(set, &set->documents[i], id_in(c, set));
    const qb_row *r = in && in->status == QB_ROW_OK ? qb_pairing_counterpart(like, in) : NULL;
    return r && r->status == QB_ROW_OK && r->value > 0 ? r : NULL;
}

static qb_status compare_pairs(const qb_pairing *c, const qb_row *a, const qb_row *b, qb_compare_row *row) {
    int n = c->before->n_documents < c->after->n_documents ? c->before->n_documents : c->after->n_documents;
    double *logs[2] = {NULL, NULL};
    qb_status st;
    for (int k = 0; k < 2; k++) QB_TRY(st, qb_alloc((size_t)n, sizeof **logs, &logs[k]));
    int pairs = 0;
    for (int i = 0; i < n; i++) {
        const qb_row *x = in_document(c, c->before, i, a), *y = in_document(c, c->after, i, b);
        if (!x || !y) continue;
        logs[0][pairs] = log(x->value);
        logs[1][pairs++] = log(y->value);
    }
    if (pairs) qb_judge_pairs(logs[0], logs[1], pairs, row);
out:
    qb_free(logs[0]);
    qb_free(logs[1]);
    return st;
}

qb_status qb_pairing_judge(const qb_pairing *c, const qb_row *a, const qb_row *b, qb_compare_row *row) {
    find_barrier(&c->out->config, a, b, &row->why);
    if (row->why.length) {
        row->verdict = QB_INCOMPARABLE;
        return QB_OK;
    }
    if (isnan(a->value) || isnan(b->value)) {
        qb_judge_hash(a, b, row);
        return QB_OK;
    }
    row->change_pct = change_pct(row->old_value, row->new_value);
    row->new_low = b->min, row->new_high = b->max;
    if (b->stderr_value > 0) {
        row->new_low = b->value - b->stderr_value;
        row->new_high = b->value + b->stderr_value;
    }
    if (qb_row_judge(a) == QB_JUDGE_TIME)
        return c->out->config.paired ? compare_pairs(c, a, b, row) : compare_times(c, a, b, row);
    qb_judge_windows(a, b, row);
    if (!row->sums) qb_judge_size(a, &c->out->config, row);
    return QB_OK;
}
