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
/* The compiler notes that wide vectors by value have no stable ABI; none leaves its file here. */
#pragma GCC diagnostic ignored "-Wpsabi"
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
LANES_INLINE lanes lanes_set1(float x) {
    return _mm512_set1_ps(x);
}
LANES_INLINE lanes lanes_add(lanes a, lanes b) {
    return _mm512_add_ps(a, b);
}
LANES_INLINE lanes lanes_sub(lanes a, lanes b) {
    return _mm512_sub_ps(a, b);
}
LANES_INLINE lanes lanes_mul(lanes a, lanes b) {
    return _mm512_mul_ps(a, b);
}
LANES_INLINE lanes lanes_div(lanes a, lanes b) {
    return _mm512_div_ps(a, b);
}
LANES_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return _mm512_fmadd_ps(a, b, c);
}
LANES_INLINE lanes lanes_fnma(lanes a, lanes b, lanes c) {
    return _mm512_fnmadd_ps(a, b, c);
}
LANES_INLINE lanes lanes_max(lanes a, lanes b) {
    return _mm512_max_ps(a, b);
}
LANES_INLINE lanes lanes_min(lanes a, lanes b) {
    return _mm512_min_ps(a, b);
}
LANES_INLINE lanes lanes_round(lanes a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
LANES_INLINE lanes lanes_scale2(lanes a, lanes n) {
    return _mm512_scalef_ps(a, n);
}

typedef __m512i lanes_codes;
LANES_INLINE lanes_codes lanes_codes_load(const void *p) {
    return _mm512_loadu_si512(p);
}
LANES_INLINE lanes_codes lanes_codes_set1(int32_t x) {
    return _mm512_set1_epi32(x);
}
LANES_INLINE lanes_codes lanes_codes_shr(lanes_codes c, int n) {
    return _mm512_srli_epi32(c, (unsigned)n);
}
LANES_INLINE lanes_codes lanes_codes_shl(lanes_codes c, int n) {
    return _mm512_slli_epi32(c, (unsigned)n);
}
LANES_INLINE lanes_codes lanes_codes_and(lanes_codes a, lanes_codes b) {
    return _mm512_and_si512(a, b);
}
LANES_INLINE lanes_codes lanes_codes_or(lanes_codes a, lanes_codes b) {
    return _mm512_or_si512(a, b);
}
LANES_INLINE lanes_codes lanes_codes_add(lanes_codes a, lanes_codes b) {
    return _mm512_add_epi32(a, b);
}
LANES_INLINE lanes_codes lanes_codes_mul(lanes_codes a, lanes_codes b) {
    return _mm512_mullo_epi32(a, b);
}
LANES_INLINE lanes_codes lanes_codes_u8(const void *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
LANES_INLINE lanes lanes_of_codes(lanes_codes c) {
    return _mm512_cvtepi32_ps(c);
}
LANES_INLINE lanes lanes_of_i8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
LANES_INLINE lanes lanes_gather(const float *base, lanes_codes index) {
    return _mm512_i32gather_ps(index, base, 4);
}
/* Lane l: bits [l * bits, (l + 1) * bits) of a little-endian stream in one 64-bit word. */
LANES_INLINE lanes_codes lanes_codes_spread(uint64_t word, int bits) {
    __m512i counts = _mm512_mullo_epi64(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi64(bits));
    __m512i lo = _mm512_srlv_epi64(_mm512_set1_epi64((long long)word), counts);
    __m512i hi = _mm512_srlv_epi64(_mm512_set1_epi64((long long)(word >> (8 * bits))), counts);
    __m512i both =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32(lo)), _mm512_cvtepi64_epi32(hi), 1);
    return _mm512_and_si512(both, _mm512_set1_epi32((1 << bits) - 1));
}
/* Sixteen values in a register; an index lane picks by its low four bits, whatever stands above them. */
typedef __m512 lanes_table;
LANES_INLINE lanes_table lanes_table_load(const float *p) {
    return _mm512_loadu_ps(p);
}
LANES_INLINE lanes lanes_lookup16(lanes_table t, lanes_codes c) {
    return _mm512_permutexvar_ps(c, t);
}
/* The same where the table repeats after eight. */
LANES_INLINE lanes lanes_lookup8(lanes_table t, lanes_codes c) {
    return _mm512_permutexvar_ps(c, t);
}

