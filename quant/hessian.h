/* Hessians of the layer-wise problem min ||W X - Q X||^2: accumulated on the device, finished and factored on
 * the host. */
#pragma once

#include "kernels/backend.h"
#include "quant/method.h"

/* sum x^T x of one linear input while calibration batches pass. Zero-initialise. */
typedef struct qb_hessian_sum {
    int64_t n, n_samples;
    int64_t rows; /* tokens accumulated */
    float *dev_h; /* [n, n] on the device, lower triangle */
} qb_hessian_sum;

qb_status qb_hessian_sum_create(qb_device *dev, int64_t n, qb_hessian_sum *out) QB_NODISCARD;
/* x[rows, n] on the device, rows of n_seq sequences. */
qb_status qb_hessian_sum_add(qb_device *dev, qb_hessian_sum *sum, const float *x, int64_t rows,
                             int64_t n_seq) QB_NODISCARD;
void qb_hessian_sum_free(qb_device *dev, qb_hessian_sum *sum);

/* Takes the sum to the host and frees it: H = (2 / n_samples) sum x^T x, full; dead columns found and set
   to 1. `module` heads errors: QB_ERR_NUMERIC when the inputs held NaN, infinity or values whose squares
   overflow. */
qb_status qb_hessian_finish(qb_device *dev, qb_hessian_sum *sum, const char *module,
                            qb_hessian *out) QB_NODISCARD;
/* The last step of it alone, on a full symmetric out->h with out->n set. */
qb_status qb_hessian_prepare(const char *module, qb_hessian *h) QB_NODISCARD;

/* u and perm from h: damped with damp_percent * mean(diag), permuted by descending diagonal (ties by index)
   with act_order. Where H is not positive definite the damping is raised tenfold up to 1 and `retries`
   counts; where nothing helps `failed` and `reason` are set and QB_OK is returned. Does nothing when u is
   there or failed is set. */
qb_status qb_hessian_factor(qb_threads *threads, double damp_percent, bool act_order,
                            qb_hessian *h) QB_NODISCARD;
void qb_hessian_free(qb_hessian *h); /* takes NULL */
