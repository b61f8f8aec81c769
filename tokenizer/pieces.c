/* A vocabulary of scored pieces as BPE: every split of a piece into two symbols is a merge, ranked by the
   piece's score. */
#include "tokenizer/pieces.h"

#include "tokenizer/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Longer pieces can never be merged from text within reason, and would cost quadratic time here. */
enum { PIECE_BYTES_MAX = 4096 };

qb_status qb_pieces_add(qb_tokenizer *t, const char *name, int32_t id, const char *text, size_t n,
                        float score, uint64_t type) {
    if (type < QB_PIECE_NORMAL || type > QB_PIECE_BYTE)
        return qb_fail(QB_ERR_FORMAT, "%s: piece %d has the unknown type %llu", name, id,
                       (unsigned long long)type);
    if (isnan(score)) return qb_fail(QB_ERR_FORMAT, "%s: the score of piece %d is not a number", name, id);
    if (n > PIECE_BYTES_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: piece %d is %zu bytes long, at most %d are allowed", name, id, n,
                       PIECE_BYTES_MAX);
    qb_status st = qb_vocab_add(&t->vocab, name, id, text, n, (qb_piece_type)type);
    if (st != QB_OK) return st;
    t->vocab.pieces[id].score = score;
    t->vocab.pieces[id].special = type == QB_PIECE_CONTROL;
    return QB_OK;
}

/* <unk> once; all 256 bytes with byte_fallback and none without: SentencePiece refuses other models too. */
static qb_status place_special(qb_tokenizer *t, const qb_pieces_options *s, const char *name) {
    int n_bytes = 0;
    t->bpe.byte_fallback = s->byte_fallback;
    for (int32_t id = 0; id < t->vocab.count; id++) {
        const qb_piece *p = &t->vocab.pieces[id];
        if (p->type == QB_PIECE_UNUSED) t->bpe.has_unused = true;
        if (p->type == QB_PIECE_UNKNOWN) {
            if (s->unk >= 0 && s->unk != id) continue;
            if (t->bpe.unk >= 0)
                return qb_fail(QB_ERR_FORMAT, "%s: pieces %d and %d are both of type UNKNOWN", name,
                               t->bpe.unk, id);
            t->bpe.unk = id;
        }
        if (p->type != QB_PIECE_BYTE) continue;
        int byte = qb_piece_byte(p->text, p->length);
        if (byte < 0 || !s->byte_fallback || t->bpe.byte_ids[byte] >= 0)
            return qb_fail(QB_ERR_FORMAT, "%s: piece %d, \"%.16s\", is of type BYTE, %s", name, id, p->text,
                           s->byte_fallback ? "but not one of <0x00> to <0xFF> or a second time"
                                            : "but byte_fallback is off");
        t->bpe.byte_ids[byte] = id;
        n_bytes++;
    }
    if (t->bpe.unk < 0) return qb_fail(QB_ERR_FORMAT, "%s: no piece is of type UNKNOWN", name);
    if (s->byte_fallback && n_bytes != 256)
        return qb_fail(QB_ERR_FORMAT, "%s: byte_fallback is on, but only %d of 256 BYTE pieces are there",
                       name, n_bytes);
    return QB_OK;
}

/* --- merge rules
 * ----------------------------------------------------------------------------------------------------- */

static bool can_merge(const qb_piece *p) {
    return p->type == QB_PIECE_NORMAL || p->type == QB_PIECE_UNUSED;
}

/* An upper bound of the different characters: their bytes. */
static size_t count_characters(const qb_vocab *v) {
    size_t n = 0;
    for (int32_t id = 0; id < v->count; id++) n += v->pieces[id].length;
    return n;
}

/* Every character of a piece gets a symbol: its own piece, or one beyond the ids. A piece of type UNKNOWN
   stands for what has no piece, so a character spelt like it gets one beyond the ids too. */
