/* Llama 1 to 3.3 and models of the same shape (Yi, TinyLlama, SmolLM, DeepSeek-LLM, Vicuna). Source: the
   published config.json and safetensors, transformers' modeling_llama.py. */
#include "model/families/parts.h"

static void configure(qb_keys *k, qb_config *c) {
    qb_read_llama_keys(k, c);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    qb_key_bool(k, "mlp_bias", &c->mlp_bias);
    c->output_bias = c->attention_bias;
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

const qb_family qb_family_llama = {
    .name = "llama",
    .summary = "Llama 1 to 3.3 and models of the same shape",
    .architectures = "LlamaForCausalLM|LLaMAForCausalLM",
    .model_types = "llama",
    .configure = configure,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};
