/* What choosing codes on a device takes: the problems that quant/ hands over, and what comes back. Devices
   whose backend has no such slots leave the work to quant/'s own loops, which define the results. */
#pragma once

#include "kernels/qweight.h"

typedef struct qb_grid_rule {
    int bits;
    bool symmetric;
    bool mse; /* search shrunken ranges, 80 steps of 1 %, for the least sum of |error|^2.4 */
} qb_grid_rule;

/* A codebook's values in ascending order, as their codes, with the midpoints between them: a value stands in
   the place of as many bounds as it exceeds. */
typedef struct qb_code_bounds {
    float bounds[15];
    uint8_t code[16];
} qb_code_bounds;

/* One weight. */
typedef struct qb_code_job {
    int64_t rows, cols;
    qb_dtype dtype;    /* F32, F16 or BF16 */
    const void *dense; /* host, [rows, cols] */
    qb_qweight *q;     /* host, arrays allocated and options set; its arrays are filled */
    int64_t bad; /* index of the first element that is NaN or infinite (nothing is filled then), or -1 */
    double error, norm; /* sum of squares of (w - q) and of w; with a Hessian the quadratic forms */
} qb_code_job;

/* GPTQ of linears that read one input. */
typedef struct qb_gptq_problem {
    float *dev_h;      /* [cols, cols] on the device, lower triangle of sum x^T x; overwritten */
    int64_t cols;      /* of all jobs */
    int64_t n_samples; /* H = 2 / n_samples * sum */
    qb_grid_rule rule;
    int64_t group_size; /* columns; cols when one group spans the row */
    bool one_group;     /* grids are found before dead columns are cleared */
    bool act_order, static_groups;
    int64_t block_columns;
    double damp_percent;
    qb_code_job *jobs; /* a weight's q has g_idx allocated where act-order needs it */
    int64_t n_jobs;
    /* results */
    double damp_used;
    int64_t dead_columns, retries;
    int64_t
        bad_channel; /* whose squares sum to NaN, infinity or less than 0 (nothing is filled then), or -1 */
    float bad_sum;
    bool not_positive; /* no damping up to 1 made H positive definite: codes are rounded to nearest */
    bool *overflowed;  /* [n_jobs] the compensated weights overflow: those codes are rounded to nearest */
} qb_gptq_problem;
