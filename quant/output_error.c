#include "quant/output_error.h"

#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "quant/grid.h"

#include <string.h>

enum {
    TILE_ROWS = 512,      /* that meet H at a time, with as many of the weight itself */
    GRAIN_ROWS = 8,       /* of these a task dequantizes */
    SPAN_ELEMENTS = 65536 /* elements of a codebook weight taken at a time */
};

typedef struct {
    const qb_quant_job *job;
    const qb_qweight *q;
    float *stored;        /* affine: the scales as a reader of the file finds them */
    int64_t tile;         /* rows (affine) or elements (codebook) of a tile */
    float *scratch;       /* affine: [2][rows of the tile][cols], differences and weights */
    int64_t row0, n_rows; /* affine: of the tile at hand */
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

/* Rows of the tile: what they are off by, and what they were, where the calibration saw anything. */
static void tile_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const error_run *run = ctx;
    const qb_hessian *h = run->job->hessian;
    const int64_t cols = run->q->cols, n = (end - begin) * cols;
    const float *w = run->job->weight + (run->row0 + begin) * cols;
    float *d = run->scratch + begin * cols, *was = run->scratch + (run->n_rows + begin) * cols;
    dequantize_rows(run, run->row0 + begin, end - begin, d);
    for (int64_t i = 0; i < n; i++) d[i] = w[i] - d[i];
    memcpy(was, w, (size_t)n * sizeof *was);
    for (int64_t i = 0; h->n_dead > 0 && i < n; i++)
        if (h->dead[i % cols]) d[i] = was[i] = 0.0F;
}

static qb_status hessian_errors(error_run *run) {
    const int64_t rows = run->q->rows, most = rows < TILE_ROWS ? rows : TILE_ROWS;
    qb_quadratic *forms;
    qb_status st = qb_quadratic_create(run->job->threads, run->q->cols, 2 * most, 2, &forms);
    for (int64_t i = 0; st == QB_OK && i * TILE_ROWS < rows; i++) {
        double sums[2];
        run->row0 = i * TILE_ROWS;
        run->n_rows = rows - run->row0 < TILE_ROWS ? rows - run->row0 : TILE_ROWS;
        qb_parallel_for(run->job->threads, run->n_rows, GRAIN_ROWS, tile_rows, run);
        qb_quadratic_forms(forms, run->scratch, run->n_rows, 2, run->job->hessian->h, sums);
        run->error[i] = sums[0], run->norm[i] = sums[1];
    }
    qb_quadratic_free(forms);
    return st;
}

/* A codebook's elements [begin, end), begin on a block's start. */
static void weight_span(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    error_run *run = ctx;
    const qb_qweight *q = run->q;
    qb_grid_ops_best()->block_error(run->job->weight + begin, q->codes + begin, end - begin, q->block_size,
                                    qb_codebook_table(q->codebook), q->absmax + begin / q->block_size,
                                    &run->error[begin / run->tile], &run->norm[begin / run->tile]);
}

int64_t qb_output_error_bytes(int threads, int64_t n) {
    return 2 * TILE_ROWS * n * 4 + qb_quadratic_bytes(threads, n, 2 * TILE_ROWS, 2);
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
    const int64_t scratch = 2 * (n < TILE_ROWS ? n : TILE_ROWS) * q->cols;
    size_t tiles = (size_t)((n + run.tile - 1) / run.tile);
    qb_status st;
    if (affine) QB_TRY(st, find_stored(&run));
    if (affine) QB_TRY(st, qb_alloc((size_t)scratch, sizeof(float), &run.scratch));
    QB_TRY(st, qb_alloc(tiles, sizeof(double), &run.error));
    QB_TRY(st, qb_alloc(tiles, sizeof(double), &run.norm));
    if (affine)
        QB_TRY(st, hessian_errors(&run));
    else
        qb_parallel_for(job->threads, n, run.tile, weight_span, &run);
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
