/* GPT-Neo and TinyStories: layers with a window between full ones, scores that nothing scales. Source:
   transformers' modeling_gpt_neo.py. */
#include "model/families/gpt_parts.h"

#include <string.h>

/* A layer of the kind named; what is beyond the last layer only counts. */
static void add_layer(qb_keys *k, qb_config *c, const qb_json *kind, int64_t *layer) {
    const char *name = qb_json_string(kind);
    if (!name || (strcmp(name, "local") != 0 && strcmp(name, "global") != 0)) {
        qb_keys_fail(k, QB_ERR_UNSUPPORTED,
                     "attention_types: layer %lld is \"%.60s\", expected \"global\" or \"local\"",
                     (long long)*layer, name ? name : "no text");
        return;
    }
    if (*layer < c->n_layers && !strcmp(name, "local")) c->layers[*layer] |= QB_LAYER_SLIDING;
    ++*layer;
}

/* [[["global", "local"], 12]]: pairs of kinds and how often they follow. */
static void read_types(qb_keys *k, qb_config *c, const qb_json *types, int64_t *layer) {
    for (const qb_json *pair = qb_json_first(types); pair && k->st == QB_OK; pair = qb_json_next(pair)) {
        const qb_json *kinds = qb_json_first(pair), *times = kinds ? qb_json_next(kinds) : NULL;
        double n = qb_json_is_number(times) ? qb_json_number(times) : -1;
        if (!qb_json_is_array(kinds) || n < 0 || n > QB_LAYERS_MAX || !qb_json_first(kinds)) {
            qb_keys_fail(k, QB_ERR_FORMAT,
                         "attention_types must be pairs of kinds and a count, such as [[[\"global\", "
                         "\"local\"], 12]]");
            return;
        }
        for (int64_t i = 0; i < (int64_t)n; i++)
            for (const qb_json *kind = qb_json_first(kinds); kind && k->st == QB_OK;
                 kind = qb_json_next(kind))
                add_layer(k, c, kind, layer);
    }
}

/* attention_layers is what the class expands attention_types to: the latter counts. */
static void read_layers(qb_keys *k, qb_config *c) {
    const qb_json *types = qb_key_any(k, "attention_types"), *list = qb_key_any(k, "attention_layers");
    int64_t layers = 0;
    if (types)
        read_types(k, c, types, &layers);
    else if (list)
        for (const qb_json *kind = qb_json_first(list); kind && k->st == QB_OK; kind = qb_json_next(kind))
            add_layer(k, c, kind, &layers);
    else
        for (; layers < c->n_layers; layers++)
            if (layers % 2) c->layers[layers] |= QB_LAYER_SLIDING;
    if (k->st == QB_OK && layers != c->n_layers)
        qb_keys_fail(k, QB_ERR_FORMAT, "%s says the kinds of %lld layers, expected %lld",
                     types ? "attention_types" : "attention_layers", (long long)layers,
                     (long long)c->n_layers);
}

static void configure(qb_keys *k, qb_config *c) {
    qb_read_gpt_keys(
        k, c, &(qb_gpt_keys){"intermediate_size", "activation_function", "gelu_new", "layer_norm_epsilon"});
    c->window = 256;
    qb_key_int(k, "window_size", false, 1, 1 << 24, &c->window);
    read_layers(k, c);
    c->attention_scale = 1;
    c->output_bias = c->mlp_bias = true;
    c->n_ropes = 0;
    qb_one_kv_head_a_query_head(c);
}

static void enter(qb_builder *b, const qb_config *c) {
    b->t->embed = "transformer.wte";
    qb_position(b, "x", "transformer.wpe.weight", c->max_positions, 0);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    static const qb_attention_names names = {"attn.attention.q_proj", "attn.attention.k_proj",
                                             "attn.attention.v_proj", "attn.attention.out_proj"};
    b->prefix = "transformer.h.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "ln_1", qb_layer_norm(c));
    qb_project_qkv(b, c, &names);
    qb_attend_and_project(b, c, layer, names.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "ln_2", qb_layer_norm(c));
    qb_two_linear_mlp(b, c, "h", (qb_mlp_names){"mlp.c_fc", "mlp.c_proj"}, true, QB_STORED_ROWS);
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "transformer.ln_f", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_gpt_neo = {
    .name = "gpt_neo",
    .summary = "GPT-Neo, TinyStories",
    .architectures = "GPTNeoForCausalLM",
    .model_types = "gpt_neo",
    .tied = true,
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};
