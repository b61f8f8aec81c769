/* The ops between the matmuls that treat elements alone: activation, sums, biases, rows of the embedding. */
#include "kernels/cuda/activation.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace {

constexpr int64_t threads = 256;

__device__ __forceinline__ int64_t element_index() {
    return static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
}

template <qb_activation kind>
__global__ void activate_kernel(float *y, const float *gate, const float *up, int64_t n) {
    int64_t i = element_index();
    if (i >= n) return;
    float v = qb::activation(kind, gate[i]);
    y[i] = up ? v * up[i] : v;
}

__global__ void add_kernel(float *x, const float *y, int64_t n) {
    int64_t i = element_index();
    if (i < n) x[i] += y[i];
}

__global__ void add_bias_kernel(float *x, const float *__restrict__ bias, int64_t width, int64_t n) {
    int64_t i = element_index();
    if (i < n) x[i] += bias[i % width];
}

__device__ __forceinline__ float widen(float v) {
    return v;
}
__device__ __forceinline__ float widen(half v) {
    return __half2float(v);
}
__device__ __forceinline__ float widen(__nv_bfloat16 v) {
    return __bfloat162float(v);
}

template <typename Element>
__global__ void embed_kernel(float *__restrict__ x, const Element *__restrict__ table,
                             const int32_t *__restrict__ ids, int64_t width) {
    const Element *row = table + ids[blockIdx.x] * width;
    float *to = x + static_cast<int64_t>(blockIdx.x) * width;
    for (int64_t i = threadIdx.x; i < width; i += threads) to[i] = widen(row[i]);
}

template <typename Element>
cudaError_t embed(cuda_device *d, float *x, const qb_matrix *table, const int32_t *ids, int64_t T) {
    return qb_launch(embed_kernel<Element>, dim3(qb_blocks(T, 1)), dim3(threads), 0, d->stream, x,
                     static_cast<const Element *>(table->dense), ids, table->cols);
}

template <qb_activation kind>
cudaError_t activate(cuda_device *d, float *y, const float *gate, const float *up, int64_t n) {
    return qb_launch(activate_kernel<kind>, dim3(qb_blocks(n, threads)), dim3(threads), 0, d->stream, y, gate,
                     up, n);
}

} // namespace

extern "C" qb_status qb_cuda_activate(qb_device *dev, qb_activation kind, float *y, const float *gate,
                                      const float *up, int64_t n) {
    cuda_device *d = cuda_of(dev);
    cudaError_t error = cudaErrorInvalidValue;
    if (n <= 0) return QB_OK;
    switch (kind) {
    case QB_ACTIVATION_SILU:
        error = activate<QB_ACTIVATION_SILU>(d, y, gate, up, n);
        break;
    case QB_ACTIVATION_GELU:
        error = activate<QB_ACTIVATION_GELU>(d, y, gate, up, n);
        break;
    case QB_ACTIVATION_GELU_TANH:
        error = activate<QB_ACTIVATION_GELU_TANH>(d, y, gate, up, n);
        break;
    case QB_ACTIVATION_RELU:
        error = activate<QB_ACTIVATION_RELU>(d, y, gate, up, n);
        break;
    }
    return qb_cuda_status(d, error, "activate");
}

extern "C" qb_status qb_cuda_add(qb_device *dev, float *x, const float *y, int64_t n) {
    cuda_device *d = cuda_of(dev);
    if (n <= 0) return QB_OK;
    return qb_cuda_status(
        d, qb_launch(add_kernel, dim3(qb_blocks(n, threads)), dim3(threads), 0, d->stream, x, y, n), "add");
}

extern "C" qb_status qb_cuda_add_bias(qb_device *dev, float *x, const float *bias, int64_t T, int64_t n) {
    cuda_device *d = cuda_of(dev);
    if (T * n <= 0) return QB_OK;
    return qb_cuda_status(d,
                          qb_launch(add_bias_kernel, dim3(qb_blocks(T * n, threads)), dim3(threads), 0,
                                    d->stream, x, bias, n, T * n),
                          "add_bias");
}

extern "C" qb_status qb_cuda_embed(qb_device *dev, float *x, const qb_matrix *table, const int32_t *ids,
                                   int64_t T) {
    cuda_device *d = cuda_of(dev);
    int32_t *dev_ids;
    cudaError_t error;
    if (!table->dense)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "a quantized token embedding; embeddings are kept in 16 or 32 bits");
    if (T <= 0) return QB_OK;
    qb_status st = qb_cuda_scratch(d, T * static_cast<int64_t>(sizeof *ids), &dev_ids);
    if (st == QB_OK) st = qb_cuda_upload(dev, dev_ids, ids, T * static_cast<int64_t>(sizeof *ids));
    if (st != QB_OK) return st;
    if (table->dtype == QB_DTYPE_F16)
        error = embed<half>(d, x, table, dev_ids, T);
    else if (table->dtype == QB_DTYPE_BF16)
        error = embed<__nv_bfloat16>(d, x, table, dev_ids, T);
    else if (table->dtype == QB_DTYPE_F32)
        error = embed<float>(d, x, table, dev_ids, T);
    else
        return qb_fail(QB_ERR_UNSUPPORTED, "a token embedding of type %s", qb_dtype_name(table->dtype));
    return qb_cuda_status(d, error, "embed");
}
