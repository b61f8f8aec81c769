/* The fused decode step against the plain ops of the same device and against the CPU: every family switch,
   every format of weights, replayed steps, and what changes under them. */
#include "tests/cuda_formats.h"
#include "tests/cuda_model.h"

/* Sanitizers take seven times as long: fewer steps show as much. */
#if defined(QB_SANITIZED)
enum { STEPS = 2, REPLAYED = 10, SCRATCH_STEPS = 6 };
#else
enum { STEPS = 4, REPLAYED = 40, SCRATCH_STEPS = 9 };
#endif

/* Logits of the two ways to compute a step: float16 activations, rounded at other places. */
static const double tolerance = 4e-3;

static void expect_close(const float *got, const float *want, int64_t n, const char *what, int64_t n_seq,
                         int64_t position) {
    double off = relative_error(got, want, n);
    if (!(off <= tolerance))
        fail_msg("%s, %lld sequences, position %lld: %g off", what, (long long)n_seq, (long long)position,
                 off);
}

/* `tokens` steps from position `first`, after a common prefill; every step twice, in two caches. */
static void compare_steps(qb_model *m, const char *what, int64_t n_seq, qb_dtype kv, int64_t first,
                          int64_t tokens) {
    const qb_config *c = &m->config;
    int64_t capacity = first + tokens, n = n_seq * c->vocab;
    session plain = session_open(m, n_seq, capacity, kv), fused = session_open(m, n_seq, capacity, kv),
            again = session_open(m, n_seq, capacity, kv);
    int32_t *ids;
    assert_ok(qb_alloc((size_t)(n_seq * capacity), sizeof *ids, &ids));
    random_ids(c, 7, n_seq * capacity, ids);
    if (first > 0) {
        prefill(&plain, ids, first);
        prefill(&fused, ids, first);
        prefill(&again, ids, first);
    }
    float *a = noise_new(n), *b = noise_new(n), *d = noise_new(n);
    for (int64_t t = 0; t < tokens; t++) {
        const int32_t *next = ids + n_seq * (first + t);
        plain_step(&plain, next, first + t, a);
        fused_step(&fused, next, first + t, b);
        expect_close(b, a, n, what, n_seq, first + t);
        other_order(1 + (uint64_t)t); /* the same bits, or something waits too little */
        fused_step(&again, next, first + t, d);
        other_order(0);
        if (memcmp(b, d, (size_t)n * 4) != 0) fail_msg("%s: not the same twice", what);
    }
    qb_free(a);
    qb_free(b);
    qb_free(d);
    qb_free(ids);
    session_close(&plain);
    session_close(&fused);
    session_close(&again);
}

static void test_cuda_decode__every_family_equals_the_plain_ops(void **state) {
    (void)state;
    static const int64_t batches[] = {1, 3, 9};
    for (size_t i = 0; i < N_CONFIGS; i++) {
        qb_model *m = model_open(&configs[i], 5, on_cuda);
        for (int b = 0; b < 3; b++)
            compare_steps(m, configs[i].family->name, batches[b], b == 1 ? QB_DTYPE_F32 : QB_DTYPE_F16, 0,
                          STEPS);
        qb_model_close(m);
    }
}

static void test_cuda_decode__equals_the_cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CONFIGS; i++) {
        const qb_config *c = &configs[i];
        qb_model *m = model_open(c, 5, on_cuda), *reference = model_open(c, 5, on_cpu);
        session on = session_open(m, 2, 12, QB_DTYPE_F16), off = session_open(reference, 2, 12, QB_DTYPE_F16);
        float *a = noise_new(2 * c->vocab), *b = noise_new(2 * c->vocab);
        for (int64_t t = 0; t < 12; t++) {
            int32_t ids[2];
            random_ids(c, 100 + (uint64_t)t, 2, ids);
            plain_step(&off, ids, t, a);
            fused_step(&on, ids, t, b);
            expect_close(b, a, 2 * c->vocab, c->family->name, 2, t);
        }
        qb_free(a);
        qb_free(b);
        session_close(&on);
        session_close(&off);
        qb_model_close(m);
        qb_model_close(reference);
    }
}

/* ---- formats ---- */

