/* A method on one weight, without a model around it. */
#pragma once

#include "quant/site.h"
#include "tests/support.h"

typedef struct {
    qb_qweight *q;
    qb_module_report *report;
} taken_linear;

static inline qb_status take_one(void *ctx, int64_t linear, qb_qweight *q, qb_module_report *report) {
    taken_linear *to = ctx;
    assert_int_equal(linear, 0);
    *to->q = *q;
    *to->report = *report;
    *q = (qb_qweight){0};
    return QB_OK;
}

/* job->source, or job->weight as a float32 one. *q is cleared when the method fails. */
static inline qb_status quantize_alone(const char *method, const qb_quant_job *job, qb_qweight *q,
                                       qb_module_report *report) {
    const qb_weight floats = {
        .rows = job->rows, .cols = job->cols, .dtype = QB_DTYPE_F32, .dense = job->weight};
    const qb_site_linear linear = {job->module, job->source ? job->source : &floats};
    taken_linear to = {q, report};
    bool host_only = false;
    qb_site_job site = {.linears = &linear,
                        .n = 1,
                        .hessian = job->hessian,
                        .config = job->config,
                        .dev = job->dev,
                        .threads = job->threads,
                        .host_only = &host_only,
                        .take = take_one,
                        .ctx = &to};
    *q = (qb_qweight){0};
    assert_ok(qb_alloc((size_t)(job->rows * job->cols), sizeof *site.scratch, &site.scratch));
    qb_status st = qb_quant_method_find(method)->site(&site);
    qb_free(site.scratch);
    return st;
}
