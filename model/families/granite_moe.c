/* Granite's mixtures: multipliers as in Granite, experts stacked in one tensor, softmax behind the choice;
   with a shared MLP in GraniteMoeShared. Source: transformers' modeling_granitemoe.py and
   modeling_granitemoeshared.py. */
#include "model/families/experts.h"

static void configure(qb_keys *k, qb_config *c) {
    float logits_scaling = 1;
    c->attention_scale = 1; /* the class's default is 1, not 1 / sqrt(head_dim) */
    qb_read_llama_keys(k, c);
    c->n_experts = 8, c->top_k = 2;
    qb_read_experts(k, c, "num_local_experts", "num_experts_per_tok");
    c->route.kind = QB_ROUTER_SOFTMAX_TOPK;
    c->expert_ffn = c->ffn;
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    qb_key_float(k, "attention_multiplier", false, 1e-9, 1e6, &c->attention_scale);
    qb_key_float(k, "embedding_multiplier", false, 1e-9, 1e6, &c->embed_scale);
    qb_key_float(k, "residual_multiplier", false, 1e-9, 1e6, &c->residual_scale);
    qb_key_float(k, "logits_scaling", false, 1e-9, 1e6, &logits_scaling);
    c->logit_scale = 1 / logits_scaling;
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

static void configure_shared(qb_keys *k, qb_config *c) {
    configure(k, c);
    c->shared_ffn = 1024;
    qb_key_int(k, "shared_intermediate_size", false, 0, 1 << 20, &c->shared_ffn);
}

/* Apart: as GPTQModel has them. Source: its models/definitions/granitemoe.py. */
static void experts(qb_builder *b, const qb_config *c) {
    static const qb_stack_of
        input = {"block_sparse_moe.input_linear",           ".weight", NULL, QB_STORED_STACKED_ROWS,
                 "block_sparse_moe.input_linear.%e.linear", {NULL}},
        output = {"block_sparse_moe.output_linear",           ".weight", NULL, QB_STORED_STACKED_ROWS,
                  "block_sparse_moe.output_linear.%e.linear", {NULL}};
    qb_route_rows(b, c, "block_sparse_moe.router.layer", false, false);
    qb_slot_routed(b, "gate_up_e", 2 * c->expert_ffn);
    qb_slot_routed(b, "a_e", c->expert_ffn);
    qb_slot_routed(b, "down_e", c->hidden);
    qb_slot_new(b, "d", c->hidden);
    qb_experts_of_stack(b, "gate_up_e", "xe", &input);
    qb_activate(b, "a_e", "gate_up_e", NULL, (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_HALVES});
    qb_experts_of_stack(b, "down_e", "a_e", &output);
    qb_scatter(b, "d", "down_e", false);
}

static void shared_mlp(qb_builder *b, const qb_config *c) {
    qb_slot_new(b, "gate_up_s", 2 * c->shared_ffn);
    qb_slot_new(b, "a_s", c->shared_ffn);
    qb_slot_new(b, "shared", c->hidden);
    qb_dense(b, "gate_up_s", "h", "shared_mlp.input_linear", false);
    qb_activate(b, "a_s", "gate_up_s", NULL, (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_HALVES});
    qb_dense(b, "shared", "a_s", "shared_mlp.output_linear", false);
    qb_add(b, "d", "shared");
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = {.kind = QB_NORM_RMS, .eps = c->norm_eps};
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_map_values(b, QB_STEP_SCALE, "o", c->residual_scale);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    experts(b, c);
    if (c->shared_ffn > 0) shared_mlp(b, c);
    qb_map_values(b, QB_STEP_SCALE, "d", c->residual_scale);
    qb_add(b, "x", "d");
}

const qb_family qb_family_granitemoe = {
    .name = "granitemoe",
    .summary = "Granite 3 mixtures",
    .architectures = "GraniteMoeForCausalLM",
    .model_types = "granitemoe",
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};

const qb_family qb_family_granitemoeshared = {
    .name = "granitemoeshared",
    .summary = "Granite mixtures with a shared MLP",
    .architectures = "GraniteMoeSharedForCausalLM",
    .model_types = "granitemoeshared",
    .configure = configure_shared,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};
