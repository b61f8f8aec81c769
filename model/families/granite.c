/* Granite 3: Llama with four multipliers. Source: transformers' modeling_granite.py,
   configuration_granite.py. */
#include "model/families/parts.h"

static void configure(qb_keys *k, qb_config *c) {
    double logits = 1;
    qb_read_llama_keys(k, c);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    qb_key_bool(k, "mlp_bias", &c->mlp_bias);
    c->output_bias = c->attention_bias;
    c->attention_scale = 1; /* stands in place of 1 / sqrt(head_dim) */
    qb_key_float(k, "attention_multiplier", false, 1e-6, 1e6, &c->attention_scale);
    qb_key_float(k, "embedding_multiplier", false, 1e-6, 1e6, &c->embed_scale);
    qb_key_float(k, "residual_multiplier", false, 1e-6, 1e6, &c->residual_scale);
    qb_key_real(k, "logits_scaling", false, 1e-6, 1e6, &logits);
    c->logit_scale = (float)(1 / logits);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

const qb_family qb_family_granite = {
    .name = "granite",
    .summary = "Granite 3, dense",
    .architectures = "GraniteForCausalLM",
    .model_types = "granite",
    .configure = configure,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};
