/* The ops between the matmuls against their definitions in float64, in every instruction set and for 1 to 3
 * threads. */
#include "tests/cpu_support.h"

#include "kernels/cpu/device.h"

static double relative(double got, double want) {
    return fabs(got - want) / (fabs(want) + 1e-30);
}

typedef struct {
    int64_t groups, dim;
    bool weight, bias, per_group;
} norm_case;

static void check_norm(qb_device *dev, qb_norm_kind kind, const norm_case *c) {
    enum { T = 37 };
    int64_t n = c->groups * c->dim;
    qb_norm_attr attr = {kind, 1e-5f, c->dim, c->per_group ? c->groups : 1};
    float *x = noise_new(T * n), *w = noise_new(n), *b = noise_new(n), *y = noise_new(T * n);
    const float *weight = c->weight ? w : NULL, *bias = c->bias ? b : NULL;
    assert_ok(cpu->norm(dev, &attr, y, x, weight, bias, T, n));
    for (int64_t i = 0; i < T * c->groups; i++) {
        const float *from = x + i * c->dim;
        int64_t at = c->per_group ? i % c->groups * c->dim : 0;
        double mean = 0, square = 0;
        for (int64_t d = 0; d < c->dim; d++)
            mean += kind == QB_NORM_LAYER ? (double)from[d] / (double)c->dim : 0;
        for (int64_t d = 0; d < c->dim; d++) square += pow((double)from[d] - mean, 2) / (double)c->dim;
        for (int64_t d = 0; d < c->dim; d++) {
            double v = ((double)from[d] - mean) / sqrt(square + (double)attr.eps);
            if (weight) v *= (double)w[at + d];
            if (bias) v += (double)b[at + d];
            assert_true(fabs((double)y[i * c->dim + d] - v) < 3e-6);
        }
    }
    assert_ok(cpu->norm(dev, &attr, x, x, weight, bias, T, n)); /* in place */
    assert_memory_equal(x, y, (size_t)(T * n) * sizeof *x);
    qb_free(x), qb_free(w), qb_free(b), qb_free(y);
}

static void test_ops__norms(void **state) {
    (void)state;
    static const norm_case cases[] = {
        {1, 1, true, false, false},  {1, 15, true, true, false},   {1, 64, true, false, false},
        {1, 172, true, true, false}, {1, 1040, true, false, true}, {1, 96, false, false, false},
        {5, 64, true, false, false}, {3, 20, true, true, true},    {4, 16, true, false, true},
        {6, 10, false, true, false},
    };
    FOR_EACH_DEVICE(dev) for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_norm(dev, QB_NORM_RMS, &cases[i]);
        check_norm(dev, QB_NORM_LAYER, &cases[i]);
    }
}

static void test_ops__norm_refuses_groups_that_do_not_fit(void **state) {
    (void)state;
    qb_device *dev = device_open(NULL, 1);
    float x[12] = {0};
    assert_fails(cpu->norm(dev, &(qb_norm_attr){QB_NORM_RMS, 0, 5, 1}, x, x, x, NULL, 1, 12), QB_ERR_INTERNAL,
                 "5 elements");
    assert_fails(cpu->norm(dev, &(qb_norm_attr){QB_NORM_RMS, 0, 4, 2}, x, x, x, NULL, 1, 12), QB_ERR_INTERNAL,
                 "2 rows of weights");
    cpu->close(dev);
}

enum { ROPE_SEQ = 2, ROPE_TOK = 5, ROPE_FIRST = 3 };

static void check_rope(qb_device *dev, const qb_rope_attr *attr) {
    int64_t row_size = attr->heads * attr->head_dim, half = attr->width / 2, rows = ROPE_SEQ * ROPE_TOK;
    float *table = noise_new((ROPE_FIRST + ROPE_TOK) * attr->width);
    for (int64_t i = 0; i < (ROPE_FIRST + ROPE_TOK) * half; i++) {
        double angle = (double)(i / half) * pow(10000.0, -(double)(i % half) / (double)half);
        table[2 * i] = (float)cos(angle), table[2 * i + 1] = (float)sin(angle);
    }
    float *x = noise_new(rows * row_size), *y = noise_new(rows * row_size);
    memcpy(y, x, (size_t)(rows * row_size) * sizeof *x);
    assert_ok(cpu->rope(dev, attr, y, table, ROPE_SEQ, ROPE_TOK, ROPE_FIRST));
    for (int64_t i = 0; i < rows * row_size; i++) {
        int64_t d = i % attr->head_dim - attr->offset;
        double want = (double)x[i];
        if (d >= 0 && d < attr->width) {
            bool halves = attr->kind == QB_ROPE_HALF, second = halves ? d >= half : d % 2;
            int64_t pair = halves ? d % half : d / 2, step = halves ? half : 1;
            double angle =
                (double)(ROPE_FIRST + i / row_size % ROPE_TOK) * pow(10000.0, -(double)pair / (double)half);
            want = want * cos(angle) +
                   (second ? (double)x[i - step] * sin(angle) : -(double)x[i + step] * sin(angle));
        }
        assert_true(fabs((double)y[i] - want) < 1e-6);
    }
    qb_free(x), qb_free(y), qb_free(table);
}

static void test_ops__rope_turns_pairs(void **state) {
    (void)state;
    static const int64_t parts[][3] = {
        {10, 0, 6}, {10, 4, 6}, {8, 0, 8}, {12, 3, 4}}; /* dim, offset, width */
    FOR_EACH_DEVICE(dev) for (int kind = 0; kind < 2; kind++) for (int i = 0; i < 4; i++) {
        qb_rope_attr attr = {(qb_rope_kind)kind, 0, 3, parts[i][0], parts[i][1], parts[i][2]};
        check_rope(dev, &attr);
    }
}

static void test_ops__exp_is_accurate(void **state) {
    (void)state;
    for (int s = 0; simd_name(s); s++) {
        setenv("BENCH_SIMD", simd_name(s), 1);
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
    float *x = noise_new(T * N), *firsts[2] = {NULL, NULL}; /* by SGEMM, by tiles */
    FOR_EACH_DEVICE(dev) {
        float *h = noise_new(N * N), *first = firsts[cpu_of(dev)->simd->bf16 != NULL];
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
            firsts[cpu_of(dev)->simd->bf16 != NULL] = h;
    }
    qb_free(firsts[0]), qb_free(firsts[1]), qb_free(x);
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
        for (size_t i = offsetof(qb_backend, check_step) / sizeof *slots;
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
        cmocka_unit_test(test_ops__norm_refuses_groups_that_do_not_fit),
        cmocka_unit_test(test_ops__rope_turns_pairs),
        cmocka_unit_test(test_ops__exp_is_accurate),
        cmocka_unit_test(test_ops__nll_argmax_and_finite),
        cmocka_unit_test(test_ops__sums_embedding_and_copies),
        cmocka_unit_test(test_ops__hessian_adds_to_the_lower_triangle),
        cmocka_unit_test(test_ops__memory_is_counted),
        cmocka_unit_test(test_ops__registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
