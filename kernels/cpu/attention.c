/* Attention over the cache. Few queries a sequence (decode): vector dot products over stretches of the
   context of fixed length, whose partial results are joined in order. Many (prefill): query tiles through
   SGEMM. */
#include "kernels/cpu/device.h"

#include <cblas.h>
#include <math.h>

enum { FEW_QUERIES = 4, STRETCH = 512, QUERY_TILE = 64, KEY_TILE = 512 };

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

typedef struct {
    const qb_simd *simd;
    const qb_attention *a;
    const qb_kv *kv;
    int64_t group;     /* query heads that share a key head */
    int64_t stretches; /* decode */
    int64_t tiles;     /* prefill */
    int64_t scratch_floats;
    float *scratch;  /* a worker's own */
    float *partials; /* [row][kv head][stretch][group * (dim + 2)] */
} attention_job;

/* Keys or values of one head from position 0. */
static const uint8_t *cache_head(const qb_kv *kv, const void *base, int64_t layer, int64_t seq,
                                 int64_t head) {
    int64_t at = ((layer * kv->n_seq + seq) * kv->n_kv_heads + head) * kv->capacity * kv->head_dim;
    return (const uint8_t *)base + at * (kv->dtype == QB_DTYPE_F16 ? 2 : 4);
}

static const float *query(const attention_job *j, int64_t row, int64_t head) {
    return j->a->q + (row * j->a->n_heads + head) * j->kv->head_dim;
}
static float *result(const attention_job *j, int64_t row, int64_t head) {
    return j->a->out + (row * j->a->n_heads + head) * j->kv->head_dim;
}

/* ---- decode ---- */

static float *partial(const attention_job *j, int64_t row, int64_t kv_head, int64_t stretch) {
    int64_t at = (row * j->kv->n_kv_heads + kv_head) * j->stretches + stretch;
    return j->partials + at * j->group * (j->kv->head_dim + 2);
}

static void attend_stretches(void *ctx, int64_t begin, int64_t end, int worker) {
    const attention_job *j = ctx;
    const qb_kv *kv = j->kv;
    int64_t element = kv->dtype == QB_DTYPE_F16 ? 2 : 4;
    qb_attend_fn attend = kv->dtype == QB_DTYPE_F16 ? j->simd->attend_f16 : j->simd->attend_f32;
    for (int64_t i = begin; i < end; i++) {
        int64_t stretch = i % j->stretches, head = i / j->stretches % kv->n_kv_heads;
        int64_t row = i / j->stretches / kv->n_kv_heads, seq = row / j->a->n_tok;
        int64_t from = stretch * STRETCH, keys = least(STRETCH, j->a->first + row % j->a->n_tok + 1 - from);
        if (keys <= 0) continue;
        int64_t skip = from * kv->head_dim * element;
        float *p = partial(j, row, head, stretch);
        attend(query(j, row, head * j->group), j->group, kv->head_dim,
               cache_head(kv, kv->k, j->a->layer, seq, head) + skip,
               cache_head(kv, kv->v, j->a->layer, seq, head) + skip, keys, j->a->scale,
               j->scratch + worker * j->scratch_floats, p, p + j->group, p + 2 * j->group);
    }
}

/* Stretches joined from first to last, each weighted by e^(its largest score - the largest of all). */
static void join_head(const attention_job *j, int64_t row, int64_t kv_head, int64_t h) {
    int64_t dim = j->kv->head_dim, n = (j->a->first + row % j->a->n_tok) / STRETCH + 1;
    float largest = -INFINITY, total = 0.0f;
    for (int64_t s = 0; s < n; s++) largest = fmaxf(largest, partial(j, row, kv_head, s)[h]);
    float *out = result(j, row, kv_head * j->group + h);
    for (int64_t d = 0; d < dim; d++) out[d] = 0.0f;
    for (int64_t s = 0; s < n; s++) {
        const float *p = partial(j, row, kv_head, s), *values = p + 2 * j->group + h * dim;
        float weight = expf(p[h] - largest);
        total += weight * p[j->group + h];
        for (int64_t d = 0; d < dim; d++) out[d] += weight * values[d];
    }
    for (int64_t d = 0; d < dim; d++) out[d] /= total;
}

static qb_status attend_few(cpu_device *d, attention_job *j) {
    const qb_attention *a = j->a;
    int64_t rows = a->n_seq * a->n_tok;
    j->stretches = (a->first + a->n_tok - 1) / STRETCH + 1;
    j->scratch_floats = STRETCH;
    int64_t partials = rows * j->kv->n_kv_heads * j->stretches * j->group * (j->kv->head_dim + 2);
    int64_t scratch = j->scratch_floats * qb_threads_count(d->base.threads);
    qb_status st = qb_cpu_workspace(d, (partials + scratch) * 4, &j->scratch);
    if (st != QB_OK) return st;
    j->partials = j->scratch + scratch;
    qb_parallel_for(d->base.threads, rows * j->kv->n_kv_heads * j->stretches, 1, attend_stretches, j);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t h = 0; h < a->n_heads; h++) join_head(j, row, h / j->group, h % j->group);
    return QB_OK;
}

/* ---- prefill ---- */

