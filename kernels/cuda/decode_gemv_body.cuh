/* What the decode step's products share: staging inputs through their norm, and the launch. */
#pragma once

#include "kernels/cuda/decode_gemv.cuh"
#include "kernels/cuda/decode_math.cuh"
#include "kernels/cuda/gemv.cuh"

namespace qb {

constexpr int DECODE_WARPS = 8, DECODE_THREADS = DECODE_WARPS * 32;

/* How a launch divides its work, by value. */
struct decode_launch {
    int T;
    split sp;
    gemv_shared plan;
    int64_t stride;
};

/* Four columns of a normed row in packed order. `scale` holds each row's mean and 1 / deviation. */
struct normed_rows {
    plain_rows x, weight, bias; /* bias.x NULL without */
    const float2 *scale;

    __device__ __forceinline__ float4 operator()(int t, int64_t k) const {
        const float4 v = x(t, k), w = weight(0, k),
                     b = bias.x ? bias(0, k) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        const float2 s = scale[t];
        return make_float4((v.x - s.x) * s.y * w.x + b.x, (v.y - s.x) * s.y * w.y + b.y,
                           (v.z - s.x) * s.y * w.z + b.z, (v.w - s.x) * s.y * w.w + b.w);
    }
};

__device__ __forceinline__ float4 times(float4 a, float4 b) {
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

/* stage_rows for RMS: one pass finds the largest x w and the mean square, which only scales the results. */
__device__ __forceinline__ void stage_rms(half *xs, float *unscale, const decode_launch &l,
                                          const qb_cuda_view &v, const decode_norm &n, const float *x) {
    __shared__ float2 partial[QB_DECODE_GEMV_TOKENS][DECODE_WARPS];
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const plain_rows rows = {x, v.cols, v.source}, weight = {n.weight, v.cols, v.source};
    for (int t = 0; t < l.T; t++) {
        float m = 0.0f, squares = 0.0f;
        for (int64_t k = threadIdx.x * 4; k < v.padded_cols; k += DECODE_THREADS * 4) {
            const float4 r = rows(t, k);
            m = largest(m, times(r, weight(0, k)));
            squares = fmaf(r.x, r.x, fmaf(r.y, r.y, fmaf(r.z, r.z, fmaf(r.w, r.w, squares))));
        }
        m = warp_largest(m);
#pragma unroll
        for (int width = 16; width > 0; width /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, width);
        if (threadIdx.x % 32 == 0) partial[t][warp] = make_float2(m, squares);
    }
    __syncthreads();
    for (int t = 0; t < l.T; t++) {
        float m = 0.0f, squares = 0.0f;
#pragma unroll
        for (int w = 0; w < DECODE_WARPS; w++) {
            m = fmaxf(m, partial[t][w].x);
            squares += partial[t][w].y;
        }
        const int e = scaling_exponent(m, ACTIVATION_EXPONENT);
        const float scale = power_of_two(e);
        if (threadIdx.x == 0)
            unscale[t] = power_of_two(-e) / sqrtf(squares / static_cast<float>(n.dim) + n.eps);
        for (int64_t k = threadIdx.x * 4; k < v.padded_cols; k += DECODE_THREADS * 4) {
            const float4 r = times(rows(t, k), weight(0, k));
            *reinterpret_cast<uint2 *>(xs + t * l.stride + k) =
                make_uint2(bits_of(__floats2half2_rn(r.x * scale, r.y * scale)),
                           bits_of(__floats2half2_rn(r.z * scale, r.w * scale)));
        }
    }
    __syncthreads();
}

/* norm(x) staged in shared memory, in the order of the columns of v. */
__device__ __forceinline__ staged stage_normed(unsigned char *shared, const decode_launch &l,
                                               const qb_cuda_view &v, const decode_norm &n, const float *x) {
    ptx::wait_for_previous_kernel();
    half *xs = reinterpret_cast<half *>(shared + l.plan.x);
    float *unscale = reinterpret_cast<float *>(shared + l.plan.unscale);
    if (n.kind == QB_NORM_RMS) {
        stage_rms(xs, unscale, l, v, n, x);
    } else {
        __shared__ float scratch[DECODE_WARPS];
        __shared__ float2 scale[QB_DECODE_GEMV_TOKENS];
        for (int t = 0; t < l.T; t++) {
            const float2 s = decode_norm_scale<DECODE_WARPS>(n, x + t * v.cols, scratch);
            if (threadIdx.x == 0) scale[t] = s;
            __syncthreads();
        }
        stage_rows(
            xs, l.stride, unscale, reinterpret_cast<float *>(shared + l.plan.partial), l.T, v.padded_cols,
            normed_rows{
                {x, v.cols, v.source}, {n.weight, v.cols, v.source}, {n.bias, v.cols, v.source}, scale});
    }
    return {xs, l.stride, unscale};
}

/* x as it is. */
__device__ __forceinline__ staged stage_plain(unsigned char *shared, const decode_launch &l,
                                              const qb_cuda_view &v, const float *x) {
    ptx::wait_for_previous_kernel();
    half *xs = reinterpret_cast<half *>(shared + l.plan.x);
    float *unscale = reinterpret_cast<float *>(shared + l.plan.unscale);
    stage_rows(xs, l.stride, unscale, reinterpret_cast<float *>(shared + l.plan.partial), l.T, v.padded_cols,
               plain_rows{x, v.cols, v.source});
    return {xs, l.stride, unscale};
}

inline gemv_shared decode_plan(const qb_cuda_view &v, int64_t T, int RT) {
    const bool nested = v.kind == QB_CODES_BOOK && v.scale_kind == QB_VIEW_SCALES_NESTED;
    return gemv_shared_plan(v.kind, nested, static_cast<int>(T), v.padded_cols, DECODE_WARPS, RT,
                            static_cast<int>(T));
}
struct decode_grid {
    dim3 grid;
    decode_launch launch;
};
/* Blocks that share a multiprocessor: as many as the registers of a kernel leave without spilling (ptxas of
   CUDA 13 for 7.5 to 9.0). What a single block's warps have in flight covers the memory's latency where it
   must be one. */
__host__ __device__ constexpr int decode_blocks(int kind, bool fine, int RT) {
    return RT == 2 && (kind == QB_CODES_BF16 || (kind == QB_CODES_2 && fine))       ? 1
           : RT == 1 && !fine && kind < QB_CODES_PACKED_COUNT && kind != QB_CODES_2 ? 3
                                                                                    : 2;
}

/* Two rounds of items for every warp that the device holds, where the matrix has so many; with fewer, more
   warps share an item's columns, two steps each at the least. The blocks stay for all rounds: each stages the
   inputs once. */
inline decode_grid decode_grid_of(const qb_cuda_view &v, bool fine, int n_items, int RT, int64_t T,
                                  const decode_device &dev) {
    decode_grid g;
    g.launch.T = static_cast<int>(T);
    g.launch.stride = staged_stride(v.padded_cols);
    g.launch.plan = decode_plan(v, T, RT);
    const int fit = static_cast<int>((dev.shared_bytes + 1024) / (g.launch.plan.total + 2 * 1024));
    const int wanted = decode_blocks(v.kind, fine, RT), resident = fit < 1 ? 1 : fit < wanted ? fit : wanted;
    const int warps = resident * DECODE_WARPS * dev.multiprocessors;
    const int steps = static_cast<int>(v.padded_cols / QB_TILE_COLS);
    int k_warps = 1;
    while (k_warps < DECODE_WARPS && n_items * k_warps < 2 * warps && steps >= 4 * k_warps) k_warps *= 2;
    const int item_warps = DECODE_WARPS / k_warps, blocks = (n_items + item_warps - 1) / item_warps;
    const int most = resident * dev.multiprocessors;
    g.launch.sp = {k_warps, 1};
    g.grid = dim3(static_cast<unsigned>(blocks < most ? blocks : most));
    return g;
}

/* The codes that have fused kernels, packed ones with one scale a step or with several (FINE): X(codes,
 * FINE). */
#define QB_DECODE_CODES(X)                                                                                   \
    X(2, false)                                                                                              \
    X(2, true)                                                                                               \
    X(3, false)                                                                                              \
    X(3, true)                                                                                               \
    X(4, false) X(4, true) X(8, false) X(8, true) X(BOOK, false) X(BOOK, true) X(F16, false) X(BF16, false)
constexpr int decode_codes(int kind, bool fine) {
    return 2 * kind + (fine ? 1 : 0);
}

} // namespace qb
