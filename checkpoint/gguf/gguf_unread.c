/* Metadata that changes what a model computes and that its row of gguf_architectures.def does not read. */
#include "checkpoint/gguf/gguf_model.h"

#include <stdio.h>
#include <string.h>

/* Values that change nothing are passed over: `usual`, or what the metadata `same_as` says. Source: gguf-py's
   constants.py, and llama.cpp's llama-model.cpp for what it does with each. */
static const struct {
    const char *key, *what;
    double usual;
    const char *same_as;
} keys[] = {
#include "checkpoint/gguf/gguf_keys_that_compute.def"
};

static bool is_copied(const qb_gguf_architecture *a, const char *name) {
    for (const qb_gguf_copied *c = a->copied; c && c->from; c++)
        if (!strcmp(c->from, name)) return true;
    if (qb_gguf_blocks_read(a, name)) return true;
    if (a->scale_key && !strcmp(name, "attention.scale")) return true;
    if (a->rope_by_kind && !strcmp(name, "rope.freq_base_swa")) return true;
    return a->window != QB_GGUF_WINDOW_UNREAD &&
           (!strcmp(name, "attention.sliding_window") || !strcmp(name, "attention.sliding_window_pattern"));
}

/* gguf_rope.c reads it together with the tensors that it belongs to. */
static bool is_of_longrope(const qb_gguf_builder *b, const char *name) {
    return !strcmp(name, "rope.scaling.attn_factor") &&
           qb_gguf_find_tensor(b->g, "rope_factors_long.weight") != NULL;
}

static qb_status number_of(const qb_gguf *g, const qb_gguf_value *v, const char *key, double *out) {
    if (v->is_array || v->kind == QB_GGUF_STRING)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: metadata %s is %s, which is not supported", g->file, key,
                       v->is_array ? "an array" : "text");
    if (v->kind == QB_GGUF_BOOL) {
        *out = *v->bytes != 0;
        return QB_OK;
    }
    return qb_gguf_real(g, key, true, -1e30, 1e30, out);
}

static qb_status check_key(qb_gguf_builder *b, size_t i) {
    double value = 0, usual = keys[i].usual;
    if (is_copied(b->a, keys[i].key) || is_of_longrope(b, keys[i].key)) return QB_OK;
    if (keys[i].same_as) {
        qb_status st = qb_gguf_real(b->g, qb_gguf_key(b, keys[i].same_as), false, -1e30, 1e30, &usual);
        if (st != QB_OK) return st;
    }
    const char *key = qb_gguf_key(b, keys[i].key);
    const qb_gguf_value *v = qb_gguf_find(b->g, key);
    if (!v) return QB_OK;
    qb_status st = number_of(b->g, v, key, &value);
    if (st != QB_OK) return st;
    if (value < usual || value > usual)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: metadata %s is %g: %s is not supported", b->g->file, b->key,
                       value, keys[i].what);
    return QB_OK;
}

qb_status qb_gguf_refuse_unread(qb_gguf_builder *b) {
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        qb_status st = check_key(b, i);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

void qb_gguf_warn_unread(const qb_gguf *g, const qb_gguf_architecture *a) {
    static const char *const inert[] = {
        "vocab_size",                    /* the embedding has it */
        "tensor_data_layout",            /* of converters before rows were put back; the rows say */
        "pooling_type",                  /* of embeddings of texts */
        "decoder_start_token_id",        /* of encoders and decoders */
        "use_parallel_residual",         /* llama.cpp reads it for gptneox alone, elsewhere the tensors say */
        "attention.layer_norm*_epsilon", /* of the kind of norm that the class has not */
        "rope.scaling.finetuned",
        /* read with the kind of scaling that they belong to */
        "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.yarn_beta_*", NULL};
    char prefix[80];
    size_t n = (size_t)snprintf(prefix, sizeof prefix, "%s.", a->name);
    for (size_t i = 0; i < g->n_values; i++) /* read where their kind of block is */
        if (!strncmp(g->values[i].key, prefix, n) && qb_gguf_blocks_read(a, g->values[i].key + n))
            g->values[i].asked = true;
    qb_gguf_warn_unasked(g, prefix, inert);
}
