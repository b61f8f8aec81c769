/* Products with packed codes in whole numbers: activations become 16-bit or 8-bit fixed point, one scale a
   token and segment, and a segment's sum of code x activation is exact. A segment is a group of columns, or
   256 of them where a group is wider: (255 + 1) x 32512 x 256 stays within 32 bits, and where a sum passes
   them on the way it comes back, for the arithmetic is modulo 2^32.

       q = rint(x / s), s = max |x| / 32512 (i16) or / 127 (i8)
       y = sum over segments of scale * s * float(sum of (code - zero) q)  [+ (offset + scale * middle) s sum
   of q]

   A codebook of small whole numbers (IQ4_NL, E2M1) has these in place of code - zero. Of others (NF4, FP4) a
   value is unit * t, t = 256 th + tl of at most 32512, both parts within a signed byte, and q = 256 qh + ql
   likewise:

       i16: y = sum of scale * (256 unit s) * float(sum of th q + tl qh)     (tl ql, below 2^-16 of the
            largest product, is left out)
       i8:  y = sum of scale * (unit s) * float(sum of t q)

   GGUF's K types (k_layout.h), w = D k (code - middle) or D k code + M m, have a segment of their 256
   columns; k, m are whole numbers of a group of 16 or 32 columns, D, M of all of them:

       y = sum over segments of (D s) * float(sum of k (code - middle) q)  [+ (M s) * float(sum of m q)]

   Here |k| is at most 128 and m 255, so the sums of products of 8-bit activations and that of m q stay within
   32 bits (255 x 32512 x 256); of 16-bit ones the sum is 256 high + low with low within a byte, high within
   32 bits (128 x 32 x 32512 x 256 / 256), and float(sum) is 256 float(high) + float(low). On the way q's
   halves, or a group's sum's, are scaled and added apart, each within 32 bits (128 x 128 x 128 x 256 of the
   former).

   The sums in whole numbers are the same for every instruction set; kernels/cpu/integer_generic.c defines
   them. */
#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/k_layout.h"

#include <math.h>
#include <string.h>

enum { QB_SEGMENT_COLS = 256, QB_WORDS_MAX = 2 };

/* Where the columns of a step go: quads of four columns, one for each 32-bit word of a row's codes that a
   product takes. */
enum { QB_QUADS_MAX = 8 };
typedef struct qb_quad_order {
    int quads;
    int8_t column[QB_QUADS_MAX][4];
} qb_quad_order;
/* How codes are multiplied: their kind, but for codebooks whose values take two bytes. */
enum { QB_WHOLE_WIDE = QB_PACK_COUNT, QB_WHOLE_COUNT };
static inline int qb_whole_form(const qb_packed *p) {
    return p->kind == QB_PACK_CODEBOOK && p->wide ? QB_WHOLE_WIDE : (int)p->kind;
}

/* Whole `depth` quads. */
static inline int64_t qb_whole_quads(int64_t quads, int64_t depth) {
    return (quads + depth - 1) / depth * depth;
}
/* Segments of a row, and its quads where each segment's are padded to whole `depth`. */
typedef struct qb_whole_size {
    int64_t segments, quads;
} qb_whole_size;
static inline qb_whole_size qb_whole_size_of(const qb_packed *p, int64_t depth) {
    qb_whole_size size = {0, 0};
    if (qb_is_k(p->kind)) {
        size.segments = p->cols / QB_K_COLS;
        size.quads = size.segments * qb_whole_quads(QB_K_COLS / 4, depth);
        return size;
    }
    for (int64_t g = 0, k = 0; g < p->n_groups; g++)
        for (int64_t n; k < p->group_end[g]; k += n, size.segments++) {
            n = p->group_end[g] - k;
            if (n > QB_SEGMENT_COLS) n = QB_SEGMENT_COLS;
            size.quads += qb_whole_quads(n / 4, depth);
        }
    return size;
}

extern const qb_quad_order
    qb_quad_orders[QB_PACK_COUNT]; /* quads 0 where there is no product in whole numbers */

