/* One token of n_seq sequences as a queue of kernels, without a wait and without an allocation, so that it
   can be captured. */
#pragma once

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/decode.cuh"

/* Activations of a step on the device; addresses follow from the slab and the shape alone. */
struct decode_buffers {
    float *x, *normed; /* [n_seq][hidden] */
    float *q, *k, *v;  /* [n_seq][heads * head_dim] */
    float *context;    /* [n_seq][n_heads * head_dim] */
    float *y;          /* [n_seq][hidden] */
    float *gate, *up;  /* [n_seq][ffn] */
    float *partial;    /* what the attention plan asks for */
    int32_t *first;
};

struct decode_step {
    cuda_device *dev;
    const qb_decoder *d;
    const qb_kv *kv;
    int64_t n_seq;
    attention_plan plan;
    decode_buffers b;
    float *logits;
    bool dependent; /* each kernel may begin while the one before still runs */
};

/* Lays the buffers out from `slab` (NULL: only measures). Gives their bytes. */
int64_t qb_decode_layout(const qb_decoder *d, int64_t n_seq, int64_t partial_bytes, void *slab,
                         decode_buffers *out);
/* Queues all but the embedding: b.x and b.first are set by what was queued before. */
qb_status qb_decode_queue(const decode_step &s);
