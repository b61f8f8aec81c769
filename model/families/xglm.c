/* XGLM: positions are sines and cosines that no file holds. Source: transformers' modeling_xglm.py. */
#include "model/families/gpt_parts.h"

#include <math.h>

enum { POSITION_OFFSET = 2 };

static void configure(qb_keys *k, qb_config *c) {
    bool scaled = true;
    qb_read_gpt_keys(k, c,
                     &(qb_gpt_keys){.ffn = "ffn_dim|intermediate_size",
                                    .activation = "activation_function",
                                    .activation_default = "gelu"});
    qb_key_bool(k, "scale_embedding", &scaled);
    if (scaled) c->embed_scale = sqrtf((float)c->hidden);
    c->attention_bias = c->output_bias = c->mlp_bias = true;
    c->n_ropes = 0;
    qb_one_kv_head_a_query_head(c);
}

static void enter(qb_builder *b, const qb_config *c) {
    b->t->embed = "model.embed_tokens";
    qb_map_values(b, QB_STEP_SCALE, "x", c->embed_scale);
    qb_position_sinusoids(b, "x", c->max_positions, POSITION_OFFSET);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "self_attn_layer_norm", qb_layer_norm(c));
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_attend_and_project(b, c, layer, "self_attn.out_proj");
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "final_layer_norm", qb_layer_norm(c));
    qb_two_linear_mlp(b, c, "h", (qb_mlp_names){"fc1", "fc2"}, true, QB_STORED_ROWS);
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.layer_norm", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_xglm = {
    .name = "xglm",
    .summary = "XGLM",
    .architectures = "XGLMForCausalLM",
    .model_types = "xglm",
    .tied = true,
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};
