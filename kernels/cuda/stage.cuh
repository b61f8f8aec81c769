/* Activations for the tensor cores: float32 rows become float16 rows, each times a power of two that brings
   its largest value to 2^14 .. 2^15. That is exact, lets float16 hold any float32 row (nothing overflows, and
   what underflows is 2^-38 of the row's largest), and is undone by one multiplication of each result. */
#pragma once

#include "kernels/cuda/dequant.cuh"

namespace qb {

constexpr int ACTIVATION_EXPONENT = 14;

/* Exponent e such that m 2^e is in [2^14, 2^15); 0 for 0, infinity and NaN, which stay what they are. */
__device__ __forceinline__ int scaling_exponent(float m, int target) {
    if (!(m > 0.0f) || !(m < INFINITY)) return 0;
    uint32_t bits;
    memcpy(&bits, &m, 4);
    int e = target + 127 - static_cast<int>(bits >> 23);
    return e < 126 ? e : 126;
}

/* Four consecutive columns of packed order from row-major x[T, cols]: gathered where the matrix permutes its
   columns, zero where it pads them. */
struct plain_rows {
    const float *x;
    int64_t cols;
    const int32_t *source;

    __device__ __forceinline__ float4 operator()(int t, int64_t k) const {
        const float *row = x + t * cols;
        if (source) {
            int4 s = *reinterpret_cast<const int4 *>(source + k);
            return make_float4(s.x < 0 ? 0.0f : row[s.x], s.y < 0 ? 0.0f : row[s.y],
                               s.z < 0 ? 0.0f : row[s.z], s.w < 0 ? 0.0f : row[s.w]);
        }
        if (k + 4 <= cols && cols % 4 == 0) return *reinterpret_cast<const float4 *>(row + k);
        return make_float4(k < cols ? row[k] : 0.0f, k + 1 < cols ? row[k + 1] : 0.0f,
                           k + 2 < cols ? row[k + 2] : 0.0f, k + 3 < cols ? row[k + 3] : 0.0f);
    }
    __device__ __forceinline__ bool aligned() const { return !source && cols % 4 == 0; }
    /* The same of aligned rows, for any k. */
    __device__ __forceinline__ float4 four(int t, int k) const {
        return k < cols ? *reinterpret_cast<const float4 *>(x + t * cols + k)
                        : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
};

__device__ __forceinline__ float largest(float m, float4 v) {
    return fmaxf(fmaxf(m, fmaxf(fabsf(v.x), fabsf(v.y))), fmaxf(fabsf(v.z), fabsf(v.w)));
}
__device__ __forceinline__ float warp_largest(float m) {
    for (int step = 16; step; step >>= 1) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, step));
    return m;
}

__device__ __forceinline__ uint2 halves_of(float4 v, float scale) {
    return make_uint2(bits_of(__floats2half2_rn(v.x * scale, v.y * scale)),
                      bits_of(__floats2half2_rn(v.z * scale, v.w * scale)));
}

/* xs[t][k] = float16(value(t, k) * 2^e(t)) for T rows of padded_cols in rows of `stride` halves, unscale[t] =
   2^-e(t). value(t, k) gives columns k .. k + 3 and is asked twice for each. All threads of the block call
   it; partial: T * warps floats of shared memory. Ends with a barrier. */
template <class Value>
__device__ __forceinline__ void stage_rows(half *xs, int64_t stride, float *unscale, float *partial, int T,
                                           int64_t padded_cols, Value value) {
    int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
    for (int t = 0; t < T; t++) {
        float m = 0.0f;
#pragma unroll 4
        for (int64_t k = threadIdx.x * 4; k < padded_cols; k += blockDim.x * 4) m = largest(m, value(t, k));
        m = warp_largest(m);
        if (threadIdx.x % 32 == 0) partial[t * warps + warp] = m;
    }
    __syncthreads();
    for (int t = 0; t < T; t++) {
        float m = 0.0f;
        for (int w = 0; w < warps; w++) m = fmaxf(m, partial[t * warps + w]);
        int e = scaling_exponent(m, ACTIVATION_EXPONENT);
        float scale = power_of_two(e);
        if (threadIdx.x == 0) unscale[t] = power_of_two(-e);
        for (int64_t k = threadIdx.x * 4; k < padded_cols; k += blockDim.x * 4) {
            *reinterpret_cast<uint2 *>(xs + t * stride + k) = halves_of(value(t, k), scale);
        }
    }
    __syncthreads();
}

/* Fours of columns that a thread keeps between finding a row's largest value and scaling it, so that a row
   alone is read once and in one go; and rows whose loads are on their way at once. */
constexpr int STAGE_HELD = 12, STAGE_TOKENS = 4;

/* stage_rows of plain rows that are in order and aligned (rows.aligned()). sent(): called once, when the
   loads of a single row are on their way. */
template <class Sent>
__device__ __forceinline__ void stage_aligned(half *xs, int64_t stride, float *unscale, float *partial, int T,
                                              int padded_cols, const plain_rows &rows, Sent sent) {
    const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32,
              step = static_cast<int>(blockDim.x) * 4, from = static_cast<int>(threadIdx.x) * 4;
    const bool hold = T == 1 && padded_cols <= STAGE_HELD * step;
    float4 held[STAGE_HELD];
    if (hold) {
        float m = 0.0f;
#pragma unroll
        for (int i = 0; i < STAGE_HELD; i++) held[i] = rows.four(0, from + i * step);
        sent();
#pragma unroll
        for (int i = 0; i < STAGE_HELD; i++) m = largest(m, held[i]);
        m = warp_largest(m);
        if (threadIdx.x % 32 == 0) partial[warp] = m;
    } else {
        sent();
        for (int t0 = 0; t0 < T; t0 += STAGE_TOKENS) {
            float m[STAGE_TOKENS] = {};
#pragma unroll 2
            for (int k = from; k < padded_cols; k += step)
#pragma unroll
                for (int i = 0; i < STAGE_TOKENS; i++) m[i] = largest(m[i], rows.four(min(t0 + i, T - 1), k));
#pragma unroll
            for (int i = 0; i < STAGE_TOKENS; i++) {
                m[i] = warp_largest(m[i]);
                if (t0 + i < T && threadIdx.x % 32 == 0) partial[(t0 + i) * warps + warp] = m[i];
            }
        }
    }
    __syncthreads();
    for (int t = 0; t < T; t++) {
        float m = 0.0f;
        for (int w = 0; w < warps; w++) m = fmaxf(m, partial[t * warps + w]);
        const int e = scaling_exponent(m, ACTIVATION_EXPONENT);
        const float scale = power_of_two(e);
        if (threadIdx.x == 0) unscale[t] = power_of_two(-e);
        if (hold) {
#pragma unroll
            for (int i = 0; i < STAGE_HELD; i++)
                if (from + i * step < padded_cols)
                    *reinterpret_cast<uint2 *>(xs + from + i * step) = halves_of(held[i], scale);
        } else {
#pragma unroll 8
            for (int k = from; k < padded_cols; k += step)
                *reinterpret_cast<uint2 *>(xs + t * stride + k) = halves_of(rows.four(t, k), scale);
        }
    }
    __syncthreads();
}

/* Halves between staged rows in shared memory: 64 bytes more than whole tiles, so that two tokens' lanes read
   different banks. */
__host__ __device__ constexpr int64_t staged_stride(int64_t padded_cols) {
    return padded_cols + 32;
}

} // namespace qb
