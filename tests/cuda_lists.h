/* Decoders of hand-made lists on the CUDA device, and the captured token against the plain ops of the same
   device, step by step. */
#pragma once

#include "tests/cuda_pair.h"

enum { LIST_STEPS = 64, LIST_MODULES = 48, LIST_VECTORS = 24, LIST_LAYERS = 2, LIST_SLOTS = 24 };

typedef struct {
    qb_step steps[LIST_STEPS];
    qb_matrix matrices[LIST_MODULES];
    float *biases[LIST_MODULES], *vectors[LIST_VECTORS];
    qb_step_weights w;
} list;

typedef struct {
    list enter, blocks[LIST_LAYERS], leave;
    const qb_step_weights *block_weights[LIST_LAYERS];
    float *tables[2];
    const float *table_list[2];
    qb_matrix embed;
    qb_kv kv; /* of the caches to compare with: type and shape, no arrays */
    qb_decoder d;
} lists;

static uint64_t next_id = 1000000; /* no other decoder's */

static inline qb_step *push(list *l, qb_step_kind kind, int8_t in, int8_t in2, int8_t out) {
    assert_true(l->w.n_steps < LIST_STEPS);
    qb_step *s = &l->steps[l->w.n_steps++];
    *s = (qb_step){.kind = kind,
                   .in = in,
                   .in2 = in2,
                   .in3 = -1,
                   .out = out,
                   .out2 = -1,
                   .out3 = -1,
                   .module = -1,
                   .expert = -1,
                   .vector = -1,
                   .vector2 = -1};
    return s;
}

static inline int16_t add_vector(list *l, int64_t n, float base) {
    float *values = noise_new(n);
    for (int64_t i = 0; i < n; i++) values[i] = base + 0.3f * values[i];
    assert_true(l->w.n_vectors < LIST_VECTORS);
    l->vectors[l->w.n_vectors] = cuda_put_floats(on_cuda, values, n);
    qb_free(values);
    return (int16_t)l->w.n_vectors++;
}

/* A linear's matrix; taken as it is. */
static inline qb_step *add_linear(list *l, const qb_weight *w, bool bias, int8_t in, int8_t out) {
    int64_t at = l->w.n_modules++;
    assert_true(at < LIST_MODULES);
    assert_ok(cuda->matrix_create(on_cuda, w, QB_PLACE_DEVICE, &l->matrices[at]));
    l->biases[at] = NULL;
    if (bias) {
        float *values = noise_new(w->rows);
        l->biases[at] = cuda_put_floats(on_cuda, values, w->rows);
        qb_free(values);
    }
    qb_step *s = push(l, QB_STEP_LINEAR, in, -1, out);
    s->module = (int16_t)at;
    return s;
}

static inline qb_step *add_dense(list *l, qb_dtype dtype, int64_t rows, int64_t cols, bool bias, int8_t in,
                                 int8_t out) {
    qb_weight w = {.rows = rows, .cols = cols, .dtype = dtype};
    float *values = noise_new(rows * cols);
    void *dense;
    for (int64_t i = 0; i < rows * cols; i++) values[i] *= 1.8f / sqrtf((float)cols);
    assert_ok(qb_alloc((size_t)(rows * cols), 4, &dense));
    assert_ok(qb_from_f32(w.dtype, values, rows * cols, dense));
    w.dense = dense;
    qb_step *s = add_linear(l, &w, bias, in, out);
    qb_free(values), qb_free(dense);
    return s;
}

static inline void open_list(list *l) {
    l->w = (qb_step_weights){
        .steps = l->steps, .matrices = l->matrices, .biases = l->biases, .vectors = l->vectors};
}
static inline void close_list(list *l) {
    for (int64_t i = 0; i < l->w.n_modules; i++)
        cuda->matrix_free(on_cuda, &l->matrices[i]), cuda->free(on_cuda, l->biases[i]);
    for (int64_t i = 0; i < l->w.n_vectors; i++) cuda->free(on_cuda, l->vectors[i]);
}