#elif defined(LANES_AVX2)
typedef struct {
    __m256 lo, hi;
} lanes;
#define LANES_BOTH(fn, a, b)       ((lanes){fn((a).lo, (b).lo), fn((a).hi, (b).hi)})
LANES_INLINE lanes lanes_set1(float x) {
    return (lanes){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
LANES_INLINE lanes lanes_add(lanes a, lanes b) {
    return LANES_BOTH(_mm256_add_ps, a, b);
}
LANES_INLINE lanes lanes_sub(lanes a, lanes b) {
    return LANES_BOTH(_mm256_sub_ps, a, b);
}
LANES_INLINE lanes lanes_mul(lanes a, lanes b) {
    return LANES_BOTH(_mm256_mul_ps, a, b);
}
LANES_INLINE lanes lanes_div(lanes a, lanes b) {
    return LANES_BOTH(_mm256_div_ps, a, b);
}
LANES_INLINE lanes lanes_max(lanes a, lanes b) {
    return LANES_BOTH(_mm256_max_ps, a, b);
}
LANES_INLINE lanes lanes_min(lanes a, lanes b) {
    return LANES_BOTH(_mm256_min_ps, a, b);
}
LANES_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return (lanes){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
LANES_INLINE lanes lanes_fnma(lanes a, lanes b, lanes c) {
    return (lanes){_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
LANES_INLINE lanes lanes_round(lanes a) {
    return (lanes){_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                   _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/* a * 2^n for whole n in [-252, 252], in two factors so that the ends overflow and underflow as they should.
 */
LANES_INLINE __m256 lanes_half_scale2(__m256 a, __m256 n) {
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256i one = _mm256_set1_epi32(127);
    __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, one), 23);
    __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), one), 23);
    return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
LANES_INLINE lanes lanes_scale2(lanes a, lanes n) {
    return LANES_BOTH(lanes_half_scale2, a, n);
}

typedef struct {
    __m256i lo, hi;
} lanes_codes;
#define LANES_CODES_BOTH(fn, a, b) ((lanes_codes){fn((a).lo, (b).lo), fn((a).hi, (b).hi)})
LANES_INLINE lanes_codes lanes_codes_load(const void *p) {
    const __m256i *v = p;
    return (lanes_codes){_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
}
LANES_INLINE lanes_codes lanes_codes_set1(int32_t x) {
    return (lanes_codes){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
LANES_INLINE lanes_codes lanes_codes_shr(lanes_codes c, int n) {
    return (lanes_codes){_mm256_srli_epi32(c.lo, n), _mm256_srli_epi32(c.hi, n)};
}
LANES_INLINE lanes_codes lanes_codes_shl(lanes_codes c, int n) {
    return (lanes_codes){_mm256_slli_epi32(c.lo, n), _mm256_slli_epi32(c.hi, n)};
}
LANES_INLINE lanes_codes lanes_codes_and(lanes_codes a, lanes_codes b) {
    return LANES_CODES_BOTH(_mm256_and_si256, a, b);
}
LANES_INLINE lanes_codes lanes_codes_or(lanes_codes a, lanes_codes b) {
    return LANES_CODES_BOTH(_mm256_or_si256, a, b);
}
LANES_INLINE lanes_codes lanes_codes_add(lanes_codes a, lanes_codes b) {
    return LANES_CODES_BOTH(_mm256_add_epi32, a, b);
}
LANES_INLINE lanes_codes lanes_codes_mul(lanes_codes a, lanes_codes b) {
    return LANES_CODES_BOTH(_mm256_mullo_epi32, a, b);
}
LANES_INLINE lanes_codes lanes_codes_u8(const void *p) {
    const uint8_t *b = p;
    return (lanes_codes){_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)b)),
                         _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(b + 8)))};
}
LANES_INLINE lanes lanes_of_codes(lanes_codes c) {
    return (lanes){_mm256_cvtepi32_ps(c.lo), _mm256_cvtepi32_ps(c.hi)};
}
LANES_INLINE lanes lanes_of_i8(const void *p) {
    const int8_t *b = p;
    return (lanes){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)b))),
                   _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(b + 8))))};
}
LANES_INLINE lanes lanes_gather(const float *base, lanes_codes index) {
    return (lanes){_mm256_i32gather_ps(base, index.lo, 4), _mm256_i32gather_ps(base, index.hi, 4)};
}
LANES_INLINE lanes_codes lanes_codes_spread(uint64_t word, int bits) {
    uint32_t out[LANES];
    for (int l = 0; l < LANES; l++) out[l] = (uint32_t)(word >> (l * bits)) & ((1u << bits) - 1);
    return lanes_codes_load(out);
}
/* Two tables of eight (a lane index uses its low three bits); bit 3, moved to the sign, picks between them.
 */
