/* What several families share: the parts of a block as functions of the config. Private to model/families/.
 */
#pragma once

#include "model/topology.h"

/* Reads the keys of models in Llama's shape: MLP width, activation, RMS eps (all under their Llama names);
   norm_eps is the class's default where it is set before. */
void qb_read_llama_keys(qb_keys *k, qb_config *c);

typedef struct qb_attention_names {
    const char *q, *k, *v, *o; /* "self_attn.q_proj", .. */
} qb_attention_names;
extern const qb_attention_names qb_llama_attention;

/* The attributes that the config gives for a layer; scale 1 / sqrt(head_dim) unless it says otherwise. */
qb_attend_attr qb_attention_of(const qb_config *c, int64_t layer);
/* Turns slots q and k as the config says for this layer: none for layers without positions, the second table
   for sliding layers that have their own. */
void qb_rope_queries_and_keys(qb_builder *b, const qb_config *c, int64_t layer);
/* h -> q, k, v by three linears of these names, biased as attention_bias says. */
void qb_project_qkv(qb_builder *b, const qb_config *c, const qb_attention_names *names);
/* The same from another activation than h. */
void qb_project_qkv_from(qb_builder *b, const qb_config *c, const char *in, const qb_attention_names *names);
/* Rope, cache, attend q -> c, linear c -> o. */
void qb_attend_and_project(qb_builder *b, const qb_config *c, int64_t layer, const char *o);
/* h -> gate, up -> d: the gated MLP under Llama's names. */
void qb_gated_mlp(qb_builder *b, const qb_config *c, const char *in, const char *out);
/* The same under other names. */
typedef struct qb_gated_names {
    const char *gate, *up, *down;
} qb_gated_names;
void qb_gated_mlp_of(qb_builder *b, const qb_config *c, const char *in, const char *out,
                     const qb_gated_names *names);
/* The same with gate and up in one linear, mlp.gate_up_proj, one behind the other. */
void qb_fused_gated_mlp(qb_builder *b, const qb_config *c, const char *in, const char *out);

/* The RMS norm of hidden states, and of q and k a head at a time, as the config says. */
qb_norm_of qb_rms_of(const qb_config *c);
void qb_norm_queries_and_keys(qb_builder *b, const qb_config *c);

/* Llama's decoder, with what close relatives add: scaled embeddings, norms that multiply by 1 + w, norms of q
   and k (qk_norm), a temperature of q, scaled residual branches and logits. */
void qb_llama_enter(qb_builder *b, const qb_config *c);
void qb_llama_block(qb_builder *b, const qb_config *c, int64_t layer);
void qb_llama_leave(qb_builder *b, const qb_config *c);
/* Every layer is sliding where there is a window. */
void qb_all_layers_slide(qb_config *c);
