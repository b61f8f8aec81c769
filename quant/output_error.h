/* How far a quantized weight is from the weight it stands for. */
#pragma once

#include "quant/site.h"

/* Fills report's error, relative_error and error_kind from the job's weight (as it was before quantization)
   and q as a reader of the file finds it, with scales of float16. With a Hessian: sum over rows of (w - q) H
   (w - q)^T, which is 2 / n_samples times the summed squared output error over the calibration inputs;
   undamped, and dead columns, whose inputs are all 0, count nothing. Without (codebooks): sum of squares. */
qb_status qb_output_error(const qb_quant_job *job, const qb_qweight *q,
                          qb_module_report *report) QB_NODISCARD;

/* What that takes with a Hessian of n columns. */
int64_t qb_output_error_bytes(int threads, int64_t n);

/* Sums of squares of (w - q) and of w row by row, added up in the order of the rows. */
typedef struct qb_row_errors {
    double *error, *norm; /* [rows] */
} qb_row_errors;

qb_status qb_row_errors_create(int64_t rows, qb_row_errors *out) QB_NODISCARD;
void qb_row_errors_free(qb_row_errors *e);
/* Fills what qb_output_error fills without a Hessian. */
void qb_row_errors_report(const qb_row_errors *e, int64_t rows, qb_module_report *report);
