/* SmolLM3: Llama with every fourth layer without positions. Source: transformers' modeling_smollm3.py,
   configuration_smollm3.py. */
#include "model/families/parts.h"

/* no_rope_layers has a 1 where a layer has positions; else every interval-th layer has none. */
static void read_positions(qb_keys *k, qb_config *c) {
    const qb_json *list = qb_key_any(k, "no_rope_layers");
    int64_t interval = 4, l = 0;
    qb_key_int(k, "no_rope_layer_interval", false, 1, QB_LAYERS_MAX, &interval);
    if (!list) {
        for (; l < c->n_layers; l++)
            if ((l + 1) % interval == 0) c->layers[l] |= QB_LAYER_NO_ROPE;
        return;
    }
    if (!qb_json_is_array(list) || qb_json_count(list) != c->n_layers) {
        qb_keys_fail(k, QB_ERR_FORMAT, "no_rope_layers must list %lld layers, found %lld",
                     (long long)c->n_layers, (long long)qb_json_count(list));
        return;
    }
    for (const qb_json *j = qb_json_first(list); j; j = qb_json_next(j), l++)
        if (qb_json_number(j) == 0) c->layers[l] |= QB_LAYER_NO_ROPE;
}

static void configure(qb_keys *k, qb_config *c) {
    bool sliding = false;
    qb_read_llama_keys(k, c);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    qb_key_bool(k, "mlp_bias", &c->mlp_bias);
    c->output_bias = c->attention_bias;
    read_positions(k, c);
    qb_config_window(k, &c->window);
    qb_key_bool(k, "use_sliding_window", &sliding);
    if (!sliding) c->window = 0;
    if (!qb_key_any(k, "layer_types"))
        for (int64_t l = 0; l < c->n_layers && c->window > 0; l++)
            if (c->layers[l] & QB_LAYER_NO_ROPE) c->layers[l] |= QB_LAYER_SLIDING;
    qb_config_layer_types(k, c, 0);
    qb_config_rope(k, c, 0, NULL, 2e6, 1);
}

const qb_family qb_family_smollm3 = {
    .name = "smollm3",
    .summary = "SmolLM3",
    .architectures = "SmolLM3ForCausalLM",
    .model_types = "smollm3",
    .tied = true,
    .n_kv_heads = 4,
    .max_positions = 32768,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};
