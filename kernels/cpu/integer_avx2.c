/* Products in whole numbers by AVX2: 16-bit activations by the multiply-add of pairs, 8-bit ones by that of
   bytes (vpmaddubsw: unsigned codes times signed activations, two products to a 16-bit sum that saturates,
   which the sums here never reach). Called only on CPUs that have it. */
#include "kernels/cpu/integer.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/tuning.h"

#define INTEGER_TABLE qb_integer_avx2
#define INTEGER_NAME  "avx2"
#define INTEGER_FAST  true
/* 16-bit activations meet both bytes of a value apart, twice the products: float32 ones were measured 1.2 to
   1.5 times as fast from four tokens on, 0.8 to 0.9 times with fewer (Zen 4). */
#define INTEGER_WIDE_I16 0
/* One block, one stream of memory: two at once were measured 10 to 30 % slower with few tokens (Zen 4). */
#define SHAPES(X)        X(1, 1, 1) X(1, 1, 2) X(1, 1, 4)
#define SPIN_BLOCKS      1
#define PANEL_BLOCKS_I16 1
#define PANEL_TOKENS_I16 4
#define PANEL_BLOCKS_I8  1
#define PANEL_TOKENS_I8  4
#define WORDS(eight)     ((eight) ? 1 : 2)
/* Codes of eight bits and codebooks' values with many 8-bit activations are pairs too: with their signs moved
   (dot_any) they were measured 15 % slower there (Zen 4), and faster with up to four tokens, codes of eight
   bits by 8 to 19 % and IQ4_NL by 0 to 6 %. */
#define PANEL_WORDS(eight, most) ((most) == PANEL_MOST_SMALL ? WORDS(eight) : 2)
/* Values of two bytes are numbers of 16 bits, in pairs: those of even columns, and of odd ones. */
#define WIDE_WORDS(eight)     ((eight) ? 2 : 2)
#define WIDE_HIGH(table)      _mm256_xor_si256(table, _mm256_set1_epi8(INT8_MIN))
#define WIDE_CODES(high, low) wide_pairs(high, low)
#define WIDE_BIAS             32768
#define WIDE_PANEL_I8         1
#define SHORT_GROUPS(eight)   (eight)

/* clang-format off */
#include "kernels/cpu/groups.inc"
#include "kernels/cpu/k_groups.inc"
#include "kernels/cpu/integer_round.inc"
#include "kernels/cpu/integer_pairs.inc"
#include "kernels/cpu/codes_avx2.inc"
/* clang-format on */

/* As intrinsics GCC 12 adds up products first, and runs out of registers. */
LANES_INLINE __m256i add_32(__m256i s, __m256i products) {
    __asm__("vpaddd %1, %0, %0" : "+x"(s) : "x"(products));
    return s;
}
LANES_INLINE __m256i add_16(__m256i s, __m256i products) {
    __asm__("vpaddw %1, %0, %0" : "+x"(s) : "x"(products));
    return s;
}

static qb_whole_segment lay_segment(const float *x, int64_t n, bool eight, int words, const uint8_t order[64],
                                    int32_t *to, int64_t stride, qb_whole_part *parts) {
    int16_t q[QB_SEGMENT_COLS];
    qb_whole_segment s = round_segment(x, n, eight, q);
    if (parts) sum_parts(q, n, parts);
    if (words == 1)
        lay_bytes(q, n, eight, order, to, stride);
    else
        lay_pairs(q, n, order, to, stride);
    return s;
}

/* ---- pairs ---- */

/* Bytes 0 and 2 of a word, 1 and 3, as numbers of 16 bits. */
LANES_INLINE __m256i even_bytes(__m256i c) {
    return _mm256_and_si256(c, _mm256_set1_epi16(0xff));
}
LANES_INLINE __m256i odd_bytes(__m256i c) {
    return _mm256_srli_epi16(c, 8);
}
LANES_INLINE __m256i even_signed(__m256i c) {
    return _mm256_srai_epi16(_mm256_slli_epi16(c, 8), 8);
}
LANES_INLINE __m256i odd_signed(__m256i c) {
    return _mm256_srai_epi16(c, 8);
}

