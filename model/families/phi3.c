/* Phi-3, 3.5, 4 and 4-mini: queries, keys and values in one linear, gate and up in another. Source:
   transformers' modeling_phi3.py, configuration_phi3.py. */
#include "model/families/parts.h"

static void configure(qb_keys *k, qb_config *c) {
    double fraction = 1;
    c->norm_eps = 1e-5f;
    qb_read_llama_keys(k, c);
    qb_config_window(k, &c->window);
    qb_all_layers_slide(c);
    qb_key_real(k, "partial_rotary_factor", false, 0, 1, &fraction);
    qb_config_rope(k, c, 0, NULL, 10000, fraction);
    if (c->ropes[0].scaling != QB_ROPE_DEFAULT && c->ropes[0].scaling != QB_ROPE_LONGROPE &&
        c->ropes[0].scaling != QB_ROPE_FACTORS)
        qb_keys_fail(k, QB_ERR_UNSUPPORTED, "Phi-3 has rope of the types default and longrope alone");
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = qb_rms_of(c);
    const int64_t queries = c->n_heads * c->head_dim, keys = c->n_kv_heads * c->head_dim;
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_slot_new(b, "qkv", queries + 2 * keys);
    qb_slot_new(b, "q", queries);
    qb_slot_new(b, "k", keys);
    qb_slot_new(b, "v", keys);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    qb_dense(b, "qkv", "h", "self_attn.qkv_proj", false);
    qb_split(b, "qkv", "q", "k", "v", (qb_split_attr){.groups = 1, .width = {queries, keys, keys}});
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    qb_fused_gated_mlp(b, c, "h", "d");
    qb_add(b, "x", "d");
}

const qb_family qb_family_phi3 = {
    .name = "phi3",
    .summary = "Phi-3, 3.5, 4 and 4-mini",
    .architectures = "Phi3ForCausalLM",
    .model_types = "phi3",
    .max_positions = 4096,
    .original_positions = 4096,
    .yarn_is_longrope = true,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};
