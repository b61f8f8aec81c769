/* Text to ids: added tokens, normalizer, pre-tokenizer, merging, template. The order, and which tokens are
   searched in which text, is that of the tokenizers library (added_vocabulary.rs, extract_and_normalize). */
#include "tokenizer/parts.h"
#include "tokenizer/unicode.h"

#include <string.h>

static bool is_space(const uint8_t *p, size_t length) {
    return qb_unicode_is_space(qb_utf8_decode(p, length, &length));
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

/* Whether a word character stands directly before `at`. */
static bool word_before(const char *text, size_t at) {
    size_t begin = at, length;
    if (!at) return false;
    do begin--;
    while (begin && at - begin < 4 && ((uint8_t)text[begin] & 0xC0) == 0x80);
    return qb_unicode_is_word(qb_utf8_decode((const uint8_t *)text + begin, at - begin, &length));
}

static bool word_after(const char *text, size_t at, size_t n) {
    size_t length;
    return at < n && qb_unicode_is_word(qb_utf8_decode((const uint8_t *)text + at, n - at, &length));
}

typedef struct encoding {
    const qb_tokenizer *t;
    void *run; /* of the model */
    qb_ids *out;
    qb_special_tokens special;
    int64_t found;
    bool stopped;     /* the limit is reached */
    double read;      /* bytes of the part in hand that were read when it was, */
    double read_from; /* of this many */
    qb_normalized normalized;
    qb_cutting cutting;
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
        bool inside = token->single_word && (word_before(text, at) || word_after(text, at + length, n));
        if (inside || (e->special == QB_SPECIAL_TEXT && token->special)) {
            at += length;
            continue;
        }
        size_t begin = at, end = at + length;
        if (token->lstrip) begin = spaces_before(text, begin, done < begin ? done : begin);
        if (token->rstrip) end = spaces_after(text, end, n);
        if (done < begin && (st = rest(e, text + done, begin - done, first && done == 0)) != QB_OK) return st;
        if (e->stopped) {
            e->read += (double)done;
            e->read_from = (double)n;
            return QB_OK;
        }
        if ((st = qb_ids_append(e->out, token->id)) != QB_OK) return st;
        e->found += token->special;
        done = end;
        at += length; /* not `end`: a following match may lie in the stripped space */
    }
    if (done < n) st = rest(e, text + done, n - done, first && done == 0);
    if (e->stopped) {
        e->read += (double)done;
        e->read_from = (double)n;
    }
    return st;
}

static qb_status feed(void *ctx, const char *piece, size_t n) {
    encoding *e = ctx;
    size_t read;
    qb_status st = e->t->model->feed(e->run, piece, n, &read);
    if (st != QB_OK || read == n) return st;
    e->stopped = true;
    e->read = (double)read;
    e->read_from = (double)n;
    return QB_OK;
}

static qb_status encode_normalized(encoding *e, const char *text, size_t n, bool first) {
    qb_status st = qb_cut(&e->cutting, text, n, first);
    if (!e->stopped) return st;
    if (e->cutting.read_of) { /* the pieces that the first cut gave before */
        e->read = (double)e->cutting.read;
        e->read_from = (double)e->cutting.read_of;
    }
    e->read *= (double)n / e->read_from;
    return st;
}

static qb_status encode_raw(encoding *e, const char *text, size_t n, bool first) {
    bool legacy = e->special == QB_SPECIAL_LEGACY;
    qb_status st = qb_normalize_part(e->t->normalizer, e->t->n_normalizer, text, n,
                                     first || legacy || e->t->prefix_parts, &e->normalized);
    if (st != QB_OK) return st;
    static const qb_trie none;
    st = split_at_added(e, legacy ? &none : &e->t->added_normalized, e->normalized.text, e->normalized.length,
                        first, encode_normalized);
    if (e->stopped && e->read_from > 0) e->read *= (double)n / e->read_from;
    return st;
}

/* Special tokens that n bytes of text spell, by their raw text. */
static int64_t count_spelt(const qb_tokenizer *t, const char *text, size_t n) {
    int64_t found = 0;
    for (size_t at = 0; t->added_any.count && at < n;) {
        int32_t index;
        size_t length = t->added_any.roots[(uint8_t)text[at]]
                            ? qb_trie_longest(&t->added_any, text + at, n - at, &index)
                            : 0;
        found += length && t->added[index].special;
        at += length ? length : 1;
    }
    return found;
}

qb_status qb_tokenizer_encode_as(const qb_tokenizer *t, const char *text, size_t n, qb_encoding *asked,
                                 qb_ids *out) {
    static const qb_template nothing;
    const qb_template *ends = asked->ends == QB_ENDS_NONE       ? &nothing
                              : asked->ends == QB_ENDS_TEMPLATE ? &t->file
                                                                : &t->keys;
    bool split = t->split_special && asked->special == QB_SPECIAL_FILE;
    encoding e = {.t = t, .out = out, .special = split ? QB_SPECIAL_TEXT : asked->special};
    e.cutting = (qb_cutting){.steps = t->pre,
                             .n_steps = t->n_pre,
                             .legacy_prefix = asked->special == QB_SPECIAL_LEGACY,
                             .stop = &e.stopped,
                             .piece = feed,
                             .ctx = &e};
    size_t before = out->count, limit = asked->limit ? before + asked->limit : 0;
    qb_status st;
    QB_TRY(st, t->model->begin(t, out, limit, &e.run));
    for (size_t i = 0; i < ends->n_before; i++) QB_TRY(st, qb_ids_append(out, ends->before[i]));
    const qb_trie *raw = e.special == QB_SPECIAL_LEGACY ? &t->added_any : &t->added_raw;
    if (n) QB_TRY(st, split_at_added(&e, raw, text, n, true, encode_raw));
    for (size_t i = 0; !e.stopped && i < ends->n_after; i++) QB_TRY(st, qb_ids_append(out, ends->after[i]));
    asked->part = e.stopped && n ? e.read / (double)n : 1;
    if (limit && out->count > limit) {
        if (!e.stopped) asked->part = (double)asked->limit / (double)(out->count - before);
        out->count = limit;
    }
    if (asked->part > 1) asked->part = 1;
    asked->found =
        e.special == QB_SPECIAL_TEXT ? count_spelt(t, text, (size_t)(asked->part * (double)n)) : e.found;
out:
    t->model->end(e.run);
    qb_normalized_free(&e.normalized);
    qb_cutting_free(&e.cutting);
    return st;
}

qb_status qb_tokenizer_encode(const qb_tokenizer *t, const char *text, size_t n, bool add_special,
                              qb_ids *out) {
    qb_encoding e = {.ends = add_special ? QB_ENDS_TEMPLATE : QB_ENDS_NONE};
    return qb_tokenizer_encode_as(t, text, n, &e, out);
}

static const char *const rules[] = {
    [QB_SPECIAL_FILE] = "file", [QB_SPECIAL_TEXT] = "text", [QB_SPECIAL_LEGACY] = "legacy"};

const char *qb_special_tokens_name(qb_special_tokens rule) {
    return rules[rule];
}

qb_status qb_special_tokens_parse(const char *name, qb_special_tokens *out) {
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (!strcmp(rules[i], name)) {
            *out = (qb_special_tokens)i;
            return QB_OK;
        }
    return qb_fail(QB_ERR_USAGE, "special tokens are read as file, text or legacy, found '%.40s'", name);
}
