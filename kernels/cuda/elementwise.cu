/* The ops between the matmuls that look at one element at a time, and at no more of its row than a factor. */
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/place.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace {

constexpr int64_t threads = 256;

__device__ __forceinline__ int64_t element_index() {
    return static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
}

/* Element i of the result; n elements a row. */
template <qb_glu glu>
__global__ void activate_kernel(qb_activate_attr a, float *y, const float *gate, const float *up, int64_t n,
                                int64_t total) {
    int64_t i = element_index();
    if (i >= total) return;
    if (glu == QB_GLU_NONE) y[i] = qb::activation(a.kind, gate[i]);
    if (glu == QB_GLU_SEPARATE) y[i] = qb::gated(a, gate[i], up[i]);
    if (glu == QB_GLU_INTERLEAVED) y[i] = qb::gated(a, gate[2 * i], gate[2 * i + 1]);
    if (glu == QB_GLU_HALVES) {
        const float *pair = gate + i / n * 2 * n + i % n;
        y[i] = qb::gated(a, pair[0], pair[n]);
    }
}

__global__ void map_kernel(qb_step_kind kind, float value, float *x, int64_t n) {
    int64_t i = element_index();
    if (i >= n) return;
    float v = x[i];
    if (kind == QB_STEP_SCALE) x[i] = v * value;
    if (kind == QB_STEP_CLAMP) x[i] = v < -value ? -value : v > value ? value : v; /* a NaN stays */
    if (kind == QB_STEP_SOFTCAP) x[i] = value * tanhf(v / value);
}

/* log(1 + e^x), without overflow. */
__device__ __forceinline__ float softplus(float x) {
    return x > 20.0f ? x : static_cast<float>(log1p(exp(static_cast<double>(x))));
}

/* y may be x. The numbers are alpha_p, alpha_n, beta, eps; each block makes of them what its elements need.
 */
__global__ void xielu_kernel(float *y, const float *x, const float *__restrict__ numbers, int64_t n) {
    __shared__ float positive, negative;
    const float beta = numbers[2], eps = numbers[3];
    const int64_t i = element_index();
    if (threadIdx.x == 0) {
        positive = softplus(numbers[0]);
        negative = beta + softplus(numbers[1]);
    }
    __syncthreads();
    if (i >= n) return;
    const float v = x[i], below = v > eps ? eps : v; /* a NaN stays */
    y[i] = v > 0.0f ? positive * v * v + beta * v : (expm1f(below) - v) * negative + beta * v;
}

__global__ void gate_rows_kernel(float *x, const float *__restrict__ gate, int64_t width, int64_t n) {
    int64_t i = element_index();
    if (i < n) x[i] *= 1.0f / (1.0f + expf(-gate[i / width]));
}

/* One block a row. */
__global__ void temperature_kernel(qb_temperature_attr a, float *x, int64_t n_tok, int64_t n,
                                   cuda_place place) {
    const double position = static_cast<double>(place.position(blockIdx.x % n_tok));
    const double steps =
        floor((position + static_cast<double>(a.shift)) / static_cast<double>(a.floor_scale));
    const float factor = static_cast<float>(1.0 + static_cast<double>(a.beta) * log1p(steps));
    x += blockIdx.x * n;
    for (int64_t i = threadIdx.x; i < n; i += threads) x[i] *= factor;
}

__global__ void position_kernel(float *x, const float *__restrict__ table, int64_t offset, int64_t width,
                                int64_t n, cuda_place place) {
    int64_t i = element_index();
    if (i < n) x[i] += table[(place.position(0) + offset) * width + i % width];
}

__device__ __forceinline__ float plus(float a, float b) {
    return a + b;
}
__device__ __forceinline__ float4 plus(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

template <typename Value> __global__ void add_kernel(Value *x, const Value *y, int64_t n) {
    int64_t i = element_index();
    if (i < n) x[i] = plus(x[i], y[i]);
}

/* The pairs of QB_GLU_SEPARATE, four a thread: the memory is busier with longer loads. */
__global__ void gate_four_kernel(qb_activate_attr a, float4 *y, const float4 *gate, const float4 *up,
                                 int64_t n) {
    int64_t i = element_index();
    if (i >= n) return;
    const float4 g = gate[i], u = up[i];
    y[i] = make_float4(qb::gated(a, g.x, u.x), qb::gated(a, g.y, u.y), qb::gated(a, g.z, u.z),
                       qb::gated(a, g.w, u.w));
}

bool by_fours(int64_t n, const void *a, const void *b, const void *c) {
    const uintptr_t all =
        reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) | reinterpret_cast<uintptr_t>(c);
    return n % 4 == 0 && all % sizeof(float4) == 0;
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

template <qb_glu glu>
cudaError_t activate(cuda_device *d, const qb_activate_attr &attr, float *y, const float *gate,
                     const float *up, int64_t n, int64_t total) {
    return qb_launch(activate_kernel<glu>, dim3(qb_blocks(total, threads)), dim3(threads), 0, d->stream, attr,
                     y, gate, up, n, total);
}

} // namespace

cudaError_t qb_queue_temperature(const qb_temperature_attr &attr, float *x, int64_t n_seq, int64_t n_tok,
                                 int64_t n, cuda_place place, cudaStream_t stream) {
    if (n_seq * n_tok <= 0) return cudaSuccess;
    return qb_launch(temperature_kernel, dim3(qb_blocks(n_seq * n_tok, 1)), dim3(threads), 0, stream, attr, x,
                     n_tok, n, place);
}

cudaError_t qb_queue_position(float *x, const float *table, int64_t offset, int64_t n_seq, int64_t n,
                              cuda_place place, cudaStream_t stream) {
    if (n_seq * n <= 0) return cudaSuccess;
    return qb_launch(position_kernel, dim3(qb_blocks(n_seq * n, threads)), dim3(threads), 0, stream, x, table,
                     offset, n, n_seq * n, place);
}

extern "C" qb_status qb_cuda_activate(qb_device *dev, const qb_activate_attr *attr, float *y,
                                      const float *gate, const float *up, int64_t T, int64_t n) {
    cuda_device *d = cuda_of(dev);
    cudaError_t error = cudaErrorInvalidValue;
    if ((up != NULL) != (attr->glu == QB_GLU_SEPARATE))
        return qb_fail(QB_ERR_INTERNAL, "an activation with%s a separate factor; its gating is %d",
                       up ? "" : "out", static_cast<int>(attr->glu));
    if (T * n <= 0) return QB_OK;
    switch (attr->glu) {
    case QB_GLU_NONE:
        error = activate<QB_GLU_NONE>(d, *attr, y, gate, up, n, T * n);
        break;
    case QB_GLU_SEPARATE:
        if (by_fours(T * n, y, gate, up)) {
            error =
                qb_launch(gate_four_kernel, dim3(qb_blocks(T * n / 4, threads)), dim3(threads), 0, d->stream,
                          *attr, reinterpret_cast<float4 *>(y), reinterpret_cast<const float4 *>(gate),
                          reinterpret_cast<const float4 *>(up), T * n / 4);
            break;
        }
        error = activate<QB_GLU_SEPARATE>(d, *attr, y, gate, up, n, T * n);
        break;
    case QB_GLU_HALVES:
        error = activate<QB_GLU_HALVES>(d, *attr, y, gate, up, n, T * n);
        break;
    case QB_GLU_INTERLEAVED:
        error = activate<QB_GLU_INTERLEAVED>(d, *attr, y, gate, up, n, T * n);
        break;
    }
    return qb_cuda_status(d, error, "activate");
}

extern "C" qb_status qb_cuda_map(qb_device *dev, qb_step_kind kind, float value, float *x, int64_t n) {
    cuda_device *d = cuda_of(dev);
    if (kind != QB_STEP_SCALE && kind != QB_STEP_CLAMP && kind != QB_STEP_SOFTCAP)
        return qb_fail(QB_ERR_INTERNAL, "a map of step %s", qb_step_name(kind));
    if (n <= 0) return QB_OK;
    return qb_cuda_status(
        d, qb_launch(map_kernel, dim3(qb_blocks(n, threads)), dim3(threads), 0, d->stream, kind, value, x, n),
        qb_step_name(kind));
}

extern "C" qb_status qb_cuda_xielu(qb_device *dev, float *y, const float *x, const float *numbers,
                                   int64_t n) {
    cuda_device *d = cuda_of(dev);
    if (n <= 0) return QB_OK;
    return qb_cuda_status(
        d,
        qb_launch(xielu_kernel, dim3(qb_blocks(n, threads)), dim3(threads), 0, d->stream, y, x, numbers, n),
        "xielu");
}

extern "C" qb_status qb_cuda_gate_rows(qb_device *dev, float *x, const float *gate, int64_t T, int64_t n) {
    cuda_device *d = cuda_of(dev);
    if (T * n <= 0) return QB_OK;
    return qb_cuda_status(d,
                          qb_launch(gate_rows_kernel, dim3(qb_blocks(T * n, threads)), dim3(threads), 0,
                                    d->stream, x, gate, n, T * n),
                          "gate_rows");
}

extern "C" qb_status qb_cuda_temperature(qb_device *dev, const qb_temperature_attr *attr, float *x,
                                         int64_t n_seq, int64_t n_tok, int64_t first, int64_t n) {
    cuda_device *d = cuda_of(dev);
    return qb_cuda_status(d, qb_queue_temperature(*attr, x, n_seq, n_tok, n, {NULL, first}, d->stream),
                          "temperature");
}

extern "C" qb_status qb_cuda_add(qb_device *dev, float *x, const float *y, int64_t n) {
    cuda_device *d = cuda_of(dev);
    if (n <= 0) return QB_OK;
    const bool fours = by_fours(n, x, y, x);
    return qb_cuda_status(
        d,
        fours
            ? qb_launch(add_kernel<float4>, dim3(qb_blocks(n / 4, threads)), dim3(threads), 0, d->stream,
                        reinterpret_cast<float4 *>(x), reinterpret_cast<const float4 *>(y), n / 4)
            : qb_launch(add_kernel<float>, dim3(qb_blocks(n, threads)), dim3(threads), 0, d->stream, x, y, n),
        "add");
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
