/* The calibration tokens on their way through the decoder: one residual stream [tokens, D], updated in place
   block by block, and the passes over it that collect Hessians. */
#pragma once

#include "base/windows.h"
#include "model/decoder.h"
#include "quant/hessian.h"

/* Bytes that the passes hold, for plans and for the decision what is kept between passes instead of computed
 * again. */
typedef struct qb_calibration_memory {
    int64_t tokens, batch_rows, batch_sequences;
    int64_t stream_bytes;  /* residual stream, and a batch's copy of it without true_sequential */
    int64_t context_bytes; /* attention outputs of all tokens; 0 when not kept */
    int64_t mid_bytes;     /* inputs of `down` of all tokens; 0 when not kept */
    int64_t workspace_bytes, kv_bytes;
} qb_calibration_memory;

/* samples windows of seqlen tokens (the longest one). Kept between passes is what leaves a margin of the
   memory that this process may use, `other_bytes` of everything else counted. */
void qb_calibration_size(const qb_config *c, int64_t tokens, int64_t samples, int64_t seqlen,
                         bool true_sequential, int64_t other_bytes, qb_calibration_memory *out);

typedef struct qb_calibration_batch {
    int64_t row0, n_seq, n_tok; /* rows of the stream; sequences of one length */
} qb_calibration_batch;

typedef struct qb_calibration {
    qb_model *m; /* loaded, not resident; not owned */
    qb_calibration_memory memory;
    qb_calibration_batch *batches;
    size_t n_batches;
    float *x;       /* [tokens, D] on the device */
    float *copy;    /* [batch_rows, D] without true_sequential */
    float *context; /* [tokens, H * Dh] or NULL */
    float *mid;     /* [tokens, F] or NULL */
    qb_workspace ws;
    qb_kv kv;
} qb_calibration;

/* Embeds all windows. */
qb_status qb_calibration_create(qb_model *m, const qb_windows *windows, bool true_sequential,
                                int64_t other_bytes, qb_calibration *out) QB_NODISCARD;
void qb_calibration_free(qb_calibration *c); /* takes a cleared one */

/* true_sequential: adds one input's statistics, with the linears before it as they stand now in the block
   (quantized). The stages of a block are taken in order; QB_INPUT_MLP adds the attention's output to the
   stream for good. */
qb_status qb_calibration_observe(qb_calibration *c, const qb_block *b, qb_linear_input input,
                                 qb_hessian_sum *sum) QB_NODISCARD;
/* The block's last step: adds the MLP's output to the stream. */
qb_status qb_calibration_finish_block(qb_calibration *c, const qb_block *b) QB_NODISCARD;

/* Otherwise: all four inputs in one pass with the block as it was, leaving the stream alone, then a pass with
   the quantized block. */
qb_status qb_calibration_observe_all(qb_calibration *c, const qb_block *b,
                                     qb_hessian_sum sums[QB_INPUT_COUNT]) QB_NODISCARD;
qb_status qb_calibration_forward(qb_calibration *c, const qb_block *b) QB_NODISCARD;

/* Physical memory, or the control group's limit where that is less. */
int64_t qb_usable_memory_bytes(void);
