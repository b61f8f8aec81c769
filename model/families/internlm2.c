/* InternLM 2, 2.5 and 2-Math: Llama under other names, with queries, keys and values in one linear, a group a
   key head. Source: the published checkpoints' config.json and tensors; its class is no part of transformers
   (tools/families/remote.py computes the same). */
#include "model/families/gpt_parts.h"

static const qb_gated_names mlp = {"feed_forward.w1", "feed_forward.w3", "feed_forward.w2"};

static void configure(qb_keys *k, qb_config *c) {
    qb_read_llama_keys(k, c);
    c->attention_bias = true; /* the class's default; published configs say false */
    qb_key_bool(k, "bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    c->fused_groups = c->n_kv_heads;
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

static void enter(qb_builder *b, const qb_config *c) {
    (void)c;
    b->t->embed = "model.tok_embeddings";
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = qb_rms_of(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "attention_norm", rms);
    qb_fused_qkv(b, c, "h", "attention.wqkv", c->attention_bias, QB_STORED_ROWS);
    qb_attend_and_project(b, c, layer, "attention.wo");
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "ffn_norm", rms);
    qb_gated_mlp_of(b, c, "h", "d", &mlp);
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", qb_rms_of(c));
    qb_head(b, "h", "output", false);
}

const qb_family qb_family_internlm2 = {
    .name = "internlm2",
    .summary = "InternLM 2 and 2.5",
    .architectures = "InternLM2ForCausalLM",
    .model_types = "internlm2",
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};
