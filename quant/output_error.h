/* How far a quantized weight is from the weight it stands for. */
#pragma once

#include "quant/site.h"

/* Fills report's error, relative_error and error_kind from the job's weight (as it was before quantization)
   and q as a reader of the file finds it, with scales of float16. With a Hessian: sum over rows of (w - q) H
   (w - q)^T, which is 2 / n_samples times the summed squared output error over the calibration inputs;
   undamped, and dead columns, whose inputs are all 0, count nothing. Without: sum of squares. */
qb_status qb_output_error(const qb_quant_job *job, const qb_qweight *q,
                          qb_module_report *report) QB_NODISCARD;
