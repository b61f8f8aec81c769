/* Attention over the cache, in two ways (attention.c, attention_many.c). A row sees the keys of one range,
   [first_key, position]; what no row of a stretch or tile sees is not read. */
#pragma once

#include "kernels/cpu/device.h"

typedef struct attention_job {
    const qb_simd *simd;
    const qb_attention *a;
    const qb_kv *kv;
    int64_t group; /* query heads that share a key head */
    /* of few queries: */
    int64_t stretch0; /* the first stretch that any row sees */
    int64_t stretches;
    int64_t scratch_floats;
    float *scratch;  /* a worker's own */
    float *partials; /* [row][kv head][stretch][group * (value_dim + 2)] */
} attention_job;

/* The first key that a query at `position` sees; never falls from one position to the next. */
static inline int64_t first_key(const qb_attend_attr *attr, int64_t position) {
    int64_t from = 0;
    if (attr->window > 0 && position >= attr->window) from = position - attr->window + 1;
    if (attr->chunk > 0 && position / attr->chunk * attr->chunk > from)
        from = position / attr->chunk * attr->chunk;
    return from;
}

/* Keys or values (rows of dim elements) of one head from position 0. */
static inline const uint8_t *cache_head(const qb_kv *kv, const void *base, int64_t dim, int64_t layer,
                                        int64_t seq, int64_t head) {
    int64_t at = ((layer * kv->n_seq + seq) * kv->n_kv_heads + head) * kv->capacity * dim;
    return (const uint8_t *)base + at * (kv->dtype == QB_DTYPE_F16 ? 2 : 4);
}

static inline const float *query(const attention_job *j, int64_t row, int64_t head) {
    return j->a->q + (row * j->a->attr->heads + head) * j->kv->head_dim;
}
static inline float *result(const attention_job *j, int64_t row, int64_t head) {
    return j->a->out + (row * j->a->attr->heads + head) * j->kv->value_dim;
}

static inline qb_score_rule rule_of(const attention_job *j, int64_t head, int64_t position, int64_t key) {
    const qb_attend_attr *attr = j->a->attr;
    const float *slopes = j->a->slopes ? j->a->slopes + head : NULL;
    return (qb_score_rule){attr->scale, attr->softcap, attr->alibi, slopes, position, key};
}

/* attention_many.c: many queries a sequence. */
qb_status qb_cpu_attend_many(cpu_device *d, const attention_job *j) QB_NODISCARD;
