/* Llama 4, text: chunked layers with positions, every fourth without; the router weighs the expert's input.
   Source: transformers' modeling_llama4.py. */
#include "model/families/experts.h"

static void read_layers(qb_keys *k, qb_config *c) {
    int64_t interval = 4, step = 1;
    qb_key_int(k, "no_rope_layer_interval", false, 1, QB_LAYERS_MAX, &interval);
    qb_key_int(k, "interleave_moe_layer_step", false, 1, QB_LAYERS_MAX, &step);
    const qb_json *rope = qb_key_any(k, "no_rope_layers"), *sparse = qb_key_any(k, "moe_layers");
    if (k->st != QB_OK) return;
    if (qb_json_count(rope) > 0 && qb_json_count(rope) != c->n_layers) {
        qb_keys_fail(k, QB_ERR_FORMAT, "no_rope_layers must list %lld layers, found %lld",
                     (long long)c->n_layers, (long long)qb_json_count(rope));
        return;
    }
    const qb_json *e = qb_json_first(rope);
    for (int64_t l = 0; l < c->n_layers; l++) { /* the list says 1 where there are positions */
        bool none = e ? qb_json_number(e) == 0 : (l + 1) % interval == 0;
        if (none) c->layers[l] |= QB_LAYER_NO_ROPE;
        if (e) e = qb_json_next(e);
    }
    if (!sparse)
        for (int64_t l = step - 1; l < c->n_layers; l += step) c->layers[l] |= QB_LAYER_SPARSE;
    for (e = qb_json_first(sparse); e; e = qb_json_next(e)) {
        double layer = qb_json_number(e);
        if (layer >= 0 && layer < (double)c->n_layers) c->layers[(int64_t)layer] |= QB_LAYER_SPARSE;
    }
    qb_config_layer_types_of(k, c, "chunked_attention", QB_LAYER_SLIDING, 0);
    if (qb_json_is_null(qb_json_get(k->json, "layer_types")))
        for (int64_t l = 0; l < c->n_layers; l++)
            if (!(c->layers[l] & QB_LAYER_NO_ROPE)) c->layers[l] |= QB_LAYER_SLIDING;
}

static void configure(qb_keys *k, qb_config *c) {
    bool tuned = true;
    c->norm_eps = 1e-5f;
    qb_read_llama_keys(k, c);
    c->expert_ffn = c->shared_ffn = c->ffn;
    c->ffn = 16384;
    qb_key_int(k, "intermediate_size_mlp", false, 1, 1 << 20, &c->ffn);
    c->n_experts = 16, c->top_k = 1;
    qb_read_experts(k, c, "num_local_experts", "num_experts_per_tok");
    c->route.kind = QB_ROUTER_SIGMOID;
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    c->qk_norm = true;
    qb_key_bool(k, "use_qk_norm", &c->qk_norm);
    c->chunk = 8192;
    qb_key_int(k, "attention_chunk_size", false, 1, 1 << 28, &c->chunk);
    c->temperature = (qb_temperature_attr){.beta = 0.1f, .floor_scale = 8192, .shift = 1};
    qb_key_bool(k, "attn_temperature_tuning", &tuned);
    qb_key_float(k, "floor_scale", false, 1, 1 << 28, &c->temperature.floor_scale);
    qb_key_float(k, "attn_scale", false, 0, 1e6, &c->temperature.beta);
    if (!tuned) c->temperature.beta = 0;
    c->rope_interleaved = true;
    read_layers(k, c);
    qb_config_rope(k, c, 0, NULL, 500000, 1);
}

static void attention(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of bare = {.kind = QB_NORM_RMS, .eps = c->norm_eps, .dim = c->head_dim, .bare = true};
    bool turned = !(c->layers[layer] & QB_LAYER_NO_ROPE);
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_slot_new(b, "c", c->n_heads * c->head_dim);
    qb_slot_new(b, "o", c->hidden);
    qb_rope_queries_and_keys(b, c, layer);
    if (turned && c->qk_norm) {
        qb_norm(b, "q", "q", NULL, bare);
        qb_norm(b, "k", "k", NULL, bare);
    }
    if (!turned && c->temperature.beta > 0) qb_temperature(b, "q", c->temperature);
    qb_cache(b, "k", "v");
    qb_attend(b, "c", "q", NULL, qb_attention_of(c, layer));
    qb_dense(b, "o", "c", qb_llama_attention.o, c->output_bias);
}

/* Parted: as GPTQModel has them. Source: its models/definitions/llama4.py. */
static void experts(qb_builder *b, const qb_config *c) {
    static const qb_stack_of
        gate_up = {"feed_forward.experts.gate_up_proj",
                   "",
                   NULL,
                   QB_STORED_STACKED_COLUMNS,
                   NULL,
                   {"feed_forward.experts.%e.gate_proj", "feed_forward.experts.%e.up_proj"}},
        down = {"feed_forward.experts.down_proj", "",   NULL,
                QB_STORED_STACKED_COLUMNS,        NULL, {"feed_forward.experts.%e.down_proj"}};
    static const qb_mlp_names shared = {"feed_forward.shared_expert.gate_proj",
                                        "feed_forward.shared_expert.up_proj",
                                        "feed_forward.shared_expert.down_proj"};
    qb_route_rows(b, c, "feed_forward.router", false, true);
    qb_slot_routed(b, "gate_up_e", 2 * c->expert_ffn);
    qb_slot_routed(b, "a_e", c->expert_ffn);
    qb_slot_routed(b, "down_e", c->hidden);
    qb_slot_new(b, "d", c->hidden);
    qb_experts_of_stack(b, "gate_up_e", "xe", &gate_up);
    qb_activate(b, "a_e", "gate_up_e", NULL, (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_HALVES});
    qb_experts_of_stack(b, "down_e", "a_e", &down);
    qb_scatter(b, "d", "down_e", true);
    qb_shared_mlp(b, c, &shared);
    qb_add(b, "d", "shared");
}

static void dense(qb_builder *b, const qb_config *c) {
    qb_slot_new(b, "gate", c->ffn);
    qb_slot_new(b, "up", c->ffn);
    qb_slot_new(b, "d", c->hidden);
    qb_dense(b, "gate", "h", "feed_forward.gate_proj", false);
    qb_dense(b, "up", "h", "feed_forward.up_proj", false);
    qb_activate(b, "gate", "gate", "up", (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_SEPARATE});
    qb_dense(b, "d", "gate", "feed_forward.down_proj", false);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = {.kind = QB_NORM_RMS, .eps = c->norm_eps};
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    attention(b, c, layer);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    if (c->layers[layer] & QB_LAYER_SPARSE)
        experts(b, c);
    else
        dense(b, c);
    qb_add(b, "x", "d");
}

const qb_family qb_family_llama4 = {
    .name = "llama4",
    .summary = "Llama 4, text",
    .architectures = "Llama4ForCausalLM|Llama4ForConditionalGeneration",
    .model_types = "llama4_text|llama4",
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};
