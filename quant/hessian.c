#include "quant/hessian.h"

#include "base/memory.h"
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

qb_status qb_hessian_sum_create(qb_device *dev, int64_t n, qb_hessian_sum *out) {
    *out = (qb_hessian_sum){.n = n};
    int64_t bytes = n * n * (int64_t)sizeof(float);
    qb_status st = dev->backend->alloc(dev, QB_MEMORY_WORKSPACE, bytes, &out->dev_h);
    if (st != QB_OK) return qb_fail_prefix(st, "Hessian of %lld inputs", (long long)n);
    st = dev->backend->clear(dev, out->dev_h, bytes);
    if (st != QB_OK) qb_hessian_sum_free(dev, out);
    return st;
}

qb_status qb_hessian_sum_add(qb_device *dev, qb_hessian_sum *sum, const float *x, int64_t rows,
                             int64_t n_seq) {
    qb_status st = dev->backend->hessian(dev, sum->dev_h, x, rows, sum->n);
    if (st == QB_OK) sum->n_samples += n_seq, sum->rows += rows;
    return st;
}

void qb_hessian_sum_free(qb_device *dev, qb_hessian_sum *sum) {
    dev->backend->free(dev, sum->dev_h);
    *sum = (qb_hessian_sum){0};
}

enum { TILE = 64 };

typedef struct {
    const float *from; /* `to`, or apart from it */
    float *to;
    int64_t n;
    float scale;
} mirror_run;

/* Scales the lower triangle of a band of rows and copies it above the diagonal, tile by tile. Bands touch
   disjoint elements: (i, j) and (j, i) with i in the band and j <= i. */
static void mirror_band(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const mirror_run *run = ctx;
    int64_t n = run->n;
    for (int64_t j0 = 0; j0 < end; j0 += TILE)
        for (int64_t i = begin; i < end; i++)
            for (int64_t j = j0; j <= i && j < j0 + TILE; j++) {
                float v = run->from[i * n + j] * run->scale;
                run->to[i * n + j] = v;
                run->to[j * n + i] = v;
            }
}

/* Any NaN, infinity or overflow in the inputs shows on the diagonal, since |x y| <= (x x + y y) / 2. */
static qb_status check_diagonal(const char *module, const qb_hessian *h) {
    for (int64_t i = 0; i < h->n; i++) {
        float d = h->h[i * h->n + i];
        if (!isfinite(d) || d < 0)
            return qb_fail(
                QB_ERR_NUMERIC,
                "%s: input channel %lld of the calibration activations is not finite (its squares sum to "
                "%g); the weights before it are damaged, or the activations overflow",
                module, (long long)i, (double)d);
    }
    return QB_OK;
}

qb_status qb_hessian_prepare(const char *module, qb_hessian *h) {
    qb_status st = check_diagonal(module, h);
    if (st != QB_OK) return st;
    if ((st = qb_alloc_zero((size_t)h->n, sizeof *h->dead, &h->dead)) != QB_OK) return st;
    for (int64_t i = 0; i < h->n; i++) {
        if (h->h[i * h->n + i] != 0.0F) continue;
        h->h[i * h->n + i] = 1.0F;
        h->dead[i] = 1;
        h->n_dead++;
    }
    return QB_OK;
}

qb_status qb_hessian_finish(qb_device *dev, qb_hessian_sum *sum, const char *module, qb_hessian *out) {
    *out = (qb_hessian){.n = sum->n, .n_samples = sum->n_samples};
    size_t n = (size_t)sum->n;
    qb_status st;
    if (sum->n_samples < 1) {
        st = qb_fail(QB_ERR_USAGE, "%s: no calibration samples", module);
        goto out;
    }
    QB_TRY(st, qb_alloc(n * n, sizeof *out->h, &out->h));
    const bool apart = dev->backend->separate_memory;
    if (apart) QB_TRY(st, dev->backend->download(dev, out->h, sum->dev_h, (int64_t)(n * n * sizeof *out->h)));
    mirror_run run = {.from = apart ? out->h : sum->dev_h,
                      .to = out->h,
                      .n = out->n,
                      .scale = 2.0F / (float)out->n_samples};
    qb_parallel_for(dev->threads, out->n, TILE, mirror_band, &run);
    QB_TRY(st, qb_hessian_prepare(module, out));
out:
    qb_hessian_sum_free(dev, sum);
    if (st != QB_OK) qb_hessian_free(out);
    return st;
}

