#include "quant/on_device.h"

#include "base/clock.h"
#include "base/memory.h"
#include "quant/affine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static qb_status fail_not_finite(const char *module, const qb_code_job *job) {
    return qb_fail(QB_ERR_NUMERIC,
                   "%s: weight[%lld, %lld] is not finite: expected finite numbers; the checkpoint is damaged",
                   module, (long long)(job->bad / job->cols), (long long)(job->bad % job->cols));
}

static void put_errors(const qb_code_job *job, const char *kind, qb_module_report *report) {
    report->error = job->error;
    report->relative_error = job->norm > 0 ? job->error / job->norm : 0.0;
    report->error_kind = kind;
}

/* ---- rounding ---- */

bool qb_device_rounds(const qb_device *dev) {
    return dev && dev->backend->round;
}

qb_status qb_round_on_device(const qb_quant_job *job, const qb_grid_rule *rule, const qb_code_bounds *bounds,
                             qb_qweight *q, qb_module_report *report) {
    qb_code_job code = {.rows = job->rows,
                        .cols = job->cols,
                        .dtype = job->source->dtype,
                        .dense = job->source->dense,
                        .q = q};
    qb_status st = job->dev->backend->round(job->dev, rule, bounds, &code);
    if (st != QB_OK) return qb_fail_prefix(st, "%s", job->module);
    if (code.bad >= 0) return fail_not_finite(job->module, &code);
    put_errors(&code, "weight", report);
    return QB_OK;
}

/* ---- GPTQ ---- */

/* A site as one problem; the arrays have one element a linear. */
typedef struct {
    const qb_site_job *site;
    qb_gptq_problem problem;
    qb_code_job *jobs;
    bool *overflowed;
    qb_qweight *q;
} device_run;

static qb_status allocate(const qb_site_job *site, int64_t i, qb_qweight *q) {
    const qb_quant_config *config = site->config;
    const qb_site_linear *l = &site->linears[i];
    qb_qweight shape;
    qb_status st =
        qb_affine_describe(l->module, l->from->rows, l->from->cols, l->from->dtype, config, &shape);
    if (st != QB_OK) return st;
    bool index = config->act_order && !config->static_groups && config->group_size != -1;
    st = qb_qweight_alloc_affine(shape.rows, shape.cols, shape.bits, shape.group_size, index, q);
    q->symmetric = shape.symmetric;
    q->source_dtype = shape.source_dtype;
    return st;
}

static qb_status prepare(device_run *run) {
    const qb_site_job *site = run->site;
    const qb_quant_config *config = site->config;
    size_t n = (size_t)site->n;
    qb_status st;
    QB_TRY(st, qb_alloc_zero(n, sizeof *run->jobs, &run->jobs));
    QB_TRY(st, qb_alloc_zero(n, sizeof *run->overflowed, &run->overflowed));
    QB_TRY(st, qb_alloc_zero(n, sizeof *run->q, &run->q));
    for (int64_t i = 0; i < site->n; i++) {
        const qb_weight *from = site->linears[i].from;
        QB_TRY(st, allocate(site, i, &run->q[i]));
        run->jobs[i] = (qb_code_job){.rows = from->rows,
                                     .cols = from->cols,
                                     .dtype = from->dtype,
                                     .dense = from->dense,
                                     .q = &run->q[i]};
    }
    run->problem = (qb_gptq_problem){.dev_h = site->sum->dev_h,
                                     .cols = site->sum->n,
                                     .n_samples = site->sum->n_samples,
                                     .rule = qb_affine_rule(config),
                                     .group_size = run->q[0].group_size,
                                     .one_group = config->group_size == -1,
                                     .act_order = config->act_order,
                                     .static_groups = config->static_groups,
                                     .block_columns = config->block_columns,
                                     .damp_percent = config->damp_percent,
                                     .jobs = run->jobs,
                                     .n_jobs = site->n,
                                     .overflowed = run->overflowed};
out:
    return st;
}

static qb_status check_findings(const device_run *run) {
    const qb_gptq_problem *p = &run->problem;
    for (int64_t i = 0; i < p->n_jobs; i++)
        if (p->jobs[i].bad >= 0) return fail_not_finite(run->site->linears[i].module, &p->jobs[i]);
    if (p->bad_channel < 0) return QB_OK;
    return qb_fail(QB_ERR_NUMERIC,
                   "%s: input channel %lld of the calibration activations is not finite (its squares sum to "
                   "%g); the weights before it are damaged, or the activations overflow",
                   run->site->linears[0].module, (long long)p->bad_channel, (double)p->bad_sum);
}

static void fall_back(qb_qweight *q, const char *reason, qb_module_report *report) {
    report->fallback = "rtn";
    snprintf(report->reason, sizeof report->reason, "%s", reason);
    qb_free(q->g_idx);
    q->g_idx = NULL;
}

static qb_status give(device_run *run, int64_t i, double seconds) {
    const qb_gptq_problem *p = &run->problem;
    qb_module_report report = qb_site_report(run->site, i);
    char reason[160];
    report.damp_percent = p->damp_used;
    report.dead_columns = p->dead_columns;
    report.retries = p->retries;
    report.seconds = seconds;
    put_errors(&p->jobs[i], "hessian", &report);
    snprintf(reason, sizeof reason,
             "Hessian not positive definite with damping up to %g of its mean diagonal", p->damp_used);
    if (p->not_positive)
        fall_back(&run->q[i], reason, &report);
    else if (p->overflowed[i])
        fall_back(&run->q[i], "the scales of the compensated weights overflow float16", &report);
    return run->site->take(run->site->ctx, i, &run->q[i], &report);
}

qb_status qb_gptq_on_device(const qb_site_job *job) {
    device_run run = {.site = job};
    int64_t started = qb_now_ns();
    qb_status st;
    if (job->sum->n_samples < 1)
        return qb_fail(QB_ERR_USAGE, "%s: no calibration samples", job->linears[0].module);
    QB_TRY(st, prepare(&run));
    st = job->dev->backend->gptq(job->dev, &run.problem);
    if (st == QB_ERR_UNSUPPORTED) goto out;
    if (st != QB_OK) st = qb_fail_prefix(st, "%s", job->linears[0].module);
    if (st == QB_OK) st = check_findings(&run);
    if (st != QB_OK) goto out;
    qb_hessian_sum_free(job->dev, job->sum);
    double seconds = (double)(qb_now_ns() - started) * 1e-9 / (double)job->n;
    for (int64_t i = 0; st == QB_OK && i < job->n; i++) st = give(&run, i, seconds);
out:
    for (int64_t i = 0; run.q && i < job->n; i++) qb_qweight_free(&run.q[i]);
    qb_free(run.q);
    qb_free(run.jobs);
    qb_free(run.overflowed);
    return st;
}
