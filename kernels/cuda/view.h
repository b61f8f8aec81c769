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
    int32_t bits;        /* 4 or less: two zero points share a byte */
    int32_t zero;
    int32_t n_groups;    /* of a row */
    int32_t group_shift; /* a group is 2^group_shift units of 32 columns */
    int32_t codebook;    /* qb_codebook of the table */
    float nested_offset;
    int32_t
        exponent;   /* weights times 2^exponent are at most 2^14: what float16 panels hold (and BF16 tiles) */
    uint64_t order; /* equal in two matrices of as many columns whose `source` says the same; 0: NULL */
} qb_cuda_view;

/* Whether a step of a kernel (4 units; 2 of 8 bits) may hold several groups, or offsets: such have kernels of
   their own. */
static inline int qb_view_is_fine(const qb_cuda_view *v) {
    return v->kind < QB_CODES_PACKED_COUNT &&
           (v->offsets || v->group_shift < (v->kind == QB_CODES_8 ? 1 : 2));
}
