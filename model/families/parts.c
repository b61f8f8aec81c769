#include "model/families/parts.h"

#include <math.h>

const qb_attention_names qb_llama_attention = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                               "self_attn.o_proj"};

void qb_read_llama_keys(qb_keys *k, qb_config *c) {
    const char *activation = "silu";
    double eps = c->norm_eps > 0 ? (double)c->norm_eps : 1e-6;
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
    if (c->temperature.beta > 0) qb_temperature(b, "q", c->temperature);
    qb_cache(b, "k", "v");
    qb_attend(b, "c", "q", NULL, qb_attention_of(c, layer));
    qb_dense(b, "o", "c", o, c->output_bias);
}

void qb_gated_mlp_of(qb_builder *b, const qb_config *c, const char *in, const char *out,
                     const qb_gated_names *names) {
    qb_slot_new(b, "gate", c->ffn);
    qb_slot_new(b, "up", c->ffn);
    qb_slot_new(b, out, c->hidden);
    qb_dense(b, "gate", in, names->gate, c->mlp_bias);
    qb_dense(b, "up", in, names->up, c->mlp_bias);
    qb_activate(b, "gate", "gate", "up", (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_SEPARATE});
    qb_dense(b, out, "gate", names->down, c->mlp_bias);
}

void qb_gated_mlp(qb_builder *b, const qb_config *c, const char *in, const char *out) {
    qb_gated_mlp_of(b, c, in, out, &(qb_gated_names){"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"});
}

void qb_fused_gated_mlp(qb_builder *b, const qb_config *c, const char *in, const char *out) {
    qb_slot_new(b, "gate_up", 2 * c->ffn);
    qb_slot_new(b, "gate", c->ffn);
    qb_slot_new(b, out, c->hidden);
    qb_dense(b, "gate_up", in, "mlp.gate_up_proj", false);
    qb_activate(b, "gate", "gate_up", NULL, (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_HALVES});
    qb_dense(b, out, "gate", "mlp.down_proj", false);
}

qb_norm_of qb_rms_of(const qb_config *c) {
    return (qb_norm_of){.kind = QB_NORM_RMS, .eps = c->norm_eps, .add = c->norm_add};
}

void qb_norm_queries_and_keys(qb_builder *b, const qb_config *c) {
    qb_norm_of a_head = qb_rms_of(c);
    a_head.dim = c->head_dim;
    qb_norm(b, "q", "q", "self_attn.q_norm", a_head);
    qb_norm(b, "k", "k", "self_attn.k_norm", a_head);
}

void qb_llama_enter(qb_builder *b, const qb_config *c) {
    b->t->embed = "model.embed_tokens"; /* x is the row */
    qb_map_values(b, QB_STEP_SCALE, "x", c->embed_scale);
}

void qb_llama_block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = qb_rms_of(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    qb_project_qkv(b, c, &qb_llama_attention);
    if (c->qk_norm) qb_norm_queries_and_keys(b, c);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_map_values(b, QB_STEP_SCALE, "o", c->residual_scale);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    qb_gated_mlp(b, c, "h", "d");
    qb_map_values(b, QB_STEP_SCALE, "d", c->residual_scale);
    qb_add(b, "x", "d");
}

void qb_llama_leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", qb_rms_of(c));
    qb_head(b, "h", "lm_head", false);
    qb_map_values(b, QB_STEP_SCALE, "logits", c->logit_scale);
    qb_map_values(b, QB_STEP_SOFTCAP, "logits", c->logit_softcap);
}

void qb_all_layers_slide(qb_config *c) {
    for (int64_t l = 0; l < c->n_layers && c->window > 0; l++) c->layers[l] |= QB_LAYER_SLIDING;
}
