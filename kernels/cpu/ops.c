/* The small ops between the matmuls: rows or elements spread over the threads in fixed chunks. */
#include "kernels/cpu/device.h"
#include "kernels/cpu/gemm.h"

#include <math.h>
#include <string.h>

enum { ELEMENTS_A_TASK = 8192 };

/* Rows of n elements such that a task holds about ELEMENTS_A_TASK. */
static int64_t rows_a_task(int64_t n) {
    return n >= ELEMENTS_A_TASK || n < 1 ? 1 : ELEMENTS_A_TASK / n;
}

qb_status qb_cpu_hessian(qb_device *dev, float *h, const float *x, int64_t T, int64_t n) {
    qb_gram_lower(dev->threads, true, n, T, 1.0f, x, n, h, n);
    return QB_OK;
}

typedef struct {
    const qb_simd *simd;
    qb_norm_kind kind;
    float *y;
    const float *x, *weight, *bias;
    int64_t D;
    float eps;
} norm_job;

static void norm_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const norm_job *j = ctx;
    for (int64_t t = begin; t < end; t++) {
        const float *x = j->x + t * j->D;
        float *y = j->y + t * j->D, mean = 0.0f, square;
        if (j->kind == QB_NORM_LAYER) {
            mean = j->simd->sum(x, j->D) / (float)j->D;
            for (int64_t i = 0; i < j->D; i++) y[i] = x[i] - mean; /* two passes: no cancellation */
            x = y;
        }
        square = j->simd->dot(x, x, j->D) / (float)j->D;
        j->simd->scale_row(y, x, 0.0f, 1.0f / sqrtf(square + j->eps), j->weight, j->bias, j->D);
    }
}

qb_status qb_cpu_norm(qb_device *dev, qb_norm_kind kind, float *y, const float *x, const float *weight,
                      const float *bias, int64_t T, int64_t D, float eps) {
    norm_job j = {cpu_of(dev)->simd, kind, y, x, weight, bias, D, eps};
    qb_parallel_for(dev->threads, T, rows_a_task(D), norm_rows, &j);
    return QB_OK;
}

typedef struct {
    qb_rope_kind kind;
    float *x;
    const float *table;
    int64_t n_tok, first, heads, head_dim, rot;
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
    for (int64_t row = begin; row < end; row++) {
        const float *cos_sin = j->table + (j->first + row % j->n_tok) * j->rot;
        for (int64_t h = 0; h < j->heads; h++)
            rope_head(j->kind, j->x + (row * j->heads + h) * j->head_dim, cos_sin, j->rot / 2);
    }
}

qb_status qb_cpu_rope(qb_device *dev, qb_rope_kind kind, float *x, const float *table, int64_t n_seq,
                      int64_t n_tok, int64_t first, int64_t heads, int64_t head_dim, int64_t rot) {
    rope_job j = {kind, x, table, n_tok, first, heads, head_dim, rot};
    qb_parallel_for(dev->threads, n_seq * n_tok, rows_a_task(heads * head_dim), rope_rows, &j);
    return QB_OK;
}

typedef struct {
    const qb_simd *simd;
    const qb_kv *kv;
    int64_t layer, n_tok, first;
    const float *k, *v;
} store_job;

static void store_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const store_job *j = ctx;
    const qb_kv *kv = j->kv;
    for (int64_t row = begin; row < end; row++)
        for (int64_t h = 0; h < kv->n_kv_heads; h++) {
            int64_t seq = row / j->n_tok, position = j->first + row % j->n_tok;
            int64_t to = (((j->layer * kv->n_seq + seq) * kv->n_kv_heads + h) * kv->capacity + position) *
                         kv->head_dim;
            int64_t from = (row * kv->n_kv_heads + h) * kv->head_dim;
            if (kv->dtype == QB_DTYPE_F16) {
                j->simd->f16_of_f32(j->k + from, kv->head_dim, (uint16_t *)kv->k + to);
                j->simd->f16_of_f32(j->v + from, kv->head_dim, (uint16_t *)kv->v + to);
            } else {
                memcpy((float *)kv->k + to, j->k + from, (size_t)kv->head_dim * 4);
                memcpy((float *)kv->v + to, j->v + from, (size_t)kv->head_dim * 4);
            }
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
    qb_parallel_for(dev->threads, n_seq * n_tok, rows_a_task(kv->n_kv_heads * kv->head_dim), store_rows, &j);
    return QB_OK;
}

typedef struct {
    const qb_simd *simd;
    qb_activation kind;
    float *y;
    const float *gate, *up;
    int64_t n;
} element_job;

static void activate_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const element_job *j = ctx;
    j->simd->activate((int)j->kind, j->y + begin, j->gate + begin, j->up ? j->up + begin : NULL, end - begin);
}

qb_status qb_cpu_activate(qb_device *dev, qb_activation kind, float *y, const float *gate, const float *up,
                          int64_t n) {
    element_job j = {cpu_of(dev)->simd, kind, y, gate, up, n};
    qb_parallel_for(dev->threads, n, ELEMENTS_A_TASK, activate_range, &j);
    return QB_OK;
}

static void add_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const element_job *j = ctx;
    for (int64_t i = begin; i < end; i++) j->y[i] += j->gate[i];
}

qb_status qb_cpu_add(qb_device *dev, float *x, const float *y, int64_t n) {
    element_job j = {.y = x, .gate = y};
    qb_parallel_for(dev->threads, n, 4 * ELEMENTS_A_TASK, add_range, &j);
    return QB_OK;
}

static void add_bias_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const element_job *j = ctx;
    for (int64_t t = begin; t < end; t++)
        for (int64_t i = 0; i < j->n; i++) j->y[t * j->n + i] += j->gate[i];
}

qb_status qb_cpu_add_bias(qb_device *dev, float *x, const float *bias, int64_t T, int64_t n) {
    element_job j = {.y = x, .gate = bias, .n = n};
    qb_parallel_for(dev->threads, T, rows_a_task(n), add_bias_rows, &j);
    return QB_OK;
}

qb_status qb_cpu_embed(qb_device *dev, float *x, const qb_matrix *table, const int32_t *ids, int64_t T) {
    (void)dev;
    if (!table->dense)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "a quantized token embedding; embeddings are kept in 16 or 32 bits");
    int64_t row_bytes = table->cols * (int64_t)qb_dtype_bytes(table->dtype);
    for (int64_t t = 0; t < T; t++) {
        const uint8_t *row = (const uint8_t *)table->dense + ids[t] * row_bytes;
        qb_status st = qb_to_f32(table->dtype, row, table->cols, x + t * table->cols);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}
