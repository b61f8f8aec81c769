/* Where the base has what the adapter names. */
#pragma once

#include "adapter/plan.h"

typedef struct qb_merge_place {
    char tensor[QB_NAME_BYTES + 8];
    int64_t rows, cols; /* as the file has it; cols 0: a vector */
    const qb_linear *linear;
    bool turned; /* a linear that lies as [in, out] */
} qb_merge_place;

/* The weight of module `path`; false when the base has none. */
bool qb_merge_place_of(const qb_merge_plan *p, const char *path, qb_merge_place *out);
/* The base's tensor of that name, whichever way it is stored. */
bool qb_merge_tensor_of(const qb_merge_plan *p, const char *name, qb_merge_place *out);
