/* What a case goes back to: the model that it was made from, and what pictures and tables call it by that. */
#pragma once

#include "bench/run/runner.h"

/* What results call the model: the suite's label, or its own name. */
const char *qb_run_model_name(const qb_run *run, const qb_subject *s);
/* Opens the models that the divergences of the run's cases are measured from and that no case measures
   itself, because --only left them out. One that cannot be opened is a warning: the other rows need it not.
 */
void qb_run_open_origins(qb_run *run, const qb_subject_request *request);
/* The case's "display" (bench/measure/display.h). Caller frees. */
qb_json *qb_case_display(const qb_run *run, const qb_case *c);
/* The model that its divergences are measured from: its own before it was quantized; of one that came
   quantized the suite's unquantized model of the same shapes. NULL with *why where there is none, and with
   NULL there for a case that is such a base itself. */
const qb_subject *qb_case_base(const qb_run *run, const qb_case *c, const char **why);
