#include "quant/output_error.h"

#include "base/memory.h"
#include "kernels/cpu/cpu.h"

#include <math.h>

enum {
    TILE_ROWS = 128,
    PANEL = 256,          /* columns of H taken at a time */
    SPAN_ELEMENTS = 65536 /* elements of a codebook weight taken at a time */
};

typedef struct {
    const qb_quant_job *job;
    const qb_qweight *q;
    float *stored;  /* affine: the scales as a reader of the file finds them */
    int64_t tile;   /* rows (affine) or elements (codebook) of a tile */
    float *scratch; /* [workers]: difference and product of a tile */
    size_t share;
    double *error,
        *norm; /* [tiles]: added up in tile order, so that the sum does not depend on the threads */
} error_run;

/* Rows [row0, row0 + n) of an affine weight as a weight of its own. */
static void dequantize_rows(const error_run *run, int64_t row0, int64_t n, float *out) {
    const qb_qweight *q = run->q;
    qb_qweight part = *q;
    part.rows = n;
    part.codes += row0 * q->cols;
    part.scales = run->stored + row0 * q->n_groups;
    part.zeros += row0 * q->n_groups;
    qb_qweight_dequantize(&part, out);
}

/* Elements [first, first + n) of a codebook weight, first on a block's start: its blocks are the rows of a
 * matrix. */
static void dequantize_span(const qb_qweight *q, int64_t first, int64_t n, float *out) {
    qb_qweight part = *q;
    part.codes += first;
    part.absmax += first / q->block_size;
    part.rows = 1;
    part.cols = n;
    part.n_blocks = (n + q->block_size - 1) / q->block_size;
    qb_qweight_dequantize(&part, out);
}

/* Sum over rows of d H d^T; d[n_rows, n]. H is symmetric: the part beside the diagonal panels counts twice.
 */
static double quadratic_form(const float *d, int64_t n_rows, const float *h, int64_t n, float *product) {
    double total = 0;
    for (int64_t j = 0; j < n; j += PANEL) {
        int64_t width = n - j < PANEL ? n - j : PANEL, below = n - j - width;
        for (int part = 0; part < 2; part++) {
            int64_t from = part == 0 ? j : j + width, depth = part == 0 ? width : below;
            if (depth == 0) continue;
            qb_gemm(NULL, false, false, n_rows, width, depth, 1.0F, d + from, n, h + from * n + j, n, 0.0F,
                    product, PANEL);
            double sum = 0;
            for (int64_t r = 0; r < n_rows; r++)
                for (int64_t k = 0; k < width; k++)
                    sum += (double)product[r * PANEL + k] * (double)d[r * n + j + k];
            total += part == 0 ? sum : 2 * sum;
        }
    }
    return total;
}

static void hessian_tile(void *ctx, int64_t begin, int64_t end, int worker) {
    error_run *run = ctx;
    const qb_hessian *hessian = run->job->hessian;
    int64_t cols = run->q->cols, n_rows = end - begin;
    float *d = run->scratch + (size_t)worker * run->share, *product = d + TILE_ROWS * cols;
    const float *w = run->job->weight + begin * cols;
    for (int part = 0; part < 2; part++) {
        if (part == 0) {
            dequantize_rows(run, begin, n_rows, d);
            for (int64_t i = 0; i < n_rows * cols; i++) d[i] = w[i] - d[i];
        } else {
            for (int64_t i = 0; i < n_rows * cols; i++) d[i] = w[i];
        }
        if (hessian->n_dead > 0)
            for (int64_t r = 0; r < n_rows; r++)
                for (int64_t k = 0; k < cols; k++)
                    if (hessian->dead[k]) d[r * cols + k] = 0.0F;
        (part == 0 ? run->error : run->norm)[begin / TILE_ROWS] =
            quadratic_form(d, n_rows, hessian->h, cols, product);
    }
}

static void weight_tile(void *ctx, int64_t begin, int64_t end, int worker) {
    error_run *run = ctx;
    const qb_qweight *q = run->q;
    int64_t unit = q->coding == QB_CODING_AFFINE ? q->cols : 1, n = (end - begin) * unit;
    float *d = run->scratch + (size_t)worker * run->share;
    const float *w = run->job->weight + begin * unit;
    if (q->coding == QB_CODING_AFFINE)
        dequantize_rows(run, begin, end - begin, d);
    else
        dequantize_span(q, begin, n, d);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = (double)w[i] - (double)d[i];
        error += e * e;
        norm += (double)w[i] * (double)w[i];
    }
    run->error[begin / run->tile] = error;
    run->norm[begin / run->tile] = norm;
}

static qb_status find_stored(error_run *run) {
    const qb_qweight *q = run->q;
    int64_t n = q->coding == QB_CODING_AFFINE ? q->rows * q->n_groups : 0;
    bool halves = qb_qweight_has_half_scales(q);
    if (n == 0) return QB_OK;
    qb_status st = qb_alloc((size_t)n, sizeof *run->stored, &run->stored);
    for (int64_t i = 0; st == QB_OK && i < n; i++)
        run->stored[i] = halves ? qb_scale_as_stored(q->scales[i]) : q->scales[i];
    return st;
}

qb_status qb_output_error(const qb_quant_job *job, const qb_qweight *q, qb_module_report *report) {
    bool affine = q->coding == QB_CODING_AFFINE, by_hessian = affine && job->hessian;
    error_run run = {.job = job, .q = q};
    int64_t n = affine ? q->rows : q->rows * q->cols;
    run.tile = affine ? TILE_ROWS : SPAN_ELEMENTS / q->block_size * q->block_size;
    run.share =
        affine ? (size_t)(TILE_ROWS * q->cols) + (by_hessian ? TILE_ROWS * PANEL : 0) : (size_t)run.tile;
    size_t tiles = (size_t)((n + run.tile - 1) / run.tile);
    qb_status st;
    QB_TRY(st, find_stored(&run));
    QB_TRY(st, qb_alloc((size_t)qb_threads_count(job->threads) * run.share, sizeof(float), &run.scratch));
    QB_TRY(st, qb_alloc(tiles, sizeof(double), &run.error));
    QB_TRY(st, qb_alloc(tiles, sizeof(double), &run.norm));
    qb_parallel_for(job->threads, n, run.tile, by_hessian ? hessian_tile : weight_tile, &run);
    double error = 0, norm = 0;
    for (size_t i = 0; i < tiles; i++) {
        error += run.error[i];
        norm += run.norm[i];
    }
    report->error = error;
    report->relative_error = norm > 0 ? error / norm : 0.0;
    report->error_kind = by_hessian ? "hessian" : "weight";
out:
    qb_free(run.stored);
    qb_free(run.scratch);
    qb_free(run.error);
    qb_free(run.norm);
    return st;
}