/* Empty lists around an embedding of `vocab` rows into slot 0 and `n_slots` slots of these widths. */
static inline lists *lists_new(int64_t vocab, int64_t positions, int64_t rope_width, const int64_t *widths,
                               int64_t n_slots, int8_t logits) {
    lists *m;
    assert_ok(qb_alloc_zero(1, sizeof *m, &m));
    open_list(&m->enter), open_list(&m->leave);
    for (int i = 0; i < LIST_LAYERS; i++) open_list(&m->blocks[i]), m->block_weights[i] = &m->blocks[i].w;
    for (int t = 0; t < 2; t++) {
        int64_t n = positions * (rope_width ? rope_width : 2);
        float *values = noise_new(n);
        for (int64_t i = 0; i < n / 2; i++) {
            double angle = 3 * (double)values[2 * i];
            values[2 * i] = (float)cos(angle), values[2 * i + 1] = (float)sin(angle);
        }
        m->table_list[t] = m->tables[t] = cuda_put_floats(on_cuda, values, n);
        qb_free(values);
    }
    float *table = noise_new(vocab * widths[0]);
    m->embed = (qb_matrix){.rows = vocab, .cols = widths[0], .dtype = QB_DTYPE_F32};
    m->embed.dense = cuda_put_floats(on_cuda, table, vocab * widths[0]);
    qb_free(table);
    m->d = (qb_decoder){.id = next_id++,
                        .n_layers = LIST_LAYERS,
                        .hidden = widths[0],
                        .vocab = vocab,
                        .n_slots = n_slots,
                        .embed_slot = 0,
                        .logits_slot = logits,
                        .embed = &m->embed,
                        .rope_tables = m->table_list,
                        .n_rope_tables = 2,
                        .rope_capacity = positions,
                        .enter = &m->enter.w,
                        .blocks = m->block_weights,
                        .leave = &m->leave.w};
    memcpy(m->d.slot_width, widths, (size_t)n_slots * sizeof *widths);
    return m;
}

static inline void lists_free(lists *m) {
    close_list(&m->enter), close_list(&m->leave);
    for (int i = 0; i < LIST_LAYERS; i++) close_list(&m->blocks[i]);
    for (int i = 0; i < 2; i++) cuda->free(on_cuda, m->tables[i]);
    cuda->free(on_cuda, (void *)(uintptr_t)m->embed.dense);
    qb_free(m);
}

/* ---- the plain ops ---- */

typedef struct {
    const lists *m;
    float *slots[LIST_SLOTS];
    qb_kv kv;
    qb_routing routing;
    int64_t n_seq, first;
} plain;

static inline int64_t plain_width(const plain *r, int8_t slot) {
    return slot < 0 ? 0 : r->m->d.slot_width[slot];
}
static inline int64_t plain_rows(const plain *r, int8_t slot) {
    return r->n_seq * (slot >= 0 && r->m->d.slot_routed[slot] ? r->m->d.top_k : 1);
}

static inline qb_status plain_linear(const plain *r, const list *l, const qb_step *p) {
    int64_t rows = plain_rows(r, p->out), n = plain_width(r, p->out), first = 0;
    if (p->expert >= 0) {
        first = r->routing.first[p->expert], rows = r->routing.first[p->expert + 1] - first;
        if (rows == 0) return QB_OK;
    }
    float *y = r->slots[p->out] + first * n, *bias = l->w.biases[p->module];
    qb_status st = cuda->matmul(on_cuda, y, r->slots[p->in] + first * plain_width(r, p->in), rows,
                                &l->w.matrices[p->module]);
    return st == QB_OK && bias ? cuda->add_bias(on_cuda, y, bias, rows, n) : st;
}

