/* The "methods" of a suite: entries whose lists are multiplied out into variants, and the short labels they
 * go by. */
#pragma once

#include "bench/suite/suite.h"

/* Fills s->variants from s->doc "methods". */
qb_status qb_variants_read(qb_suite *s) QB_NODISCARD;
/* Writes the labels anew after settings changed; drops variants that became equal to an earlier one and fails
   when two different ones share a label. */
qb_status qb_variants_relabel(qb_suite *s) QB_NODISCARD;

/* "group-size" -> "group_size", written into and returned from `out`. */
const char *qb_option_key(const char *name, char out[48]);

/* "gptq-4b-g128-act", "nf4-dq": what distinguishes the codes that will come of it. "as-is" for the model as
   it is found. */
void qb_variant_label(const qb_quant_method *method, const qb_quant_config *config, char out[96]);
