/* What the decode step's products share: staging inputs through their norm, and the launch. */
#pragma once

#include "kernels/cuda/decode_gemv.cuh"
#include "kernels/cuda/decode_math.cuh"
#include "kernels/cuda/gemv.cuh"

namespace qb {

/* The static shared memory of the kernels is below QB_DECODE_STATIC_BYTES. */
constexpr int DECODE_WARPS = 8, QB_DECODE_STATIC_BYTES = 2048;
constexpr int DECODE_THREADS = DECODE_WARPS * 32;

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

__device__ __forceinline__ float squared(float sum, float4 r) {
    return fmaf(r.x, r.x, fmaf(r.y, r.y, fmaf(r.z, r.z, fmaf(r.w, r.w, sum))));
}

/* A block's largest value and sum, of those of its warps: in the same order for every thread. */
__device__ __forceinline__ float2 block_rms(const float2 (&partial)[DECODE_WARPS]) {
    float m = 0.0f, squares = 0.0f;
#pragma unroll
    for (int w = 0; w < DECODE_WARPS; w++) {
        m = fmaxf(m, partial[w].x);
        squares += partial[w].y;
    }
    return make_float2(m, squares);
}
__device__ __forceinline__ float2 warp_rms(float m, float squares) {
    m = warp_largest(m);
#pragma unroll
    for (int width = 16; width > 0; width /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, width);
    return make_float2(m, squares);
}

/* stage_rows for RMS: one pass finds the largest x w and the mean square, which only scales the results. A
   single row that is in order is read once and kept in registers. */
template <class Sent>
__device__ __forceinline__ void stage_rms(half *xs, float *unscale, const decode_launch &l,
                                          const qb_cuda_view &v, const decode_norm &n, const float *x,
                                          Sent sent) {
    __shared__ float2 partial[QB_DECODE_GEMV_TOKENS][DECODE_WARPS];
    constexpr int step = DECODE_THREADS * 4, HELD = 64 / DECODE_WARPS;
    const int warp = static_cast<int>(threadIdx.x) / 32, from = static_cast<int>(threadIdx.x) * 4,
              padded_cols = static_cast<int>(v.padded_cols);
    const plain_rows rows = {x, v.cols, v.source}, weight = {n.weight, v.cols, v.source};
    const bool hold = l.T == 1 && rows.aligned() && padded_cols <= HELD * step;
    float4 held[HELD], by[HELD];
    if (hold) { /* the weights need not wait for the kernel before */
#pragma unroll
        for (int i = 0; i < HELD; i++) by[i] = weight.four(0, from + i * step);
    }
    ptx::wait_for_previous_kernel();
    if (!hold) sent();
    if (hold) {
        float m = 0.0f, squares = 0.0f;
#pragma unroll
        for (int i = 0; i < HELD; i++) held[i] = rows.four(0, from + i * step);
        sent();
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            squares = squared(squares, held[i]);
            held[i] = times(held[i], by[i]);
            m = largest(m, held[i]);
        }
        const float2 r = warp_rms(m, squares);
        if (threadIdx.x % 32 == 0) partial[0][warp] = r;
    } else if (rows.aligned()) { /* the loads of several rows at once */
        for (int t0 = 0; t0 < l.T; t0 += STAGE_TOKENS) {
            float m[STAGE_TOKENS] = {}, squares[STAGE_TOKENS] = {};
            for (int k = from; k < padded_cols; k += step) {
                const float4 w = weight.four(0, k);
#pragma unroll
                for (int i = 0; i < STAGE_TOKENS; i++) {
                    const float4 r = rows.four(min(t0 + i, l.T - 1), k);
                    m[i] = largest(m[i], times(r, w));
                    squares[i] = squared(squares[i], r);
                }
            }
#pragma unroll
            for (int i = 0; i < STAGE_TOKENS; i++) {
                const float2 r = warp_rms(m[i], squares[i]);
                if (t0 + i < l.T && threadIdx.x % 32 == 0) partial[t0 + i][warp] = r;
            }
        }
    } else {
        for (int t = 0; t < l.T; t++) {
            float m = 0.0f, squares = 0.0f;
            for (int k = from; k < padded_cols; k += step) {
                const float4 r = rows(t, k);
                m = largest(m, times(r, weight(0, k)));
                squares = squared(squares, r);
            }
            const float2 r = warp_rms(m, squares);
            if (threadIdx.x % 32 == 0) partial[t][warp] = r;
        }
    }
    __syncthreads();
    for (int t = 0; t < l.T; t++) {
        const float2 r = block_rms(partial[t]);
        const int e = scaling_exponent(r.x, ACTIVATION_EXPONENT);
        const float scale = power_of_two(e);
        if (threadIdx.x == 0) unscale[t] = power_of_two(-e) / sqrtf(r.y / static_cast<float>(n.dim) + n.eps);
        if (hold) {
#pragma unroll
            for (int i = 0; i < HELD; i++)
                if (from + i * step < padded_cols)
                    *reinterpret_cast<uint2 *>(xs + from + i * step) = halves_of(held[i], scale);
        } else if (rows.aligned()) {
#pragma unroll 4
            for (int k = from; k < padded_cols; k += step)
                *reinterpret_cast<uint2 *>(xs + t * l.stride + k) =
                    halves_of(times(rows.four(t, k), weight.four(0, k)), scale);
        } else {
            for (int k = from; k < padded_cols; k += step)
                *reinterpret_cast<uint2 *>(xs + t * l.stride + k) =
                    halves_of(times(rows(t, k), weight(0, k)), scale);
        }
    }
    __syncthreads();
}