/* Puts a weight of another format in place of a linear. */
static void replace(qb_model *m, int64_t layer, int l, const format *f) {
    qb_matrix *old = &m->blocks[layer].w.matrices[l];
    qb_weight w = {.rows = old->rows, .cols = old->cols};
    w.packed = random_weight(f, w.rows, w.cols, (uint32_t)(layer * 16 + l + 1));
    m->dev->backend->matrix_free(m->dev, old);
    assert_ok(m->dev->backend->matrix_create(m->dev, &w, QB_PLACE_DEVICE, old));
    qb_weight_free(&w);
}

static void test_cuda_decode__every_format_equals_the_plain_ops(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FORMATS; i++) {
        qb_model *m = model_open(&configs[0], 5, on_cuda);
        for (int64_t layer = 0; layer < 2; layer++)
            for (int l = 0; l < LINEAR_COUNT; l++) replace(m, layer, l, &formats[i]);
        compare_steps(m, formats[i].name, 1, QB_DTYPE_F16, 0, STEPS);
        compare_steps(m, formats[i].name, 5, QB_DTYPE_F16, 0, 2);
        qb_model_close(m);
    }
}

/* Neighbours of different formats, and of different orders of columns, share no launch. */
static void test_cuda_decode__mixed_formats_equal_the_plain_ops(void **state) {
    (void)state;
    format other_order = formats[5];
    qb_model *m = model_open(&configs[0], 5, on_cuda);
    replace(m, 0, LINEAR_Q, &formats[0]);
    replace(m, 0, LINEAR_K, &formats[4]);
    replace(m, 0, LINEAR_GATE, &formats[5]);
    replace(m, 0, LINEAR_UP, &formats[0]);
    replace(m, 1, LINEAR_K, &formats[7]);
    replace(m, 1, LINEAR_V, &formats[7]);
    other_order.group = 16;
    replace(m, 1, LINEAR_GATE, &formats[5]);
    replace(m, 1, LINEAR_UP, &other_order);
    compare_steps(m, "mixed", 1, QB_DTYPE_F16, 0, 4);
    compare_steps(m, "mixed", 2, QB_DTYPE_F16, 0, 4);
    qb_model_close(m);
}

/* ---- replay ---- */

static void test_cuda_decode__replays_across_a_bound(void **state) {
    (void)state;
    qb_model *m = model_open(&configs[0], 5, on_cuda);
    compare_steps(m, "one sequence", 1, QB_DTYPE_F16, 256 - REPLAYED / 2, REPLAYED);
    compare_steps(m, "two sequences", 2, QB_DTYPE_F32, 256 - STEPS, 2 * STEPS);
    qb_model_close(m);
}

/* Ids chosen on the device against steps whose logits the host looks at, across the bound and over more
   tokens than one run takes. */
static void compare_greedy(qb_model *m, int64_t n_seq, int64_t first, int64_t tokens) {
    const qb_config *c = &m->config;
    const qb_backend *be = m->dev->backend;
    int64_t capacity = first + tokens, n = n_seq * c->vocab, n_got;
    session steps = session_open(m, n_seq, capacity, QB_DTYPE_F16),
            loop = session_open(m, n_seq, capacity, QB_DTYPE_F16);
    float *a = noise_new(n), *b = noise_new(n);
    int32_t *ids, *got, next[8];
    assert_ok(qb_alloc((size_t)(n_seq * capacity), sizeof *ids, &ids));
    assert_ok(qb_alloc((size_t)(n_seq * tokens), sizeof *got, &got));
    random_ids(c, 3, n_seq * capacity, ids);
    if (first > 0) {
        prefill(&steps, ids, first);
        prefill(&loop, ids, first);
    }
    memcpy(next, ids, (size_t)n_seq * sizeof *next);
    other_order(7);
    assert_ok(be->decode_greedy(m->dev, &m->decoder, &loop.kv, next, n_seq, first, tokens, loop.logits, got,
                                &n_got));
    other_order(0);
    assert_int_equal(n_got, tokens);
    for (int64_t t = 0; t < tokens; t++) {
        fused_step(&steps, next, first + t, a);
        assert_ok(be->argmax(m->dev, steps.logits, n_seq, c->vocab, next));
        assert_memory_equal(got + t * n_seq, next, (size_t)n_seq * sizeof *next);
    }
    read_logits(&loop, b);
    assert_memory_equal(a, b, (size_t)n * sizeof *a); /* of the last step */
    qb_free(a);
    qb_free(b);
    qb_free(ids);
    qb_free(got);
    session_close(&steps);
    session_close(&loop);
}

