/* Apertus: Llama with norms of q and k by head and a plain MLP whose activation, xIELU, has learned numbers
   in each layer. Source: transformers' modeling_apertus.py, configuration_apertus.py, activations.py. */
#include "model/families/parts.h"

#include <string.h>

static void configure(qb_keys *k, qb_config *c) {
    const char *activation = "xielu";
    double eps = 1e-5;
    qb_key_int(k, "intermediate_size", true, 1, 1 << 20, &c->ffn);
    qb_key_real(k, "rms_norm_eps", false, 0, 1, &eps);
    c->norm_eps = (float)eps;
    qb_key_text(k, "hidden_act", false, &activation);
    if (strcmp(activation, "xielu") != 0)
        qb_keys_fail(k, QB_ERR_UNSUPPORTED, "hidden_act \"%s\": Apertus is computed with xielu alone",
                     activation);
    /* Where none is given the class scales as llama3 does, which no published file leaves out. */
    if (!qb_key_any(k, "rope_parameters") && !qb_key_any(k, "rope_scaling"))
        qb_keys_fail(k, QB_ERR_UNSUPPORTED,
                     "neither rope_parameters nor rope_scaling says how positions turn");
    qb_keys_mark(k, "qk_norm"); /* published as true; the class has no other form */
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    qb_config_rope(k, c, 0, NULL, 12000000, 1);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = qb_rms_of(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "attention_layernorm", rms);
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_norm_queries_and_keys(b, c);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_slot_new(b, "up", c->ffn);
    qb_slot_new(b, "d", c->hidden);
    qb_norm(b, "h", "x", "feedforward_layernorm", rms);
    qb_dense(b, "up", "h", "mlp.up_proj", false);
    qb_xielu(b, "up", "up", "mlp.act_fn");
    qb_dense(b, "d", "up", "mlp.down_proj", false);
    qb_add(b, "x", "d");
}

const qb_family qb_family_apertus = {
    .name = "apertus",
    .summary = "Apertus 8B and 70B",
    .architectures = "ApertusForCausalLM",
    .model_types = "apertus",
    .max_positions = 65536,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};
