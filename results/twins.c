#include "results/twins.h"

#include "results/text.h"

#include <math.h>
#include <string.h>

enum { MAX_NOTES = 12 };
/* Less than what a row's sampling aims at (docs/measuring.md) is never told. */
static const double least_difference = 0.02;

/* ---- formats ---- */

/* Methods that write one format, the affine groups; every other method has one of its own. */
static const char *format_of(const qb_row_case *c) {
    return !strcmp(c->method, "rtn") || !strcmp(c->method, "gptq") ? "affine" : c->method;
}

static bool same_key(const qb_row_case *a, const qb_row_case *b, const char *key) {
    const qb_json *x = qb_json_get(qb_json_get(a->json, "config"), key),
                  *y = qb_json_get(qb_json_get(b->json, "config"), key);
    if (qb_json_is_number(x) || qb_json_is_number(y)) return qb_json_number(x) == qb_json_number(y);
    const char *s = qb_json_string(x), *t = qb_json_string(y);
    if (s || t) return s && t && !strcmp(s, t);
    return qb_json_true(x) == qb_json_true(y); /* absent is false: RTN has no order of columns */
}

static bool same_format(const qb_row_case *a, const qb_row_case *b) {
    static const char *const keys[] = {"bits",         "group_size",    "block_size", "sym",    "act_order",
                                       "double_quant", "ragged_groups", "threads",    "backend"};
    if (a->unquantized || b->unquantized || a->published != b->published || !*a->method ||
        strcmp(format_of(a), format_of(b)) != 0)
        return false;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (!same_key(a, b, keys[i])) return false;
    return true;
}

/* ---- rows ---- */

static bool is_speed(const qb_row *r) {
    return r->metric && r->metric->format == QB_FORMAT_SPEED && r->status == QB_ROW_OK && !r->projected &&
           r->value > 0 && !qb_row_is_noisy(r);
}

static bool same_text(const char *a, const char *b) {
    return a && b ? !strcmp(a, b) : a == b;
}

/* b measured what a measured, on a model of the same sizes. */
static bool are_twins(const qb_row *a, const qb_row *b) {
    const qb_row_case *x = a->of, *y = b->of;
    bool same_bytes =
        a->bytes_per_token == b->bytes_per_token || (isnan(a->bytes_per_token) && isnan(b->bytes_per_token));
    return is_speed(b) && x != y && x->document == y->document && x->device == y->device &&
           !strcmp(a->name, b->name) && !strcmp(a->protocol, b->protocol) && !strcmp(x->of, y->of) &&
           same_text(a->activations, b->activations) && same_bytes && same_format(x, y);
}

/* What a row takes its own noise for, relative: the interval of its median, and what its rounds differ by. A
   row of an earlier version, which has no interval: twice what its samples spread by. */
static double noise_of(const qb_row *r) {
    double noise = r->half_width;
    if (isnan(noise)) noise = isnan(qb_row_spread(r)) ? INFINITY : 2 * qb_row_spread(r);
    for (int i = 0; i < r->n_rounds; i++) noise = fmax(noise, fabs(r->rounds[i] / r->value - 1));
    return noise;
}

static double difference(const qb_row *a, const qb_row *b) {
    return fmax(a->value, b->value) / fmin(a->value, b->value) - 1;
}

/* Whether some twin of the row stands before it: then the pair was looked at from there. */
static bool has_elder(const qb_rows *rows, const qb_row *row) {
    for (int i = 0; i < rows->n_rows && &rows->rows[i] != row; i++)
        if (is_speed(&rows->rows[i]) && are_twins(&rows->rows[i], row)) return true;
    return false;
}

static void put_note(const qb_row *a, const qb_row *b, double noise, qb_str *out) {
    const qb_row *fast = a->value > b->value ? a : b, *slow = fast == a ? b : a;
    qb_str_printf(out, "%s and %s have one format, which alone decides the speed, yet ", fast->of->label,
                  slow->of->label);
    qb_text_clean(fast->name, 40, out);
    qb_str_text(out, " ");
    qb_text_clean(fast->protocol, 40, out);
    qb_str_printf(out, " differs by %.1f %% (", 100 * difference(a, b));
    qb_text_figure(fast->value, 4, out);
    qb_str_text(out, " and ");
    qb_text_figure(slow->value, 4, out);
    qb_str_printf(out, " %s), more than the %.1f %% that the rows know of: ", fast->unit, 100 * noise);
    qb_str_text(out, "smaller differences between other rows may be noise too\n");
}

void qb_twins_notes(const qb_rows *rows, qb_str *out) {
    int put = 0;
    for (int i = 0; i < rows->n_rows && put < MAX_NOTES; i++) {
        const qb_row *first = &rows->rows[i], *least = first, *most = first;
        if (!is_speed(first) || has_elder(rows, first)) continue;
        for (int k = i + 1; k < rows->n_rows; k++) {
            const qb_row *r = &rows->rows[k];
            if (!are_twins(first, r)) continue;
            if (r->value < least->value) least = r;
            if (r->value > most->value) most = r;
        }
        double noise = hypot(noise_of(least), noise_of(most));
        if (least == most || !(difference(least, most) > fmax(noise, least_difference))) continue;
        put++;
        put_note(least, most, noise, out);
    }
}
