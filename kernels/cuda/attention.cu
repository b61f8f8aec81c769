/* The attention op: what it takes, and how the keys of one row are cut among blocks. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/place.cuh"

extern "C" {
#include "base/memory.h"
}

/* One block a head up to ATTENTION_ALONE_KEYS; the splits of more keys have a grid that serves all. */
int64_t qb_attention_bound(int64_t visible) {
    return visible <= ATTENTION_ALONE_KEYS ? ATTENTION_ALONE_KEYS : ATTENTION_MAX_VISIBLE;
}

/* Where blocks are this many times what the device holds at once, splits no longer even them out. */
constexpr int64_t EVEN_WAVES = 4;

/* The fewest splits that leave little of the device idle: whole waves of resident blocks, or nearly. */
static int most_splits(int64_t blocks, int64_t slots) {
    int best = 1;
    double best_use = 0.0;
    if (blocks > EVEN_WAVES * slots) return 1;
    const int64_t widest = blocks <= slots ? slots / blocks : EVEN_WAVES;
    for (int n = 1; n <= widest && n <= ATTENTION_MAX_SPLITS; n++) {
        const int64_t waves = (blocks * n + slots - 1) / slots;
        const double use = static_cast<double>(blocks * n) / static_cast<double>(waves * slots);
        if (use > best_use + 0.02) best = n, best_use = use;
    }
    return best;
}

static int64_t slots_of(int block_heads, int multiprocessors) {
    return static_cast<int64_t>(qb_attention_resident(block_heads)) * multiprocessors;
}

attention_plan qb_attention_plan(int64_t visible, int64_t n_seq, int64_t n_heads, int64_t n_kv_heads,
                                 int64_t value_dim, int multiprocessors) {
    const int group = static_cast<int>(n_heads / n_kv_heads), heads = qb_attention_block_heads(group);
    const int64_t blocks = n_seq * n_kv_heads * ((group + heads - 1) / heads);
    attention_plan p;
    p.bound = qb_attention_bound(visible);
    p.most_splits = most_splits(blocks, slots_of(heads, multiprocessors));
    p.n_splits = p.bound <= ATTENTION_ALONE_KEYS ? 1 : p.most_splits;
    p.partial_floats = p.n_splits > 1 ? n_seq * n_heads * p.n_splits * value_dim : 0;
    p.partial_bytes = p.n_splits > 1 ? (p.partial_floats + 1 + 2 * n_seq * n_heads * p.n_splits) * 4 : 0;
    return p;
}

attention_args qb_attention_args(const qb_kv *kv, int64_t layer, const qb_attend_attr *attr,
                                 const float *slopes, const float *sinks) {
    const int64_t bytes =
        layer * kv->n_seq * kv->n_kv_heads * kv->capacity * static_cast<int64_t>(qb_dtype_bytes(kv->dtype));
    attention_args a = {};
    a.k = static_cast<char *>(kv->k) + bytes * kv->head_dim;
    a.v = static_cast<char *>(kv->v) + bytes * kv->value_dim;
    a.half_cache = kv->dtype == QB_DTYPE_F16;
    a.n_heads = static_cast<int32_t>(attr->heads);
    a.group = static_cast<int32_t>(attr->heads / kv->n_kv_heads);
    a.head_dim = static_cast<int32_t>(kv->head_dim);
    a.value_dim = static_cast<int32_t>(kv->value_dim);
    a.capacity = kv->capacity;
    a.scale_log2 = attr->scale * 1.44269504f;
    a.shape = {attr->window, attr->chunk, attr->softcap, attr->scale, attr->alibi, slopes, sinks};
    return a;
}

void qb_attention_cut(attention_args *a, const attention_plan &p, void *partial, uint32_t *arrived) {
    a->most_splits = p.most_splits;
    a->n_splits = p.n_splits;
    a->partial = static_cast<float *>(partial);
    a->partial_sums = reinterpret_cast<float2 *>(a->partial + (p.partial_floats + 1) / 2 * 2);
    a->arrived = arrived;
}

struct attention_state {
    uint32_t *arrived;
};

static void free_state(cuda_device *d, void *opaque) {
    qb_cuda_free(&d->base, static_cast<attention_state *>(opaque)->arrived);
    qb_free(opaque);
}

qb_status qb_attention_arrived(cuda_device *d, uint32_t **out) {
    auto &part = d->parts[QB_CUDA_PART_ATTENTION];
    if (!part.state) {
        const qb_status st = qb_alloc_zero(1, sizeof(attention_state), &part.state);
        if (st != QB_OK) return st;
        part.free = free_state;
    }
    attention_state *state = static_cast<attention_state *>(part.state);
    if (!state->arrived) {
        /* as many as there are blocks where several splits are worth it */
        const int64_t bytes =
            EVEN_WAVES * slots_of(1, d->multiprocessors) * static_cast<int64_t>(sizeof(uint32_t));
        uint32_t *arrived;
        qb_status st = qb_cuda_alloc(&d->base, QB_MEMORY_WORKSPACE, bytes, &arrived);
        if (st != QB_OK) return st;
        if ((st = qb_cuda_clear(&d->base, arrived, bytes)) != QB_OK) {
            qb_cuda_free(&d->base, arrived);
            return st;
        }
        state->arrived = arrived;
    }
    *out = state->arrived;
    return QB_OK;
}

