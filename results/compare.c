/* Comparison of two documents: cases by id, rows by name, protocol and dataset. Three rules, by unit:
   qualities and sizes move by a relative tolerance; speeds and times move when a Mann-Whitney test on the
   samples AND a minimum effect say so, memory by a relative tolerance and an absolute floor, both only on
   the same device. What makes two figures comparable stands in comparable.c. What cannot be
   compared is said, never guessed. */
#include "base/memory.h"
#include "base/significance.h"
#include "base/statistics.h"
#include "results/case.h"
#include "results/comparable.h"
#include "results/compare_rows.h"
#include "results/device.h"
#include "results/text.h"

#include <math.h>
#include <string.h>

enum { MAX_SAMPLES = 4096 };

static const char *text_of(const qb_json *object, const char *key) {
    const char *text = qb_json_string(qb_json_get(object, key));
    return text ? text : "";
}

/* ---- one row against its counterpart ---- */

typedef struct comparison {
    const qb_compare_config *config;
    qb_compare_rows *rows;
    const char *id;
    qb_str
        barriers[QB_COMPARE_SPEED + 1]; /* by kind: why this case's rows are not compared; empty: they are */
} comparison;

static bool is_size(const qb_json *m) {
    return !strcmp(text_of(m, "unit"), "B") || !strcmp(text_of(m, "unit"), "bit");
}

static int samples_of(const qb_json *m, double *out) {
    int n = 0;
    for (const qb_json *s = qb_json_first(qb_json_get(m, "samples")); s && n < MAX_SAMPLES;
         s = qb_json_next(s))
        out[n++] = qb_json_number(s);
    return n;
}

static double change_pct(double before, double after) {
    return before == after ? 0 : before == 0 ? (double)INFINITY : (after - before) / fabs(before) * 100;
}

static void judge(qb_compare_row *row, bool moved, bool higher_is_better) {
    bool better = (row->new_value > row->old_value) == higher_is_better;
    row->verdict = !moved ? QB_SAME : better ? QB_BETTER : QB_WORSE;
}

/* A row whose own samples disagree that much proves nothing: it never decides a gate. */
static void refuse_noise(const double *x, int n, const double *y, int m, qb_compare_row *row) {
    double spread = fmax(qb_stddev(x, n) / fabs(row->old_value), qb_stddev(y, m) / fabs(row->new_value));
    if (row->verdict == QB_SAME || !(spread > QB_NOISY)) return;
    row->verdict = QB_INCOMPARABLE;
    qb_str_printf(&row->why,
                  "noise: samples of one side deviate by more than %.0f %% (repeat on a quiet machine)",
                  100 * QB_NOISY);
}

static qb_status judge_timed(const comparison *c, const qb_json *a, const qb_json *b, bool higher,
                             qb_compare_row *row) {
    double *x = NULL, *y = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc(MAX_SAMPLES, sizeof *x, &x));
    QB_TRY(st, qb_alloc(MAX_SAMPLES, sizeof *y, &y));
    int n = samples_of(a, x), m = samples_of(b, y);
    if (n > 0 && m > 0) {
        row->old_value = qb_median(x, n);
        row->new_value = qb_median(y, m);
        row->change_pct = change_pct(row->old_value, row->new_value);
        row->p = qb_mann_whitney_p(x, n, y, m);
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
        judge(row, large && row->p < c->config->alpha, higher);
        refuse_noise(x, n, y, m, row);
    }
out:
    qb_free(x);
    qb_free(y);
    return st;
}

static void judge_hash(const qb_json *a, const qb_json *b, qb_compare_row *row) {
    row->verdict = !strcmp(text_of(a, "sha256"), text_of(b, "sha256")) ? QB_SAME : QB_CHANGED;
    if (row->verdict == QB_CHANGED)
        qb_str_text(&row->why, "the hash differs: other arithmetic, not in itself worse");
}

