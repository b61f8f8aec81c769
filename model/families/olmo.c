/* OLMo 1: LayerNorm without weights, queries, keys and values clipped. Source: transformers'
   modeling_olmo.py, configuration_olmo.py; docs/families.md. */
#include "model/families/gpt_parts.h"

static void configure(qb_keys *k, qb_config *c) {
    qb_read_gpt_keys(k, c, &(qb_gpt_keys){"intermediate_size", "hidden_act", "silu", NULL}); /* eps 1e-5 */
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    c->gated = true;
    qb_key_float(k, "clip_qkv", false, 0, 1e6, &c->clip_qkv);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

static qb_norm_of norm_of(const qb_config *c) {
    return (qb_norm_of){.kind = QB_NORM_LAYER, .eps = c->norm_eps, .bare = true};
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", NULL, norm_of(c));
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_map_values(b, QB_STEP_CLAMP, "q", c->clip_qkv);
    qb_map_values(b, QB_STEP_CLAMP, "k", c->clip_qkv);
    qb_map_values(b, QB_STEP_CLAMP, "v", c->clip_qkv);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", NULL, norm_of(c));
    qb_gated_mlp(b, c, "h", "d");
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", NULL, norm_of(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_olmo = {
    .name = "olmo",
    .summary = "OLMo 1",
    .architectures = "OlmoForCausalLM",
    .model_types = "olmo",
    .max_positions = 2048,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};
