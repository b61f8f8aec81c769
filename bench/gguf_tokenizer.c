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

typedef struct arrays {
    struct qb_vocabulary_text *texts, *merges;
    float *scores;
    int32_t *types;
} arrays;

static qb_status read_texts(const qb_gguf *g, const char *key, bool required,
                            struct qb_vocabulary_text **texts, size_t *n) {
    qb_gguf_string *strings = NULL;
    qb_status st;
    *n = 0;
    QB_TRY(st, qb_gguf_strings(g, key, required, &strings, n));
    if (!strings) return QB_OK;
    QB_TRY(st, qb_alloc(*n, sizeof **texts, texts));
    for (size_t i = 0; i < *n; i++) (*texts)[i] = (struct qb_vocabulary_text){strings[i].bytes, strings[i].n};
out:
    qb_free(strings);
    return st;
}

static qb_status read_arrays(const qb_gguf *g, qb_vocabulary *v, arrays *a) {
    bool scored = !strcmp(v->model, "llama") || !strcmp(v->model, "t5");
    const qb_gguf_value *map = NULL, *types = NULL;
    qb_status st;
    QB_TRY(st, read_texts(g, "tokenizer.ggml.tokens", true, &a->texts, &v->n));
    QB_TRY(st, read_texts(g, "tokenizer.ggml.merges", !scored, &a->merges, &v->n_merges));
    if (scored) QB_TRY(st, copy_numbers(g, "tokenizer.ggml.scores", QB_GGUF_F32, v->n, &a->scores));
    QB_TRY(st, qb_gguf_numbers(g, "tokenizer.ggml.token_type", scored, QB_GGUF_I32, &types));
    if (types) QB_TRY(st, copy_numbers(g, "tokenizer.ggml.token_type", QB_GGUF_I32, v->n, &a->types));
    if (!strcmp(v->model, "t5")) {
        static const char key[] = "tokenizer.ggml.precompiled_charsmap";
        st = qb_gguf_numbers(g, key, false, QB_GGUF_U8, &map);
        if (st != QB_OK) QB_TRY(st, qb_gguf_numbers(g, key, false, QB_GGUF_I8, &map));
        if (map) v->charsmap = map->bytes, v->n_charsmap = (size_t)map->count;
    }
    v->texts = a->texts, v->merges = a->merges, v->scores = a->scores, v->types = a->types;
out:
    return st;
}

/* A flag that may be absent. */
static qb_status read_flag(const qb_gguf *g, const char *key, int *out) {
    bool first = false, second = true;
    qb_status st = qb_gguf_bool(g, key, false, &first);
    if (st == QB_OK) st = qb_gguf_bool(g, key, false, &second);
    if (st == QB_OK && first == second) *out = first;
    return st;
}

static qb_status read_id(const qb_gguf *g, const char *key, int64_t *id) {
    qb_status st = qb_gguf_int(g, key, false, -1, UINT32_MAX, id);
    if (*id == UINT32_MAX) *id = -1; /* how 32 unsigned bits say that there is none */
    return st;
}

/* What `use` makes of the vocabulary, which lives as long as the call. */
static qb_status with_vocabulary(const qb_gguf *g, qb_status (*use)(const qb_vocabulary *v, void *ctx),
                                 void *ctx) {
    qb_vocabulary v = {
        .bos = -1, .eos = -1, .unk = -1, .add_bos = -1, .add_eos = -1, .add_space_prefix = true};
    /* further tokens' ids; what other kinds of vocabularies have */
    static const char *const inert[] = {
        "*_token_id",           "*_token_ids",     "token_type_count", "scores",
        "precompiled_charsmap", "suppress_tokens", "add_sep_token",    NULL};
    arrays a = {0};
    qb_status st;
    QB_TRY(st, qb_gguf_text(g, "tokenizer.ggml.model", true, &v.model));
    QB_TRY(st, qb_gguf_text(g, "tokenizer.ggml.pre", false, &v.pre));
    static const char *const known[] = {"llama", "gpt2", "t5", "gemma4"};
    for (size_t i = 0; i < sizeof known / sizeof known[0];
         i++) /* others have other arrays, and are refused by name */
        if (!strcmp(v.model, known[i])) QB_TRY(st, read_arrays(g, &v, &a));
    QB_TRY(st, read_id(g, "tokenizer.ggml.bos_token_id", &v.bos));
    QB_TRY(st, read_id(g, "tokenizer.ggml.eos_token_id", &v.eos));
    QB_TRY(st, read_id(g, "tokenizer.ggml.unknown_token_id", &v.unk));
    QB_TRY(st, read_flag(g, "tokenizer.ggml.add_bos_token", &v.add_bos));
    QB_TRY(st, read_flag(g, "tokenizer.ggml.add_eos_token", &v.add_eos));
    QB_TRY(st, qb_gguf_bool(g, "tokenizer.ggml.add_space_prefix", false, &v.add_space_prefix));
    QB_TRY(st,
           qb_gguf_bool(g, "tokenizer.ggml.remove_extra_whitespaces", false, &v.remove_extra_whitespaces));
    if (v.n) qb_gguf_warn_unasked(g, "tokenizer.ggml.", inert);
    st = use(&v, ctx);
out:
    qb_free(a.texts);
    qb_free(a.merges);
    qb_free(a.scores);
    qb_free(a.types);
    return st;
}

typedef struct wanted {
    const qb_gguf *g;
    qb_tokenizer **tokenizer;
    qb_str *json, *config;
} wanted;

static qb_status open_it(const qb_vocabulary *v, void *ctx) {
    wanted *w = ctx;
    return qb_tokenizer_of_vocabulary(v, w->g->file, w->tokenizer);
}

static qb_status write_it(const qb_vocabulary *v, void *ctx) {
    wanted *w = ctx;
    const char *chat_template = NULL;
    qb_status st = qb_gguf_text(w->g, "tokenizer.chat_template", false, &chat_template);
    return st == QB_OK ? qb_vocabulary_write_json(v, chat_template, w->g->file, w->json, w->config) : st;
}

qb_status qb_gguf_tokenizer(const qb_gguf *g, qb_tokenizer **out) {
    *out = NULL;
    return with_vocabulary(g, open_it, &(wanted){.g = g, .tokenizer = out});
}

qb_status qb_gguf_tokenizer_json(const qb_gguf *g, qb_str *json, qb_str *config) {
    return with_vocabulary(g, write_it, &(wanted){.g = g, .json = json, .config = config});
}
