/* Weights onto the device and off it again. Private to model/. */
#pragma once

#include "model/model.h"

void qb_model_unload(qb_model *m); /* all that qb_model_load made; does nothing before it */
/* Whether the checkpoint holds a linear, dense or in its layout. */
bool qb_linear_is_there(const qb_model *m, const qb_linear *l, int64_t layer);
/* Decides on opening which matrix the head is: a head in the file that a tied config does not expect is used,
   with a warning, unless it equals the embedding, as transformers 5 does; a tied model whose file has the
   head alone takes the embedding from it; an untied one without a head is refused. */
qb_status qb_head_resolve(qb_model *m) QB_NODISCARD;
