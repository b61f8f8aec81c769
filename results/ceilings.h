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
/* What is to be thought of a device's ceilings ("ceilings" of an entry of context.devices) themselves: other
   work had a part of the processors when they were measured, or they were higher once by more than
   QB_CEILING_DRIFT ("best"). Nothing else. */
void qb_ceiling_doubt_put(const char *device, const qb_json *ceilings, qb_str *out);
