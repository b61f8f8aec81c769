/* What a device could do before a run and behind it. */
#pragma once

#include "results/rows.h"

/* Ceilings further apart than this, of the larger one, did not hold throughout. */
#define QB_CEILING_DRIFT 0.15

/* "DEVICE drifted during the run: read 80.1 to 60.2 GB/s .."; nothing where all held, or where an after
   value is NaN. */
void qb_ceiling_drift_put(const char *device, const qb_ceilings *before, const qb_ceilings *after,
                          qb_str *out);
/* The same of a document's device. */
void qb_ceiling_drift_of(const qb_row_device *d, qb_str *out);
