/* One decoder for every family: embed -> blocks -> final norm -> head. Shapes in backend.h's glossary. */
#pragma once

#include "model/model.h"

/* Activations of one forward call, allocated once for at most `max_rows` rows (sequences x tokens). */
typedef struct qb_workspace {
    int64_t max_rows;
    float *normed;    /* [rows, D] */
    float *q, *k, *v; /* [rows, H*Dh], [rows, Hkv*Dh] */
    float *context;   /* [rows, H*Dh] */
    float *out;       /* [rows, D] */
    float *gate, *up; /* [rows, F] */
} qb_workspace;
int64_t qb_workspace_bytes(const qb_config *c, int64_t max_rows);
qb_status qb_workspace_create(const qb_model *m, int64_t max_rows, qb_workspace *out) QB_NODISCARD;
void qb_workspace_free(const qb_model *m, qb_workspace *ws);

int64_t qb_kv_bytes(const qb_config *c, qb_dtype dtype, int64_t n_layers, int64_t n_seq, int64_t capacity);
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

/* A block in five steps, so that a quantizer can stand between them. x[rows, D] is the residual stream.
   Each *_in step leaves the shared input of its linears in the workspace and returns it. */
qb_status qb_block_attention_in(qb_model *m, const qb_block *b, qb_workspace *ws, const float *x,
                                const qb_span *s,
                                float **in) QB_NODISCARD; /* normed x -> inputs of q, k, v */
qb_status qb_block_attention(qb_model *m, const qb_block *b, qb_workspace *ws, const qb_span *s,
                             float **in) QB_NODISCARD; /* q, k, v, rope, attention -> input of o */
qb_status qb_block_mlp_in(qb_model *m, const qb_block *b, qb_workspace *ws, const float *x, const qb_span *s,
                          float **in) QB_NODISCARD; /* normed x -> inputs of gate, up */
qb_status qb_block_mlp_mid(qb_model *m, const qb_block *b, qb_workspace *ws, const qb_span *s,
                           float **in) QB_NODISCARD; /* gate, up, activation -> input of down */
/* x += o(in) or x += down(in), biases included. */
qb_status qb_block_add_linear(qb_model *m, const qb_block *b, qb_linear linear, qb_workspace *ws,
                              const float *in, float *x, const qb_span *s) QB_NODISCARD;
/* All of it. */
qb_status qb_block_forward(qb_model *m, const qb_block *b, qb_workspace *ws, float *x,
                           const qb_span *s) QB_NODISCARD;

/* x[rows, D] = embeddings of ids (position embeddings added where the family has them). Checks every id. */
qb_status qb_model_embed(qb_model *m, float *x, const int32_t *ids, const qb_span *s) QB_NODISCARD;
/* logits[rows, V] = head(norm(x)); normed is scratch of [rows, D] and may be x. */
qb_status qb_model_head(qb_model *m, float *logits, const float *x, float *normed, int64_t rows) QB_NODISCARD;
/* Resident model: ids -> residual stream x after the last block. */
qb_status qb_model_forward(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids,
                           const qb_span *s) QB_NODISCARD;
/* Resident model: logits[n_seq, V] after the last token of each sequence; x[rows, D] is scratch. One token a
   sequence takes the backend's fused step where it has one. */
qb_status qb_model_next(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                        float *logits) QB_NODISCARD;
/* The same for a prompt ids[n_seq][s->n_tok] of any length, in pieces of at most QB_PREFILL_TOKENS tokens
   and of what the workspace holds. logits NULL: only the cache is filled. */
enum { QB_PREFILL_TOKENS = 512 };
qb_status qb_model_prefill(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                           float *logits) QB_NODISCARD;
