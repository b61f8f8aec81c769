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
/* What becomes of an expert's values, float32 [rows, cols] as [out, in], before they are written. `module` is
   its linear's name, which stacks that cannot lie apart share. */
typedef struct qb_stacks_change {
    qb_status (*change)(void *ctx, const char *module, int64_t expert, int64_t rows, int64_t cols,
                        float *values);
    void *ctx;
} qb_stacks_change;
/* Reads expert after expert; a stack is in memory as float32 at a time. Counts into report. `change`: NULL
   writes what was read. Without one a dense value that `as` does not hold is an error. */
qb_status qb_stacks_put(const qb_model *m, qb_dtype as, qb_writer *w, const qb_stacks_change *change,
                        qb_conversion *report) QB_NODISCARD;
