/* The norm of the decode step, for its elementwise kernels and its fused matrix products. */
#pragma once

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/decode.cuh"

/* The sum over a block of WARPS warps, in the same order for every thread; scratch[WARPS] may be used again
   after the caller's next barrier. */
template <int WARPS> __device__ __forceinline__ float decode_block_sum(float v, float *scratch) {
#pragma unroll
    for (int width = 16; width > 0; width /= 2) v += __shfl_xor_sync(0xffffffffu, v, width);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) v += scratch[w];
    return v;
}

/* Mean (0 for RMS) and 1 / deviation of x[dim] over a block; two passes, so that a large mean cancels
 * nothing. */
template <int WARPS>
__device__ __forceinline__ float2 decode_norm_scale(const decode_norm &n, const float *x, float *scratch) {
    float mean = 0.0f, sum = 0.0f;
    if (n.kind == QB_NORM_LAYER) {
        for (int i = threadIdx.x; i < n.dim; i += WARPS * 32) sum += x[i];
        mean = decode_block_sum<WARPS>(sum, scratch) / static_cast<float>(n.dim);
        __syncthreads();
        sum = 0.0f;
    }
    for (int i = threadIdx.x; i < n.dim; i += WARPS * 32) {
        float v = x[i] - mean;
        sum = fmaf(v, v, sum);
    }
    sum = decode_block_sum<WARPS>(sum, scratch) / static_cast<float>(n.dim);
    return make_float2(mean, 1.0f / sqrtf(sum + n.eps));
}
__device__ __forceinline__ float decode_normed(const decode_norm &n, float v, float2 scale, int i) {
    v = (v - scale.x) * scale.y * n.weight[i];
    return n.bias ? v + n.bias[i] : v;
}
