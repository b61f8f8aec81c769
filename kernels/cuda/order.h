/* The order of columns in packed tiles: which groups they fall into, and where each column of the matrix
   lies. Plain host code, for the packing and its tests. */
#pragma once

#include "kernels/cuda/layout.cuh"
#include "kernels/qweight.h"

/* Groups lie one after another, each padded to whole units of 32 columns, the last up to a whole tile. What
   kernels see as a group, a `part`, is 2^shift units: the largest power of two that no group's end cuts. A
   group of 96 columns is three parts with the same scale. */
typedef struct qb_column_order {
    int64_t cols, padded_cols;
    int64_t n_parts; /* of a row */
    int shift;
    int32_t *group; /* [n_parts] the weight's group that a part belongs to; 0 for one of padding */
    int32_t
        *source; /* [padded_cols] column of the matrix, -1 for padding; NULL: each column at its own place */
    uint64_t digest; /* of source; 0 for NULL */
} qb_column_order;

/* Groups of group_cols columns, or as g_idx[cols] says (checked: QB_ERR_FORMAT unless in 0 .. n_groups - 1).
 */
qb_status qb_column_order_make(int64_t cols, int64_t group_cols, int64_t n_groups, const int32_t *g_idx,
                               qb_column_order *out) QB_NODISCARD;
void qb_column_order_free(qb_column_order *o);
