/* Sixteen lanes as two AVX2 registers, with FMA and F16C. Included by lanes.h alone. */
#pragma once

typedef struct {
    __m256 lo, hi;
} lanes;
#define LANES_BOTH(fn, a, b) ((lanes){fn((a).lo, (b).lo), fn((a).hi, (b).hi)})
LANES_INLINE lanes lanes_set1(float x) {
    return (lanes){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
LANES_INLINE lanes lanes_add(lanes a, lanes b) {
    return LANES_BOTH(_mm256_add_ps, a, b);
}
/* Lanes i and i + 8. */
LANES_INLINE __m256 lanes_add_halves(lanes a) {
    return _mm256_add_ps(a.lo, a.hi);
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
LANES_INLINE void lanes_codes_store(void *p, lanes_codes c) {
    __m256i *v = p;
    _mm256_storeu_si256(v, c.lo);
    _mm256_storeu_si256(v + 1, c.hi);
}
LANES_INLINE lanes_codes lanes_codes_set1(int32_t x) {
    return (lanes_codes){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
/* Pairs of lanes as 64 bits: the same in each; 48 of each, turned left by 64 - 16 i, 24 in each lane. */
LANES_INLINE lanes_codes lanes_codes_set1_64(uint64_t x) {
    __m256i v = _mm256_set1_epi64x((int64_t)x);
    return (lanes_codes){v, v};
}
LANES_INLINE lanes_codes lanes_codes_words_24(lanes_codes c, const int i) {
    __m256i place =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)lanes_places_24[i]));
    return (lanes_codes){_mm256_shuffle_epi8(c.lo, place), _mm256_shuffle_epi8(c.hi, place)};
}
LANES_INLINE lanes_codes lanes_codes_shr(lanes_codes c, int n) {
    return (lanes_codes){_mm256_srli_epi32(c.lo, n), _mm256_srli_epi32(c.hi, n)};
}
LANES_INLINE lanes_codes lanes_codes_shl(lanes_codes c, int n) {
    return (lanes_codes){_mm256_slli_epi32(c.lo, n), _mm256_slli_epi32(c.hi, n)};
}
LANES_INLINE lanes_codes lanes_codes_sar(lanes_codes c, int n) {
    return (lanes_codes){_mm256_srai_epi32(c.lo, n), _mm256_srai_epi32(c.hi, n)};
}
LANES_INLINE lanes_codes lanes_codes_and(lanes_codes a, lanes_codes b) {
    return LANES_CODES_BOTH(_mm256_and_si256, a, b);
}
LANES_INLINE lanes_codes lanes_codes_or(lanes_codes a, lanes_codes b) {
    return LANES_CODES_BOTH(_mm256_or_si256, a, b);
}
LANES_INLINE lanes_codes lanes_codes_pick(lanes_codes mask, lanes_codes a, lanes_codes b) {
    return (lanes_codes){
        _mm256_or_si256(_mm256_and_si256(mask.lo, a.lo), _mm256_andnot_si256(mask.lo, b.lo)),
        _mm256_or_si256(_mm256_and_si256(mask.hi, a.hi), _mm256_andnot_si256(mask.hi, b.hi))};
}
LANES_INLINE lanes_codes lanes_codes_add(lanes_codes a, lanes_codes b) {
    return LANES_CODES_BOTH(_mm256_add_epi32, a, b);
}
LANES_INLINE lanes_codes lanes_codes_sub(lanes_codes a, lanes_codes b) {
    return LANES_CODES_BOTH(_mm256_sub_epi32, a, b);
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
/* Up to three bits one table of eight serves; for more, arithmetic is shorter than two tables. */
LANES_INLINE __m256 lanes_half_centred(lanes_table t, __m256i c, const int bits) {
    if (bits < 4) return _mm256_permutevar8x32_ps(t.lo, c);
    return _mm256_sub_ps(_mm256_cvtepi32_ps(_mm256_and_si256(c, _mm256_set1_epi32((1 << bits) - 1))),
                         _mm256_set1_ps((float)(1 << (bits - 1))));
}
LANES_INLINE lanes lanes_centred(lanes_table t, lanes_codes c, const int bits) {
    return (lanes){lanes_half_centred(t, c.lo, bits), lanes_half_centred(t, c.hi, bits)};
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
