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
    static const struct {
        int64_t T, groups, dim;
        bool weight, bias, per_group;
    } cases[] = {
        {1, 1, 1, true, false, false},  {3, 1, 31, true, true, false},   {2, 1, 64, true, false, false},
        {5, 1, 257, true, true, false}, {2, 1, 1040, true, false, true}, {3, 5, 64, true, false, false},
        {2, 3, 20, true, true, true},   {4, 4, 33, false, false, false}, {2, 6, 10, false, true, true},
    };
    FOR_EACH_ORDER(seed)
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int kind = 0; kind < 2; kind++) {
            int64_t T = cases[i].T, n = cases[i].groups * cases[i].dim;
            qb_norm_attr attr = {(qb_norm_kind)kind, 1e-5f, cases[i].dim,
                                 cases[i].per_group ? cases[i].groups : 1};
            float *x = noise_new(T * n), *w = noise_new(n), *b = noise_new(n), *want = noise_new(T * n);
            x[0] += 40.0f; /* a mean that a one-pass variance would drown in */
            float *dx = cuda_put_floats(dev, x, T * n), *dw = cuda_put_floats(dev, w, n),
                  *db = cuda_put_floats(dev, b, n);
            const float *weight = cases[i].weight ? dw : NULL, *bias = cases[i].bias ? db : NULL;
            assert_ok(cpu->norm(host, &attr, want, x, weight ? w : NULL, bias ? b : NULL, T, n));
            float *dy;
            assert_ok(cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, T * n * 4, &dy));
            assert_ok(cuda->norm(dev, &attr, dy, dx, weight, bias, T, n));
            assert_cuda_floats(dev, dy, want, T * n, 3e-6, 1e-6, "norm");
            assert_ok(cuda->norm(dev, &attr, dx, dx, weight, bias, T, n));
            float *apart = cuda_get_floats(dev, dy, T * n);
            assert_cuda_floats(dev, dx, apart, T * n, 0, 0, "norm in place");
            attr.dim++;
            assert_fails(cuda->norm(dev, &attr, dx, dx, weight, bias, T, n), QB_ERR_INTERNAL, "elements");
            give_back(dx), give_back(dw), give_back(db), give_back(dy);
            qb_free(x), qb_free(w), qb_free(b), qb_free(want), qb_free(apart);
        }
}

static void test_cuda_ops__rope(void **state) {
    (void)state;
    static const int64_t shapes[][7] = {
        /* sequences, tokens, first, heads, width of a head, offset, turning */
        {1, 1, 0, 1, 2, 0, 2},
        {2, 5, 3, 3, 10, 0, 6},
        {3, 1, 7, 4, 64, 0, 64},
        {1, 9, 0, 2, 24, 16, 8},
        {2, 3, 4, 2, 20, 3, 10}};
    FOR_EACH_ORDER(seed) for (int i = 0; i < 5; i++) for (int kind = 0; kind < 2; kind++) {
        const int64_t *s = shapes[i];
        qb_rope_attr attr = {(qb_rope_kind)kind, 0, s[3], s[4], s[5], s[6]};
        int64_t n = s[0] * s[1] * s[3] * s[4], n_table = (s[2] + s[1]) * s[6];
        float *x = noise_new(n), *table = noise_new(n_table);
        float *dx = cuda_put_floats(dev, x, n), *dt = cuda_put_floats(dev, table, n_table);
        assert_ok(cpu->rope(host, &attr, x, table, s[0], s[1], s[2]));
        assert_ok(cuda->rope(dev, &attr, dx, dt, s[0], s[1], s[2]));
        assert_cuda_floats(dev, dx, x, n, 2e-7, 0, "rope");
        give_back(dx), give_back(dt), qb_free(x), qb_free(table);
    }
}

