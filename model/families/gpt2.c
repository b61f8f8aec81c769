/* GPT-2 and its relatives: OpenAI GPT, whose norms stand behind the halves of a block, and GPT-BigCode, whose
   keys and values may be one head. Matrices of the first two lie as [in, out]. Source: transformers'
   modeling_gpt2.py, modeling_openai.py, modeling_gpt_bigcode.py. */
#include "model/families/gpt_parts.h"

#include <math.h>

enum { SCALED, SCALED_BY_LAYER };
static const qb_mlp_names mlp = {"mlp.c_fc", "mlp.c_proj"};

static void configure_shape(qb_keys *k, qb_config *c, int64_t positions, const qb_gpt_keys *names) {
    qb_read_gpt_keys(k, c, names);
    c->max_positions = positions;
    qb_key_int(k, "max_position_embeddings|n_positions|n_ctx", false, 1, 1 << 24, &c->max_positions);
    c->attention_bias = c->output_bias = c->mlp_bias = true;
    c->extra[SCALED] = 1;
    c->n_ropes = 0;
    qb_one_kv_head_a_query_head(c);
}

static void configure(qb_keys *k, qb_config *c) {
    bool scaled = true, by_layer = false;
    configure_shape(
        k, c, 1024,
        &(qb_gpt_keys){"n_inner|intermediate_size", "activation_function", "gelu_new", "layer_norm_epsilon"});
    qb_key_bool(k, "scale_attn_weights", &scaled);
    qb_key_bool(k, "scale_attn_by_inverse_layer_idx", &by_layer);
    c->extra[SCALED] = scaled;
    c->extra[SCALED_BY_LAYER] = by_layer;
}

static void enter(qb_builder *b, const qb_config *c) {
    b->t->embed = "transformer.wte";
    qb_position(b, "x", "transformer.wpe.weight", c->max_positions, 0);
}

static qb_attend_attr attention(const qb_config *c, int64_t layer) {
    qb_attend_attr a = qb_attention_of(c, layer);
    if (!c->extra[SCALED]) a.scale = 1;
    if (c->extra[SCALED_BY_LAYER]) a.scale /= (float)(layer + 1);
    return a;
}

static void pre_norm_block(qb_builder *b, const qb_config *c, int64_t layer, qb_stored stored) {
    b->prefix = "transformer.h.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "ln_1", qb_layer_norm(c));
    qb_fused_qkv(b, c, "h", "attn.c_attn", true, stored);
    qb_attend_with(b, c, layer, attention(c, layer), "attn.c_proj", stored);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "ln_2", qb_layer_norm(c));
    qb_two_linear_mlp(b, c, "h", mlp, true, stored);
    qb_add(b, "x", "d");
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    pre_norm_block(b, c, layer, QB_STORED_COLUMNS);
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "transformer.ln_f", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_gpt2 = {
    .name = "gpt2",
    .summary = "GPT-2, DistilGPT2, Cerebras-GPT",
    .architectures = "GPT2LMHeadModel",
    .model_types = "gpt2",
    .tied = true,
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};

/* ---- GPT-BigCode ---- */

static void configure_bigcode(qb_keys *k, qb_config *c) {
    bool scaled = true, multi_query = true;
    configure_shape(k, c, 1024,
                    &(qb_gpt_keys){"n_inner|intermediate_size", "activation_function", "gelu_pytorch_tanh",
                                   "layer_norm_epsilon"});
    qb_key_bool(k, "scale_attn_weights", &scaled);
    qb_key_bool(k, "multi_query", &multi_query);
    c->extra[SCALED] = scaled;
    c->n_kv_heads = multi_query ? 1 : c->n_heads; /* num_key_value_heads is not asked */
    c->fused_groups = multi_query ? 1 : c->n_heads;
}

static void block_bigcode(qb_builder *b, const qb_config *c, int64_t layer) {
    pre_norm_block(b, c, layer, QB_STORED_ROWS);
}

const qb_family qb_family_gpt_bigcode = {
    .name = "gpt_bigcode",
    .summary = "StarCoder 1, SantaCoder in transformers' form",
    .architectures = "GPTBigCodeForCausalLM",
    .model_types = "gpt_bigcode",
    .tied = true,
    .configure = configure_bigcode,
    .enter = enter,
    .block = block_bigcode,
    .leave = leave,
};

/* ---- OpenAI GPT ---- */

/* Of this class "gelu" means the tanh form (ACT_FNS of modeling_openai.py). */
static void configure_openai(qb_keys *k, qb_config *c) {
    configure_shape(k, c, 512, &(qb_gpt_keys){NULL, "afn", "gelu", "layer_norm_epsilon"});
    if (c->activation == QB_ACTIVATION_GELU) c->activation = QB_ACTIVATION_GELU_TANH;
}

static void enter_openai(qb_builder *b, const qb_config *c) {
    b->t->embed = "transformer.tokens_embed";
    qb_position(b, "x", "transformer.positions_embed.weight", c->max_positions, 0);
}

static void block_openai(qb_builder *b, const qb_config *c, int64_t layer) {
    b->prefix = "transformer.h.%d.";
    qb_fused_qkv(b, c, "x", "attn.c_attn", true, QB_STORED_COLUMNS);
    qb_attend_with(b, c, layer, attention(c, layer), "attn.c_proj", QB_STORED_COLUMNS);
    qb_add(b, "x", "o");
    qb_norm(b, "x", "x", "ln_1", qb_layer_norm(c));
    qb_two_linear_mlp(b, c, "x", mlp, true, QB_STORED_COLUMNS);
    qb_add(b, "x", "d");
    qb_norm(b, "x", "x", "ln_2", qb_layer_norm(c));
}

static void leave_openai(qb_builder *b, const qb_config *c) {
    (void)c;
    qb_head(b, "x", "lm_head", false);
}

const qb_family qb_family_openai_gpt = {
    .name = "openai-gpt",
    .summary = "OpenAI GPT (the first)",
    .architectures = "OpenAIGPTLMHeadModel",
    .model_types = "openai-gpt",
    .tied = true,
    .configure = configure_openai,
    .enter = enter_openai,
    .block = block_openai,
    .leave = leave_openai,
};
