/* The ops between the matmuls against the cpu backend, over ragged and aligned shapes. */
#include "tests/cuda_support.h"

static const qb_backend *const cpu = &qb_backend_cpu;
static qb_device *host, *dev;

static int open_devices(void **state) {
    (void)state;
    host = device_open(NULL, 1);
    dev = cuda_open_device();
    return 0;
}
static int close_devices(void **state) {
    (void)state;
    cpu->close(host);
    cuda_close_device(dev);
    return 0;
}

static void give_back(void *p) {
    cuda->free(dev, p);
}

static void test_cuda_ops__norm(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {3, 31}, {2, 64}, {5, 257}, {2, 1040}};
    FOR_EACH_ORDER(seed) for (int i = 0; i < 5; i++) for (int kind = 0; kind < 2; kind++) {
        int64_t T = shapes[i][0], D = shapes[i][1];
        float *x = noise_new(T * D), *w = noise_new(D), *b = noise_new(D), *want = noise_new(T * D);
        x[0] += 40.0f; /* a mean that a one-pass variance would drown in */
        const float *bias = i % 2 ? b : NULL;
        assert_ok(cpu->norm(host, (qb_norm_kind)kind, want, x, w, bias, T, D, 1e-5f));
        float *dx = cuda_put_floats(dev, x, T * D), *dw = cuda_put_floats(dev, w, D),
              *db = cuda_put_floats(dev, b, D);
        float *dy;
        assert_ok(cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, T * D * 4, &dy));
        assert_ok(cuda->norm(dev, (qb_norm_kind)kind, dy, dx, dw, bias ? db : NULL, T, D, 1e-5f));
        assert_cuda_floats(dev, dy, want, T * D, 3e-6, 1e-6, "norm");
        assert_ok(cuda->norm(dev, (qb_norm_kind)kind, dx, dx, dw, bias ? db : NULL, T, D, 1e-5f));
        float *apart = cuda_get_floats(dev, dy, T * D);
        assert_cuda_floats(dev, dx, apart, T * D, 0, 0, "norm in place");
        give_back(dx), give_back(dw), give_back(db), give_back(dy);
        qb_free(x), qb_free(w), qb_free(b), qb_free(want), qb_free(apart);
    }
}

static void test_cuda_ops__rope(void **state) {
    (void)state;
    static const int64_t shapes[][6] = {/* sequences, tokens, first, heads, width, turning */
                                        {1, 1, 0, 1, 2, 2},
                                        {2, 5, 3, 3, 10, 6},
                                        {3, 1, 7, 4, 64, 64},
                                        {1, 9, 0, 2, 8, 0}};
    FOR_EACH_ORDER(seed) for (int i = 0; i < 4; i++) for (int kind = 0; kind < 2; kind++) {
        const int64_t *s = shapes[i];
        int64_t n = s[0] * s[1] * s[3] * s[4], n_table = (s[2] + s[1]) * s[5];
        float *x = noise_new(n), *table = noise_new(n_table);
        float *dx = cuda_put_floats(dev, x, n), *dt = cuda_put_floats(dev, table, n_table);
        assert_ok(cpu->rope(host, (qb_rope_kind)kind, x, table, s[0], s[1], s[2], s[3], s[4], s[5]));
        assert_ok(cuda->rope(dev, (qb_rope_kind)kind, dx, dt, s[0], s[1], s[2], s[3], s[4], s[5]));
        assert_cuda_floats(dev, dx, x, n, 2e-7, 0, "rope");
        give_back(dx), give_back(dt), qb_free(x), qb_free(table);
    }
}

