/* Steps that carry something from token to token: short convolutions and the gated delta rule. A sequence's
   tokens follow each other; sequences, elements and heads are independent and spread over the threads. */
#include "kernels/cpu/device.h"

#include <math.h>
#include <string.h>

typedef struct {
    float *out;
    const float *const *x;
    const int64_t *n;
} concat_job;

static void concat_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const concat_job *j = ctx;
    int64_t width = j->n[0] + j->n[1] + (j->x[2] ? j->n[2] : 0);
    for (int64_t t = begin; t < end; t++) {
        float *to = j->out + t * width;
        for (int i = 0; i < 3 && j->x[i]; i++) {
            memcpy(to, j->x[i] + t * j->n[i], (size_t)j->n[i] * sizeof *to);
            to += j->n[i];
        }
    }
}

qb_status qb_cpu_concat(qb_device *dev, float *out, const float *const x[3], const int64_t n[3], int64_t T) {
    concat_job j = {out, x, n};
    qb_parallel_for(dev->threads, T, 16, concat_rows, &j);
    return QB_OK;
}

/* What a sequence keeps for a step of the layer. */
static float *kept(const qb_kv *kv, int64_t layer, int64_t seq, int64_t at) {
    return kv->state + (layer * kv->n_seq + seq) * kv->state_floats + at;
}

static qb_status check_state(const qb_kv *kv, int64_t n_seq, int64_t floats, int64_t at) {
    int64_t need = at + floats;
    if (kv->state && n_seq <= kv->n_seq && need <= kv->state_floats) return QB_OK;
    return qb_fail(QB_ERR_INTERNAL,
                   "%lld sequences with %lld floats to keep do not fit a cache of %lld with %lld",
                   (long long)n_seq, (long long)need, (long long)kv->n_seq, (long long)kv->state_floats);
}

typedef struct {
    const qb_conv_attr *a;
    float *x;
    const float *weight;
    const qb_kv *kv;
    int64_t layer, n_tok, first;
} conv_job;

/* Element by element: the last inputs lie in a window that slides over the tokens. */
static void conv_elements(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const conv_job *j = ctx;
    int64_t width = j->a->width, taps = j->a->taps;
    for (int64_t i = begin; i < end; i++) {
        int64_t seq = i / width, element = i % width;
        float *past = kept(j->kv, j->layer, seq, j->a->state) + element * (taps - 1), window[64] = {0};
        const float *w = j->weight + element * taps;
        if (j->first > 0) memcpy(window, past, (size_t)(taps - 1) * sizeof *window);
        for (int64_t t = 0; t < j->n_tok; t++) {
            float *x = j->x + (seq * j->n_tok + t) * width + element, sum = 0;
            window[taps - 1] = *x;
            for (int64_t k = 0; k < taps; k++) sum += w[k] * window[k];
            *x = sum;
            memmove(window, window + 1, (size_t)(taps - 1) * sizeof *window);
        }
        memcpy(past, window, (size_t)(taps - 1) * sizeof *window);
    }
}

qb_status qb_cpu_conv(qb_device *dev, const qb_conv_attr *attr, float *x, const float *weight,
                      const qb_kv *kv, int64_t layer, int64_t n_seq, int64_t n_tok, int64_t first) {
    qb_status st = check_state(kv, n_seq, attr->width * (attr->taps - 1), attr->state);
    if (st != QB_OK) return st;
    conv_job j = {attr, x, weight, kv, layer, n_tok, first};
    qb_parallel_for(dev->threads, n_seq * attr->width, 64, conv_elements, &j);
    return QB_OK;
}

typedef struct {
    const qb_simd *simd;
    const qb_delta_attr *a;
    float *out;
    const float *qkv, *beta, *decay, *a_log, *dt_bias;
    const qb_kv *kv;
    int64_t layer, n_tok, first;
} delta_job;

