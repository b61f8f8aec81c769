/* Mixtures in a captured token: the device routes, and the products of the experts find theirs by an id that
   only the device knows. Routed rows lie by token, a token's top_k in the order of their experts; ids and
   weights beside them. */
#pragma once

#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/view.h"

enum { QB_ROUTE_MAX_EXPERTS = 2048 };

/* What a product needs to know of an expert; an array of them lies on the device. */
struct expert_matrix {
    qb_cuda_view view;
    const float *bias; /* [rows] or NULL */
};

/* The experts of one projection: a run of linears, one an expert, with the same inputs and results. */
struct expert_group {
    const qb_step_weights *w;
    int64_t at, n;                   /* its steps in the list */
    int64_t rows, cols, padded_cols; /* the latter: most of any */
    uint32_t codes;                  /* bit qb::decode_codes(..) for the codes that occur */
    bool nested;                     /* any has nested scales */
    const expert_matrix *matrices;   /* [n] on the device */
};

/* All groups of a decoder in the order of its lists. */
struct decode_experts {
    uint64_t decoder;
    expert_group *groups;
    int64_t n_groups;
    void *table; /* of expert_matrix, on the device */
};

/* Steps from i on that make a group: their number, or 0 where they make none (another order of experts,
   another shape). */
int64_t qb_decode_experts_run(const qb_step_weights *w, int64_t i, int64_t n_experts);
/* Whether a matrix's inputs fit the shared memory of its product. */
bool qb_decode_experts_fit(const qb_cuda_view &v, const decode_device &dev);
/* Puts the groups of a decoder on the device; takes what was made before, which must not be in use by a graph
   that will still be launched. */
qb_status qb_decode_experts_make(cuda_device *d, const qb_decoder *decoder, decode_experts *out) QB_NODISCARD;
void qb_decode_experts_free(cuda_device *d, decode_experts *e);

/* y[row] = expert chosen[row] * x[row] + its bias for `rows` routed rows. */
cudaError_t qb_decode_expert_products(const expert_group &g, const int32_t *chosen, int64_t rows,
                                      const float *x, float *y, const decode_device &dev);

/* qb_route on the device: logits [T, experts], bias NULL or [experts] on the device; chosen and weight
   [T][top_k], experts ascending. A logit that is not finite gives weights that are NaN, which show in the
   model's logits. */
cudaError_t qb_queue_route(const qb_route_attr &a, const float *logits, const float *bias, int64_t T,
                           int32_t *chosen, float *weight, cudaStream_t stream);
/* rows.cu: y[T * top_k, n] = rows of x, times weight unless that is NULL; and back: y[T, n] = their sums. */
cudaError_t qb_queue_gather(const float *weight, float *y, const float *x, int64_t T, int64_t top_k,
                            int64_t n, cudaStream_t stream);
cudaError_t qb_queue_scatter(const float *weight, float *y, const float *x, int64_t T, int64_t top_k,
                             int64_t n, cudaStream_t stream);
