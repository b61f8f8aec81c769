/* BLOOM and BLOOMZ: ALiBi, queries, keys and values interleaved by heads, a norm behind the embedding.
   Source: transformers' modeling_bloom.py. */
#include "model/families/gpt_parts.h"

enum { RESIDUAL_AFTER_NORM };

static void configure(qb_keys *k, qb_config *c) {
    bool after = false;
    qb_read_gpt_keys(k, c, &(qb_gpt_keys){.activation_default = "gelu_new", .eps = "layer_norm_epsilon"});
    qb_key_bool(k, "apply_residual_connection_post_layernorm", &after);
    qb_key_only_text(k, "hidden_act", "gelu_new");
    qb_keys_mark(k, "alibi|use_alibi|position_embedding_type"); /* the class always has ALiBi */
    c->extra[RESIDUAL_AFTER_NORM] = after;
    c->attention_bias = c->output_bias = c->mlp_bias = true;
    c->alibi = QB_ALIBI_PLAIN;
    c->n_ropes = 0;
    qb_one_kv_head_a_query_head(c);
    c->fused_groups = c->n_heads;
}

static void enter(qb_builder *b, const qb_config *c) {
    b->t->embed = "transformer.word_embeddings";
    qb_norm(b, "x", "x", "transformer.word_embeddings_layernorm", qb_layer_norm(c));
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const char *in = c->extra[RESIDUAL_AFTER_NORM] ? "x" : "h"; /* the norm's output is what is added to */
    b->prefix = "transformer.h.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, in, "x", "input_layernorm", qb_layer_norm(c));
    qb_fused_qkv(b, c, in, "self_attention.query_key_value", true, QB_STORED_ROWS);
    qb_attend_and_project(b, c, layer, "self_attention.dense");
    qb_add(b, "x", "o");
    qb_norm(b, in, "x", "post_attention_layernorm", qb_layer_norm(c));
    qb_two_linear_mlp(b, c, in, (qb_mlp_names){"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"}, true,
                      QB_STORED_ROWS);
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "transformer.ln_f", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_bloom = {
    .name = "bloom",
    .summary = "BLOOM and BLOOMZ",
    .architectures = "BloomForCausalLM",
    .model_types = "bloom",
    .tied = true,
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};
