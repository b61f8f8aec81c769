/* What is set against what: cases by id, rows by name, protocol and dataset, runs by time. How a row is
   judged stands in judge.c, what makes two figures comparable in comparable.c. What cannot be compared is
   said, never guessed. */
#include "results/compare.h"

#include "base/significance.h"
#include "results/judge.h"
#include "results/pairing.h"
#include "results/text.h"

#include <math.h>
#include <string.h>

static qb_status add_row(const qb_pairing *c, qb_compare_row **row) {
    qb_comparison *out = c->out;
    qb_status st = qb_grow(&out->rows, &out->capacity, out->count + 1, sizeof *out->rows);
    if (st != QB_OK) return st;
    const double none = (double)NAN;
    *row = &out->rows[out->count++];
    **row = (qb_compare_row){.id = c->id,
                             .new_id = strcmp(c->id, c->new_id) != 0 ? c->new_id : NULL,
                             .name = "case",
                             .old_value = none,
                             .new_value = none,
                             .change_pct = none,
                             .low_pct = none,
                             .high_pct = none,
                             .p = none,
                             .p_adjusted = none,
                             .spread_pct = none,
                             .p_ranks = none,
                             .p_assumed = none,
                             .scatter_pct = none,
                             .new_low = none,
                             .new_high = none};
    return QB_OK;
}

void qb_comparison_free(qb_comparison *c) {
    for (size_t i = 0; i < c->count; i++) {
        qb_str_free(&c->rows[i].metric);
        qb_str_free(&c->rows[i].unit);
        qb_str_free(&c->rows[i].why);
    }
    for (int k = 0; k < 2; k++) qb_str_free(&c->origin[k]);
    qb_free(c->rows);
    *c = (qb_comparison){0};
}

