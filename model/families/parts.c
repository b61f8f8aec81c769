#include "model/families/parts.h"

#include <math.h>

const qb_attention_names qb_llama_attention = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                               "self_attn.o_proj"};

void qb_read_llama_keys(qb_keys *k, qb_config *c) {
    const char *activation = "silu";
    double eps = 1e-6;
    qb_key_int(k, "intermediate_size", true, 1, 1 << 20, &c->ffn);
    qb_key_text(k, "hidden_act", false, &activation);
    qb_config_activation(k, activation, &c->activation);
    qb_key_real(k, "rms_norm_eps", false, 0, 1, &eps);
    c->norm_eps = (float)eps;
    c->gated = true;
}

qb_attend_attr qb_attention_of(const qb_config *c, int64_t layer) {
    bool sliding = c->layers[layer] & QB_LAYER_SLIDING;
    return (qb_attend_attr){.heads = c->n_heads,
                            .kv_heads = c->n_kv_heads,
                            .head_dim = c->head_dim,
                            .value_dim = c->head_dim,
                            .scale = c->attention_scale > 0 ? c->attention_scale
                                                            : 1.0f / sqrtf((float)c->head_dim),
                            .window = sliding ? c->window : 0,
                            .chunk = sliding ? c->chunk : 0,
                            .softcap = c->attention_softcap,
                            .alibi = c->alibi};
}

void qb_rope_queries_and_keys(qb_builder *b, const qb_config *c, int64_t layer) {
    if (c->layers[layer] & QB_LAYER_NO_ROPE || c->n_ropes == 0) return;
    int table = c->n_ropes > 1 && c->layers[layer] & QB_LAYER_SLIDING ? 1 : 0;
    qb_rope_attr a = {.kind = c->rope_interleaved ? QB_ROPE_INTERLEAVED : QB_ROPE_HALF,
                      .table = table,
                      .heads = c->n_heads,
                      .head_dim = c->head_dim,
                      .width = c->ropes[table].width};
    qb_rope(b, "q", a);
    a.heads = c->n_kv_heads;
    qb_rope(b, "k", a);
}

void qb_project_qkv_from(qb_builder *b, const qb_config *c, const char *in, const qb_attention_names *names) {
    qb_slot_new(b, "q", c->n_heads * c->head_dim);
    qb_slot_new(b, "k", c->n_kv_heads * c->head_dim);
    qb_slot_new(b, "v", c->n_kv_heads * c->head_dim);
    qb_dense(b, "q", in, names->q, c->attention_bias);
    qb_dense(b, "k", in, names->k, c->attention_bias);
    qb_dense(b, "v", in, names->v, c->attention_bias);
}

void qb_project_qkv(qb_builder *b, const qb_config *c, const qb_attention_names *names) {
    qb_project_qkv_from(b, c, "h", names);
}

void qb_attend_and_project(qb_builder *b, const qb_config *c, int64_t layer, const char *o) {
    qb_slot_new(b, "c", c->n_heads * c->head_dim);
    qb_slot_new(b, "o", c->hidden);
    qb_rope_queries_and_keys(b, c, layer);
    qb_cache(b, "k", "v");
    qb_attend(b, "c", "q", NULL, qb_attention_of(c, layer));
    qb_dense(b, "o", "c", o, c->output_bias);
}

void qb_gated_mlp(qb_builder *b, const qb_config *c, const char *in, const char *out) {
    qb_slot_new(b, "gate", c->ffn);
    qb_slot_new(b, "up", c->ffn);
    qb_slot_new(b, out, c->hidden);
    qb_dense(b, "gate", in, "mlp.gate_proj", c->mlp_bias);
    qb_dense(b, "up", in, "mlp.up_proj", c->mlp_bias);
    qb_activate(b, "gate", "gate", "up", (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_SEPARATE});
    qb_dense(b, out, "gate", "mlp.down_proj", c->mlp_bias);
}
