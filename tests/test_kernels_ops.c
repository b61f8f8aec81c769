/* The ops between the matmuls against their definitions in
   float64, in every instruction set and for 1 to 3 threads. */
#include "tests/kernels_support.h"

#include "kernels/cpu/simd.h"

static const qb_backend *const cpu = &qb_backend_cpu;

/* Runs body for each instruction set with 1, 2 and 3 threads; `dev` is open. */
#define FOR_EACH_DEVICE(dev)                                                                                 \
    for (int device_i = 0; device_i < SIMD_NAMES * 3; device_i++)                                            \
        for (qb_device *dev = device_open(simd_names[device_i / 3], device_i % 3 + 1); dev;                  \
             cpu->close(dev), dev = NULL)

static double relative(double got, double want) {
    return fabs(got - want) / (fabs(want) + 1e-30);
}

static void test_ops__norms(void **state) {
    (void)state;
    enum { T = 37 };
    static const int64_t widths[] = {1, 15, 64, 172, 1040};
    FOR_EACH_DEVICE(dev) for (int i = 0; i < 5; i++) for (int kind = 0; kind < 2; kind++) {
        int64_t D = widths[i];
        float *x = noise_new(T * D), *w = noise_new(D), *b = noise_new(D), *y = noise_new(T * D);
        const float eps = 1e-5f;
        assert_ok(cpu->norm(dev, (qb_norm_kind)kind, y, x, w, i % 2 ? b : NULL, T, D, eps));
        for (int64_t t = 0; t < T; t++) {
            double mean = 0, square = 0;
            for (int64_t d = 0; d < D; d++)
                mean += kind == QB_NORM_LAYER ? (double)x[t * D + d] / (double)D : 0;
            for (int64_t d = 0; d < D; d++) square += pow((double)x[t * D + d] - mean, 2) / (double)D;
            for (int64_t d = 0; d < D; d++) {
                double v = ((double)x[t * D + d] - mean) / sqrt(square + (double)eps) * (double)w[d];
                if (i % 2) v += (double)b[d];
                assert_true(fabs((double)y[t * D + d] - v) < 3e-6);
            }
        }
        assert_ok(cpu->norm(dev, (qb_norm_kind)kind, x, x, w, i % 2 ? b : NULL, T, D, eps)); /* in place */
        assert_memory_equal(x, y, (size_t)(T * D) * sizeof *x);
        qb_free(x), qb_free(w), qb_free(b), qb_free(y);
    }
}

static void test_ops__rope_turns_pairs(void **state) {
    (void)state;
    enum { SEQ = 2, TOK = 5, FIRST = 3, HEADS = 3, DIM = 10, ROT = 6, ROW = HEADS * DIM };
    float table[(FIRST + TOK) * ROT];
    for (int p = 0; p < FIRST + TOK; p++)
        for (int i = 0; i < ROT / 2; i++) {
            double angle = p * pow(10000.0, -2.0 * i / ROT);
            table[p * ROT + 2 * i] = (float)cos(angle), table[p * ROT + 2 * i + 1] = (float)sin(angle);
        }
    FOR_EACH_DEVICE(dev) for (int kind = 0; kind < 2; kind++) {
        float *x = noise_new(SEQ * TOK * ROW), *y = noise_new(SEQ * TOK * ROW);
        memcpy(y, x, SEQ * TOK * ROW * sizeof *x);
        assert_ok(cpu->rope(dev, (qb_rope_kind)kind, y, table, SEQ, TOK, FIRST, HEADS, DIM, ROT));
        for (int row = 0; row < SEQ * TOK; row++)
            for (int h = 0; h < HEADS; h++)
                for (int d = 0; d < DIM; d++) {
                    const float *head = x + row * ROW + h * DIM;
                    double want = (double)head[d];
                    if (d < ROT) {
                        int pair = kind == QB_ROPE_HALF ? d % (ROT / 2) : d / 2;
                        bool second = kind == QB_ROPE_HALF ? d >= ROT / 2 : d % 2;
                        int partner = kind == QB_ROPE_HALF ? (d + ROT / 2) % ROT : d ^ 1;
                        double angle = (FIRST + row % TOK) * pow(10000.0, -2.0 * pair / ROT);
                        want =
                            want * cos(angle) + (double)head[partner] * (second ? sin(angle) : -sin(angle));
                    }
                    assert_true(fabs((double)y[row * ROW + h * DIM + d] - want) < 1e-6);
                }
        qb_free(x), qb_free(y);
    }
}

