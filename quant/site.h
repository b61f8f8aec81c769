/* What methods share in working on a site: the walk over its linears one by one. */
#pragma once

#include "quant/method.h"

/* One linear on its way through a method. */
typedef struct qb_quant_job {
    const char *module;
    int64_t rows, cols;
    const float *weight; /* [rows, cols]; NULL where `source` is read instead: qb_job_rows */
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

/* Who chooses the codes, and what it reads. */
typedef enum qb_site_way {
    QB_SITE_WIDENED,  /* the threads: job->weight */
    QB_SITE_BY_ROWS,  /* the threads, a row after the other: job->source by qb_job_rows */
    QB_SITE_ON_DEVICE /* job->dev: job->source */
} qb_site_way;

/* Each linear by itself, given to job->take. hessian may be NULL. */
qb_status qb_site_each(const qb_site_job *job, qb_hessian *hessian, qb_site_way way,
                       qb_quantize_linear quantize) QB_NODISCARD;

/* A report of linear i in which nothing has happened yet. */
qb_module_report qb_site_report(const qb_site_job *job, int64_t i);

/* Rows [row, row + n) in float32: of weight where that is there, else of source (F32, F16 or BF16). */
void qb_job_rows(const qb_quant_job *job, int64_t row, int64_t n, float *out);

/* QB_ERR_NUMERIC naming module, row and column when the job's weight holds NaN or infinity. */
qb_status qb_weight_check_finite(const qb_quant_job *job) QB_NODISCARD;
/* The error of that check for the first such column of a row that has one. */
qb_status qb_weight_fail_row(const qb_quant_job *job, int64_t row) QB_NODISCARD;
/* *least becomes the smaller of the two, whoever else writes it. */
void qb_note_least(_Atomic int64_t *least, int64_t value);
