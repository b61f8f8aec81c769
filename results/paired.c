#include "results/paired.h"

#include "base/statistics.h"
#include "results/comparable.h"
#include "results/text.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MAX_NOTES = 12 };

static bool same_windows(const qb_row *a, const qb_row *b) {
    const qb_windowed *x = &a->windowed, *y = &b->windowed;
    bool one_size =
        x->windows_per_sum == y->windows_per_sum || (isnan(x->windows_per_sum) && isnan(y->windows_per_sum));
    if (!x->n || x->n != y->n || !one_size || strcmp(a->dataset, b->dataset) != 0 ||
        strcmp(a->protocol, b->protocol) != 0)
        return false;
    for (int64_t i = 0; i < x->n; i++)
        if (x->tokens[i] != y->tokens[i]) return false;
    qb_str why = {0};
    qb_rows_comparable(a, b, &why);
    bool same = why.length == 0 && !why.failed;
    qb_str_free(&why);
    return same;
}

/* Windows may score unequal numbers of tokens, so the difference is a ratio of sums and its error that of a
   ratio estimator (Cochran, Sampling Techniques, 6.4). */
bool qb_rows_paired(const qb_row *a, const qb_row *b, qb_paired *out) {
    if (a->status != QB_ROW_OK || b->status != QB_ROW_OK || !same_windows(a, b)) return false;
    const qb_windowed *x = &a->windowed, *y = &b->windowed;
    double difference = 0, tokens = 0, squares = 0, n = (double)x->n;
    for (int64_t i = 0; i < x->n; i++) {
        difference += y->nll_nats[i] - x->nll_nats[i];
        tokens += x->tokens[i];
    }
    difference /= tokens;
    for (int64_t i = 0; i < x->n; i++) {
        double off = y->nll_nats[i] - x->nll_nats[i] - difference * x->tokens[i];
        squares += off * off;
    }
    out->difference = difference;
    out->stderr_value = n >= QB_MIN_WINDOWS ? sqrt(squares * n / (n - 1)) / tokens : (double)NAN;
    out->windows = (int64_t)(isnan(a->windows) ? n : a->windows);
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

/* Behind `row` in the order of values, and then of the set. */
static bool is_behind(const qb_row *row, const qb_row *other) {
    return other->value > row->value || (other->value == row->value && other->of->index > row->of->index);
}

/* An id ends with the backend, which changes no figure. */
static size_t length_without_backend(const char *id) {
    const char *end = strrchr(id, '/');
    return end ? (size_t)(end - id) : strlen(id);
}

bool qb_rows_same_again(const qb_row *a, const qb_row *b) {
    size_t n = length_without_backend(a->of->id), m = length_without_backend(b->of->id);
    return a->of->document != b->of->document && n == m && !memcmp(a->of->id, b->of->id, n) &&
           fabs(a->value - b->value) <= 1e-6 * fabs(a->value);
}

bool qb_paired_next(const qb_rows *rows, const qb_row *row, const qb_row **worse, qb_paired *out) {
    *worse = NULL;
    for (int i = 0; i < rows->n_cases; i++) {
        const qb_row_case *c = &rows->cases[i];
        const qb_row *r = qb_rows_find_ok(c, row->name, row->protocol, row->dataset);
        qb_paired pair;
        if (!r || r->projected || c == row->of || strcmp(c->of, row->of->of) != 0 || !is_behind(row, r) ||
            qb_rows_same_again(row, r))
            continue;
        if ((*worse && !is_behind(r, *worse)) || !qb_rows_paired(r, row, &pair)) continue;
        *worse = r;
        *out = pair;
    }
    return *worse != NULL;
}

void qb_paired_notes(const qb_rows *rows, const char *dataset, const char *protocol, const char *prefix,
                     qb_str *out) {
    int put = 0, left = 0;
    for (int i = 0; i < rows->n_cases; i++) {
        const qb_row *better = qb_rows_find_ok(&rows->cases[i], "perplexity", protocol, dataset), *worse;
        qb_paired paired;
        if (!better || better->projected || !qb_paired_next(rows, better, &worse, &paired)) continue;
        if (put == MAX_NOTES) {
            left++;
            continue;
        }
        put++;
        qb_str_printf(out, "%s%s against %s on ", prefix, better->of->label, worse->of->label);
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
