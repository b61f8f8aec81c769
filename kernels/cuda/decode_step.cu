/* The order of a token's kernels. */
#include "kernels/cuda/decode_step.cuh"

#include "kernels/cuda/decode_gemv.cuh"
#include "kernels/cuda/matrix.h"

#include <math.h>

int64_t qb_decode_layout(const qb_decoder *d, int64_t n_seq, int64_t partial_bytes, void *slab,
                         decode_buffers *out) {
    const int64_t q = d->n_heads * d->head_dim, kv = d->n_kv_heads * d->head_dim, row = sizeof(float) * n_seq;
    int64_t at = 0;
    auto take = [&](int64_t bytes) {
        void *p = slab ? static_cast<char *>(slab) + at : nullptr;
        at += (bytes + 255) / 256 * 256;
        return static_cast<float *>(p);
    };
    out->x = take(d->hidden * row);
    out->normed = take(d->hidden * row);
    out->q = take(q * row);
    out->k = take(kv * row);
    out->v = take(kv * row);
    out->context = take(q * row);
    out->y = take(d->hidden * row);
    out->gate = take(d->gated ? d->ffn * row : 0);
    out->up = take(d->ffn * row);
    out->partial = take(partial_bytes);
    out->first = reinterpret_cast<int32_t *>(take(sizeof(int32_t)));
    return at;
}

static decode_norm norm_of(const qb_decoder *d, const float *weight, const float *bias) {
    return {d->norm, weight, bias, static_cast<int32_t>(d->hidden), d->norm_eps};
}

static decode_device device_of(const decode_step &s) {
    return {s.dev->stream, s.dev->multiprocessors, s.dev->shared_bytes, s.dependent};
}

/* What a product left in b.y and has not been added to the residual stream yet. */
struct pending_sum {
    bool waits;
    const float *bias;
};

static qb_status matmul(const decode_step &s, float *y, const float *x, const qb_matrix *w) {
    return qb_cuda_matmul(&s.dev->base, y, x, s.n_seq, w);
}

/* x += what waits; b.normed = norm(x) unless `n` is NULL. */
static qb_status add_and_norm(const decode_step &s, pending_sum *pending, const decode_norm *n) {
    static const decode_norm none = {};
    if (!pending->waits && !n) return QB_OK;
    const float *y = pending->waits ? s.b.y : NULL;
    decode_norm norm = n ? *n : none;
    norm.dim = static_cast<int32_t>(s.d->hidden);
    const cudaError_t error =
        qb_decode_residual_norm(norm, s.n_seq, s.b.x, y, pending->bias, n ? s.b.normed : NULL, device_of(s));
    *pending = {};
    return qb_cuda_status(s.dev, error, "residual and norm");
}

/* Attention of one block, with the biases of q, k, v, their turn and the cache's new row. */
static qb_status attend(const decode_step &s, int64_t layer) {
    const qb_decoder *d = s.d;
    const qb_block_weights *w = d->blocks[layer];
    attention_args a = qb_attention_args(s.kv, layer, d->n_heads, 1.0f / sqrtf((float)d->head_dim));
    a.q = s.b.q;
    a.out = s.b.context;
    a.dev_first = s.b.first;
    a.dependent = s.dependent;
    a.n_tok = 1;
    a.n_seq = static_cast<int32_t>(s.n_seq);
    qb_attention_cut(&a, s.plan, s.b.partial);
    a.append = {s.b.k,
                s.b.v,
                {w->bias[QB_LINEAR_Q], w->bias[QB_LINEAR_K], w->bias[QB_LINEAR_V]},
                d->rope_table,
                static_cast<int32_t>(d->rope_width),
                d->rope};
    return qb_cuda_status(s.dev, qb_attention_decode(a, s.dev->stream), "attention");
}

static qb_status activate(const decode_step &s, const qb_block_weights *w) {
    const decode_buffers &b = s.b;
    const cudaError_t error =
        qb_decode_activate(s.d->activation, s.n_seq, s.d->ffn, b.up, s.d->gated ? b.gate : NULL,
                           w->bias[QB_LINEAR_GATE], b.up, w->bias[QB_LINEAR_UP], device_of(s));
    return qb_cuda_status(s.dev, error, "activation");
}

/* ---- products that fold in what stands around them ---- */

static bool fits(const decode_step &s, const qb_matrix *m) {
    return qb_decode_gemv_fits(*qb_cuda_view_of(m), s.n_seq, device_of(s));
}
static bool block_fits(const decode_step &s, const qb_block_weights *w) {
    for (int l = 0; l < QB_LINEAR_COUNT; l++)
        if (w->linear[l].rows > 0 && !fits(s, &w->linear[l])) return false;
    return true;
}

