/* One token of n_seq sequences as a queue of kernels, without a wait and without an allocation, so that it
   can be captured. */
#pragma once

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/experts.cuh"

struct decode_step {
    cuda_device *dev;
    const qb_decoder *d;
    const qb_kv *kv;
    int64_t n_seq;
    int64_t bound; /* attention serves all positions below it (qb_attention_plan) */
    float *logits;
    bool dependent; /* each kernel may begin while the one before still runs */
    /* On the device; addresses follow from the slab and the shape alone. */
    float *slots[QB_SLOTS_MAX]; /* [n_seq][width], routed [n_seq][top_k][width]; the logits' is `logits` */
    float *partial;             /* what the attention plans ask for */
    uint32_t *arrived;          /* the device's (qb_attention_arrived) */
    int32_t *first;             /* the position */
    int32_t *chosen;            /* [n_seq][top_k]: the experts of each token, ascending */
    float *weight;              /* [n_seq][top_k] beside them */
    const decode_experts *experts;
    bool greedy; /* ids come from `greedy_ids`, and the largest logit's go there */
    decode_chosen greedy_ids;
};

/* QB_OK when every step of the lists is one that the captured step computes; what is not listed is refused.
   kv: what the model attends to. */
qb_status qb_decode_check(const cuda_device *dev, const qb_decoder *d, const qb_kv *kv,
                          int64_t n_seq) QB_NODISCARD;
/* Lays the step's buffers out from `slab` (NULL: only measures). Gives their bytes. */
int64_t qb_decode_layout(decode_step *s, int64_t partial_bytes, void *slab);
/* The table's row of position 0 where the first step only adds positions to the embedding, which the
   embedding's kernel then does; NULL otherwise. */
const float *qb_decode_embed_position(const qb_decoder *d);
/* Queues the step. Unless it is greedy the embedding is left out: its slot and `first` are set by what was
   queued before. */
qb_status qb_decode_queue(const decode_step &s) QB_NODISCARD;
