/* What a row reached beside what the device can do. */
#pragma once

#include "eval/eval.h"

/* A share above 1 is no speed record: it says that the ceiling is of something else, and the row tells of
   what. `reused_bytes`: read anew in each step; 0 for products, which are of whole numbers (`whole`) or not.
 */
void qb_share_put(const qb_device *dev, double reached, double ceiling, double reused_bytes, bool whole,
                  qb_measure *row);
/* What the device can do, beside every figure of what was reached; and what lay in host memory. */
void qb_ceilings_put(const qb_model *m, const qb_ceilings *c, qb_measure *row);
