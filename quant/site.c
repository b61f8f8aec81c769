#include "quant/site.h"

#include "base/clock.h"
#include "base/memory.h"
#include "quant/grid.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>

void qb_job_rows(const qb_quant_job *job, int64_t row, int64_t n, float *out) {
    int64_t first = row * job->cols, count = n * job->cols;
    if (job->weight) {
        memcpy(out, job->weight + first, (size_t)count * sizeof *out);
        return;
    }
    const qb_weight *from = job->source;
    const char *bytes = (const char *)from->dense + (size_t)first * qb_dtype_bytes(from->dtype);
    if (from->dtype == QB_DTYPE_F16)
        qb_f32_of_f16_many((const uint16_t *)(const void *)bytes, count, out);
    else if (from->dtype == QB_DTYPE_BF16)
        qb_f32_of_bf16_many((const uint16_t *)(const void *)bytes, count, out);
    else
        memcpy(out, bytes, (size_t)count * sizeof *out);
}

typedef struct {
    const qb_quant_job *job;
    float *to;
} widen_run;

static void widen_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const widen_run *run = ctx;
    qb_job_rows(run->job, begin, end - begin, run->to + begin * run->job->cols);
}

/* ---- NaN and infinity ---- */

void qb_note_least(_Atomic int64_t *least, int64_t value) {
    int64_t present = atomic_load(least);
    while (value < present && !atomic_compare_exchange_weak(least, &present, value)) {
    }
}

typedef struct {
    const float *weight;
    int64_t cols;
    const qb_grid_ops *ops;
    _Atomic int64_t bad; /* the first row that is not finite, or INT64_MAX */
} finite_run;

static void check_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    finite_run *run = ctx;
    for (int64_t row = begin; row < end; row++)
        if (!isfinite(run->ops->largest(run->weight + row * run->cols, run->cols))) {
            qb_note_least(&run->bad, row);
            return;
        }
}

qb_status qb_weight_fail_row(const qb_quant_job *job, int64_t row) {
    float *w;
    qb_status st = qb_alloc((size_t)job->cols, sizeof *w, &w);
    if (st != QB_OK) return st;
    qb_job_rows(job, row, 1, w);
    int64_t c = 0;
    while (c + 1 < job->cols && isfinite(w[c])) c++;
    st = qb_fail(QB_ERR_NUMERIC,
                 "%s: weight[%lld, %lld] is %s: expected finite numbers; the checkpoint is damaged",
                 job->module, (long long)row, (long long)c, isnan(w[c]) ? "NaN" : "infinite");
    qb_free(w);
    return st;
}

qb_status qb_weight_check_finite(const qb_quant_job *job) {
    finite_run run = {.weight = job->weight, .cols = job->cols, .ops = qb_grid_ops_best(), .bad = INT64_MAX};
    qb_parallel_for(job->threads, job->rows, 64, check_rows, &run);
    int64_t bad = atomic_load(&run.bad);
    return bad == INT64_MAX ? QB_OK : qb_weight_fail_row(job, bad);
}

/* ---- the linears of a site ---- */

qb_module_report qb_site_report(const qb_site_job *job, int64_t i) {
    const qb_site_linear *l = &job->linears[i];
    qb_module_report report = {.rows = l->from->rows,
                               .cols = l->from->cols,
                               .calibration_tokens = job->sum || job->hessian ? job->tokens : -1};
    snprintf(report.module, sizeof report.module, "%s", l->module);
    return report;
}

qb_status qb_site_each(const qb_site_job *job, qb_hessian *hessian, qb_site_way way,
                       qb_quantize_linear quantize) {
    qb_status st = QB_OK;
    for (int64_t i = 0; st == QB_OK && i < job->n; i++) {
        const qb_weight *from = job->linears[i].from;
        qb_module_report report = qb_site_report(job, i);
        qb_qweight q = {0};
        qb_quant_job one = {.module = job->linears[i].module,
                            .rows = from->rows,
                            .cols = from->cols,
                            .source_dtype = from->dtype,
                            .hessian = hessian,
                            .config = job->config,
                            .threads = job->threads,
                            .dev = way == QB_SITE_ON_DEVICE ? job->dev : NULL,
                            .source = from};
        if (way == QB_SITE_WIDENED) {
            widen_run run = {&one, job->scratch};
            qb_parallel_for(job->threads, one.rows, 64, widen_rows, &run);
            one.weight = job->scratch;
        }
        int64_t started = qb_now_ns();
        if ((st = quantize(&one, &q, &report)) != QB_OK) return st;
        report.seconds = (double)(qb_now_ns() - started) * 1e-9;
        st = job->take(job->ctx, i, &q, &report);
    }
    return st;
}