/* transformers' l2norm: x / sqrt(sum of squares + 1e-6), q divided by sqrt(key_dim) besides. */
static float inverse_length(const qb_simd *simd, const float *x, int64_t n) {
    return 1.0f / sqrtf(simd->dot(x, x, n) + 1e-6f);
}

static float softplus(float x) {
    return x > 20.0f ? x : log1pf(expf(x));
}

/* One token of one value head. S is [key_dim, value_dim]; what k recalls of it is summed into `recalled`. */
static void delta_token(const delta_job *j, int64_t row, int64_t head, float *S, float *recalled) {
    const qb_delta_attr *a = j->a;
    int64_t keys = a->key_heads * a->key_dim, width = 2 * keys + a->value_heads * a->value_dim;
    const float *q = j->qkv + row * width + head / (a->value_heads / a->key_heads) * a->key_dim,
                *k = q + keys;
    const float *v = j->qkv + row * width + 2 * keys + head * a->value_dim;
    float *out = j->out + (row * a->value_heads + head) * a->value_dim;
    float q_scale = inverse_length(j->simd, q, a->key_dim) / sqrtf((float)a->key_dim);
    float k_scale = inverse_length(j->simd, k, a->key_dim);
    float beta = 1.0f / (1.0f + expf(-j->beta[row * a->value_heads + head]));
    float keep =
        expf(-expf(j->a_log[head]) * softplus(j->decay[row * a->value_heads + head] + j->dt_bias[head]));
    for (int64_t d = 0; d < a->value_dim; d++) recalled[d] = out[d] = 0;
    for (int64_t i = 0; i < a->key_dim; i++) {
        float *s = S + i * a->value_dim, ki = k[i] * k_scale;
        for (int64_t d = 0; d < a->value_dim; d++) {
            s[d] *= keep;
            recalled[d] += s[d] * ki;
        }
    }
    for (int64_t d = 0; d < a->value_dim; d++) recalled[d] = (v[d] - recalled[d]) * beta;
    for (int64_t i = 0; i < a->key_dim; i++) {
        float *s = S + i * a->value_dim, ki = k[i] * k_scale, qi = q[i] * q_scale;
        for (int64_t d = 0; d < a->value_dim; d++) {
            s[d] += ki * recalled[d];
            out[d] += s[d] * qi;
        }
    }
}

enum { VALUE_DIM_MAX = 1024 };

static void delta_heads(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const delta_job *j = ctx;
    const qb_delta_attr *a = j->a;
    int64_t floats = a->key_dim * a->value_dim;
    float recalled[VALUE_DIM_MAX];
    for (int64_t i = begin; i < end; i++) {
        int64_t seq = i / a->value_heads, head = i % a->value_heads;
        float *S = kept(j->kv, j->layer, seq, a->state) + head * floats;
        if (j->first == 0) memset(S, 0, (size_t)floats * sizeof *S);
        for (int64_t t = 0; t < j->n_tok; t++) delta_token(j, seq * j->n_tok + t, head, S, recalled);
    }
}

qb_status qb_cpu_delta(qb_device *dev, const qb_delta_attr *attr, float *out, const float *qkv,
                       const float *beta, const float *decay, const float *a_log, const float *dt_bias,
                       const qb_kv *kv, int64_t layer, int64_t n_seq, int64_t n_tok, int64_t first) {
    qb_status st = check_state(kv, n_seq, attr->value_heads * attr->key_dim * attr->value_dim, attr->state);
    if (st != QB_OK) return st;
    if (attr->value_dim > VALUE_DIM_MAX)
        return qb_fail(QB_ERR_UNSUPPORTED, "delta step: value heads of %lld elements; at most %d",
                       (long long)attr->value_dim, VALUE_DIM_MAX);
    delta_job j = {cpu_of(dev)->simd, attr, out, qkv, beta, decay, a_log, dt_bias, kv, layer, n_tok, first};
    qb_parallel_for(dev->threads, n_seq * attr->value_heads, 1, delta_heads, &j);
    return QB_OK;
}