static qb_status add_characters(qb_tokenizer *t, const char *name) {
    qb_bpe *b = &t->bpe;
    size_t capacity = 0;
    qb_status st;
    for (int32_t id = 0; id < t->vocab.count; id++) {
        const qb_piece *p = &t->vocab.pieces[id];
        if (p->length && p->length <= 4 && p->type != QB_PIECE_UNKNOWN &&
            qb_utf8_length((const uint8_t *)p->text, p->length) == p->length)
            qb_bpe_char_add(b, p->text, p->length, id);
    }
    for (int32_t id = 0; id < t->vocab.count; id++) {
        const qb_piece *p = &t->vocab.pieces[id];
        size_t length;
        for (size_t at = 0; can_merge(p) && at < p->length; at += length) {
            length = qb_utf8_length((const uint8_t *)p->text + at, p->length - at);
            if (!length) return qb_fail(QB_ERR_FORMAT, "%s: piece %d is not valid UTF-8", name, id);
            if (qb_bpe_char(b, p->text + at, length) >= 0) continue;
            size_t n = (size_t)(b->n_joining - b->n_pieces);
            QB_TRY(st, qb_grow(&b->aux, &capacity, n + 1, sizeof *b->aux));
            b->aux[n] = qb_utf8_pack((const uint8_t *)p->text + at, length);
            qb_bpe_char_add(b, p->text + at, length, b->n_joining++);
        }
    }
    size_t n = (size_t)(b->n_joining - b->n_pieces);
    QB_TRY(st, qb_grow(&b->aux, &capacity, n + 1, sizeof *b->aux));
    b->aux[n] = 0; /* every other unknown character */
    b->n_joining++;
out:
    return st;
}

static int descending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The symbol whose text this is: a piece that merging can produce, or a single character. */
static int32_t symbol_of(const qb_tokenizer *t, uint64_t hash, const char *text, size_t n) {
    if (n <= 4 && qb_utf8_length((const uint8_t *)text, n) == n) return qb_bpe_char(&t->bpe, text, n);
    int32_t id = qb_vocab_find_hashed(&t->vocab, hash, text, n);
    return id >= 0 && can_merge(&t->vocab.pieces[id]) ? id : -1;
}

typedef struct hash_tables {
    uint64_t prefix[PIECE_BYTES_MAX + 1], power[PIECE_BYTES_MAX + 1];
} hash_tables;

/* Adds the rules that produce piece id (b == NULL: only counts them). */
static size_t split_piece(const qb_tokenizer *t, int32_t id, int32_t rank, hash_tables *h, qb_bpe *b) {
    const qb_piece *p = &t->vocab.pieces[id];
    size_t found = 0, n = p->length;
    for (size_t i = 0; i < n; i++) h->prefix[i + 1] = qb_vocab_hash_add(h->prefix[i], (uint8_t)p->text[i]);
    for (size_t cut = 1; cut < n; cut++) {
        if (((uint8_t)p->text[cut] & 0xC0) == 0x80) continue;
        int32_t left = symbol_of(t, h->prefix[cut], p->text, cut);
        if (left < 0) continue;
        uint64_t rest = h->prefix[n] - h->prefix[cut] * h->power[n - cut];
        int32_t right = symbol_of(t, rest, p->text + cut, n - cut);
        if (right < 0) continue;
        found++;
        if (b) qb_bpe_rule_add(b, (qb_rule){.left = left, .right = right, .rank = rank, .result = id});
    }
    return found;
}

/* Ranks follow the scores, equal ones sharing a rank. */
static int32_t rank_of(const float *scores, size_t n, float score) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (scores[middle] > score)
            low = middle + 1;
        else
            high = middle;
    }
    return (int32_t)low;
}

static qb_status add_rules(qb_tokenizer *t, const char *name) {
    qb_vocab *v = &t->vocab;
    hash_tables *h = NULL;
    float *scores = NULL;
    size_t n_rules = 0, n = (size_t)v->count;
    qb_status st;
    QB_TRY(st, qb_alloc_zero(1, sizeof *h, &h));
    QB_TRY(st, qb_alloc(n, sizeof *scores, &scores));
    h->power[0] = 1;
    for (size_t i = 0; i < PIECE_BYTES_MAX; i++) h->power[i + 1] = h->power[i] * QB_VOCAB_HASH_BASE;
    for (int32_t id = 0; id < v->count; id++) {
        scores[id] = v->pieces[id].score;
        if (can_merge(&v->pieces[id])) n_rules += split_piece(t, id, 0, h, NULL);
    }
    if (n_rules > QB_RULES_MAX) {
        st = qb_fail(QB_ERR_FORMAT, "%s: the pieces need %zu merge rules, at most %d are allowed", name,
                     n_rules, QB_RULES_MAX);
        goto out;
    }
    qsort(scores, n, sizeof *scores, descending);
    QB_TRY(st, qb_bpe_rules_reserve(&t->bpe, n_rules));
    for (int32_t id = 0; id < v->count; id++)
        if (can_merge(&v->pieces[id]))
            split_piece(t, id, rank_of(scores, n, v->pieces[id].score), h, &t->bpe);
out:
    qb_free(h);
    qb_free(scores);
    return st;
}

