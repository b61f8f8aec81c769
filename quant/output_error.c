#include "quant/output_error.h"

#include "base/memory.h"
#include "kernels/cpu/cpu.h"

#include <string.h>

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

static void weight_span(void *ctx, int64_t begin, int64_t end, int worker) {
    error_run *run = ctx;
    int64_t n = end - begin;
    float *d = run->scratch + (size_t)worker * run->share;
    const float *w = run->job->weight + begin;
    dequantize_span(run->q, begin, n, d);
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
    int64_t n = q->rows * q->n_groups;
    qb_status st = qb_alloc((size_t)n, sizeof *run->stored, &run->stored);
    if (st != QB_OK) return st;
    if (qb_qweight_has_half_scales(q))
        qb_scales_as_stored(q->scales, n, run->stored);
    else
        memcpy(run->stored, q->scales, (size_t)n * sizeof *q->scales);
    return QB_OK;
}

static void put_sums(const double *error, const double *norm, int64_t n, const char *kind,
                     qb_module_report *report) {
    double e = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        e += error[i];
        s += norm[i];
    }
    report->error = e;
    report->relative_error = s > 0 ? e / s : 0.0;
    report->error_kind = kind;
}

qb_status qb_output_error(const qb_quant_job *job, const qb_qweight *q, qb_module_report *report) {
    bool affine = q->coding == QB_CODING_AFFINE;
    error_run run = {.job = job, .q = q};
    int64_t n = affine ? q->rows : q->rows * q->cols;
    run.tile = affine ? TILE_ROWS : SPAN_ELEMENTS / q->block_size * q->block_size;
    run.share = affine ? (size_t)(TILE_ROWS * (q->cols + PANEL)) : (size_t)run.tile;
    size_t tiles = (size_t)((n + run.tile - 1) / run.tile);
    qb_status st;
    if (affine) QB_TRY(st, find_stored(&run));
    QB_TRY(st, qb_alloc((size_t)qb_threads_count(job->threads) * run.share, sizeof(float), &run.scratch));
    QB_TRY(st, qb_alloc(tiles, sizeof(double), &run.error));
    QB_TRY(st, qb_alloc(tiles, sizeof(double), &run.norm));
    qb_parallel_for(job->threads, n, run.tile, affine ? hessian_tile : weight_span, &run);
    put_sums(run.error, run.norm, (int64_t)tiles, affine ? "hessian" : "weight", report);
out:
    qb_free(run.stored);
    qb_free(run.scratch);
    qb_free(run.error);
    qb_free(run.norm);
    return st;
}

qb_status qb_row_errors_create(int64_t rows, qb_row_errors *out) {
    *out = (qb_row_errors){0};
    qb_status st = qb_alloc((size_t)rows, sizeof *out->error, &out->error);
    if (st == QB_OK) st = qb_alloc((size_t)rows, sizeof *out->norm, &out->norm);
    if (st != QB_OK) qb_row_errors_free(out);
    return st;
}

void qb_row_errors_free(qb_row_errors *e) {
    qb_free(e->error);
    qb_free(e->norm);
    *e = (qb_row_errors){0};
}

void qb_row_errors_report(const qb_row_errors *e, int64_t rows, qb_module_report *report) {
    put_sums(e->error, e->norm, rows, "weight", report);
}