typedef struct {
    float value;
    int32_t index;
} ranked;

static int descending(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static qb_status find_order(qb_hessian *h) {
    ranked *order = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)h->n, sizeof *order, &order));
    QB_TRY(st, qb_alloc((size_t)h->n, sizeof *h->perm, &h->perm));
    for (int64_t i = 0; i < h->n; i++) order[i] = (ranked){h->h[i * h->n + i], (int32_t)i};
    qsort(order, (size_t)h->n, sizeof *order, descending);
    for (int64_t i = 0; i < h->n; i++) h->perm[i] = order[i].index;
out:
    qb_free(order);
    return st;
}

typedef struct {
    const qb_hessian *h;
    float *u;
    float damp;
} factor_run;

/* Lower triangle of the damped, permuted H with its index reversed. */
static void gather_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const factor_run *run = ctx;
    const qb_hessian *h = run->h;
    int64_t n = h->n, last = n - 1;
    for (int64_t i = begin; i < end; i++) {
        const float *row = h->h + (h->perm ? h->perm[last - i] : last - i) * n;
        float *to = run->u + i * n;
        if (h->perm)
            for (int64_t j = 0; j <= i; j++) to[j] = row[h->perm[last - j]];
        else
            for (int64_t j = 0; j <= i; j++) to[j] = row[last - j];
        to[i] += run->damp;
        memset(to + i + 1, 0, (size_t)(n - i - 1) * sizeof *to);
    }
}

/* Reversing both indices reverses the array as a whole. */
static void reverse_part(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const factor_run *run = ctx;
    float *front = run->u, *back = run->u + run->h->n * run->h->n - 1;
    for (int64_t i = begin; i < end; i++) {
        float t = front[i];
        front[i] = back[-i];
        back[-i] = t;
    }
}

static bool diagonal_is_usable(const float *u, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(u[i * n + i] > 0.0F) || !isfinite(u[i * n + i])) return false;
    return true;
}

/* H^-1 = U^T U without forming H^-1: with P the index reversal and P H P = L L^T, U = P L^-1 P. */
static bool factor_once(qb_threads *threads, qb_factor *f, qb_hessian *h, double damp_percent, double mean) {
    factor_run run = {.h = h, .u = h->u, .damp = (float)(damp_percent * mean)};
    bool ok = false;
    qb_parallel_for(threads, h->n, 16, gather_rows, &run);
    qb_cholesky_lower(f, h->n, h->u, h->n, &ok);
    if (!ok) return false;
    qb_invert_lower(f, h->n, h->u, h->n);
    qb_parallel_for(threads, h->n * h->n / 2, 1 << 18, reverse_part, &run);
    return diagonal_is_usable(h->u, h->n);
}

qb_status qb_hessian_factor(qb_threads *threads, double damp_percent, bool act_order, qb_hessian *h) {
    if (h->u || h->failed) return QB_OK;
    qb_factor *f = NULL;
    qb_status st;
    size_t n = (size_t)h->n;
    QB_TRY(st, qb_alloc(n * n, sizeof *h->u, &h->u));
    QB_TRY(st, qb_factor_create(threads, h->n, &f));
    if (act_order && !h->perm) QB_TRY(st, find_order(h));
    double mean = 0;
    for (int64_t i = 0; i < h->n; i++) mean += (double)h->h[i * h->n + i];
    mean /= (double)h->n;
    double damp = damp_percent;
    bool done = false;
    for (;;) {
        h->damp_percent = damp;
        done = factor_once(threads, f, h, damp, mean);
        if (done || damp >= 1.0) break;
        damp = damp > 0 ? fmin(damp * 10, 1.0) : 0.01;
        h->retries++;
    }
    h->failed = !done;
    if (h->failed)
        snprintf(h->reason, sizeof h->reason,
                 "Hessian not positive definite with damping up to %g of its mean diagonal", damp);
out:
    qb_factor_free(f);
    if (st != QB_OK || h->failed) {
        qb_free(h->u);
        h->u = NULL;
    }
    return st;
}

void qb_hessian_free(qb_hessian *h) {
    if (!h) return;
    qb_free(h->h);
    qb_free(h->u);
    qb_free(h->perm);
    qb_free(h->dead);
    *h = (qb_hessian){0};
}
