/* What mixtures of experts share. Private to model/families/. */
#pragma once

#include "model/families/parts.h"

/* Reads the number of experts and how many a token takes, by these keys, into c and c->route, whose kind,
   normalise and scale the family sets. The numbers in c stand where the keys are absent. */
void qb_read_experts(qb_keys *k, qb_config *c, const char *experts, const char *top_k);
/* QB_LAYER_SPARSE for every `step`-th layer (the step-th first) that mlp_only_layers does not name. */
void qb_read_sparse_layers(qb_keys *k, qb_config *c, int64_t step);
/* sliding_window: of all layers; null and 0: of none. */
void qb_read_window_of_all(qb_keys *k, qb_config *c, int64_t window);

typedef struct qb_moe_names {
    const char *router, *gate, *up, *down; /* "mlp.gate", "mlp.experts.%e.gate_proj", .. */
} qb_moe_names;
extern const qb_moe_names qb_qwen_moe, qb_mixtral_moe;

/* h -> router logits -> routing; the rows of h by expert -> xe. */
void qb_route_rows(qb_builder *b, const qb_config *c, const char *router, bool router_bias, bool weigh_input);
/* h -> d: routed to gated experts of one matrix each, width expert_ffn. */
void qb_moe(qb_builder *b, const qb_config *c, const qb_moe_names *names);

typedef struct qb_mlp_names {
    const char *gate, *up, *down;
} qb_mlp_names;
/* h -> shared: the gated MLP of width shared_ffn that all tokens pass. */
void qb_shared_mlp(qb_builder *b, const qb_config *c, const qb_mlp_names *names);
/* h -> d: Qwen's routed experts and, where there is one, the shared expert with its gate. */
void qb_qwen_experts(qb_builder *b, const qb_config *c);