static inline qb_status plain_step(plain *r, const list *l, int64_t layer, const qb_step *p) {
    int64_t T = r->n_seq;
    float *in = p->in < 0 ? NULL : r->slots[p->in], *in2 = p->in2 < 0 ? NULL : r->slots[p->in2];
    float *in3 = p->in3 < 0 ? NULL : r->slots[p->in3], *out = p->out < 0 ? NULL : r->slots[p->out];
    const float *vector = p->vector < 0 ? NULL : l->w.vectors[p->vector],
                *vector2 = p->vector2 < 0 ? NULL : l->w.vectors[p->vector2];
    int64_t n = plain_width(r, p->out), rows = plain_rows(r, p->out);
    qb_status st = QB_OK;
    switch (p->kind) {
    case QB_STEP_NORM:
        return cuda->norm(on_cuda, &p->u.norm, out, in, vector, vector2, rows, n);
    case QB_STEP_LINEAR:
        return plain_linear(r, l, p);
    case QB_STEP_SPLIT:
        return cuda->split(on_cuda, &p->u.split, in,
                           (float *const[3]){out, r->slots[p->out2], p->out3 < 0 ? NULL : r->slots[p->out3]},
                           T);
    case QB_STEP_JOIN:
        return cuda->join(on_cuda, &p->u.join, out, in, in2, T);
    case QB_STEP_ROPE:
        return cuda->rope(on_cuda, &p->u.rope, out, r->m->tables[p->u.rope.table], T, 1, r->first);
    case QB_STEP_CACHE:
        return cuda->kv_store(on_cuda, &r->kv, layer, in, in2, T, 1, r->first);
    case QB_STEP_ATTEND:
        return cuda->attention(
            on_cuda, &(qb_attention){in, out, T, 1, r->first, layer, &r->kv, &p->u.attend, vector, vector2});
    case QB_STEP_ACTIVATE:
        return cuda->activate(on_cuda, &p->u.activate, out, in, in2, rows, n);
    case QB_STEP_ADD:
        return cuda->add(on_cuda, out, in, rows * n);
    case QB_STEP_SCALE:
    case QB_STEP_CLAMP:
    case QB_STEP_SOFTCAP:
        return cuda->map(on_cuda, p->kind, p->u.value, out, rows * n);
    case QB_STEP_GATE_ROWS:
        return cuda->gate_rows(on_cuda, out, in, T, n);
    case QB_STEP_POSITION:
        for (int64_t t = 0; st == QB_OK && t < T; t++)
            st = cuda->add(on_cuda, out + t * n, vector + (r->first + p->u.position) * n, n);
        return st;
    case QB_STEP_TEMPERATURE:
        return cuda->temperature(on_cuda, &p->u.temperature, out, T, 1, r->first, n);
    case QB_STEP_ROUTE:
        return cuda->route(on_cuda, &p->u.route, in, vector, T, &r->routing);
    case QB_STEP_GATHER:
        return cuda->gather(on_cuda, &r->routing, p->u.weigh_input, out, in, n);
    case QB_STEP_SCATTER:
        return cuda->scatter(on_cuda, &r->routing, !p->u.weigh_input, out, in, T, n);
    case QB_STEP_CONCAT:
        return cuda->concat(
            on_cuda, out, (const float *const[3]){in, in2, in3},
            (const int64_t[3]){plain_width(r, p->in), plain_width(r, p->in2), plain_width(r, p->in3)}, T);
    case QB_STEP_CONV:
        return cuda->conv(on_cuda, &p->u.conv, out, vector, &r->kv, layer, T, 1, r->first);
    case QB_STEP_DELTA:
        return cuda->delta(on_cuda, &p->u.delta, out, in, in2, in3, vector, vector2, &r->kv, layer, T, 1,
                           r->first);
    case QB_STEP_XIELU:
        return cuda->xielu(on_cuda, out, in, vector, rows * n);
    case QB_STEP_COUNT:
        break;
    }
    return QB_ERR_INTERNAL;
}

static inline void run_list(plain *r, const list *l, int64_t layer) {
    for (int64_t i = 0; i < l->w.n_steps; i++) assert_ok(plain_step(r, l, layer, &l->w.steps[i]));
}