static void kv_store(bool f16, int64_t value_dim) {
    enum { LAYERS = 2, SEQ = 3, CAP = 9, HEADS = 2, DIM = 6, TOK = 4, FIRST = 5, USED = 2 };
    int64_t size = f16 ? 2 : 4, bytes = LAYERS * SEQ * HEADS * CAP * DIM * size,
            v_bytes = bytes / DIM * value_dim, rows = USED * TOK * HEADS;
    qb_kv
        kv =
            {f16 ? QB_DTYPE_F16 : QB_DTYPE_F32, LAYERS, SEQ, CAP, HEADS, DIM, value_dim, NULL, NULL, 0, NULL},
        dkv = kv;
    assert_ok(qb_alloc_zero(1, (size_t)bytes, &kv.k));
    assert_ok(qb_alloc_zero(1, (size_t)v_bytes, &kv.v));
    dkv.k = cuda_put(dev, kv.k, bytes), dkv.v = cuda_put(dev, kv.v, v_bytes);
    float *k = noise_new(rows * DIM), *v = noise_new(rows * value_dim);
    k[0] = 1e6f, k[1] = 1e-7f, k[2] = 65519.0f,
    k[3] = -0.0f; /* overflow, subnormal, the last that rounds down */
    float *dk = cuda_put_floats(dev, k, rows * DIM), *dv = cuda_put_floats(dev, v, rows * value_dim);
    assert_ok(cpu->kv_store(host, &kv, 1, k, v, USED, TOK, FIRST));
    assert_ok(cuda->kv_store(dev, &dkv, 1, dk, dv, USED, TOK, FIRST));
    void *got;
    assert_ok(qb_alloc(1, (size_t)(bytes > v_bytes ? bytes : v_bytes), &got));
    assert_ok(cuda->download(dev, got, dkv.k, bytes));
    assert_memory_equal(got, kv.k, (size_t)bytes);
    assert_ok(cuda->download(dev, got, dkv.v, v_bytes));
    assert_memory_equal(got, kv.v, (size_t)v_bytes);
    give_back(dkv.k), give_back(dkv.v), give_back(dk), give_back(dv);
    qb_free(kv.k), qb_free(kv.v), qb_free(k), qb_free(v), qb_free(got);
}

static void test_cuda_ops__kv_store(void **state) {
    (void)state;
    static const int64_t value_dims[] = {6, 4, 11};
    FOR_EACH_ORDER(seed) for (int i = 0; i < 6; i++) kv_store(i % 2, value_dims[i / 2]);
}

static void test_cuda_ops__activate(void **state) {
    (void)state;
    enum { T = 3, N = 1001, ALL = T * N };
    for (int kind = 0; kind < QB_ACTIVATION_COUNT; kind++)
        for (int glu = 0; glu < 4; glu++) {
            qb_activate_attr attr = {(qb_activation)kind, (qb_glu)glu, 1.702f, 7.0f};
            if (kind == QB_ACTIVATION_SWIGLU_OSS && glu == QB_GLU_NONE) continue;
            float *gate = noise_new(2 * ALL), *up = noise_new(ALL), *want = noise_new(ALL);
            for (int i = 0; i < 2 * ALL; i++) gate[i] *= i % 3 ? 5.0f : 60.0f;
            gate[ALL - 1] = -0.0f, gate[ALL - 2] = 1e15f, gate[ALL - 3] = -1e15f, gate[17] = NAN;
            float *dg = cuda_put_floats(dev, gate, 2 * ALL), *du = cuda_put_floats(dev, up, ALL),
                  *dy = cuda_put_floats(dev, up, ALL);
            /* the tanh form and the sigmoid of 1.702 x have the rounding of their exponents, up to 60 there
             */
            double part = kind == QB_ACTIVATION_GELU || kind == QB_ACTIVATION_GELU_TANH ||
                                  kind == QB_ACTIVATION_QUICK_GELU
                              ? 2e-5
                          : kind == QB_ACTIVATION_SWIGLU_OSS ? 5e-6
                                                             : 1e-6;
            bool apart = glu == QB_GLU_SEPARATE;
            assert_ok(cpu->activate(host, &attr, want, gate, apart ? up : NULL, T, N));
            assert_ok(cuda->activate(dev, &attr, dy, dg, apart ? du : NULL, T, N));
            assert_cuda_floats(dev, dy, want, ALL, 1e-24, part, qb_activation_name(attr.kind));
            if (apart) {
                assert_ok(cuda->activate(dev, &attr, dg, dg, du, T, N));
                assert_cuda_floats(dev, dg, want, ALL, 1e-24, part, "in place");
            }
            assert_fails(cuda->activate(dev, &attr, dy, dg, apart ? NULL : du, T, N), QB_ERR_INTERNAL,
                         "separate factor");
            give_back(dg), give_back(du), give_back(dy), qb_free(gate), qb_free(up), qb_free(want);
        }
}

