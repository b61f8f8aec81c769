/* MPT: ALiBi, no biases, queries, keys and values clamped in some. Source: transformers' modeling_mpt.py,
   llm-foundry's configs. */
#include "model/families/gpt_parts.h"

#include "base/log.h"

#include <string.h>

static void read_attention(qb_keys *k, qb_config *c) {
    /* other values are llm-foundry's, which transformers' class does not compute */
    qb_keys in = {.json = qb_key_any(k, "attn_config"), .where = k->where, .st = k->st};
    int64_t kv_heads = c->n_heads;
    qb_key_only_text(&in, "attn_type", "multihead_attention");
    qb_key_only_bool(&in, "qk_ln", false);
    qb_key_only_bool(&in, "alibi", true);
    qb_key_only_bool(&in, "prefix_lm", false);
    qb_key_int(&in, "kv_n_heads", false, 1, 1 << 20, &kv_heads);
    if (in.st == QB_OK && kv_heads != c->n_heads)
        qb_keys_fail(&in, QB_ERR_UNSUPPORTED, "kv_n_heads is %lld of %lld heads, which is not known",
                     (long long)kv_heads, (long long)c->n_heads);
    qb_key_float(&in, "clip_qkv", false, 0, 1e6, &c->clip_qkv);
    qb_key_float(&in, "softmax_scale", false, 1e-9, 1e6, &c->attention_scale);
    qb_key_float(&in, "alibi_bias_max", false, 1e-3, 1e3, &c->alibi_max);
    if (in.st == QB_OK && c->alibi_max != 8.0f)
        qb_warn("%s: alibi_bias_max is %g, with which the model was trained; transformers computes with 8",
                k->where, (double)c->alibi_max);
    if (in.st == QB_OK) in.st = qb_keys_account(&in);
    if (k->st == QB_OK) k->st = in.st;
}

static void configure(qb_keys *k, qb_config *c) {
    int64_t ratio = 4;
    const char *norm = "low_precision_layernorm";
    qb_read_gpt_keys(k, c, &(qb_gpt_keys){.activation_default = "gelu", .eps = "layer_norm_epsilon"});
    qb_key_int(k, "expansion_ratio", false, 1, 64, &ratio);
    c->ffn = ratio * c->hidden;
    qb_key_only_text(k, "hidden_act", "gelu");
    qb_key_text(k, "norm_type", false, &norm);
    if (k->st == QB_OK && !strstr(norm, "layernorm"))
        qb_keys_fail(k, QB_ERR_UNSUPPORTED, "norm_type is \"%.60s\", only layernorm is known", norm);
    read_attention(k, c);
    c->alibi = QB_ALIBI_PLAIN;
    c->n_ropes = 0;
    qb_one_kv_head_a_query_head(c);
}

static qb_norm_of norm_of(const qb_config *c) {
    return (qb_norm_of){.kind = QB_NORM_LAYER, .eps = c->norm_eps};
}

static void enter(qb_builder *b, const qb_config *c) {
    (void)c;
    b->t->embed = "transformer.wte";
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    b->prefix = "transformer.blocks.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "norm_1", norm_of(c));
    qb_fused_qkv(b, c, "h", "attn.Wqkv", false, QB_STORED_ROWS);
    for (int i = 0; i < 3; i++)
        qb_map_values(b, QB_STEP_CLAMP, (const char *const[]){"q", "k", "v"}[i], c->clip_qkv);
    qb_attend_and_project(b, c, layer, "attn.out_proj");
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "norm_2", norm_of(c));
    qb_two_linear_mlp(b, c, "h", (qb_mlp_names){"ffn.up_proj", "ffn.down_proj"}, false, QB_STORED_ROWS);
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "transformer.norm_f", norm_of(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_mpt = {
    .name = "mpt",
    .summary = "MPT 7B and 30B",
    .architectures = "MptForCausalLM|MPTForCausalLM",
    .model_types = "mpt",
    .tied = true,
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};