/* Keys or values [from, from + n) in float32: a view, or converted into `to`. */
static const float *cache_tile(const attention_job *j, const uint8_t *head, int64_t from, int64_t n,
                               float *to) {
    int64_t dim = j->kv->head_dim;
    if (j->kv->dtype == QB_DTYPE_F32) return (const float *)(const void *)head + from * dim;
    j->simd->f32_of_f16((const uint16_t *)(const void *)head + from * dim, n * dim, to);
    return to;
}

/* Row t of the tile sees keys 0 .. first + t: softmax over these (not yet divided), zeros behind. */
static void softmax_row(const attention_job *j, float *scores, int64_t seen, int64_t keys, float *sum) {
    float shift = j->simd->largest(scores, seen) * j->a->scale;
    *sum = j->simd->exp_row(scores, seen, j->a->scale, shift);
    for (int64_t k = seen; k < keys; k++) scores[k] = 0.0f;
}

static void attend_tile(const attention_job *j, int64_t seq, int64_t head, int64_t tile, float *scores) {
    const qb_attention *a = j->a;
    const qb_kv *kv = j->kv;
    int64_t dim = kv->head_dim, ld = a->n_heads * dim;
    int64_t t0 = tile * QUERY_TILE, rows = least(QUERY_TILE, a->n_tok - t0), keys = a->first + t0 + rows;
    const uint8_t *k_head = cache_head(kv, kv->k, a->layer, seq, head / j->group);
    const uint8_t *v_head = cache_head(kv, kv->v, a->layer, seq, head / j->group);
    const float *q = query(j, seq * a->n_tok + t0, head);
    float *out = result(j, seq * a->n_tok + t0, head);
    float *converted = scores + QUERY_TILE * keys, sums[QUERY_TILE] = {0};
    for (int64_t k = 0; k < keys; k += KEY_TILE) {
        int64_t n = least(KEY_TILE, keys - k);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)n, (int)dim, 1.0f, q, (int)ld,
                    cache_tile(j, k_head, k, n, converted), (int)dim, 0.0f, scores + k, (int)keys);
    }
    for (int64_t t = 0; t < rows; t++)
        softmax_row(j, scores + t * keys, a->first + t0 + t + 1, keys, &sums[t]);
    for (int64_t k = 0; k < keys; k += KEY_TILE) {
        int64_t n = least(KEY_TILE, keys - k);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)dim, (int)n, 1.0f, scores + k,
                    (int)keys, cache_tile(j, v_head, k, n, converted), (int)dim, k == 0 ? 0.0f : 1.0f, out,
                    (int)ld);
    }
    for (int64_t t = 0; t < rows; t++)
        for (int64_t d = 0; d < dim; d++) out[t * ld + d] /= sums[t];
}

static void attend_tiles(void *ctx, int64_t begin, int64_t end, int worker) {
    const attention_job *j = ctx;
    for (int64_t i = begin; i < end; i++) {
        int64_t tile = j->tiles - 1 - i % j->tiles; /* the longest first, so that threads end together */
        int64_t head = i / j->tiles % j->a->n_heads, seq = i / j->tiles / j->a->n_heads;
        attend_tile(j, seq, head, tile, j->scratch + worker * j->scratch_floats);
    }
}

static qb_status attend_many(cpu_device *d, attention_job *j) {
    const qb_attention *a = j->a;
    j->tiles = (a->n_tok + QUERY_TILE - 1) / QUERY_TILE;
    j->scratch_floats = QUERY_TILE * (a->first + a->n_tok) + KEY_TILE * j->kv->head_dim;
    qb_status st =
        qb_cpu_workspace(d, j->scratch_floats * qb_threads_count(d->base.threads) * 4, &j->scratch);
    if (st != QB_OK) return st;
    qb_parallel_for(d->base.threads, a->n_seq * a->n_heads * j->tiles, 1, attend_tiles, j);
    return QB_OK;
}

qb_status qb_cpu_attention(qb_device *dev, const qb_attention *a) {
    cpu_device *d = cpu_of(dev);
    const qb_kv *kv = a->kv;
    if (kv->dtype != QB_DTYPE_F32 && kv->dtype != QB_DTYPE_F16)
        return qb_fail(QB_ERR_UNSUPPORTED, "key-value cache of type %s; float32 and float16 are supported",
                       qb_dtype_name(kv->dtype));
    if (kv->n_kv_heads < 1 || a->n_heads % kv->n_kv_heads != 0)
        return qb_fail(QB_ERR_UNSUPPORTED, "%lld query heads over %lld key heads; expected a multiple",
                       (long long)a->n_heads, (long long)kv->n_kv_heads);
    if (a->n_tok < 1 || a->first < 0 || a->first + a->n_tok > kv->capacity || a->n_seq > kv->n_seq)
        return qb_fail(QB_ERR_INTERNAL, "%lld tokens from position %lld do not fit a cache of %lld",
                       (long long)a->n_tok, (long long)a->first, (long long)kv->capacity);
    attention_job j = {.simd = d->simd, .a = a, .kv = kv, .group = a->n_heads / kv->n_kv_heads};
    return a->n_tok <= FEW_QUERIES ? attend_few(d, &j) : attend_many(d, &j);
}
