/* Norms, rotary positions, the cache, the embedding, Hessians: rows spread over the threads in fixed chunks.
 */
#include "kernels/cpu/device.h"
#include "kernels/cpu/gemm.h"

#include <math.h>
#include <string.h>

qb_status qb_cpu_hessian(qb_device *dev, float *h, const float *x, int64_t T, int64_t n) {
    if (cpu_of(dev)->simd->bf16 && T >= QB_BF16_TILE_COLS)
        return qb_hessian_by_tiles(cpu_of(dev), h, x, T, n);
    qb_gram_lower(dev->threads, true, n, T, 1.0f, x, n, h, n);
    return QB_OK;
}

typedef struct {
    const qb_simd *simd;
    const qb_norm_attr *attr;
    float *y;
    const float *x, *weight, *bias;
    int64_t groups; /* of a row */
} norm_job;

/* A group: its own mean and square over `dim` elements. */
static void norm_groups(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const norm_job *j = ctx;
    int64_t dim = j->attr->dim;
    for (int64_t i = begin; i < end; i++) {
        const float *x = j->x + i * dim;
        float *y = j->y + i * dim, mean = 0.0f, square;
        if (j->attr->kind == QB_NORM_LAYER) {
            mean = j->simd->sum(x, dim) / (float)dim;
            for (int64_t d = 0; d < dim; d++) y[d] = x[d] - mean; /* two passes: no cancellation */
            x = y;
        }
        square = j->simd->dot(x, x, dim) / (float)dim;
        int64_t at = j->attr->weight_rows > 1 ? i % j->groups * dim : 0;
        j->simd->scale_row(y, x, 0.0f, 1.0f / sqrtf(square + j->attr->eps), j->weight ? j->weight + at : NULL,
                           j->bias ? j->bias + at : NULL, dim);
    }
}

qb_status qb_cpu_norm(qb_device *dev, const qb_norm_attr *attr, float *y, const float *x, const float *weight,
                      const float *bias, int64_t T, int64_t n) {
    if (attr->dim < 1 || n % attr->dim != 0 || (attr->weight_rows > 1 && attr->weight_rows * attr->dim != n))
        return qb_fail(QB_ERR_INTERNAL,
                       "a norm of %lld elements with %lld rows of weights over %lld elements",
                       (long long)attr->dim, (long long)attr->weight_rows, (long long)n);
    norm_job j = {cpu_of(dev)->simd, attr, y, x, weight, bias, n / attr->dim};
    qb_parallel_for(dev->threads, T * j.groups, qb_cpu_rows_a_task(attr->dim), norm_groups, &j);
    return QB_OK;
}

typedef struct {
    const qb_rope_attr *attr;
    float *x;
    const float *table;
    int64_t n_tok, first;
} rope_job;

static void rope_head(qb_rope_kind kind, float *x, const float *cos_sin, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
        float *a = kind == QB_ROPE_HALF ? x + i : x + 2 * i, *b = kind == QB_ROPE_HALF ? a + half : a + 1;
        float u = *a, v = *b;
        *a = u * c - v * s;
        *b = v * c + u * s;
    }
}

static void rope_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const rope_job *j = ctx;
    const qb_rope_attr *a = j->attr;
    for (int64_t row = begin; row < end; row++) {
        const float *cos_sin = j->table + (j->first + row % j->n_tok) * a->width;
        for (int64_t h = 0; h < a->heads; h++)
            rope_head(a->kind, j->x + (row * a->heads + h) * a->head_dim + a->offset, cos_sin, a->width / 2);
    }
}

qb_status qb_cpu_rope(qb_device *dev, const qb_rope_attr *attr, float *x, const float *table, int64_t n_seq,
                      int64_t n_tok, int64_t first) {
    rope_job j = {attr, x, table, n_tok, first};
    qb_parallel_for(dev->threads, n_seq * n_tok, qb_cpu_rows_a_task(attr->heads * attr->head_dim), rope_rows,
                    &j);
    return QB_OK;
}

typedef struct {
    const qb_simd *simd;
    const qb_kv *kv;
    int64_t layer, n_tok, first;
    const float *k, *v;
} store_job;

