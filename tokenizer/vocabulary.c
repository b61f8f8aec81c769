/* Vocabularies that come inside a model file (GGUF's tokenizer.ggml.* metadata), model "llama": scored
   pieces, cut as SentencePiece cuts them. Rules that differ from a tokenizer.model, from llama.cpp's
   llama-vocab.cpp: spaces are never squeezed, and control, unknown and user-defined pieces are found in the
   text first. */
#include "tokenizer/pieces.h"

#include <string.h>

static qb_status check_model(const qb_vocabulary *v, const char *name) {
    if (!strcmp(v->model, "llama")) return QB_OK;
    if (!strcmp(v->model, "none") || !strcmp(v->model, "no_vocab"))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: has no tokenizer (tokenizer.ggml.model is \"%s\")", name,
                       v->model);
    return qb_fail(
        QB_ERR_UNSUPPORTED, "%s: tokenizer.ggml.model \"%.40s\"%s%.40s%s is not supported (supported: llama)",
        name, v->model, v->pre ? " with the pre-tokenizer \"" : "", v->pre ? v->pre : "", v->pre ? "\"" : "");
}

static qb_status add_pieces(qb_tokenizer *t, const qb_vocabulary *v, const char *name, bool *bytes) {
    if (v->n == 0 || v->n > QB_VOCAB_IDS_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: a vocabulary of %zu pieces, expected 1 .. %d", name, v->n,
                       QB_VOCAB_IDS_MAX);
    size_t text_bytes = 0;
    for (size_t i = 0; i < v->n; i++) text_bytes += v->texts[i].n + 1;
    qb_status st = qb_vocab_create(&t->vocab, (int32_t)v->n, v->n, text_bytes + 1);
    *bytes = false;
    for (size_t i = 0; st == QB_OK && i < v->n; i++) {
        uint64_t type = v->types[i] > 0 ? (uint64_t)v->types[i] : 0;
        *bytes = *bytes || type == QB_PIECE_BYTE;
        st = qb_pieces_add(t, name, (int32_t)i, v->texts[i].bytes, v->texts[i].n, v->scores[i], type);
    }
    return st;
}

static bool is_found_first(const qb_piece *p) {
    return p->type == QB_PIECE_CONTROL || p->type == QB_PIECE_UNKNOWN || p->type == QB_PIECE_USER_DEFINED;
}

static qb_status find_added(qb_tokenizer *t, const char *name) {
    qb_status st = QB_OK;
    for (int32_t id = 0; st == QB_OK && id < t->vocab.count; id++) {
        qb_piece p = t->vocab.pieces[id];
        if (!is_found_first(&p)) continue;
        qb_added_token flags = {.special = p.type != QB_PIECE_USER_DEFINED};
        st = qb_tokenizer_add_token(t, p.text, p.length, id, false, flags, name);
        t->vocab.pieces[id].special = p.special; /* what decoding leaves out is another question */
    }
    return st == QB_OK ? qb_tokenizer_index_added(t) : st;
}

static qb_status special_id(const qb_tokenizer *t, int64_t id, const char *what, const char *name,
                            int32_t *out) {
    if (id >= t->vocab.count)
        return qb_fail(QB_ERR_FORMAT, "%s: the %s token is %lld, though the vocabulary has %d pieces", name,
                       what, (long long)id, t->vocab.count);
    *out = id < 0 ? -1 : (int32_t)id;
    return QB_OK;
}

qb_status qb_tokenizer_read_vocabulary(qb_tokenizer *t, const qb_vocabulary *v, const char *name) {
    qb_pieces_options options = {.add_dummy_prefix = v->add_space_prefix,
                                 .escape_whitespaces = true,
                                 .unk_surface = " \xE2\x81\x87 ",
                                 .n_unk_surface = 5};
    qb_status st;
    QB_TRY(st, check_model(v, name));
    QB_TRY(st, add_pieces(t, v, name, &options.byte_fallback));
    QB_TRY(st, qb_pieces_finish(t, &options, name));
    t->prefix_parts = true; /* llama.cpp: behind every token that was found first */
    QB_TRY(st, find_added(t, name));
    QB_TRY(st, special_id(t, v->bos, "bos", name, &t->bos));
    QB_TRY(st, special_id(t, v->eos, "eos", name, &t->eos));
out:
    return st;
}
