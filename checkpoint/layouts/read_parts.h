/* What the readers of affine layouts share: scales, group indices and packed words of any integer type, each
   checked. Private to checkpoint/. */
#pragma once

#include "checkpoint/checkpoint.h"

/* How the scales lie in a file. */
typedef enum {
    QB_SCALES_BY_GROUP, /* [n_groups, rows]: gptq, awq */
    QB_SCALES_BY_ROW,   /* [rows, n_groups]: compressed-tensors, gptq files from before groups */
} qb_scale_order;

/* The scales of tensor t (F32, F16 or BF16 of the shape that `order` says, checked) into q->scales and
   q->scale_dtype. A scale that is not finite is QB_ERR_NUMERIC naming group and row. */
qb_status qb_read_scales(qb_checkpoint *ck, const qb_tensor *t, qb_scale_order order,
                         qb_qweight *q) QB_NODISCARD;

/* The group of each column from tensor t (I32 or I64 [cols]) into q->g_idx, which stays NULL where it says no
   more than column / group_size. Nothing but zeros for several groups means the natural order too: writers
   leave the tensor unfilled when they use no act-order. */
qb_status qb_read_groups(qb_checkpoint *ck, const qb_tensor *t, qb_qweight *q) QB_NODISCARD;