/* Pages and threads' buffers make some megabytes of a process's memory a matter of chance. */
static void judge_size(const comparison *c, const qb_json *a, bool memory, bool higher, qb_compare_row *row) {
    double tolerance = is_size(a) ? c->config->memory_tolerance_pct : c->config->perplexity_tolerance_pct;
    double floor_bytes = memory ? c->config->memory_floor_mb * 1e6 : 0;
    judge(row, fabs(row->change_pct) > tolerance && fabs(row->new_value - row->old_value) > floor_bytes,
          higher);
}

static qb_status compare_ok_rows(const comparison *c, const qb_json *a, const qb_json *b,
                                 qb_compare_row *row) {
    qb_comparison_kind kind = qb_metric_kind(a);
    bool higher = !strcmp(text_of(a, "better"), "higher");
    qb_rows_comparable(a, b, &row->why);
    if (!row->why.length) qb_str_text(&row->why, qb_str_get(&c->barriers[kind]));
    if (row->why.length) {
        row->verdict = QB_INCOMPARABLE;
        return QB_OK;
    }
    if (qb_json_is_null(qb_json_get(a, "value")) || qb_json_is_null(qb_json_get(b, "value"))) {
        judge_hash(a, b, row);
        return QB_OK;
    }
    row->change_pct = change_pct(row->old_value, row->new_value);
    if (!qb_rows_paired(a, b, &row->paired)) row->paired = (qb_paired){0};
    if (kind == QB_COMPARE_SPEED) return judge_timed(c, a, b, higher, row);
    judge_size(c, a, kind == QB_COMPARE_MEMORY, higher, row);
    return QB_OK;
}

static void name_row(const qb_json *m, qb_compare_row *row) {
    const char *parts[] = {text_of(m, "name"), text_of(m, "dataset"), text_of(m, "protocol")};
    for (size_t i = 0; i < 3; i++) {
        if (!*parts[i]) continue;
        if (row->metric.length) qb_str_text(&row->metric, " ");
        qb_text_clean(parts[i], 40, &row->metric);
    }
    qb_text_clean(text_of(m, "unit"), 12, &row->unit);
}

/* A row of the same metric and dataset under another protocol: the measurement changed, it was not lost. */
static const qb_json *other_protocol(const qb_json *new_case, const qb_json *m) {
    return qb_results_metric(new_case, text_of(m, "name"), NULL, text_of(m, "dataset"));
}

static bool same_row(const qb_json *a, const qb_json *b) {
    return !strcmp(text_of(a, "name"), text_of(b, "name")) &&
           !strcmp(text_of(a, "protocol"), text_of(b, "protocol")) &&
           !strcmp(text_of(a, "dataset"), text_of(b, "dataset"));
}

/* The row of the new case that `a` is compared with. Where a case measured the same thing several times (a
   list that names a length twice), the first meets the first, the second the second. */
static const qb_json *counterpart(const qb_json *old_case, const qb_json *a, const qb_json *new_case) {
    int before = 0;
    for (const qb_json *m = qb_json_first(qb_json_get(old_case, "metrics")); m && m != a; m = qb_json_next(m))
        before += same_row(m, a);
    for (const qb_json *m = qb_json_first(qb_json_get(new_case, "metrics")); m; m = qb_json_next(m))
        if (same_row(m, a) && before-- == 0) return m;
    return NULL;
}

