/* GPT-J and CodeGen: attention and MLP side by side behind one norm, rope of neighbouring elements over the
   first rotary_dim of each head, a biased head. CodeGen's queries, values and keys, in this order, are one
   matrix of four groups. Source: transformers' modeling_gptj.py and modeling_codegen.py. */
#include "model/families/gpt_parts.h"

enum { CODEGEN_GROUPS = 4 };

static void configure(qb_keys *k, qb_config *c) {
    int64_t rotary = 64;
    qb_read_gpt_keys(
        k, c,
        &(qb_gpt_keys){"n_inner|intermediate_size", "activation_function", "gelu_new", "layer_norm_epsilon"});
    qb_key_int(k, "rotary_dim", false, 1, 4096, &rotary);
    qb_fixed_rope(k, c, rotary);
    c->rope_interleaved = c->parallel = c->mlp_bias = c->head_bias = true;
    qb_one_kv_head_a_query_head(c);
}

static void enter(qb_builder *b, const qb_config *c) {
    (void)c;
    b->t->embed = "transformer.wte";
}

/* From h = ln_1 x and its q, k and v to the end of the block. */
static void finish_block(qb_builder *b, const qb_config *c, int64_t layer) {
    qb_attend_and_project(b, c, layer, "attn.out_proj");
    qb_two_linear_mlp(b, c, "h", (qb_mlp_names){"mlp.fc_in", "mlp.fc_out"}, true, QB_STORED_ROWS);
    qb_add(b, "x", "o");
    qb_add(b, "x", "d");
}

static void begin_block(qb_builder *b, const qb_config *c) {
    b->prefix = "transformer.h.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "ln_1", qb_layer_norm(c));
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    static const qb_attention_names names = {"attn.q_proj", "attn.k_proj", "attn.v_proj", NULL};
    begin_block(b, c);
    qb_project_qkv(b, c, &names);
    finish_block(b, c, layer);
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "transformer.ln_f", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", c->head_bias);
}

const qb_family qb_family_gptj = {
    .name = "gptj",
    .summary = "GPT-J",
    .architectures = "GPTJForCausalLM",
    .model_types = "gptj",
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};

/* ---- CodeGen ---- */

static void configure_codegen(qb_keys *k, qb_config *c) {
    configure(k, c);
    if (k->st == QB_OK && c->n_heads % CODEGEN_GROUPS)
        qb_keys_fail(k, QB_ERR_FORMAT, "CodeGen's heads come in %d groups, found %lld heads", CODEGEN_GROUPS,
                     (long long)c->n_heads);
}

static void block_codegen(qb_builder *b, const qb_config *c, int64_t layer) {
    const int64_t width = c->n_heads * c->head_dim, part = width / CODEGEN_GROUPS;
    begin_block(b, c);
    qb_slot_new(b, "qvk", 3 * width);
    qb_slot_new(b, "q", width);
    qb_slot_new(b, "v", width);
    qb_slot_new(b, "k", width);
    qb_dense(b, "qvk", "h", "attn.qkv_proj", false);
    qb_split(b, "qvk", "q", "v", "k", (qb_split_attr){CODEGEN_GROUPS, {part, part, part}});
    finish_block(b, c, layer);
}

const qb_family qb_family_codegen = {
    .name = "codegen",
    .summary = "CodeGen",
    .architectures = "CodeGenForCausalLM",
    .model_types = "codegen",
    .configure = configure_codegen,
    .enter = enter,
    .block = block_codegen,
    .leave = leave,
};