static void test_cuda_ops__maps_and_factors(void **state) {
    (void)state;
    enum { SEQ = 2, TOK = 3, T = SEQ * TOK, N = 301, ALL = T * N, FIRST = 40 };
    static const qb_step_kind kinds[] = {QB_STEP_SCALE, QB_STEP_CLAMP, QB_STEP_SOFTCAP};
    FOR_EACH_ORDER(seed) {
        float *x = noise_new(ALL), *gate = noise_new(T), *want = noise_new(ALL);
        for (int i = 0; i < ALL; i++) x[i] *= 90.0f;
        x[5] = NAN, x[6] = 1e20f, x[7] = -1e20f;
        float *dx = cuda_put_floats(dev, x, ALL), *dg = cuda_put_floats(dev, gate, T);
        for (int k = 0; k < 3; k++) {
            memcpy(want, x, sizeof(float) * ALL);
            assert_ok(cuda->upload(dev, dx, x, sizeof(float) * ALL));
            assert_ok(cpu->map(host, kinds[k], 30.0f, want, ALL));
            assert_ok(cuda->map(dev, kinds[k], 30.0f, dx, ALL));
            assert_cuda_floats(dev, dx, want, ALL, 0, 1e-6, qb_step_name(kinds[k]));
        }
        assert_fails(cuda->map(dev, QB_STEP_ADD, 1.0f, dx, ALL), QB_ERR_INTERNAL, "add");
        assert_ok(cpu->gate_rows(host, want, gate, T, N));
        assert_ok(cuda->gate_rows(dev, dx, dg, T, N));
        assert_cuda_floats(dev, dx, want, ALL, 0, 2e-6, "gate_rows");
        qb_temperature_attr attr = {.beta = 0.3f, .floor_scale = 7, .shift = 1};
        assert_ok(cpu->temperature(host, &attr, want, SEQ, TOK, FIRST, N));
        assert_ok(cuda->temperature(dev, &attr, dx, SEQ, TOK, FIRST, N));
        assert_cuda_floats(dev, dx, want, ALL, 0, 3e-6, "temperature");
        give_back(dx), give_back(dg), qb_free(x), qb_free(gate), qb_free(want);
    }
}

static void test_cuda_ops__split_and_join(void **state) {
    (void)state;
    enum { T = 5 };
    static const qb_split_attr splits[] = {{1, {24, 8, 8}}, {4, {6, 6, 6}}, {3, {5, 2, 0}}, {2, {8, 1, 300}}};
    for (size_t s = 0; s < sizeof splits / sizeof *splits; s++) {
        const qb_split_attr *a = &splits[s];
        int64_t n = T * a->groups * (a->width[0] + a->width[1] + a->width[2]);
        float *x = noise_new(n), *dx = cuda_put_floats(dev, x, n), *parts[3] = {0}, *dev_parts[3] = {0};
        for (int i = 0; i < 3; i++) {
            if (a->width[i] == 0) continue;
            parts[i] = noise_new(T * a->groups * a->width[i]);
            dev_parts[i] = cuda_put_floats(dev, parts[i], T * a->groups * a->width[i]);
        }
        assert_ok(cpu->split(host, a, x, parts, T));
        assert_ok(cuda->split(dev, a, dx, dev_parts, T));
        for (int i = 0; i < 3; i++) {
            if (parts[i])
                assert_cuda_floats(dev, dev_parts[i], parts[i], T * a->groups * a->width[i], 0, 0, "split");
            give_back(dev_parts[i]), qb_free(parts[i]);
        }
        qb_join_attr j = {3, 5, (int64_t)s + 1};
        int64_t joined = T * 3 * (5 + j.shared);
        float *own = noise_new(T * 3 * 5), *shared = noise_new(T * j.shared), *y = noise_new(joined);
        float *down = cuda_put_floats(dev, own, T * 3 * 5),
              *dshared = cuda_put_floats(dev, shared, T * j.shared), *dy = cuda_put_floats(dev, y, joined);
        assert_ok(cpu->join(host, &j, y, own, shared, T));
        assert_ok(cuda->join(dev, &j, dy, down, dshared, T));
        assert_cuda_floats(dev, dy, y, joined, 0, 0, "join");
        give_back(dx), give_back(down), give_back(dshared), give_back(dy);
        qb_free(x), qb_free(own), qb_free(shared), qb_free(y);
    }
}

