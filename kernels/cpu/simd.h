/* One table of inner loops for each instruction set, chosen at run time. The loops are written once, in *.inc
   files over the 16-lane vectors of kernels/cpu/lanes.h, and compiled by simd_generic.c, simd_avx2.c,
   simd_avx512.c and simd_neon.c. All are single-threaded and allocate nothing; pointers may have any
   alignment. */
#pragma once

#include "kernels/cpu/pack.h"
#include "kernels/step.h"

#include <stdbool.h>
#include <stdint.h>

/* Rows of blocks [begin, end) of p times one tile of tokens: y[token * ldy + row]. x[padded_cols][tokens of
   the tile], of which the first `tokens` are stored; sums[n_groups][tokens of the tile], sums of each group's
   activations. */
typedef void (*qb_packed_fn)(const qb_packed *p, int64_t begin, int64_t end, const float *x,
                             const float *sums, int64_t tokens, float *y, int64_t ldy);
typedef struct qb_packed_tile {
    int tokens;
    qb_packed_fn fn[QB_PACK_COUNT];
} qb_packed_tile;

/* y[t * ldy + r] = row r of w . x[t * cols ...], r < n_rows, t < T. */
typedef void (*qb_dense_fn)(const void *w, int64_t cols, int64_t n_rows, const float *x, int64_t T, float *y,
                            int64_t ldy);

/* Products of dense numbers as sums of products of bfloat16 tiles (kernels/cpu/dense_tiles.c). A number is
   the sum of its parts, bfloat16 numbers each of which is the nearest to what the ones before leave: one of
   bfloat16, two of float16, three of float32. A float32 that is cut keeps two of them, 16 bits. */
enum { QB_BF16_TILE = 16, QB_BF16_TILE_COLS = 32, QB_BF16_PARTS = 3, QB_BF16_CUT = 2 };
static inline int qb_bf16_parts(qb_dtype dtype) {
    return dtype == QB_DTYPE_BF16 ? 1 : dtype == QB_DTYPE_F16 ? 2 : QB_BF16_PARTS;
}
/* Elements of a pair of tiles with all parts, of one tile of columns. */
static inline int64_t qb_bf16_pair(int parts) {
    return (int64_t)parts * 2 * QB_BF16_TILE * QB_BF16_TILE_COLS;
}

/* Rows, two tiles of them at the most. */
typedef struct qb_bf16_source {
    const void *numbers;
    qb_dtype dtype;
    bool across; /* (float32 alone) columns lie one after the other, the numbers of a column side by side */
    int parts;   /* (float32, to the left, or across to the right) that each number has; 0: all */
    bool cut;    /* (float32, not across) to QB_BF16_CUT parts */
    int64_t stride; /* of rows, or of columns, in elements */
    int64_t rows, cols;
} qb_bf16_source;

/* What becomes of sums of `tiles` tiles of columns, a segment, as they are added: sum * (left * right), then
   shift * right_sum. Numbers of left rows are [pair of left tiles][segment][32], those of right ones
   [segment][32], the next pair of right tiles' right_stride on. */
typedef struct qb_bf16_scales {
    int64_t tiles; /* depth is a multiple */
    const float *left;
    const float *right;               /* of right parts 1 and 2 alone, else NULL for 1 */
    const float *shifts, *right_sums; /* both or neither; as right */
    int64_t right_stride;
} qb_bf16_scales;

/* Packed codes whose values are of one part, not of K types. */
enum { QB_BF16_CODES = 32 };
typedef struct qb_bf16_codes {
    const qb_packed *p;
    float more;                     /* that 8-bit codes' values have than code - 128 */
    uint16_t values[QB_BF16_CODES]; /* of other codes, repeated; with zero points of code - zero + 16 */
} qb_bf16_codes;

typedef struct qb_bf16_tiles {
    /* Rows to to[ceil(cols / 32)][parts][2][16 rows][32 columns], or, of float32,
       to[ceil(cols / 32)][parts][2][16 pairs of columns][16 rows][2]; zeros elsewhere. `to` is aligned to 64
       bytes. */
    void (*lay_left)(const qb_bf16_source *rows, uint16_t *to);
    void (*lay_right)(const qb_bf16_source *rows, uint16_t *to);
    /* As lay_right one of its two tiles of rows, a block's values without scale: columns [begin, end), whole
       tiles, of group g. */
    void (*lay_codes)(const qb_bf16_codes *codes, int64_t block, int64_t g, int64_t begin, int64_t end,
                      uint16_t *to);
    /* sums[pair of right tiles][pair of left tiles][left tile][right tile][16 left][16 right] += (fresh: =)
       products over `depth` tiles of columns. left[pair][depth]..; right[depth].., the next pair right_stride
       elements on. Of products of parts i and j those with i + j < right_parts: QB_BF16_PARTS, or QB_BF16_CUT
       where both sides are cut. */
    void (*multiply)(int parts, int right_parts, int64_t depth, const uint16_t *left, int64_t lefts,
                     const uint16_t *right, int64_t rights, int64_t right_stride, bool fresh, float *sums);
    /* The same with sums that are turned, [16 right][16 left]: `left` is what lay_right made, `right` what
       lay_left did. Scaled, left parts of one meet any number of right ones; scales NULL: three with three,
       as they are. */
    void (*multiply_turned)(int parts, int right_parts, int64_t depth, const uint16_t *left, int64_t lefts,
                            const qb_bf16_scales *scales, const uint16_t *right, int64_t rights,
                            int64_t right_stride, bool fresh, float *sums);
    /* A pair's sums to y[right * ldy + left] of so many rows; whether all are numbers. */
    bool (*take_sums)(const float *sums, int64_t lefts, int64_t rights, float *y, int64_t ldy);
    bool (*take_turned)(const float *sums, int64_t lefts, int64_t rights, float *y, int64_t ldy);
    /* The same added to y, of each right row the left ones up to `below` + its own number alone; nothing,
       where not all are numbers. */
    bool (*add_sums)(const float *sums, int64_t lefts, int64_t rights, int64_t below, float *y, int64_t ldy);
    /* All of them to y[left * ldy + right]; nothing, where not all are numbers. */
    bool (*add_rows)(const float *sums, int64_t lefts, int64_t rights, float *y, int64_t ldy);
} qb_bf16_tiles;

