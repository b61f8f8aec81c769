/* Small synthetic models of every family switch, on a device, for tests of whole steps. */
#pragma once

#include "tests/cuda_pair.h"

#include "base/rng.h"
#include "model/decoder.h"
#include "model/owners.h"
#include "tests/toy_families.h"

/* The linears of a block in these families' lists. */
enum { LINEAR_Q, LINEAR_K, LINEAR_V, LINEAR_O, LINEAR_GATE, LINEAR_UP, LINEAR_DOWN, LINEAR_COUNT };

enum { POSITIONS = 320 };
static const qb_config configs[] = {
    {.family = &rms_gated,
     .variant = TOY_GATED,
     .gated = true,
     .hidden = 128,
     .ffn = 200,
     .n_layers = 2,
     .n_heads = 4,
     .n_kv_heads = 2,
     .head_dim = 32,
     .vocab = 61,
     .max_positions = POSITIONS,
     .norm_eps = 1e-5f,
     .activation = QB_ACTIVATION_SILU,
     .n_ropes = 1,
     .ropes = {{.theta = 10000, .width = 32}},
     .embed_width = 128},
    {.family = &layer_learned,
     .variant = TOY_LEARNED,
     .hidden = 32,
     .ffn = 128,
     .n_layers = 2,
     .n_heads = 4,
     .n_kv_heads = 4,
     .head_dim = 8,
     .vocab = 50,
     .max_positions = POSITIONS,
     .norm_eps = 1e-5f,
     .activation = QB_ACTIVATION_RELU,
     .attention_bias = true,
     .output_bias = true,
     .mlp_bias = true,
     .tied_head = true,
     .embed_width = 32},
    {.family = &interleaved,
     .variant = TOY_INTERLEAVED,
     .rope_interleaved = true,
     .hidden = 40,
     .ffn = 64,
     .n_layers = 1,
     .n_heads = 2,
     .n_kv_heads = 1,
     .head_dim = 20,
     .vocab = 33,
     .max_positions = POSITIONS,
     .norm_eps = 1e-6f,
     .activation = QB_ACTIVATION_GELU_TANH,
     .attention_bias = true,
     .n_ropes = 1,
     .ropes = {{.theta = 500, .width = 8}},
     .embed_width = 40},
    {.family = &rms_gated,
     .variant = TOY_GATED,
     .gated = true,
     .hidden = 36,
     .ffn = 90,
     .n_layers = 2,
     .n_heads = 9,
     .n_kv_heads = 3,
     .head_dim = 12,
     .vocab = 47,
     .max_positions = POSITIONS,
     .norm_eps = 1e-6f,
     .activation = QB_ACTIVATION_GELU,
     .attention_bias = true,
     .mlp_bias = true,
     .n_ropes = 1,
     .ropes = {{.theta = 10000, .width = 6}},
     .embed_width = 36},
};
enum { N_CONFIGS = sizeof configs / sizeof configs[0] };

/* The same weights for the same seed on every device. */
static inline qb_model *model_open(const qb_config *c, uint64_t seed, qb_device *dev) {
    qb_model *m;
    assert_ok(qb_alloc_zero(1, sizeof *m, &m));
    toy_open(m, c, seed);
    assert_ok(qb_model_load(m, dev, c->max_positions, true));
    return m;
}

/* What decoding n_seq sequences takes. */
typedef struct {
    qb_model *m;
    int64_t n_seq;
    qb_workspace ws;
    qb_kv kv;
    float *x, *logits;
} session;

static inline session session_open(qb_model *m, int64_t n_seq, int64_t capacity, qb_dtype kv) {
    session s = {.m = m, .n_seq = n_seq};
    const qb_config *c = &m->config;
    assert_ok(qb_workspace_create(m, n_seq * capacity, &s.ws));
    assert_ok(qb_kv_create(m, kv, c->n_layers, n_seq, capacity, &s.kv));
    assert_ok(m->dev->backend->alloc(m->dev, QB_MEMORY_ACTIVATIONS, n_seq * capacity * c->hidden * 4, &s.x));
    assert_ok(m->dev->backend->alloc(m->dev, QB_MEMORY_ACTIVATIONS, n_seq * c->vocab * 4, &s.logits));
    return s;
}
static inline void session_close(session *s) {
    s->m->dev->backend->free(s->m->dev, s->x);
    s->m->dev->backend->free(s->m->dev, s->logits);
    qb_kv_free(s->m, &s->kv);
    qb_workspace_free(s->m, &s->ws);
}

static inline void random_ids(const qb_config *c, uint64_t seed, int64_t n, int32_t *ids) {
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)(qb_noise_u64(seed, (uint64_t)i) % (uint64_t)c->vocab);
}

static inline void read_logits(session *s, float *out) {
    qb_device *dev = s->m->dev;
    assert_ok(dev->backend->download(dev, out, s->logits, s->n_seq * s->m->config.vocab * 4));
}
/* One token of each sequence by the plain ops. */
static inline void plain_step(session *s, const int32_t *ids, int64_t position, float *out) {
    qb_span span = {s->n_seq, 1, position, &s->kv, 0};
    assert_ok(qb_model_forward(s->m, &s->ws, s->x, ids, &span));
    assert_ok(qb_model_head(s->m, &s->ws, s->logits, s->x, s->n_seq));
    read_logits(s, out);
}
/* The same by the backend's own step. */
static inline void fused_step(session *s, const int32_t *ids, int64_t position, float *out) {
    qb_device *dev = s->m->dev;
    assert_ok(dev->backend->decode(dev, &s->m->decoder, &s->kv, ids, s->n_seq, position, s->logits));
    read_logits(s, out);
}
/* n tokens of each sequence from position 0, whole. ids: [n_seq][n]. */
static inline void prefill(session *s, const int32_t *ids, int64_t n) {
    qb_span span = {s->n_seq, n, 0, &s->kv, 0};
    assert_ok(qb_model_forward(s->m, &s->ws, s->x, ids, &span));
}
