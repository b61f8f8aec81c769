/* A quantized weight in neutral form: one code a byte, scales beside; a file's may come row by row. It is the
   hub between the methods that choose codes (quant/), the layouts that files use (checkpoint/) and the packed
   layouts that matmuls read (kernels/cpu). */
#pragma once

#include "base/status.h"
#include "base/threads.h"
#include "kernels/dtype.h"

#include <stdint.h>

typedef enum {
    QB_CODING_AFFINE,   /* w = scale[row, group] * (code - zero[row, group]); with offsets instead of zeros:
                           w = scale[row, group] * code + offset[row, group], rounded to float32 twice */
    QB_CODING_CODEBOOK, /* w = table[code] * absmax[block], blocks over the flattened row-major matrix */
} qb_coding;

/* NF4, FP4: bitsandbytes'. IQ4_NL: ggml's, by which IQ4_XS is coded too. E2M1: the four-bit floats of OCP
   microscaling (MXFP4), with a power of two a block. */
typedef enum {
    QB_CODEBOOK_NF4,
    QB_CODEBOOK_FP4,
    QB_CODEBOOK_IQ4_NL,
    QB_CODEBOOK_E2M1,
    QB_CODEBOOK_COUNT
} qb_codebook;
/* The 16 values of a codebook by code (bitsandbytes' and ggml's tables; docs/formats.md). */
const float *qb_codebook_table(qb_codebook codebook);
const char *qb_codebook_name(qb_codebook codebook); /* "nf4", "fp4", "iq4_nl", "e2m1" */

/* Group values that a file holds as small whole numbers times a float32 that `groups` groups of a row share:
   value[row, g] = outer[row, g / groups] * inner[row, g], to the bit (GGUF's K types). */
typedef struct qb_factors {
    uint8_t *inner; /* [rows, n_groups]; bytes with a sign of scales, without one of offsets */
    float *outer;   /* [rows, n_groups / groups] */
} qb_factors;

/* Codes that a file holds in a form of its own, read by rows as they are wanted. A reader puts it at the head
   of what it must know. */
typedef struct qb_code_source {
    /* Rows first .. first + n to codes[n, cols], all within their range; for several threads at once. */
    void (*read)(const struct qb_code_source *from, int64_t first, int64_t n, uint8_t *codes);
    void (*free)(struct qb_code_source *from);
} qb_code_source;
enum { QB_SOURCE_ROWS = 64 }; /* at once: those that share a line of a file's words, and yet fit the cache */

typedef struct qb_qweight {
    qb_coding coding;
    int64_t rows, cols; /* [out, in] */
    uint8_t *codes;     /* [rows, cols], natural column order whatever the act-order; NULL: in the source */
    qb_code_source *source; /* owned; NULL where there are codes */

    /* affine */
    int bits; /* 2, 3, 4, 8, from files also 5 and 6; for CODEBOOK always 4 */
    int64_t
        group_size; /* columns of a group; cols when one group spans the row. The last group may be short. */
    int64_t n_groups; /* ceil(cols / group_size) */
    float *scales;    /* [rows, n_groups]; float32 as the method found them, rounded to float16 when stored;
                         NULL where only their factors are there */
    qb_dtype
        scale_dtype;   /* what holds every scale exactly: F16, BF16 or F32 (files that are not ours, GGUF) */
    uint8_t *zeros;    /* [rows, n_groups], the true zero point in [0, 2^bits); NULL with offsets, and where a
                          reader of a symmetric weight left them out */
    float *offsets;    /* [rows, n_groups] or NULL (GGUF's blocks with a minimum); as scales */
    int factor_groups; /* 0: the scales have no factors */
    qb_factors scale_factors, offset_factors; /* the latter's NULL without offsets */
    int32_t *g_idx; /* [cols] group of each column; NULL means column / group_size */
    bool symmetric; /* every zero is 2^(bits-1) */
    bool int8_rows; /* bitsandbytes' int8: 8 bits, symmetric, one group a row; scale = absmax[row] / 127 */

    /* codebook */
    qb_codebook codebook;
    int64_t block_size; /* elements a block */
    int64_t n_blocks;   /* ceil(rows * cols / block_size) */
    float *absmax; /* [n_blocks]: what the table's values are multiplied with, of either sign; with double
                      quantization: the values that the 8-bit absmax decodes to; int8_rows: [rows], which the
                      file holds and scales do not give back */
    bool double_quant;
    uint8_t *absmax_codes; /* [n_blocks] (double_quant) */
    float *nested_absmax;  /* [ceil(n_blocks / 256)] (double_quant) */
    float nested_offset;   /* (double_quant) */
    qb_dtype source_dtype; /* dtype of the weight that was quantized (kept in bitsandbytes' quant_state) */
} qb_qweight;

enum { QB_NESTED_BLOCK = 256 };
/* bitsandbytes' signed dynamic 8-bit map (256 values, ascending), computed in float32 as create_dynamic_map
 * does. */
const float *qb_dynamic_map(void);

/* Allocates the arrays of an affine / codebook weight: the codes for the caller to fill, all of them, the
   others cleared. with_g_idx allocates g_idx. Free with qb_qweight_free. */
qb_status qb_qweight_alloc_affine(int64_t rows, int64_t cols, int bits, int64_t group_size, bool with_g_idx,
                                  qb_qweight *out) QB_NODISCARD;
