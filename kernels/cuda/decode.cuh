/* The decode step's own kernels: what stands between the matrix products of one token of up to
   QB_DECODE_MAX_SEQ sequences. The position is read from device memory, so that captured launches serve every
   token. */
#pragma once

#include "kernels/cuda/cuda.cuh"

enum { QB_DECODE_MAX_SEQ = 64 };

/* The tokens of a step, passed by value: the caller's array may change as soon as the call returns. */
struct decode_tokens {
    int32_t first, n_seq;
    int32_t ids[QB_DECODE_MAX_SEQ];
};

/* What greedy decoding keeps on the device. A call takes up to QB_DECODE_RUN tokens of a sequence. */
constexpr int64_t QB_DECODE_RUN = 64;
struct decode_chosen {
    int32_t *next;     /* [n_seq]: the ids of the coming step */
    int32_t *history;  /* [QB_DECODE_RUN][n_seq]: what was chosen; -1 where the logits are not finite */
    int32_t *n_done;   /* rows of it */
    void *parts;       /* qb_decode_parts_bytes */
    uint32_t *arrived; /* a counter, 0 between launches */
};

/* Where a step's kernels go and how much of the device they may take. */
struct decode_device {
    cudaStream_t stream;
    int multiprocessors;
    int64_t shared_bytes; /* that a block may have */
    bool async_copies;    /* cp.async: compute capability 8.0 and above */
    bool dependent;       /* kernels begin while the one before still runs, and wait for it inside */
};

/* A norm of rows of `dim`; bias NULL without. */
struct decode_norm {
    qb_norm_kind kind;
    const float *weight, *bias;
    int32_t dim;
    float eps;
};

/* x[n_seq][cols] = rows of the table (+ the position's row), and the position into *dev_first. */
cudaError_t qb_decode_embed(const decode_tokens &t, const qb_matrix *table, const float *embed_position,
                            float *x, int32_t *dev_first, cudaStream_t stream);
/* The same of the ids and the position on the device. */
cudaError_t qb_decode_embed_next(const int32_t *ids, const int32_t *dev_first, int64_t n_seq,
                                 const qb_matrix *table, const float *embed_position, float *x,
                                 cudaStream_t stream);
/* Ids and position of the first step of a run. */
cudaError_t qb_decode_begin(const decode_tokens &t, const decode_chosen &c, int32_t *dev_first,
                            cudaStream_t stream);
/* The largest of each sequence's logits, the first of equals, into history and next; the position moves on by
   one. */
cudaError_t qb_decode_choose(const float *logits, int64_t n_seq, int64_t vocab, const decode_chosen &c,
                             int32_t *dev_first, const decode_device &dev);
int64_t qb_decode_parts_bytes(int64_t n_seq, int64_t vocab);
/* x += y + bias (y NULL: x stays; bias may be NULL), then out = norm(x) unless out is NULL. */
cudaError_t qb_decode_residual_norm(const decode_norm &n, int64_t n_seq, float *x, const float *y,
                                    const float *bias, float *out, const decode_device &dev);
/* y[n_seq][n] = act(gate + bias) * (up + bias); gate NULL: act(up + bias). */
cudaError_t qb_decode_activate(qb_activation kind, int64_t n_seq, int64_t n, float *y, const float *gate,
                               const float *gate_bias, const float *up, const float *up_bias,
                               const decode_device &dev);
