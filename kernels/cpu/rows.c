/* Ops that move rows: fused tensors cut and joined, tokens to their experts and back. */
#include "kernels/cpu/device.h"

#include <string.h>

typedef struct {
    const qb_split_attr *attr;
    const float *x;
    float *const *out;
} split_job;

static void split_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const split_job *j = ctx;
    const qb_split_attr *a = j->attr;
    int64_t group = a->width[0] + a->width[1] + a->width[2];
    for (int64_t t = begin; t < end; t++)
        for (int64_t g = 0; g < a->groups; g++) {
            const float *from = j->x + (t * a->groups + g) * group;
            for (int i = 0; i < 3; from += a->width[i++])
                if (a->width[i] > 0)
                    memcpy(j->out[i] + (t * a->groups + g) * a->width[i], from, (size_t)a->width[i] * 4);
        }
}

qb_status qb_cpu_split(qb_device *dev, const qb_split_attr *attr, const float *x, float *const out[3],
                       int64_t T) {
    int64_t n = attr->groups * (attr->width[0] + attr->width[1] + attr->width[2]);
    split_job j = {attr, x, out};
    qb_parallel_for(dev->threads, T, qb_cpu_rows_a_task(n), split_rows, &j);
    return QB_OK;
}

typedef struct {
    const qb_join_attr *attr;
    float *y;
    const float *x, *shared;
} join_job;

static void join_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const join_job *j = ctx;
    const qb_join_attr *a = j->attr;
    for (int64_t t = begin; t < end; t++)
        for (int64_t h = 0; h < a->heads; h++) {
            float *to = j->y + (t * a->heads + h) * (a->width + a->shared);
            memcpy(to, j->x + (t * a->heads + h) * a->width, (size_t)a->width * 4);
            memcpy(to + a->width, j->shared + t * a->shared, (size_t)a->shared * 4);
        }
}

qb_status qb_cpu_join(qb_device *dev, const qb_join_attr *attr, float *y, const float *x, const float *shared,
                      int64_t T) {
    join_job j = {attr, y, x, shared};
    qb_parallel_for(dev->threads, T, qb_cpu_rows_a_task(attr->heads * (attr->width + attr->shared)),
                    join_rows, &j);
    return QB_OK;
}

qb_status qb_cpu_route(qb_device *dev, const qb_route_attr *attr, const float *logits, const float *bias,
                       int64_t T, qb_routing *out) {
    (void)dev;
    return qb_route(attr, logits, bias, T, out);
}

typedef struct {
    const qb_routing *r;
    bool weigh;
    float *y;
    const float *x;
    int64_t n;
} routed_job;

static void gather_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const routed_job *j = ctx;
    for (int64_t row = begin; row < end; row++) {
        const float *from = j->x + j->r->token[row] * j->n;
        float *to = j->y + row * j->n, weight = j->r->weight[row];
        if (j->weigh)
            for (int64_t i = 0; i < j->n; i++) to[i] = weight * from[i];
        else
            memcpy(to, from, (size_t)j->n * 4);
    }
}

qb_status qb_cpu_gather(qb_device *dev, const qb_routing *r, bool weigh, float *y, const float *x,
                        int64_t n) {
    routed_job j = {r, weigh, y, x, n};
    qb_parallel_for(dev->threads, r->rows, qb_cpu_rows_a_task(n), gather_rows, &j);
    return QB_OK;
}

static void scatter_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const routed_job *j = ctx;
    for (int64_t t = begin; t < end; t++) {
        float *to = j->y + t * j->n;
        for (int64_t k = 0; k < j->r->top_k; k++) {
            int64_t row = j->r->row[t * j->r->top_k + k];
            const float *from = j->x + row * j->n;
            float weight = j->weigh ? j->r->weight[row] : 1.0f;
            for (int64_t i = 0; i < j->n; i++) to[i] = k == 0 ? weight * from[i] : to[i] + weight * from[i];
        }
    }
}

qb_status qb_cpu_scatter(qb_device *dev, const qb_routing *r, bool weigh, float *y, const float *x, int64_t T,
                         int64_t n) {
    if (T * r->top_k != r->rows)
        return qb_fail(QB_ERR_INTERNAL, "%lld tokens of %lld experts from a routing of %lld rows",
                       (long long)T, (long long)r->top_k, (long long)r->rows);
    routed_job j = {r, weigh, y, x, n};
    qb_parallel_for(dev->threads, T, qb_cpu_rows_a_task(n), scatter_rows, &j);
    return QB_OK;
}