/* Activations of a tile of tokens. quads[quad][token of the tile][words]: `words` 32-bit words hold four
   activations, as the instruction set wants them. */
typedef struct qb_whole_tile {
    const int32_t *quads;
    const float *scales; /* [segment][token of the tile] */
    const int32_t *sums; /* [segment][token of the tile] of q */
    /* [segment][token of the tile]: - zero times that, which sums start with; without `zero` where each row
     * has its own, but panels take a row's from its codes and 2^bits stands here (8 bits have no room for
     * it). K types: what codes that are multiplied with their scales have too much, times the sums; a 256th
     * of that where they are two bytes */
    const int32_t *starts;
    /* K types, [segment][..][token of the tile][..]: sums of q of four groups as `lay_sums` has them, for
     * each four (of types with offsets, and qb_integer's short_groups_i8); else what the sums of a group
     * start with, low and high ones */
    const int32_t *beside;
} qb_whole_tile;
/* What is added to (code - middle) times scale that it be no less than 0: K3's, which then is a byte, and the
   others', two bytes. */
enum { QB_K3_BIAS = 124, QB_K_PAIR_BIAS = 4096, QB_K_SUM_WORDS = 4, QB_K_START_WORDS = 2 };
static inline int qb_k_beside_words(qb_pack_kind kind, bool starts) { /* a token and segment */
    if (!qb_is_k(kind)) return 0;
    return starts ? qb_k_groups(kind) * QB_K_START_WORDS : qb_k_groups(kind) / 4 * QB_K_SUM_WORDS;
}

typedef void (*qb_integer_fn)(const qb_packed *p, int64_t begin, int64_t end, const qb_whole_tile *x,
                              int64_t tokens, float *y, int64_t ldy);
typedef struct qb_integer_shape {
    int tokens;
    qb_integer_fn i16[QB_WHOLE_COUNT], i8[QB_WHOLE_COUNT]; /* by qb_whole_form */
} qb_integer_shape;

/* Many tokens: the codes of some blocks of rows are laid out as bytes, up to QB_PANEL_COLS columns of them,
   and meet all tokens of a pass before the next columns do. So what a code takes to unpack, and a group's
   scales, are paid once a pass and not once a tile of tokens. Results are those of the tiles above, to the
   bit. */
enum { QB_PANEL_COLS = 256, QB_PANEL_SEGMENTS = 16, QB_PASS_TOKENS = 256 };
/* x: the first of the pass's tiles, all of the panel's tokens; room[blocks * 16 * QB_PASS_TOKENS], 64-byte
 * aligned. */
typedef void (*qb_panel_fn)(const qb_packed *p, int64_t begin, int64_t end, const qb_whole_tile *x,
                            int64_t tokens, float *room, float *y, int64_t ldy);
typedef struct qb_integer_panel {
    int blocks, tokens; /* of a tile in registers; tokens divides QB_PASS_TOKENS */
    int words;          /* a quad's */
    /* Quads that a product takes at once. 1: activations lie as qb_whole_tile says. More: a segment's are
       padded with zeros to whole `depth`, and lie as quads[quad / depth][words][token of the tile][depth]. */
    int depth;
    qb_panel_fn fn; /* NULL: none */
    /* Fewer tokens of a pass, and segments of fewer columns, are served faster by the panel of `few`. */
    int64_t least_tokens, least_cols;
} qb_integer_panel;

/* A round multiplies some registers of codes, each sixteen rows of a quad of columns, with two tokens. */
enum { QB_SPIN_BLOCKS_MAX = 4, QB_SPIN_TOKENS = 2, QB_SPIN_STEPS = 8, QB_SPIN_MOST = 15 };
enum { QB_SPIN_BYTES = 64 * QB_SPIN_BLOCKS_MAX * QB_SPIN_STEPS };
enum { QB_SPIN_WORDS = 2 * QB_SPIN_TOKENS * QB_SPIN_STEPS };

