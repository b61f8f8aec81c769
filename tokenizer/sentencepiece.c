/* SentencePiece tokenizer.model, model type BPE. Field numbers and defaults: sentencepiece_model.proto of
   google/sentencepiece. A model with a character map (nmt_nfkc and the like) is refused: it changes the text.
 */
#include "tokenizer/parts.h"
#include "tokenizer/protobuf.h"
#include "tokenizer/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Longer pieces can never be merged from text within reason, and would cost quadratic time here. */
enum { PIECE_BYTES_MAX = 4096 };

typedef struct text_field {
    const char *text;
    size_t n;
} text_field;

typedef struct spec {
    uint64_t model_type; /* 1 unigram, 2 BPE, 3 word, 4 char */
    bool byte_fallback, whitespace_as_suffix;
    text_field unk_surface, bos_piece, eos_piece;
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    size_t charsmap_bytes, denormalizer_charsmap_bytes;
    int64_t n_pieces;
} spec;

static qb_status take_bool(const qb_proto *m, const qb_proto_field *f, const char *what, bool *out) {
    *out = f->value != 0;
    return qb_proto_expect(m, f, 0, what);
}

static qb_status take_text(const qb_proto *m, const qb_proto_field *f, const char *what, text_field *out) {
    *out = (text_field){(const char *)f->bytes, f->length};
    return qb_proto_expect(m, f, 2, what);
}

static qb_status read_trainer(qb_proto m, spec *s) {
    qb_proto_field f;
    bool more;
    qb_status st = qb_proto_next(&m, &f, &more);
    for (; st == QB_OK && more; st = st == QB_OK ? qb_proto_next(&m, &f, &more) : st) {
        switch (f.number) {
        case 3:
            s->model_type = f.value;
            st = qb_proto_expect(&m, &f, 0, "trainer_spec.model_type");
            break;
        case 24:
            st = take_bool(&m, &f, "trainer_spec.treat_whitespace_as_suffix", &s->whitespace_as_suffix);
            break;
        case 35:
            st = take_bool(&m, &f, "trainer_spec.byte_fallback", &s->byte_fallback);
            break;
        case 44:
            st = take_text(&m, &f, "trainer_spec.unk_surface", &s->unk_surface);
            break;
        case 46:
            st = take_text(&m, &f, "trainer_spec.bos_piece", &s->bos_piece);
            break;
        case 47:
            st = take_text(&m, &f, "trainer_spec.eos_piece", &s->eos_piece);
            break;
        default:
            break;
        }
    }
    return st;
}

static qb_status read_normalizer(qb_proto m, bool denormalizer, spec *s) {
    qb_proto_field f;
    bool more, ignored;
    qb_status st = qb_proto_next(&m, &f, &more);
    for (; st == QB_OK && more; st = st == QB_OK ? qb_proto_next(&m, &f, &more) : st) {
        switch (f.number) {
        case 2:
            *(denormalizer ? &s->denormalizer_charsmap_bytes : &s->charsmap_bytes) = f.length;
            st = qb_proto_expect(&m, &f, 2, "precompiled_charsmap");
            break;
        case 3:
            st = take_bool(&m, &f, "add_dummy_prefix", denormalizer ? &ignored : &s->add_dummy_prefix);
            break;
        case 4:
            st = take_bool(&m, &f, "remove_extra_whitespaces",
                           denormalizer ? &ignored : &s->remove_extra_whitespaces);
            break;
        case 5:
            st = take_bool(&m, &f, "escape_whitespaces", denormalizer ? &ignored : &s->escape_whitespaces);
            break;
        default:
            break;
        }
    }
    return st;
}

static qb_status read_specs(qb_proto m, spec *s) {
    *s = (spec){.model_type = 1,
                .unk_surface = {" \xE2\x81\x87 ", 5},
                .bos_piece = {"<s>", 3},
                .eos_piece = {"</s>", 4},
                .add_dummy_prefix = true,
                .remove_extra_whitespaces = true,
                .escape_whitespaces = true};
    qb_proto_field f;
    bool more;
    qb_status st = qb_proto_next(&m, &f, &more);
    for (; st == QB_OK && more; st = st == QB_OK ? qb_proto_next(&m, &f, &more) : st) {
        if (f.number != 1 && f.number != 2 && f.number != 3 && f.number != 5) continue;
        if ((st = qb_proto_expect(&m, &f, 2, "a field of the model")) != QB_OK) break;
        if (f.number == 1) s->n_pieces++;
        if (f.number == 2) st = read_trainer(qb_proto_inside(&m, &f), s);
        if (f.number == 3 || f.number == 5) st = read_normalizer(qb_proto_inside(&m, &f), f.number == 5, s);
    }
    return st;
}

static qb_status check_specs(const spec *s, const char *name) {
    static const char *const types[] = {"0", "UNIGRAM", "BPE", "WORD", "CHAR"};
    if (s->n_pieces == 0)
        return qb_fail(QB_ERR_FORMAT, "%s: holds no pieces: not a SentencePiece model?", name);
    if (s->n_pieces > QB_VOCAB_IDS_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: %lld pieces are more than the %d allowed", name,
                       (long long)s->n_pieces, QB_VOCAB_IDS_MAX);
    if (s->model_type != 2)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: SentencePiece model type %s is not supported (supported: BPE)", name,
                       s->model_type < 5 ? types[s->model_type] : "beyond CHAR");
    if (s->charsmap_bytes || s->denormalizer_charsmap_bytes)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: a SentencePiece %snormalizer with a character map of %zu bytes is not supported, "
                       "only identity",
                       name, s->charsmap_bytes ? "" : "de",
                       s->charsmap_bytes ? s->charsmap_bytes : s->denormalizer_charsmap_bytes);
    return QB_OK;
}

