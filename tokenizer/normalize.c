#include "tokenizer/normalize.h"

#include "tokenizer/unicode.h"

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

/* One step of SentencePiece's Normalizer: what the longest of a verbatim piece, an entry of the map, and one
   character at p becomes. A byte that begins no character becomes U+FFFD. */
static size_t next_normalized(const qb_normalize_step *step, const char *p, size_t n, const char **piece,
                              size_t *n_piece) {
    int32_t id;
    size_t length = qb_trie_longest(step->spaces.verbatim, p, n, &id);
    if (!length && step->map && (length = qb_charsmap_longest(step->map, p, n, piece, n_piece)))
        return length;
    if (!length) length = qb_utf8_length((const uint8_t *)p, n);
    *piece = length ? p : "\xEF\xBF\xBD";
    *n_piece = length ? length : 3;
    return length ? length : 1;
}

/* SentencePiece's Normalizer: its map, and its treatment of spaces. Source: normalizer.cc of
   google/sentencepiece, behaviour checked against release 0.2. */
static void sentencepiece_text(const qb_normalize_step *step, const char *text, size_t n, bool prefix,
                               qb_str *out) {
    const char *p = text, *end = text + n, *piece;
    size_t n_piece, length;
    bool squeeze = step->spaces.remove_extra_whitespaces;
    while (squeeze && p < end) { /* what becomes a space at the start goes away */
        length = next_normalized(step, p, (size_t)(end - p), &piece, &n_piece);
        if (n_piece != 1 || *piece != ' ') break;
        p += length;
    }
    if (p == end) return;
    const char *space = step->spaces.escape_whitespaces ? QB_SPACE_SYMBOL : " ";
    size_t n_space = strlen(space);
    prefix = prefix && step->spaces.add_dummy_prefix;
    if (prefix && !step->spaces.whitespace_as_suffix) qb_str_append(out, space, n_space);
    bool after_space = squeeze;
    while (p < end) {
        const char *run = step->map ? p : ordinary_run(step, p, end);
        if (run > p) {
            qb_str_append(out, p, (size_t)(run - p));
            after_space = false;
            p = run;
            continue;
        }
        p += next_normalized(step, p, (size_t)(end - p), &piece, &n_piece);
        const char *piece_end = piece + n_piece;
        while (after_space && piece < piece_end && *piece == ' ') piece++;
        if (piece == piece_end) continue;
        after_space = squeeze && piece_end[-1] == ' ';
        qb_replace_all(piece, (size_t)(piece_end - piece), " ", 1, space, n_space, out);
    }
    while (squeeze && ends_with(out, space, n_space)) out->text[out->length -= n_space] = 0;
    if (prefix && step->spaces.whitespace_as_suffix) qb_str_append(out, space, n_space);
}

static qb_status replace_pattern(const qb_normalize_step *s, const char *text, size_t n, qb_str *out) {
    qb_matching m = {0};
    qb_matches w = {.pattern = s->pattern, .matching = &m, .n = n};
    size_t done = 0, begin, end;
    bool found = true;
    qb_status st = qb_matching_begin(&m, text, n, &w.subject);
    while (st == QB_OK && (st = qb_matches_next(&w, &begin, &end, &found)) == QB_OK && found) {
        qb_str_append(out, text + done, begin - done);
        qb_str_append(out, s->to, s->n_to);
        done = end;
    }
    qb_str_append(out, text + done, n - done);
    qb_matching_free(&m);
    return st;
}

static void strip(const qb_normalize_step *s, const char *text, size_t n, qb_str *out) {
    const uint8_t *p = (const uint8_t *)text;
    size_t begin = 0, length;
    while (s->left && begin < n && qb_unicode_is_space(qb_utf8_decode(p + begin, n - begin, &length)))
        begin += length;
    while (s->right && n > begin) {
        size_t last = n - 1;
        while (last > begin && (p[last] & 0xC0) == 0x80) last--;
        if (!qb_unicode_is_space(qb_utf8_decode(p + last, n - last, &length)) || last + length != n) break;
        n = last;
    }
    qb_str_append(out, text + begin, n - begin);
}

static bool is_ideograph(uint32_t c) { /* BERT's list */
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) ||
           (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static bool nmt_drops(uint32_t c) {
    return (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
}
static bool nmt_is_space(uint32_t c) {
    return c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
           c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
}

/* Steps that look at one character at a time. */
static void by_character(qb_normalize_kind kind, const char *text, size_t n, qb_str *out) {
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t c = qb_utf8_decode((const uint8_t *)text + at, n - at, &length);
        switch (kind) {
        case QB_NORMALIZE_LOWERCASE:
            if (c == 0xFFFD)
                qb_str_append(out, text + at, length); /* perhaps a byte that begins no character */
            else
                qb_unicode_append_lower(c, out);
            continue;
        case QB_NORMALIZE_STRIP_ACCENTS:
            if (qb_unicode_is_mark(c)) continue;
            break;
        case QB_NORMALIZE_BERT_ACCENTS:
            if (qb_unicode_is_nonspacing(c)) continue;
            break;
        case QB_NORMALIZE_NMT:
            if (nmt_drops(c)) continue;
            if (nmt_is_space(c)) {
                qb_str_text(out, " ");
                continue;
            }
            break;
        case QB_NORMALIZE_BERT_CLEAN:
            if (c == 0 || c == 0xFFFD || qb_unicode_is_control(c)) continue;
            if (qb_unicode_is_space(c)) {
                qb_str_text(out, " ");
                continue;
            }
            break;
        case QB_NORMALIZE_BERT_CJK:
            if (is_ideograph(c)) {
                qb_str_text(out, " ");
                qb_str_append(out, text + at, length);
                qb_str_text(out, " ");
                continue;
            }
            break;
        default:
            break;
        }
        qb_str_append(out, text + at, length);
    }
}

static qb_status bert_accents(const char *text, size_t n, qb_str *out) {
    qb_str decomposed = {0};
    qb_status st = qb_unicode_normalize(text, n, false, false, &decomposed);
    if (st == QB_OK) by_character(QB_NORMALIZE_BERT_ACCENTS, qb_str_get(&decomposed), decomposed.length, out);
    qb_str_free(&decomposed);
    return st;
}

static qb_status run_step(const qb_normalize_step *s, const char *text, size_t n, bool prefix, qb_str *out) {
    switch (s->kind) {
    case QB_NORMALIZE_PREPEND:
        if (n) qb_str_append(out, s->to, s->n_to);
        qb_str_append(out, text, n);
        break;
    case QB_NORMALIZE_REPLACE:
        if (s->pattern) return replace_pattern(s, text, n, out);
        qb_replace_all(text, n, s->from, s->n_from, s->to, s->n_to, out);
        break;
    case QB_NORMALIZE_UNICODE:
        return qb_unicode_normalize(text, n, s->compose, s->compatible, out);
    case QB_NORMALIZE_STRIP:
        strip(s, text, n, out);
        break;
    case QB_NORMALIZE_BERT_ACCENTS:
        return bert_accents(text, n, out);
    case QB_NORMALIZE_CHARSMAP:
        qb_charsmap_apply(s->map, text, n, out);
        break;
    case QB_NORMALIZE_SENTENCEPIECE:
        sentencepiece_text(s, text, n, prefix, out);
        break;
    default:
        by_character(s->kind, text, n, out);
    }
    return QB_OK;
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
        qb_status st = run_step(s, out->text, out->length, prefix, to);
        if (st == QB_OK) st = qb_str_status(to);
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
