/* The decode step's elementwise kernels: each joins the ops that stand between two matrix products. */
#include "kernels/cuda/decode_math.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace {

enum { NORM_WARPS = 16, THREADS = 256 };

__device__ __forceinline__ float table_element(const void *table, qb_dtype dtype, int64_t i) {
    if (dtype == QB_DTYPE_F16) return __half2float(static_cast<const half *>(table)[i]);
    if (dtype == QB_DTYPE_BF16) return __bfloat162float(static_cast<const __nv_bfloat16 *>(table)[i]);
    return static_cast<const float *>(table)[i];
}

struct embed_table {
    const void *rows;
    qb_dtype dtype;
    int dim;
    const float *position; /* rows that are added by position, or NULL */
};

__device__ __forceinline__ void embed_element(const embed_table &t, int32_t id, int32_t position, float *x) {
    const int seq = blockIdx.y, i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= t.dim) return;
    float v = table_element(t.rows, t.dtype, static_cast<int64_t>(id) * t.dim + i);
    if (t.position) v += t.position[static_cast<int64_t>(position) * t.dim + i];
    x[static_cast<int64_t>(seq) * t.dim + i] = v;
}

__global__ void __launch_bounds__(THREADS)
    embed_kernel(decode_tokens t, embed_table table, float *x, int32_t *dev_first) {
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *dev_first = t.first;
    embed_element(table, t.ids[blockIdx.y], t.first, x);
}

__global__ void __launch_bounds__(THREADS)
    embed_next_kernel(const int32_t *ids, const int32_t *dev_first, embed_table table, float *x) {
    embed_element(table, ids[blockIdx.y], *dev_first, x);
}

__global__ void __launch_bounds__(NORM_WARPS * 32)
    residual_norm_kernel(decode_norm n, float *x, const float *y, const float *bias, float *out) {
    __shared__ float scratch[NORM_WARPS];
    ptx::let_next_kernel_begin();
    ptx::wait_for_previous_kernel();
    const int64_t row = static_cast<int64_t>(blockIdx.x) * n.dim;
    x += row;
    if (y)
        for (int i = threadIdx.x; i < n.dim; i += NORM_WARPS * 32)
            x[i] += bias ? y[row + i] + bias[i] : y[row + i];
    if (!out) return;
    /* every thread reads back only what it wrote */
    const float2 scale = decode_norm_scale<NORM_WARPS>(n, x, scratch);
    for (int i = threadIdx.x; i < n.dim; i += NORM_WARPS * 32)
        out[row + i] = decode_normed(n, x[i], scale, i);
}

__global__ void __launch_bounds__(THREADS)
    activate_kernel(qb_activation kind, int n, float *y, const float *gate, const float *gate_bias,
                    const float *up, const float *up_bias) {
    ptx::let_next_kernel_begin();
    ptx::wait_for_previous_kernel();
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const int64_t at = static_cast<int64_t>(blockIdx.y) * n + i;
    const float u = up[at] + (up_bias ? up_bias[i] : 0.0f);
    y[at] = gate ? qb::activation(kind, gate[at] + (gate_bias ? gate_bias[i] : 0.0f)) * u
                 : qb::activation(kind, u);
}

dim3 grid_of(int64_t n, int64_t n_seq) {
    return dim3(static_cast<unsigned>((n + THREADS - 1) / THREADS), static_cast<unsigned>(n_seq));
}

} // namespace

cudaError_t qb_decode_embed(const decode_tokens &t, const qb_matrix *table, const float *embed_position,
                            float *x, int32_t *dev_first, cudaStream_t stream) {
    const embed_table rows = {table->dense, table->dtype, static_cast<int>(table->cols), embed_position};
    return qb_launch(embed_kernel, grid_of(table->cols, t.n_seq), dim3(THREADS), 0, stream, t, rows, x,
                     dev_first);
}

cudaError_t qb_decode_embed_next(const int32_t *ids, const int32_t *dev_first, int64_t n_seq,
                                 const qb_matrix *table, const float *embed_position, float *x,
                                 cudaStream_t stream) {
    const embed_table rows = {table->dense, table->dtype, static_cast<int>(table->cols), embed_position};
    return qb_launch(embed_next_kernel, grid_of(table->cols, n_seq), dim3(THREADS), 0, stream, ids, dev_first,
                     rows, x);
}

cudaError_t qb_decode_residual_norm(const decode_norm &n, int64_t n_seq, float *x, const float *y,
                                    const float *bias, float *out, const decode_device &dev) {
    return qb_launch_with(dev.dependent, residual_norm_kernel, dim3(static_cast<unsigned>(n_seq)),
                          dim3(NORM_WARPS * 32), 0, dev.stream, n, x, y, bias, out);
}

cudaError_t qb_decode_activate(qb_activation kind, int64_t n_seq, int64_t n, float *y, const float *gate,
                               const float *gate_bias, const float *up, const float *up_bias,
                               const decode_device &dev) {
    return qb_launch_with(dev.dependent, activate_kernel, grid_of(n, n_seq), dim3(THREADS), 0, dev.stream,
                          kind, static_cast<int>(n), y, gate, gate_bias, up, up_bias);
}
