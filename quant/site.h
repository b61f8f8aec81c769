/* What methods share in working on a site: the walk over its linears one by one. */
#pragma once

#include "quant/method.h"

/* One linear on its way through a method. */
typedef struct qb_quant_job {
    const char *module;
    int64_t rows, cols;
    const float *weight; /* [rows, cols]; NULL where the device reads `source` instead */
    qb_dtype source_dtype;
    qb_hessian *hessian; /* NULL for methods that need none */
    const qb_quant_config *config;
    qb_threads *threads;
    qb_device *dev;          /* that chooses the codes; NULL: the threads do */
    const qb_weight *source; /* the weight as it came */
} qb_quant_job;

/* Fills q (allocated here; nothing is left on failure) and what is known of the result; report has module,
   rows and cols, and takes its seconds from the caller. */
typedef qb_status (*qb_quantize_linear)(const qb_quant_job *job, qb_qweight *q, qb_module_report *report);

/* Each linear by itself, on the device as it came or in float32 by the threads, and gives it to job->take.
   hessian may be NULL. */
qb_status qb_site_each(const qb_site_job *job, qb_hessian *hessian, bool on_device,
                       qb_quantize_linear quantize) QB_NODISCARD;

/* A report of linear i in which nothing has happened yet. */
qb_module_report qb_site_report(const qb_site_job *job, int64_t i);
