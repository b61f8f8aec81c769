/* The executor: runs lists of steps over named activations. Shapes in kernels/step.h's glossary. */
#pragma once

#include "model/model.h"

/* Activations of one forward call, allocated once for at most `max_rows` rows (sequences x tokens); slots
   that never live together share memory. */
typedef struct qb_workspace {
    int64_t max_rows;
    float *memory;
    float *slots[QB_SLOTS_MAX]; /* x and the logits are the caller's */
    qb_routing routing;         /* of the call's rows, where the model has experts */
} qb_workspace;
int64_t qb_workspace_bytes(const qb_topology *t, int64_t max_rows);
qb_status qb_workspace_create(const qb_model *m, int64_t max_rows, qb_workspace *out) QB_NODISCARD;
void qb_workspace_free(const qb_model *m, qb_workspace *ws);

int64_t qb_kv_bytes(const qb_topology *t, qb_dtype dtype, int64_t n_layers, int64_t n_seq, int64_t capacity);
qb_status qb_kv_create(const qb_model *m, qb_dtype dtype, int64_t n_layers, int64_t n_seq, int64_t capacity,
                       qb_kv *out) QB_NODISCARD;
void qb_kv_free(const qb_model *m, qb_kv *kv);

/* Rows of a call: n_seq sequences of n_tok tokens each, standing at positions first .. first + n_tok - 1;
   keys and values live in layer `kv_layer` of kv. */
typedef struct qb_span {
    int64_t n_seq, n_tok, first;
    const qb_kv *kv;
    int64_t kv_layer;
} qb_span;

/* Steps [from, to) of a list, so that a quantizer can stand between any two. x[rows, D] is the residual
   stream; what the steps read of the workspace's slots and routing stands there from earlier ones. */
qb_status qb_steps_run(qb_model *m, const qb_step_weights *w, int64_t from, int64_t to, qb_workspace *ws,
                       float *x, const qb_span *s) QB_NODISCARD;
/* All of a block. */
qb_status qb_block_forward(qb_model *m, const qb_block *b, qb_workspace *ws, float *x,
                           const qb_span *s) QB_NODISCARD;

/* x[rows, D] from ids: the embedding and the steps behind it. Checks every id. ws: of at least these rows. */
qb_status qb_model_embed(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids,
                         const qb_span *s) QB_NODISCARD;
/* logits[rows, V] of rows of the residual stream behind the last block; at most ws->max_rows rows. */
qb_status qb_model_head(qb_model *m, qb_workspace *ws, float *logits, const float *x,
                        int64_t rows) QB_NODISCARD;
/* Resident model: ids -> residual stream x after the last block. */
qb_status qb_model_forward(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids,
                           const qb_span *s) QB_NODISCARD;
/* Resident model: logits[n_seq, V] after the last token of each sequence; x[rows, D] is scratch. One token a
   sequence takes the backend's fused step where it has one. */
qb_status qb_model_next(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                        float *logits) QB_NODISCARD;
/* n tokens of each of s->n_seq sequences after each other, from ids[n_seq] at position s->first on (s->n_tok
   is not read), each the largest logit's of the step before: chosen[n][n_seq]. By the backend's own loop
   where it has one. *n_chosen: rows of `chosen` that hold ids, fewer than n where the status is not QB_OK. */
qb_status qb_model_greedy(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                          int64_t n, float *logits, int32_t *chosen, int64_t *n_chosen) QB_NODISCARD;
/* Tokens of each of n_seq sequences that are computed at once of a prompt of n_tok: QB_PREFILL_TOKENS, or
   more where the backend wishes more rows to a matmul (batch_rows), up to QB_PREFILL_ROWS rows, for they cost
   memory. */
enum { QB_PREFILL_TOKENS = 512, QB_PREFILL_ROWS = 2048 };
int64_t qb_prefill_piece(const qb_backend *backend, int64_t n_seq, int64_t n_tok);
/* The same for a prompt ids[n_seq][s->n_tok] of any length, in pieces of at most qb_prefill_piece tokens
   and of what the workspace holds. logits NULL: only the cache is filled. */
qb_status qb_model_prefill(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                           float *logits) QB_NODISCARD;
