/* Phi 1, 1.5 and 2: attention and MLP side by side behind one norm, everything biased, the head too. Source:
   transformers' modeling_phi.py. */
#include "model/families/gpt_parts.h"

static void configure(qb_keys *k, qb_config *c) {
    double fraction = 0.5;
    qb_read_gpt_keys(k, c, &(qb_gpt_keys){"intermediate_size", "hidden_act", "gelu_new", "layer_norm_eps"});
    qb_key_bool(k, "qk_layernorm", &c->qk_norm);
    qb_key_real(k, "partial_rotary_factor", false, 0, 1, &fraction);
    qb_config_rope(k, c, 0, NULL, 10000, fraction);
    c->attention_bias = c->output_bias = c->mlp_bias = c->head_bias = c->parallel = true;
}

static void enter(qb_builder *b, const qb_config *c) {
    (void)c;
    b->t->embed = "model.embed_tokens";
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", qb_layer_norm(c));
    qb_project_qkv(b, c, &qb_llama_attention);
    if (c->qk_norm) qb_norm_heads(b, c, "self_attn.q_layernorm", "self_attn.k_layernorm", qb_layer_norm(c));
    qb_attend_and_project(b, c, layer, "self_attn.dense");
    qb_two_linear_mlp(b, c, "h", (qb_mlp_names){"mlp.fc1", "mlp.fc2"}, true, QB_STORED_ROWS);
    qb_add(b, "x", "o");
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.final_layernorm", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", c->head_bias);
}

const qb_family qb_family_phi = {
    .name = "phi",
    .summary = "Phi 1, 1.5 and 2",
    .architectures = "PhiForCausalLM",
    .model_types = "phi",
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};
