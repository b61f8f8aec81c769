/* Sixteen float32 lanes, whatever the instruction set of the file that includes this: one zmm register, two
   ymm registers, four of NEON, or a GCC vector that the compiler splits as it can (also where a file defines
   LANES_GENERIC; LANES_AVX2 asks for the two ymm). Loads and stores take any alignment. */
#pragma once

#include "kernels/dtype.h"

#include <stdint.h>
#include <string.h>

#if defined(LANES_GENERIC) || defined(LANES_AVX2)
#elif defined(__AVX512F__)
#define LANES_AVX512 1
#elif defined(__AVX2__)
#define LANES_AVX2 1
#elif defined(__aarch64__)
#define LANES_NEON 1
#endif
#if defined(LANES_AVX512) || defined(LANES_AVX2)
#include <immintrin.h>
#elif defined(LANES_NEON)
#include <arm_neon.h>
#endif
/* The compiler notes that wide vectors by value have no stable ABI; none leaves its file here. */
#pragma GCC diagnostic ignored "-Wpsabi"
/* Without optimization GCC ignores it, with a warning where the bound is no literal. */
#if defined(__OPTIMIZE__) && !defined(QB_SANITIZED)
#define UNROLL _Pragma("GCC unroll 32")
#else
#define UNROLL
#endif

#define LANES_INLINE static inline __attribute__((always_inline, unused))

enum { LANES = 16 };

#if defined(LANES_AVX512) || defined(LANES_AVX2) || defined(LANES_NEON)
/* Bytes of lanes_codes_words_24: of two 64-bit halves; 255 is zero. */
__attribute__((unused)) static const uint8_t lanes_places_24[4][16] = {
    {0, 1, 2, 255, 3, 4, 5, 255, 8, 9, 10, 255, 11, 12, 13, 255},
    {6, 7, 0, 255, 1, 2, 3, 255, 14, 15, 8, 255, 9, 10, 11, 255},
    {4, 5, 6, 255, 7, 0, 1, 255, 12, 13, 14, 255, 15, 8, 9, 255},
    {2, 3, 4, 255, 5, 6, 7, 255, 10, 11, 12, 255, 13, 14, 15, 255}};
#endif

#if defined(LANES_AVX512)
/* Without optimisation the compiler's own intrinsics are macros that convert signs. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include "kernels/cpu/lanes_avx512.h"
#pragma GCC diagnostic pop
#elif defined(LANES_AVX2)
#include "kernels/cpu/lanes_avx2.h"
#elif defined(LANES_NEON)
#include "kernels/cpu/lanes_neon.h"
#else
#include "kernels/cpu/lanes_generic.h"
#endif

LANES_INLINE lanes_codes lanes_codes_iota(void) {
    static const uint32_t numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lanes_codes_load(numbers);
}
/* base[index] as bytes; a lane by a lane, for paths that are not hot. */
LANES_INLINE lanes_codes lanes_codes_gather_u8(const uint8_t *base, lanes_codes index) {
    uint32_t v[LANES];
    memcpy(v, &index, sizeof v);
    for (int i = 0; i < LANES; i++) v[i] = base[v[i]];
    return lanes_codes_load(v);
}
/* Eight float64 lanes; the compiler splits them where registers are shorter. */
typedef double lanes_doubles __attribute__((vector_size(64)));
/* Lanes 8 * half on; intrinsics, where the compiler's own conversion goes through halves of registers. */
LANES_INLINE lanes_doubles lanes_doubles_of(lanes x, const int half) {
#if defined(LANES_AVX512)
    return (lanes_doubles)_mm512_cvtps_pd(half ? _mm512_extractf32x8_ps(x, 1) : _mm512_castps512_ps256(x));
#elif defined(LANES_AVX2)
    const __m256 eight = half ? x.hi : x.lo;
    const __m256d parts[2] = {_mm256_cvtps_pd(_mm256_castps256_ps128(eight)),
                              _mm256_cvtps_pd(_mm256_extractf128_ps(eight, 1))};
    lanes_doubles d;
    memcpy(&d, parts, sizeof d);
    return d;
#else
    typedef float eight_floats __attribute__((vector_size(32)));
    float v[LANES];
    eight_floats part;
    lanes_store(v, x);
    memcpy(&part, v + 8 * half, sizeof part);
    return __builtin_convertvector(part, lanes_doubles);
#endif
}
LANES_INLINE lanes lanes_zero(void) {
    return lanes_set1(0.0f);
}
/* n < 16 elements, zeros behind them. */
LANES_INLINE lanes lanes_load_part(const float *p, int64_t n) {
    float v[LANES] = {0};
    memcpy(v, p, (size_t)n * sizeof *p);
    return lanes_load(v);
}
LANES_INLINE void lanes_store_part(float *p, lanes x, int64_t n) {
    float v[LANES];
    lanes_store(v, x);
    memcpy(p, v, (size_t)n * sizeof *p);
}
/* The lanes added as a balanced tree: the same order in every instruction set. */
LANES_INLINE float lanes_sum(lanes x) {
#if defined(LANES_AVX512) || defined(LANES_AVX2)
    __m256 eight = lanes_add_halves(x);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#elif defined(LANES_NEON)
    float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
#else
    float v[LANES];
    lanes_store(v, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) v[i] += v[i + width];
    return v[0];
#endif
}
/* to[i] = lanes_sum(v[i]), to the bit, for n of them. */
LANES_INLINE void lanes_sums(const lanes *v, const int n, float *to) {
#if defined(LANES_AVX512)
    if (n == LANES) {
        lanes_store(to, lanes_sums_of_16(v));
        return;
    }
#endif
    UNROLL for (int i = 0; i < n; i++) to[i] = lanes_sum(v[i]);
}
LANES_INLINE float lanes_largest(lanes x) {
    float v[LANES];
    lanes_store(v, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) v[i] = v[i] > v[i + width] ? v[i] : v[i + width];
    return v[0];
}
