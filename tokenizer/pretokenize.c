#include "tokenizer/pretokenize.h"

#include "tokenizer/normalize.h"
#include "tokenizer/unicode.h"

#include <string.h>

/* ---- GPT-2's alphabet ---- */

/* Printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on. */
static bool is_itself(unsigned byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

static uint32_t alphabet_of(unsigned byte) {
    if (is_itself(byte)) return byte;
    uint32_t others = 0;
    for (unsigned b = 0; b < byte; b++) others += !is_itself(b);
    return 0x100 + others;
}

void qb_bytes_to_alphabet(const char *bytes, size_t n, qb_str *out) {
    static _Thread_local struct {
        bool made;
        char text[256][2];
        uint8_t length[256];
    } table;
    if (!table.made) {
        for (unsigned b = 0; b < 256; b++) {
            char utf8[4];
            table.length[b] = (uint8_t)qb_utf8_encode(alphabet_of(b), utf8);
            memcpy(table.text[b], utf8, 2);
        }
        table.made = true;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned b = (unsigned char)bytes[i];
        qb_str_append(out, table.text[b], table.length[b]);
    }
}

bool qb_alphabet_to_bytes(const char *text, size_t n, qb_str *out) {
    size_t before = out->length;
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t c = qb_utf8_decode((const uint8_t *)text + at, n - at, &length), byte = c;
        if (c >= 0x100 && c < 0x100 + 68)
            for (byte = 0; byte < 256 && alphabet_of(byte) != c;) byte++;
        if (byte > 255 || !(c >= 0x100 || is_itself(byte))) {
            out->length = before;
            return false;
        }
        char value = (char)(uint8_t)byte;
        qb_str_append(out, &value, 1);
    }
    return true;
}

/* ---- steps ---- */

static qb_status run_step(qb_cutting *c, size_t i, const char *text, size_t n, bool first);

static qb_status give(qb_cutting *c, size_t i, const char *text, size_t begin, size_t end, bool first) {
    if (begin == end || *c->stop) return QB_OK;
    if (i == c->first_cut) c->read = begin;
    return run_step(c, i + 1, text + begin, end - begin, first && begin == 0);
}

/* Segments of a text, alternately (but for matches that touch) between and at the matches. */
typedef struct segment {
    size_t begin, end;
    bool is_match;
} segment;

/* What a behaviour keeps in hand while segments come. */
typedef struct joiner {
    qb_cutting *c;
    size_t step;
    const qb_pre_step *s;
    const char *text;
    bool first;
    bool held, last_was_match;
    segment hand;
} joiner;

static qb_status put(joiner *j, const segment *g) {
    return give(j->c, j->step, j->text, g->begin, g->end, j->first);
}

static qb_status flush(joiner *j) {
    if (!j->held) return QB_OK;
    j->held = false;
    return put(j, &j->hand);
}

/* Whether the segment continues the one in hand. */
static bool joins(const joiner *j, const segment *g) {
    switch (j->s->behavior) {
    case QB_SPLIT_MERGED_PREVIOUS: /* a match behind a match stands alone */
        return g->is_match && !j->last_was_match;
    case QB_SPLIT_MERGED_NEXT: /* of matches in a row the last joins what follows */
        return !g->is_match && j->last_was_match;
    case QB_SPLIT_CONTIGUOUS:
        return g->is_match == j->hand.is_match;
    default:
        return false;
    }
}

static qb_status take(joiner *j, segment g) {
    g.is_match ^= j->s->invert;
    if (j->s->behavior == QB_SPLIT_ISOLATED) return put(j, &g);
    if (j->s->behavior == QB_SPLIT_REMOVED) return g.is_match ? QB_OK : put(j, &g);
    if (j->held && joins(j, &g)) {
        j->hand.end = g.end;
    } else {
        qb_status st = flush(j);
        if (st != QB_OK) return st;
        j->hand = g;
        j->held = true;
    }
    j->last_was_match = g.is_match;
    return QB_OK;
}

