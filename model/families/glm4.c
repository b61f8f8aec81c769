/* GLM-4 0414 (9B and 32B): norms before and behind each branch, gate and up in one linear, interleaved rope
   over a part of each head. Source: transformers' modeling_glm4.py, configuration_glm4.py. */
#include "model/families/parts.h"

static void configure(qb_keys *k, qb_config *c) {
    double fraction = 0.5;
    c->norm_eps = 1.5625e-7f;
    qb_read_llama_keys(k, c);
    c->attention_bias = true; /* of q, k and v alone */
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->rope_interleaved = true;
    qb_key_real(k, "partial_rotary_factor", false, 0, 1, &fraction);
    qb_config_rope(k, c, 0, NULL, 10000, fraction);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = qb_rms_of(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_norm(b, "o", "o", "post_self_attn_layernorm", rms);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    qb_fused_gated_mlp(b, c, "h", "d");
    qb_norm(b, "d", "d", "post_mlp_layernorm", rms);
    qb_add(b, "x", "d");
}

const qb_family qb_family_glm4 = {
    .name = "glm4",
    .summary = "GLM-4 0414, 9B and 32B",
    .architectures = "Glm4ForCausalLM",
    .model_types = "glm4",
    .n_kv_heads = 2,
    .head_dim = 128,
    .max_positions = 131072,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};
