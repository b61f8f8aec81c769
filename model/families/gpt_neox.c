/* GPT-NeoX (Pythia, Dolly, RedPajama) and Persimmon: queries, keys and values interleaved by heads, rope over
   a part of each head. Source: transformers' modeling_gpt_neox.py and modeling_persimmon.py. */
#include "model/families/gpt_parts.h"

static const qb_mlp_names mlp = {"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"};

static void configure(qb_keys *k, qb_config *c) {
    double fraction = 0.25;
    qb_read_gpt_keys(k, c, &(qb_gpt_keys){"intermediate_size", "hidden_act", "gelu", "layer_norm_eps"});
    c->attention_bias = c->parallel = c->mlp_bias = true;
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    qb_key_bool(k, "use_parallel_residual", &c->parallel);
    c->output_bias = c->attention_bias;
    qb_key_real(k, "rotary_pct|partial_rotary_factor", false, 0, 1, &fraction);
    qb_config_rope(k, c, 0, NULL, 10000, fraction);
    qb_one_kv_head_a_query_head(c);
    c->fused_groups = c->n_heads;
}

static void enter(qb_builder *b, const qb_config *c) {
    (void)c;
    b->t->embed = "gpt_neox.embed_in";
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of norm = qb_layer_norm(c);
    b->prefix = "gpt_neox.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", norm);
    qb_fused_qkv(b, c, "h", "attention.query_key_value", c->attention_bias, QB_STORED_ROWS);
    qb_attend_and_project(b, c, layer, "attention.dense");
    if (!c->parallel) qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", norm);
    qb_two_linear_mlp(b, c, "h", mlp, true, QB_STORED_ROWS);
    if (c->parallel) qb_add(b, "x", "o");
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "gpt_neox.final_layer_norm", qb_layer_norm(c));
    qb_head(b, "h", "embed_out", false);
}

const qb_family qb_family_gpt_neox = {
    .name = "gpt_neox",
    .summary = "GPT-NeoX, Pythia, Dolly, RedPajama-INCITE",
    .architectures = "GPTNeoXForCausalLM",
    .model_types = "gpt_neox",
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};

/* ---- Persimmon ---- */

static void configure_persimmon(qb_keys *k, qb_config *c) {
    double fraction = 0.5;
    qb_read_gpt_keys(k, c, &(qb_gpt_keys){"intermediate_size", "hidden_act", "relu2", "layer_norm_eps"});
    c->attention_bias = c->output_bias = c->mlp_bias = c->qk_norm = true;
    qb_key_bool(k, "qk_layernorm", &c->qk_norm);
    qb_key_real(k, "partial_rotary_factor", false, 0, 1, &fraction);
    qb_config_rope(k, c, 0, NULL, 10000, fraction);
    qb_one_kv_head_a_query_head(c);
    c->fused_groups = c->n_heads;
}

static void enter_persimmon(qb_builder *b, const qb_config *c) {
    (void)c;
    b->t->embed = "model.embed_tokens";
}

static void block_persimmon(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of norm = qb_layer_norm(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", norm);
    qb_fused_qkv(b, c, "h", "self_attn.query_key_value", true, QB_STORED_ROWS);
    if (c->qk_norm) qb_norm_heads(b, c, "self_attn.q_layernorm", "self_attn.k_layernorm", norm);
    qb_attend_and_project(b, c, layer, "self_attn.dense");
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", norm);
    qb_two_linear_mlp(b, c, "h", mlp, true, QB_STORED_ROWS);
    qb_add(b, "x", "d");
}

static void leave_persimmon(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.final_layernorm", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_persimmon = {
    .name = "persimmon",
    .summary = "Persimmon",
    .architectures = "PersimmonForCausalLM",
    .model_types = "persimmon",
    .configure = configure_persimmon,
    .enter = enter_persimmon,
    .block = block_persimmon,
    .leave = leave_persimmon,
};
