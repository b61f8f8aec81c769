/* The affine grid of a group of weights and the arithmetic on it, sixty-four rows at a time.

   Rows of a weight are independent, so a panel holds QB_LANES of them side by side: panel[column][lane].
   Every loop then runs over lanes and vectorises, whatever the number of columns. All variants (generic,
   AVX2, AVX-512) execute the same IEEE operations in the same order and give the same bits. */
#pragma once

#include "kernels/quantize.h"

#include <stdbool.h>
#include <stdint.h>

enum { QB_LANES = 64 };

typedef struct qb_grid_ops {
    const char *name;
    /* Scale and zero point of each lane over n columns: the paper's Quantizer.find_params
       (github.com/IST-DASLab/gptq, quant.py), quirks included:
       - the range always includes 0, and an all-zero lane gets (-1, 1);
       - symmetric: the range is mirrored only where something is negative, the zero point is (maxq + 1) / 2
       anyway;
       - asymmetric: zero = round(-min / scale), half to even. */
    void (*find)(const qb_grid_rule *rule, const float *panel, int64_t n, float *scale, float *zero);
    /* codes[n][lane] = clamp(round(x / scale) + zero, 0, maxq). */
    void (*encode)(const float *panel, int64_t n, const float *scale, const float *zero, int maxq,
                   uint8_t *codes);
    /* One column of the GPTQ loop: codes of column 0 of the panel, its error (w - q) / u[0], and the
       compensation of columns 1 .. n - 1: panel[k] -= error * u[k]. */
    void (*step)(float *panel, int64_t n, const float *u, const float *scale, const float *zero, int maxq,
                 uint8_t *codes, float *error);

    /* What needs no neighbour in its column runs along a row, cols columns in groups of `group`. */

    /* The largest magnitude of n elements; not finite when one of them is not. */
    float (*largest)(const float *row, int64_t n);
    /* `find` of each group without the mse search. */
    void (*find_row)(const qb_grid_rule *rule, const float *row, int64_t cols, int64_t group, float *scale,
                     float *zero);
    /* `encode`, with a scale and a zero point a group. */
    void (*encode_row)(const float *row, int64_t cols, int64_t group, const float *scale,
                       const uint8_t *zeros, int maxq, uint8_t *codes);
    /* Sum over the row of (w - scale (code - zero))^2, the weight in float32 as qb_qweight_dequantize gives
       it, and of w^2, in an order that depends on the shape alone. */
    void (*row_error)(const float *row, const uint8_t *codes, int64_t cols, int64_t group, const float *scale,
                      const uint8_t *zeros, double *error, double *norm);

    /* Codebooks. The code of the place that each of n values, times `factor`, has among the bounds. */
    void (*encode_places)(const qb_code_bounds *d, const float *w, int64_t n, float factor, uint8_t *codes);
    /* `row_error` of n values in blocks of `block`, a multiple of 16: table[16]'s value of the code times
       absmax[number of the block]. */
    void (*block_error)(const float *w, const uint8_t *codes, int64_t n, int64_t block, const float *table,
                        const float *absmax, double *error, double *norm);
} qb_grid_ops;

/* What this CPU runs best ($BENCH_SIMD lowers it). */
const qb_grid_ops *qb_grid_ops_best(void);

/* panel[k][lane] = rows[lane * ld + k] for k < n; lanes from n_rows on are zero. */
void qb_grid_load(float *panel, const float *rows, int64_t ld, int64_t n_rows, int64_t n);
