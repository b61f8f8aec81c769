/* Attention on the device against the CPU backend, over the shapes that choose
   among its kernels: head widths that load 16 bytes at once and that do not,
   shared key heads, one split and many, queries that begin in mid-cache. */
#include "tests/cuda_pair.h"

typedef struct {
    int64_t n_heads, n_kv_heads, head_dim, n_seq, n_tok, first, capacity;
    qb_dtype dtype;
    int64_t window, chunk;
    float softcap;
    qb_alibi alibi;
    bool sinks;
} attention_case;

/* The same cache on both devices, larger than what is seen, with a layer before the one that is read. */
static void cache_create(const attention_case *c, int64_t value_dim, const float *values, qb_device *dev,
                         qb_kv *kv) {
    const qb_backend *be = dev->backend;
    *kv = (qb_kv){.dtype = c->dtype,
                  .n_layers = 2,
                  .n_seq = c->n_seq + 1,
                  .capacity = c->capacity,
                  .n_kv_heads = c->n_kv_heads,
                  .head_dim = c->head_dim,
                  .value_dim = value_dim};
    int64_t rows = 2 * kv->n_seq * c->capacity * c->n_kv_heads, size = (int64_t)qb_dtype_bytes(c->dtype);
    void *stored[2];
    for (int i = 0; i < 2; i++) {
        int64_t n = rows * (i ? value_dim : c->head_dim);
        const float *from = values + i * rows * c->head_dim;
        assert_ok(qb_alloc((size_t)n, (size_t)size, &stored[i]));
        if (c->dtype == QB_DTYPE_F16)
            assert_ok(qb_from_f32(QB_DTYPE_F16, from, n, stored[i]));
        else
            memcpy(stored[i], from, (size_t)(n * size));
        assert_ok(be->alloc(dev, QB_MEMORY_KV, n * size, i ? &kv->v : &kv->k));
        assert_ok(be->upload(dev, i ? kv->v : kv->k, stored[i], n * size));
        qb_free(stored[i]);
    }
}

static void attend(const attention_case *c, int64_t value_dim, qb_device *dev, const float *cache,
                   const float *q, float *out) {
    const qb_backend *be = dev->backend;
    int64_t rows = c->n_seq * c->n_tok * c->n_heads, n = rows * c->head_dim, n_out = rows * value_dim;
    qb_kv kv;
    float *dev_q, *dev_out, *dev_heads, heads[2][64];
    cache_create(c, value_dim, cache, dev, &kv);
    assert_ok(be->alloc(dev, QB_MEMORY_ACTIVATIONS, n * 4, &dev_q));
    assert_ok(be->alloc(dev, QB_MEMORY_ACTIVATIONS, n_out * 4, &dev_out));
    assert_ok(be->upload(dev, dev_q, q, n * 4));
    for (int h = 0; h < 64; h++) { /* slopes, and sinks about as large as the scores */
        heads[0][h] = (float)pow(2.0, -0.7 * (h + 1));
        heads[1][h] = (float)(h % 5) - 1.5f;
    }
    assert_ok(be->alloc(dev, QB_MEMORY_ACTIVATIONS, sizeof heads, &dev_heads));
    assert_ok(be->upload(dev, dev_heads, heads, sizeof heads));
    qb_attend_attr attr = {
        c->n_heads, c->n_kv_heads, c->head_dim, value_dim, 1.0f / sqrtf((float)c->head_dim),
        c->window,  c->chunk,      c->softcap,  c->alibi};
    qb_attention a = {.q = dev_q,
                      .out = dev_out,
                      .n_seq = c->n_seq,
                      .n_tok = c->n_tok,
                      .first = c->first,
                      .layer = 1,
                      .kv = &kv,
                      .attr = &attr,
                      .slopes = c->alibi ? dev_heads : NULL,
                      .sinks = c->sinks ? dev_heads + 64 : NULL};
    assert_ok(be->attention(dev, &a));
    assert_ok(be->download(dev, out, dev_out, n_out * 4));
    be->free(dev, dev_q);
    be->free(dev, dev_out);
    be->free(dev, dev_heads);
    be->free(dev, kv.k);
    be->free(dev, kv.v);
}

