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
#define INTEGER_WIDE_I16 1
#define SHAPES(X)        X(2, 2, 1) X(1, 1, 2)
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
#include "kernels/cpu/integer_fours.inc"
#include "kernels/cpu/integer_bytes.inc"
#include "kernels/cpu/codes_neon.inc"
#include "kernels/cpu/integer_runs.inc"
#include "kernels/cpu/integer.inc"
