/* The decode step's matrix products with what stands around them folded in: the norm of the inputs into their
   staging, residuals and activations into the results. Up to eight tokens; the same bodies as matmul's. */
#pragma once

#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/view.h"

enum { QB_DECODE_GEMV_TOKENS = 8, QB_DECODE_PARTS = 3 };

/* Matrices that multiply the same inputs, each with its own result [T][rows]. */
struct decode_parts {
    qb_cuda_view v[QB_DECODE_PARTS];
    float *y[QB_DECODE_PARTS];
    int64_t first[QB_DECODE_PARTS +
                  1]; /* row tile where each begins, and their number; what is absent is empty */
};

/* Whether a product of T tokens with this matrix has a fused kernel: its codes do, and its inputs fit shared
 * memory. */
bool qb_decode_gemv_fits(const qb_cuda_view &v, int64_t T, const decode_device &dev);
/* Whether two matrices can share a launch: the same codes, and the same inputs in the same order. */
bool qb_decode_gemv_alike(const qb_cuda_view &a, const qb_cuda_view &b);

/* parts.y = parts * norm(x). All parts alike. */
cudaError_t qb_decode_project(const decode_parts &parts, const decode_norm &n, const float *x, int64_t T,
                              const decode_device &dev);
/* y[T][rows] = act(gate * norm(x) + gate_bias) * (up * norm(x) + up_bias); gate NULL: act(up ..). Alike. */
cudaError_t qb_decode_mlp(const qb_cuda_view *gate, const float *gate_bias, const qb_cuda_view &up,
                          const float *up_bias, qb_activation kind, const decode_norm &n, const float *x,
                          float *y, int64_t T, const decode_device &dev);
/* y[T][rows] += w * x + bias. */
cudaError_t qb_decode_residual(const qb_cuda_view &w, const float *bias, const float *x, float *y, int64_t T,
                               const decode_device &dev);