static void test_cuda_decode__chooses_on_the_device(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CONFIGS; i++) {
        qb_model *m = model_open(&configs[i], 5, on_cuda);
        compare_greedy(m, i % 2 ? 3 : 1, 0, STEPS);
        qb_model_close(m);
    }
    qb_model *m = model_open(&configs[0], 5, on_cuda);
    compare_greedy(m, 2, 256 - REPLAYED / 2, REPLAYED);
    compare_greedy(m, 1, 0, 64 + STEPS);
    qb_model_close(m);
}

/* The rows before are given, and the error is that of argmax. */
static void test_cuda_decode__stops_where_logits_are_not_finite(void **state) {
    (void)state;
    qb_model *m = model_open(&configs[0], 5, on_cuda);
    const qb_backend *be = on_cuda->backend;
    session s = session_open(m, 1, 8, QB_DTYPE_F32);
    int32_t first = 1, got[8];
    int64_t n_got;
    /* a key that is no number is seen from position 4 on */
    assert_ok(be->decode_greedy(on_cuda, &m->decoder, &s.kv, &first, 1, 0, 4, s.logits, got, &n_got));
    float bad = NAN;
    assert_ok(be->upload(on_cuda, s.kv.k, &bad, sizeof bad));
    assert_fails(be->decode_greedy(on_cuda, &m->decoder, &s.kv, &first, 1, 4, 3, s.logits, got, &n_got),
                 QB_ERR_NUMERIC, "row 0");
    assert_int_equal(n_got, 0);
    session_close(&s);
    qb_model_close(m);
}

/* Caches freed and made anew, batches that change, models that go, more shapes than graphs are kept. */
static void test_cuda_decode__follows_what_changes(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        qb_model *m = model_open(&configs[round], 5 + (uint64_t)round, on_cuda);
        for (int64_t n_seq = 1; n_seq <= 3; n_seq++)
            compare_steps(m, "changing", n_seq, QB_DTYPE_F16, 0, STEPS);
        for (int64_t n_seq = 3; n_seq >= 1; n_seq--)
            compare_steps(m, "changing", n_seq, QB_DTYPE_F32, 3, STEPS);
        qb_model_close(m);
    }
    /* two sessions of one model in turn, while a third takes place and address of another */
    qb_model *m = model_open(&configs[0], 9, on_cuda);
    session first = session_open(m, 1, 30, QB_DTYPE_F16), plain = session_open(m, 1, 30, QB_DTYPE_F16);
    float *a = noise_new(m->config.vocab), *b = noise_new(m->config.vocab);
    for (int64_t t = 0; t < 24; t++) {
        int32_t id = (int32_t)(t * 5 % m->config.vocab);
        session other = session_open(m, 1, 30 + t / 4, QB_DTYPE_F16);
        plain_step(&plain, &id, t, a);
        fused_step(&first, &id, t, b);
        expect_close(b, a, m->config.vocab, "in turn", 1, t);
        fused_step(&other, &id, 0, b);
        fused_step(&other, &id, 1, b);
        session_close(&other);
    }
    qb_free(a);
    qb_free(b);
    session_close(&first);
    session_close(&plain);
    qb_model_close(m);
}

/* A long prompt between two steps grows the device's scratch, whose old place a captured step may hold. */
static void test_cuda_decode__survives_a_grown_scratch(void **state) {
    (void)state;
    qb_model *m = model_open(&configs[0], 11, on_cuda);
    const int64_t vocab = m->config.vocab;
    session plain = session_open(m, 9, 16, QB_DTYPE_F16), fused = session_open(m, 9, 16, QB_DTYPE_F16);
    float *a = noise_new(9 * vocab), *b = noise_new(9 * vocab);
    for (int64_t t = 0; t < SCRATCH_STEPS; t++) {
        int32_t ids[9];
        random_ids(&m->config, 50 + (uint64_t)t, 9, ids);
        plain_step(&plain, ids, t, a);
        fused_step(&fused, ids, t, b);
        expect_close(b, a, 9 * vocab, "scratch", 9, t);
        if (t % 3 != 2) continue;
        int64_t length = 40 * (t + 1) / 3;
        session prompt = session_open(m, 3, length, QB_DTYPE_F16);
        int32_t *many;
        assert_ok(qb_alloc((size_t)(3 * length), sizeof *many, &many));
        random_ids(&m->config, 3, 3 * length, many);
        prefill(&prompt, many, length);
        qb_free(many);
        session_close(&prompt);
    }
    qb_free(a);
    qb_free(b);
    session_close(&plain);
    session_close(&fused);
    qb_model_close(m);
}