static void test_cuda_ops__kv_store(void **state) {
    (void)state;
    FOR_EACH_ORDER(seed) for (int f16 = 0; f16 < 2; f16++) {
        enum { LAYERS = 2, SEQ = 3, CAP = 9, HEADS = 2, DIM = 6, TOK = 4, FIRST = 5, USED = 2 };
        int64_t n = LAYERS * SEQ * HEADS * CAP * DIM, bytes = n * (f16 ? 2 : 4),
                rows = USED * TOK * HEADS * DIM;
        qb_kv kv = {f16 ? QB_DTYPE_F16 : QB_DTYPE_F32, LAYERS, SEQ, CAP, HEADS, DIM, NULL, NULL}, dkv = kv;
        assert_ok(qb_alloc_zero(1, (size_t)bytes, &kv.k));
        assert_ok(qb_alloc_zero(1, (size_t)bytes, &kv.v));
        dkv.k = cuda_put(dev, kv.k, bytes), dkv.v = cuda_put(dev, kv.v, bytes);
        float *k = noise_new(rows), *v = noise_new(rows);
        k[0] = 1e6f, k[1] = 1e-7f, k[2] = 65519.0f,
        k[3] = -0.0f; /* overflow, subnormal, the last that rounds down */
        float *dk = cuda_put_floats(dev, k, rows), *dv = cuda_put_floats(dev, v, rows);
        assert_ok(cpu->kv_store(host, &kv, 1, k, v, USED, TOK, FIRST));
        assert_ok(cuda->kv_store(dev, &dkv, 1, dk, dv, USED, TOK, FIRST));
        void *got;
        assert_ok(qb_alloc(1, (size_t)bytes, &got));
        assert_ok(cuda->download(dev, got, dkv.k, bytes));
        assert_memory_equal(got, kv.k, (size_t)bytes);
        assert_ok(cuda->download(dev, got, dkv.v, bytes));
        assert_memory_equal(got, kv.v, (size_t)bytes);
        give_back(dkv.k), give_back(dkv.v), give_back(dk), give_back(dv);
        qb_free(kv.k), qb_free(kv.v), qb_free(k), qb_free(v), qb_free(got);
    }
}

static void test_cuda_ops__activate(void **state) {
    (void)state;
    enum { N = 3001 };
    for (int kind = 0; kind < 4; kind++) {
        float *gate = noise_new(N), *up = noise_new(N), *want = noise_new(N);
        for (int i = 0; i < N; i++) gate[i] *= i % 3 ? 5.0f : 60.0f;
        gate[N - 1] = -0.0f, gate[N - 2] = 1e30f, gate[N - 3] = -1e30f, gate[17] = NAN;
        float *dg = cuda_put_floats(dev, gate, N), *du = cuda_put_floats(dev, up, N),
              *dy = cuda_put_floats(dev, up, N);
        /* 1 + erf cancels far below zero; the tanh form has the rounding of its exponent, up to 60 there */
        double absolute = kind == QB_ACTIVATION_GELU ? 2e-6 : 1e-25;
        double part = kind == QB_ACTIVATION_GELU_TANH ? 2e-5 : 1e-6;
        assert_ok(cpu->activate(host, (qb_activation)kind, want, gate, NULL, N));
        assert_ok(cuda->activate(dev, (qb_activation)kind, dy, dg, NULL, N));
        assert_cuda_floats(dev, dy, want, N, absolute, part, "activate");
        assert_ok(cpu->activate(host, (qb_activation)kind, want, gate, up, N));
        assert_ok(cuda->activate(dev, (qb_activation)kind, dg, dg, du, N));
        assert_cuda_floats(dev, dg, want, N, absolute, part, "activate, gated and in place");
        give_back(dg), give_back(du), give_back(dy), qb_free(gate), qb_free(up), qb_free(want);
    }
}

static void test_cuda_ops__sums(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {7, 33}, {4, 256}};
    for (int i = 0; i < 3; i++) {
        int64_t T = shapes[i][0], n = shapes[i][1];
        float *x = noise_new(T * n), *y = noise_new(T * n);
        float *dx = cuda_put_floats(dev, x, T * n), *dy = cuda_put_floats(dev, y, T * n);
        assert_ok(cpu->add(host, x, y, T * n));
        assert_ok(cpu->add_bias(host, x, y, T, n));
        assert_ok(cuda->add(dev, dx, dy, T * n));
        assert_ok(cuda->add_bias(dev, dx, dy, T, n));
        assert_cuda_floats(dev, dx, x, T * n, 0, 0, "add and add_bias");
        give_back(dx), give_back(dy), qb_free(x), qb_free(y);
    }
}

static void test_cuda_ops__embed(void **state) {
    (void)state;
    enum { ROWS = 11, WIDTH = 300, T = 5 };
    static const qb_dtype dtypes[] = {QB_DTYPE_F32, QB_DTYPE_F16, QB_DTYPE_BF16};
    static const int32_t ids[T] = {10, 0, 3, 3, 7};
    for (int i = 0; i < 3; i++) {
        float *values = noise_new(ROWS * WIDTH), *want = noise_new(T * WIDTH);
        int64_t bytes = ROWS * WIDTH * (int64_t)qb_dtype_bytes(dtypes[i]);
        void *raw;
        assert_ok(qb_alloc(1, (size_t)bytes, &raw));
        assert_ok(qb_from_f32(dtypes[i], values, ROWS * WIDTH, raw));
        qb_matrix m = {.rows = ROWS, .cols = WIDTH, .dtype = dtypes[i], .dense = raw}, dm = m;
        dm.dense = cuda_put(dev, raw, bytes);
        float *dx = cuda_put_floats(dev, want, T * WIDTH);
        assert_ok(cpu->embed(host, want, &m, ids, T));
        assert_ok(cuda->embed(dev, dx, &dm, ids, T));
        assert_cuda_floats(dev, dx, want, T * WIDTH, 0, 0, "embed");
        void *table = (void *)(uintptr_t)dm.dense;
        dm.dense = NULL;
        assert_fails(cuda->embed(dev, dx, &dm, ids, T), QB_ERR_UNSUPPORTED, "quantized token embedding");
        give_back(table), give_back(dx), qb_free(values), qb_free(want), qb_free(raw);
    }
}

