/* The methods on devices whose backend chooses codes itself: the same problems, options and reports as the
   loops of quant/, which stay the definition. */
#pragma once

#include "quant/hessian.h"
#include "quant/site.h"

/* Whether a device rounds weights to nearest itself. */
bool qb_device_rounds(const qb_device *dev);
/* Rounds the job's source to nearest there, into q (allocated): affine when `rule` is there, else by
   `bounds`. Checks that the weight is finite and fills the report's errors. */
qb_status qb_round_on_device(const qb_quant_job *job, const qb_grid_rule *rule, const qb_code_bounds *bounds,
                             qb_qweight *q, qb_module_report *report) QB_NODISCARD;

/* GPTQ of a site from the sum on the device, which is freed. QB_ERR_UNSUPPORTED when the device has no kernel
   for these options: nothing was done, the sum is whole. */
qb_status qb_gptq_on_device(const qb_site_job *job) QB_NODISCARD;
