/* GPTQ on the device, in two parts: the Hessian and its factor (gptq_factor.cu), the weights (gptq.cu). */
#pragma once

#include "kernels/cuda/quantize.cuh"

/* What the device finds out about a Hessian; read back once after the factorization. */
struct qb_gptq_facts {
    unsigned long long bad_channel; /* ULLONG_MAX: none */
    float bad_sum;
    int dead;         /* columns */
    double mean;      /* of the diagonal, dead columns counting 1 */
    int not_positive; /* the factorization met a pivot that is not positive, or its result is not usable */
    int info;         /* of the library's last call */
};

struct qb_gptq_hessian {
    int64_t n;
    float *h; /* [n, n] scaled, full symmetric, 1 on dead diagonals */
    float *u; /* [n, n] upper factor of the damped, permuted inverse */
    float *diagonal;
    uint8_t *dead; /* [n] */
    int32_t *perm; /* [n] column at each place; NULL without act-order */
    qb_gptq_facts *facts;
};

/* Takes memory, scales and mirrors h in place, finds dead columns and the order, factors with the problem's
   damping, tenfold where that fails. Fills the problem's damp_used, dead_columns, retries, bad_channel and
   not_positive. Waits once for each factorization. */
qb_status qb_cuda_gptq_factor(cuda_device *d, qb_gptq_problem *p, qb::device_memory *memory,
                              qb_gptq_hessian *out) QB_NODISCARD;
