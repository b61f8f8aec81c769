/* Comparison of two documents: cases by id, rows by name, protocol and dataset. Three rules, by unit:
   qualities and sizes move by a relative tolerance; speeds and times move when a Mann-Whitney test on the
   samples AND a minimum effect say so, memory by a relative tolerance and an absolute floor, both only on
   the same device. What makes two figures comparable stands in comparable.c. What cannot be
   compared is said, never guessed. */
#include "base/memory.h"
#include "base/significance.h"
#include "base/statistics.h"
#include "results/comparable.h"
#include "results/compare_rows.h"
#include "results/text.h"

#include <math.h>
#include <string.h>

/* ---- one row against its counterpart ---- */

typedef struct comparison {
    const qb_compare_config *config;
    qb_compare_rows *rows;
    const char *id;
    qb_str
        barriers[QB_COMPARE_SPEED + 1]; /* by kind: why this case's rows are not compared; empty: they are */
} comparison;

static double change_pct(double before, double after) {
    return before == after ? 0 : before == 0 ? (double)INFINITY : (after - before) / fabs(before) * 100;
}

static void judge(qb_compare_row *row, bool moved, bool higher_is_better) {
    bool better = (row->new_value > row->old_value) == higher_is_better;
    row->verdict = !moved ? QB_SAME : better ? QB_BETTER : QB_WORSE;
}

/* A row that stayed noisy proves nothing: it never decides a gate. */
static void refuse_noise(const qb_row *a, const qb_row *b, qb_compare_row *row) {
    const qb_row *sides[] = {a, b};
    for (int i = 0; i < 2 && row->verdict != QB_SAME; i++) {
        if (!qb_row_is_noisy(sides[i])) continue;
        row->verdict = QB_INCOMPARABLE;
        qb_str_printf(&row->why, "noise on the %s side: ", i ? "new" : "old");
        if (sides[i]->noise)
            qb_text_clean(sides[i]->noise, 120, &row->why);
        else
            qb_str_printf(&row->why, "samples deviate by more than %.0f %%", 100 * QB_NOISY);
        qb_str_text(&row->why, " (repeat on a quiet machine)");
    }
}

static void judge_timed(const comparison *c, const qb_row *a, const qb_row *b, qb_compare_row *row) {
    int n = a->n_samples, m = b->n_samples;
    if (n > 0 && m > 0) {
        row->old_value = qb_median(a->samples, n);
        row->new_value = qb_median(b->samples, m);
        row->change_pct = change_pct(row->old_value, row->new_value);
        row->p = qb_mann_whitney_p(a->samples, n, b->samples, m);
    }
    bool large = fabs(row->change_pct) >= c->config->speed_effect_pct;
    /* The least p that so few samples can give, 2 / binomial(n + m, n): below it no difference can be proved.
     */
    double least = qb_mann_whitney_least_p(n, m);
    if (large && !(least < c->config->alpha)) {
        row->verdict = QB_INCOMPARABLE;
        if (n > 0 && m > 0)
            qb_str_printf(
                &row->why,
                "changed by more than %g %%, but %d and %d samples are too few for alpha %g (repeat more)",
                c->config->speed_effect_pct, n, m, c->config->alpha);
        else
            qb_str_printf(&row->why, "changed by more than %g %%, but timed once, without samples",
                          c->config->speed_effect_pct);
    } else {
        judge(row, large && row->p < c->config->alpha, a->higher_is_better);
        refuse_noise(a, b, row);
    }
}

static void judge_hash(const qb_row *a, const qb_row *b, qb_compare_row *row) {
    bool same = a->sha256 && b->sha256 ? !strcmp(a->sha256, b->sha256) : a->sha256 == b->sha256;
    row->verdict = same ? QB_SAME : QB_CHANGED;
    if (!same) qb_str_text(&row->why, "the hash differs: other arithmetic, not in itself worse");
}

/* Pages and threads' buffers make some megabytes of a process's memory a matter of chance. */
static void judge_size(const comparison *c, const qb_row *a, qb_compare_row *row) {
    qb_judge by = qb_row_judge(a);
    double tolerance =
        by == QB_JUDGE_QUALITY ? c->config->perplexity_tolerance_pct : c->config->memory_tolerance_pct;
    double floor_bytes = by == QB_JUDGE_MEMORY ? c->config->memory_floor_mb * 1e6 : 0;
    judge(row, fabs(row->change_pct) > tolerance && fabs(row->new_value - row->old_value) > floor_bytes,
          a->higher_is_better);
}

