/* Attention over the cache, of few queries a sequence (decode): vector dot products over stretches of the
   context of fixed length, whose partial results are joined in order. */
#include "kernels/cpu/attention.h"

#include "base/whole.h"

#include <math.h>

enum { FEW_QUERIES = 4, STRETCH = 512 };

/* ---- memory nodes ---- */

/* A cache is divided among memory nodes by the stretches of its heads, [sequence][head][stretch of the
   capacity], as a loop over them would be: so it is laid out (qb_cpu_kv_settle), and so decode is divided, at
   any length of the context and for any number of the first sequences. Prompts are divided by queries and
   what they store by positions; both use a key or value for many tokens, or once, where decode reads the
   whole cache for each. */
typedef struct {
    int64_t head, stretch; /* head: of all sequences' */
} cell;

static cell first_cell(const qb_threads *threads, const qb_kv *kv, int node) {
    const int64_t stretches = (kv->capacity + STRETCH - 1) / STRETCH;
    int64_t at = qb_threads_boundary(threads, kv->n_seq * kv->n_kv_heads * stretches, node);
    return (cell){at / stretches, at % stretches};
}

static void settle(qb_threads *threads, const qb_kv *kv, void *memory, int64_t dim) {
    const int64_t row_bytes = dim * (int64_t)qb_dtype_bytes(kv->dtype), nodes = qb_threads_nodes(threads);
    const int64_t layer_bytes = kv->n_seq * kv->n_kv_heads * kv->capacity * row_bytes;
    int64_t at[QB_NODES_MAX + 1];
    if (nodes < 2 || kv->capacity < 1) return;
    for (int k = 0; k <= nodes; k++) {
        cell c = first_cell(threads, kv, k);
        at[k] = (c.head * kv->capacity + c.stretch * STRETCH) * row_bytes;
    }
    qb_cpu_fit_pages(threads, memory, kv->n_layers * layer_bytes, layer_bytes / nodes);
    for (int64_t l = 0; l < kv->n_layers; l++) qb_cpu_place(threads, (uint8_t *)memory + l * layer_bytes, at);
}

void qb_cpu_kv_settle(qb_device *dev, const qb_kv *kv) {
    settle(dev->threads, kv, kv->k, kv->head_dim);
    settle(dev->threads, kv, kv->v, kv->value_dim);
}

/* ---- decode ---- */

static float *partial(const attention_job *j, int64_t row, int64_t kv_head, int64_t stretch) {
    int64_t at = (row * j->kv->n_kv_heads + kv_head) * j->stretches + stretch - j->stretch0;
    return j->partials + at * j->group * (j->kv->value_dim + 2);
}

static void attend_stretches(void *ctx, int64_t begin, int64_t end, int worker) {
    const attention_job *j = ctx;
    const qb_kv *kv = j->kv;
    int64_t element = kv->dtype == QB_DTYPE_F16 ? 2 : 4;
    qb_attend_fn attend = kv->dtype == QB_DTYPE_F16 ? j->simd->attend_f16 : j->simd->attend_f32;
    for (int64_t i = begin; i < end; i++) { /* [sequence][head][stretch][token] */
        int64_t unit = i / j->a->n_tok / j->stretches, stretch = j->stretch0 + i / j->a->n_tok % j->stretches;
        int64_t head = unit % kv->n_kv_heads, seq = unit / kv->n_kv_heads;
        int64_t row = seq * j->a->n_tok + i % j->a->n_tok;
        int64_t position = j->a->first + row % j->a->n_tok, from = first_key(j->a->attr, position);
        int64_t to = qb_least((stretch + 1) * STRETCH, position + 1);
        if (from < stretch * STRETCH) from = stretch * STRETCH;
        if (from >= to) continue;
        qb_score_rule rule = rule_of(j, head * j->group, position, from);
        float *p = partial(j, row, head, stretch);
        attend(query(j, row, head * j->group), j->group, kv->head_dim, kv->value_dim,
               cache_head(kv, kv->k, kv->head_dim, j->a->layer, seq, head) + from * kv->head_dim * element,
               cache_head(kv, kv->v, kv->value_dim, j->a->layer, seq, head) + from * kv->value_dim * element,
               to - from, &rule, j->scratch + worker * j->scratch_floats, p, p + j->group, p + 2 * j->group);
    }
}

/* Stretches joined from first to last, each weighted by e^(its largest score - the largest of all). A sink
   joins the sum alone. */