static inline qb_kv cache_new(const lists *m, int64_t n_seq) {
    qb_kv kv = m->kv;
    int64_t rows = kv.n_layers * n_seq * kv.n_kv_heads * kv.capacity * (int64_t)qb_dtype_bytes(kv.dtype);
    kv.n_seq = n_seq;
    assert_ok(cuda->alloc(on_cuda, QB_MEMORY_KV, rows * kv.head_dim, &kv.k));
    assert_ok(cuda->alloc(on_cuda, QB_MEMORY_KV, rows * kv.value_dim, &kv.v));
    if (kv.state_floats) {
        int64_t n = kv.n_layers * n_seq * kv.state_floats;
        float *garbage = noise_new(n); /* of whoever had it before */
        assert_ok(cuda->alloc(on_cuda, QB_MEMORY_KV, n * 4, &kv.state));
        assert_ok(cuda->upload(on_cuda, kv.state, garbage, n * 4));
        qb_free(garbage);
    }
    return kv;
}
static inline void cache_free(const qb_kv *kv) {
    cuda->free(on_cuda, kv->k), cuda->free(on_cuda, kv->v), cuda->free(on_cuda, kv->state);
}

/* ---- both ---- */

/* `steps` tokens of n_seq sequences: queued, captured, replayed. Relative to the logits; products of the
   captured step round their inputs at other places. */
static inline void compare_lists(const lists *m, const char *name, int64_t n_seq, int64_t steps,
                                 double tolerance) {
    plain r = {.m = m, .n_seq = n_seq, .kv = cache_new(m, n_seq)};
    qb_kv kv = cache_new(m, n_seq);
    int64_t n = m->d.vocab * n_seq;
    int32_t *ids;
    float *logits, *want, *got;
    assert_ok(qb_alloc((size_t)n_seq, sizeof *ids, &ids));
    assert_ok(qb_alloc((size_t)n, sizeof *want, &want));
    assert_ok(qb_alloc((size_t)n, sizeof *got, &got));
    if (m->d.top_k) assert_ok(qb_routing_create(n_seq, m->d.top_k, m->d.n_experts, &r.routing));
    for (int8_t i = 0; i < m->d.n_slots; i++)
        assert_ok(cuda->alloc(on_cuda, QB_MEMORY_ACTIVATIONS, plain_rows(&r, i) * plain_width(&r, i) * 4,
                              &r.slots[i]));
    assert_ok(cuda->alloc(on_cuda, QB_MEMORY_ACTIVATIONS, n * 4, &logits));
    for (r.first = 0; r.first < steps; r.first++) {
        for (int64_t i = 0; i < n_seq; i++) ids[i] = (int32_t)((r.first * 11 + i * 7) % m->d.vocab);
        assert_ok(cuda->embed(on_cuda, r.slots[0], &m->embed, ids, n_seq));
        run_list(&r, &m->enter, -1);
        for (int i = 0; i < LIST_LAYERS; i++) run_list(&r, &m->blocks[i], i);
        run_list(&r, &m->leave, -1);
        assert_ok(cuda->download(on_cuda, want, r.slots[m->d.logits_slot], n * 4));
        other_order((uint64_t)r.first);
        assert_ok(cuda->decode(on_cuda, &m->d, &kv, ids, n_seq, r.first, logits));
        assert_ok(cuda->download(on_cuda, got, logits, n * 4));
        other_order(0);
        double off = relative_error(got, want, n);
        if (!(off <= tolerance)) fail_msg("%s, position %d: %g off", name, (int)r.first, off);
    }
    for (int64_t i = 0; i < m->d.n_slots; i++) cuda->free(on_cuda, r.slots[i]);
    cuda->free(on_cuda, logits);
    cache_free(&kv), cache_free(&r.kv);
    qb_routing_free(&r.routing);
    qb_free(ids), qb_free(want), qb_free(got);
}
