#include "datasets/draw.h"

#include "base/log.h"
#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

/* 2^31 ids are 8 GB: far beyond any calibration set, and products stay far from overflow. */
static const int64_t MAX_DRAWN = (int64_t)1 << 31;

qb_status qb_draw_check(const qb_draw *draw) {
    if (draw->n_samples < 1 || draw->seqlen < 2 || draw->seqlen > INT32_MAX ||
        draw->n_samples > MAX_DRAWN / draw->seqlen)
        return qb_fail(QB_ERR_USAGE,
                       "cannot draw %" PRId64 " windows of %" PRId64
                       " tokens: expected at least 1 of at least 2, "
                       "and at most %" PRId64 " tokens together",
                       draw->n_samples, draw->seqlen, MAX_DRAWN);
    return QB_OK;
}

static qb_status drawn_begin(const qb_draw *draw, qb_drawn *out) {
    qb_status st = qb_draw_check(draw);
    size_t n = (size_t)draw->n_samples;
    if (st == QB_OK) st = qb_alloc(n, sizeof *out->starts, &out->starts);
    if (st == QB_OK) st = qb_alloc(n, sizeof *out->documents, &out->documents);
    if (st == QB_OK)
        st = qb_grow(&out->ids.ids, &out->ids.capacity, n * (size_t)draw->seqlen, sizeof *out->ids.ids);
    return st;
}

void qb_drawn_free(qb_drawn *drawn) {
    qb_free(drawn->ids.ids);
    qb_free(drawn->starts);
    qb_free(drawn->documents);
    *drawn = (qb_drawn){0};
}

/* One window of `seqlen` out of `count` tokens. The paper's code draws from [0, count - seqlen - 1], so that
   the last possible start never comes, and fails on count == seqlen; there the whole text is taken, without a
   draw, as AQLM does. */
static void take_window(qb_pyrandom *random, const int32_t *ids, int64_t count, int64_t seqlen,
                        int64_t document, int64_t sample, qb_drawn *out) {
    int64_t start = count == seqlen ? 0 : qb_pyrandom_randint(random, 0, count - seqlen - 1);
    memcpy(out->ids.ids + out->ids.count, ids + start, (size_t)seqlen * sizeof *ids);
    out->ids.count += (size_t)seqlen;
    out->starts[sample] = start;
    out->documents[sample] = document;
}

qb_status qb_draw_text(const qb_ids *ids, const qb_draw *draw, const char *where, qb_drawn *out) {
    qb_status st = drawn_begin(draw, out);
    if (st != QB_OK) return st;
    int64_t count = (int64_t)ids->count;
    if (count < draw->seqlen)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: too short to draw from: %" PRId64 " tokens, a window needs %" PRId64
                       ": use a longer text or windows of %" PRId64 " tokens or less",
                       where, count, draw->seqlen, count);
    qb_pyrandom random;
    qb_pyrandom_seed(&random, draw->seed);
    for (int64_t i = 0; i < draw->n_samples; i++)
        take_window(&random, ids->ids, count, draw->seqlen, -1, i, out);
    out->total_tokens = count;
    return QB_OK;
}

typedef struct shelf {
    const qb_documents *documents;
    qb_reading *reading;
    int64_t found; /* special tokens of that document */
    int64_t seqlen;
    uint8_t *too_short; /* [count]; known not to reach seqlen, so not worth tokenizing again */
    qb_str text;        /* scratch */
    qb_ids ids;         /* scratch: the document looked at last */
} shelf;

/* Tokenizes document i into s->ids. */
static qb_status look_at(shelf *s, int64_t i) {
    s->text.length = 0;
    s->ids.count = 0;
    qb_status st = qb_documents_get(s->documents, i, &s->text);
    qb_reading r = *s->reading; /* only documents that are drawn count */
    r.limit = 0;
    r.found = 0;
    if (st == QB_OK)
        st = qb_reading_encode(&r, qb_str_get(&s->text), s->text.length, s->documents->text->name, &s->ids);
    s->found = r.found;
    if (st == QB_OK && (int64_t)s->ids.count < s->seqlen) s->too_short[i] = 1;
    return st;
}

/* Before drawing for ever: is there any document long enough? */
static qb_status check_any_long_enough(shelf *s) {
    const qb_documents *d = s->documents;
    int64_t longest = 0;
    qb_info("%s: few documents reach %" PRId64 " tokens; looking for one", d->text->name, s->seqlen);
    for (int64_t i = 0; i < d->count; i++) {
        qb_status st = look_at(s, i);
        if (st != QB_OK) return st;
        if (!s->too_short[i]) return QB_OK;
        if ((int64_t)s->ids.count > longest) longest = (int64_t)s->ids.count;
    }
    return qb_fail(QB_ERR_FORMAT,
                   "%s: 0 of %" PRId64 " documents have the %" PRId64
                   " tokens of one window, the longest has %" PRId64
                   ": use longer documents or windows of %" PRId64 " tokens or less",
                   d->text->name, d->count, s->seqlen, longest, longest);
}

/* Draws document numbers until one is long enough; it is then in s->ids. */
static qb_status draw_document(shelf *s, qb_pyrandom *random, bool *any_known, int64_t *chosen) {
    for (int64_t tries = 0;; tries++) {
        if (tries == s->documents->count && !*any_known) {
            qb_status st = check_any_long_enough(s);
            if (st != QB_OK) return st;
            *any_known = true;
        }
        int64_t i = qb_pyrandom_randint(random, 0, s->documents->count - 1);
        if (s->too_short[i]) continue;
        qb_status st = look_at(s, i);
        if (st != QB_OK) return st;
        if (s->too_short[i]) continue;
        *any_known = true;
        *chosen = i;
        return QB_OK;
    }
}

qb_status qb_draw_documents(const qb_documents *d, qb_reading *r, const qb_draw *draw, qb_drawn *out) {
    shelf s = {.documents = d, .reading = r, .seqlen = draw->seqlen};
    qb_status st;
    bool any_known = false;
    qb_pyrandom random;
    QB_TRY(st, drawn_begin(draw, out));
    QB_TRY(st, qb_alloc_zero((size_t)d->count, 1, &s.too_short));
    qb_pyrandom_seed(&random, draw->seed);
    for (int64_t sample = 0; sample < draw->n_samples; sample++) {
        int64_t chosen = 0;
        QB_TRY(st, draw_document(&s, &random, &any_known, &chosen));
        r->found += s.found;
        take_window(&random, s.ids.ids, (int64_t)s.ids.count, draw->seqlen, chosen, sample, out);
    }
    out->total_tokens = draw->n_samples * draw->seqlen;
out:
    qb_free(s.too_short);
    qb_str_free(&s.text);
    qb_ids_free(&s.ids);
    return st;
}
