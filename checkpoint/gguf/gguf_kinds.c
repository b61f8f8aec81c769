/* What GGUF metadata says of blocks that are not Llama's: latent attention, the gated delta rule, how experts
   are chosen. Keys: gguf-py's constants.py; what they mean: llama.cpp's llama-model.cpp. */
#include "checkpoint/gguf/gguf_model.h"

#include <inttypes.h>
#include <string.h>

enum { WIDTH_MAX = 1 << 20 };

static qb_status get(qb_gguf_builder *b, const char *below, bool required, int64_t *out) {
    return qb_gguf_int(b->g, qb_gguf_key(b, below), required, 1, WIDTH_MAX, out);
}

static bool is_in(const char *below, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(below, names[i])) return true;
    return false;
}

bool qb_gguf_blocks_read(const qb_gguf_architecture *a, const char *below) {
    static const char *const latent[] = {"attention.q_lora_rank",
                                         "attention.kv_lora_rank",
                                         "attention.head_count_kv", /* of what llama.cpp computes */
                                         "rope.scaling.yarn_log_multiplier",
                                         "expert_group_count",
                                         "expert_group_used_count"},
                             *const linear[] = {"ssm.conv_kernel", "ssm.state_size", "ssm.group_count",
                                                "ssm.time_step_rank", "ssm.inner_size",
                                                "attention.recurrent_layers", "full_attention_interval",
                                                /* of pictures: the positions of text are all equal */
                                                "rope.dimension_sections"};
    return (a->latent && is_in(below, latent, sizeof latent / sizeof *latent)) ||
           (a->linear_attention && is_in(below, linear, sizeof linear / sizeof *linear));
}

/* ---- latent attention ---- */

/* Files with kv_b in two parts describe what llama.cpp computes, one head of keys as wide as the latent, and
   name the class's widths beside it; older ones describe the class. */
qb_status qb_gguf_add_latent(qb_gguf_builder *b, int64_t *rope_width) {
    int64_t heads = (int64_t)qb_json_number(qb_json_get(b->out, "num_attention_heads"));
    int64_t rank = 0, query_rank = 0, keys = 0, values = 0, rope = 0;
    bool in_parts = qb_gguf_says(b->g, b->a->name, "attention.key_length_mla");
    qb_status st;
    QB_TRY(st, get(b, "attention.kv_lora_rank", true, &rank));
    QB_TRY(st, get(b, "attention.q_lora_rank", false, &query_rank));
    QB_TRY(st, get(b, "rope.dimension_count", true, &rope));
    QB_TRY(st, get(b, in_parts ? "attention.value_length_mla" : "attention.value_length", true, &values));
    QB_TRY(st, get(b, in_parts ? "attention.key_length_mla" : "attention.key_length", true, &keys));
    if (rope % 2 || keys <= rope)
        QB_TRY(st, qb_fail(QB_ERR_FORMAT,
                           "%s: metadata %s is %" PRId64 ", of which rope.dimension_count %" PRId64
                           " turn: expected an even number below the former",
                           b->g->file, b->key, keys, rope));
    qb_json_put_int(b->out, "num_key_value_heads", heads);
    qb_json_put_int(b->out, "kv_lora_rank", rank);
    if (query_rank)
        qb_json_put_int(b->out, "q_lora_rank", query_rank);
    else
        qb_json_put_null(b->out, "q_lora_rank");
    qb_json_put_int(b->out, "qk_nope_head_dim", keys - rope);
    qb_json_put_int(b->out, "qk_rope_head_dim", rope);
    qb_json_put_int(b->out, "v_head_dim", values);
    qb_json_put_int(b->out, "head_dim", rope);
    *rope_width = rope;
out:
    return st;
}

/* The class keeps the groups of the best experts. */
static qb_status add_groups(qb_gguf_builder *b) {
    int64_t groups = 1, kept = 1;
    qb_status st;
    QB_TRY(st, get(b, "expert_group_count", false, &groups));
    QB_TRY(st, get(b, "expert_group_used_count", false, &kept));
    qb_json_put_text(b->out, "topk_method", groups > 1 ? "group_limited_greedy" : "greedy");
    if (groups < 2) return QB_OK;
    qb_json_put_int(b->out, "n_group", groups);
    qb_json_put_int(b->out, "topk_group", kept);
out:
    return st;
}

