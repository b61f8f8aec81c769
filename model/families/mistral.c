/* Mistral (windows in all layers), Ministral (in some), Ministral 3 (yarn, and queries that grow with their
   position) and the text part of Mistral 3. Source: transformers' modeling_mistral.py, modeling_ministral.py,
   modeling_ministral3.py with their configurations. */
#include "model/families/parts.h"

static void configure_mistral(qb_keys *k, qb_config *c) {
    c->window = 4096;
    qb_read_llama_keys(k, c);
    qb_config_window(k, &c->window);
    qb_all_layers_slide(c);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

const qb_family qb_family_mistral = {
    .name = "mistral",
    .summary = "Mistral, and Mistral 3 with images left out",
    .architectures = "MistralForCausalLM|Mistral3ForConditionalGeneration",
    .model_types = "mistral|mistral3",
    .n_kv_heads = 8,
    .max_positions = 131072,
    .configure = configure_mistral,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};

static void configure_ministral(qb_keys *k, qb_config *c) {
    c->window = 4096;
    qb_read_llama_keys(k, c);
    qb_config_window(k, &c->window);
    if (!qb_key_any(k, "layer_types")) qb_all_layers_slide(c);
    qb_config_layer_types(k, c, 0);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

const qb_family qb_family_ministral = {
    .name = "ministral",
    .summary = "Ministral: windows in some layers",
    .architectures = "MinistralForCausalLM",
    .model_types = "ministral",
    .n_kv_heads = 8,
    .max_positions = 131072,
    .configure = configure_ministral,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};

/* What the class takes where there are no rope parameters. */
static void default_rope(qb_config *c) {
    c->ropes[0] = (qb_rope_spec){.scaling = QB_ROPE_YARN,
                                 .theta = 1e6,
                                 .width = c->head_dim,
                                 .factor = 16,
                                 .beta_fast = 32,
                                 .beta_slow = 1,
                                 .mscale = 1,
                                 .mscale_all_dim = 1,
                                 .truncate = true,
                                 .original_positions = 16384,
                                 .max_positions = c->max_positions};
    c->temperature = (qb_temperature_attr){.beta = 0.1f, .floor_scale = 16384};
}

static void configure_ministral3(qb_keys *k, qb_config *c) {
    c->norm_eps = 1e-5f;
    qb_read_llama_keys(k, c);
    qb_config_window(k, &c->window);
    qb_all_layers_slide(c);
    const qb_json *rope = qb_key_any(k, "rope_scaling|rope_parameters");
    if (!rope) {
        default_rope(c);
        return;
    }
    qb_config_rope(k, c, 0, NULL, 10000, 1);
    qb_keys in = {.json = rope, .where = k->where, .st = k->st};
    qb_key_float(&in, "llama_4_scaling_beta", false, 0, 1e3, &c->temperature.beta);
    c->temperature.floor_scale = (float)c->ropes[0].original_positions;
    k->st = in.st;
}

const qb_family qb_family_ministral3 = {
    .name = "ministral3",
    .summary = "Ministral 3: yarn, and queries that grow with their position",
    .architectures = "Ministral3ForCausalLM",
    .model_types = "ministral3",
    .n_kv_heads = 8,
    .head_dim = 128,
    .max_positions = 262144,
    .configure = configure_ministral3,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};
