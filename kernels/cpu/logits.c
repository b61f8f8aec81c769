/* What is read off logits: the negative log-likelihood in float64, the largest, and whether all are finite.
 */
#include "kernels/cpu/device.h"

#include <math.h>
#include <stdatomic.h>

typedef struct {
    const qb_simd *simd;
    const float *x;
    int64_t width;
    const int32_t *targets;
    double *nll;
    int32_t *argmax;
    _Atomic int64_t bad_row; /* the first found; INT64_MAX when none */
} logits_job;

static void note_bad(logits_job *j, int64_t row) {
    int64_t seen = atomic_load(&j->bad_row);
    while (row < seen && !atomic_compare_exchange_weak(&j->bad_row, &seen, row)) {
    }
}

static qb_status bad_row_status(const logits_job *j) {
    int64_t bad = atomic_load(&j->bad_row);
    if (bad == INT64_MAX) return QB_OK;
    return qb_fail(QB_ERR_NUMERIC, "the logits of row %lld hold a NaN or an infinity", (long long)bad);
}

static void nll_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    logits_job *j = ctx;
    for (int64_t t = begin; t < end; t++) {
        const float *row = j->x + t * j->width;
        j->nll[t] = 0.0;
        if (!j->simd->all_finite(row, j->width)) {
            note_bad(j, t);
            continue;
        }
        if (j->targets[t] < 0) continue;
        float shift = j->simd->largest(row, j->width);
        j->nll[t] =
            log(j->simd->sum_exp(row, j->width, shift)) - ((double)row[j->targets[t]] - (double)shift);
    }
}

qb_status qb_cpu_nll(qb_device *dev, const float *logits, int64_t T, int64_t V, const int32_t *targets,
                     double *out) {
    logits_job j = {.simd = cpu_of(dev)->simd, .x = logits, .width = V, .targets = targets, .nll = out};
    atomic_init(&j.bad_row, INT64_MAX);
    for (int64_t t = 0; t < T; t++)
        if (targets[t] >= V)
            return qb_fail(QB_ERR_INTERNAL, "target %d of row %lld; the vocabulary has %lld", targets[t],
                           (long long)t, (long long)V);
    qb_parallel_for(dev->threads, T, 1, nll_rows, &j);
    return bad_row_status(&j);
}

static void argmax_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    logits_job *j = ctx;
    for (int64_t t = begin; t < end; t++) {
        const float *row = j->x + t * j->width;
        j->argmax[t] = 0;
        if (!j->simd->all_finite(row, j->width)) {
            note_bad(j, t);
            continue;
        }
        float best = j->simd->largest(row, j->width);
        int64_t i = 0;
        while (i < j->width - 1 && row[i] != best) i++;
        j->argmax[t] = (int32_t)i;
    }
}

qb_status qb_cpu_argmax(qb_device *dev, const float *logits, int64_t T, int64_t V, int32_t *out) {
    logits_job j = {.simd = cpu_of(dev)->simd, .x = logits, .width = V, .argmax = out};
    atomic_init(&j.bad_row, INT64_MAX);
    qb_parallel_for(dev->threads, T, 1, argmax_rows, &j);
    return bad_row_status(&j);
}

enum { FINITE_A_TASK = 1 << 16 };

static void finite_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    logits_job *j = ctx;
    if (!j->simd->all_finite(j->x + begin, end - begin)) note_bad(j, begin);
}

qb_status qb_cpu_all_finite(qb_device *dev, const float *x, int64_t n, bool *out) {
    logits_job j = {.simd = cpu_of(dev)->simd, .x = x};
    atomic_init(&j.bad_row, INT64_MAX);
    qb_parallel_for(dev->threads, n, FINITE_A_TASK, finite_range, &j);
    *out = atomic_load(&j.bad_row) == INT64_MAX;
    return QB_OK;
}