/* ---- the gated delta rule ---- */

static qb_status add_layer_types(qb_gguf_builder *b) {
    const char *key = qb_gguf_key(b, "attention.recurrent_layers");
    const qb_gguf_value *v = qb_gguf_find(b->g, key);
    int64_t layers = (int64_t)qb_json_number(qb_json_get(b->out, "num_hidden_layers")), every = 4;
    bool list = v && v->is_array && v->kind == QB_GGUF_BOOL;
    if (v && (!list || v->count < layers))
        return qb_fail(QB_ERR_FORMAT,
                       "%s: metadata %s: expected a truth value for each of %" PRId64 " layers", b->g->file,
                       key, layers);
    qb_status st = get(b, "full_attention_interval", false, &every);
    if (st != QB_OK) return st;
    qb_json *types = qb_json_array();
    for (int64_t l = 0; l < layers; l++) {
        bool linear = list ? v->bytes[l] != 0 : (l + 1) % every != 0;
        qb_json_push_text(types, linear ? "linear_attention" : "full_attention");
    }
    qb_json_put(b->out, "layer_types", types);
    return QB_OK;
}

static qb_status add_linear_attention(qb_gguf_builder *b) {
    int64_t taps = 0, key_width = 0, key_heads = 0, value_heads = 0, values = 0;
    qb_status st;
    QB_TRY(st, get(b, "ssm.conv_kernel", true, &taps));
    QB_TRY(st, get(b, "ssm.state_size", true, &key_width));
    QB_TRY(st, get(b, "ssm.group_count", true, &key_heads));
    QB_TRY(st, get(b, "ssm.time_step_rank", true, &value_heads));
    QB_TRY(st, get(b, "ssm.inner_size", true, &values));
    if (values % value_heads || value_heads % key_heads)
        QB_TRY(st, qb_fail(QB_ERR_FORMAT,
                           "%s: metadata %s is %" PRId64 ", ssm.time_step_rank %" PRId64
                           ", ssm.group_count %" PRId64 ": expected each to be a multiple of the next",
                           b->g->file, b->key, values, value_heads, key_heads));
    qb_json_put_int(b->out, "linear_conv_kernel_dim", taps);
    qb_json_put_int(b->out, "linear_key_head_dim", key_width);
    qb_json_put_int(b->out, "linear_num_key_heads", key_heads);
    qb_json_put_int(b->out, "linear_num_value_heads", value_heads);
    qb_json_put_int(b->out, "linear_value_head_dim", values / value_heads);
    st = add_layer_types(b);
out:
    return st;
}

/* ---- experts ---- */

static const char *gating_name(int64_t gating) {
    static const char *const names[] = {"none", "softmax", "sigmoid", "softmax of the chosen experts",
                                        "the square root of softplus"};
    return gating >= 0 && gating < (int64_t)(sizeof names / sizeof *names) ? names[gating] : "unknown";
}

static qb_status check_experts(qb_gguf_builder *b) {
    int64_t gating = 0, experts = 0, used = 0;
    qb_status st;
    QB_TRY(st, get(b, "expert_count", true, &experts));
    QB_TRY(st, get(b, "expert_used_count", true, &used));
    if (used > experts)
        return qb_fail(QB_ERR_FORMAT, "%s: metadata %s is %" PRId64 ", but there are %" PRId64 " experts",
                       b->g->file, b->key, used, experts);
    QB_TRY(st, qb_gguf_int(b->g, qb_gguf_key(b, "expert_gating_func"), false, 0, INT32_MAX, &gating));
    if (gating && gating != (int64_t)b->a->gating)
        return qb_fail(
            QB_ERR_UNSUPPORTED, "%s: metadata %s is %" PRId64 " (%s), which %s does not compute (it has %s)",
            b->g->file, b->key, gating, gating_name(gating), b->a->family,
            b->a->gating == QB_GGUF_GATING_CLASS ? "a way of its own" : gating_name((int64_t)b->a->gating));
out:
    return st;
}

qb_status qb_gguf_add_blocks(qb_gguf_builder *b) {
    qb_status st = QB_OK;
    if (b->a->gating != QB_GGUF_GATING_NONE) st = check_experts(b);
    if (st == QB_OK && b->a->latent) st = add_groups(b);
    if (st == QB_OK && b->a->linear_attention) st = add_linear_attention(b);
    return st;
}
