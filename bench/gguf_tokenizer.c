/* GGUF metadata tokenizer.ggml.* to a vocabulary. Keys and
   defaults: ggml's docs/gguf.md, llama.cpp's llama-vocab.cpp. */
#include "bench/gguf_tokenizer.h"

#include <stdio.h>
#include <string.h>

/* Arrays of 32-bit numbers lie unaligned in the file. */
static qb_status copy_numbers(const qb_gguf *g, const char *key, qb_gguf_kind kind, size_t n,
                              void *out_pointer) {
    const qb_gguf_value *v;
    void **out = out_pointer;
    qb_status st = qb_gguf_numbers(g, key, true, kind, &v);
    if (st != QB_OK) return st;
    if ((size_t)v->count != n)
        return qb_fail(QB_ERR_FORMAT, "%s: metadata %s has %lld items, tokenizer.ggml.tokens %zu", g->file,
                       key, (long long)v->count, n);
    if ((st = qb_alloc(n, 4, out)) == QB_OK && n) memcpy(*out, v->bytes, 4 * n);
    return st;
}

static qb_status read_pieces(const qb_gguf *g, qb_vocabulary *v, struct qb_vocabulary_text **texts,
                             float **scores, int32_t **types) {
    qb_gguf_string *strings = NULL;
    qb_status st;
    QB_TRY(st, qb_gguf_strings(g, "tokenizer.ggml.tokens", true, &strings, &v->n));
    QB_TRY(st, qb_alloc(v->n, sizeof **texts, texts));
    for (size_t i = 0; i < v->n; i++)
        (*texts)[i] = (struct qb_vocabulary_text){strings[i].bytes, strings[i].n};
    QB_TRY(st, copy_numbers(g, "tokenizer.ggml.scores", QB_GGUF_F32, v->n, scores));
    QB_TRY(st, copy_numbers(g, "tokenizer.ggml.token_type", QB_GGUF_I32, v->n, types));
    v->texts = *texts, v->scores = *scores, v->types = *types;
out:
    qb_free(strings);
    return st;
}

qb_status qb_gguf_tokenizer(const qb_gguf *g, qb_tokenizer **out) {
    qb_vocabulary v = {.bos = -1, .eos = -1, .add_bos = true, .add_space_prefix = true};
    struct qb_vocabulary_text *texts = NULL;
    float *scores = NULL;
    int32_t *types = NULL;
    qb_status st;
    *out = NULL;
    QB_TRY(st, qb_gguf_text(g, "tokenizer.ggml.model", true, &v.model));
    QB_TRY(st, qb_gguf_text(g, "tokenizer.ggml.pre", false, &v.pre));
    /* Other models have other arrays, and are refused by name. */
    if (!strcmp(v.model, "llama")) QB_TRY(st, read_pieces(g, &v, &texts, &scores, &types));
    QB_TRY(st, qb_gguf_int(g, "tokenizer.ggml.bos_token_id", false, -1, UINT32_MAX, &v.bos));
    QB_TRY(st, qb_gguf_int(g, "tokenizer.ggml.eos_token_id", false, -1, UINT32_MAX, &v.eos));
    if (v.bos == UINT32_MAX) v.bos = -1; /* how 32 unsigned bits say that there is none */
    if (v.eos == UINT32_MAX) v.eos = -1;
    QB_TRY(st, qb_gguf_bool(g, "tokenizer.ggml.add_bos_token", false, &v.add_bos));
    QB_TRY(st, qb_gguf_bool(g, "tokenizer.ggml.add_eos_token", false, &v.add_eos));
    QB_TRY(st, qb_gguf_bool(g, "tokenizer.ggml.add_space_prefix", false, &v.add_space_prefix));
    st = qb_tokenizer_of_vocabulary(&v, g->file, out);
out:
    qb_free(texts);
    qb_free(scores);
    qb_free(types);
    return st;
}
