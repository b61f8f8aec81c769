/* Activations and caches: memory that the topology sizes. */
#include "model/decoder.h"

int64_t qb_workspace_bytes(const qb_topology *t, int64_t max_rows) {
    return t->workspace_floats * max_rows * (int64_t)sizeof(float);
}

qb_status qb_workspace_create(const qb_model *m, int64_t max_rows, qb_workspace *out) {
    const qb_topology *t = &m->topology;
    const qb_backend *be = m->dev->backend;
    *out = (qb_workspace){.max_rows = max_rows};
    qb_status st;
    QB_TRY(st, be->alloc(m->dev, QB_MEMORY_ACTIVATIONS, qb_workspace_bytes(t, max_rows), &out->memory));
    for (int i = 0; i < t->n_slots; i++)
        out->slots[i] =
            i == QB_SLOT_X || i == t->logits_slot ? NULL : out->memory + t->slots[i].offset * max_rows;
    if (t->top_k > 0) st = qb_routing_create(max_rows, t->top_k, t->experts, &out->routing);
out:
    if (st != QB_OK) qb_workspace_free(m, out);
    return st;
}

void qb_workspace_free(const qb_model *m, qb_workspace *ws) {
    if (ws->memory) m->dev->backend->free(m->dev, ws->memory);
    qb_routing_free(&ws->routing);
    *ws = (qb_workspace){0};
}

/* Keys, or values, of all layers. */
static int64_t cache_bytes(const qb_topology *t, qb_dtype dtype, int64_t cells, int64_t dim) {
    return cells * t->kv_heads * dim * (int64_t)qb_dtype_bytes(dtype);
}

int64_t qb_kv_bytes(const qb_topology *t, qb_dtype dtype, int64_t n_layers, int64_t n_seq, int64_t capacity) {
    return cache_bytes(t, dtype, n_layers * n_seq * capacity, t->key_dim + t->value_dim) +
           n_layers * n_seq * t->state_floats * (int64_t)sizeof(float);
}

qb_status qb_kv_create(const qb_model *m, qb_dtype dtype, int64_t n_layers, int64_t n_seq, int64_t capacity,
                       qb_kv *out) {
    const qb_topology *t = &m->topology;
    const qb_backend *be = m->dev->backend;
    int64_t cells = n_layers * n_seq * capacity;
    *out = (qb_kv){.dtype = dtype,
                   .n_layers = n_layers,
                   .n_seq = n_seq,
                   .capacity = capacity,
                   .n_kv_heads = t->kv_heads,
                   .head_dim = t->key_dim,
                   .value_dim = t->value_dim,
                   .state_floats = t->state_floats};
    qb_status st = be->alloc(m->dev, QB_MEMORY_KV, cache_bytes(t, dtype, cells, t->key_dim), &out->k);
    if (st == QB_OK)
        st = be->alloc(m->dev, QB_MEMORY_KV, cache_bytes(t, dtype, cells, t->value_dim), &out->v);
    if (st == QB_OK && t->state_floats)
        st = be->alloc(m->dev, QB_MEMORY_KV, n_layers * n_seq * t->state_floats * (int64_t)sizeof(float),
                       &out->state);
    if (st == QB_OK && be->kv_settle) be->kv_settle(m->dev, out);
    if (st != QB_OK) qb_kv_free(m, out);
    return st;
}

void qb_kv_free(const qb_model *m, qb_kv *kv) {
    if (kv->k) m->dev->backend->free(m->dev, kv->k);
    if (kv->v) m->dev->backend->free(m->dev, kv->v);
    if (kv->state) m->dev->backend->free(m->dev, kv->state);
    *kv = (qb_kv){0};
}
