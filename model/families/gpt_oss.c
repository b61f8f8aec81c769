/* gpt-oss 20b and 120b: attention sinks, alternating windows, experts with biases whose gate and up columns
   alternate. Source: transformers' modeling_gpt_oss.py. */
#include "model/families/experts.h"

static void configure(qb_keys *k, qb_config *c) {
    double eps = 1e-5;
    qb_key_int(k, "intermediate_size", true, 1, 1 << 20, &c->ffn);
    qb_keys_mark(k, "hidden_act"); /* the clamped SwiGLU is the class's own */
    qb_key_real(k, "rms_norm_eps", false, 0, 1, &eps);
    c->norm_eps = (float)eps;
    c->activation = QB_ACTIVATION_SWIGLU_OSS;
    c->gated = true;
    c->attention_bias = true;
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    c->n_experts = 128, c->top_k = 4;
    qb_read_experts(k, c, "num_local_experts|num_experts", "num_experts_per_tok|experts_per_token");
    c->route.kind = QB_ROUTER_SOFTMAX_TOPK;
    c->expert_ffn = c->ffn;
    c->swiglu_alpha = 1.702f, c->swiglu_limit = 7;
    qb_key_float(k, "swiglu_alpha", false, 0, 1e6, &c->swiglu_alpha);
    qb_key_float(k, "swiglu_limit", false, 1e-6, 1e9, &c->swiglu_limit);
    c->window = 128;
    qb_key_int(k, "sliding_window", false, 1, 1 << 28, &c->window);
    qb_config_layer_types(k, c, 2);
    qb_config_rope(k, c, 0, NULL, 150000, 1);
}

static void attention(qb_builder *b, const qb_config *c, int64_t layer) {
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_slot_new(b, "c", c->n_heads * c->head_dim);
    qb_slot_new(b, "o", c->hidden);
    qb_rope_queries_and_keys(b, c, layer);
    qb_cache(b, "k", "v");
    qb_attend(b, "c", "q", "self_attn.sinks", qb_attention_of(c, layer));
    qb_dense(b, "o", "c", qb_llama_attention.o, c->output_bias);
}

/* Parted: as GPTQModel 7.7 has them, whose gate_proj is the first half of the alternating rows (its
   models/definitions/gpt_oss.py and defuser's moe_experts_interface.py); apart: as GGUF files are read. */
static void experts(qb_builder *b, const qb_config *c) {
    static const qb_stack_of gate_up = {"mlp.experts.gate_up_proj",
                                        "",
                                        "_bias",
                                        QB_STORED_STACKED_COLUMNS,
                                        "mlp.experts.gate_up.%e",
                                        {"mlp.experts.%e.gate_proj", "mlp.experts.%e.up_proj"}},
                             down = {"mlp.experts.down_proj",
                                     "",
                                     "_bias",
                                     QB_STORED_STACKED_COLUMNS,
                                     "mlp.experts.down.%e",
                                     {"mlp.experts.%e.down_proj"}};
    const qb_activate_attr glu = {.kind = QB_ACTIVATION_SWIGLU_OSS,
                                  .glu = QB_GLU_INTERLEAVED,
                                  .alpha = c->swiglu_alpha,
                                  .limit = c->swiglu_limit};
    qb_route_rows(b, c, "mlp.router", true, false);
    qb_slot_routed(b, "gate_up_e", 2 * c->expert_ffn);
    qb_slot_routed(b, "a_e", c->expert_ffn);
    qb_slot_routed(b, "down_e", c->hidden);
    qb_slot_new(b, "d", c->hidden);
    qb_experts_of_stack(b, "gate_up_e", "xe", &gate_up);
    qb_activate(b, "a_e", "gate_up_e", NULL, glu);
    qb_experts_of_stack(b, "down_e", "a_e", &down);
    qb_scatter(b, "d", "down_e", false);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = {.kind = QB_NORM_RMS, .eps = c->norm_eps};
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    attention(b, c, layer);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    experts(b, c);
    qb_add(b, "x", "d");
}

const qb_family qb_family_gpt_oss = {
    .name = "gpt_oss",
    .summary = "gpt-oss 20b, 120b",
    .architectures = "GptOssForCausalLM",
    .model_types = "gpt_oss",
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};