static qb_status split_pattern(joiner *j, const char *text, size_t n) {
    qb_matches w = {.pattern = j->s->pattern, .matching = &j->c->matching[j->step], .n = n};
    size_t done = 0, begin, end;
    bool found = true;
    qb_status st = qb_matching_begin(w.matching, text, n, &w.subject);
    while (st == QB_OK && !*j->c->stop) {
        st = qb_matches_next(&w, &begin, &end, &found);
        if (st != QB_OK || !found) break;
        if (begin > done) st = take(j, (segment){done, begin, false});
        if (st == QB_OK) st = take(j, (segment){begin, end, true});
        done = end;
    }
    if (st == QB_OK && done < n) st = take(j, (segment){done, n, false});
    return st;
}

static qb_status split_class(joiner *j, const char *text, size_t n) {
    size_t done = 0;
    qb_status st = QB_OK;
    for (size_t at = 0, length; st == QB_OK && at < n && !*j->c->stop; at += length) {
        if (!j->s->is_match(qb_utf8_decode((const uint8_t *)text + at, n - at, &length))) continue;
        if (done < at) st = take(j, (segment){done, at, false});
        done = at + length;
        if (st == QB_OK) st = take(j, (segment){at, done, true});
    }
    if (st == QB_OK && done < n) st = take(j, (segment){done, n, false});
    return st;
}

static qb_status split(qb_cutting *c, size_t i, const char *text, size_t n, bool first) {
    if (i == c->first_cut) c->read_of = n;
    joiner j = {.c = c, .step = i, .s = &c->steps[i], .text = text, .first = first};
    qb_status st = j.s->kind == QB_PRE_CLASS ? split_class(&j, text, n) : split_pattern(&j, text, n);
    return st == QB_OK ? flush(&j) : st;
}

static qb_status metaspace(qb_cutting *c, size_t i, const char *text, size_t n, bool first) {
    const qb_pre_step *s = &c->steps[i];
    qb_str *out = &c->scratch[i];
    bool starts = *text == ' ' || (n >= s->n_text && !memcmp(text, s->text, s->n_text));
    bool wanted = s->prepend == QB_PREPEND_ALWAYS || (s->prepend == QB_PREPEND_FIRST && first);
    /* SentencePiece puts it before each part, whatever that begins with. */
    if (c->legacy_prefix) wanted = s->prepend != QB_PREPEND_NEVER, starts = false;
    out->length = 0;
    if (wanted && !starts) qb_str_append(out, s->text, s->n_text);
    qb_replace_all(text, n, " ", 1, s->text, s->n_text, out);
    qb_status st = qb_str_status(out);
    return st == QB_OK ? run_step(c, i + 1, out->text, out->length, first) : st;
}

static qb_status rewrite(qb_cutting *c, size_t i, const char *text, size_t n, bool first) {
    qb_str *out = &c->scratch[i];
    out->length = 0;
    if (c->steps[i].kind == QB_PRE_BYTES) {
        qb_bytes_to_alphabet(text, n, out);
    } else {
        if (*text == ' ') return run_step(c, i + 1, text, n, first);
        qb_str_text(out, " ");
        qb_str_append(out, text, n);
    }
    qb_status st = qb_str_status(out);
    return st == QB_OK ? run_step(c, i + 1, out->text, out->length, first) : st;
}

static qb_status run_step(qb_cutting *c, size_t i, const char *text, size_t n, bool first) {
    if (i == c->n_steps) return c->piece(c->ctx, text, n);
    switch (c->steps[i].kind) {
    case QB_PRE_SPLIT:
    case QB_PRE_CLASS:
        return split(c, i, text, n, first);
    case QB_PRE_METASPACE:
        return metaspace(c, i, text, n, first);
    case QB_PRE_PREFIX:
    case QB_PRE_BYTES:
        break;
    }
    return rewrite(c, i, text, n, first);
}

qb_status qb_cut(qb_cutting *c, const char *text, size_t n, bool first) {
    c->read = c->read_of = c->first_cut = 0;
    while (c->first_cut < c->n_steps && c->steps[c->first_cut].kind != QB_PRE_SPLIT &&
           c->steps[c->first_cut].kind != QB_PRE_CLASS)
        c->first_cut++;
    return n ? run_step(c, 0, text, n, first) : QB_OK;
}

void qb_cutting_free(qb_cutting *c) {
    for (size_t i = 0; i < QB_PRE_STEPS_MAX; i++) {
        qb_str_free(&c->scratch[i]);
        qb_matching_free(&c->matching[i]);
    }
    *c = (qb_cutting){0};
}
