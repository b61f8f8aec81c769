#include "quant/site.h"

#include "base/clock.h"

#include <stdio.h>

typedef struct {
    const qb_weight *from;
    float *to;
    qb_status st;
} widen_run;

static void widen_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    widen_run *run = ctx;
    int64_t cols = run->from->cols;
    const char *from =
        (const char *)run->from->dense + (size_t)(begin * cols) * qb_dtype_bytes(run->from->dtype);
    qb_status st = qb_to_f32(run->from->dtype, from, (end - begin) * cols, run->to + begin * cols);
    if (st != QB_OK) run->st = st;
}

/* The weight in float32, of a dtype that sites have: workers have nothing to report. */
static qb_status widen(const qb_site_job *job, const qb_weight *from) {
    widen_run run = {from, job->scratch, QB_OK};
    qb_parallel_for(job->threads, from->rows, 64, widen_rows, &run);
    return run.st;
}

qb_module_report qb_site_report(const qb_site_job *job, int64_t i) {
    const qb_site_linear *l = &job->linears[i];
    qb_module_report report = {.rows = l->from->rows,
                               .cols = l->from->cols,
                               .calibration_tokens = job->sum || job->hessian ? job->tokens : -1};
    snprintf(report.module, sizeof report.module, "%s", l->module);
    return report;
}

qb_status qb_site_each(const qb_site_job *job, qb_hessian *hessian, bool on_device,
                       qb_quantize_linear quantize) {
    qb_status st = QB_OK;
    for (int64_t i = 0; st == QB_OK && i < job->n; i++) {
        const qb_weight *from = job->linears[i].from;
        qb_module_report report = qb_site_report(job, i);
        qb_qweight q = {0};
        qb_quant_job one = {.module = job->linears[i].module,
                            .rows = from->rows,
                            .cols = from->cols,
                            .weight = on_device ? NULL : job->scratch,
                            .source_dtype = from->dtype,
                            .hessian = hessian,
                            .config = job->config,
                            .threads = job->threads,
                            .dev = on_device ? job->dev : NULL,
                            .source = from};
        if (!on_device && (st = widen(job, from)) != QB_OK) return st;
        int64_t started = qb_now_ns();
        if ((st = quantize(&one, &q, &report)) != QB_OK) return st;
        report.seconds = (double)(qb_now_ns() - started) * 1e-9;
        st = job->take(job->ctx, i, &q, &report);
    }
    return st;
}
