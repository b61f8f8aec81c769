/* Products in whole numbers by aarch64's dot products (FEAT_DotProd's SDOT): signed bytes, four at once.
   Codes of eight bits and codebooks' values lose 128 to become signed; others are small enough. Called only
   on CPUs that have it. */
#include "kernels/cpu/integer.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/tuning.h"

#define INTEGER_TABLE    qb_integer_dotprod
#define INTEGER_NAME     "neon-dotprod"
#define INTEGER_FAST     true
#define INTEGER_SIGNED   1
#define INTEGER_3        1
#define INTEGER_WIDE     1
#define SHAPES(X)        X(2, 1) X(1, 2)
#define SPIN_BLOCKS      1
#define PANEL_BLOCKS_I16 1
#define PANEL_TOKENS_I16 2
#define PANEL_BLOCKS_I8  1
#define PANEL_TOKENS_I8  4

LANES_INLINE uint32x4_t dot_quarter(uint32x4_t s, uint32x4_t codes, int8x16_t word) {
    return vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(s), vreinterpretq_s8_u32(codes), word));
}
LANES_INLINE lanes_codes dot_bytes(lanes_codes s, lanes_codes codes, const int32_t *word) {
    const int8x16_t x = vreinterpretq_s8_s32(vld1q_dup_s32(word));
    return (lanes_codes){dot_quarter(s.a, codes.a, x), dot_quarter(s.b, codes.b, x),
                         dot_quarter(s.c, codes.c, x), dot_quarter(s.d, codes.d, x)};
}

/* clang-format off */
#include "kernels/cpu/groups.inc"
#include "kernels/cpu/k_groups.inc"
#include "kernels/cpu/integer_round.inc"
#include "kernels/cpu/integer_bytes.inc"
/* clang-format on */

typedef uint8x16_t whole_table;
LANES_INLINE whole_table whole_table_load(const uint8_t *table) {
    return veorq_u8(vld1q_u8(table), vdupq_n_u8(0x80));
}
LANES_INLINE uint32x4_t look_up(whole_table table, uint32x4_t c) {
    return vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(c)));
}
LANES_INLINE lanes_codes quads_of_table(whole_table table, lanes_codes c) {
    return (lanes_codes){look_up(table, c.a), look_up(table, c.b), look_up(table, c.c), look_up(table, c.d)};
}

/* Sixteen rows of four bytes from four columns of sixteen. */
LANES_INLINE lanes_codes quads_of_8(const uint8_t *codes) {
    uint8x16_t c0 = vld1q_u8(codes), c1 = vld1q_u8(codes + 16);
    uint8x16_t c2 = vld1q_u8(codes + 32), c3 = vld1q_u8(codes + 48);
    uint16x8_t low01 = vreinterpretq_u16_u8(vzip1q_u8(c0, c1)),
               low23 = vreinterpretq_u16_u8(vzip1q_u8(c2, c3));
    uint16x8_t high01 = vreinterpretq_u16_u8(vzip2q_u8(c0, c1)),
               high23 = vreinterpretq_u16_u8(vzip2q_u8(c2, c3));
    return (lanes_codes){
        vreinterpretq_u32_u16(vzip1q_u16(low01, low23)), vreinterpretq_u32_u16(vzip2q_u16(low01, low23)),
        vreinterpretq_u32_u16(vzip1q_u16(high01, high23)), vreinterpretq_u32_u16(vzip2q_u16(high01, high23))};
}

#include "kernels/cpu/integer.inc"
