/* Rows of the cache in registers: eight elements a lane, as they lie in memory, and their sums over lanes. */
#pragma once

#include "kernels/cuda/cuda.cuh"

#include <cuda_fp16.h>

namespace {

/* Eight elements of a cache row as they lie in memory. */
template <typename T> struct raw8;
template <> struct raw8<half> { uint4 bits; };
template <> struct raw8<float> { uint4 bits[2]; };

template <typename T> __device__ raw8<T> raw8_zero();
template <> __device__ __forceinline__ raw8<half> raw8_zero<half>() {
    return {make_uint4(0, 0, 0, 0)};
}
template <> __device__ __forceinline__ raw8<float> raw8_zero<float>() {
    return {{make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)}};
}

/* p is 16-byte aligned: the rows are whole multiples of eight elements. */
__device__ __forceinline__ raw8<half> load8_aligned(const half *p) {
    return {*reinterpret_cast<const uint4 *>(p)};
}
__device__ __forceinline__ raw8<float> load8_aligned(const float *p) {
    const uint4 *q = reinterpret_cast<const uint4 *>(p);
    return {{q[0], q[1]}};
}

__device__ __forceinline__ void widen8(const raw8<half> &r, float (&out)[8]) {
    const uint32_t words[4] = {r.bits.x, r.bits.y, r.bits.z, r.bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        half2 pair;
        memcpy(&pair, &words[i], sizeof pair);
        float2 wide = __half22float2(pair);
        out[2 * i] = wide.x;
        out[2 * i + 1] = wide.y;
    }
}
__device__ __forceinline__ void widen8(const raw8<float> &r, float (&out)[8]) {
    memcpy(out, r.bits, sizeof out);
}

/* Elements d .. d + 7 of a row of n, zeros beyond its end. */
template <typename T, bool ALIGNED> __device__ __forceinline__ raw8<T> load8(const T *row, int d, int n) {
    if (ALIGNED) return d < n ? load8_aligned(row + d) : raw8_zero<T>();
    raw8<T> r = raw8_zero<T>();
    T part[8];
#pragma unroll
    for (int i = 0; i < 8; i++) part[i] = d + i < n ? row[d + i] : T(0.0f);
    memcpy(&r, part, sizeof part);
    return r;
}

/* Sums s[0 .. N-1] over LANES lanes, every lane keeping one of the sums: halving the list at each step takes
   N + log2(LANES / N) shuffles instead of N log2(LANES). Lane `in` ends with sum in / (LANES / N). */
template <int N, int LANES> __device__ __forceinline__ float scatter_sum(float (&s)[N], int in) {
    static_assert(N <= LANES, "a lane keeps at most one sum");
    int kept = N;
#pragma unroll
    for (int width = LANES / 2; width > 0; width /= 2) {
        if (kept > 1) {
            kept /= 2;
#pragma unroll
            for (int i = 0; i < N / 2; i++)
                if (i < kept) {
                    bool upper = in & width;
                    float give = upper ? s[i] : s[i + kept], keep = upper ? s[i + kept] : s[i];
                    s[i] = keep + __shfl_xor_sync(0xffffffffu, give, width);
                }
        } else {
            s[0] += __shfl_xor_sync(0xffffffffu, s[0], width);
        }
    }
    return s[0];
}

} // namespace