/* --- pieces
 * -------------------------------------------------------------------------------------------------------- */

static qb_status read_piece(qb_tokenizer *t, qb_proto m, int32_t id) {
    text_field text = {"", 0};
    float score = 0;
    uint64_t type = QB_PIECE_NORMAL;
    qb_proto_field f;
    bool more;
    qb_status st = qb_proto_next(&m, &f, &more);
    for (; st == QB_OK && more; st = st == QB_OK ? qb_proto_next(&m, &f, &more) : st) {
        if (f.number == 1) st = take_text(&m, &f, "piece", &text);
        if (f.number == 2) {
            st = qb_proto_expect(&m, &f, 5, "score");
            score = qb_proto_float(&f);
        }
        if (f.number == 3) {
            st = qb_proto_expect(&m, &f, 0, "type");
            type = f.value;
        }
    }
    if (st != QB_OK) return st;
    if (type < QB_PIECE_NORMAL || type > QB_PIECE_BYTE)
        return qb_fail(QB_ERR_FORMAT, "%s: piece %d has the unknown type %llu", m.name, id,
                       (unsigned long long)type);
    if (isnan(score)) return qb_fail(QB_ERR_FORMAT, "%s: the score of piece %d is not a number", m.name, id);
    if (text.n > PIECE_BYTES_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: piece %d is %zu bytes long, at most %d are allowed", m.name, id,
                       text.n, PIECE_BYTES_MAX);
    st = qb_vocab_add(&t->vocab, m.name, id, text.text, text.n, (qb_piece_type)type);
    if (st != QB_OK) return st;
    t->vocab.pieces[id].score = score;
    t->vocab.pieces[id].special = type == QB_PIECE_CONTROL;
    return QB_OK;
}

static qb_status read_pieces(qb_tokenizer *t, qb_proto m, int64_t count, size_t file_bytes) {
    qb_status st = qb_vocab_create(&t->vocab, (int32_t)count, (size_t)count, file_bytes);
    qb_proto_field f;
    bool more = true;
    int32_t id = 0;
    while (st == QB_OK && (st = qb_proto_next(&m, &f, &more)) == QB_OK && more)
        if (f.number == 1) st = read_piece(t, qb_proto_inside(&m, &f), id++);
    return st;
}

/* <unk> once; all 256 bytes with byte_fallback and none without: SentencePiece refuses other models too. */
static qb_status place_special(qb_tokenizer *t, const spec *s, const char *name) {
    int n_bytes = 0;
    t->bpe.byte_fallback = s->byte_fallback;
    for (int32_t id = 0; id < t->vocab.count; id++) {
        const qb_piece *p = &t->vocab.pieces[id];
        if (p->type == QB_PIECE_UNUSED) t->bpe.has_unused = true;
        if (p->type == QB_PIECE_UNKNOWN) {
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
        if (p->length <= 4 && p->type != QB_PIECE_UNKNOWN &&
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

static qb_status build_pipeline(qb_tokenizer *t, const spec *s) {
    qb_status st;
    QB_TRY(st, qb_arena_alloc(&t->arena, 1, sizeof *t->normalizer, &t->normalizer));
    t->n_normalizer = 1;
    t->normalizer[0] = (qb_normalize_step){.kind = QB_NORMALIZE_SENTENCEPIECE,
                                           .spaces = {.add_dummy_prefix = s->add_dummy_prefix,
                                                      .remove_extra_whitespaces = s->remove_extra_whitespaces,
                                                      .escape_whitespaces = s->escape_whitespaces,
                                                      .whitespace_as_suffix = s->whitespace_as_suffix,
                                                      .verbatim = &t->bpe.whole}};
    QB_TRY(st, qb_arena_alloc(&t->arena, 1, sizeof *t->decoder, &t->decoder));
    t->n_decoder = 1;
    t->decoder[0].kind = QB_DECODE_SENTENCEPIECE;
    t->has_decoder = true;
    QB_TRY(st, qb_tokenizer_keep(t, s->unk_surface.text, s->unk_surface.n, &t->unk_surface));
    for (int32_t id = 0; id < t->vocab.count; id++) {
        const qb_piece *p = &t->vocab.pieces[id];
        if (p->type == QB_PIECE_USER_DEFINED) QB_TRY(st, qb_trie_add(&t->bpe.whole, p->text, p->length, id));
    }
    t->bos = qb_vocab_find(&t->vocab, s->bos_piece.text, s->bos_piece.n);
    t->eos = qb_vocab_find(&t->vocab, s->eos_piece.text, s->eos_piece.n);
    if (t->bos >= 0 && t->vocab.pieces[t->bos].type != QB_PIECE_CONTROL) t->bos = -1;
    if (t->eos >= 0 && t->vocab.pieces[t->eos].type != QB_PIECE_CONTROL) t->eos = -1;
out:
    return st;
}

qb_status qb_tokenizer_read_model(qb_tokenizer *t, const uint8_t *bytes, size_t n, const char *name) {
    qb_proto m = {.p = bytes, .end = bytes + n, .name = name, .begin = bytes};
    spec s;
    qb_status st;
    QB_TRY(st, read_specs(m, &s));
    QB_TRY(st, check_specs(&s, name));
    QB_TRY(st, read_pieces(t, m, s.n_pieces, n));
    QB_TRY(st, qb_bpe_create(&t->bpe, &t->vocab, count_characters(&t->vocab)));
    t->bpe.sentencepiece = true;
    QB_TRY(st, place_special(t, &s, name));
    QB_TRY(st, add_characters(t, name));
    QB_TRY(st, add_rules(t, name));
    QB_TRY(st, qb_bpe_finish(&t->bpe));
    QB_TRY(st, build_pipeline(t, &s));
out:
    return st;
}
