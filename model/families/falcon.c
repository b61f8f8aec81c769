/* Falcon 7B, 40B, 180B, 2-11B and the RefinedWeb models. Three forms of one class: the new architecture (keys
   and values in groups, one or two norms before parallel halves), the 7B (one key head, one norm) and rw
   (sequential halves, ALiBi in bfloat16). Source: transformers' modeling_falcon.py. */
#include "model/families/gpt_parts.h"

enum { NEW_ARCHITECTURE, NORMS };

static void read_form(qb_keys *k, qb_config *c) {
    bool multi_query = true, alibi = false;
    /* RefinedWeb's first configs have no new_decoder_architecture: those with n_head_kv are of it. */
    bool newer = qb_key_any(k, "n_head_kv") != NULL;
    c->parallel = true;
    qb_key_bool(k, "new_decoder_architecture", &newer);
    qb_key_bool(k, "multi_query", &multi_query);
    qb_key_bool(k, "parallel_attn", &c->parallel);
    qb_key_bool(k, "alibi", &alibi);
    c->alibi = alibi ? QB_ALIBI_BF16 : QB_ALIBI_NONE;
    c->extra[NEW_ARCHITECTURE] = newer;
    c->extra[NORMS] = newer && c->parallel ? 2 : 1;
    qb_key_int(k, "num_ln_in_parallel_attn", false, 1, 2, &c->extra[NORMS]);
    if (!newer) c->n_kv_heads = multi_query ? 1 : c->n_heads; /* num_kv_heads is not asked */
    c->fused_groups = newer ? c->n_kv_heads : multi_query ? 1 : c->n_heads;
    if (newer && !c->parallel)
        qb_keys_fail(k, QB_ERR_UNSUPPORTED,
                     "new_decoder_architecture with parallel_attn false: no Falcon of this form is known");
    else if (!newer && c->extra[NORMS] == 2)
        qb_keys_fail(k, QB_ERR_UNSUPPORTED,
                     "num_ln_in_parallel_attn 2 without new_decoder_architecture: no Falcon of this form is "
                     "known");
}

static void configure(qb_keys *k, qb_config *c) {
    bool bias = false;
    qb_read_gpt_keys(
        k, c, &(qb_gpt_keys){"ffn_hidden_size", "activation|hidden_act", "gelu", "layer_norm_epsilon"});
    qb_key_bool(k, "bias", &bias);
    c->attention_bias = c->output_bias = c->mlp_bias = bias;
    read_form(k, c);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
    if (c->alibi) c->n_ropes = 0; /* the class builds no rope then, whatever rope_parameters says */
}

static void enter(qb_builder *b, const qb_config *c) {
    (void)c;
    b->t->embed = "transformer.word_embeddings";
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of norm = qb_layer_norm(c);
    bool two = c->extra[NORMS] == 2;
    b->prefix = "transformer.h.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", two ? "ln_attn" : "input_layernorm", norm);
    qb_fused_qkv(b, c, "h", "self_attention.query_key_value", c->attention_bias, QB_STORED_ROWS);
    qb_attend_and_project(b, c, layer, "self_attention.dense");
    if (!c->parallel) qb_add(b, "x", "o");
    if (!c->parallel) qb_norm(b, "h", "x", "post_attention_layernorm", norm);
    if (two) qb_norm(b, "h", "x", "ln_mlp", norm);
    qb_two_linear_mlp(b, c, "h", (qb_mlp_names){"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"}, c->mlp_bias,
                      QB_STORED_ROWS);
    if (c->parallel) qb_add(b, "x", "o");
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "transformer.ln_f", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_falcon = {
    .name = "falcon",
    .summary = "Falcon 7B to 180B, Falcon2, RefinedWeb",
    .architectures = "FalconForCausalLM|RWForCausalLM",
    .model_types = "falcon|RefinedWeb|RefinedWebModel",
    .tied = true,
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};
