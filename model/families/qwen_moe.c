/* Qwen1.5-MoE and Qwen2-MoE (a gated shared expert), Qwen3-MoE (norms of queries and keys by head), OLMoE
   (norms of whole projections, clipped). Source: transformers' modeling_qwen2_moe.py, modeling_qwen3_moe.py,
   modeling_olmoe.py. */
#include "model/families/experts.h"

enum { QK_NORM_NONE, QK_NORM_BY_HEAD, QK_NORM_WHOLE }; /* qb_config.variant */

static void read_common(qb_keys *k, qb_config *c, double theta) {
    qb_read_llama_keys(k, c);
    qb_read_experts(k, c, "num_experts|num_local_experts", "num_experts_per_tok");
    c->route.kind = QB_ROUTER_SOFTMAX;
    qb_key_bool(k, "norm_topk_prob", &c->route.normalise);
    qb_config_rope(k, c, 0, NULL, theta, 1);
}

static void read_sparse_step(qb_keys *k, qb_config *c) {
    int64_t step = 1;
    qb_key_int(k, "decoder_sparse_step", false, 1, QB_LAYERS_MAX, &step);
    qb_read_sparse_layers(k, c, step);
}

static void configure_qwen2_moe(qb_keys *k, qb_config *c) {
    bool use_window = false;
    int64_t window = 4096, most = 28;
    c->n_experts = 60, c->top_k = 4, c->expert_ffn = 1408, c->shared_ffn = 5632;
    read_common(k, c, 10000);
    qb_key_int(k, "moe_intermediate_size", false, 1, 1 << 20, &c->expert_ffn);
    qb_key_int(k, "shared_expert_intermediate_size", false, 1, 1 << 20, &c->shared_ffn);
    c->attention_bias = true;
    qb_key_bool(k, "qkv_bias", &c->attention_bias);
    read_sparse_step(k, c);
    qb_key_bool(k, "use_sliding_window", &use_window);
    qb_key_int(k, "sliding_window", false, 0, 1 << 28, &window);
    qb_key_int(k, "max_window_layers", false, 0, 1 << 20, &most);
    c->window = use_window ? window : 0;
    if (!use_window) {
        qb_keys_mark(k, "layer_types"); /* every kind of layer sees everything */
        return;
    }
    qb_config_layer_types(k, c, 0);
    if (qb_json_is_null(qb_json_get(k->json, "layer_types"))) /* not Qwen2's rule */
        for (int64_t l = 0; l < c->n_layers && l < most; l += 2) c->layers[l] |= QB_LAYER_SLIDING;
}

static void configure_qwen3_moe(qb_keys *k, qb_config *c) {
    bool use_window = false;
    c->n_experts = 128, c->top_k = 8, c->expert_ffn = 768;
    read_common(k, c, 10000);
    qb_key_int(k, "moe_intermediate_size", false, 1, 1 << 20, &c->expert_ffn);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    c->variant = QK_NORM_BY_HEAD;
    read_sparse_step(k, c);
    qb_key_bool(k, "use_sliding_window", &use_window);
    if (use_window)
        qb_read_window_of_all(k, c, 4096);
    else
        qb_keys_mark(k, "sliding_window");
}

static void configure_olmoe(qb_keys *k, qb_config *c) {
    c->n_experts = 64, c->top_k = 8;
    c->norm_eps = 1e-5f;
    read_common(k, c, 10000);
    c->expert_ffn = c->ffn;
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    qb_key_float(k, "clip_qkv", false, 0, 1e6, &c->clip_qkv);
    c->variant = QK_NORM_WHOLE;
    for (int64_t l = 0; l < c->n_layers; l++) c->layers[l] |= QB_LAYER_SPARSE;
}

static void norm_queries_and_keys(qb_builder *b, const qb_config *c) {
    qb_norm_of n = {
        .kind = QB_NORM_RMS, .eps = c->norm_eps, .dim = c->variant == QK_NORM_BY_HEAD ? c->head_dim : 0};
    if (c->variant == QK_NORM_NONE) return;
    qb_norm(b, "q", "q", "self_attn.q_norm", n);
    qb_norm(b, "k", "k", "self_attn.k_norm", n);
}

static void shared_expert(qb_builder *b, const qb_config *c) {
    static const qb_mlp_names names = {"mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj",
                                       "mlp.shared_expert.down_proj"};
    qb_slot_new(b, "share", 1);
    qb_shared_mlp(b, c, &names);
    qb_dense_kept(b, "share", "h", "mlp.shared_expert_gate", false);
    qb_gate_rows(b, "shared", "share");
    qb_add(b, "d", "shared");
}

void qb_qwen_experts(qb_builder *b, const qb_config *c) {
    qb_moe(b, c, &qb_qwen_moe);
    if (c->shared_ffn > 0) shared_expert(b, c);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = {.kind = QB_NORM_RMS, .eps = c->norm_eps};
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    qb_project_qkv(b, c, &qb_llama_attention);
    norm_queries_and_keys(b, c);
    qb_map_values(b, QB_STEP_CLAMP, "q", c->clip_qkv);
    qb_map_values(b, QB_STEP_CLAMP, "k", c->clip_qkv);
    qb_map_values(b, QB_STEP_CLAMP, "v", c->clip_qkv);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    if (c->layers[layer] & QB_LAYER_SPARSE)
        qb_qwen_experts(b, c);
    else
        qb_gated_mlp(b, c, "h", "d");
    qb_add(b, "x", "d");
}

#define QWEN_FAMILY(NAME, SUMMARY, ARCHITECTURE)                                                             \
    const qb_family qb_family_##NAME = {                                                                     \
        .name = #NAME,                                                                                       \
        .summary = SUMMARY,                                                                                  \
        .architectures = ARCHITECTURE,                                                                       \
        .model_types = #NAME,                                                                                \
        .configure = configure_##NAME,                                                                       \
        .enter = qb_llama_enter,                                                                             \
        .block = block,                                                                                      \
        .leave = qb_llama_leave,                                                                             \
    };
QWEN_FAMILY(qwen2_moe, "Qwen1.5-MoE, Qwen2-MoE: a gated shared expert", "Qwen2MoeForCausalLM")
QWEN_FAMILY(qwen3_moe, "Qwen3-MoE", "Qwen3MoeForCausalLM")
QWEN_FAMILY(olmoe, "OLMoE", "OlmoeForCausalLM")
