/* Nemotron and Minitron: LayerNorm that multiplies by 1 + w, an MLP of two linears with relu squared, rope
   over a part of each head. Source: transformers' modeling_nemotron.py, configuration_nemotron.py. */
#include "model/families/gpt_parts.h"

static const qb_mlp_names mlp = {"mlp.up_proj", "mlp.down_proj"};

static void configure(qb_keys *k, qb_config *c) {
    double fraction = 0.5;
    qb_read_gpt_keys(k, c, &(qb_gpt_keys){"intermediate_size", "hidden_act", "relu2", "norm_eps"});
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    qb_key_bool(k, "mlp_bias", &c->mlp_bias);
    c->output_bias = c->attention_bias;
    c->norm_add = 1;
    qb_key_real(k, "partial_rotary_factor", false, 0, 1, &fraction);
    qb_config_rope(k, c, 0, NULL, 10000, fraction);
}

static qb_norm_of norm_of(const qb_config *c) {
    qb_norm_of n = qb_layer_norm(c);
    n.add = c->norm_add;
    return n;
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of norm = norm_of(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", norm);
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", norm);
    qb_two_linear_mlp(b, c, "h", mlp, c->mlp_bias, QB_STORED_ROWS);
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", norm_of(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_nemotron = {
    .name = "nemotron",
    .summary = "Nemotron 4 and Minitron",
    .architectures = "NemotronForCausalLM",
    .model_types = "nemotron",
    .max_positions = 4096,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};
