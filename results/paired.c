#include "results/paired.h"

#include "base/statistics.h"
#include "results/case.h"
#include "results/comparable.h"
#include "results/text.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MAX_NOTES = 12 };

typedef struct sums {
    const qb_json *nll, *tokens;
} sums;

static sums sums_of(const qb_json *row) {
    return (sums){qb_json_first(qb_json_get(row, "window_nll_nats")),
                  qb_json_first(qb_json_get(row, "window_tokens_scored"))};
}

static bool next(sums *s) {
    s->nll = qb_json_next(s->nll);
    s->tokens = qb_json_next(s->tokens);
    return s->nll && s->tokens;
}

static bool same_windows(const qb_json *a, const qb_json *b) {
    static const char *const keys[] = {"windows_per_sum", "window_tokens_scored", "dataset", "protocol"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (!qb_json_equal(qb_json_get(a, keys[i]), qb_json_get(b, keys[i]))) return false;
    qb_str why = {0};
    qb_rows_comparable(a, b, &why);
    bool same = why.length == 0 && !why.failed;
    qb_str_free(&why);
    return same;
}

/* Windows may score unequal numbers of tokens, so the difference is a ratio of sums and its error that of a
   ratio estimator (Cochran, Sampling Techniques, 6.4). */
bool qb_rows_paired(const qb_json *a, const qb_json *b, qb_paired *out) {
    sums x = sums_of(a), y = sums_of(b);
    if (!qb_metric_is_ok(a) || !qb_metric_is_ok(b) || !x.nll || !y.nll || !same_windows(a, b)) return false;
    double difference = 0, tokens = 0, squares = 0, n = 0;
    do {
        difference += qb_json_number(y.nll) - qb_json_number(x.nll);
        tokens += qb_json_number(x.tokens);
        n++;
    } while (next(&x) && next(&y));
    difference /= tokens;
    x = sums_of(a), y = sums_of(b);
    do {
        double off = qb_json_number(y.nll) - qb_json_number(x.nll) - difference * qb_json_number(x.tokens);
        squares += off * off;
    } while (next(&x) && next(&y));
    out->difference = difference;
    out->stderr_value = n >= QB_MIN_WINDOWS ? sqrt(squares * n / (n - 1)) / tokens : (double)NAN;
    double windows = qb_json_number(qb_json_get(a, "windows"));
    out->windows = (int64_t)(isnan(windows) ? n : windows);
    return isfinite(difference);
}

void qb_paired_put(const qb_paired *p, qb_str *out) {
    /* Four decimals, more where the error is smaller than two digits of them. */
    int decimals = 4;
    while (decimals < 9 && p->stderr_value > 0 && p->stderr_value * pow(10, decimals) < 9.5) decimals++;
    qb_str_printf(out, "%+.*f", decimals, p->difference);
    if (!isnan(p->stderr_value)) qb_str_printf(out, " ± %.*f", decimals, p->stderr_value);
    qb_str_printf(out, " nats a token, paired over %" PRId64 " window%s", p->windows,
                  p->windows == 1 ? "" : "s");
    if (isnan(p->stderr_value)) qb_str_text(out, ", too few for an error");
}

/* ---- notes below a table ---- */

typedef struct ranked {
    const qb_json *c, *row;
    const char *label;
    double value;
} ranked;

static const qb_json *row_of(const qb_json *c, const char *dataset, const char *protocol) {
    const qb_json *m = qb_results_metric(c, "perplexity", protocol, dataset);
    return m && qb_metric_is_ok(m) && !qb_metric_is_projected(m) ? m : NULL;
}

/* The case that follows `before` among those of its model, by value and then in the document's order. */
static bool find_next(const qb_results *r, const char *const *labels, const char *dataset,
                      const char *protocol, const ranked *before, ranked *out) {
    bool found = false, passed = false;
    *out = (ranked){0};
    int64_t i = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(r->doc, "cases")); c; c = qb_json_next(c), i++) {
        const qb_json *row = row_of(c, dataset, protocol);
        bool itself = c == before->c;
        passed |= itself;
        if (!row || itself || strcmp(qb_case_model(c), qb_case_model(before->c)) != 0) continue;
        double value = qb_json_number(qb_json_get(row, "value"));
        bool behind = value > before->value || (value == before->value && passed);
        if (!behind || (found && value >= out->value)) continue;
        *out = (ranked){c, row, labels[i], value};
        found = true;
    }
    return found;
}

void qb_paired_notes(const qb_results *r, const char *const *labels, const char *dataset,
                     const char *protocol, const char *prefix, qb_str *out) {
    int put = 0, left = 0;
    int64_t i = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(r->doc, "cases")); c; c = qb_json_next(c), i++) {
        const qb_json *row = row_of(c, dataset, protocol);
        ranked better, worse;
        qb_paired paired;
        if (!row) continue;
        better = (ranked){c, row, labels[i], qb_json_number(qb_json_get(row, "value"))};
        if (!find_next(r, labels, dataset, protocol, &better, &worse) ||
            !qb_rows_paired(worse.row, better.row, &paired))
            continue;
        if (put == MAX_NOTES) {
            left++;
            continue;
        }
        put++;
        qb_str_printf(out, "%s%s against %s on ", prefix, better.label, worse.label);
        qb_text_clean(dataset, 40, out);
        qb_str_text(out, ", ");
        qb_text_clean(protocol, 40, out);
        qb_str_text(out, ": ");
        qb_paired_put(&paired, out);
        qb_str_text(out, "\n");
    }
    if (left)
        qb_str_printf(out, "%s%d further paired difference%s left out\n", prefix, left,
                      left > 1 ? "s are" : " is");
}