LANES_INLINE __m256i dot_pairs(__m256i s, __m256i even, __m256i odd, const int32_t *words) {
    return add_32(s, _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_set1_epi32(words[0])),
                                      _mm256_madd_epi16(odd, _mm256_set1_epi32(words[1]))));
}
LANES_INLINE whole_sum whole_dot(const bool eight, whole_sum s, lanes_codes c, const int32_t *words) {
    (void)eight;
    return (whole_sum){dot_pairs(s.lo, even_bytes(c.lo), odd_bytes(c.lo), words),
                       dot_pairs(s.hi, even_bytes(c.hi), odd_bytes(c.hi), words)};
}

/* Bytes of values to values: even columns' where the high ones were, odd ones' where the low ones were. */
LANES_INLINE void wide_pairs(lanes_codes *high, lanes_codes *low) {
    const __m256i odd = _mm256_set1_epi16((int16_t)0xff00);
    const lanes_codes h = *high, l = *low;
    high->lo = _mm256_or_si256(_mm256_slli_epi16(h.lo, 8), even_bytes(l.lo));
    high->hi = _mm256_or_si256(_mm256_slli_epi16(h.hi, 8), even_bytes(l.hi));
    low->lo = _mm256_or_si256(_mm256_and_si256(h.lo, odd), odd_bytes(l.lo));
    low->hi = _mm256_or_si256(_mm256_and_si256(h.hi, odd), odd_bytes(l.hi));
}
LANES_INLINE whole_sum whole_dot_wide(const bool eight, whole_sum s, lanes_codes even, lanes_codes odd,
                                      const int32_t *words) {
    (void)eight;
    return (whole_sum){dot_pairs(s.lo, even.lo, odd.lo, words), dot_pairs(s.hi, even.hi, odd.hi, words)};
}

/* ---- runs: sums of 16 bits ---- */

/* As many quads of codes as stay within them, two products a quad, whatever the activations; 0: not even one.
 */
LANES_INLINE int short_quads(const int most) {
    return INT16_MAX / (2 * 127 * most);
}
LANES_INLINE int run_quads(const bool eight, const int most) {
    return eight && short_quads(most) ? short_quads(most) : 1;
}
/* Codes of any byte, of few tokens: those less 128 without their sign, with activations that take the sign
   (128 x 127 x 2 is within 16 bits). */
