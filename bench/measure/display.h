/* What a case is called in tables and plots, made once where it is measured. */
#pragma once

#include "model/model.h"
#include "quant/method.h"

/* {label, series, of}: a method's title, or "F16", "Q4_K_M", "AWQ 4b g128" of a model measured as it is found
   (method NULL; a method that this program has too is marked as published). own: a label of the suite's, or
   NULL. of: the unquantized model that the case goes back to. Caller frees. */
qb_json *qb_display_json(const qb_quant_method *method, const qb_quant_config *config, const qb_model *found,
                         const char *own, const char *of);
