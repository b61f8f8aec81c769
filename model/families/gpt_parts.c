#include "model/families/gpt_parts.h"

void qb_read_gpt_keys(qb_keys *k, qb_config *c, const qb_gpt_keys *names) {
    const char *activation = names->activation_default;
    double eps = 1e-5;
    c->ffn = 4 * c->hidden;
    if (names->ffn) qb_key_int(k, names->ffn, false, 1, 1 << 20, &c->ffn);
    if (names->activation) qb_key_text(k, names->activation, false, &activation);
    if (k->st == QB_OK) qb_config_activation(k, activation, &c->activation);
    if (names->eps) qb_key_real(k, names->eps, false, 0, 1, &eps);
    c->norm_eps = (float)eps;
}

void qb_one_kv_head_a_query_head(qb_config *c) {
    c->n_kv_heads = c->n_heads;
}

void qb_fixed_rope(qb_keys *k, qb_config *c, int64_t width) {
    if (k->st != QB_OK) return;
    if (width < 2 || width % 2 || width > c->head_dim) {
        qb_keys_fail(
            k, QB_ERR_FORMAT,
            "the rotary part of a head must be an even number of elements, found %lld of head_dim %lld",
            (long long)width, (long long)c->head_dim);
        return;
    }
    c->ropes[0] = (qb_rope_spec){.theta = 10000, .width = width, .factor = 1};
    c->n_ropes = 1;
}

qb_norm_of qb_layer_norm(const qb_config *c) {
    return (qb_norm_of){.kind = QB_NORM_LAYER, .eps = c->norm_eps, .biased = true};
}

void qb_fused_qkv(qb_builder *b, const qb_config *c, const char *in, const char *name, bool bias,
                  qb_stored stored) {
    int64_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim, groups = c->fused_groups;
    qb_slot_new(b, "qkv", q + 2 * kv);
    qb_slot_new(b, "q", q);
    qb_slot_new(b, "k", kv);
    qb_slot_new(b, "v", kv);
    qb_dense(b, "qkv", in, name, bias);
    qb_stored_as(b, stored);
    qb_split(b, "qkv", "q", "k", "v", (qb_split_attr){groups, {q / groups, kv / groups, kv / groups}});
}

void qb_norm_heads(qb_builder *b, const qb_config *c, const char *q, const char *k, qb_norm_of n) {
    n.dim = c->head_dim;
    qb_norm(b, "q", "q", q, n);
    qb_norm(b, "k", "k", k, n);
}

void qb_attend_with(qb_builder *b, const qb_config *c, int64_t layer, qb_attend_attr a, const char *name,
                    qb_stored stored) {
    qb_slot_new(b, "c", c->n_heads * c->head_dim);
    qb_slot_new(b, "o", c->hidden);
    qb_rope_queries_and_keys(b, c, layer);
    qb_cache(b, "k", "v");
    qb_attend(b, "c", "q", NULL, a);
    qb_dense(b, "o", "c", name, c->output_bias);
    qb_stored_as(b, stored);
}

void qb_two_linear_mlp(qb_builder *b, const qb_config *c, const char *in, qb_mlp_names names, bool bias,
                       qb_stored stored) {
    qb_slot_new(b, "up", c->ffn);
    qb_slot_new(b, "d", c->hidden);
    qb_dense(b, "up", in, names.up, bias);
    qb_stored_as(b, stored);
    qb_activate(b, "up", "up", NULL, (qb_activate_attr){.kind = c->activation});
    qb_dense(b, "d", "up", names.down, bias);
    qb_stored_as(b, stored);
}
