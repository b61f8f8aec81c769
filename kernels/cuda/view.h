/* A matrix as kernels see it: device pointers and numbers, passed by value. Made by matrix.c, which owns what
   it points to. */
#pragma once

#include "kernels/cuda/layout.cuh"

#include <stdint.h>

typedef enum {
    QB_VIEW_SCALES_F16,
    QB_VIEW_SCALES_F32,
    QB_VIEW_SCALES_NESTED, /* 8-bit absmax: map[code] * nested[block / 256] + nested_offset */
} qb_view_scales;

typedef struct qb_cuda_view {
    const uint8_t *codes; /* tiles (layout.cuh), or dense elements [rows, cols] */
    const void *scales;   /* by qb_scale_index: float16, float32, or 8-bit absmax; NULL when dense */
    const uint8_t
        *zeros; /* zero points beside the scales; NULL: each is `zero`, or there is none (codebook) */
    const float *offsets;  /* float32 beside the scales in place of zero points, or NULL */
    const float *table;    /* codebook: 16 values by code, then the 256 of the nested map */
    const float *nested;   /* by flattened block / 256 */
    const int32_t *source; /* [padded_cols] column of x for each packed column, -1 for padding; NULL: the
                              same, columns beyond cols are padding */
    int64_t rows, cols;
    int64_t padded_cols; /* whole tiles */
    int32_t kind;        /* qb_codes_kind */
    int32_t scale_kind;  /* qb_view_scales */
    int32_t bits; /* of a zero point: 4 or less for codes of that many, two in a byte; else a byte each */
    int32_t zero;
    int32_t n_groups;    /* of a row, up to padded_cols */
    int32_t row_blocks;  /* codebook: blocks of a row, where its absmax is nested */
    int32_t group_shift; /* a group is 2^group_shift units of 32 columns */
    int32_t codebook;    /* qb_codebook of the table */
    float nested_offset;
    int32_t
        exponent;   /* weights times 2^exponent are at most 2^14: what float16 panels hold (and BF16 tiles) */
    uint64_t order; /* equal in two matrices of as many columns whose `source` says the same; 0: NULL */
} qb_cuda_view;

/* Kernels come in two kinds. The plain one takes integer codes with float16 scales, and steps (4 units; 2 of
   codes of 8 bits and of codebooks) within one group; the fine one takes everything: smaller groups, float32
   scales, offsets. */
static inline int qb_view_is_fine(const qb_cuda_view *v) {
    const int step_shift = v->kind == QB_CODES_8 || v->kind == QB_CODES_BOOK ? 1 : 2;
    if (v->kind >= QB_CODES_PACKED_COUNT) return 0;
    return v->offsets || v->group_shift < step_shift ||
           (v->kind != QB_CODES_BOOK && v->scale_kind != QB_VIEW_SCALES_F16);
}