static void join_head(const attention_job *j, int64_t row, int64_t kv_head, int64_t h) {
    int64_t dim = j->kv->value_dim, position = j->a->first + row % j->a->n_tok;
    int64_t begin = first_key(j->a->attr, position) / STRETCH, end = position / STRETCH + 1;
    const float *sink = j->a->sinks ? j->a->sinks + kv_head * j->group + h : NULL;
    float largest = sink ? *sink : -INFINITY, total = 0.0f;
    for (int64_t s = begin; s < end; s++) largest = fmaxf(largest, partial(j, row, kv_head, s)[h]);
    float *out = result(j, row, kv_head * j->group + h);
    for (int64_t d = 0; d < dim; d++) out[d] = 0.0f;
    if (sink) total = expf(*sink - largest);
    for (int64_t s = begin; s < end; s++) {
        const float *p = partial(j, row, kv_head, s), *values = p + 2 * j->group + h * dim;
        float weight = expf(p[h] - largest);
        total += weight * p[j->group + h];
        for (int64_t d = 0; d < dim; d++) out[d] += weight * values[d];
    }
    for (int64_t d = 0; d < dim; d++) out[d] /= total;
}

static int64_t first_task(const attention_job *j, cell c) {
    int64_t heads = j->a->n_seq * j->kv->n_kv_heads,
            stretch = qb_least(c.stretch - j->stretch0, j->stretches);
    if (c.head >= heads) return heads * j->stretches * j->a->n_tok;
    return (c.head * j->stretches + (stretch > 0 ? stretch : 0)) * j->a->n_tok;
}

static qb_status attend_few(cpu_device *d, attention_job *j) {
    const qb_attention *a = j->a;
    int64_t rows = a->n_seq * a->n_tok;
    j->stretch0 = first_key(a->attr, a->first) / STRETCH;
    j->stretches = (a->first + a->n_tok - 1) / STRETCH + 1 - j->stretch0;
    j->scratch_floats = j->group * STRETCH;
    int64_t partials = rows * j->kv->n_kv_heads * j->stretches * j->group * (j->kv->value_dim + 2);
    int64_t scratch = j->scratch_floats * qb_threads_count(d->base.threads);
    qb_status st = qb_cpu_workspace(d, (partials + scratch) * 4, &j->scratch);
    if (st != QB_OK) return st;
    j->partials = j->scratch + scratch;
    const int nodes = qb_threads_nodes(d->base.threads);
    int64_t shares[QB_NODES_MAX + 1]; /* of the tasks */
    for (int k = 0; k <= nodes && nodes > 1; k++)
        shares[k] = first_task(j, first_cell(d->base.threads, j->kv, k));
    qb_parallel_shares(d->base.threads, nodes > 1 ? shares : NULL, rows * j->kv->n_kv_heads * j->stretches, 1,
                       attend_stretches, j);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t h = 0; h < a->attr->heads; h++) join_head(j, row, h / j->group, h % j->group);
    return QB_OK;
}

qb_status qb_cpu_attention(qb_device *dev, const qb_attention *a) {
    cpu_device *d = cpu_of(dev);
    const qb_kv *kv = a->kv;
    const qb_attend_attr *attr = a->attr;
    if (kv->dtype != QB_DTYPE_F32 && kv->dtype != QB_DTYPE_F16)
        return qb_fail(QB_ERR_UNSUPPORTED, "key-value cache of type %s; float32 and float16 are supported",
                       qb_dtype_name(kv->dtype));
    qb_status st = qb_step_check(
        &(qb_step){.kind = QB_STEP_ATTEND, .vector = a->slopes ? 0 : -1, .vector2 = -1, .u.attend = *attr});
    if (st != QB_OK) return st;
    if (attr->kv_heads != kv->n_kv_heads || attr->head_dim != kv->head_dim ||
        attr->value_dim != kv->value_dim)
        return qb_fail(QB_ERR_INTERNAL,
                       "attention over %lld key heads of %lld and %lld elements; the cache has %lld of %lld "
                       "and %lld",
                       (long long)attr->kv_heads, (long long)attr->head_dim, (long long)attr->value_dim,
                       (long long)kv->n_kv_heads, (long long)kv->head_dim, (long long)kv->value_dim);
    if (a->n_tok < 1 || a->first < 0 || a->first + a->n_tok > kv->capacity || a->n_seq > kv->n_seq)
        return qb_fail(QB_ERR_INTERNAL, "%lld tokens from position %lld do not fit a cache of %lld",
                       (long long)a->n_tok, (long long)a->first, (long long)kv->capacity);
    attention_job j = {.simd = d->simd, .a = a, .kv = kv, .group = attr->heads / kv->n_kv_heads};
    return a->n_tok <= FEW_QUERIES ? attend_few(d, &j) : qb_cpu_attend_many(d, &j);
}
