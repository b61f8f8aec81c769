/* Rows of length one. */
#pragma once

#include "kernels/backend.h"

/* out: `w` with each row divided by its length, at least 1e-12, computed in float32. A copy of w's dtype, of
   float32 where w is packed; free with qb_weight_free. */
qb_status qb_weight_unit_rows(const qb_weight *w, qb_weight *out) QB_NODISCARD;
