/* Products of many tokens by aarch64's matrix products (FEAT_I8MM's SMMLA): two rows of eight signed bytes
   with two tokens' eight. One token, small tiles and K types are the set's that this one is made from,
   neon-dotprod. Called only on CPUs that have it; no such machine was at hand, tests run under an emulator.
 */
#include "kernels/cpu/i8mm.h"
#include "kernels/cpu/lanes.h"

#define INTEGER_SIGNED 1
#define PANEL_DEPTH    2
#define WORDS(eight)   ((eight) ? 1 : 2)

/* clang-format off */
#include "kernels/cpu/groups.inc"
#include "kernels/cpu/codes_neon.inc"
#include "kernels/cpu/integer_codes.inc"
#include "kernels/cpu/integer_lay.inc"
/* clang-format on */

/* Sixteen rows, two a register: their codes of two quads, and their sums with two tokens. */
typedef struct {
    int8x16_t rows[8];
} pair_codes;
typedef struct {
    int32x4_t rows[8];
} pair_sum;

LANES_INLINE pair_sum pair_zero(void) {
    pair_sum s;
    UNROLL for (int i = 0; i < 8; i++) s.rows[i] = vdupq_n_s32(0);
    return s;
}
LANES_INLINE pair_codes pair_load(const uint8_t *first, const uint8_t *second) {
    pair_codes c;
    UNROLL for (int i = 0; i < 4; i++) {
        uint32x4_t x = vreinterpretq_u32_u8(vld1q_u8(first + 16 * i)),
                   y = vreinterpretq_u32_u8(vld1q_u8(second + 16 * i));
        c.rows[2 * i] = vreinterpretq_s8_u32(vzip1q_u32(x, y));
        c.rows[2 * i + 1] = vreinterpretq_s8_u32(vzip2q_u32(x, y));
    }
    return c;
}
/* words: two tokens' two quads. */
LANES_INLINE pair_sum pair_dot(pair_sum s, pair_codes c, const int32_t *words) {
    const int8x16_t x = vreinterpretq_s8_s32(vld1q_s32(words));
    UNROLL for (int i = 0; i < 8; i++) s.rows[i] = vmmlaq_s32(s.rows[i], c.rows[i], x);
    return s;
}
/* Those of the first token or the second. */
LANES_INLINE lanes_codes pair_of(pair_sum s, const int token) {
    uint32x4_t of[4];
    UNROLL for (int i = 0; i < 4; i++) {
        int32x4_t x = s.rows[2 * i], y = s.rows[2 * i + 1];
        of[i] = vreinterpretq_u32_s32(token ? vuzp2q_s32(x, y) : vuzp1q_s32(x, y));
    }
    return (lanes_codes){of[0], of[1], of[2], of[3]};
}

enum { PAIRS_MAX = 2 };