static const qb_row_document *newest(const qb_rows *set) {
    return &set->documents[set->n_documents - 1];
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

static const char *status_word(qb_row_status status) {
    return status == QB_ROW_OK ? "ok" : status == QB_ROW_SKIPPED ? "skipped" : "failed";
}

static qb_status start_row(const qb_pairing *c, const qb_row *m, qb_compare_row **row) {
    qb_status st = add_row(c, row);
    if (st != QB_OK) return st;
    name_row(m, *row);
    (*row)->name = m->name;
    (*row)->higher_is_better = m->higher_is_better;
    return QB_OK;
}

/* A row that the new document does not have, or not with a value. */
static void judge_absent(const qb_row *a, const qb_row *b, const qb_row_case *new_case, qb_compare_row *row) {
    /* Of the same metric and dataset under another protocol: the measurement changed, it was not lost. */
    const qb_row *other = b ? NULL : qb_rows_find(new_case, a->name, NULL, a->dataset);
    if (b) {
        row->verdict = QB_REGRESSION;
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
}

static const char on_neither_side[] = "measured on neither side", is_measured_now[] = "is measured now";

static qb_status compare_row(const qb_pairing *c, const qb_row *a, const qb_row_case *new_case) {
    bool had = a->status == QB_ROW_OK;
    const qb_row *b = qb_pairing_counterpart(a, new_case);
    qb_compare_row *row;
    qb_status st = start_row(c, a, &row);
    if (st != QB_OK) return st;
    row->old_value = a->value;
    if (b) row->new_value = b->value;
    bool has = b && b->status == QB_ROW_OK;
    if (had && has) return qb_pairing_judge(c, a, b, row);
    if (had) {
        judge_absent(a, b, new_case, row);
    } else if (has) {
        row->verdict = QB_IMPROVEMENT;
        row->appeared = true;
        qb_str_text(&row->why, is_measured_now);
    } else {
        row->verdict = QB_INCOMPARABLE;
        qb_str_text(&row->why, on_neither_side);
    }
    return QB_OK;
}

/* A row that only the new document has; under another protocol it stands with the old one's already. */
static qb_status note_new_row(const qb_pairing *c, const qb_row *b, const qb_row_case *old_case) {
    qb_compare_row *row;
    if (b->status != QB_ROW_OK || qb_rows_find(old_case, b->name, NULL, b->dataset)) return QB_OK;
    qb_status st = start_row(c, b, &row);
    if (st != QB_OK) return st;
    row->new_value = b->value;
    row->verdict = QB_CHANGED;
    qb_str_text(&row->why, "new, nothing to compare with");
    return QB_OK;
}

/* ---- cases ---- */

static qb_status note_case(const qb_pairing *c, qb_verdict verdict, const char *why, const char *detail) {
    qb_compare_row *row;
    qb_status st = add_row(c, &row);
    if (st != QB_OK) return st;
    qb_str_text(&row->metric, "case");
    row->verdict = verdict;
    row->appeared = verdict == QB_IMPROVEMENT;
    qb_str_text(&row->why, why);
    qb_text_clean(detail, 120, &row->why);
    return QB_OK;
}

static qb_status compare_case(const qb_pairing *c, const qb_row_case *a, const qb_row_case *b) {
    bool was_ok = a->status == QB_ROW_OK, is_ok = b && b->status == QB_ROW_OK;
    if (!b)
        return was_ok ? note_case(c, QB_MISSING, "the new document has no such case", "")
                      : note_case(c, QB_CHANGED, "gone; it had not been measured before either", "");
    if (was_ok && !is_ok)
        return note_case(c, QB_REGRESSION,
                         b->status == QB_ROW_FAILED ? "fails now: " : "skipped now: ", b->error);
    if (!was_ok)
        return is_ok ? note_case(c, QB_IMPROVEMENT, is_measured_now, "")
                     : note_case(c, QB_INCOMPARABLE, on_neither_side, "");
    qb_status st = QB_OK;
    for (int i = 0; i < a->n_rows && st == QB_OK; i++) st = compare_row(c, &a->rows[i], b);
    for (int i = 0; i < b->n_rows && st == QB_OK; i++)
        if (!qb_pairing_counterpart(&b->rows[i], a)) st = note_new_row(c, &b->rows[i], a);
    return st;
}

/* A case that only the new document has. */
static qb_status note_new(const qb_pairing *c, const qb_row_case *b) {
    if (b->status == QB_ROW_FAILED) return note_case(c, QB_REGRESSION, "new, and fails: ", b->error);
    return note_case(c, QB_CHANGED, "new, nothing to compare with", "");
}

/* The cases of a document that the other has not, in its order: how many, and the nth of them. */
static int alone(const qb_rows *set, const qb_row_document *document, const qb_rows *others,
                 const qb_row_document *other, int nth, const qb_row_case **found) {
    int n = 0;
    for (int i = 0; i < set->n_cases; i++) {
        const qb_row_case *a = &set->cases[i];
        if (a->document != document || qb_rows_case(others, other, a->id)) continue;
        if (n++ == nth) *found = a;
    }
    return n;
}

/* The case on the other side. Sides of one suite whose settings differ on purpose call their cases by them
   ("rtn-4b-g64"), and their order says which they are. */
static const qb_row_case *partner(const qb_pairing *c, const qb_rows *set, const qb_row_case *a,
                                  const qb_rows *others) {
    const qb_row_document *document = newest(set), *other = newest(others);
    const qb_row_case *same = qb_rows_case(others, other, a->id), *k = NULL, *found = NULL;
    if (same || !c->out->config.in_order) return same;
    int nth = 0, n = alone(set, document, others, other, 0, &k);
    while (nth < n && k != a) alone(set, document, others, other, ++nth, &k);
    return alone(others, other, set, document, nth, &found) == n ? found : NULL;
}

/* The cases of the old document against theirs in the new one, then those that only the new one has. */
static qb_status compare_cases(qb_pairing *c) {
    const qb_row_document *old_doc = newest(c->before), *new_doc = newest(c->after);
    qb_status st = QB_OK;
    for (int i = 0; i < c->before->n_cases && st == QB_OK; i++) {
        const qb_row_case *a = &c->before->cases[i];
        if (a->document != old_doc) continue;
        const qb_row_case *b = partner(c, c->before, a, c->after);
        c->id = a->id;
        c->new_id = b ? b->id : a->id;
        st = compare_case(c, a, b);
    }
    for (int i = 0; i < c->after->n_cases && st == QB_OK; i++) {
        const qb_row_case *b = &c->after->cases[i];
        if (b->document != new_doc) continue;
        c->id = c->new_id = b->id;
        if (!partner(c, c->after, b, c->before)) st = note_new(c, b);
    }
    return st;
}

/* ---- all of it ---- */

/* Holm's step-down over every row that has a p value, and what follows for each. */
static qb_status judge_together(qb_comparison *out) {
    double *p = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc(out->count + 1, sizeof *p, &p));
    for (size_t i = 0; i < out->count; i++) out->tested += !isnan(out->rows[i].p);
    for (size_t i = 0; i < out->count; i++) {
        qb_judge_time_tails(out, &out->rows[i]);
        p[i] = out->rows[i].p;
    }
    if (!qb_holm(p, (int)out->count, p))
        QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory while comparing %zu rows", out->count));
    for (size_t i = 0; i < out->count; i++) {
        out->rows[i].p_adjusted = p[i];
        if (!isnan(p[i])) qb_judge_tested(out, &out->rows[i]);
    }
out:
    qb_free(p);
    return st;
}

static void put_origin(const qb_rows *set, const char *name, qb_str *out) {
    const qb_row_document *d = newest(set);
    qb_text_clean(name ? name : d->results->path ? d->results->path : "(no file)", name ? 120 : 60, out);
    if (set->n_documents > 1 && name)
        qb_str_printf(out, ", %d runs", set->n_documents);
    else if (set->n_documents > 1)
        qb_str_printf(out, " and %d earlier", set->n_documents - 1);
    qb_str_text(out, "  ");
    qb_text_clean(d->created, 0, out);
    qb_str_text(out, "  ");
    qb_text_clean(d->version, 20, out);
    if (d->git && *d->git) {
        qb_str_text(out, " ");
        qb_text_clean(d->git, 18, out);
    }
    for (int i = 0, n = 0; i < set->n_devices; i++) {
        if (set->devices[i].document != d) continue;
        qb_str_text(out, n++ ? "; " : "  ");
        qb_str_text(out, set->devices[i].description);
    }
}

static qb_status check_config(const qb_compare_config *c) {
    if (!(c->perplexity_tolerance_pct >= 0 && c->speed_effect_pct >= 0 && c->memory_tolerance_pct >= 0 &&
          c->memory_floor_mb >= 0 && c->run_spread_pct >= 0))
        return qb_fail(QB_ERR_USAGE, "tolerances of a comparison must be 0 %% or more");
    if (!(c->alpha > 0 && c->alpha < 1))
        return qb_fail(QB_ERR_USAGE, "alpha must lie between 0 and 1, found %g", c->alpha);
    return QB_OK;
}

qb_status qb_compare(const qb_rows *before, const qb_rows *after, const qb_compare_config *config,
                     qb_comparison *out) {
    const qb_rows *sides[] = {before, after};
    qb_pairing c = {.out = out, .before = before, .after = after};
    qb_status st;
    *out = (qb_comparison){.config = *config};
    QB_TRY(st, check_config(config));
    for (int k = 0; k < 2; k++) {
        out->documents[k] = sides[k]->n_documents;
        out->unmeasured[k] = newest(sides[k])->unmeasured;
        put_origin(sides[k], config->names[k], &out->origin[k]);
        out->config.names[k] = NULL; /* the caller's */
    }
    QB_TRY(st, compare_cases(&c));
    QB_TRY(st, judge_together(out));
out:
    return st;
}

/* ---- verdicts ---- */

const char *const qb_verdict_keys[QB_N_VERDICTS] = {"pass",    "improvement",  "regression", "missing",
                                                    "changed", "inconclusive", "noisy",      "not_compared"};

size_t qb_comparison_count(const qb_comparison *c, qb_verdict verdict) {
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++) n += c->rows[i].verdict == verdict;
    return n;
}

size_t qb_comparison_vouched(const qb_comparison *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++)
        n += c->rows[i].verdict == QB_PASS || (c->rows[i].verdict == QB_IMPROVEMENT && !c->rows[i].appeared);
    return n;
}

qb_verdict qb_comparison_verdict(const qb_comparison *c) {
    size_t bad = qb_comparison_count(c, QB_REGRESSION) + qb_comparison_count(c, QB_MISSING),
           good = qb_comparison_count(c, QB_IMPROVEMENT), open = qb_comparison_count(c, QB_INCONCLUSIVE),
           noisy = qb_comparison_count(c, QB_NOISY_ROW);
    if (bad || c->unmeasured[0] + c->unmeasured[1] > 0) return QB_REGRESSION;
    if (!qb_comparison_vouched(c)) return open + noisy ? QB_INCONCLUSIVE : QB_REGRESSION;
    return open ? QB_INCONCLUSIVE : good ? QB_IMPROVEMENT : QB_PASS;
}

int qb_comparison_exit_code(const qb_comparison *c) {
    qb_verdict verdict = qb_comparison_verdict(c);
    return verdict == QB_REGRESSION ? 1 : verdict == QB_INCONCLUSIVE ? 3 : 0;
}