/* The same with offsets in place of zeros. */
qb_status qb_qweight_alloc_offsets(int64_t rows, int64_t cols, int bits, int64_t group_size,
                                   qb_qweight *out) QB_NODISCARD;
qb_status qb_qweight_alloc_codebook(int64_t rows, int64_t cols, qb_codebook codebook, int64_t block_size,
                                    bool double_quant, qb_qweight *out) QB_NODISCARD;
void qb_qweight_free(qb_qweight *q);

/* For readers, that leave in the file what is not wanted: the form of a weight, without its arrays; */
qb_status qb_qweight_form_affine(int64_t rows, int64_t cols, int bits, int64_t group_size,
                                 qb_qweight *out) QB_NODISCARD;
qb_status qb_qweight_form_codebook(int64_t rows, int64_t cols, qb_codebook codebook, int64_t block_size,
                                   bool double_quant, qb_qweight *out) QB_NODISCARD;
/* its arrays beside the codes, for the caller to fill, all of them; zeros where q is not symmetric
   and has no offsets; */
qb_status qb_qweight_alloc_values(qb_qweight *q, bool with_offsets) QB_NODISCARD;
/* factors of an affine weight's scales and offsets, in their place or beside them, to be filled as well.
   `groups` divides n_groups. */
qb_status qb_qweight_alloc_factors(qb_qweight *q, int groups, bool with_offsets) QB_NODISCARD;

/* Codes of rows first .. first + n: q's own, or read into room[n, cols]. threads may be NULL. */
const uint8_t *qb_qweight_rows(const qb_qweight *q, qb_threads *threads, int64_t first, int64_t n,
                               uint8_t *room);
static inline bool qb_qweight_has_offsets(const qb_qweight *q) {
    return q->offsets || q->offset_factors.inner;
}
/* What of the values is not there: products of factors, the zeros of a symmetric weight. threads may be NULL.
 */
qb_status qb_qweight_fill_values(qb_qweight *q, qb_threads *threads) QB_NODISCARD;
/* All arrays are there afterwards: values filled in, codes read, their source freed. threads may be NULL. */
qb_status qb_qweight_complete(qb_qweight *q, qb_threads *threads) QB_NODISCARD;

/* Float16's smallest number, 2^-24, its smallest with all bits, 2^-14, and what rounds to infinity. */
#define QB_LEAST_SCALE        0x1p-24f
#define QB_LEAST_NORMAL_SCALE 0x1p-14f
#define QB_LEAST_OVERFLOW     65520.0f
/* Whether its scales are stored in float16. */
static inline bool qb_qweight_has_half_scales(const qb_qweight *q) {
    return q->coding == QB_CODING_AFFINE && q->scale_dtype == QB_DTYPE_F16;
}
/* A scale rounded to float16 and back; infinite where it overflows; one that underflows to 0 becomes the
   smallest number of its sign. */
float qb_scale_as_stored(float scale);
/* The same of n at once; out may be scales. */
void qb_scales_as_stored(const float *scales, int64_t n, float *out);
/* Rounds scales that are stored in float16, in place. One that overflows is QB_ERR_NUMERIC. */
qb_status qb_qweight_round_scales(qb_qweight *q) QB_NODISCARD;

/* Whether every zero point is 2^(bits-1). Of an affine weight without offsets. */
bool qb_qweight_zeros_in_middle(const qb_qweight *q);

/* Makes of a weight that a method made what reading it from a checkpoint gives: no g_idx where it says no
   more than column / group_size, `symmetric` when every zero is in the middle. */
void qb_qweight_as_read(qb_qweight *q);

/* The definition of what a quantized weight means: out[rows, cols] in float32. Every packed matmul is tested
 * against it. */
void qb_qweight_dequantize(const qb_qweight *q, float *out);

/* Columns whose weights share a scale or an absmax in every row, not looking at g_idx. The absmax of a
 * codebook's block changes within a row only at multiples of gcd(cols, block_size). */
int64_t qb_qweight_scale_cols(const qb_qweight *q);

/* Bits a weight takes as checkpoints store it, as docs/formats.md counts them: codes, float16 scales, n-bit
   zeros (the gptq layouts hold them for symmetric weights too), absmax, and the group index of act-order. */
double qb_qweight_bits_per_weight(const qb_qweight *q);
/* "int4 g128 sym", "nf4 b64 dq" for tables and errors. */
const char *qb_qweight_describe(const qb_qweight *q, char buffer[48]);

/* Rows of a quantized weight as one of their own: row r of `out` is row row_of(ctx, r) of q. A codebook whose
   blocks do not end with the rows, or whose absmax are quantized themselves, cannot be parted
   (QB_ERR_UNSUPPORTED). Free with qb_qweight_free. */
qb_status qb_qweight_take_rows(const qb_qweight *q, int64_t rows,
                               int64_t (*row_of)(const void *ctx, int64_t row), const void *ctx,
                               qb_qweight *out) QB_NODISCARD;

/* A linear layer's weight as a checkpoint holds it: a dense view or a quantized weight. */
typedef struct qb_weight {
    int64_t rows, cols;
    qb_dtype dtype;     /* dense element type */
    const void *dense;  /* row-major, or NULL: a view (not owned) unless it is `copy` */
    void *copy;         /* owned when not NULL: values that lie nowhere as they are wanted */
    qb_qweight *packed; /* owned when not NULL */
} qb_weight;
void qb_weight_free(qb_weight *w); /* frees packed and copy, never a view */
