/* The calibration tokens on their way through the decoder: one residual stream [tokens, D], updated in place
   block by block, and the passes over it that collect statistics of the sites' inputs. */
#pragma once

#include "base/windows.h"
#include "model/decoder.h"
#include "quant/hessian.h"
#include "quant/walk.h"

/* Bytes that the passes hold, for plans and for the decision what is kept between passes instead of computed
 * again. */
typedef struct qb_calibration_memory {
    int64_t tokens, batch_rows, batch_sequences;
    int64_t stream_bytes; /* residual stream, and a batch's copy of it */
    int64_t kept_bytes;   /* activations of all tokens that passes begin from; 0 when none are kept */
    int64_t kept_floats;  /* what may be kept a token: qb_walk_store's limit */
    int64_t workspace_bytes, kv_bytes;
} qb_calibration_memory;

/* samples windows of seqlen tokens (the longest one). Kept between passes is what leaves a margin of the
   memory that this process may use, `other_bytes` of everything else counted. */
qb_status qb_calibration_size(const qb_topology *t, int64_t tokens, int64_t samples, int64_t seqlen,
                              bool true_sequential, int64_t other_bytes,
                              qb_calibration_memory *out) QB_NODISCARD;

typedef struct qb_calibration_batch {
    int64_t row0, n_seq, n_tok; /* rows of the stream; sequences of one length */
    qb_routing routing;         /* as kept with the batch's state; empty when none is */
} qb_calibration_batch;

typedef struct qb_calibration {
    qb_model *m; /* loaded, not resident; not owned */
    qb_calibration_memory memory;
    qb_calibration_batch *batches;
    size_t n_batches;
    float *x;         /* [tokens, D] on the device, as it stands at `position` of the block */
    float *copy;      /* [batch_rows, D] */
    float *kept[2];   /* [tokens, ..] the slots that live there too, one behind the other by batch */
    int64_t position; /* step of the present block where the state stands */
    int64_t state;    /* stage whose state it is; -1: the block's beginning */
    qb_workspace ws;
    qb_kv kv;
} qb_calibration;

/* Embeds all windows. */
qb_status qb_calibration_create(qb_model *m, const qb_windows *windows, bool true_sequential,
                                int64_t other_bytes, qb_calibration *out) QB_NODISCARD;
void qb_calibration_free(qb_calibration *c); /* takes a cleared one */

/* true_sequential: adds the statistics of sites [first, first + n) of a stage, sums[i] of site first + i,
   with the linears before it as they stand now in the block (quantized). Stages are taken in order; the state
   moves on where the stage's is stored. */
qb_status qb_calibration_observe(qb_calibration *c, const qb_block *b, const qb_walk *w, int64_t stage,
                                 int64_t first, int64_t n, qb_hessian_sum *sums) QB_NODISCARD;
/* The rest of the block from the last stored state: the stream stands behind it afterwards. */
qb_status qb_calibration_finish_block(qb_calibration *c, const qb_block *b, const qb_walk *w) QB_NODISCARD;

/* Otherwise: sites [first, first + n) of the block as it was, sums[i] of site first + i, leaving the stream
   alone; then a pass with the quantized block. Linears behind these sites may be quantized already: they
   change nothing here. */
qb_status qb_calibration_observe_apart(qb_calibration *c, const qb_block *b, const qb_walk *w, int64_t first,
                                       int64_t n, qb_hessian_sum *sums) QB_NODISCARD;
qb_status qb_calibration_forward(qb_calibration *c, const qb_block *b) QB_NODISCARD;

/* Physical memory, or the control group's limit where that is less. */
int64_t qb_usable_memory_bytes(void);
