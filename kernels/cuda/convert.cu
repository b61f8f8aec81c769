/* Activations to float16 in global memory: a row at a time, each with its own power of two, for the products
   of few tokens; all with one, for GEMMs, whose alpha then undoes it. */
#include "kernels/cuda/matrix_kernels.h"

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/stage.cuh"

namespace {

using namespace qb;

constexpr int THREADS = 256, WARPS = THREADS / 32;

/* ---- each row for itself ---- */

__global__ void stage_kernel(plain_rows rows, int64_t padded_cols, half *to, int64_t stride, float *unscale) {
    __shared__ float partial[WARPS];
    const int t = static_cast<int>(blockIdx.x);
    plain_rows one = rows;
    one.x += t * rows.cols;
    stage_rows(to + t * stride, stride, unscale + t, partial, 1, padded_cols, one);
}

/* ---- all rows together ---- */

__device__ float block_largest(float m, float *partial) {
    m = warp_largest(m);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = m;
    __syncthreads();
    m = 0.0f;
    for (int w = 0; w < WARPS; w++) m = fmaxf(m, partial[w]);
    return m;
}

__device__ __forceinline__ float largest_of(float x) {
    return fabsf(x);
}
__device__ __forceinline__ float largest_of(uint16_t x) { /* bfloat16 */
    return fabsf(as_float(static_cast<uint32_t>(x) << 16));
}
__device__ __forceinline__ float largest_of(float4 x) {
    return largest(0.0f, x);
}

/* largest[block] = max |x| of the elements that the block meets. */
template <class Value> __global__ void largest_kernel(const Value *x, int64_t n, float *largest) {
    __shared__ float partial[WARPS];
    const int64_t stride = static_cast<int64_t>(gridDim.x) * THREADS;
    float m = 0.0f;
#pragma unroll 4
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < n; i += stride)
        m = fmaxf(m, largest_of(x[i]));
    m = block_largest(m, partial);
    if (threadIdx.x == 0) largest[blockIdx.x] = m;
}

/* to[t][k] = float16(x 2^e), four columns a thread, rows blockIdx.y and on; the first block leaves the
   scalars for cuBLAS. */
__global__ void convert_kernel(plain_rows rows, int64_t T, int64_t padded_cols, const float *largest,
                               int n_largest, int exponent, bool squared, half *to, float *scalars) {
    __shared__ float partial[WARPS];
    const int thread = static_cast<int>(threadIdx.x);
    const float m = block_largest(thread < n_largest ? largest[thread] : 0.0f, partial);
    const int e = scaling_exponent(m, ACTIVATION_EXPONENT);
    const float scale = power_of_two(e), back = power_of_two(-e);
    if (blockIdx.x == 0 && blockIdx.y == 0 && thread == 0) {
        scalars[0] = squared ? back * back : back * power_of_two(-exponent);
        scalars[1] = 0.0f;
        scalars[2] = 1.0f;
        scalars[3] = back;
    }
    const int64_t k = (static_cast<int64_t>(blockIdx.x) * THREADS + thread) * 4;
    if (k >= padded_cols) return;
#pragma unroll 2
    for (int64_t t = blockIdx.y; t < T; t += gridDim.y) {
        const float4 v = rows(static_cast<int>(t), k);
        *reinterpret_cast<uint2 *>(to + t * padded_cols + k) =
            make_uint2(bits_of(__floats2half2_rn(v.x * scale, v.y * scale)),
                       bits_of(__floats2half2_rn(v.z * scale, v.w * scale)));
    }
}

__global__ void rescale_kernel(int exponent, float *scalars) {
    if (threadIdx.x == 0) scalars[0] = scalars[3] * power_of_two(-exponent);
}

dim3 blocks_for(const cuda_device *d, int64_t threads) {
    int64_t blocks = (threads + THREADS - 1) / THREADS, most = d->multiprocessors * 8;
    return dim3(static_cast<unsigned>(blocks < most ? (blocks > 0 ? blocks : 1) : most));
}

} // namespace

extern "C" qb_status qb_cuda_stage(cuda_device *d, const qb_cuda_view *v, const float *x, int64_t T, void *to,
                                   int64_t stride, float *unscale) {
    const plain_rows rows = {x, v->cols, v->source};
    return qb_cuda_status(d,
                          qb_launch(stage_kernel, dim3(static_cast<unsigned>(T)), dim3(THREADS), 0, d->stream,
                                    rows, v->padded_cols, static_cast<half *>(to), stride, unscale),
                          "staging activations");
}

/* As many rows side by side as keep all multiprocessors busy. */
static dim3 convert_blocks(const cuda_device *d, int64_t T, int64_t padded_cols) {
    const unsigned across = qb_blocks(padded_cols / 4, THREADS);
    const int64_t down = (d->multiprocessors * 8 + across - 1) / across;
    return dim3(across, static_cast<unsigned>(T < down ? T : down));
}

/* Blocks of the search for the largest value: no more than a block of convert_kernel has threads. */
static dim3 largest_blocks(const cuda_device *d, int64_t n) {
    dim3 grid = blocks_for(d, n / 8);
    return grid.x < THREADS ? grid : dim3(THREADS);
}

extern "C" qb_status qb_cuda_convert(cuda_device *d, const float *x, int64_t T, int64_t cols,
                                     const int32_t *source, int64_t padded_cols, int exponent, bool squared,
                                     void *to, float *work) {
    float *scalars = work, *largest = work + QB_CONVERT_SCALARS;
    const dim3 search = largest_blocks(d, T * cols);
    const bool whole = T * cols % 4 == 0 && reinterpret_cast<uintptr_t>(x) % sizeof(float4) == 0;
    cudaError_t error =
        whole ? qb_launch(largest_kernel<float4>, search, dim3(THREADS), 0, d->stream,
                          reinterpret_cast<const float4 *>(x), T * cols / 4, largest)
              : qb_launch(largest_kernel<float>, search, dim3(THREADS), 0, d->stream, x, T * cols, largest);
    const plain_rows rows = {x, cols, source};
    if (error == cudaSuccess)
        error = qb_launch(convert_kernel, convert_blocks(d, T, padded_cols), dim3(THREADS), 0, d->stream,
                          rows, T, padded_cols, largest, static_cast<int>(search.x), exponent, squared,
                          static_cast<half *>(to), scalars);
    return qb_cuda_status(d, error, "converting activations");
}

extern "C" qb_status qb_cuda_convert_again(cuda_device *d, int exponent, float *work) {
    return qb_cuda_status(d, qb_launch(rescale_kernel, dim3(1), dim3(32), 0, d->stream, exponent, work),
                          "converting activations");
}

extern "C" qb_status qb_cuda_largest_bf16(cuda_device *d, const void *x, int64_t n, float *work,
                                          int *n_largest) {
    const dim3 search = largest_blocks(d, n);
    *n_largest = static_cast<int>(search.x);
    return qb_cuda_status(d,
                          qb_launch(largest_kernel<uint16_t>, search, dim3(THREADS), 0, d->stream,
                                    static_cast<const uint16_t *>(x), n, work),
                          "searching the largest weight");
}
