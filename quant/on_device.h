/* The methods on devices whose backend chooses codes itself: the same problems, options and reports as the
   loops of quant/, which stay the definition. */
#pragma once

#include "quant/hessian.h"
#include "quant/method.h"

/* A linear of a group that reads one input. */
typedef struct qb_device_linear {
    const char *module;
    const qb_weight *from;   /* dense, in host memory */
    qb_qweight q;            /* result */
    qb_module_report report; /* result; rows, cols and module are filled too */
} qb_device_linear;

/* GPTQ of linears that share a Hessian, from its sum on the device, which is freed.
   QB_ERR_UNSUPPORTED when the device has no kernel for these options: nothing was done, the sum is whole. On
   success the caller frees each q. */
qb_status qb_gptq_on_device(qb_device *dev, const qb_quant_config *config, qb_hessian_sum *sum,
                            qb_device_linear *linears, int64_t n) QB_NODISCARD;

/* Whether a weight of this job is rounded by its device. */
bool qb_rounds_on_device(const qb_quant_job *job);
/* Rounds the job's source to nearest there, into q (allocated): affine when `rule` is there, else by
   `bounds`. Checks that the weight is finite and fills the report's errors. */
qb_status qb_round_on_device(const qb_quant_job *job, const qb_grid_rule *rule, const qb_code_bounds *bounds,
                             qb_qweight *q, qb_module_report *report) QB_NODISCARD;