/* Sums over sixteen columns of a segment. */
typedef struct qb_whole_part {
    int32_t sum, high_sum;
} qb_whole_part;
/* A segment of one token, rounded. */
typedef struct qb_whole_segment {
    float scale;
    int32_t sum, high_sum; /* of q; of (q - its lower byte) / 256 */
} qb_whole_segment;
/* The scale of activations of which the largest, without its sign, has these bits, and 1 / scale. A segment
   below 2^-100 counts as zero, for its reciprocal would overflow; one that is not finite makes its results
   NaN, which the model's ends report. Where the inverse is 0 every q is. */
static inline float qb_whole_scale(uint32_t most, bool eight, float *inverse) {
    float largest, limit = eight ? 127.0f : 32512.0f;
    memcpy(&largest, &most, 4);
    bool usable = largest >= 0x1p-100f && most < 0x7f800000;
    *inverse = usable ? limit / largest : 0.0f;
    return usable ? largest / limit : most < 0x7f800000 ? 0.0f : NAN;
}

typedef struct qb_integer {
    const char *name;
    bool fast; /* than the same set's float32 products */
    /* Codes and values of eight bits count from -128 on here, which zero points and sums' starts follow. */
    bool signed_bytes;
    int words_i16[QB_WHOLE_COUNT], words_i8[QB_WHOLE_COUNT]; /* a quad's in tiles; at most QB_WORDS_MAX */
    /* K types without offsets have no starts beside 8-bit activations, but the sums of q as those with
       offsets: sums of a group are too short for a start. */
    bool short_groups_i8;
    const qb_integer_shape *shapes; /* ascending by tokens */
    int n_shapes;
    qb_integer_panel panel_i16[QB_WHOLE_COUNT], panel_i8[QB_WHOLE_COUNT]; /* by qb_whole_form */
    const struct qb_integer *few; /* whose panels take what these leave; NULL: none */
    /* A segment's n columns, at most QB_SEGMENT_COLS and whole steps, each quad to `words` words, `stride`
       apart; order: where each of the next 64 columns of the quads comes from; parts[n / 16], or NULL. */
    qb_whole_segment (*lay_segment)(const float *x, int64_t n, bool eight, int words, const uint8_t order[64],
                                    int32_t *to, int64_t stride, qb_whole_part *parts);
    /* The same q as float32, and their scale; sum: of q, or NULL. */
    float (*round)(const float *x, int64_t n, bool eight, float *q, int32_t *sum);
    /* Sums of q of four groups, below 2^23, as k_fours_dot takes them. */
    void (*lay_sums)(const int32_t sums[4], int32_t words[QB_K_SUM_WORDS]);
    /* Nothing but products, to see how many there can be: codes[QB_SPIN_BYTES], QB_SPIN_MOST at most, with
       words[QB_SPIN_WORDS], so many rounds of `spin_products`, whole QB_SPIN_STEPS; returns what must not be
       optimised away. */
    int spin_products;
    uint32_t (*spin_i16)(int64_t rounds, const uint8_t *codes, const int32_t *words);
    uint32_t (*spin_i8)(int64_t rounds, const uint8_t *codes, const int32_t *words);
} qb_integer;

extern const qb_integer qb_integer_generic;
#if defined(__x86_64__)
extern const qb_integer qb_integer_avx2, qb_integer_avx_vnni, qb_integer_vnni;
#elif defined(__aarch64__)
extern const qb_integer qb_integer_dotprod;
#endif

/* integer_sets.c */
/* The sets that this CPU and this build have, from the plainest to the best; NULL behind the last. */
const qb_integer *qb_integer_at(int index);
/* The loops of simd.h that the set of this name goes with; NULL where there is none of that name. */
struct qb_simd;
const struct qb_simd *qb_integer_simd(const char *name);
/* That which $BENCH_SIMD names, or the best that goes with the loops of simd.h that are chosen. */
const qb_integer *qb_integer_chosen(void);
/* With which activations p's codes have products in whole numbers in this set: qb_matrix's `integer`. */
unsigned qb_packed_integer(const qb_integer *set, const qb_packed *p);