/* y[i] = m[i] norm(x): neighbours that are alike share a launch. */
static qb_status project(const decode_step &s, const decode_norm &n, int count, const qb_matrix *const *m,
                         float *const *y) {
    for (int i = 0; i < count;) {
        decode_parts parts = {};
        int used = 0;
        const qb_cuda_view *head = qb_cuda_view_of(m[i]);
        while (i < count && used < QB_DECODE_PARTS && qb_decode_gemv_alike(*head, *qb_cuda_view_of(m[i]))) {
            parts.v[used] = *qb_cuda_view_of(m[i]);
            parts.y[used] = y[i++];
            parts.first[used + 1] =
                parts.first[used] + static_cast<int>(qb_blocks(parts.v[used].rows, QB_TILE_ROWS));
            used++;
        }
        for (; used < QB_DECODE_PARTS; used++) parts.first[used + 1] = parts.first[used];
        qb_status st = qb_cuda_status(s.dev, qb_decode_project(parts, n, s.b.x, s.n_seq, device_of(s)),
                                      "decode product");
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

static qb_status add_product(const decode_step &s, const qb_matrix *m, const float *bias, const float *x) {
    return qb_cuda_status(s.dev,
                          qb_decode_residual(*qb_cuda_view_of(m), bias, x, s.b.x, s.n_seq, device_of(s)),
                          "decode product");
}

static qb_status mlp(const decode_step &s, const qb_block_weights *w) {
    const qb_decoder *d = s.d;
    const decode_norm n = norm_of(d, w->norm_mlp, w->norm_mlp_bias);
    const qb_cuda_view *gate = d->gated ? qb_cuda_view_of(&w->linear[QB_LINEAR_GATE]) : NULL;
    const qb_cuda_view *up = qb_cuda_view_of(&w->linear[QB_LINEAR_UP]);
    if (gate && !qb_decode_gemv_alike(*gate, *up)) {
        const qb_matrix *m[2] = {&w->linear[QB_LINEAR_GATE], &w->linear[QB_LINEAR_UP]};
        float *y[2] = {s.b.gate, s.b.up};
        qb_status st = project(s, n, 2, m, y);
        return st == QB_OK ? activate(s, w) : st;
    }
    const cudaError_t error = qb_decode_mlp(gate, w->bias[QB_LINEAR_GATE], *up, w->bias[QB_LINEAR_UP],
                                            d->activation, n, s.b.x, s.b.up, s.n_seq, device_of(s));
    return qb_cuda_status(s.dev, error, "decode product");
}

/* ---- blocks ---- */

/* Five or six kernels: q k v, attention (and the join of its splits), o, gate and up, down. */
static qb_status queue_folded(const decode_step &s, int64_t layer) {
    const qb_block_weights *w = s.d->blocks[layer];
    const qb_matrix *m[3] = {&w->linear[QB_LINEAR_Q], &w->linear[QB_LINEAR_K], &w->linear[QB_LINEAR_V]};
    float *y[3] = {s.b.q, s.b.k, s.b.v};
    qb_status st = project(s, norm_of(s.d, w->norm_attention, w->norm_attention_bias), 3, m, y);
    if (st == QB_OK) st = attend(s, layer);
    if (st == QB_OK) st = add_product(s, &w->linear[QB_LINEAR_O], w->bias[QB_LINEAR_O], s.b.context);
    if (st == QB_OK) st = mlp(s, w);
    if (st == QB_OK) st = add_product(s, &w->linear[QB_LINEAR_DOWN], w->bias[QB_LINEAR_DOWN], s.b.up);
    return st;
}

/* The same by the general products, which take any number of rows and any weights. */
static qb_status queue_general(const decode_step &s, int64_t layer, pending_sum *pending) {
    const decode_buffers &b = s.b;
    const qb_block_weights *w = s.d->blocks[layer];
    const qb_matrix *m = w->linear;
    const decode_norm attention = norm_of(s.d, w->norm_attention, w->norm_attention_bias),
                      mlp_norm = norm_of(s.d, w->norm_mlp, w->norm_mlp_bias);
    qb_status st = add_and_norm(s, pending, &attention);
    if (st == QB_OK) st = matmul(s, b.q, b.normed, &m[QB_LINEAR_Q]);
    if (st == QB_OK) st = matmul(s, b.k, b.normed, &m[QB_LINEAR_K]);
    if (st == QB_OK) st = matmul(s, b.v, b.normed, &m[QB_LINEAR_V]);
    if (st == QB_OK) st = attend(s, layer);
    if (st == QB_OK) st = matmul(s, b.y, b.context, &m[QB_LINEAR_O]);
    *pending = {true, w->bias[QB_LINEAR_O]};
    if (st == QB_OK) st = add_and_norm(s, pending, &mlp_norm);
    if (st == QB_OK) st = matmul(s, b.up, b.normed, &m[QB_LINEAR_UP]);
    if (st == QB_OK && s.d->gated) st = matmul(s, b.gate, b.normed, &m[QB_LINEAR_GATE]);
    if (st == QB_OK) st = activate(s, w);
    if (st == QB_OK) st = matmul(s, b.y, b.up, &m[QB_LINEAR_DOWN]);
    *pending = {true, w->bias[QB_LINEAR_DOWN]};
    return st;
}

qb_status qb_decode_queue(const decode_step &s) {
    const qb_decoder *d = s.d;
    const decode_norm last = norm_of(d, d->final_norm, d->final_norm_bias);
    pending_sum pending = {};
    qb_status st = QB_OK;
    for (int64_t layer = 0; st == QB_OK && layer < d->n_layers; layer++) {
        if (block_fits(s, d->blocks[layer])) {
            st = add_and_norm(s, &pending, NULL);
            if (st == QB_OK) st = queue_folded(s, layer);
        } else {
            st = queue_general(s, layer, &pending);
        }
    }
    if (st != QB_OK) return st;
    if (fits(s, d->head)) {
        float *y = s.logits;
        st = add_and_norm(s, &pending, NULL);
        return st == QB_OK ? project(s, last, 1, &d->head, &y) : st;
    }
    st = add_and_norm(s, &pending, &last);
    return st == QB_OK ? matmul(s, s.logits, s.b.normed, d->head) : st;
}
