/* Sixteen lanes as one AVX-512 register. Included by lanes.h alone. */
#pragma once

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
/* Lanes i and i + 8. */
LANES_INLINE __m256 lanes_add_halves(lanes a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}
/* Lane i: the lanes of v[i] added as lanes_sum adds them, of two, four, eight, sixteen registers at once. */
LANES_INLINE lanes lanes_sums_of_16(const lanes *v) {
    lanes a[8], b[4], c[2];
    UNROLL for (int i = 0; i < 8; i++) a[i] =
        _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),
                      _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
    UNROLL for (int i = 0; i < 4; i++) b[i] =
        _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x88),
                      _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xdd));
    /* b[i]: four lanes each of v[4 i] to v[4 i + 3] */
    UNROLL for (int i = 0; i < 2; i++) {
        __m512d x = _mm512_castps_pd(b[2 * i]), y = _mm512_castps_pd(b[2 * i + 1]);
        c[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    lanes all = _mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xdd));
    /* quarter l has v[l], v[4 + l], v[8 + l], v[12 + l] */
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                 all);
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
LANES_INLINE void lanes_codes_store(void *p, lanes_codes c) {
    _mm512_storeu_si512(p, c);
}
LANES_INLINE lanes_codes lanes_codes_set1(int32_t x) {
    return _mm512_set1_epi32(x);
}
/* Pairs of lanes as 64 bits: the same in each; 48 of each, turned left by 64 - 16 i, 24 in each lane. */
LANES_INLINE lanes_codes lanes_codes_set1_64(uint64_t x) {
    return _mm512_set1_epi64((int64_t)x);
}
LANES_INLINE lanes_codes lanes_codes_words_24(lanes_codes c, const int i) {
    __m128i place = _mm_loadu_si128((const __m128i *)(const void *)lanes_places_24[i]);
    return _mm512_shuffle_epi8(c, _mm512_broadcast_i32x4(place));
}
LANES_INLINE lanes_codes lanes_codes_shr(lanes_codes c, int n) {
    return _mm512_srli_epi32(c, (unsigned)n);
}
LANES_INLINE lanes_codes lanes_codes_shl(lanes_codes c, int n) {
    return _mm512_slli_epi32(c, (unsigned)n);
}
LANES_INLINE lanes_codes lanes_codes_sar(lanes_codes c, int n) {
    return _mm512_srai_epi32(c, (unsigned)n);
}
LANES_INLINE lanes_codes lanes_codes_and(lanes_codes a, lanes_codes b) {
    return _mm512_and_si512(a, b);
}
LANES_INLINE lanes_codes lanes_codes_or(lanes_codes a, lanes_codes b) {
    return _mm512_or_si512(a, b);
}
/* Bits of a where the mask has ones, of b elsewhere. */
LANES_INLINE lanes_codes lanes_codes_pick(lanes_codes mask, lanes_codes a, lanes_codes b) {
    return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}
LANES_INLINE lanes_codes lanes_codes_add(lanes_codes a, lanes_codes b) {
    return _mm512_add_epi32(a, b);
}
LANES_INLINE lanes_codes lanes_codes_sub(lanes_codes a, lanes_codes b) {
    return _mm512_sub_epi32(a, b);
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
/* The low `bits` (2 to 6) of each lane less 2^(bits - 1). Up to four `t` holds these values, repeated; more
   are made the last bits of 2^23, so that nothing is converted. */
LANES_INLINE lanes lanes_centred(lanes_table t, lanes_codes c, const int bits) {
    if (bits <= 4) return _mm512_permutexvar_ps(c, t);
    const lanes_codes number =
        lanes_codes_pick(_mm512_set1_epi32((1 << bits) - 1), c, _mm512_set1_epi32(0x4b000000));
    return _mm512_sub_ps(_mm512_castsi512_ps(number), _mm512_set1_ps((float)((1 << 23) + (1 << (bits - 1)))));
}
