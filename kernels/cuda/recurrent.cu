/* Steps that carry something from token to token: short convolutions and the gated delta rule, as
   kernels/cpu/recurrent.c has them. A sequence's tokens follow each other within a block; sequences,
   elements, heads and the columns of a head's matrix are independent and spread over the device. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/place.cuh"

namespace {

enum {
    CONV_THREADS = 128,
    DELTA_COLUMNS = 32,
    DELTA_SLICES = 8,
    DELTA_THREADS = DELTA_COLUMNS * DELTA_SLICES
};

/* One thread an element; its window is a ring in shared memory, [taps][CONV_THREADS]. `state` is what the
   layer's first sequence keeps. */
__global__ void __launch_bounds__(CONV_THREADS)
    conv_kernel(qb_conv_attr a, float *x, const float *__restrict__ weight, float *state,
                int64_t state_floats, int64_t n_tok, cuda_place place) {
    float *window = ptx::dynamic_shared<float>() + threadIdx.x;
    const int64_t element = static_cast<int64_t>(blockIdx.x) * CONV_THREADS + threadIdx.x, seq = blockIdx.y;
    const int taps = static_cast<int>(a.taps);
    if (element >= a.width) return;
    const float *w = weight + element * taps;
    float *past = state + seq * state_floats + a.state + element * (taps - 1);
    const bool fresh = place.position(0) == 0;
    for (int k = 0; k < taps - 1; k++) window[k * CONV_THREADS] = fresh ? 0.0f : past[k];
    int oldest = 0;
    for (int64_t t = 0; t < n_tok; t++) {
        float *at = x + (seq * n_tok + t) * a.width + element, sum = 0.0f;
        window[(oldest + taps - 1) % taps * CONV_THREADS] = *at;
        for (int k = 0; k < taps; k++) sum = fmaf(w[k], window[(oldest + k) % taps * CONV_THREADS], sum);
        *at = sum;
        oldest = (oldest + 1) % taps;
    }
    for (int k = 0; k < taps - 1; k++) past[k] = window[(oldest + k) % taps * CONV_THREADS];
}

struct delta_arguments {
    qb_delta_attr a;
    float *out;
    const float *qkv, *beta, *decay, *a_log, *dt_bias;
    float *state; /* of the layer's first sequence */
    int64_t state_floats, n_tok;
    cuda_place place;
};

/* What a token's q, k, beta and decay make, the same for all columns of a head. */
struct delta_token {
    float q_scale, k_scale, beta, keep;
};

__device__ __forceinline__ float softplus(float x) {
    return x > 20.0f ? x : log1pf(expf(x));
}

/* q and k of the row's head into shared memory, with their factors. */
__device__ __forceinline__ delta_token load_token(const delta_arguments &p, int64_t row, int head, float *q,
                                                  float *k, float *slots) {
    const int64_t keys = p.a.key_heads * p.a.key_dim, width = 2 * keys + p.a.value_heads * p.a.value_dim;
    const float *from = p.qkv + row * width + head / (p.a.value_heads / p.a.key_heads) * p.a.key_dim;
    float qq = 0.0f, kk = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < p.a.key_dim; i += DELTA_THREADS) {
        q[i] = from[i], k[i] = from[keys + i];
        qq = fmaf(q[i], q[i], qq), kk = fmaf(k[i], k[i], kk);
    }
    qq = qb::block_sum(qq, slots);
    kk = qb::block_sum(kk, slots);
    const int64_t at = row * p.a.value_heads + head;
    delta_token t;
    t.q_scale = 1.0f / sqrtf(qq + 1e-6f) / sqrtf(static_cast<float>(p.a.key_dim));
    t.k_scale = 1.0f / sqrtf(kk + 1e-6f);
    t.beta = 1.0f / (1.0f + expf(-p.beta[at]));
    t.keep = expf(-expf(p.a_log[head]) * softplus(p.decay[at] + p.dt_bias[head]));
    return t;
}

/* A column's sum over the slices, in their order; every thread of the column gets it. */
__device__ __forceinline__ float sum_slices(float v, float *partial) {
    const int column = static_cast<int>(threadIdx.x) % DELTA_COLUMNS;
    __syncthreads(); /* who still reads the sums of an earlier call is done */
    partial[threadIdx.x] = v;
    __syncthreads();
    v = partial[column];
    for (int s = 1; s < DELTA_SLICES; s++) v += partial[s * DELTA_COLUMNS + column];
    return v;
}

/* A block holds DELTA_COLUMNS columns of one head's matrix in shared memory, a thread every DELTA_SLICES-th
   row of one of them. */