static void test_cuda_ops__nll_and_argmax(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {4, 33}, {3, 1000}, {2, 4096}};
    FOR_EACH_ORDER(seed) for (int i = 0; i < 4; i++) {
        int64_t T = shapes[i][0], V = shapes[i][1];
        float *x = noise_new(T * V);
        int32_t *targets, *at, *want_at;
        double *got, *want;
        assert_ok(qb_alloc((size_t)T, sizeof *targets, &targets));
        assert_ok(qb_alloc((size_t)T, sizeof *at, &at));
        assert_ok(qb_alloc((size_t)T, sizeof *want_at, &want_at));
        assert_ok(qb_alloc((size_t)T, sizeof *got, &got));
        assert_ok(qb_alloc((size_t)T, sizeof *want, &want));
        for (int64_t k = 0; k < T * V; k++) x[k] = x[k] * 12.0f + 70.0f;
        for (int64_t t = 0; t < T; t++) targets[t] = (int32_t)(noise_u32() % (uint32_t)V);
        if (V > 40) x[V - 1] = x[V / 2] = x[40] = 90.0f; /* the first of equals counts */
        if (T > 2) targets[2] = -1;
        float *dx = cuda_put_floats(dev, x, T * V);
        assert_ok(cpu->nll(host, x, T, V, targets, want));
        assert_ok(cuda->nll(dev, dx, T, V, targets, got));
        for (int64_t t = 0; t < T; t++) assert_true(fabs(got[t] - want[t]) <= 1e-6 * (1.0 + fabs(want[t])));
        if (T > 2) assert_true(got[2] == 0.0);
        assert_ok(cpu->argmax(host, x, T, V, want_at));
        assert_ok(cuda->argmax(dev, dx, T, V, at));
        assert_memory_equal(at, want_at, (size_t)T * sizeof *at);
        targets[0] = (int32_t)V;
        assert_fails(cuda->nll(dev, dx, T, V, targets, got), QB_ERR_INTERNAL, "the vocabulary has");
        give_back(dx);
        qb_free(x), qb_free(targets), qb_free(at), qb_free(want_at), qb_free(got), qb_free(want);
    }
}

static void test_cuda_ops__logits_that_are_not_finite(void **state) {
    (void)state;
    enum { T = 4, V = 70 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        float *x = noise_new(T * V);
        int32_t targets[T] = {1, 2, -1, 3}, at[T];
        double nll[T];
        bool finite = false;
        float *dx = cuda_put_floats(dev, x, T * V);
        assert_ok(cuda->all_finite(dev, dx, T * V, &finite));
        assert_true(finite);
        x[2 * V + 69] = x[3 * V] = bad[i];
        assert_ok(cuda->upload(dev, dx, x, T * V * 4));
        assert_fails(cuda->nll(dev, dx, T, V, targets, nll), QB_ERR_NUMERIC, "logits of row 2 ");
        assert_fails(cuda->argmax(dev, dx, T, V, at), QB_ERR_NUMERIC, "logits of row 2 ");
        assert_ok(cuda->all_finite(dev, dx, T * V, &finite));
        assert_false(finite);
        assert_ok(cuda->all_finite(dev, dx, 2 * V + 69, &finite));
        assert_true(finite);
        give_back(dx), qb_free(x);
    }
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_ops__norm),
        cmocka_unit_test(test_cuda_ops__rope),
        cmocka_unit_test(test_cuda_ops__kv_store),
        cmocka_unit_test(test_cuda_ops__activate),
        cmocka_unit_test(test_cuda_ops__sums),
        cmocka_unit_test(test_cuda_ops__embed),
        cmocka_unit_test(test_cuda_ops__nll_and_argmax),
        cmocka_unit_test(test_cuda_ops__logits_that_are_not_finite),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}

int main(void) {
    return cuda_run(run);
}
