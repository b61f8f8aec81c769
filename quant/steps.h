/* Steps (the scales of affine groups) as float16 holds them. */
#pragma once

#include "kernels/qweight.h"

/* Whether float16 held the steps that the weight needs; q's scales are rounded already. Groups whose weights
   are too small for half of its smallest number, 2^-24, have lost more than a bit: QB_ERR_NUMERIC naming row
   and group where they matter to the module, else a warning. */
qb_status qb_steps_check(const char *module, const qb_weight *from, const qb_qweight *q) QB_NODISCARD;
