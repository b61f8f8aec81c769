/* Qwen3-Next and Qwen3.5: blocks of the gated delta rule beside blocks of gated attention. Source:
   transformers 5.24 modeling_qwen3_5.py and modeling_qwen3_next.py (their config.json and safetensors). Text
   part alone: of the rope's sections for pictures all positions are equal, which is plain rope. */
#include "model/families/experts.h"

enum { SEPARATE, FUSED }; /* qb_config.variant: how q, k, v, z, beta and decay are projected */
/* qb_config.extra */
enum { KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, TAPS };

static void read_common(qb_keys *k, qb_config *c) {
    double fraction = 0.25;
    int64_t every = 4;
    c->head_dim = 256;
    c->extra[KEY_HEADS] = 16, c->extra[VALUE_HEADS] = 32, c->extra[KEY_DIM] = c->extra[VALUE_DIM] = 128;
    c->extra[TAPS] = 4;
    qb_read_llama_keys(k, c);
    qb_key_int(k, "head_dim", false, 1, 4096, &c->head_dim);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    c->norm_add = 1;
    qb_key_int(k, "linear_num_key_heads", false, 1, 4096, &c->extra[KEY_HEADS]);
    qb_key_int(k, "linear_num_value_heads", false, 1, 4096, &c->extra[VALUE_HEADS]);
    qb_key_int(k, "linear_key_head_dim", false, 1, 4096, &c->extra[KEY_DIM]);
    qb_key_int(k, "linear_value_head_dim", false, 1, 1024, &c->extra[VALUE_DIM]);
    qb_key_int(k, "linear_conv_kernel_dim", false, 2, 64, &c->extra[TAPS]);
    qb_key_int(k, "full_attention_interval", false, 1, QB_LAYERS_MAX, &every);
    qb_keys_mark(k, "attn_output_gate"); /* true in every model of the family: its q_proj holds the gate */
    qb_config_layer_types_of(k, c, "linear_attention", QB_LAYER_LINEAR, every);
    qb_key_real(k, "partial_rotary_factor", false, 0, 1, &fraction);
    qb_config_rope(k, c, 0, NULL, 10000, fraction);
    if (k->st == QB_OK && c->extra[VALUE_HEADS] % c->extra[KEY_HEADS])
        qb_keys_fail(k, QB_ERR_FORMAT,
                     "linear_num_value_heads %lld is not a multiple of linear_num_key_heads %lld",
                     (long long)c->extra[VALUE_HEADS], (long long)c->extra[KEY_HEADS]);
}

static void configure_qwen3_5(qb_keys *k, qb_config *c) {
    read_common(k, c);
}

static void configure_qwen3_next(qb_keys *k, qb_config *c) {
    int64_t step = 1;
    read_common(k, c);
    c->variant = FUSED;
    c->n_experts = 512, c->top_k = 10, c->expert_ffn = 512, c->shared_ffn = 512;
    qb_read_experts(k, c, "num_experts|num_local_experts", "num_experts_per_tok");
    c->route.kind = QB_ROUTER_SOFTMAX;
    c->route.normalise = true;
    qb_key_bool(k, "norm_topk_prob", &c->route.normalise);
    qb_key_int(k, "moe_intermediate_size", false, 1, 1 << 20, &c->expert_ffn);
    qb_key_int(k, "shared_expert_intermediate_size", false, 1, 1 << 20, &c->shared_ffn);
    qb_key_int(k, "decoder_sparse_step", false, 1, QB_LAYERS_MAX, &step);
    qb_read_sparse_layers(k, c, step);
}

static void enter(qb_builder *b, const qb_config *c) {
    (void)c;
    b->t->embed = "model.embed_tokens";
}

static qb_norm_of rms(const qb_config *c) {
    return (qb_norm_of){.kind = QB_NORM_RMS, .eps = c->norm_eps, .add = c->norm_add};
}

/* h -> q and its gate, k, v; norms a head; rope; attend; the gate; o. */
static void attention(qb_builder *b, const qb_config *c, int64_t layer) {
    int64_t q = c->n_heads * c->head_dim;
    qb_norm_of by_head = rms(c);
    by_head.dim = c->head_dim;
    qb_slot_new(b, "qg", 2 * q);
    qb_slot_new(b, "q", q);
    qb_slot_new(b, "g", q);
    qb_slot_new(b, "k", c->n_kv_heads * c->head_dim);
    qb_slot_new(b, "v", c->n_kv_heads * c->head_dim);
    qb_slot_new(b, "c", q);
    qb_slot_new(b, "o", c->hidden);
    qb_dense(b, "qg", "h", "self_attn.q_proj", c->attention_bias);
    qb_dense(b, "k", "h", "self_attn.k_proj", c->attention_bias);
    qb_dense(b, "v", "h", "self_attn.v_proj", c->attention_bias);
    qb_split(b, "qg", "q", "g", NULL,
             (qb_split_attr){.groups = c->n_heads, .width = {c->head_dim, c->head_dim}});
    qb_norm(b, "q", "q", "self_attn.q_norm", by_head);
    qb_norm(b, "k", "k", "self_attn.k_norm", by_head);
    qb_rope_queries_and_keys(b, c, layer);
    qb_cache(b, "k", "v");
    qb_attend(b, "c", "q", NULL, qb_attention_of(c, layer));
    qb_activate(b, "c", "g", "c", (qb_activate_attr){.kind = QB_ACTIVATION_SIGMOID, .glu = QB_GLU_SEPARATE});
    qb_dense(b, "o", "c", "self_attn.o_proj", c->output_bias);
}