static double activation_of(int kind, double x) {
    switch (kind) {
    case QB_ACTIVATION_SILU:
        return x / (1 + exp(-x));
    case QB_ACTIVATION_GELU:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case QB_ACTIVATION_GELU_TANH:
        return x / (1 + exp(-2 * sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    default:
        return x > 0 ? x : 0;
    }
}

static void test_ops__activations(void **state) {
    (void)state;
    enum { N = 20001 };
    FOR_EACH_DEVICE(dev) for (int kind = 0; kind < 4; kind++) {
        float *gate = noise_new(N), *up = noise_new(N), *y = noise_new(N), *z = noise_new(N);
        for (int i = 0; i < N; i++) gate[i] *= i % 3 ? 5.0f : 60.0f;
        gate[N - 1] = -0.0f, gate[N - 2] = 1e30f, gate[N - 3] = -1e30f;
        assert_ok(cpu->activate(dev, (qb_activation)kind, y, gate, NULL, N));
        for (int i = 0; i < N; i++) {
            double want = activation_of(kind, (double)gate[i]);
            /* 1 + erf cancels far below zero; the tanh form has
               the rounding of its exponent, up to 60 there */
            double allowed = kind == QB_ACTIVATION_GELU        ? 2e-7 * (1 + fabs((double)gate[i]))
                             : kind == QB_ACTIVATION_GELU_TANH ? 1e-5 * fabs(want)
                                                               : 5e-7 * fabs(want);
            if (fabs(want) < 1e-25) allowed = 1e-25;
            if (!(fabs((double)y[i] - want) <= allowed || (double)y[i] == want))
                fail_msg("activation %d of %g: %g, not %g", kind, (double)gate[i], (double)y[i], want);
        }
        assert_ok(cpu->activate(dev, (qb_activation)kind, z, gate, up, N));
        for (int i = 0; i < N; i++) assert_true(z[i] == y[i] * up[i]);
        gate[17] = NAN;
        assert_ok(
            cpu->activate(dev, (qb_activation)kind, gate, gate, NULL, N)); /* in place; a NaN is not hidden */
        assert_true(isnan(gate[17]) && gate[16] == y[16]);
        qb_free(gate), qb_free(up), qb_free(y), qb_free(z);
    }
}

static void test_ops__exp_is_accurate(void **state) {
    (void)state;
    for (int s = 0; s < SIMD_NAMES; s++) {
        setenv("BENCH_SIMD", simd_names[s], 1);
        const qb_simd *simd = qb_simd_chosen();
        double worst = 0, total = 0;
        for (int i = 0; i < 400; i++) {
            float x[500];
            double first[500];
            for (int k = 0; k < 500; k++)
                x[k] = -86.0f + 0.00087f * (float)(i * 500 + k), first[k] = (double)x[k];
            double sum = (double)simd->exp_row(x, 500, 1.0f, 0.0f), want = 0;
            for (int k = 0; k < 500; k++) {
                worst = fmax(worst, relative((double)x[k], exp(first[k])));
                want += exp(first[k]);
            }
            if (want < 3e38) total = fmax(total, relative(sum, want));
        }
        assert_true(worst < 1.5 * 0x1p-23); /* of the last place */
        assert_true(total < 1e-6);
        float ends[20] = {200.0f, 88.7f, -103.0f, -104.5f, -INFINITY, INFINITY, NAN};
        (void)simd->exp_row(ends, 20, 1.0f, 0.0f);
        assert_true(isinf(ends[0]) && isfinite(ends[1]) && ends[2] > 0 && ends[3] == 0 && ends[4] == 0);
        assert_true(isinf(ends[5]) && isnan(ends[6]) && ends[7] == 1.0f);
    }
    unsetenv("BENCH_SIMD");
}

typedef struct {
    int64_t heads, kv_heads, dim, seq, first, tok;
    qb_dtype dtype;
} attention_case;

static float cache_value(const attention_case *c, const void *cache, int64_t at) {
    return c->dtype == QB_DTYPE_F16 ? qb_f32_of_f16(((const uint16_t *)cache)[at])
                                    : ((const float *)cache)[at];
}

static void attention_reference(const attention_case *c, const qb_kv *kv, const qb_attention *a, int64_t row,
                                int64_t h, double *out) {
    int64_t seq = row / c->tok, keys = c->first + row % c->tok + 1;
    int64_t base =
        ((a->layer * kv->n_seq + seq) * c->kv_heads + h / (c->heads / c->kv_heads)) * kv->capacity * c->dim;
    double total = 0, score[2048];
    for (int64_t d = 0; d < c->dim; d++) out[d] = 0;
    for (int64_t k = 0; k < keys; k++) {
        score[k] = 0;
        for (int64_t d = 0; d < c->dim; d++)
            score[k] += (double)a->q[(row * c->heads + h) * c->dim + d] *
                        (double)cache_value(c, kv->k, base + k * c->dim + d);
        score[k] = exp(score[k] * (double)a->scale);
        total += score[k];
    }
    for (int64_t k = 0; k < keys; k++)
        for (int64_t d = 0; d < c->dim; d++)
            out[d] += score[k] / total * (double)cache_value(c, kv->v, base + k * c->dim + d);
}

/* The cache is filled by two kv_store calls, so that
   positions and sequences are checked with the attention. */
static void check_attention(const attention_case *c) {
    int64_t capacity = c->first + c->tok + 3, layers = 2, layer = 1, kv_row = c->kv_heads * c->dim;
    float *first = NULL;
    float *k0 = noise_new(c->seq * c->first * kv_row), *v0 = noise_new(c->seq * c->first * kv_row);
    float *k1 = noise_new(c->seq * c->tok * kv_row), *v1 = noise_new(c->seq * c->tok * kv_row);
    float *q = noise_new(c->seq * c->tok * c->heads * c->dim);
    for (int64_t i = 0; i < c->seq * c->tok * c->heads * c->dim; i++) q[i] *= 4;
    FOR_EACH_DEVICE(dev) {
        qb_kv kv = {c->dtype, layers, c->seq + 1, capacity, c->kv_heads, c->dim, NULL, NULL};
        int64_t elements = layers * kv.n_seq * c->kv_heads * capacity * c->dim;
        assert_ok(cpu->alloc(dev, QB_MEMORY_KV, elements * 4, &kv.k));
        assert_ok(cpu->alloc(dev, QB_MEMORY_KV, elements * 4, &kv.v));
        memset(kv.k, 0xff, (size_t)elements * 4); /* NaN wherever nothing was stored */
        memset(kv.v, 0xff, (size_t)elements * 4);
        if (c->first) assert_ok(cpu->kv_store(dev, &kv, layer, k0, v0, c->seq, c->first, 0));
        assert_ok(cpu->kv_store(dev, &kv, layer, k1, v1, c->seq, c->tok, c->first));
        float *out = noise_new(c->seq * c->tok * c->heads * c->dim);
        qb_attention a = {
            q, out, c->seq, c->tok, c->first, c->heads, &kv, layer, 1.0f / sqrtf((float)c->dim)};
        assert_ok(cpu->attention(dev, &a));
        double want[256];
        for (int64_t row = 0; row < c->seq * c->tok && device_i % 3 == 0; row += c->tok > 40 ? 7 : 1)
            for (int64_t h = 0; h < c->heads; h++) {
                attention_reference(c, &kv, &a, row, h, want);
                for (int64_t d = 0; d < c->dim; d++)
                    assert_true(fabs((double)out[(row * c->heads + h) * c->dim + d] - want[d]) < 3e-6);
            }
        size_t bytes = (size_t)(c->seq * c->tok * c->heads * c->dim) * sizeof *out;
        if (device_i % 3 == 0)
            qb_free(first), first = out;
        else
            assert_memory_equal(first, out, bytes), qb_free(out);
        cpu->free(dev, kv.k), cpu->free(dev, kv.v);
        assert_no_memory(dev);
    }
    qb_free(first), qb_free(k0), qb_free(v0), qb_free(k1), qb_free(v1), qb_free(q);
}

static void test_ops__attention(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {4, 4, 8, 1, 0, 1, QB_DTYPE_F32},      {4, 2, 16, 2, 9, 1, QB_DTYPE_F16},
        {2, 1, 80, 1, 1100, 1, QB_DTYPE_F16},  {6, 2, 128, 1, 600, 2, QB_DTYPE_F32},
        {2, 2, 20, 3, 511, 3, QB_DTYPE_F16},   {4, 2, 8, 2, 0, 70, QB_DTYPE_F32},
        {2, 1, 128, 1, 30, 130, QB_DTYPE_F16}, {3, 1, 80, 1, 500, 65, QB_DTYPE_F32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_attention(&cases[i]);
}

static void test_ops__attention_refuses_what_does_not_fit(void **state) {
    (void)state;
    qb_device *dev = device_open(NULL, 1);
    float cell[64] = {0};
    qb_kv kv = {QB_DTYPE_F32, 1, 1, 4, 2, 8, cell, cell};
    qb_attention a = {cell, cell, 1, 3, 2, 2, &kv, 0, 1.0f};
    assert_fails(cpu->attention(dev, &a), QB_ERR_INTERNAL, "cache of 4");
    a.n_heads = 3, a.n_tok = 1;
    assert_fails(cpu->attention(dev, &a), QB_ERR_UNSUPPORTED, "3 query heads");
    kv.dtype = QB_DTYPE_BF16;
    assert_fails(cpu->attention(dev, &a), QB_ERR_UNSUPPORTED, "BF16");
    assert_fails(cpu->kv_store(dev, &kv, 0, cell, cell, 1, 1, 0), QB_ERR_UNSUPPORTED, "BF16");
    kv.dtype = QB_DTYPE_F16;
    assert_fails(cpu->kv_store(dev, &kv, 0, cell, cell, 1, 2, 3), QB_ERR_INTERNAL, "3 .. 4");
    cpu->close(dev);
}

static void test_ops__nll_argmax_and_finite(void **state) {
    (void)state;
    enum { T = 5, V = 1003 };
    FOR_EACH_DEVICE(dev) {
        float *x = noise_new(T * V);
        for (int i = 0; i < T * V; i++) x[i] *= 30.0f;
        int32_t targets[T] = {0, 7, -1, V - 1, 500}, best[T];
        double out[T];
        assert_ok(cpu->nll(dev, x, T, V, targets, out));
        for (int t = 0; t < T; t++) {
            long double sum = 0;
            for (int i = 0; i < V; i++) sum += expl((long double)x[t * V + i]);
            double want = targets[t] < 0 ? 0 : (double)(logl(sum) - (long double)x[t * V + targets[t]]);
            assert_true(fabs(out[t] - want) < 1e-13 * (1 + fabs(want)));
        }
        x[2 * V + 900] = x[2 * V + 30] = 77.0f;
        assert_ok(cpu->argmax(dev, x, T, V, best));
        assert_int_equal(best[2], 30); /* the first of equals */
        for (int i = 0; i < V; i++) assert_true(x[4 * V + i] <= x[4 * V + best[4]]);
        bool ok = false;
        assert_ok(cpu->all_finite(dev, x, T * V, &ok));
        assert_true(ok);
        const float bad[] = {NAN, INFINITY, -INFINITY};
        for (int b = 0; b < 3; b++) {
            float kept = x[3 * V + 1000];
            x[3 * V + 1000] = bad[b];
            assert_ok(cpu->all_finite(dev, x, T * V, &ok));
            assert_false(ok);
            assert_fails(cpu->nll(dev, x, T, V, targets, out), QB_ERR_NUMERIC, "row 3");
            assert_fails(cpu->argmax(dev, x, T, V, best), QB_ERR_NUMERIC, "row 3");
            x[3 * V + 1000] = kept;
        }
        targets[1] = V;
        assert_fails(cpu->nll(dev, x, T, V, targets, out), QB_ERR_INTERNAL, "target 1003");
        qb_free(x);
    }
}

static void test_ops__sums_embedding_and_copies(void **state) {
    (void)state;
    enum { T = 4, D = 172, V = 9 };
    FOR_EACH_DEVICE(dev) {
        float *x = noise_new(T * D), *y = noise_new(T * D), *z = noise_new(T * D), *table = noise_new(V * D);
        memcpy(z, x, T * D * sizeof *x);
        assert_ok(cpu->add(dev, z, y, T * D));
        for (int i = 0; i < T * D; i++) assert_true(z[i] == x[i] + y[i]);
        memcpy(z, x, T * D * sizeof *x);
        assert_ok(cpu->add_bias(dev, z, y, T, D));
        for (int i = 0; i < T * D; i++) assert_true(z[i] == x[i] + y[i % D]);
        uint16_t halves[V * D];
        assert_ok(qb_from_f32(QB_DTYPE_BF16, table, V * D, halves));
        qb_matrix m = {.rows = V, .cols = D, .dtype = QB_DTYPE_BF16, .dense = halves};
        const int32_t ids[T] = {8, 0, 3, 8};
        assert_ok(cpu->embed(dev, z, &m, ids, T));
        for (int i = 0; i < T * D; i++) assert_true(z[i] == qb_f32_of_bf16(halves[ids[i / D] * D + i % D]));
        m.dense = NULL;
        assert_fails(cpu->embed(dev, z, &m, ids, T), QB_ERR_UNSUPPORTED, "embedding");
        assert_ok(cpu->upload(dev, z, x, T * D * 4));
        assert_ok(cpu->copy(dev, y, z, T * D * 4));
        assert_ok(cpu->download(dev, z, y, T * D * 4));
        assert_ok(cpu->sync(dev));
        assert_memory_equal(x, z, T * D * sizeof *x);
        qb_free(x), qb_free(y), qb_free(z), qb_free(table);
    }
}

static void test_ops__hessian_adds_to_the_lower_triangle(void **state) {
    (void)state;
    enum { T = 33, N = 530 };
    float *x = noise_new(T * N), *first = NULL;
    FOR_EACH_DEVICE(dev) {
        float *h = noise_new(N * N);
        for (int i = 0; i < N * N; i++) h[i] = (float)(i % 7);
        assert_ok(cpu->hessian(dev, h, x, T, N));
        for (int r = 0; r < N && !first; r++)
            for (int c = 0; c < N; c++) {
                double want = (r * N + c) % 7;
                for (int t = 0; t < T && c <= r; t++) want += (double)x[t * N + r] * (double)x[t * N + c];
                assert_true(fabs((double)h[r * N + c] - want) < 1e-5);
            }
        if (first)
            assert_memory_equal(first, h, N * N * sizeof *h), qb_free(h);
        else
            first = h;
    }
    qb_free(first), qb_free(x);
}

static void test_ops__memory_is_counted(void **state) {
    (void)state;
    qb_device *dev = device_open(NULL, 1);
    void *a, *b;
    qb_memory m;
    assert_ok(cpu->alloc(dev, QB_MEMORY_KV, 1000, &a));
    assert_ok(cpu->alloc(dev, QB_MEMORY_ACTIVATIONS, 3 << 20, &b));
    assert_int_equal((uintptr_t)a % 64, 0);
    cpu->free(dev, a);
    assert_ok(cpu->alloc(dev, QB_MEMORY_KV, 10, &a));
    cpu->memory(dev, &m);
    assert_int_equal(m.now_bytes[QB_MEMORY_KV], 10);
    assert_int_equal(m.peak_bytes[QB_MEMORY_KV], 1000);
    assert_int_equal(m.total_peak_bytes, 1000 + (3 << 20));
    cpu->free(dev, a), cpu->free(dev, b), cpu->free(dev, NULL);
    assert_no_memory(dev);
    assert_fails(cpu->alloc(dev, QB_MEMORY_KV, -1, &a), QB_ERR_MEMORY, "-1 bytes");
    assert_null(a);
    cpu->close(dev);
    cpu->close(NULL);
}

static void test_ops__registry(void **state) {
    (void)state;
    assert_ptr_equal(qb_backend_find("cpu"), cpu);
    assert_null(qb_backend_find("tpu"));
    size_t n = 0;
    for (; qb_backend_at(n); n++) {
        assert_true(qb_backend_at(n)->name[0] && qb_backend_at(n)->summary[0]);
        /* Every function is there but the optional ones, which stand last. */
        const void *const *slots = (const void *const *)(const void *)qb_backend_at(n);
        for (size_t i = offsetof(qb_backend, open) / sizeof *slots;
             i < offsetof(qb_backend, decode) / sizeof *slots; i++)
            assert_non_null(slots[i]);
        for (size_t i = 0; i < n; i++)
            assert_string_not_equal(qb_backend_at(i)->name, qb_backend_at(n)->name);
    }
    assert_true(n >= 1);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops__norms),
        cmocka_unit_test(test_ops__rope_turns_pairs),
        cmocka_unit_test(test_ops__activations),
        cmocka_unit_test(test_ops__exp_is_accurate),
        cmocka_unit_test(test_ops__attention),
        cmocka_unit_test(test_ops__attention_refuses_what_does_not_fit),
        cmocka_unit_test(test_ops__nll_argmax_and_finite),
        cmocka_unit_test(test_ops__sums_embedding_and_copies),
        cmocka_unit_test(test_ops__hessian_adds_to_the_lower_triangle),
        cmocka_unit_test(test_ops__memory_is_counted),
        cmocka_unit_test(test_ops__registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
