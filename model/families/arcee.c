/* Arcee: Llama with a plain MLP of squared ReLU. Source: transformers' modeling_arcee.py,
   configuration_arcee.py. */
#include "model/families/parts.h"

static void configure(qb_keys *k, qb_config *c) {
    const char *activation = "relu2";
    c->norm_eps = 1e-5f;
    qb_read_llama_keys(k, c);
    qb_key_text(k, "hidden_act", false, &activation);
    qb_config_activation(k, activation, &c->activation);
    c->gated = false;
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    qb_key_bool(k, "mlp_bias", &c->mlp_bias);
    c->output_bias = c->attention_bias;
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = qb_rms_of(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_slot_new(b, "up", c->ffn);
    qb_slot_new(b, "d", c->hidden);
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    qb_dense(b, "up", "h", "mlp.up_proj", c->mlp_bias);
    qb_activate(b, "up", "up", NULL, (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_NONE});
    qb_dense(b, "d", "up", "mlp.down_proj", c->mlp_bias);
    qb_add(b, "x", "d");
}

const qb_family qb_family_arcee = {
    .name = "arcee",
    .summary = "Arcee Foundation Models",
    .architectures = "ArceeForCausalLM",
    .model_types = "arcee",
    .max_positions = 4096,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};
