/* The arithmetic of a merge: one tensor's float32 values, its edits in order. */
#pragma once

#include "adapter/plan.h"
#include "base/threads.h"

/* values [rows, cols] (cols 1 for a vector) of a tensor, or of a stack's expert as [out, in]. As PEFT does
   with float32 factors: the product over the ranks, times the scale, added, all in float32; DoRA's row norms
   are summed in float64. A value that is not finite afterwards is QB_ERR_NUMERIC. */
qb_status qb_merge_apply(const qb_merge_plan *p, const char *tensor, int64_t expert, int64_t rows,
                         int64_t cols, qb_threads *threads, float *values) QB_NODISCARD;