static void test_cuda_ops__rows_go_to_experts_and_back(void **state) {
    (void)state;
    enum { T = 40, N = 300, EXPERTS = 9, TOP = 3 };
    qb_route_attr attr = {.kind = QB_ROUTER_SOFTMAX, .experts = EXPERTS, .top_k = TOP, .scale = 2};
    FOR_EACH_ORDER(seed) for (int weigh = 0; weigh < 2; weigh++) {
        float *logits = noise_new(T * EXPERTS), *x = noise_new(T * N), *routed = noise_new(T * TOP * N);
        float *bias = noise_new(EXPERTS), *out = noise_new(T * N);
        float *dl = cuda_put_floats(dev, logits, T * EXPERTS), *dx = cuda_put_floats(dev, x, T * N);
        float *dr = cuda_put_floats(dev, routed, T * TOP * N), *dout = cuda_put_floats(dev, out, T * N);
        float *dbias = cuda_put_floats(dev, bias, EXPERTS);
        qb_routing want, got;
        assert_ok(qb_routing_create(T, TOP, EXPERTS, &want));
        assert_ok(qb_routing_create(T, TOP, EXPERTS, &got));
        assert_ok(cpu->route(host, &attr, logits, bias, T, &want));
        assert_ok(cuda->route(dev, &attr, dl, dbias, T, &got));
        assert_memory_equal(got.token, want.token, sizeof(int32_t) * T * TOP);
        assert_memory_equal(got.weight, want.weight, sizeof(float) * T * TOP);
        assert_memory_equal(got.first, want.first, sizeof(int64_t) * (EXPERTS + 1));
        assert_ok(cpu->gather(host, &want, weigh, routed, x, N));
        assert_ok(cuda->gather(dev, &got, weigh, dr, dx, N));
        assert_cuda_floats(dev, dr, routed, T * TOP * N, 0, 0, "gather");
        assert_ok(cpu->scatter(host, &want, weigh, out, routed, T, N));
        assert_ok(cuda->scatter(dev, &got, weigh, dout, dr, T, N));
        assert_cuda_floats(dev, dout, out, T * N, 1e-6, 0,
                           "scatter"); /* a device contracts a product and a sum */
        assert_fails(cuda->scatter(dev, &got, weigh, dout, dr, T - 1, N), QB_ERR_INTERNAL, "39 tokens");
        logits[EXPERTS + 2] = NAN;
        assert_ok(cuda->upload(dev, dl, logits, sizeof(float) * T * EXPERTS));
        assert_fails(cuda->route(dev, &attr, dl, dbias, T, &got), QB_ERR_NUMERIC, "expert 2");
        qb_routing_free(&want), qb_routing_free(&got);
        give_back(dl), give_back(dx), give_back(dr), give_back(dout), give_back(dbias);
        qb_free(logits), qb_free(x), qb_free(routed), qb_free(bias), qb_free(out);
    }
}

static void test_cuda_ops__steps_are_checked(void **state) {
    (void)state;
    qb_step s = {
        .kind = QB_STEP_ATTEND, .vector = -1, .vector2 = -1, .u.attend = {4, 2, 64, 64, 1, 0, 0, 0, 0}};
    assert_ok(cuda->check_step(&s));
    s.u.attend.value_dim = 32;
    assert_ok(cuda->check_step(&s));
    s.u.attend.value_dim = 264;
    assert_fails(cuda->check_step(&s), QB_ERR_UNSUPPORTED, "264");
    s.u.attend.head_dim = 272, s.u.attend.value_dim = 64;
    assert_fails(cuda->check_step(&s), QB_ERR_UNSUPPORTED, "272");
    s = (qb_step){.kind = QB_STEP_DELTA, .u.delta = {2, 4, 256, 64, 0}};
    assert_ok(cuda->check_step(&s));
    s.u.delta.key_dim = 257;
    assert_fails(cuda->check_step(&s), QB_ERR_UNSUPPORTED, "257");
    s = (qb_step){.kind = QB_STEP_XIELU};
    assert_ok(cuda->check_step(&s));
    s.vector = -1;
    assert_fails(cuda->check_step(&s), QB_ERR_UNSUPPORTED, "four numbers");
    s = (qb_step){.kind = QB_STEP_COUNT};
    assert_fails(cuda->check_step(&s), QB_ERR_UNSUPPORTED, "step kind");
}

static void test_cuda_ops__xielu(void **state) {
    (void)state;
    enum { N = 1000 };
    /* the last: softplus of a large number is the number */
    static const float numbers[][4] = {
        {0.3f, -1.2f, 0.5f, -1e-6f}, {-2, 1.5f, 0.25f, -1e-3f}, {1000, 0, 0.5f, 0}};
    FOR_EACH_ORDER(seed) for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        float *x = noise_new(N), *y = noise_new(N);
        x[0] = 0, x[1] = -30, x[2] = -1e-7f, x[3] = 3, x[4] = -INFINITY;
        float *dx = cuda_put_floats(dev, x, N), *dn = cuda_put_floats(dev, numbers[i], 4);
        assert_ok(cpu->xielu(host, y, x, numbers[i], N));
        assert_ok(cuda->xielu(dev, dx, dx, dn, N)); /* in place */
        assert_cuda_floats(dev, dx, y, N, 1e-6, 1e-6, "xielu");
        x[5] = NAN;
        assert_ok(cuda->upload(dev, dx, x, sizeof(float) * N));
        assert_ok(cuda->xielu(dev, dx, dx, dn, N));
        assert_ok(cuda->download(dev, y, dx, sizeof(float) * N));
        assert_true(isnan(y[5]) && !isnan(y[6]));
        give_back(dx), give_back(dn);
        qb_free(x), qb_free(y);
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
        cmocka_unit_test(test_cuda_ops__maps_and_factors),
        cmocka_unit_test(test_cuda_ops__split_and_join),
        cmocka_unit_test(test_cuda_ops__rows_go_to_experts_and_back),
        cmocka_unit_test(test_cuda_ops__steps_are_checked),
        cmocka_unit_test(test_cuda_ops__xielu),
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
