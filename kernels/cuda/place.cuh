/* Ops that depend on the position of their rows, for the plain calls and for captured steps alike: a captured
   launch reads the position from device memory, so that it serves every token. */
#pragma once

#include "kernels/cuda/cuda.cuh"

struct cuda_place {
    const int32_t *dev_first; /* position of each sequence's first row in device memory, or NULL: `first` */
    int64_t first;
    __device__ __forceinline__ int64_t position(int64_t tok) const {
        return (dev_first ? *dev_first : first) + tok;
    }
};

/* What a gated delta rule reads; rows of all sequences. */
struct delta_inputs {
    const float *qkv, *beta, *decay, *a_log, *dt_bias;
};
enum { QB_DELTA_MAX_KEY_DIM = 256 }; /* rows of a head's matrix in shared memory */

/* QB_OK when the cache keeps what the step needs. */
qb_status qb_conv_check(const qb_conv_attr &a, const qb_kv *kv, int64_t n_seq) QB_NODISCARD;
qb_status qb_delta_check(const qb_delta_attr &a, const qb_kv *kv, int64_t n_seq) QB_NODISCARD;
/* qb_backend's conv and delta. */
cudaError_t qb_queue_conv(const qb_conv_attr &a, float *x, const float *weight, const qb_kv *kv,
                          int64_t layer, int64_t n_seq, int64_t n_tok, cuda_place place, cudaStream_t stream);
cudaError_t qb_queue_delta(const qb_delta_attr &a, float *out, const delta_inputs &in, const qb_kv *kv,
                           int64_t layer, int64_t n_seq, int64_t n_tok, cuda_place place,
                           cudaStream_t stream);

/* qb_backend's rope, kv_store and temperature of n_seq * n_tok rows. */
cudaError_t qb_queue_rope(const qb_rope_attr &attr, float *x, const float *table, int64_t n_seq,
                          int64_t n_tok, cuda_place place, cudaStream_t stream);
cudaError_t qb_queue_store(const qb_kv *kv, int64_t layer, const float *k, const float *v, int64_t n_seq,
                           int64_t n_tok, cuda_place place, cudaStream_t stream);
cudaError_t qb_queue_temperature(const qb_temperature_attr &attr, float *x, int64_t n_seq, int64_t n_tok,
                                 int64_t n, cuda_place place, cudaStream_t stream);
/* x[n_seq][n] += table[position + offset]: QB_STEP_POSITION of single rows. */
cudaError_t qb_queue_position(float *x, const float *table, int64_t offset, int64_t n_seq, int64_t n,
                              cuda_place place, cudaStream_t stream);
