/* What families in the shape of GPT share: LayerNorm with a bias, a fused projection of queries, keys and
   values, an MLP of two linears. Private to model/families/. */
#pragma once

#include "model/families/parts.h"

/* Reads the MLP's width (4 x hidden where the config does not say), the activation and the norms' eps under
   these names. */
typedef struct qb_gpt_keys {
    const char *ffn, *activation, *activation_default, *eps; /* NULL: no such key in this class */
} qb_gpt_keys;
void qb_read_gpt_keys(qb_keys *k, qb_config *c, const qb_gpt_keys *names);

/* For classes whose keys and values have as many heads as the queries, whatever the config says. */
void qb_one_kv_head_a_query_head(qb_config *c);

/* Rope over the first `width` elements of each head with the base 10000 that the class knows. */
void qb_fixed_rope(qb_keys *k, qb_config *c, int64_t width);

/* LayerNorm with weight and bias. */
qb_norm_of qb_layer_norm(const qb_config *c);

/* in -> q, k, v by one linear, cut in c->fused_groups groups of q | k | v. */
void qb_fused_qkv(qb_builder *b, const qb_config *c, const char *in, const char *name, bool bias,
                  qb_stored stored);

/* q and k in place, each head by itself with a weight that all heads share. */
void qb_norm_heads(qb_builder *b, const qb_config *c, const char *q, const char *k, qb_norm_of n);

/* Rope, cache, attend q -> c, linear c -> o; the attributes are the caller's. */
void qb_attend_with(qb_builder *b, const qb_config *c, int64_t layer, qb_attend_attr a, const char *name,
                    qb_stored stored);

/* in -> d: act(up in), then down. */
typedef struct qb_mlp_names {
    const char *up, *down;
} qb_mlp_names;
void qb_two_linear_mlp(qb_builder *b, const qb_config *c, const char *in, qb_mlp_names names, bool bias,
                       qb_stored stored);
