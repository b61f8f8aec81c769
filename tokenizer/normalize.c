#include "tokenizer/normalize.h"

#include "tokenizer/utf8.h"

void qb_replace_all(const char *text, size_t n, const char *from, size_t n_from, const char *to, size_t n_to,
                    qb_str *out) {
    const char *end = text + n, *copied = text, *p = text;
    while ((size_t)(end - p) >= n_from && (p = memchr(p, from[0], (size_t)(end - p) - n_from + 1))) {
        if (memcmp(p, from, n_from) != 0) {
            p++;
            continue;
        }
        qb_str_append(out, copied, (size_t)(p - copied));
        qb_str_append(out, to, n_to);
        copied = p += n_from;
    }
    qb_str_append(out, copied, (size_t)(end - copied));
}

static bool ends_with(const qb_str *s, const char *tail, size_t n) {
    return s->length >= n && memcmp(s->text + s->length - n, tail, n) == 0;
}

/* The end of a run of characters that are taken over as they are: valid, no space, no start of a verbatim
 * piece. */
static const char *ordinary_run(const qb_normalize_step *step, const char *p, const char *end) {
    while (p < end && *p != ' ' && !step->spaces.verbatim->roots[(uint8_t)*p]) {
        size_t length = qb_utf8_length((const uint8_t *)p, (size_t)(end - p));
        if (!length) break;
        p += length;
    }
    return p;
}

/* SentencePiece's Normalizer for the identity map: spaces alone are touched, except that each byte which
   begins no valid character becomes U+FFFD. Source: normalizer.cc of google/sentencepiece, behaviour checked
   against release 0.2. */
static void sentencepiece_spaces(const qb_normalize_step *step, const char *text, size_t n, bool prefix,
                                 qb_str *out) {
    const char *p = text, *end = text + n;
    bool squeeze = step->spaces.remove_extra_whitespaces;
    while (squeeze && p < end && *p == ' ') p++;
    if (p == end) return;
    const char *space = step->spaces.escape_whitespaces ? QB_SPACE_SYMBOL : " ";
    size_t n_space = strlen(space);
    prefix = prefix && step->spaces.add_dummy_prefix;
    if (prefix && !step->spaces.whitespace_as_suffix) qb_str_append(out, space, n_space);
    bool after_space = squeeze;
    while (p < end) {
        const char *run = ordinary_run(step, p, end);
        if (run > p) {
            qb_str_append(out, p, (size_t)(run - p));
            after_space = false;
            p = run;
            continue;
        }
        int32_t id;
        size_t verbatim = qb_trie_longest(step->spaces.verbatim, p, (size_t)(end - p), &id);
        size_t length = verbatim ? verbatim : qb_utf8_length((const uint8_t *)p, (size_t)(end - p));
        const char *piece = length ? p : "\xEF\xBF\xBD", *piece_end = piece + (length ? length : 3);
        p += length ? length : 1;
        while (after_space && piece < piece_end && *piece == ' ') piece++;
        if (piece == piece_end) continue;
        after_space = squeeze && piece_end[-1] == ' ';
        qb_replace_all(piece, (size_t)(piece_end - piece), " ", 1, space, n_space, out);
    }
    while (squeeze && ends_with(out, space, n_space)) out->text[out->length -= n_space] = 0;
    if (prefix && step->spaces.whitespace_as_suffix) qb_str_append(out, space, n_space);
}

qb_status qb_normalize(const qb_normalize_step *steps, size_t n_steps, const char *text, size_t n,
                       qb_normalized *out) {
    return qb_normalize_part(steps, n_steps, text, n, true, out);
}

qb_status qb_normalize_part(const qb_normalize_step *steps, size_t n_steps, const char *text, size_t n,
                            bool prefix, qb_normalized *out) {
    out->text = text;
    out->length = n;
    for (size_t i = 0; i < n_steps; i++) {
        const qb_normalize_step *s = &steps[i];
        qb_str *to = &out->buffers[i % 2];
        to->length = 0;
        switch (s->kind) {
        case QB_NORMALIZE_PREPEND:
            if (out->length) qb_str_append(to, s->to, s->n_to);
            qb_str_append(to, out->text, out->length);
            break;
        case QB_NORMALIZE_REPLACE:
            qb_replace_all(out->text, out->length, s->from, s->n_from, s->to, s->n_to, to);
            break;
        case QB_NORMALIZE_SENTENCEPIECE:
            sentencepiece_spaces(s, out->text, out->length, prefix, to);
            break;
        }
        qb_status st = qb_str_status(to);
        if (st != QB_OK) return st;
        out->text = qb_str_get(to);
        out->length = to->length;
    }
    return QB_OK;
}

void qb_normalized_free(qb_normalized *t) {
    qb_str_free(&t->buffers[0]);
    qb_str_free(&t->buffers[1]);
}