/* A chunk of one block with one tile of tokens: total[token]. */
LANES_INLINE void multiply_chunk(const bool eight, const int most, const int RB, const int TT,
                                 const qb_packed *p, const panel_chunk *chunk, const uint8_t *codes,
                                 const qb_whole_tile *x, lanes *total) {
    const bool wide = most == PANEL_MOST_WIDE;
    const int code_parts = wide ? 2 : 1, pairs = TT / 2;
    const bool own_zeros = p->zeros && p->bits == 8, shifted = p->offsets;
    const int64_t quad_bytes = 64 * code_parts * RB, high = TT * PANEL_DEPTH;
    const int32_t *quads = x->quads;
    for (int64_t s = 0; s < chunk->segments; s++) {
        pair_sum low_sum[PAIRS_MAX], high_sum[PAIRS_MAX];
        UNROLL for (int i = 0; i < pairs; i++) low_sum[i] = high_sum[i] = pair_zero();
        for (int64_t q = 0; q < chunk->quads[s]; q += PANEL_DEPTH, quads += high * WORDS(eight)) {
            const uint8_t *from = codes + q * quad_bytes;
            const pair_codes c = pair_load(from, from + quad_bytes);
            UNROLL for (int i = 0; i < pairs; i++) {
                low_sum[i] = pair_dot(low_sum[i], c, quads + 4 * i);
                if (!eight) high_sum[i] = pair_dot(high_sum[i], c, quads + high + 4 * i);
            }
            if (!wide) continue;
            /* lower bytes of values; with lower ones of activations they are left out */
            const pair_codes l = pair_load(from + 64, from + 64 + quad_bytes);
            UNROLL for (int i = 0; i < pairs; i++) low_sum[i] = pair_dot(low_sum[i], l, quads + high + 4 * i);
        }
        codes += quad_bytes * chunk->quads[s];
        const int32_t *starts = x->starts + (chunk->first + s) * TT,
                      *of_q = x->sums + (chunk->first + s) * TT;
        const float *scales = x->scales + (chunk->first + s) * TT;
        UNROLL for (int t = 0; t < TT; t++) {
            lanes_codes sum = pair_of(low_sum[t / 2], t % 2), start = lanes_codes_set1(starts[t]);
            if (!eight) sum = lanes_codes_add(sum, lanes_codes_shl(pair_of(high_sum[t / 2], t % 2), 8));
            if (own_zeros) start = lanes_codes_mul(chunk->zero[s][0], start);
            total[t] = lanes_fma(lanes_mul(chunk->scale[s][0], lanes_set1(scales[t])),
                                 lanes_of_codes(lanes_codes_add(sum, start)), total[t]);
            if (shifted)
                total[t] = lanes_fma(chunk->shift[s][0], lanes_set1(scales[t] * (float)of_q[t]), total[t]);
        }
    }
}

#include "kernels/cpu/integer_pass.inc"
/* Sums of 16-bit activations with two tokens take sixteen registers, of 8-bit ones with four. */
enum { TOKENS_I16 = 2, TOKENS_I8 = 4 };
DEFINE_PANEL(narrow_i16, false, PANEL_MOST_BYTES, 1, TOKENS_I16)
DEFINE_PANEL(narrow_i8, true, PANEL_MOST_BYTES, 1, TOKENS_I8)
DEFINE_PANEL(wide_i16, false, PANEL_MOST_WIDE, 1, TOKENS_I16)

/* qb_integer's: sixteen rows of two quads with four tokens, twice in bytes for 16-bit activations. */
enum { SPIN_PRODUCTS = QB_BLOCK_ROWS * 4 * PANEL_DEPTH * 4 };
static uint32_t spin(int64_t times, const uint8_t *codes, const int32_t *words) {
    const pair_codes c = pair_load(codes, codes + 64);
    pair_sum sum[2] = {pair_zero(), pair_zero()};
    for (int64_t i = 0; i < times; i++)
        UNROLL for (int k = 0; k < 2; k++) sum[k] = pair_dot(sum[k], c, words + 4 * k);
    uint32_t all = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t rows[LANES];
        lanes_codes_store(rows, pair_of(sum[k / 2], k % 2));
        for (int l = 0; l < LANES; l++) all |= rows[l];
    }
    return all;
}
static uint32_t spin_i16(int64_t rounds, const uint8_t *codes, const int32_t *words) {
    return spin(2 * rounds, codes, words);
}
static uint32_t spin_i8(int64_t rounds, const uint8_t *codes, const int32_t *words) {
    return spin(rounds, codes, words);
}

static qb_integer_panel panel_of(int tokens, bool eight, qb_panel_fn fn) {
    return (qb_integer_panel){
        .blocks = 1, .tokens = tokens, .words = WORDS(eight), .depth = PANEL_DEPTH, .fn = fn};
}

void qb_i8mm(const qb_integer *dotprod, qb_integer *out) {
    static const int narrow[] = {QB_PACK_2, QB_PACK_3, QB_PACK_4, QB_PACK_8, QB_PACK_CODEBOOK};
    *out = *dotprod;
    out->name = "neon-i8mm";
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) {
        out->panel_i16[narrow[i]] = panel_of(TOKENS_I16, false, narrow_i16);
        out->panel_i8[narrow[i]] = panel_of(TOKENS_I8, true, narrow_i8);
    }
    out->panel_i16[QB_WHOLE_WIDE] = panel_of(TOKENS_I16, false, wide_i16);
    out->spin_products = SPIN_PRODUCTS;
    out->spin_i16 = spin_i16;
    out->spin_i8 = spin_i8;
}
