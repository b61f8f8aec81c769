/* Round to nearest. Rows are read as they came, and each goes through all steps while it is in the nearest
   cache; only the mse search takes a tile of rows side by side. */
#include "base/memory.h"
#include "quant/affine.h"
#include "quant/output_error.h"

#include <math.h>
#include <stdatomic.h>

typedef struct {
    const qb_quant_job *job;
    const qb_grid_ops *ops;
    qb_grid_rule rule;
    qb_qweight *q;
    int64_t rows_held; /* in float32 at once */
    float *scratch;    /* [workers]: the rows, two grids of a row, a panel */
    size_t share;
    qb_row_errors *errors; /* NULL: not wanted */
    _Atomic int64_t bad;   /* the first row that is not finite, or INT64_MAX */
} round_run;

/* One worker's memory. */
typedef struct {
    float *rows;         /* [rows_held, cols] */
    float *scale, *zero; /* [n_groups] */
    float *panel;        /* [group_size][QB_LANES], for the search */
} round_memory;

static size_t round_share(const round_run *run) {
    const qb_qweight *q = run->q;
    return (size_t)(run->rows_held * q->cols + 2 * q->n_groups +
                    (run->rule.mse ? q->group_size * QB_LANES : 0));
}

static round_memory round_memory_of(const round_run *run, int worker) {
    round_memory m;
    m.rows = run->scratch + (size_t)worker * run->share;
    m.scale = m.rows + run->rows_held * run->q->cols;
    m.zero = m.scale + run->q->n_groups;
    m.panel = m.zero + run->q->n_groups;
    return m;
}

static void search_grids(const round_run *run, const round_memory *m, int64_t row0, int64_t n_rows) {
    qb_qweight *q = run->q;
    float scale[QB_LANES], zero[QB_LANES];
    for (int64_t g = 0; g < q->n_groups; g++) {
        int64_t first = g * q->group_size;
        int64_t n = q->cols - first < q->group_size ? q->cols - first : q->group_size;
        qb_grid_load(m->panel, m->rows + first, q->cols, n_rows, n);
        run->ops->find(&run->rule, m->panel, n, scale, zero);
        qb_affine_put_grid(q, row0, n_rows, g, scale, zero);
    }
}

static void find_grids(const round_run *run, const round_memory *m, const float *w, int64_t row) {
    qb_qweight *q = run->q;
    float *scales = q->scales + row * q->n_groups;
    uint8_t *zeros = q->zeros + row * q->n_groups;
    run->ops->find_row(&run->rule, w, q->cols, q->group_size, scales, m->zero);
    for (int64_t g = 0; g < q->n_groups; g++) zeros[g] = (uint8_t)m->zero[g];
}

static void round_row(const round_run *run, const round_memory *m, const float *w, int64_t row) {
    qb_qweight *q = run->q;
    const float *scales = q->scales + row * q->n_groups;
    const uint8_t *zeros = q->zeros + row * q->n_groups;
    uint8_t *codes = q->codes + row * q->cols;
    run->ops->encode_row(w, q->cols, q->group_size, scales, zeros, (1 << q->bits) - 1, codes);
    if (!run->errors) return;
    if (qb_qweight_has_half_scales(q)) {
        qb_scales_as_stored(scales, q->n_groups, m->scale);
        scales = m->scale;
    }
    run->ops->row_error(w, codes, q->cols, q->group_size, scales, zeros, &run->errors->error[row],
                        &run->errors->norm[row]);
}

static void round_tile(void *ctx, int64_t begin, int64_t end, int worker) {
    round_run *run = ctx;
    round_memory m = round_memory_of(run, worker);
    int64_t cols = run->q->cols, held = run->rows_held;
    for (int64_t row0 = begin; row0 < end; row0 += held) {
        int64_t n = end - row0 < held ? end - row0 : held;
        qb_job_rows(run->job, row0, n, m.rows);
        for (int64_t r = 0; r < n; r++)
            if (!isfinite(run->ops->largest(m.rows + r * cols, cols))) {
                qb_note_least(&run->bad, row0 + r);
                return;
            }
        if (run->rule.mse)
            search_grids(run, &m, row0, n);
        else
            for (int64_t r = 0; r < n; r++) find_grids(run, &m, m.rows + r * cols, row0 + r);
        for (int64_t r = 0; r < n; r++) round_row(run, &m, m.rows + r * cols, row0 + r);
    }
}

qb_status qb_affine_round(const qb_quant_job *job, qb_qweight *q, qb_module_report *report) {
    round_run run = {
        .job = job, .ops = qb_grid_ops_best(), .rule = qb_affine_rule(job->config), .q = q, .bad = INT64_MAX};
    qb_row_errors errors = {0};
    qb_status st;
    run.rows_held = run.rule.mse ? QB_LANES : 1;
    run.share = (round_share(&run) + 15) / 16 * 16; /* a cache line: workers share none */
    QB_TRY(st,
           qb_alloc((size_t)qb_threads_count(job->threads) * run.share, sizeof *run.scratch, &run.scratch));
    if (report) {
        QB_TRY(st, qb_row_errors_create(q->rows, &errors));
        run.errors = &errors;
    }
    qb_parallel_for(job->threads, q->rows, QB_LANES, round_tile, &run);
    int64_t bad = atomic_load(&run.bad);
    if (bad != INT64_MAX)
        st = qb_weight_fail_row(job, bad);
    else if (report)
        qb_row_errors_report(&errors, q->rows, report);
out:
    qb_free(run.scratch);
    qb_row_errors_free(&errors);
    return st;
}
