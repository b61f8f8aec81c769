/* What a row reached beside what the device can do. */
#pragma once

#include "eval/activations.h"
#include "eval/eval.h"

/* A share above 1 is no speed record: it says that the ceiling is of something else, and the row tells of
   what. `reused_bytes`: read anew in each step; 0 for products. */
void qb_share_put(const qb_device *dev, double reached, double ceiling, double reused_bytes, qb_measure *row);
/* Operations a second of a prompt's products, were each done at the ceiling of its kind: weights that have
   products in whole numbers at that of the activations in force, dense ones, and quantized ones that go as
   they do, at theirs where there is one, all others, and attention, as float32. */
double qb_product_ceiling(const qb_ceilings *c, const qb_activation_use *use);
/* What the device can do, beside every figure of what was reached; and what lay in host memory. */
void qb_ceilings_put(const qb_model *m, const qb_ceilings *c, qb_measure *row);
