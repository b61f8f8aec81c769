/* What the readers of layouts share: scales and group indices, each checked, and codes that stay where they
   are. Private to checkpoint/. */
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

/* Codes that stay in their tensor, which is held until they are freed. */
typedef struct qb_tensor_codes {
    qb_code_source base;
    qb_checkpoint *ck;
    const qb_tensor *tensor;
    const void *bytes;
    void *made; /* owned: the bytes in the order that is read, or NULL */
    qb_slice slice;
    int64_t rows, cols;
    int bits;
} qb_tensor_codes;
typedef void qb_read_codes(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes);

/* Makes them q's source. What is q's comes from it; the rest of *out, which is q's, is the caller's to fill.
 */
qb_status qb_leave_codes(qb_checkpoint *ck, const qb_tensor *t, qb_read_codes *read, qb_qweight *q,
                         qb_tensor_codes **out) QB_NODISCARD;