/* How products of queries and keys become logits: scaled, capped, slanted (qb_attend_attr). */
typedef struct qb_score_rule {
    float scale, softcap;
    qb_alibi alibi;
    const float *slopes; /* [heads] of the queries at hand, or NULL */
    int64_t query, key;  /* positions of the query and of the first key at hand */
} qb_score_rule;
static inline bool qb_score_scaled_only(const qb_score_rule *rule) {
    return rule->softcap == 0.0f && rule->alibi == QB_ALIBI_NONE;
}

/* `heads` queries q[heads][dim] over n_keys keys [n_keys][dim] and values [n_keys][value_dim]; scores is
   scratch of heads * n_keys. For each head: the largest logit, the sum of e^(logit - largest), and
   out[heads][value_dim], the values weighted by these, not divided. */
typedef void (*qb_attend_fn)(const float *q, int64_t heads, int64_t dim, int64_t value_dim, const void *k,
                             const void *v, int64_t n_keys, const qb_score_rule *rule, float *scores,
                             float *largest, float *sum, float *out);

typedef struct qb_simd {
    const char *name; /* "generic", "avx2", "avx512", "amx-bf16", "neon" */

    void (*f32_of_f16)(const void *in, int64_t n, float *out);
    void (*f32_of_bf16)(const void *in, int64_t n, float *out);
    void (*f16_of_f32)(const float *in, int64_t n, void *out);
    void (*bf16_of_f32)(const float *in, int64_t n, void *out);

    const qb_packed_tile *tiles; /* ascending by tokens */
    int n_tiles;
    int packed_gemm_tokens; /* from this many tokens on, panels of float32 and SGEMM are faster */
    int dense_gemm_tokens;  /* the same for dense rows, unless kernels/cpu/tuning.h knows better */
    bool wide;              /* sixteen lanes are one register */
    /* panel[packed column * ld + lane] of the sixteen rows of a block, as qb_qweight_dequantize defines them.
     */
    void (*unpack_block)(const qb_packed *p, int64_t block, float *panel, int64_t ld);
    /* The same of columns [begin, end) of group g, whole steps, without scale and offset: a code's value less
       the zero point; to scales[lane] those of the group. K types: of super-block g, whole groups; values are
       times their group's whole number, at most 2^12, and scales what stands beside the super-block. */
    void (*unpack_values)(const qb_packed *p, int64_t block, int64_t g, int64_t begin, int64_t end,
                          float *panel, int64_t ld, float *scales);
    /* What the weights of group g have more, of a matrix with offsets: to[lane]. */
    void (*unpack_offsets)(const qb_packed *p, int64_t block, int64_t g, float *to);
    /* As products in whole numbers have both (integer.h): values are less the middle code where there are
       offsets, which are so much more. Not of K types. */
    void (*unpack_whole)(const qb_packed *p, int64_t block, int64_t g, int64_t begin, int64_t end,
                         float *panel, int64_t ld, float *scales, float *offsets);
    qb_dense_fn dense_f32, dense_f16, dense_bf16;
    const qb_bf16_tiles *bf16; /* of products of many tokens; NULL: there are none */

    qb_attend_fn attend_f32, attend_f16;

    /* Products of queries and keys to logits, in place. */
    void (*shape_scores)(float *scores, int64_t n, const qb_score_rule *rule, int64_t head);

    /* y = act(gate), times up unless NULL (qb_activate_attr's kind and its numbers; not its gating). */
    void (*activate)(const qb_activate_attr *attr, float *y, const float *gate, const float *up, int64_t n);
    /* x = cap tanh(x / cap) */
    void (*softcap)(float *x, int64_t n, float cap);
    float (*dot)(const float *a, const float *b, int64_t n);
    float (*sum)(const float *a, int64_t n);
    float (*largest)(const float *a, int64_t n);
    /* x = e^(scale * x - shift); returns the sum. */
    float (*exp_row)(float *x, int64_t n, float scale, float shift);
    /* y = (x - shift) * scale * weight + bias; weight and bias may be NULL. */
    void (*scale_row)(float *y, const float *x, float shift, float scale, const float *weight,
                      const float *bias, int64_t n);
    bool (*all_finite)(const float *x, int64_t n);
    /* Sum of e^(x - shift) in float64; shift >= every x. */
    double (*sum_exp)(const float *x, int64_t n, float shift);
} qb_simd;

extern const qb_simd qb_simd_generic;
#if defined(__x86_64__)
extern const qb_simd qb_simd_avx2, qb_simd_avx512;
#elif defined(__aarch64__)
extern const qb_simd qb_simd_neon;
#endif

/* The tables that this CPU and this build have, from the plainest to the best; NULL behind the last. */
const qb_simd *qb_simd_at(int index);
/* The best table of this CPU. */
const qb_simd *qb_simd_best(void);
/* The best table at or below $BENCH_SIMD (read at each call; tests change it between devices). */
const qb_simd *qb_simd_chosen(void);
/* QB_ERR_USAGE when $BENCH_SIMD names what this CPU has not, or nothing that is known. */
qb_status qb_simd_check(void) QB_NODISCARD;