LANES_INLINE int run_bias(const bool eight, const int most) {
    return eight && !short_quads(most) ? 128 : 0;
}
LANES_INLINE __m256i dot_any(__m256i s, __m256i c, __m256i x) {
    c = _mm256_xor_si256(c, _mm256_set1_epi8(INT8_MIN));
    __m256i two = _mm256_maddubs_epi16(_mm256_abs_epi8(c), _mm256_sign_epi8(x, c));
    return add_32(s, _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
}
LANES_INLINE whole_sum run_first(const bool eight, const int most, whole_sum s, lanes_codes c,
                                 const int32_t *words) {
    if (!eight) return whole_dot(eight, s, c, words);
    const __m256i x = _mm256_set1_epi32(words[0]);
    if (!short_quads(most)) return (whole_sum){dot_any(s.lo, c.lo, x), dot_any(s.hi, c.hi, x)};
    return (whole_sum){_mm256_maddubs_epi16(c.lo, x), _mm256_maddubs_epi16(c.hi, x)};
}
LANES_INLINE whole_sum run_dot(const bool eight, const int most, whole_sum run, lanes_codes c,
                               const int32_t *words) {
    whole_sum more = run_first(eight, most, run, c, words);
    if (!eight || !short_quads(most)) return more;
    return (whole_sum){add_16(run.lo, more.lo), add_16(run.hi, more.hi)};
}
LANES_INLINE whole_sum run_end(const bool eight, const int most, whole_sum s, whole_sum run) {
    if (!eight || !short_quads(most)) return run;
    const __m256i ones = _mm256_set1_epi16(1);
    return (whole_sum){add_32(s.lo, _mm256_madd_epi16(run.lo, ones)),
                       add_32(s.hi, _mm256_madd_epi16(run.hi, ones))};
}

/* Groups of K types: a run's sums are scaled where they become 32 bits, by the scale twice. */
LANES_INLINE lanes_codes k_run_scale(const qb_pack_kind kind, const bool eight, lanes_codes four,
                                     const int i) {
    if (!eight) return k_scale_of(kind, four, i);
    const char n = -1, a = (char)i, b = (char)(4 + i), c = (char)(8 + i), d = (char)(12 + i);
    const __m256i twice = _mm256_setr_epi8(n, a, n, a, n, b, n, b, n, c, n, c, n, d, n, d, n, a, n, a, n, b,
                                           n, b, n, c, n, c, n, d, n, d);
    return (lanes_codes){odd_signed(_mm256_shuffle_epi8(four.lo, twice)),
                         odd_signed(_mm256_shuffle_epi8(four.hi, twice))};
}
LANES_INLINE k_sum k_run_add(const bool eight, k_sum s, lanes_codes scale, whole_sum run) {
    if (!eight) return k_sum_add(eight, s, scale, run);
    s.low.lo = add_32(s.low.lo, _mm256_madd_epi16(run.lo, scale.lo));
    s.low.hi = add_32(s.low.hi, _mm256_madd_epi16(run.hi, scale.hi));
    return s;
}

/* Sums of q, of four groups, in two parts: s = 2^15 high + low, 16 bits either; of 8-bit activations the low
   one alone. */
static void lay_sums(const int32_t sums[4], int32_t words[QB_K_SUM_WORDS]) {
    int16_t low[4], high[4];
    for (int i = 0; i < 4; i++) {
        high[i] = (int16_t)((sums[i] + (1 << 14)) >> 15);
        low[i] = (int16_t)(sums[i] - high[i] * (1 << 15));
    }
    const int16_t pairs[2 * QB_K_SUM_WORDS] = {low[0],  low[2],  low[1],  low[3],
                                               high[0], high[2], high[1], high[3]};
    memcpy(words, pairs, sizeof pairs);
}
typedef struct {
    lanes_codes low, high;
} k_fours;
LANES_INLINE k_fours k_fours_zero(void) {
    return (k_fours){lanes_codes_set1(0), lanes_codes_set1(0)};
}
LANES_INLINE k_fours k_fours_dot(const bool eight, k_fours m, lanes_codes offsets, const int32_t *words) {
    m.low = whole_dot(eight, m.low, offsets, words);
    if (!eight) m.high = whole_dot(eight, m.high, offsets, words + 2);
    return m;
}
LANES_INLINE lanes_codes k_fours_of(const bool eight, k_fours m) {
    return eight ? m.low : lanes_codes_add(m.low, lanes_codes_shl(m.high, 15));
}
/* What the codes' middle takes off short groups: it times their scales times their sums of q. */
LANES_INLINE k_sum k_short_starts(const qb_pack_kind kind, const uint8_t *super, const int32_t *beside,
                                  const int64_t stride, k_sum s) {
    const int shift = qb_k_low_bits(kind) + qb_k_high_bits(kind) - 1;
    lanes_codes all = lanes_codes_set1(0);
    UNROLL for (int four = 0; four < qb_k_groups(kind) / 4; four++) {
        const lanes_codes scales = k_four_scales(kind, super, four);
        const int32_t *words = beside + four * stride;
        all.lo = dot_pairs(all.lo, even_signed(scales.lo), odd_signed(scales.lo), words);
        all.hi = dot_pairs(all.hi, even_signed(scales.hi), odd_signed(scales.hi), words);
    }
    s.low = lanes_codes_sub(s.low, lanes_codes_shl(all, shift));
    return s;
}

#include "kernels/cpu/integer.inc"