static qb_status compare_metric(const comparison *c, const qb_json *old_case, const qb_json *a,
                                const qb_json *new_case) {
    bool had = !strcmp(text_of(a, "status"), "ok");
    const qb_json *b = counterpart(old_case, a, new_case);
    qb_compare_row *row;
    qb_status st = qb_compare_rows_add(c->rows, c->id, &row);
    if (st != QB_OK) return st;
    name_row(a, row);
    row->old_value = qb_json_number(qb_json_get(a, "value"));
    if (b) row->new_value = qb_json_number(qb_json_get(b, "value"));
    bool has = b && !strcmp(text_of(b, "status"), "ok");
    if (had && has) return compare_ok_rows(c, a, b, row);
    if (!had) {
        row->verdict = has ? QB_BETTER : QB_SAME; /* measured now, or still not */
        return QB_OK;
    }
    const qb_json *other = b ? NULL : other_protocol(new_case, a);
    if (b) {
        row->verdict = QB_WORSE;
        qb_str_printf(&row->why, "%s now: ", text_of(b, "status"));
        qb_text_clean(text_of(b, "error"), 100, &row->why);
    } else if (other) {
        row->verdict = QB_INCOMPARABLE;
        qb_str_text(&row->why, "protocol differs: ");
        qb_text_clean(text_of(a, "protocol"), 40, &row->why);
        qb_str_text(&row->why, " against ");
        qb_text_clean(text_of(other, "protocol"), 40, &row->why);
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
static void find_barriers(comparison *c, const qb_json *a, const qb_json *b, const qb_json *device_a,
                          const qb_json *device_b) {
    static const qb_comparison_kind on_devices[] = {QB_COMPARE_MEMORY, QB_COMPARE_SPEED};
    qb_cases_comparable(a, b, QB_COMPARE_QUALITY, &c->barriers[QB_COMPARE_QUALITY]);
    for (int i = 0; i < 2; i++) {
        qb_str *why = &c->barriers[on_devices[i]];
        if (c->config->force) {
            qb_str_text(why, qb_str_get(&c->barriers[QB_COMPARE_QUALITY]));
            continue;
        }
        qb_cases_comparable(a, b, on_devices[i], why);
        if (!why->length) qb_devices_comparable(device_a, device_b, why);
    }
}

static qb_status compare_case(comparison *c, const qb_results *old_doc, const qb_json *a,
                              const qb_results *new_doc, const qb_json *b) {
    bool was_ok = qb_case_is_ok(a), is_ok = b && qb_case_is_ok(b);
    if (!b)
        return was_ok ? note_case(c, QB_MISSING, "the new document has no such case", "")
                      : note_case(c, QB_CHANGED, "gone; it had not been measured before either", "");
    if (was_ok && !is_ok)
        return note_case(
            c, QB_WORSE,
            !strcmp(text_of(b, "status"), "failed") ? "fails now: " : "skipped now: ", text_of(b, "error"));
    if (!was_ok)
        return is_ok ? note_case(c, QB_BETTER, "is measured now", "") : note_case(c, QB_SAME, "", "");
    find_barriers(c, a, b, qb_case_device(old_doc, a), qb_case_device(new_doc, b));
    qb_status st = QB_OK;
    for (const qb_json *m = qb_json_first(qb_json_get(a, "metrics")); m && st == QB_OK; m = qb_json_next(m))
        st = compare_metric(c, a, m, b);
    for (int k = 0; k <= QB_COMPARE_SPEED; k++) qb_str_free(&c->barriers[k]);
    return st;
}

/* A case that only the new document has. */
static qb_status note_new(comparison *c, const qb_json *b) {
    if (!strcmp(text_of(b, "status"), "failed"))
        return note_case(c, QB_WORSE, "new, and fails: ", text_of(b, "error"));
    return note_case(c, QB_CHANGED, "new, nothing to compare with", "");
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
    comparison c = {.config = config, .rows = &rows};
    qb_status st;
    *regressed = false;
    if (json) *json = NULL;
    QB_TRY(st, check_config(config));
    for (const qb_json *a = qb_json_first(qb_json_get(old_doc->doc, "cases")); a; a = qb_json_next(a)) {
        c.id = text_of(a, "id");
        QB_TRY(st, compare_case(&c, old_doc, a, new_doc, qb_results_case(new_doc, c.id)));
    }
    for (const qb_json *b = qb_json_first(qb_json_get(new_doc->doc, "cases")); b; b = qb_json_next(b)) {
        c.id = text_of(b, "id");
        if (!qb_results_case(old_doc, c.id)) QB_TRY(st, note_new(&c, b));
    }
    rows.unmeasured[0] = qb_results_unmeasured(old_doc);
    rows.unmeasured[1] = qb_results_unmeasured(new_doc);
    *regressed = qb_compare_rows_regressed(&rows);
    qb_compare_rows_print(&rows, old_doc, new_doc, text);
    QB_TRY(st, qb_str_status(text));
    if (json) {
        *json = qb_compare_rows_json(&rows, config);
        if (!*json) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory while writing the comparison"));
    }
out:
    qb_compare_rows_free(&rows);
    return st;
}
