/* Experts that a class stacks, written dense: one tensor for all. */
#pragma once

#include "checkpoint/writer.h"
#include "model/modules.h"
#include "quant/convert.h"

/* Whether the module is one of a stack, which these write. */
bool qb_stacks_own(const qb_module *module);
/* Whether a tensor is a part of a stack, or the bias of an expert that lies apart, which these write too. */
bool qb_stacks_own_tensor(const qb_model *m, const char *tensor);
qb_status qb_stacks_plan(const qb_model *m, qb_dtype as, qb_writer *w) QB_NODISCARD;
/* Reads expert after expert; a stack is in memory as float32 at a time. Counts into report. */
qb_status qb_stacks_put(const qb_model *m, qb_dtype as, qb_writer *w, qb_conversion *report) QB_NODISCARD;
