/* Llama 1 to 3.3 and models of the same shape (Yi, TinyLlama, SmolLM, DeepSeek-LLM, Vicuna). Source: the
   published config.json and safetensors, transformers' modeling_llama.py; FAMILIES.md 1.7.1. */
#include "model/families/parts.h"

static void configure(qb_keys *k, qb_config *c) {
    qb_read_llama_keys(k, c);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    qb_key_bool(k, "mlp_bias", &c->mlp_bias);
    c->output_bias = c->attention_bias;
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

static void enter(qb_builder *b, const qb_config *c) {
    (void)c;
    b->t->embed = "model.embed_tokens"; /* x is the row */
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = {.kind = QB_NORM_RMS, .eps = c->norm_eps};
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    qb_gated_mlp(b, c, "h", "d");
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", (qb_norm_of){.kind = QB_NORM_RMS, .eps = c->norm_eps});
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_llama = {
    .name = "llama",
    .summary = "Llama 1 to 3.3 and models of the same shape",
    .architectures = "LlamaForCausalLM|LLaMAForCausalLM",
    .model_types = "llama",
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};