/* float32 sums in another order; prefill rounds queries, keys, weights and values to float16. */
enum { DECODE, PREFILL };
static const double tolerance[] = {[DECODE] = 2e-6, [PREFILL] = 2e-3};

static void check_values(const attention_case *c, int64_t value_dim) {
    int64_t rows = c->n_seq * c->n_tok * c->n_heads, n_q = rows * c->head_dim, n = rows * value_dim;
    int64_t cache = 2 * (c->n_seq + 1) * c->capacity * c->n_kv_heads * (c->head_dim + value_dim);
    float *values = noise_new(cache), *q = noise_new(n_q), *want = noise_new(n), *got = noise_new(n),
          *again = noise_new(n);
    /* scores of some size, so that the softmax is neither flat nor a single key */
    for (int64_t i = 0; i < n_q; i++) q[i] *= 6.0f;
    attend(c, value_dim, on_cpu, values, q, want);
    attend(c, value_dim, on_cuda, values, q, got);
    other_order(3); /* the same bits, or something waits too little */
    attend(c, value_dim, on_cuda, values, q, again);
    other_order(0);
    double off = relative_error(got, want, n), limit = tolerance[c->n_tok == 1 ? DECODE : PREFILL];
    if (!(off <= limit) || memcmp(got, again, (size_t)n * 4) != 0)
        fail_msg("%lld heads over %lld of %lld, %lld x %lld rows from %lld, cache %s: %g off (%g), %s",
                 (long long)c->n_heads, (long long)c->n_kv_heads, (long long)c->head_dim, (long long)c->n_seq,
                 (long long)c->n_tok, (long long)c->first, qb_dtype_name(c->dtype), off, limit,
                 memcmp(got, again, (size_t)n * 4) ? "and not twice the same" : "twice the same");
    qb_free(values);
    qb_free(q);
    qb_free(want);
    qb_free(got);
    qb_free(again);
}

static void check(const attention_case *c) {
    check_values(c, c->head_dim);
}

