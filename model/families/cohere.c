/* Cohere (Command R, Aya) and Cohere 2 (Command R7B, A): attention and MLP side by side behind one LayerNorm
   without bias, rope of neighbouring elements, scaled logits. Cohere may norm queries and keys, each head
   with a weight of its own; in Cohere 2 layers slide and turn, or are full and have no positions. Source:
   transformers' modeling_cohere.py, modeling_cohere2.py and their configuration files; docs/families.md. */
#include "model/families/gpt_parts.h"

static void read_common(qb_keys *k, qb_config *c) {
    qb_read_gpt_keys(k, c, &(qb_gpt_keys){"intermediate_size", "hidden_act", "silu", "layer_norm_eps"});
    c->logit_scale = 0.0625f;
    qb_key_float(k, "logit_scale", false, 0, 1e6, &c->logit_scale);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    c->gated = c->parallel = c->rope_interleaved = true;
}

static void configure(qb_keys *k, qb_config *c) {
    read_common(k, c);
    qb_key_bool(k, "use_qk_norm", &c->qk_norm);
    qb_config_rope(k, c, 0, NULL, 500000, 1);
}

static void configure_2(qb_keys *k, qb_config *c) {
    int64_t every = 4;
    read_common(k, c);
    c->window = 4096;
    qb_config_window(k, &c->window);
    qb_key_int(k, "sliding_window_pattern|_sliding_window_pattern", false, 1, QB_LAYERS_MAX, &every);
    qb_config_layer_types(k, c, every);
    qb_keys_mark(k, "position_embedding_type"); /* published as rope_gptj; the class has no other */
    qb_config_rope(k, c, 0, NULL, 10000, 1);
    for (int64_t l = 0; l < c->n_layers; l++) /* the class turns where a layer has a window */
        if (!(c->layers[l] & QB_LAYER_SLIDING) || c->window == 0) c->layers[l] |= QB_LAYER_NO_ROPE;
}

static qb_norm_of norm_of(const qb_config *c) {
    return (qb_norm_of){.kind = QB_NORM_LAYER, .eps = c->norm_eps};
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    qb_norm_of a_head = norm_of(c);
    a_head.per_group = true;
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", norm_of(c));
    qb_project_qkv(b, c, &qb_llama_attention);
    if (c->qk_norm) qb_norm_heads(b, c, "self_attn.q_norm", "self_attn.k_norm", a_head);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_gated_mlp(b, c, "h", "d");
    qb_add(b, "x", "o");
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", norm_of(c));
    qb_head(b, "h", "lm_head", false);
    qb_map_values(b, QB_STEP_SCALE, "logits", c->logit_scale);
}

const qb_family qb_family_cohere = {
    .name = "cohere",
    .summary = "Command R and Aya",
    .architectures = "CohereForCausalLM",
    .model_types = "cohere",
    .tied = true,
    .max_positions = 8192,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};

const qb_family qb_family_cohere2 = {
    .name = "cohere2",
    .summary = "Command R7B and Command A",
    .architectures = "Cohere2ForCausalLM",
    .model_types = "cohere2",
    .tied = true,
    .max_positions = 8192,
    .configure = configure_2,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};