__global__ void __launch_bounds__(DELTA_THREADS) delta_kernel(const __grid_constant__ delta_arguments p) {
    __shared__ float slots[32], partial[DELTA_THREADS];
    const int key_dim = static_cast<int>(p.a.key_dim), value_dim = static_cast<int>(p.a.value_dim);
    float *S = ptx::dynamic_shared<float>(), *q = S + key_dim * DELTA_COLUMNS, *k = q + key_dim;
    const int column = static_cast<int>(threadIdx.x) % DELTA_COLUMNS,
              slice = static_cast<int>(threadIdx.x) / DELTA_COLUMNS;
    const int d = static_cast<int>(blockIdx.x) * DELTA_COLUMNS + column, head = static_cast<int>(blockIdx.y);
    const int64_t seq = blockIdx.z;
    const bool live = d < value_dim, fresh = p.place.position(0) == 0;
    float *kept =
        p.state + seq * p.state_floats + p.a.state + static_cast<int64_t>(head) * key_dim * value_dim;
    for (int i = slice; i < key_dim; i += DELTA_SLICES)
        S[i * DELTA_COLUMNS + column] = live && !fresh ? kept[i * value_dim + d] : 0.0f;
    for (int64_t row = seq * p.n_tok; row < (seq + 1) * p.n_tok; row++) {
        const delta_token t = load_token(p, row, head, q, k, slots);
        float recalled = 0.0f, out = 0.0f;
        for (int i = slice; i < key_dim; i += DELTA_SLICES) {
            const float s = S[i * DELTA_COLUMNS + column] * t.keep;
            S[i * DELTA_COLUMNS + column] = s;
            recalled = fmaf(s, k[i] * t.k_scale, recalled);
        }
        recalled = sum_slices(recalled, partial);
        const int64_t at = row * p.a.value_heads + head;
        const float *v = p.qkv + row * (2 * p.a.key_heads * key_dim + p.a.value_heads * value_dim) +
                         2 * p.a.key_heads * key_dim + static_cast<int64_t>(head) * value_dim;
        const float change = live ? (v[d] - recalled) * t.beta : 0.0f;
        for (int i = slice; i < key_dim; i += DELTA_SLICES) {
            const float s = fmaf(k[i] * t.k_scale, change, S[i * DELTA_COLUMNS + column]);
            S[i * DELTA_COLUMNS + column] = s;
            out = fmaf(s, q[i] * t.q_scale, out);
        }
        out = sum_slices(out, partial);
        if (live && slice == 0) p.out[at * value_dim + d] = out;
    }
    for (int i = slice; live && i < key_dim; i += DELTA_SLICES)
        kept[i * value_dim + d] = S[i * DELTA_COLUMNS + column];
}

float *state_of(const qb_kv *kv, int64_t layer) {
    return kv->state + layer * kv->n_seq * kv->state_floats;
}

qb_status check_state(const qb_kv *kv, int64_t n_seq, int64_t floats, int64_t at) {
    if (kv->state && n_seq >= 1 && n_seq <= kv->n_seq && at + floats <= kv->state_floats) return QB_OK;
    return qb_fail(
        QB_ERR_INTERNAL, "%lld sequences with %lld floats to keep do not fit a cache of %lld with %lld",
        (long long)n_seq, (long long)(at + floats), (long long)kv->n_seq, (long long)kv->state_floats);
}

} // namespace

qb_status qb_conv_check(const qb_conv_attr &a, const qb_kv *kv, int64_t n_seq) {
    return check_state(kv, n_seq, a.width * (a.taps - 1), a.state);
}

qb_status qb_delta_check(const qb_delta_attr &a, const qb_kv *kv, int64_t n_seq) {
    return check_state(kv, n_seq, a.value_heads * a.key_dim * a.value_dim, a.state);
}

cudaError_t qb_queue_conv(const qb_conv_attr &a, float *x, const float *weight, const qb_kv *kv,
                          int64_t layer, int64_t n_seq, int64_t n_tok, cuda_place place,
                          cudaStream_t stream) {
    if (n_seq * n_tok <= 0) return cudaSuccess;
    return qb_launch(conv_kernel, dim3(qb_blocks(a.width, CONV_THREADS), static_cast<unsigned>(n_seq)),
                     dim3(CONV_THREADS), static_cast<size_t>(a.taps) * CONV_THREADS * sizeof(float), stream,
                     a, x, weight, state_of(kv, layer), kv->state_floats, n_tok, place);
}

cudaError_t qb_queue_delta(const qb_delta_attr &a, float *out, const delta_inputs &in, const qb_kv *kv,
                           int64_t layer, int64_t n_seq, int64_t n_tok, cuda_place place,
                           cudaStream_t stream) {
    if (n_seq * n_tok <= 0) return cudaSuccess;
    const delta_arguments p = {
        a,     out,  in.qkv, in.beta, in.decay, in.a_log, in.dt_bias, state_of(kv, layer), kv->state_floats,
        n_tok, place};
    const dim3 grid(qb_blocks(a.value_dim, DELTA_COLUMNS), static_cast<unsigned>(a.value_heads),
                    static_cast<unsigned>(n_seq));
    const size_t floats = static_cast<size_t>(a.key_dim) * (DELTA_COLUMNS + 2);
    return qb_launch(delta_kernel, grid, dim3(DELTA_THREADS), floats * sizeof(float), stream, p);
}

extern "C" qb_status qb_cuda_conv(qb_device *dev, const qb_conv_attr *attr, float *x, const float *weight,
                                  const qb_kv *kv, int64_t layer, int64_t n_seq, int64_t n_tok,
                                  int64_t first) {
    cuda_device *d = cuda_of(dev);
    const qb_status st = qb_conv_check(*attr, kv, n_seq);
    if (st != QB_OK) return st;
    return qb_cuda_status(
        d, qb_queue_conv(*attr, x, weight, kv, layer, n_seq, n_tok, {NULL, first}, d->stream), "conv");
}

extern "C" qb_status qb_cuda_delta(qb_device *dev, const qb_delta_attr *attr, float *out, const float *qkv,
                                   const float *beta, const float *decay, const float *a_log,
                                   const float *dt_bias, const qb_kv *kv, int64_t layer, int64_t n_seq,
                                   int64_t n_tok, int64_t first) {
    cuda_device *d = cuda_of(dev);
    const qb_status st = qb_delta_check(*attr, kv, n_seq);
    if (st != QB_OK) return st;
    const delta_inputs in = {qkv, beta, decay, a_log, dt_bias};
    return qb_cuda_status(
        d, qb_queue_delta(*attr, out, in, kv, layer, n_seq, n_tok, {NULL, first}, d->stream), "delta");
}
