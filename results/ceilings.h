/* What a device could do before a run and behind it. */
#pragma once

#include "results/rows.h"

/* Ceilings further apart than this, of the larger one, did not hold throughout. */
#define QB_CEILING_DRIFT 0.15

/* "DEVICE drifted during the run: read 80.1 to 60.2 GB/s .."; nothing where both held, or where an after
   value is NaN. */
void qb_ceiling_drift_put(const char *device, double read_before, double read_after, double gemm_before,
                          double gemm_after, qb_str *out);
/* The same of a document's device. */
void qb_ceiling_drift_of(const qb_row_device *d, qb_str *out);