static qb_status check_widths(const qb_attend_attr *attr) {
    const int64_t widest = attr->value_dim > attr->head_dim ? attr->value_dim : attr->head_dim;
    if (widest > ATTENTION_MAX_HEAD_DIM)
        return qb_fail(QB_ERR_UNSUPPORTED, "heads of %lld elements; the CUDA backend takes up to %d",
                       (long long)widest, ATTENTION_MAX_HEAD_DIM);
    return QB_OK;
}

extern "C" qb_status qb_cuda_check_step(const qb_step *step) {
    const qb_status st = qb_step_check(step);
    if (st != QB_OK) return st;
    switch (step->kind) {
    case QB_STEP_ATTEND:
        return check_widths(&step->u.attend);
    case QB_STEP_DELTA:
        if (step->u.delta.key_dim > QB_DELTA_MAX_KEY_DIM)
            return qb_fail(QB_ERR_UNSUPPORTED,
                           "delta step: key heads of %lld elements; the CUDA backend takes up to %d",
                           (long long)step->u.delta.key_dim, QB_DELTA_MAX_KEY_DIM);
        return QB_OK;
    default:
        return QB_OK;
    }
}

qb_status qb_attention_check(const qb_kv *kv, const qb_attend_attr *attr, int64_t n_seq, int64_t first,
                             int64_t n_tok) {
    const int64_t n_heads = attr->heads;
    if (kv->dtype != QB_DTYPE_F32 && kv->dtype != QB_DTYPE_F16)
        return qb_fail(QB_ERR_UNSUPPORTED, "key-value cache of type %s; float32 and float16 are supported",
                       qb_dtype_name(kv->dtype));
    if (attr->kv_heads < 1 || n_heads % attr->kv_heads != 0)
        return qb_fail(QB_ERR_UNSUPPORTED, "%lld query heads over %lld key heads; expected a multiple",
                       (long long)n_heads, (long long)attr->kv_heads);
    const qb_status st = check_widths(attr);
    if (st != QB_OK) return st;
    if (attr->kv_heads != kv->n_kv_heads || attr->head_dim != kv->head_dim ||
        attr->value_dim != kv->value_dim)
        return qb_fail(QB_ERR_INTERNAL,
                       "attention over %lld key heads of %lld and %lld elements; the cache has %lld of %lld "
                       "and %lld",
                       (long long)attr->kv_heads, (long long)attr->head_dim, (long long)attr->value_dim,
                       (long long)kv->n_kv_heads, (long long)kv->head_dim, (long long)kv->value_dim);
    if (n_tok < 1 || first < 0 || first + n_tok > kv->capacity || n_seq < 1 || n_seq > kv->n_seq)
        return qb_fail(QB_ERR_INTERNAL,
                       "%lld tokens of %lld sequences from position %lld do not fit a cache of %lld",
                       (long long)n_tok, (long long)n_seq, (long long)first, (long long)kv->capacity);
    if (n_heads > ATTENTION_MAX_GRID || n_seq > ATTENTION_MAX_GRID || first + n_tok > ATTENTION_MAX_VISIBLE)
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "%lld heads of %lld sequences at %lld positions; the CUDA backend takes %d heads, %d sequences "
            "and %d positions",
            (long long)n_heads, (long long)n_seq, (long long)(first + n_tok), ATTENTION_MAX_GRID,
            ATTENTION_MAX_GRID, ATTENTION_MAX_VISIBLE);
    return QB_OK;
}

extern "C" qb_status qb_cuda_attention(qb_device *dev, const qb_attention *op) {
    cuda_device *d = cuda_of(dev);
    const qb_kv *kv = op->kv;
    qb_status st = qb_attention_check(kv, op->attr, op->n_seq, op->first, op->n_tok);
    if (st != QB_OK) return st;
    attention_args a = qb_attention_args(kv, op->layer, op->attr, op->slopes, op->sinks);
    a.q = op->q;
    a.out = op->out;
    a.first = static_cast<int32_t>(op->first);
    a.n_tok = static_cast<int32_t>(op->n_tok);
    a.n_seq = static_cast<int32_t>(op->n_seq);
    if (op->n_tok > 1) return qb_cuda_status(d, qb_attention_prefill(d, a), "attention");
    const attention_plan plan = qb_attention_plan(op->first + 1, op->n_seq, op->attr->heads, kv->n_kv_heads,
                                                  kv->value_dim, d->multiprocessors);
    void *partial = NULL;
    uint32_t *arrived = NULL;
    if (plan.n_splits > 1) {
        if ((st = qb_cuda_scratch(d, plan.partial_bytes, &partial)) != QB_OK) return st;
        if ((st = qb_attention_arrived(d, &arrived)) != QB_OK) return st;
    }
    qb_attention_cut(&a, plan, partial, arrived);
    return qb_cuda_status(d, qb_attention_decode(a, d->stream), "attention");
}
