/* SentencePiece tokenizer.model, model types BPE and Unigram. Field numbers and defaults:
   sentencepiece_model.proto of google/sentencepiece.  */
#include "tokenizer/pieces.h"
#include "tokenizer/protobuf.h"

typedef struct text_field {
    const char *text;
    size_t n;
} text_field;

typedef struct spec {
    uint64_t model_type; /* 1 unigram, 2 BPE, 3 word, 4 char */
    qb_pieces_options pieces;
    text_field unk_surface, bos_piece, eos_piece;
    text_field charsmap, denormalizer_charsmap;
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
            st =
                take_bool(&m, &f, "trainer_spec.treat_whitespace_as_suffix", &s->pieces.whitespace_as_suffix);
            break;
        case 35:
            st = take_bool(&m, &f, "trainer_spec.byte_fallback", &s->pieces.byte_fallback);
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
            st = take_text(&m, &f, "precompiled_charsmap",
                           denormalizer ? &s->denormalizer_charsmap : &s->charsmap);
            break;
        case 3:
            st = take_bool(&m, &f, "add_dummy_prefix", denormalizer ? &ignored : &s->pieces.add_dummy_prefix);
            break;
        case 4:
            st = take_bool(&m, &f, "remove_extra_whitespaces",
                           denormalizer ? &ignored : &s->pieces.remove_extra_whitespaces);
            break;
        case 5:
            st = take_bool(&m, &f, "escape_whitespaces",
                           denormalizer ? &ignored : &s->pieces.escape_whitespaces);
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
                .pieces = {.unk = -1,
                           .add_dummy_prefix = true,
                           .remove_extra_whitespaces = true,
                           .escape_whitespaces = true}};
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
    if (s->model_type != 1 && s->model_type != 2)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: SentencePiece model type %s is not supported (supported: UNIGRAM, BPE)", name,
                       s->model_type < 5 ? types[s->model_type] : "beyond CHAR");
    if (s->denormalizer_charsmap.n)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: a SentencePiece denormalizer with a character map of %zu bytes is not supported",
                       name, s->denormalizer_charsmap.n);
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
    return qb_pieces_add(t, m.name, id, text.text, text.n, score, type);
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

static int32_t control_piece(const qb_tokenizer *t, const text_field *text) {
    int32_t id = qb_vocab_find(&t->vocab, text->text, text->n);
    return id >= 0 && t->vocab.pieces[id].type == QB_PIECE_CONTROL ? id : -1;
}

qb_status qb_tokenizer_read_model(qb_tokenizer *t, const uint8_t *bytes, size_t n, const char *name) {
    qb_proto m = {
        .p = bytes, .end = n ? bytes + n : bytes, .name = name, .begin = bytes}; /* NULL when empty */
    spec s;
    qb_status st;
    QB_TRY(st, read_specs(m, &s));
    QB_TRY(st, check_specs(&s, name));
    QB_TRY(st, read_pieces(t, m, s.n_pieces, n));
    s.pieces.unk_surface = s.unk_surface.text;
    s.pieces.n_unk_surface = s.unk_surface.n;
    s.pieces.unigram = s.model_type == 1;
    if (s.charsmap.n) {
        QB_TRY(st, qb_charsmap_parse((const uint8_t *)s.charsmap.text, s.charsmap.n, name, &t->charsmap));
        s.pieces.map = &t->charsmap;
    }
    QB_TRY(st, qb_pieces_finish(t, &s.pieces, name));
    t->bos = control_piece(t, &s.bos_piece);
    t->eos = control_piece(t, &s.eos_piece);
out:
    return st;
}
