/* EXAONE 4: norms behind the branches alone; where some layers slide, the others have no positions. Source:
   transformers' modeling_exaone4.py, configuration_exaone4.py. */
#include "model/families/parts.h"

#include <string.h>

/* sliding_window_pattern: a number, every so many-th layer is full, or letters, "LLLG", repeated over the
   layers. */
static void read_pattern(qb_keys *k, qb_config *c) {
    const char *letters = qb_json_string(qb_key_any(k, "sliding_window_pattern"));
    int64_t every = 4;
    if (!letters) qb_key_int(k, "sliding_window_pattern", false, 0, QB_LAYERS_MAX, &every);
    if (qb_key_any(k, "layer_types") || c->window == 0)
        every = 0;
    else if (letters && (!*letters || strspn(letters, "LG") != strlen(letters)))
        qb_keys_fail(k, QB_ERR_FORMAT, "sliding_window_pattern is \"%.40s\", expected letters L and G",
                     letters);
    else if (letters) {
        every = 0;
        for (int64_t l = 0; l < c->n_layers; l++)
            if (letters[(size_t)l % strlen(letters)] == 'L') c->layers[l] |= QB_LAYER_SLIDING;
    }
    qb_config_layer_types(k, c, every);
}

static void configure(qb_keys *k, qb_config *c) {
    c->norm_eps = 1e-5f;
    c->window = 4096;
    qb_read_llama_keys(k, c);
    c->qk_norm = true;
    qb_config_window(k, &c->window);
    read_pattern(k, c);
    for (int64_t l = 0; l < c->n_layers && c->window > 0; l++)
        if (!(c->layers[l] & QB_LAYER_SLIDING)) c->layers[l] |= QB_LAYER_NO_ROPE;
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = qb_rms_of(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_slot_new(b, "q", c->n_heads * c->head_dim);
    qb_slot_new(b, "k", c->n_kv_heads * c->head_dim);
    qb_slot_new(b, "v", c->n_kv_heads * c->head_dim);
    qb_dense(b, "q", "x", qb_llama_attention.q, false);
    qb_dense(b, "k", "x", qb_llama_attention.k, false);
    qb_dense(b, "v", "x", qb_llama_attention.v, false);
    qb_norm_queries_and_keys(b, c);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_norm(b, "o", "o", "post_attention_layernorm", rms);
    qb_add(b, "x", "o");
    qb_gated_mlp(b, c, "x", "d");
    qb_norm(b, "d", "d", "post_feedforward_layernorm", rms);
    qb_add(b, "x", "d");
}

const qb_family qb_family_exaone4 = {
    .name = "exaone4",
    .summary = "EXAONE 4",
    .architectures = "Exaone4ForCausalLM",
    .model_types = "exaone4",
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};
