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
#include "kernels/cpu/codes_avx2.inc"
/* clang-format on */

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