static void test_cuda_attention__decode_equals_the_cpu(void **state) {
    (void)state;
    /* heads, key heads, width, sequences, rows, first, capacity */
    static const attention_case cases[] = {
        {1, 1, 8, 1, 1, 0, 4, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {8, 4, 8, 3, 1, 70, 80, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {4, 4, 32, 2, 1, 63, 64, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {4, 4, 32, 2, 1, 64, 65, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {6, 2, 64, 2, 1, 200, 256, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {3, 3, 80, 1, 1, 300, 301, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {4, 1, 96, 1, 1, 129, 140, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {8, 2, 128, 1, 1, 1499, 1500, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {4, 2, 128, 2, 1, 777, 800, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {14, 2, 128, 1, 1, 255, 300, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {20, 2, 64, 5, 1, 20, 32, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 1, 256, 1, 1, 256, 300, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {8, 1, 256, 1, 1, 90, 100, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {4, 2, 20, 2, 1, 130, 140, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 2, 7, 1, 1, 9, 10, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {2, 1, 250, 1, 1, 40, 50, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {24, 2, 16, 1, 1, 5, 8, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 1, 20, 1, 1, 40, 41, QB_DTYPE_F32, 0, 0, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(&cases[i]);
}

static void test_cuda_attention__prefill_equals_the_cpu(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {2, 1, 8, 2, 2, 0, 4, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {4, 2, 8, 1, 65, 0, 80, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 2, 16, 1, 64, 3, 80, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 1, 20, 2, 17, 5, 30, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 2, 32, 1, 100, 30, 130, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {4, 2, 64, 2, 70, 70, 150, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 1, 80, 1, 33, 64, 100, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 2, 96, 1, 20, 0, 20, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {4, 2, 128, 1, 130, 1, 131, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 1, 128, 2, 64, 64, 128, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {1, 1, 256, 1, 40, 30, 70, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {1, 1, 200, 1, 5, 17, 22, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {2, 1, 7, 1, 9, 2, 11, QB_DTYPE_F32, 0, 0, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(&cases[i]);
}

/* Windows, chunks, caps, slopes and sinks, in one split and in many, alone and together. */
static void test_cuda_attention__shaped_logits_equal_the_cpu(void **state) {
    (void)state;
    static const attention_case shapes[] = {
        {.window = 1},
        {.window = 50},
        {.window = 4000},
        {.chunk = 64},
        {.chunk = 100},
        {.window = 40, .chunk = 64},
        {.softcap = 2.0f},
        {.alibi = QB_ALIBI_PLAIN},
        {.alibi = QB_ALIBI_BF16},
        {.sinks = true},
        {.window = 70, .softcap = 3.0f, .alibi = QB_ALIBI_PLAIN, .sinks = true},
        {.window = 130, .chunk = 200, .softcap = 3.0f, .alibi = QB_ALIBI_BF16, .sinks = true},
    };
    static const attention_case calls[] = {
        {4, 2, 16, 2, 1, 30, 40, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {6, 2, 64, 1, 1, 300, 301, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {10, 1, 20, 1, 1, 700, 701, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {4, 2, 16, 2, 70, 90, 160, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 1, 20, 1, 130, 3, 133, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {2, 2, 128, 1, 66, 140, 206, QB_DTYPE_F16, 0, 0, 0, 0, 0},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
            attention_case c = calls[i];
            c.window = shapes[s].window, c.chunk = shapes[s].chunk, c.softcap = shapes[s].softcap;
            c.alibi = shapes[s].alibi, c.sinks = shapes[s].sinks;
            check(&c);
        }
}

/* Latent attention's: keys of 192 beside values of 128, and the other way round. */
static void test_cuda_attention__values_of_another_width(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {4, 4, 24, 2, 1, 70, 80, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {4, 2, 192, 1, 1, 700, 701, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {8, 1, 192, 2, 1, 60, 61, QB_DTYPE_F32, 0, 0, 0, 0, true},
        {2, 1, 24, 2, 1, 30, 31, QB_DTYPE_F32, 7, 0, 0, 0, 0},
        {4, 4, 24, 2, 70, 3, 80, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 1, 192, 1, 40, 30, 70, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 2, 24, 2, 20, 0, 20, QB_DTYPE_F32, 5, 0, 0, 0, true},
        {2, 1, 64, 1, 33, 5, 40, QB_DTYPE_F32, 0, 0, 0, 0, 0},
    };
    static const int64_t value_dims[] = {8, 128, 128, 250, 8, 128, 33, 136};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_values(&cases[i], value_dims[i]);
}

/* Heads enough for every multiprocessor take two bands of rows a warp, one head alone takes one. */
static void test_cuda_attention__two_bands_equal_one(void **state) {
    (void)state;
#ifdef QB_SHIM
    enum { HEADS = 4 }; /* as many as it has multiprocessors */
#else
    enum { HEADS = 256 };
#endif
    static const int64_t dims[] = {64, 80, 96, 128};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        attention_case c = {HEADS, 1, dims[i], 1, 150, 20, 170, QB_DTYPE_F16, 0, 0, 0, 0, 0};
        int64_t row = c.head_dim, n = c.n_tok * row;
        float *values = noise_new(2 * 2 * c.capacity * 2 * row), *q = noise_new(n * HEADS),
              *together = noise_new(n * HEADS), *alone = noise_new(n);
        for (int64_t k = 0; k < n * HEADS; k++) q[k] *= 6.0f;
        attend(&c, row, on_cuda, values, q, together);
        c.n_heads = 1;
        for (int64_t t = 0; t < c.n_tok; t++) /* the last head */
            memcpy(q + t * row, q + (t * HEADS + HEADS - 1) * row, (size_t)row * 4);
        attend(&c, row, on_cuda, values, q, alone);
        for (int64_t t = 0; t < c.n_tok; t++)
            assert_memory_equal(alone + t * row, together + (t * HEADS + HEADS - 1) * row, (size_t)row * 4);
        qb_free(values);
        qb_free(q);
        qb_free(together);
        qb_free(alone);
    }
}

/* One key far above the rest, and scores that would overflow without the running maximum. */
static void test_cuda_attention__survives_large_scores(void **state) {
    (void)state;
    attention_case c = {2, 1, 64, 1, 1, 150, 151, QB_DTYPE_F32, 0, 0, 0, 0, 0};
    for (int round = 0; round < 2; round++) {
        c.n_tok = round ? 70 : 1;
        c.first = round ? 81 : 150;
        int64_t n = c.n_tok * 2 * 64, cache = 4 * 2 * c.capacity * 64;
        float *values = noise_new(cache), *q = noise_new(n), *want = noise_new(n), *got = noise_new(n);
        for (int64_t i = 0; i < n; i++) q[i] *= 400.0f;
        attend(&c, 64, on_cpu, values, q, want);
        attend(&c, 64, on_cuda, values, q, got);
        /* float16 queries and keys move such scores by some tenths */
        double off = relative_error(got, want, n), limit = round ? 0.3 : 5e-4;
        for (int64_t i = 0; i < n; i++) assert_true(isfinite(got[i]));
        if (!(off <= limit)) fail_msg("round %d: %g off", round, off);
        qb_free(values);
        qb_free(q);
        qb_free(want);
        qb_free(got);
    }
}

static void test_cuda_attention__refuses_what_does_not_fit(void **state) {
    (void)state;
    qb_device *dev = on_cuda;
    const qb_backend *be = dev->backend;
    float *cell;
    assert_ok(be->alloc(dev, QB_MEMORY_KV, 64, &cell));
    qb_kv kv = {QB_DTYPE_F32, 1, 1, 4, 2, 1, 1, cell, cell, 0, NULL};
    qb_attend_attr attr = {.heads = 2, .kv_heads = 2, .head_dim = 1, .value_dim = 1, .scale = 1};
    qb_attention a = {.q = cell, .out = cell, .n_seq = 1, .n_tok = 3, .first = 2, .kv = &kv, .attr = &attr};
    assert_fails(be->attention(dev, &a), QB_ERR_INTERNAL, "cache of 4");
    a.n_tok = 1, attr.heads = 3;
    assert_fails(be->attention(dev, &a), QB_ERR_UNSUPPORTED, "3 query heads");
    attr.heads = 2, kv.dtype = QB_DTYPE_BF16;
    assert_fails(be->attention(dev, &a), QB_ERR_UNSUPPORTED, "BF16");
    kv.dtype = QB_DTYPE_F16, kv.head_dim = 2;
    assert_fails(be->attention(dev, &a), QB_ERR_INTERNAL, "the cache has");
    kv.head_dim = 1, attr.value_dim = 2;
    assert_fails(be->attention(dev, &a), QB_ERR_INTERNAL, "the cache has");
    kv.head_dim = kv.value_dim = attr.head_dim = attr.value_dim = 264;
    assert_fails(be->attention(dev, &a), QB_ERR_UNSUPPORTED, "heads of 264");
    be->free(dev, cell);
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_attention__decode_equals_the_cpu),
        cmocka_unit_test(test_cuda_attention__prefill_equals_the_cpu),
        cmocka_unit_test(test_cuda_attention__shaped_logits_equal_the_cpu),
        cmocka_unit_test(test_cuda_attention__values_of_another_width),
        cmocka_unit_test(test_cuda_attention__two_bands_equal_one),
        cmocka_unit_test(test_cuda_attention__survives_large_scores),
        cmocka_unit_test(test_cuda_attention__refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, pair_open, pair_close);
}

int main(void) {
    return cuda_run(run);
}
