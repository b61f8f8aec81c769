/* Text to ids: added tokens, normalizer, pre-tokenizer, merging, template. The order, and which tokens are
   searched in which text, is that of the tokenizers library (added_vocabulary.rs, extract_and_normalize). */
#include "tokenizer/parts.h"
#include "tokenizer/utf8.h"

#include <string.h>

/* White_Space of the Unicode character database, beyond ASCII. */
static bool is_space(const uint8_t *p, size_t length) {
    if (length == 1) return *p == ' ' || (*p >= 9 && *p <= 13);
    if (length == 2) return p[0] == 0xC2 && (p[1] == 0x85 || p[1] == 0xA0);
    if (length != 3) return false;
    uint32_t c = (uint32_t)(p[0] & 15) << 12 | (uint32_t)(p[1] & 63) << 6 | (p[2] & 63);
    return c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static size_t spaces_after(const char *text, size_t at, size_t n) {
    while (at < n) {
        const uint8_t *p = (const uint8_t *)text + at;
        size_t length = qb_utf8_length(p, n - at);
        if (!length || !is_space(p, length)) break;
        at += length;
    }
    return at;
}

static size_t spaces_before(const char *text, size_t at, size_t limit) {
    while (at > limit) {
        size_t length = 1;
        while (length < 4 && at - length > limit && ((uint8_t)text[at - length] & 0xC0) == 0x80) length++;
        const uint8_t *p = (const uint8_t *)text + at - length;
        if (qb_utf8_length(p, length) != length || !is_space(p, length)) break;
        at -= length;
    }
    return at;
}

typedef struct encoding {
    const qb_tokenizer *t;
    qb_bpe_run *run;
    qb_ids *out;
    bool plain; /* special tokens in the text are text */
    qb_normalized normalized;
    qb_str pretokenized;
} encoding;

typedef qb_status (*part_fn)(encoding *e, const char *text, size_t n, bool first);

/* Cuts text at the added tokens of the trie, writes their ids and hands what lies between to `rest`. */
static qb_status split_at_added(encoding *e, const qb_trie *trie, const char *text, size_t n, bool first,
                                part_fn rest) {
    size_t done = 0, at = 0;
    qb_status st = QB_OK;
    while (trie->count && at < n) {
        int32_t index;
        size_t length = trie->roots[(uint8_t)text[at]] ? qb_trie_longest(trie, text + at, n - at, &index) : 0;
        if (!length) {
            at++;
            continue;
        }
        const qb_added_token *token = &e->t->added[index];
        if (e->plain && token->special) {
            at += length;
            continue;
        }
        size_t begin = at, end = at + length;
        if (token->lstrip) begin = spaces_before(text, begin, done < begin ? done : begin);
        if (token->rstrip) end = spaces_after(text, end, n);
        if (done < begin && (st = rest(e, text + done, begin - done, first && done == 0)) != QB_OK) return st;
        if ((st = qb_ids_append(e->out, token->id)) != QB_OK) return st;
        done = end;
        at += length; /* not `end`: a following match may lie in the stripped space */
    }
    return done < n ? rest(e, text + done, n - done, first && done == 0) : QB_OK;
}

/* Metaspace: spaces become the replacement, one is put before, and each may begin a unit. */
static qb_status encode_metaspace(encoding *e, const char *text, size_t n, bool first) {
    const qb_pretokenizer *p = &e->t->pretokenizer;
    qb_str *s = &e->pretokenized;
    s->length = 0;
    bool starts =
        n && (*text == ' ' || (n >= p->n_replacement && !memcmp(text, p->replacement, p->n_replacement)));
    if (n && !starts && (p->prepend == QB_PREPEND_ALWAYS || (p->prepend == QB_PREPEND_FIRST && first)))
        qb_str_append(s, p->replacement, p->n_replacement);
    qb_replace_all(text, n, " ", 1, p->replacement, p->n_replacement, s);
    qb_status st = qb_str_status(s);
    size_t begin = 0;
    for (size_t at = 1; st == QB_OK && p->split && at + p->n_replacement <= s->length; at++) {
        if (memcmp(s->text + at, p->replacement, p->n_replacement) != 0) continue;
        st = qb_bpe_feed(e->run, s->text + begin, at - begin);
        begin = at;
    }
    return st != QB_OK ? st : qb_bpe_feed(e->run, qb_str_get(s) + begin, s->length - begin);
}

static qb_status encode_normalized(encoding *e, const char *text, size_t n, bool first) {
    if (e->t->pretokenizer.kind == QB_PRETOKENIZER_METASPACE) return encode_metaspace(e, text, n, first);
    return qb_bpe_feed(e->run, text, n);
}

static qb_status encode_raw(encoding *e, const char *text, size_t n, bool first) {
    qb_status st = qb_normalize(e->t->normalizer, e->t->n_normalizer, text, n, &e->normalized);
    if (st != QB_OK) return st;
    return split_at_added(e, &e->t->added_normalized, e->normalized.text, e->normalized.length, first,
                          encode_normalized);
}

static qb_status encode(const qb_tokenizer *t, const char *text, size_t n, bool add_special, bool plain,
                        qb_ids *out) {
    encoding e = {.t = t, .out = out, .plain = plain};
    qb_status st;
    QB_TRY(st, qb_bpe_begin(&t->bpe, out, &e.run));
    for (size_t i = 0; add_special && i < t->n_before; i++) QB_TRY(st, qb_ids_append(out, t->before[i]));
    if (n) QB_TRY(st, split_at_added(&e, &t->added_raw, text, n, true, encode_raw));
    for (size_t i = 0; add_special && i < t->n_after; i++) QB_TRY(st, qb_ids_append(out, t->after[i]));
out:
    qb_bpe_end(e.run);
    qb_normalized_free(&e.normalized);
    qb_str_free(&e.pretokenized);
    return st;
}

qb_status qb_tokenizer_encode(const qb_tokenizer *t, const char *text, size_t n, bool add_special,
                              qb_ids *out) {
    return encode(t, text, n, add_special, false, out);
}

qb_status qb_tokenizer_encode_plain(const qb_tokenizer *t, const char *text, size_t n, bool add_special,
                                    qb_ids *out) {
    return encode(t, text, n, add_special, true, out);
}
