/* What a case is called in tables and plots, made once where it is measured. */
#pragma once

#include "model/model.h"
#include "quant/method.h"

typedef struct qb_display {
    const qb_quant_method *method; /* NULL: the model as it is found */
    const qb_quant_config *config;
    const qb_model *found;
    const char *own;   /* a label of the suite's, or NULL */
    const char *of;    /* the unquantized model that the case goes back to */
    const char *whose; /* heads the label where cases of another model stand beside it; NULL */
} qb_display;

/* {label, series, of}: a method's title, or "F16", "Q4_K_M", "AWQ 4b g128" of a model measured as it is found
   (a method that this program has too is marked as published). Caller frees. */
qb_json *qb_display_json(const qb_display *d);
