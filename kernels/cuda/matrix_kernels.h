/* What the files of matrices and matmuls ask of each other's kernels; all are queued on the device's stream.
 * Plain C.
 */
#pragma once

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/matrix.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows first_row .. (a multiple of 16) of neutral codes [n_rows, cols] on the device into the view's tiles.
 */
qb_status qb_cuda_pack_codes(cuda_device *d, const qb_cuda_view *v, const uint8_t *codes, int64_t first_row,
                             int64_t n_rows) QB_NODISCARD;

/* Rows first_row .. (a multiple of 16) as float16 times 2^exponent: to[n_rows up to a multiple of
   16][padded_cols], in packed column order. Not for F32. */
qb_status qb_cuda_dequantize(cuda_device *d, const qb_cuda_view *v, int64_t first_row, int64_t n_rows,
                             void *to) QB_NODISCARD;

/* x[T, cols] as float16 to[T][stride], gathered as the view orders its columns, each row times a power of two
   that unscale[T] undoes. */
qb_status qb_cuda_stage(cuda_device *d, const qb_cuda_view *v, const float *x, int64_t T, void *to,
                        int64_t stride, float *unscale) QB_NODISCARD;

/* x[T, cols] as float16 to[T][padded_cols] (a multiple of 4), all times one power of two 2^e. work:
   QB_CONVERT_BYTES; its first three floats become 2^-e / 2^exponent (squared: 4^-e), 0 and 1: cuBLAS's
   scalars; the fourth 2^-e. */
enum { QB_CONVERT_SCALARS = 4, QB_CONVERT_BYTES = 2048 };
qb_status qb_cuda_convert(cuda_device *d, const float *x, int64_t T, int64_t cols, const int32_t *source,
                          int64_t padded_cols, int exponent, bool squared, void *to,
                          float *work) QB_NODISCARD;

/* For a matrix of another exponent: the first scalar anew. */
qb_status qb_cuda_convert_again(cuda_device *d, int exponent, float *work) QB_NODISCARD;

/* The largest |x| of n bfloat16 is the largest of the *n_largest floats left in work (QB_CONVERT_BYTES). */
qb_status qb_cuda_largest_bf16(cuda_device *d, const void *x, int64_t n, float *work,
                               int *n_largest) QB_NODISCARD;

/* The matmul of many tokens (gemm.cu). again: x is what it was in the last call. */
qb_status qb_cuda_gemm(cuda_device *d, float *y, const float *x, int64_t T, const qb_cuda_matrix *m,
                       bool again) QB_NODISCARD;

#ifdef __cplusplus
}
#endif