/* h -> q | k | v, z, beta, decay, each by a linear of its own. The last two stay as they are, as routers do:
   GPTQModel leaves them so and reads them from no other form, and with a row for each head they are not of
   sizes that the GPTQ layout holds. */
static void project(qb_builder *b) {
    qb_dense(b, "qkv", "h", "linear_attn.in_proj_qkv", false);
    qb_dense(b, "z", "h", "linear_attn.in_proj_z", false);
    qb_dense_kept(b, "beta", "h", "linear_attn.in_proj_b", false);
    qb_dense_kept(b, "decay", "h", "linear_attn.in_proj_a", false);
}

/* The same by two linears whose rows lie by key head: q, k, v and z of its value heads; beta and decay of
 * these. */
static void project_fused(qb_builder *b, const qb_config *c) {
    const int64_t *x = c->extra;
    int64_t keys = x[KEY_HEADS] * x[KEY_DIM], values = x[VALUE_HEADS] * x[VALUE_DIM];
    int64_t served = x[VALUE_HEADS] / x[KEY_HEADS], wide = served * x[VALUE_DIM];
    qb_slot_new(b, "qkvz", 2 * keys + 2 * values);
    qb_slot_new(b, "ba", 2 * x[VALUE_HEADS]);
    qb_slot_new(b, "dq", keys);
    qb_slot_new(b, "dk", keys);
    qb_slot_new(b, "vz", 2 * values);
    qb_slot_new(b, "dv", values);
    qb_dense(b, "qkvz", "h", "linear_attn.in_proj_qkvz", false);
    qb_dense_kept(b, "ba", "h", "linear_attn.in_proj_ba", false);
    qb_split(b, "qkvz", "dq", "dk", "vz",
             (qb_split_attr){.groups = x[KEY_HEADS], .width = {x[KEY_DIM], x[KEY_DIM], 2 * wide}});
    qb_split(b, "vz", "dv", "z", NULL, (qb_split_attr){.groups = x[KEY_HEADS], .width = {wide, wide}});
    qb_split(b, "ba", "beta", "decay", NULL,
             (qb_split_attr){.groups = x[KEY_HEADS], .width = {served, served}});
    qb_concat(b, "qkv", "dq", "dk", "dv");
}

/* h -> q | k | v through a short convolution; the delta rule; a norm a head times silu of the gate z; o. */
static void delta(qb_builder *b, const qb_config *c) {
    const int64_t *x = c->extra;
    int64_t keys = x[KEY_HEADS] * x[KEY_DIM], values = x[VALUE_HEADS] * x[VALUE_DIM];
    qb_norm_of by_head = {.kind = QB_NORM_RMS, .eps = c->norm_eps, .dim = x[VALUE_DIM]};
    qb_slot_new(b, "qkv", 2 * keys + values);
    qb_slot_new(b, "z", values);
    qb_slot_new(b, "beta", x[VALUE_HEADS]);
    qb_slot_new(b, "decay", x[VALUE_HEADS]);
    qb_slot_new(b, "y", values);
    qb_slot_new(b, "o", c->hidden);
    if (c->variant == FUSED)
        project_fused(b, c);
    else
        project(b);
    qb_conv(b, "qkv", "linear_attn.conv1d.weight", x[TAPS]);
    qb_activate(b, "qkv", "qkv", NULL, (qb_activate_attr){.kind = c->activation});
    qb_delta(b, "y", "qkv", "beta", "decay", "linear_attn.A_log", "linear_attn.dt_bias",
             (qb_delta_attr){.key_heads = x[KEY_HEADS],
                             .value_heads = x[VALUE_HEADS],
                             .key_dim = x[KEY_DIM],
                             .value_dim = x[VALUE_DIM]});
    qb_norm(b, "y", "y", "linear_attn.norm", by_head);
    qb_activate(b, "y", "z", "y", (qb_activate_attr){.kind = QB_ACTIVATION_SILU, .glu = QB_GLU_SEPARATE});
    qb_dense(b, "o", "y", "linear_attn.out_proj", false);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms(c));
    if (c->layers[layer] & QB_LAYER_LINEAR)
        delta(b, c);
    else
        attention(b, c, layer);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms(c));
    if (c->layers[layer] & QB_LAYER_SPARSE)
        qb_qwen_experts(b, c);
    else
        qb_gated_mlp(b, c, "h", "d");
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", rms(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_qwen3_5 = {
    .name = "qwen3_5",
    .summary = "Qwen3.5: gated delta rule and gated attention in turn",
    .architectures = "Qwen3_5ForCausalLM|Qwen3_5ForConditionalGeneration",
    .model_types = "qwen3_5_text|qwen3_5",
    .configure = configure_qwen3_5,
    .enter = enter,
    .block = block,
    .leave = leave,
};

const qb_family qb_family_qwen3_next = {
    .name = "qwen3_next",
    .summary = "Qwen3-Next: the same with a mixture of experts",
    .architectures = "Qwen3NextForCausalLM",
    .model_types = "qwen3_next",
    .configure = configure_qwen3_next,
    .enter = enter,
    .block = block,
    .leave = leave,
};
