/* Mixtral 8x7B and 8x22B, and Phi-3.5-MoE, which has its shape with LayerNorm, biases and a router of its
   own. Source: transformers' modeling_mixtral.py and modeling_phimoe.py. */
#include "base/log.h"
#include "model/families/experts.h"

#include <string.h>

static void configure_mixtral(qb_keys *k, qb_config *c) {
    c->norm_eps = 1e-5f;
    qb_read_llama_keys(k, c);
    c->n_experts = 8, c->top_k = 2;
    qb_read_experts(k, c, "num_local_experts|num_experts", "num_experts_per_tok");
    c->route.kind = QB_ROUTER_SOFTMAX;
    c->route.normalise = true;
    c->expert_ffn = c->ffn;
    qb_read_window_of_all(k, c, 0);
    qb_config_rope(k, c, 0, NULL, 1e6, 1);
}

/* transformers' class asks for the frequencies without the length, so it takes the short factors at every
   length, and only the amplitude knows long sequences. Its results are the reference. */
static void keep_short_factors(qb_keys *k, qb_rope_spec *r) {
    bool differ = false;
    for (int64_t i = 0; i < r->width / 2 && r->scaling == QB_ROPE_LONGROPE; i++)
        differ |= r->factors[i] != r->long_factors[i];
    if (!differ) return;
    memcpy(r->long_factors, r->factors, sizeof r->factors);
    qb_warn("%s: rope's short factors count at every length, and long_mscale beyond %lld tokens, as in "
            "transformers",
            k->where, (long long)r->original_positions);
}

static void configure_phimoe(qb_keys *k, qb_config *c) {
    double jitter = 0.01;
    configure_mixtral(k, c);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    keep_short_factors(k, &c->ropes[0]);
    qb_key_bool(k, "lm_head_bias", &c->head_bias);
    qb_key_real(k, "router_jitter_noise", false, 0, 1, &jitter);
    c->route = (qb_route_attr){.kind = QB_ROUTER_SPARSEMIXER,
                               .experts = c->n_experts,
                               .top_k = c->top_k,
                               .scale = 1,
                               .jitter = (float)jitter};
    if (c->top_k != 2)
        qb_keys_fail(k, QB_ERR_UNSUPPORTED, "the sparse mixer takes 2 experts a token, found %lld",
                     (long long)c->top_k);
}

static bool is_phi(const qb_config *c) {
    return c->route.kind == QB_ROUTER_SPARSEMIXER;
}

static qb_norm_of norm_of(const qb_config *c) {
    return (qb_norm_of){
        .kind = is_phi(c) ? QB_NORM_LAYER : QB_NORM_RMS, .eps = c->norm_eps, .biased = is_phi(c)};
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", norm_of(c));
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", norm_of(c));
    qb_moe(b, c, &qb_mixtral_moe);
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", norm_of(c));
    qb_head(b, "h", "lm_head", c->head_bias);
}

const qb_family qb_family_mixtral = {
    .name = "mixtral",
    .summary = "Mixtral 8x7B, 8x22B",
    .architectures = "MixtralForCausalLM",
    .model_types = "mixtral",
    .configure = configure_mixtral,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};

const qb_family qb_family_phimoe = {
    .name = "phimoe",
    .summary = "Phi-3.5-MoE: LayerNorm, sparse mixer, longrope",
    .architectures = "PhimoeForCausalLM|PhiMoEForCausalLM",
    .model_types = "phimoe",
    .configure = configure_phimoe,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};
