/* Sixteen float32 lanes, whatever the instruction set of the file that includes this: one zmm register, two
   ymm registers, or a GCC vector that the compiler splits as it can. Loads and stores take any alignment. */
#pragma once

#include "kernels/dtype.h"

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES_AVX512 1
#elif defined(__AVX2__)
#define LANES_AVX2 1
#endif
#if defined(LANES_AVX512) || defined(LANES_AVX2)
#include <immintrin.h>
#endif
#define LANES_INLINE static inline __attribute__((always_inline, unused))

enum { LANES = 16 };

#if defined(LANES_AVX512)
typedef __m512 lanes;
LANES_INLINE lanes lanes_load(const float *p) {
    return _mm512_loadu_ps(p);
}
LANES_INLINE void lanes_store(float *p, lanes v) {
    _mm512_storeu_ps(p, v);
}
LANES_INLINE lanes lanes_load_f16(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
LANES_INLINE void lanes_store_f16(void *p, lanes v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
LANES_INLINE lanes lanes_load_bf16(const void *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
#elif defined(LANES_AVX2)
typedef struct {
    __m256 lo, hi;
} lanes;
LANES_INLINE lanes lanes_load(const float *p) {
    return (lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
LANES_INLINE void lanes_store(float *p, lanes v) {
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}
LANES_INLINE lanes lanes_load_f16(const void *p) {
    const __m128i *h = p;
    return (lanes){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
LANES_INLINE void lanes_store_f16(void *p, lanes v) {
    __m128i *h = p;
    _mm_storeu_si128(h, _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
LANES_INLINE __m256 lanes_half_bf16(const __m128i *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
LANES_INLINE lanes lanes_load_bf16(const void *p) {
    const __m128i *h = p;
    return (lanes){lanes_half_bf16(h), lanes_half_bf16(h + 1)};
}
#else
/* The compiler notes that passing such vectors by value has no stable ABI; every use here is inlined. */
#pragma GCC diagnostic ignored "-Wpsabi"
typedef float lanes __attribute__((vector_size(64)));
LANES_INLINE lanes lanes_load(const float *p) {
    lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}
LANES_INLINE void lanes_store(float *p, lanes v) {
    memcpy(p, &v, sizeof v);
}
LANES_INLINE lanes lanes_load_f16(const void *p) {
    uint16_t h[LANES];
    memcpy(h, p, sizeof h);
    lanes v;
    for (int i = 0; i < LANES; i++) v[i] = qb_f32_of_f16(h[i]);
    return v;
}
LANES_INLINE void lanes_store_f16(void *p, lanes v) {
    uint16_t h[LANES];
    for (int i = 0; i < LANES; i++) h[i] = qb_f16_of_f32(v[i]);
    memcpy(p, h, sizeof h);
}
LANES_INLINE lanes lanes_load_bf16(const void *p) {
    uint16_t h[LANES];
    memcpy(h, p, sizeof h);
    lanes v;
    for (int i = 0; i < LANES; i++) v[i] = qb_f32_of_bf16(h[i]);
    return v;
}
#endif
