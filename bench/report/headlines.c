/* Sentences that the data say, with how sure they are. */
#include "base/significance.h"
#include "bench/report/report.h"
#include "results/comparable.h"
#include "results/paired.h"
#include "results/table.h"
#include "results/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CANDIDATES = 512, MAX_A_TEXT = 8 };

qb_status qb_sentences_add(qb_sentences *s, qb_arena *arena, qb_str *text) {
    qb_status st = qb_str_status(text);
    bool known = !text->length;
    for (size_t i = 0; i < s->n && !known; i++) known = !strcmp(s->items[i], qb_str_get(text));
    if (st == QB_OK && !known) st = qb_grow(&s->items, &s->capacity, s->n + 1, sizeof *s->items);
    if (st == QB_OK && !known) {
        st = qb_arena_strdup(arena, qb_str_get(text), &s->items[s->n]);
        if (st == QB_OK) s->n++;
    }
    qb_str_free(text);
    return st;
}

/* ---- one model under one text and protocol ---- */

typedef struct contest {
    const qb_row *rows[MAX_CANDIDATES]; /* of quantized cases that are sized, by size and then by value */
    int n;
    const qb_row *unquantized; /* or NULL */
} contest;

static int by_size(const void *a, const void *b) {
    const qb_row *x = *(const qb_row *const *)a, *y = *(const qb_row *const *)b;
    double size = x->of->checkpoint_bytes - y->of->checkpoint_bytes;
    if (size != 0) return size < 0 ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

/* The same model, text, protocol and windows: what one can be the best of. */
static bool compete(const qb_row *a, const qb_row *b) {
    qb_str why = {0};
    if (a->projected || b->projected || strcmp(a->name, b->name) != 0 ||
        strcmp(a->dataset, b->dataset) != 0 || strcmp(a->protocol, b->protocol) != 0 ||
        strcmp(a->of->of, b->of->of) != 0)
        return false;
    qb_rows_comparable(a, b, &why);
    bool fits = !why.length;
    qb_str_free(&why);
    return fits;
}

static void gather(const qb_rows *rows, const qb_row *like, contest *out) {
    *out = (contest){0};
    for (int i = 0; i < rows->n_cases && out->n < MAX_CANDIDATES; i++) {
        const qb_row_case *c = &rows->cases[i];
        const qb_row *r = qb_rows_find_ok(c, like->name, like->protocol, like->dataset);
        if (!r || c->status != QB_ROW_OK || !compete(like, r)) continue;
        if (c->unquantized)
            out->unquantized = out->unquantized ? out->unquantized : r;
        else if (c->checkpoint_bytes > 0)
            out->rows[out->n++] = r;
    }
    if (out->n > 1) qsort(out->rows, (size_t)out->n, sizeof *out->rows, by_size);
}

/* The best but `best` of those smaller than `limit`. */
static const qb_row *runner_up(const contest *c, const qb_row *best, double limit) {
    const qb_row *second = NULL;
    for (int i = 0; i < c->n; i++)
        if (c->rows[i] != best && !qb_rows_same_again(c->rows[i], best) &&
            c->rows[i]->of->checkpoint_bytes < limit && (!second || c->rows[i]->value < second->value))
            second = c->rows[i];
    return second;
}

static void put_p(double p, qb_str *out) {
    if (p < 0.001)
        qb_str_text(out, "p < 0.001");
    else
        qb_str_printf(out, "p = %.2g", p);
}

static void put_confidence(const qb_row *best, const qb_row *second, qb_str *out) {
    qb_paired pair;
    if (!second) {
        qb_str_text(out, "; nothing else is that small");
        return;
    }
    if (!qb_rows_paired(second, best, &pair)) {
        qb_str_printf(out, "; the next is %s with ", second->of->label);
        qb_text_figure(second->value, 5, out);
        qb_str_text(out, ", and no windows were kept that would say how sure that is");
        return;
    }
    if (isnan(pair.stderr_value)) {
        qb_str_printf(out, "; the next is %s, ", second->of->label);
        qb_paired_put(&pair, out);
        return;
    }
    double p = pair.stderr_value > 0  ? erfc(fabs(pair.difference) / pair.stderr_value / sqrt(2))
               : pair.difference == 0 ? 1
                                      : 0;
    qb_str_printf(out, p < 0.05 ? "; better than %s: " : "; not told apart from %s: ", second->of->label);
    qb_paired_put(&pair, out);
    qb_str_text(out, ", ");
    put_p(p, out);
}

static void put_size(double bytes, qb_str *out) {
    char text[32];
    qb_str_text(out, qb_format_bytes(bytes, text));
}

static void put_best(const contest *c, const qb_row *best, double limit, qb_str *out) {
    const qb_row_case *of = best->of;
    if (isfinite(limit)) {
        qb_str_text(out, "Below ");
        put_size(limit, out);
    } else {
        qb_str_text(out, "Of all sizes");
    }
    qb_str_printf(out, ", %s is best on %s (%s): perplexity ", of->label, best->dataset, best->protocol);
    qb_text_figure(best->value, 5, out);
    qb_str_text(out, " with ");
    put_size(of->checkpoint_bytes, out);
    if (of->bits_per_weight > 0) qb_str_printf(out, ", %.2f bits a weight", of->bits_per_weight);
    double ratio = c->unquantized ? best->value / c->unquantized->value : (double)NAN;
    if (ratio > 0.5 && ratio < 2)
        qb_str_printf(out, ", %+.2g %% against %s", 100 * (ratio - 1), c->unquantized->of->label);
    else if (!isnan(ratio))
        qb_str_printf(out, ", %.3g times that of %s", ratio, c->unquantized->of->label);
    if (best->part < 1) qb_str_printf(out, ", on the first %.2g %% of the text", 100 * best->part);
    put_confidence(best, runner_up(c, best, limit), out);
    qb_str_text(out, ".");
}

/* Every member of the front is the best from its own size to the next member's. */
static qb_status best_sizes(const contest *c, qb_arena *arena, qb_sentences *out) {
    const qb_row *front[MAX_CANDIDATES];
    int n = 0;
    qb_status st = QB_OK;
    for (int i = 0; i < c->n; i++)
        if (!n || c->rows[i]->value < front[n - 1]->value) front[n++] = c->rows[i];
    for (int i = n - 1; i >= 0 && i >= n - MAX_A_TEXT && st == QB_OK; i--) {
        qb_str text = {0};
        put_best(c, front[i], i + 1 < n ? front[i + 1]->of->checkpoint_bytes : (double)INFINITY, &text);
        st = qb_sentences_add(out, arena, &text);
    }
    return st;
}

static bool is_first_of_kind(const qb_rows *rows, const qb_row *r) {
    for (const qb_row *before = rows->rows; before < r; before++)
        if (before->status == QB_ROW_OK && compete(before, r)) return false;
    return !r->projected;
}

/* ---- speed ---- */

static const qb_row *fastest(const qb_rows *rows, const char *protocol, const qb_row_device *device,
                             const char *of, const qb_row *but) {
    const qb_row *best = NULL;
    for (int i = 0; i < rows->n_cases; i++) {
        const qb_row_case *c = &rows->cases[i];
        const qb_row *r = qb_rows_find_ok(c, "decode", protocol, NULL);
        if (!r || r == but || r->projected || qb_row_is_noisy(r) || c->device != device ||
            strcmp(c->of, of) != 0)
            continue;
        if (!best || r->value > best->value) best = r;
    }
    return best;
}

static qb_status speeds(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    const char *protocol = qb_rows_headline(rows, "decode");
    qb_status st = QB_OK;
    for (int i = 0; protocol && i < rows->n_cases && st == QB_OK; i++) {
        const qb_row_case *c = &rows->cases[i];
        const qb_row *base = qb_rows_find_ok(c, "decode", protocol, NULL);
        qb_str text = {0};
        if (!c->unquantized || !base || base->projected) continue;
        const qb_row *best = fastest(rows, protocol, c->device, c->of, NULL);
        const qb_row *second = best ? fastest(rows, protocol, c->device, c->of, best) : NULL;
        if (!best || best == base) continue;
        qb_str_printf(&text, "%s decodes fastest", best->of->label);
        if (c->device) qb_str_printf(&text, " on %s", c->device->description);
        qb_str_text(&text, ": ");
        qb_text_figure(best->value, 4, &text);
        qb_str_printf(&text, " tok/s (%s), %.2f times %s", protocol, best->value / base->value, c->label);
        if (second && best->n_samples > 2 && second->n_samples > 2) {
            double p = qb_mann_whitney_p(best->samples, best->n_samples, second->samples, second->n_samples);
            qb_str_printf(&text, p < 0.05 ? "; faster than %s, " : "; not told apart from %s, ",
                          second->of->label);
            put_p(p, &text);
        }
        qb_str_text(&text, qb_row_is_noisy(base) ? ". The unquantized row stayed noisy." : ".");
        st = qb_sentences_add(out, arena, &text);
    }
    return st;
}

qb_status qb_report_headlines(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    contest *c;
    qb_status st = qb_alloc(1, sizeof *c, &c);
    for (int i = 0; i < rows->n_rows && st == QB_OK; i++) {
        const qb_row *r = &rows->rows[i];
        if (strcmp(r->name, "perplexity") != 0 || r->status != QB_ROW_OK || !is_first_of_kind(rows, r))
            continue;
        gather(rows, r, c);
        st = best_sizes(c, arena, out);
    }
    qb_free(c);
    return st == QB_OK ? speeds(rows, arena, out) : st;
}