static void test_cuda_decode__refuses_what_does_not_fit(void **state) {
    (void)state;
    qb_model *m = model_open(&configs[0], 5, on_cuda);
    session s = session_open(m, 1, POSITIONS + 4, QB_DTYPE_F16), wide = session_open(m, 65, 2, QB_DTYPE_F16);
    int32_t ids[65] = {0};
    const qb_backend *be = on_cuda->backend;
    assert_fails(be->decode(on_cuda, &m->decoder, &s.kv, ids, 1, POSITIONS, s.logits), QB_ERR_INTERNAL,
                 "rotary table");
    assert_fails(be->decode(on_cuda, &m->decoder, &s.kv, ids, 1, POSITIONS + 4, s.logits), QB_ERR_INTERNAL,
                 "cache of");
    assert_fails(be->decode(on_cuda, &m->decoder, &wide.kv, ids, 65, 0, wide.logits), QB_ERR_UNSUPPORTED,
                 "65 sequences");
    /* the model then goes by the plain ops */
    qb_span span = {65, 1, 0, &wide.kv, 0};
    assert_ok(qb_model_next(m, &wide.ws, wide.x, ids, &span, wide.logits));
    session_close(&s);
    session_close(&wide);
    qb_model_close(m);
}

#ifdef QB_SHIM
/* Launches a token: a change of this number is a change of the token's latency. */
static void test_cuda_decode__takes_few_launches(void **state) {
    (void)state;
    qb_model *m = model_open(&configs[0], 5, on_cuda);
    for (int l = 0; l < LINEAR_COUNT; l++) {
        replace(m, 0, l, &formats[0]);
        replace(m, 1, l, &formats[0]);
    }
    session s = session_open(m, 1, 8, QB_DTYPE_F16);
    float *logits = noise_new(m->config.vocab);
    for (int64_t t = 0; t < 4; t++) {
        int32_t id = 1;
        int64_t before = qb_shim_launches();
        fused_step(&s, &id, t, logits);
        assert_int_equal(qb_shim_launches() - before, 2 + 5 * m->config.n_layers);
    }
    /* chosen on the device: the first ids, and a token each with its argmax */
    int32_t id = 1, ids[4];
    int64_t before = qb_shim_launches(), n;
    assert_ok(on_cuda->backend->decode_greedy(on_cuda, &m->decoder, &s.kv, &id, 1, 4, 4, s.logits, ids, &n));
    assert_int_equal(qb_shim_launches() - before, 1 + 4 * (3 + 5 * m->config.n_layers));
    qb_free(logits);
    session_close(&s);
    qb_model_close(m);
}
#endif

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_decode__every_family_equals_the_plain_ops),
        cmocka_unit_test(test_cuda_decode__equals_the_cpu),
        cmocka_unit_test(test_cuda_decode__every_format_equals_the_plain_ops),
        cmocka_unit_test(test_cuda_decode__mixed_formats_equal_the_plain_ops),
        cmocka_unit_test(test_cuda_decode__replays_across_a_bound),
        cmocka_unit_test(test_cuda_decode__chooses_on_the_device),
        cmocka_unit_test(test_cuda_decode__stops_where_logits_are_not_finite),
        cmocka_unit_test(test_cuda_decode__follows_what_changes),
        cmocka_unit_test(test_cuda_decode__survives_a_grown_scratch),
        cmocka_unit_test(test_cuda_decode__refuses_what_does_not_fit),
#ifdef QB_SHIM
        cmocka_unit_test(test_cuda_decode__takes_few_launches),
#endif
    };
    return cmocka_run_group_tests(tests, pair_open, pair_close);
}

int main(void) {
    return cuda_run(run);
}