typedef struct {
    __m256 lo, hi;
} lanes_table;
LANES_INLINE lanes_table lanes_table_load(const float *p) {
    return (lanes_table){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
LANES_INLINE __m256 lanes_half_lookup16(lanes_table t, __m256i c) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t.lo, c), _mm256_permutevar8x32_ps(t.hi, c),
                            _mm256_castsi256_ps(_mm256_slli_epi32(c, 28)));
}
LANES_INLINE lanes lanes_lookup16(lanes_table t, lanes_codes c) {
    return (lanes){lanes_half_lookup16(t, c.lo), lanes_half_lookup16(t, c.hi)};
}
LANES_INLINE lanes lanes_lookup8(lanes_table t, lanes_codes c) {
    return (lanes){_mm256_permutevar8x32_ps(t.lo, c.lo), _mm256_permutevar8x32_ps(t.lo, c.hi)};
}

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
LANES_INLINE lanes lanes_set1(float x) {
    return x - (lanes){0};
}
LANES_INLINE lanes lanes_add(lanes a, lanes b) {
    return a + b;
}
LANES_INLINE lanes lanes_sub(lanes a, lanes b) {
    return a - b;
}
LANES_INLINE lanes lanes_mul(lanes a, lanes b) {
    return a * b;
}
LANES_INLINE lanes lanes_div(lanes a, lanes b) {
    return a / b;
}
/* Without the instruction a fused operation is a library call, so here it rounds twice. */
LANES_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return a * b + c;
}
LANES_INLINE lanes lanes_fnma(lanes a, lanes b, lanes c) {
    return c - a * b;
}
LANES_INLINE lanes lanes_max(lanes a, lanes b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
LANES_INLINE lanes lanes_min(lanes a, lanes b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] < b[i] ? a[i] : b[i];
    return a;
}
/* Whole numbers have a last place of 1 above 2^23: adding and subtracting 1.5 * 2^23 rounds to nearest even.
 */
LANES_INLINE lanes lanes_round(lanes a) {
    lanes magic = lanes_set1(0x1.8p23f);
    lanes moved = a + magic;
    return moved - magic;
}

typedef uint32_t lanes_codes __attribute__((vector_size(64)));
LANES_INLINE lanes_codes lanes_codes_load(const void *p) {
    lanes_codes v;
    memcpy(&v, p, sizeof v);
    return v;
}
LANES_INLINE lanes_codes lanes_codes_set1(int32_t x) {
    return (lanes_codes){0} + (uint32_t)x;
}
LANES_INLINE lanes_codes lanes_codes_shr(lanes_codes c, int n) {
    return c >> (uint32_t)n;
}
LANES_INLINE lanes_codes lanes_codes_shl(lanes_codes c, int n) {
    return c << (uint32_t)n;
}
LANES_INLINE lanes_codes lanes_codes_and(lanes_codes a, lanes_codes b) {
    return a & b;
}
LANES_INLINE lanes_codes lanes_codes_or(lanes_codes a, lanes_codes b) {
    return a | b;
}
LANES_INLINE lanes_codes lanes_codes_add(lanes_codes a, lanes_codes b) {
    return a + b;
}
LANES_INLINE lanes_codes lanes_codes_mul(lanes_codes a, lanes_codes b) {
    return a * b;
}
LANES_INLINE lanes_codes lanes_codes_u8(const void *p) {
    const uint8_t *b = p;
    lanes_codes v;
    for (int i = 0; i < LANES; i++) v[i] = b[i];
    return v;
}
LANES_INLINE lanes lanes_of_codes(lanes_codes c) {
    lanes v;
    for (int i = 0; i < LANES; i++) v[i] = (float)(int32_t)c[i];
    return v;
}
LANES_INLINE lanes lanes_of_i8(const void *p) {
    const int8_t *b = p;
    lanes v;
    for (int i = 0; i < LANES; i++) v[i] = (float)b[i];
    return v;
}
LANES_INLINE lanes lanes_gather(const float *base, lanes_codes index) {
    lanes v;
    for (int i = 0; i < LANES; i++) v[i] = base[(int32_t)index[i]];
    return v;
}
LANES_INLINE lanes_codes lanes_codes_spread(uint64_t word, int bits) {
    lanes_codes v;
    for (int l = 0; l < LANES; l++) v[l] = (uint32_t)(word >> (l * bits)) & ((1u << bits) - 1);
    return v;
}
LANES_INLINE lanes lanes_scale2(lanes a, lanes n) {
    for (int i = 0; i < LANES; i++) {
        int32_t whole = (int32_t)n[i], half = whole >> 1;
        float first = qb_f32_of_bits((uint32_t)(half + 127) << 23);
        float second = qb_f32_of_bits((uint32_t)(whole - half + 127) << 23);
        a[i] = a[i] * first * second;
    }
    return a;
}
typedef lanes lanes_table;
LANES_INLINE lanes_table lanes_table_load(const float *p) {
    return lanes_load(p);
}
LANES_INLINE lanes lanes_lookup16(lanes_table t, lanes_codes c) {
    lanes v;
    for (int i = 0; i < LANES; i++) v[i] = t[c[i] & 15];
    return v;
}
LANES_INLINE lanes lanes_lookup8(lanes_table t, lanes_codes c) {
    lanes v;
    for (int i = 0; i < LANES; i++) v[i] = t[c[i] & 7];
    return v;
}
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
    float v[LANES];
    lanes_store(v, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) v[i] += v[i + width];
    return v[0];
}
LANES_INLINE float lanes_largest(lanes x) {
    float v[LANES];
    lanes_store(v, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) v[i] = v[i] > v[i + width] ? v[i] : v[i + width];
    return v[0];
}
