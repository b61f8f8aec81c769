/* StableLM: LayerNorm with a bias, a gated MLP, rope over a part of each head; attention and MLP behind each
   other or side by side, queries and keys normed by a tensor a head (2 12B). Checkpoints from before
   transformers had the class spell some keys otherwise. Source: transformers' modeling_stablelm.py,
   configuration_stablelm.py; docs/families.md. */
#include "model/families/gpt_parts.h"

static void configure(qb_keys *k, qb_config *c) {
    double fraction = 0.25;
    qb_read_gpt_keys(k, c,
                     &(qb_gpt_keys){"intermediate_size", "hidden_act", "silu", "layer_norm_eps|norm_eps"});
    qb_key_bool(k, "use_qkv_bias", &c->attention_bias);
    qb_key_bool(k, "qk_layernorm", &c->qk_norm);
    qb_key_bool(k, "use_parallel_residual", &c->parallel);
    c->gated = true;
    qb_key_real(k, "partial_rotary_factor|rope_pct", false, 0, 1, &fraction);
    qb_config_rope(k, c, 0, NULL, 10000, fraction);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of norm = qb_layer_norm(c);
    const qb_norm_of a_head = {.kind = QB_NORM_LAYER, .eps = c->norm_eps, .per_group = true, .by_head = true};
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", norm);
    qb_project_qkv(b, c, &qb_llama_attention);
    if (c->qk_norm)
        qb_norm_heads(b, c, "self_attn.q_layernorm.norms.%h", "self_attn.k_layernorm.norms.%h", a_head);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    if (!c->parallel) qb_norm(b, "h", "x", "post_attention_layernorm", norm);
    qb_gated_mlp(b, c, "h", "d");
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_stablelm = {
    .name = "stablelm",
    .summary = "StableLM 3B, 2 and Zephyr",
    .architectures = "StableLmForCausalLM|StableLMEpochForCausalLM",
    .model_types = "stablelm|stablelm_epoch",
    .max_positions = 4096,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};