/* norm(x) staged in shared memory, in the order of the columns of v. */
template <class Sent>
__device__ __forceinline__ staged stage_normed(unsigned char *shared, const decode_launch &l,
                                               const qb_cuda_view &v, const decode_norm &n, const float *x,
                                               Sent sent) {
    half *xs = reinterpret_cast<half *>(shared + l.plan.x);
    float *unscale = reinterpret_cast<float *>(shared + l.plan.unscale);
    if (n.kind == QB_NORM_RMS) {
        stage_rms(xs, unscale, l, v, n, x, sent);
    } else {
        ptx::wait_for_previous_kernel();
        sent();
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
template <class Sent>
__device__ __forceinline__ staged stage_plain(unsigned char *shared, const decode_launch &l,
                                              const qb_cuda_view &v, const float *x, Sent sent) {
    ptx::wait_for_previous_kernel();
    half *xs = reinterpret_cast<half *>(shared + l.plan.x);
    float *unscale = reinterpret_cast<float *>(shared + l.plan.unscale);
    float *partial = reinterpret_cast<float *>(shared + l.plan.partial);
    const plain_rows rows = {x, v.cols, v.source};
    if (rows.aligned()) {
        stage_aligned(xs, l.stride, unscale, partial, l.T, static_cast<int>(v.padded_cols), rows, sent);
    } else {
        sent();
        stage_rows(xs, l.stride, unscale, partial, l.T, v.padded_cols, rows);
    }
    return {xs, l.stride, unscale};
}

/* Blocks a multiprocessor. One, with room for a block of the kernel that comes next (dependent launches), was
   slower on an H200: 330 tokens a second where two gave 445, for eight warps do not cover the arithmetic's
   latency. */
constexpr int DECODE_BLOCKS = 2;

inline gemv_shared decode_plan(const qb_cuda_view &v, bool fine, int64_t T, int RT,
                               const decode_device &dev) {
    const bool nested = v.kind == QB_CODES_BOOK && v.scale_kind == QB_VIEW_SCALES_NESTED;
    const int64_t share = (dev.shared_bytes + 1024) / DECODE_BLOCKS - 1024 - QB_DECODE_STATIC_BYTES;
    return gemv_shared_within(share, GEMV_IN_FLIGHT / DECODE_BLOCKS, dev.async_copies, v.kind, fine, nested,
                              static_cast<int>(T), v.padded_cols, DECODE_WARPS, RT, static_cast<int>(T));
}
struct decode_grid {
    dim3 grid;
    decode_launch launch;
};

/* The warps that share an item's columns in a grid of at most `most` blocks, at least four steps each: as
 * leaves the fewest rounds unfilled. */
inline int decode_k_warps(int n_items, int steps, int most) {
    int best = 1;
    double best_share = 0.0;
    for (int k_warps = 1; k_warps <= DECODE_WARPS && (k_warps == 1 || steps >= 4 * k_warps); k_warps *= 2) {
        const int per_round = most * (DECODE_WARPS / k_warps);
        const int rounds = (n_items + per_round - 1) / per_round;
        const double share = static_cast<double>(n_items) / (static_cast<double>(rounds) * per_round);
        if (share > best_share * 1.001) best = k_warps, best_share = share;
    }
    return best;
}

inline decode_grid decode_grid_of(const qb_cuda_view &v, bool fine, int n_items, int RT, int64_t T,
                                  const decode_device &dev) {
    decode_grid g;
    g.launch.T = static_cast<int>(T);
    g.launch.stride = staged_stride(v.padded_cols);
    g.launch.plan = decode_plan(v, fine, T, RT, dev);
    const int fit =
        static_cast<int>((dev.shared_bytes + 1024) / (g.launch.plan.total + QB_DECODE_STATIC_BYTES + 1024));
    const int most = (fit >= DECODE_BLOCKS ? DECODE_BLOCKS : 1) * dev.multiprocessors;
    const int k_warps = decode_k_warps(n_items, static_cast<int>(v.padded_cols / QB_TILE_COLS), most);
    const int item_warps = DECODE_WARPS / k_warps, blocks = (n_items + item_warps - 1) / item_warps;
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