static qb_status build_pipeline(qb_tokenizer *t, const qb_pieces_options *s) {
    qb_status st;
    QB_TRY(st, qb_arena_alloc(&t->arena, 1, sizeof *t->normalizer, &t->normalizer));
    t->n_normalizer = 1;
    t->normalizer[0] = (qb_normalize_step){.kind = QB_NORMALIZE_SENTENCEPIECE,
                                           .spaces = {.add_dummy_prefix = s->add_dummy_prefix,
                                                      .remove_extra_whitespaces = s->remove_extra_whitespaces,
                                                      .escape_whitespaces = s->escape_whitespaces,
                                                      .whitespace_as_suffix = s->whitespace_as_suffix,
                                                      .verbatim = &t->bpe.whole},
                                           .map = s->map};
    QB_TRY(st, qb_arena_alloc(&t->arena, 1, sizeof *t->decoder, &t->decoder));
    t->n_decoder = 1;
    t->decoder[0].kind = QB_DECODE_SENTENCEPIECE;
    t->has_decoder = true;
    QB_TRY(st, qb_tokenizer_keep(t, s->unk_surface, s->n_unk_surface, &t->unk_surface));
    for (int32_t id = 0; id < t->vocab.count; id++) {
        const qb_piece *p = &t->vocab.pieces[id];
        if (p->type == QB_PIECE_USER_DEFINED) QB_TRY(st, qb_trie_add(&t->bpe.whole, p->text, p->length, id));
    }
out:
    return st;
}

qb_status qb_pieces_rules(qb_tokenizer *t, const char *name) {
    qb_status st = qb_bpe_create(&t->bpe, &t->vocab, count_characters(&t->vocab));
    if (st == QB_OK) st = add_characters(t, name);
    return st == QB_OK ? add_rules(t, name) : st;
}

/* Pieces that users defined are taken whenever they fit: SentencePiece gives them a score by their length,
   llama.cpp none at all. */
static qb_status build_unigram(qb_tokenizer *t, const qb_pieces_options *s, const char *name) {
    double *scores, most = -INFINITY;
    size_t n = (size_t)t->vocab.count;
    qb_status st;
    QB_TRY(st, qb_bpe_create(&t->bpe, &t->vocab, 0)); /* holds byte ids and the verbatim pieces */
    QB_TRY(st, place_special(t, s, name));
    QB_TRY(st, qb_alloc(n, sizeof *scores, &scores));
    for (size_t id = 0; id < n; id++) {
        const qb_piece *p = &t->vocab.pieces[id];
        if (p->type == QB_PIECE_NORMAL && (double)p->score > most) most = (double)p->score;
    }
    for (size_t id = 0; id < n; id++) {
        const qb_piece *p = &t->vocab.pieces[id];
        scores[id] = (double)p->score;
        if (p->type == QB_PIECE_USER_DEFINED)
            scores[id] = s->user_defined_free ? 0 : (double)((float)p->length * (float)most) - 0.1;
    }
    t->model = &qb_token_model_unigram;
    QB_TRY(st, qb_unigram_create(&t->unigram, &t->vocab, scores, t->bpe.unk, s->byte_fallback,
                                 !s->user_defined_free));
    st = build_pipeline(t, s);
out:
    return st;
}

qb_status qb_pieces_finish(qb_tokenizer *t, const qb_pieces_options *options, const char *name) {
    if (options->unigram) return build_unigram(t, options, name);
    qb_status st;
    QB_TRY(st, qb_bpe_create(&t->bpe, &t->vocab, count_characters(&t->vocab)));
    t->bpe.sentencepiece = true;
    QB_TRY(st, place_special(t, options, name));
    QB_TRY(st, add_characters(t, name));
    QB_TRY(st, add_rules(t, name));
    QB_TRY(st, qb_bpe_finish(&t->bpe, false));
    QB_TRY(st, build_pipeline(t, options));
out:
    return st;
}