static void compare_ok_rows(const comparison *c, const qb_row *a, const qb_row *b, qb_compare_row *row) {
    qb_rows_comparable(a, b, &row->why);
    if (!row->why.length) qb_str_text(&row->why, qb_str_get(&c->barriers[qb_row_comparison(a)]));
    if (row->why.length) {
        row->verdict = QB_INCOMPARABLE;
        return;
    }
    if (isnan(a->value) || isnan(b->value)) {
        judge_hash(a, b, row);
        return;
    }
    row->change_pct = change_pct(row->old_value, row->new_value);
    if (!qb_rows_paired(a, b, &row->paired)) row->paired = (qb_paired){0};
    if (qb_row_judge(a) == QB_JUDGE_TIME)
        judge_timed(c, a, b, row);
    else
        judge_size(c, a, row);
}

static void name_row(const qb_row *m, qb_compare_row *row) {
    const char *parts[] = {m->name, m->dataset, m->protocol};
    for (size_t i = 0; i < 3; i++) {
        if (!*parts[i]) continue;
        if (row->metric.length) qb_str_text(&row->metric, " ");
        qb_text_clean(parts[i], 40, &row->metric);
    }
    qb_text_clean(m->unit, 12, &row->unit);
}

static bool same_row(const qb_row *a, const qb_row *b) {
    return !strcmp(a->name, b->name) && !strcmp(a->protocol, b->protocol) && !strcmp(a->dataset, b->dataset);
}

/* The row of the new case that `a` is compared with. Where a case measured the same thing several times (a
   list that names a length twice), the first meets the first, the second the second. */
static const qb_row *counterpart(const qb_row *a, const qb_row_case *new_case) {
    int before = 0;
    for (const qb_row *r = a->of->rows; r != a; r++) before += same_row(r, a);
    for (int i = 0; i < new_case->n_rows; i++)
        if (same_row(&new_case->rows[i], a) && before-- == 0) return &new_case->rows[i];
    return NULL;
}

static const char *status_word(qb_row_status status) {
    return status == QB_ROW_OK ? "ok" : status == QB_ROW_SKIPPED ? "skipped" : "failed";
}

static qb_status compare_row(const comparison *c, const qb_row *a, const qb_row_case *new_case) {
    bool had = a->status == QB_ROW_OK;
    const qb_row *b = counterpart(a, new_case);
    qb_compare_row *row;
    qb_status st = qb_compare_rows_add(c->rows, c->id, &row);
    if (st != QB_OK) return st;
    name_row(a, row);
    row->old_value = a->value;
    if (b) row->new_value = b->value;
    bool has = b && b->status == QB_ROW_OK;
    if (had && has) {
        compare_ok_rows(c, a, b, row);
        return QB_OK;
    }
    if (!had) {
        row->verdict = has ? QB_BETTER : QB_SAME; /* measured now, or still not */
        return QB_OK;
    }
    /* Of the same metric and dataset under another protocol: the measurement changed, it was not lost. */
    const qb_row *other = b ? NULL : qb_rows_find(new_case, a->name, NULL, a->dataset);
    if (b) {
        row->verdict = QB_WORSE;
        qb_str_printf(&row->why, "%s now: ", status_word(b->status));
        qb_text_clean(b->error, 100, &row->why);
    } else if (other) {
        row->verdict = QB_INCOMPARABLE;
        qb_str_text(&row->why, "protocol differs: ");
        qb_text_clean(a->protocol, 40, &row->why);
        qb_str_text(&row->why, " against ");
        qb_text_clean(other->protocol, 40, &row->why);
    } else {
        row->verdict = QB_MISSING;
        qb_str_text(&row->why, "the new document has no such row");
    }
    return QB_OK;
}

/* ---- cases ---- */

static qb_status note_case(comparison *c, qb_verdict verdict, const char *why, const char *detail) {
    qb_compare_row *row;
    qb_status st = qb_compare_rows_add(c->rows, c->id, &row);
    if (st != QB_OK) return st;
    qb_str_text(&row->metric, "case");
    row->verdict = verdict;
    qb_str_text(&row->why, why);
    qb_text_clean(detail, 120, &row->why);
    return QB_OK;
}

/* Why rows of each kind of this case are not compared. --force sets aside what tells speeds and memory apart.
 */