/* One row of a head, of dim elements, to its position; `cache` holds keys or values. */
static void store_head(const store_job *j, void *cache, const float *x, int64_t dim, int64_t row,
                       int64_t head) {
    const qb_kv *kv = j->kv;
    int64_t seq = row / j->n_tok, position = j->first + row % j->n_tok;
    int64_t to = (((j->layer * kv->n_seq + seq) * kv->n_kv_heads + head) * kv->capacity + position) * dim;
    int64_t from = (row * kv->n_kv_heads + head) * dim;
    if (kv->dtype == QB_DTYPE_F16)
        j->simd->f16_of_f32(x + from, dim, (uint16_t *)cache + to);
    else
        memcpy((float *)cache + to, x + from, (size_t)dim * 4);
}

static void store_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const store_job *j = ctx;
    for (int64_t row = begin; row < end; row++)
        for (int64_t h = 0; h < j->kv->n_kv_heads; h++) {
            store_head(j, j->kv->k, j->k, j->kv->head_dim, row, h);
            store_head(j, j->kv->v, j->v, j->kv->value_dim, row, h);
        }
}

qb_status qb_cpu_kv_store(qb_device *dev, const qb_kv *kv, int64_t layer, const float *k, const float *v,
                          int64_t n_seq, int64_t n_tok, int64_t first) {
    if (kv->dtype != QB_DTYPE_F32 && kv->dtype != QB_DTYPE_F16)
        return qb_fail(QB_ERR_UNSUPPORTED, "key-value cache of type %s; float32 and float16 are supported",
                       qb_dtype_name(kv->dtype));
    if (first < 0 || first + n_tok > kv->capacity || n_seq > kv->n_seq)
        return qb_fail(QB_ERR_INTERNAL,
                       "%lld sequences at positions %lld .. %lld do not fit a cache of %lld x %lld",
                       (long long)n_seq, (long long)first, (long long)(first + n_tok - 1),
                       (long long)kv->n_seq, (long long)kv->capacity);
    store_job j = {cpu_of(dev)->simd, kv, layer, n_tok, first, k, v};
    qb_parallel_for(dev->threads, n_seq * n_tok, qb_cpu_rows_a_task(kv->n_kv_heads * kv->head_dim),
                    store_rows, &j);
    return QB_OK;
}

/* ---- the embedding ---- */

typedef struct {
    const qb_simd *simd;
    const qb_packed *table;
    const int32_t *ids;
    float *x, *blocks; /* [workers][padded_cols][QB_BLOCK_ROWS] */
} lookup_job;

/* A row is a lane of its block, which is decoded whole: next to the products of a token that is little. */
static void look_up(void *ctx, int64_t begin, int64_t end, int worker) {
    const lookup_job *j = ctx;
    const qb_packed *p = j->table;
    float *block = j->blocks + worker * p->padded_cols * QB_BLOCK_ROWS;
    for (int64_t t = begin; t < end; t++) {
        float *to = j->x + t * p->cols;
        const float *lane = block + j->ids[t] % QB_BLOCK_ROWS;
        if (p->by_row) {
            qb_packed_row(p, j->ids[t], to);
            continue;
        }
        j->simd->unpack_block(p, j->ids[t] / QB_BLOCK_ROWS, block, QB_BLOCK_ROWS);
        for (int64_t k = 0; k < p->padded_cols; k++) {
            int64_t c = p->source ? p->source[k] : k;
            if (c >= 0) to[c] = lane[k * QB_BLOCK_ROWS];
        }
    }
}

static qb_status embed_packed(cpu_device *d, float *x, const qb_packed *p, const int32_t *ids, int64_t T) {
    lookup_job j = {.simd = d->simd, .table = p, .ids = ids, .x = x};
    int64_t floats = qb_threads_count(d->base.threads) * p->padded_cols * QB_BLOCK_ROWS;
    qb_status st = qb_cpu_workspace(d, floats * (int64_t)sizeof(float), &j.blocks);
    if (st == QB_OK) qb_parallel_for(d->base.threads, T, T < 8 ? T : 4, look_up, &j);
    return st;
}

qb_status qb_cpu_embed(qb_device *dev, float *x, const qb_matrix *table, const int32_t *ids, int64_t T) {
    if (T == 0) return QB_OK;
    if (table->packed) return embed_packed(cpu_of(dev), x, table->packed, ids, T);
    int64_t row_bytes = table->cols * (int64_t)qb_dtype_bytes(table->dtype);
    for (int64_t t = 0; t < T; t++) {
        const uint8_t *row = (const uint8_t *)table->dense + ids[t] * row_bytes;
        qb_status st = qb_to_f32(table->dtype, row, table->cols, x + t * table->cols);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}
