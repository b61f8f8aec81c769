/* Qwen 1.5, 2 and 2.5 (biased queries, keys and values) and Qwen 3 (norms of queries and keys instead).
   Source: transformers' modeling_qwen2.py, modeling_qwen3.py with their configurations. */
#include "model/families/parts.h"

/* The first max_window_layers layers see everything; no layer slides unless use_sliding_window says so. */
static void read_windows(qb_keys *k, qb_config *c) {
    bool sliding = false;
    int64_t first = 28;
    c->window = 4096;
    qb_config_window(k, &c->window);
    qb_key_bool(k, "use_sliding_window", &sliding);
    qb_key_int(k, "max_window_layers", false, 0, QB_LAYERS_MAX, &first);
    if (!sliding) c->window = 0;
    if (!qb_key_any(k, "layer_types"))
        for (int64_t l = first; l < c->n_layers && c->window > 0; l++) c->layers[l] |= QB_LAYER_SLIDING;
    qb_config_layer_types(k, c, 0);
}

static void configure_qwen2(qb_keys *k, qb_config *c) {
    qb_read_llama_keys(k, c);
    c->attention_bias = true; /* of q, k and v; the class has no key for it */
    read_windows(k, c);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

const qb_family qb_family_qwen2 = {
    .name = "qwen2",
    .summary = "Qwen 1.5, 2 and 2.5",
    .architectures = "Qwen2ForCausalLM",
    .model_types = "qwen2",
    .max_positions = 32768,
    .configure = configure_qwen2,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};

static void configure_qwen3(qb_keys *k, qb_config *c) {
    qb_read_llama_keys(k, c);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    c->qk_norm = true;
    read_windows(k, c);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

const qb_family qb_family_qwen3 = {
    .name = "qwen3",
    .summary = "Qwen 3, dense",
    .architectures = "Qwen3ForCausalLM",
    .model_types = "qwen3",
    .head_dim = 128,
    .max_positions = 32768,
    .configure = configure_qwen3,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};
