#pragma once

#include "quant/driver.h"

/* Of the plan's peak, what is not calibration activations: these may take what is left. */
int64_t qb_quant_plan_other_bytes(const qb_quant_plan *plan);
