/* Activations, maps, factors of rows and moved rows against their definitions in float64, in every
   instruction set and for 1 to 3 threads. */
#include "tests/cpu_support.h"

enum { ALPHA_LIMIT_KIND = QB_ACTIVATION_SWIGLU_OSS };
static const float oss_alpha = 1.702f, oss_limit = 7.0f;

static double activation_of(int kind, double x) {
    switch (kind) {
    case QB_ACTIVATION_SILU:
        return x / (1 + exp(-x));
    case QB_ACTIVATION_GELU:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case QB_ACTIVATION_GELU_TANH:
        return x / (1 + exp(-2 * sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case QB_ACTIVATION_RELU2:
        return x > 0 ? x * x : 0;
    case QB_ACTIVATION_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case QB_ACTIVATION_SIGMOID:
        return 1 / (1 + exp(-x));
    default:
        return x > 0 ? x : 0;
    }
}

static double oss_of(double gate, double up) {
    double g = fmin(gate, (double)oss_limit), u = fmax(fmin(up, (double)oss_limit), -(double)oss_limit);
    return (u + 1) * g / (1 + exp(-(double)oss_alpha * g));
}

/* The tanh form and the sigmoid of 1.702 x have the rounding of their exponents, up to 60 there. */
static double allowed_error(int kind, double want) {
    if (fabs(want) < 1e-25) return 1e-25;
    return (kind == QB_ACTIVATION_GELU_TANH || kind == QB_ACTIVATION_QUICK_GELU ? 1e-5 : 5e-7) * fabs(want);
}

static void test_elements__activations(void **state) {
    (void)state;
    enum { N = 20001 };
    FOR_EACH_DEVICE(dev) for (int kind = 0; kind < ALPHA_LIMIT_KIND; kind++) {
        float *gate = noise_new(N), *up = noise_new(N), *y = noise_new(N), *z = noise_new(N);
        for (int i = 0; i < N; i++) gate[i] *= i % 3 ? 5.0f : 60.0f;
        gate[N - 1] = -0.0f, gate[N - 2] = 1e15f, gate[N - 3] = -1e30f;
        qb_activate_attr attr = {.kind = (qb_activation)kind, .glu = QB_GLU_NONE};
        assert_ok(cpu->activate(dev, &attr, y, gate, NULL, 1, N));
        for (int i = 0; i < N; i++) {
            double want = activation_of(kind, (double)gate[i]);
            if (!(fabs((double)y[i] - want) <= allowed_error(kind, want) || (double)y[i] == want))
                fail_msg("%s of %g: %g, not %g", qb_activation_name((qb_activation)kind), (double)gate[i],
                         (double)y[i], want);
        }
        attr.glu = QB_GLU_SEPARATE;
        assert_ok(cpu->activate(dev, &attr, z, gate, up, N, 1));
        for (int i = 0; i < N; i++) assert_true(z[i] == y[i] * up[i]);
        gate[17] = NAN, attr.glu = QB_GLU_NONE; /* in place; a NaN is not hidden */
        assert_ok(cpu->activate(dev, &attr, gate, gate, NULL, 1, N));
        assert_true(isnan(gate[17]) && gate[16] == y[16]);
        qb_free(gate), qb_free(up), qb_free(y), qb_free(z);
    }
}

/* Values that transformers 5.24.0 gives (activations.py) at -3, -1, -0.5, 0.5, 1 and 3. */
static void test_elements__activations_are_the_references(void **state) {
    (void)state;
    static const float x[6] = {-3, -1, -0.5f, 0.5f, 1, 3};
    static const struct {
        qb_activation kind;
        double want[6];
    } golden[] = {
        {QB_ACTIVATION_GELU,
         {-0.00404969409, -0.158655254, -0.154268769, 0.345731231, 0.841344746, 2.99595031}},
        {QB_ACTIVATION_GELU_TANH,
         {-0.00363739208, -0.158808009, -0.15428599, 0.34571401, 0.841191991, 2.99636261}},
        {QB_ACTIVATION_QUICK_GELU,
         {-0.0180713097, -0.154204234, -0.149611563, 0.350388437, 0.845795766, 2.98192869}},
        {QB_ACTIVATION_SILU, {-0.14227762, -0.268941421, -0.188770334, 0.311229666, 0.731058579, 2.85772238}},
        {QB_ACTIVATION_RELU2, {0, 0, 0, 0.25, 1, 9}},
    };
    FOR_EACH_DEVICE(dev) for (size_t g = 0; g < sizeof golden / sizeof *golden; g++) {
        float y[6];
        assert_ok(cpu->activate(dev, &(qb_activate_attr){.kind = golden[g].kind}, y, x, NULL, 1, 6));
        for (int i = 0; i < 6; i++)
            assert_true(fabs((double)y[i] - golden[g].want[i]) < 2e-7 * fmax(1, fabs((double)y[i])));
    }
}

/* Values that transformers 5.24.0 gives (XIELUActivation in float32). */
static void test_elements__xielu(void **state) {
    (void)state;
    enum { N = 10, MANY = 20001 };
    static const float numbers[4] = {0.3f, -1.2f, 0.5f, -1e-6f};
    static const float x[N] = {-30, -3, -1, -0.5f, -1e-7f, 0, 1e-3f, 0.5f, 1, 3};
    static const double want[N] = {7.13519096,     0.0645663738,   -0.219204098, -0.168687016, -7.3695378e-07,
                                   -7.6328206e-07, 0.000500854396, 0.463588834,  1.35435534,   9.18919754};
    FOR_EACH_DEVICE(dev) {
        float y[N], *many = noise_new(MANY), *out = noise_new(MANY);
        assert_ok(cpu->xielu(dev, y, x, numbers, N));
        for (int i = 0; i < N; i++)
            assert_true(fabs((double)y[i] - want[i]) <
                        2e-7 * fmax(fabs(want[i]), fabs((double)x[i])) + 1e-12);
        many[MANY - 1] = NAN, many[7] = INFINITY;
        assert_ok(cpu->xielu(dev, out, many, numbers, MANY));
        assert_true(isnan(out[MANY - 1]) && isinf(out[7]));
        assert_ok(cpu->xielu(dev, many, many, numbers, MANY)); /* in place */
        assert_memory_equal(many, out, (MANY - 1) * sizeof *out);
        /* softplus of a large number is the number */
        assert_ok(cpu->xielu(dev, y, (const float[1]){2}, (const float[4]){1000, 0, 0.5f, 0}, 1));
        assert_true(y[0] == 4001.0f);
        qb_free(many), qb_free(out);
    }
}

static void test_elements__gated_forms(void **state) {
    (void)state;
    enum { T = 23, N = 701 };
    FOR_EACH_DEVICE(dev) for (int kind = 0; kind < QB_ACTIVATION_COUNT; kind++) {
        float *gate = noise_new(T * N), *up = noise_new(T * N), *both = noise_new(2 * T * N);
        float *want = noise_new(T * N), *y = noise_new(T * N);
        for (int i = 0; i < T * N; i++) gate[i] *= 9.0f, up[i] *= 9.0f;
        qb_activate_attr attr = {(qb_activation)kind, QB_GLU_SEPARATE, oss_alpha, oss_limit};
        assert_ok(cpu->activate(dev, &attr, want, gate, up, T, N));
        for (int i = 0; i < T * N && kind == QB_ACTIVATION_SWIGLU_OSS; i++) {
            double v = oss_of((double)gate[i], (double)up[i]);
            assert_true(fabs((double)want[i] - v) <= 4e-6 * fabs(v) + 1e-25);
        }
        for (int i = 0; i < T * N; i++)
            both[i / N * 2 * N + i % N] = gate[i], both[i / N * 2 * N + N + i % N] = up[i];
        attr.glu = QB_GLU_HALVES;
        assert_ok(cpu->activate(dev, &attr, y, both, NULL, T, N));
        assert_memory_equal(y, want, T * N * sizeof *y);
        for (int i = 0; i < T * N; i++) both[2 * i] = gate[i], both[2 * i + 1] = up[i];
        attr.glu = QB_GLU_INTERLEAVED;
        assert_ok(cpu->activate(dev, &attr, y, both, NULL, T, N));
        assert_memory_equal(y, want, T * N * sizeof *y);
        attr.glu = QB_GLU_SEPARATE; /* in place, into either */
        memcpy(y, gate, T * N * sizeof *y);
        assert_ok(cpu->activate(dev, &attr, y, y, up, T, N));
        assert_memory_equal(y, want, T * N * sizeof *y);
        assert_ok(cpu->activate(dev, &attr, up, gate, up, T, N));
        assert_memory_equal(up, want, T * N * sizeof *y);
        assert_fails(cpu->activate(dev, &attr, y, gate, NULL, T, N), QB_ERR_INTERNAL, "separate factor");
        qb_free(gate), qb_free(up), qb_free(both), qb_free(want), qb_free(y);
    }
}

static void test_elements__maps(void **state) {
    (void)state;
    enum { N = 9001 };
    static const qb_step_kind kinds[] = {QB_STEP_SCALE, QB_STEP_CLAMP, QB_STEP_SOFTCAP};
    FOR_EACH_DEVICE(dev) for (int k = 0; k < 3; k++) {
        float *x = noise_new(N), *y = noise_new(N), v = 30.0f;
        for (int i = 0; i < N; i++) x[i] *= i % 4 ? 90.0f : 0.01f;
        x[0] = 1e30f, x[1] = -1e30f, x[2] = -0.0f;
        memcpy(y, x, N * sizeof *x);
        x[3] = y[3] = NAN;
        assert_ok(cpu->map(dev, kinds[k], v, y, N));
        for (int i = 0; i < N; i++) {
            double e = (double)x[i], want = kinds[k] == QB_STEP_SCALE   ? e * 30
                                            : kinds[k] == QB_STEP_CLAMP ? fmin(fmax(e, -30), 30)
                                                                        : 30 * tanh(e / 30);
            if (i == 3)
                assert_true(isnan(y[i]));
            else if (!(fabs((double)y[i] - want) <= 4e-7 * fabs(want)))
                fail_msg("%s of %g: %.9g, not %.9g", qb_step_name(kinds[k]), e, (double)y[i], want);
        }
        assert_fails(cpu->map(dev, QB_STEP_ADD, v, y, N), QB_ERR_INTERNAL, "add");
        qb_free(x), qb_free(y);
    }
}

static void test_elements__factors_of_rows(void **state) {
    (void)state;
    enum { SEQ = 2, TOK = 9, T = SEQ * TOK, N = 130, FIRST = 8188 };
    FOR_EACH_DEVICE(dev) {
        float *x = noise_new(T * N), *y = noise_new(T * N), *gate = noise_new(T);
        for (int t = 0; t < T; t++) gate[t] *= 20;
        memcpy(y, x, T * N * sizeof *x);
        assert_ok(cpu->gate_rows(dev, y, gate, T, N));
        for (int i = 0; i < T * N; i++) {
            double want = (double)x[i] / (1 + exp(-(double)gate[i / N]));
            assert_true(fabs((double)y[i] - want) <= 3e-7 * fabs(want));
        }
        qb_temperature_attr attr = {.beta = 0.1f, .floor_scale = 8192, .shift = 1};
        memcpy(y, x, T * N * sizeof *x);
        assert_ok(cpu->temperature(dev, &attr, y, SEQ, TOK, FIRST, N));
        for (int i = 0; i < T * N; i++) {
            int position = FIRST + i / N % TOK;
            double want = (double)x[i] * (position < 8191 ? 1 : 1 + (double)attr.beta * log(2.0));
            assert_true(fabs((double)y[i] - want) <= 3e-7 * fabs(want));
        }
        qb_free(x), qb_free(y), qb_free(gate);
    }
}

static void test_elements__split_and_join(void **state) {
    (void)state;
    enum { T = 7 };
    static const qb_split_attr splits[] = {{1, {24, 8, 8}}, {4, {6, 6, 6}}, {3, {5, 2, 0}}, {2, {8, 1, 300}}};
    FOR_EACH_DEVICE(dev) for (size_t s = 0; s < sizeof splits / sizeof *splits; s++) {
        const qb_split_attr *a = &splits[s];
        int64_t group = a->width[0] + a->width[1] + a->width[2];
        float *x = noise_new(T * a->groups * group), *parts[3];
        for (int i = 0; i < 3; i++) parts[i] = a->width[i] ? noise_new(T * a->groups * a->width[i]) : NULL;
        assert_ok(cpu->split(dev, a, x, parts, T));
        for (int64_t i = 0; i < T * a->groups * group; i++) {
            int64_t g = i / group, d = i % group;
            int part = d < a->width[0] ? 0 : d < a->width[0] + a->width[1] ? 1 : 2;
            for (int p = 0; p < part; p++) d -= a->width[p];
            assert_true(parts[part][g * a->width[part] + d] == x[i]);
        }
        for (int i = 0; i < 3; i++) qb_free(parts[i]);
        qb_free(x);
        qb_join_attr j = {3, 5, (int64_t)s + 1};
        float *own = noise_new(T * 3 * 5), *shared = noise_new(T * j.shared),
              *y = noise_new(T * 3 * (5 + j.shared));
        assert_ok(cpu->join(dev, &j, y, own, shared, T));
        for (int64_t i = 0; i < T * 3 * (5 + j.shared); i++) {
            int64_t head = i / (5 + j.shared), d = i % (5 + j.shared);
            assert_true(y[i] == (d < 5 ? own[head * 5 + d] : shared[head / 3 * j.shared + d - 5]));
        }
        qb_free(own), qb_free(shared), qb_free(y);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements__activations),
        cmocka_unit_test(test_elements__activations_are_the_references),
        cmocka_unit_test(test_elements__xielu),
        cmocka_unit_test(test_elements__gated_forms),
        cmocka_unit_test(test_elements__maps),
        cmocka_unit_test(test_elements__factors_of_rows),
        cmocka_unit_test(test_elements__split_and_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