static void find_barriers(comparison *c, const qb_row_case *a, const qb_row_case *b) {
    static const qb_comparison_kind on_devices[] = {QB_COMPARE_MEMORY, QB_COMPARE_SPEED};
    qb_cases_comparable(a->json, b->json, QB_COMPARE_QUALITY, &c->barriers[QB_COMPARE_QUALITY]);
    for (int i = 0; i < 2; i++) {
        qb_str *why = &c->barriers[on_devices[i]];
        if (c->config->force) {
            qb_str_text(why, qb_str_get(&c->barriers[QB_COMPARE_QUALITY]));
            continue;
        }
        qb_cases_comparable(a->json, b->json, on_devices[i], why);
        if (!why->length)
            qb_devices_comparable(a->device ? a->device->json : NULL, b->device ? b->device->json : NULL,
                                  why);
    }
}

static qb_status compare_case(comparison *c, const qb_row_case *a, const qb_row_case *b) {
    bool was_ok = a->status == QB_ROW_OK, is_ok = b && b->status == QB_ROW_OK;
    if (!b)
        return was_ok ? note_case(c, QB_MISSING, "the new document has no such case", "")
                      : note_case(c, QB_CHANGED, "gone; it had not been measured before either", "");
    if (was_ok && !is_ok)
        return note_case(c, QB_WORSE, b->status == QB_ROW_FAILED ? "fails now: " : "skipped now: ", b->error);
    if (!was_ok)
        return is_ok ? note_case(c, QB_BETTER, "is measured now", "") : note_case(c, QB_SAME, "", "");
    find_barriers(c, a, b);
    qb_status st = QB_OK;
    for (int i = 0; i < a->n_rows && st == QB_OK; i++) st = compare_row(c, &a->rows[i], b);
    for (int k = 0; k <= QB_COMPARE_SPEED; k++) qb_str_free(&c->barriers[k]);
    return st;
}

/* A case that only the new document has. */
static qb_status note_new(comparison *c, const qb_row_case *b) {
    if (b->status == QB_ROW_FAILED) return note_case(c, QB_WORSE, "new, and fails: ", b->error);
    return note_case(c, QB_CHANGED, "new, nothing to compare with", "");
}

/* The cases of the old document against theirs in the new one, then those that only the new one has. */
static qb_status compare_sets(comparison *c, const qb_rows *before, const qb_rows *after) {
    qb_status st = QB_OK;
    for (int i = 0; i < before->n_cases && st == QB_OK; i++) {
        c->id = before->cases[i].id;
        st = compare_case(c, &before->cases[i], qb_rows_case(after, after->documents, c->id));
    }
    for (int i = 0; i < after->n_cases && st == QB_OK; i++) {
        c->id = after->cases[i].id;
        if (!qb_rows_case(before, before->documents, c->id)) st = note_new(c, &after->cases[i]);
    }
    return st;
}

static qb_status check_config(const qb_compare_config *c) {
    if (!(c->perplexity_tolerance_pct >= 0 && c->speed_effect_pct >= 0 && c->memory_tolerance_pct >= 0 &&
          c->memory_floor_mb >= 0))
        return qb_fail(QB_ERR_USAGE, "tolerances of a comparison must be 0 %% or more");
    if (!(c->alpha > 0 && c->alpha < 1))
        return qb_fail(QB_ERR_USAGE, "alpha must lie between 0 and 1, found %g", c->alpha);
    return QB_OK;
}

qb_status qb_results_compare(const qb_results *old_doc, const qb_results *new_doc,
                             const qb_compare_config *config, qb_str *text, qb_json **json, bool *regressed) {
    qb_compare_rows rows = {0};
    qb_rows before = {0}, after = {0};
    comparison c = {.config = config, .rows = &rows};
    qb_status st;
    *regressed = false;
    if (json) *json = NULL;
    QB_TRY(st, check_config(config));
    QB_TRY(st, qb_rows_read(&old_doc, 1, &before));
    QB_TRY(st, qb_rows_read(&new_doc, 1, &after));
    QB_TRY(st, compare_sets(&c, &before, &after));
    rows.unmeasured[0] = before.documents[0].unmeasured;
    rows.unmeasured[1] = after.documents[0].unmeasured;
    *regressed = qb_compare_rows_regressed(&rows);
    qb_compare_rows_print(&rows, old_doc, new_doc, text);
    QB_TRY(st, qb_str_status(text));
    if (json) {
        *json = qb_compare_rows_json(&rows, config);
        if (!*json) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory while writing the comparison"));
    }
out:
    qb_compare_rows_free(&rows);
    qb_rows_free(&before);
    qb_rows_free(&after);
    return st;
}
