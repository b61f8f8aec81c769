/* Products in whole numbers by AVX2's 16-bit multiply-add of pairs; called only on CPUs that have it. */
#include "kernels/cpu/integer.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/tuning.h"

#define INTEGER_TABLE    qb_integer_avx2
#define INTEGER_NAME     "avx2"
#define INTEGER_FAST     true
#define INTEGER_3        0 /* float32 products were measured a sixth faster */
#define INTEGER_WIDE     0 /* pairs have no higher bytes */
#define SHAPES(X)        X(2, 1) X(2, 2) X(1, 4)
#define SPIN_BLOCKS      2
#define PANEL_BLOCKS_I16 1
#define PANEL_TOKENS_I16 4
#define PANEL_BLOCKS_I8  1
#define PANEL_TOKENS_I8  4

/* clang-format off */
#include "kernels/cpu/groups.inc"
#include "kernels/cpu/k_groups.inc"
#include "kernels/cpu/integer_round.inc"
#include "kernels/cpu/integer_pairs.inc"
/* clang-format on */

typedef __m256i whole_table;
LANES_INLINE whole_table whole_table_load(const uint8_t *table) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table));
}
LANES_INLINE lanes_codes quads_of_table(whole_table table, lanes_codes c) {
    return (lanes_codes){_mm256_shuffle_epi8(table, c.lo), _mm256_shuffle_epi8(table, c.hi)};
}

/* Sixteen rows of four bytes from four columns of sixteen, code - 128 back to code. */
LANES_INLINE lanes_codes quads_of_8(const uint8_t *codes) {
    const __m128i *column = (const __m128i *)codes;
    __m128i c0 = _mm_loadu_si128(column), c1 = _mm_loadu_si128(column + 1);
    __m128i c2 = _mm_loadu_si128(column + 2), c3 = _mm_loadu_si128(column + 3);
    __m128i low01 = _mm_unpacklo_epi8(c0, c1), high01 = _mm_unpackhi_epi8(c0, c1);
    __m128i low23 = _mm_unpacklo_epi8(c2, c3), high23 = _mm_unpackhi_epi8(c2, c3);
    __m256i flip = _mm256_set1_epi8((char)0x80);
    __m256i lo = _mm256_set_m128i(_mm_unpackhi_epi16(low01, low23), _mm_unpacklo_epi16(low01, low23));
    __m256i hi = _mm256_set_m128i(_mm_unpackhi_epi16(high01, high23), _mm_unpacklo_epi16(high01, high23));
    return (lanes_codes){_mm256_xor_si256(lo, flip), _mm256_xor_si256(hi, flip)};
}

LANES_INLINE __m256i dot_half(__m256i s, __m256i c, __m256i even, __m256i odd) {
    s = _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_and_si256(c, _mm256_set1_epi16(0xff)), even));
    return _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_srli_epi16(c, 8), odd));
}
LANES_INLINE whole_sum whole_dot(const bool eight, whole_sum s, lanes_codes c, const int32_t *words) {
    (void)eight;
    __m256i even = _mm256_set1_epi32(words[0]), odd = _mm256_set1_epi32(words[1]);
    return (whole_sum){dot_half(s.lo, c.lo, even, odd), dot_half(s.hi, c.hi, even, odd)};
}

LANES_INLINE whole_sum whole_dot_wide(const bool eight, whole_sum s, lanes_codes h, lanes_codes l,
                                      const int32_t *words) {
    (void)eight, (void)h, (void)l, (void)words;
    return s;
}

#include "kernels/cpu/integer.inc"
