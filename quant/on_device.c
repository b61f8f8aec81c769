#include "quant/on_device.h"

#include "base/clock.h"
#include "base/memory.h"
#include "quant/affine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LINEARS = 8 };

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

bool qb_rounds_on_device(const qb_quant_job *job) {
    return job->dev && job->dev->backend->round && job->source && job->source->dense;
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

static qb_status allocate(const qb_quant_config *config, qb_device_linear *l) {
    qb_qweight shape;
    qb_status st =
        qb_affine_describe(l->module, l->from->rows, l->from->cols, l->from->dtype, config, &shape);
    if (st != QB_OK) return st;
    bool index = config->act_order && !config->static_groups && config->group_size != -1;
    st = qb_qweight_alloc_affine(shape.rows, shape.cols, shape.bits, shape.group_size, index, &l->q);
    l->q.symmetric = shape.symmetric;
    l->q.source_dtype = shape.source_dtype;
    return st;
}

static void fall_back(qb_device_linear *l, const char *reason) {
    l->report.fallback = "rtn";
    snprintf(l->report.reason, sizeof l->report.reason, "%s", reason);
    qb_free(l->q.g_idx);
    l->q.g_idx = NULL;
}

static qb_status check_findings(const qb_gptq_problem *p, const qb_device_linear *linears) {
    for (int64_t i = 0; i < p->n_jobs; i++)
        if (p->jobs[i].bad >= 0) return fail_not_finite(linears[i].module, &p->jobs[i]);
    if (p->bad_channel < 0) return QB_OK;
    return qb_fail(QB_ERR_NUMERIC,
                   "%s: input channel %lld of the calibration activations is not finite (its squares sum to "
                   "%g); the weights before it are damaged, or the activations overflow",
                   linears[0].module, (long long)p->bad_channel, (double)p->bad_sum);
}

static void report_linear(const qb_gptq_problem *p, int64_t i, double seconds, qb_device_linear *l) {
    char reason[160];
    l->report.damp_percent = p->damp_used;
    l->report.dead_columns = p->dead_columns;
    l->report.retries = p->retries;
    l->report.seconds = seconds;
    put_errors(&p->jobs[i], "hessian", &l->report);
    snprintf(reason, sizeof reason,
             "Hessian not positive definite with damping up to %g of its mean diagonal", p->damp_used);
    if (p->not_positive)
        fall_back(l, reason);
    else if (p->overflowed[i])
        fall_back(l, "the compensated weights overflow float32");
}

qb_status qb_gptq_on_device(qb_device *dev, const qb_quant_config *config, qb_hessian_sum *sum,
                            qb_device_linear *linears, int64_t n) {
    qb_code_job jobs[MAX_LINEARS];
    bool overflowed[MAX_LINEARS] = {false};
    int64_t started = qb_now_ns();
    qb_status st = QB_OK;
    if (n < 1 || n > MAX_LINEARS)
        return qb_fail(QB_ERR_INTERNAL, "%lld linears read one input", (long long)n);
    if (sum->n_samples < 1) return qb_fail(QB_ERR_USAGE, "%s: no calibration samples", linears[0].module);
    for (int64_t i = 0; i < n; i++) {
        qb_device_linear *l = &linears[i];
        l->q = (qb_qweight){0};
        l->report = (qb_module_report){.rows = l->from->rows, .cols = l->from->cols};
        snprintf(l->report.module, sizeof l->report.module, "%s", l->module);
    }
    for (int64_t i = 0; i < n; i++) {
        qb_device_linear *l = &linears[i];
        QB_TRY(st, allocate(config, l));
        jobs[i] = (qb_code_job){.rows = l->from->rows,
                                .cols = l->from->cols,
                                .dtype = l->from->dtype,
                                .dense = l->from->dense,
                                .q = &l->q};
    }
    qb_gptq_problem p = {.dev_h = sum->dev_h,
                         .cols = sum->n,
                         .n_samples = sum->n_samples,
                         .rule = qb_affine_rule(config),
                         .group_size = linears[0].q.group_size,
                         .one_group = config->group_size == -1,
                         .act_order = config->act_order,
                         .static_groups = config->static_groups,
                         .block_columns = config->block_columns,
                         .damp_percent = config->damp_percent,
                         .jobs = jobs,
                         .n_jobs = n,
                         .overflowed = overflowed};
    st = dev->backend->gptq(dev, &p);
    if (st != QB_OK) {
        if (st != QB_ERR_UNSUPPORTED) st = qb_fail_prefix(st, "%s", linears[0].module);
        goto out;
    }
    QB_TRY(st, check_findings(&p, linears));
    double seconds = (double)(qb_now_ns() - started) * 1e-9 / (double)n;
    for (int64_t i = 0; i < n; i++) report_linear(&p, i, seconds, &linears[i]);
    qb_hessian_sum_free(dev, sum);
out:
    if (st != QB_OK)
        for (int64_t i = 0; i < n; i++) qb_qweight_free(&linears[i].q);
    return st;
}
