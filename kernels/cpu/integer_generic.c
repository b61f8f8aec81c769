/* Products in whole numbers in plain C: what they are defined by. */
#define LANES_GENERIC
#include "kernels/cpu/integer.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/tuning.h"

#define INTEGER_TABLE    qb_integer_generic
#define INTEGER_NAME     "generic"
#define INTEGER_FAST     false
#define INTEGER_WIDE_I16 1
#define SHAPES(X)        X(1, 1, 1)
#define SPIN_BLOCKS      1
#define PANEL_BLOCKS_I16 1
#define PANEL_TOKENS_I16 1
#define PANEL_BLOCKS_I8  1
#define PANEL_TOKENS_I8  1
#define WORDS(eight)     ((eight) ? 2 : 2)

/* clang-format off */
#include "kernels/cpu/groups.inc"
#include "kernels/cpu/k_groups.inc"
#include "kernels/cpu/integer_round.inc"
#include "kernels/cpu/integer_fours.inc"
#include "kernels/cpu/integer_pairs.inc"
#include "kernels/cpu/codes_3.inc"
/* clang-format on */

/* Sixteen rows of four bytes from four columns of sixteen, code - 128 back to code. */
LANES_INLINE lanes_codes quads_of_8(const uint8_t *codes) {
    uint32_t v[LANES];
    for (int l = 0; l < LANES; l++)
        v[l] = (codes[l] | (uint32_t)codes[16 + l] << 8 | (uint32_t)codes[32 + l] << 16 |
                (uint32_t)codes[48 + l] << 24) ^
               0x80808080u;
    return lanes_codes_load(v);
}

typedef const uint8_t *whole_table;
LANES_INLINE whole_table whole_table_load(const uint8_t *table) {
    return table;
}
LANES_INLINE lanes_codes quads_of_table(whole_table table, lanes_codes c) {
    uint8_t v[4 * LANES];
    memcpy(v, &c, sizeof v);
    for (int i = 0; i < 4 * LANES; i++) v[i] = table[v[i]];
    return lanes_codes_load(v);
}

static qb_whole_segment lay_segment(const float *x, int64_t n, bool eight, int words, const uint8_t order[64],
                                    int32_t *to, int64_t stride, qb_whole_part *parts) {
    (void)words;
    int16_t q[QB_SEGMENT_COLS];
    qb_whole_segment s = round_segment(x, n, eight, q);
    if (parts) sum_parts(q, n, parts);
    lay_pairs(q, n, order, to, stride);
    return s;
}

LANES_INLINE whole_sum whole_dot(const bool eight, whole_sum s, lanes_codes c, const int32_t *words) {
    (void)eight;
    int16_t x[4];
    memcpy(x, words, sizeof x);
    lanes_codes byte = lanes_codes_set1(0xff);
    s += (c & byte) * (uint32_t)x[0] + (c >> 16 & byte) * (uint32_t)x[1];
    return s + (c >> 8 & byte) * (uint32_t)x[2] + (c >> 24) * (uint32_t)x[3];
}

LANES_INLINE whole_sum whole_dot_wide(const bool eight, whole_sum s, lanes_codes h, lanes_codes l,
                                      const int32_t *words) {
    if (eight) return whole_dot(eight, s, l, words) + (whole_dot(eight, lanes_codes_set1(0), h, words) << 8);
    int16_t x[4], high[4];
    memcpy(x, words, sizeof x);
    for (int i = 0; i < 4; i++) high[i] = (int16_t)((x[i] - (int8_t)x[i]) / 256);
    int32_t high_words[2];
    memcpy(high_words, high, sizeof high);
    return whole_dot(eight, whole_dot(eight, s, h, words), l, high_words);
}

/* clang-format off */
#include "kernels/cpu/integer_runs.inc"
#include "kernels/cpu/integer.inc"
