/* Seed-OSS: Llama with biases of its own choice. Source: transformers' modeling_seed_oss.py,
   configuration_seed_oss.py. */
#include "model/families/parts.h"

static void configure(qb_keys *k, qb_config *c) {
    qb_read_llama_keys(k, c);
    c->attention_bias = true;
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    qb_key_bool(k, "attention_out_bias", &c->output_bias);
    qb_key_bool(k, "mlp_bias", &c->mlp_bias);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

const qb_family qb_family_seed_oss = {
    .name = "seed_oss",
    .summary = "Seed-OSS",
    .architectures = "SeedOssForCausalLM",
    .model_types = "seed_oss",
    .n_kv_heads = 8,
    .head_dim = 128,
    .max_positions = 524288,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};
