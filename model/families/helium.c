/* Helium: Llama whose neighbouring elements turn together. Source: transformers' modeling_helium.py,
   configuration_helium.py. */
#include "model/families/parts.h"

static void configure(qb_keys *k, qb_config *c) {
    c->norm_eps = 1e-8f;
    qb_read_llama_keys(k, c);
    qb_key_bool(k, "attention_bias", &c->attention_bias); /* of q, k and v alone */
    qb_key_bool(k, "mlp_bias", &c->mlp_bias);
    c->rope_interleaved = true;
    qb_config_rope(k, c, 0, NULL, 1e5, 1);
}

const qb_family qb_family_helium = {
    .name = "helium",
    .summary = "Helium",
    .architectures = "HeliumForCausalLM",
    .model_types = "helium",
    .head_dim = 128,
    .max_positions = 4096,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};
