/* Methods and Hessians on small problems: the toy problem of docs/methods.md, the factor's defining identity,
   damping and fallback, shapes that do not divide, independence of threads and instruction set, refusals. */
#include "tests/method_support.h"
#include "tests/support.h"

#include "base/rng.h"
#include "kernels/cpu/cpu.h"
#include "quant/affine.h"
#include "quant/hessian.h"
#include "quant/method.h"

#include <math.h>

static float noise(uint64_t seed, uint64_t i) {
    return (float)((double)(qb_noise_u64(seed, i) >> 11) / 9007199254740992.0 * 2 - 1);
}

static float *noisy(size_t n, uint64_t seed) {
    float *x;
    assert_ok(qb_alloc(n, sizeof *x, &x));
    for (size_t i = 0; i < n; i++) x[i] = noise(seed, i);
    return x;
}

/* A well-conditioned H = sum x x^T of 2n inputs whose channels differ in size. */
static qb_hessian noisy_hessian(int64_t n, uint64_t seed) {
    qb_hessian h = {.n = n, .n_samples = 1};
    assert_ok(qb_alloc_zero((size_t)(n * n), sizeof *h.h, &h.h));
    float *x = noisy((size_t)(2 * n * n), seed);
    for (int64_t t = 0; t < 2 * n; t++)
        for (int64_t i = 0; i < n; i++) x[t * n + i] *= 1.0F + 3.0F * fabsf(noise(seed + 1, (uint64_t)i));
    for (int64_t t = 0; t < 2 * n; t++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) h.h[i * n + j] += x[t * n + i] * x[t * n + j];
    qb_free(x);
    assert_ok(qb_hessian_prepare("test", &h));
    return h;
}

static qb_quant_config defaults(const char *method) {
    qb_quant_config c = {0};
    qb_options_defaults(qb_quant_method_find(method)->options, &c);
    return c;
}

static qb_qweight run(const char *method, const qb_quant_config *config, const float *weight, int64_t rows,
                      int64_t cols, qb_hessian *h, qb_threads *threads, qb_module_report *report) {
    float *w;
    assert_ok(qb_alloc((size_t)(rows * cols), sizeof *w, &w));
    memcpy(w, weight, (size_t)(rows * cols) * sizeof *w);
    qb_quant_job job = {"block.0.q", rows, cols, w, QB_DTYPE_F16, h, config, threads, NULL, NULL};
    qb_qweight q;
    *report = (qb_module_report){0};
    assert_ok(quantize_alone(method, &job, &q, report));
    qb_free(w);
    return q;
}

static void test_quant__registry_is_sound(void **state) {
    (void)state;
    size_t n = 0;
    for (const qb_quant_method *m; (m = qb_quant_method_at(n)); n++) {
        assert_ptr_equal(qb_quant_method_find(m->name), m);
        assert_true(strlen(m->summary) > 10 && strlen(m->source) > 10);
        qb_quant_config c = defaults(m->name);
        qb_qweight q;
        assert_ok(m->describe("m", 64, 256, QB_DTYPE_F16, &c, &q)); /* defaults must do */
    }
    assert_int_equal(n, 5);
    assert_null(qb_quant_method_find("awq"));
    assert_null(qb_quant_method_find(NULL));
}

/* Sum over 2 rows of d H d^T, d = w - q. */
static double toy_error(const float *w, const float *q, const float *h) {
    double sum = 0;
    for (int r = 0; r < 2; r++)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++)
                sum += ((double)w[4 * r + i] - (double)q[4 * r + i]) * (double)h[4 * i + j] *
                       ((double)w[4 * r + j] - (double)q[4 * r + j]);
    return sum;
}

static void test_quant__toy_table(void **state) {
    (void)state;
    const float w[8] = {.9F, -.4F, .3F, -.7F, .2F, .5F, -1.1F, .8F};
    const float h4[16] = {4, 1, .5F, .2F, 1, 3, .7F, .1F, .5F, .7F, 2, .3F, .2F, .1F, .3F, 1};
    static const struct {
        int bits;
        bool symmetric;
        float scales[2];
        uint8_t zeros[2], rtn[8], gptq[8];
        double loss;
    } rows[] = {
        {4,
         true,
         {.12F, .146666667F},
         {8, 8},
         {15, 5, 10, 2, 9, 11, 0, 13},
         {15, 5, 10, 2, 9, 12, 0, 14},
         .028529444},
        {3,
         true,
         {.257142857F, .314285714F},
         {4, 4},
         {7, 2, 5, 1, 5, 6, 1, 7},
         {7, 3, 5, 1, 5, 5, 1, 6},
         .127471939},
        {2, true, {.6F, .733333333F}, {2, 2}, {3, 1, 2, 1, 2, 3, 0, 3}, {3, 1, 3, 1, 2, 3, 0, 3}, .551680556},
        {2,
         false,
         {.533333333F, .633333333F},
         {1, 2},
         {3, 0, 2, 0, 2, 3, 0, 3},
         {3, 0, 2, 0, 2, 3, 0, 3},
         .279569444},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qb_quant_config c = defaults("gptq");
        c.bits = rows[i].bits;
        c.symmetric = rows[i].symmetric;
        c.group_size = -1;
        qb_hessian h = {.n = 4, .n_samples = 1};
        assert_ok(qb_alloc(16, sizeof(float), &h.h));
        memcpy(h.h, h4, sizeof h4);
        assert_ok(qb_hessian_prepare("toy", &h));
        qb_module_report report;
        qb_qweight rtn = run("rtn", &c, w, 2, 4, NULL, NULL, &report);
        for (int k = 0; k < 8; k++) { /* the table was made in float64, where exact ties may fall otherwise */
            double step = (double)w[k] / (double)rtn.scales[k / 4];
            if (fabs(fabs(step - trunc(step)) - 0.5) > 1e-5) assert_int_equal(rtn.codes[k], rows[i].rtn[k]);
        }
        qb_qweight q = run("gptq", &c, w, 2, 4, &h, NULL, &report);
        float back[8];
        qb_qweight_dequantize(&q, back); /* with float32 scales, as the table was made */
        double loss = toy_error(w, back, h4) / 2, damp = 0.01 * 2.5; /* mean(diag) = 2.5 */
        for (int k = 0; k < 8; k++) {
            loss += damp / 2 * pow((double)w[k] - (double)back[k], 2);
            assert_int_equal(q.codes[k], rows[i].gptq[k]);
        }
        for (int r = 0; r < 2; r++) {
            assert_true(fabsf(q.scales[r] - rows[i].scales[r]) < 1e-7F);
            assert_int_equal(q.zeros[r], rows[i].zeros[r]);
        }
        assert_true(fabs(loss - rows[i].loss) < 1e-6);
        assert_ok(qb_qweight_round_scales(&q)); /* the report is of what the file holds */
        qb_qweight_dequantize(&q, back);
        assert_true(fabs(report.error / toy_error(w, back, h4) - 1) < 1e-5);
        qb_qweight_free(&rtn);
        qb_qweight_free(&q);
        qb_hessian_free(&h);
    }
}

/* U is upper and U^T U (P H P^T + damp) = I, checked in float64. */
static void check_factor(int64_t n, bool act_order) {
    qb_hessian h = noisy_hessian(n, 5);
    assert_ok(qb_hessian_factor(NULL, 0.01, act_order, &h));
    assert_int_equal(h.retries, 0);
    assert_int_equal(h.perm != NULL, act_order);
    double mean = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)h.h[i * n + i] / (double)n;
    double *uh;
    assert_ok(qb_alloc_zero((size_t)(n * n), sizeof *uh, &uh));
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < n; k++) {
            if (k < i) assert_true(h.u[i * n + k] == 0.0F);
            int64_t a = act_order ? h.perm[k] : k;
            for (int64_t j = 0; j < n; j++) {
                int64_t b = act_order ? h.perm[j] : j;
                uh[i * n + j] +=
                    (double)h.u[i * n + k] * ((double)h.h[a * n + b] + (k == j ? 0.01 * mean : 0));
            }
        }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = i == j ? -1 : 0;
            for (int64_t k = 0; k < n; k++) sum += (double)h.u[k * n + i] * uh[k * n + j];
            worst = fmax(worst, fabs(sum));
        }
    if (worst > 2e-3) fail_msg("n %d: U^T U H is off the identity by %g", (int)n, worst);
    for (int64_t i = 0; act_order && i + 1 < n; i++) {
        float a = h.h[h.perm[i] * n + h.perm[i]], b = h.h[h.perm[i + 1] * n + h.perm[i + 1]];
        assert_true(a > b || (a == b && h.perm[i] < h.perm[i + 1]));
    }
    qb_free(uh);
    qb_hessian_free(&h);
}

static void test_quant__factor_inverts_the_hessian(void **state) {
    (void)state;
    const int64_t sizes[] = {1, 2, 17, 130};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_factor(sizes[i], false);
        check_factor(sizes[i], true);
    }
}

static void test_quant__damping_rises_until_it_serves(void **state) {
    (void)state;
    enum { N = 32 };
    qb_hessian h = noisy_hessian(N, 3);
    double mean = 0;
    for (int i = 0; i < N; i++) mean += (double)h.h[i * N + i] / N;
    for (int i = 0; i < N; i++)
        h.h[i * N + i] -= i == 7 ? (float)(0.6 * mean) + h.h[i * N + i] : 0; /* one negative pivot */
    assert_ok(qb_hessian_factor(NULL, 0.01, false, &h));
    assert_false(h.failed);
    assert_true(h.retries > 0 && h.damp_percent == 1.0);
    qb_hessian_free(&h);
}

static void test_quant__falls_back_to_rtn(void **state) {
    (void)state;
    enum { N = 64, ROWS = 5 };
    qb_quant_config c = defaults("gptq");
    c.group_size = 32;
    c.act_order = true;
    float *w = noisy(N * ROWS, 1);
    qb_hessian h = noisy_hessian(N, 3);
    h.h[9 * N + 9] = -1e6F; /* no such sum of squares: nothing makes it positive definite */
    qb_module_report report;
    qb_qweight q = run("gptq", &c, w, ROWS, N, &h, NULL, &report);
    assert_string_equal(report.fallback, "rtn");
    assert_non_null(strstr(report.reason, "not positive definite"));
    assert_int_equal(report.retries, 2);
    assert_null(q.g_idx);
    qb_module_report plain;
    qb_qweight rtn = run("rtn", &c, w, ROWS, N, NULL, NULL, &plain);
    assert_memory_equal(q.codes, rtn.codes, N * ROWS);
    assert_null(plain.fallback);
    qb_qweight_free(&q);
    qb_qweight_free(&rtn);
    qb_hessian_free(&h);
    qb_free(w);
}

static void test_quant__gptq_beats_rtn_on_every_shape(void **state) {
    (void)state;
    static const struct {
        int64_t rows, cols, group;
        bool ragged, act_order, static_groups, mse;
    } shapes[] = {
        {1, 8, -1, false, false, false, false},   {3, 96, 32, false, true, false, false},
        {65, 200, 64, true, false, false, false}, {130, 352, 128, true, true, false, false},
        {40, 300, 100, false, true, true, false}, {20, 160, 256, true, true, true, true},
        {64, 256, 7, true, false, true, false},   {129, 129, -1, false, true, false, true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t rows = shapes[i].rows, cols = shapes[i].cols;
        qb_quant_config c = defaults("gptq");
        c.bits = 3;
        c.group_size = shapes[i].group;
        c.ragged_groups = shapes[i].ragged;
        c.act_order = shapes[i].act_order;
        c.static_groups = shapes[i].static_groups;
        c.mse = shapes[i].mse;
        c.symmetric = i % 2 == 0;
        float *w = noisy((size_t)(rows * cols), 11 + i);
        qb_hessian h = noisy_hessian(cols, 20 + i);
        qb_module_report report, plain;
        qb_qweight q = run("gptq", &c, w, rows, cols, &h, NULL, &report);
        assert_null(report.fallback);
        assert_string_equal(report.error_kind, "hessian");
        assert_int_equal(q.n_groups, c.group_size == -1 ? 1 : (cols + c.group_size - 1) / c.group_size);
        bool index = c.act_order && !c.static_groups && c.group_size != -1;
        assert_int_equal(q.g_idx != NULL, index);
        for (int64_t k = 0; index && k < cols; k++) assert_in_range(q.g_idx[k], 0, q.n_groups - 1);
        /* a Hessian that always fails gives RTN and the same measure */
        qb_hessian bad = {.n = cols, .n_samples = 1, .failed = true};
        assert_ok(qb_alloc((size_t)(cols * cols), sizeof(float), &bad.h));
        memcpy(bad.h, h.h, (size_t)(cols * cols) * sizeof(float));
        qb_qweight rtn = run("gptq", &c, w, rows, cols, &bad, NULL, &plain);
        /* eight weights may leave nothing to gain */
        if (!(report.error < plain.error || (cols == 8 && report.error == plain.error)))
            fail_msg("shape %zu: gptq %g, rtn %g", i, report.error, plain.error);
        assert_true(report.relative_error > 0 && report.relative_error <= plain.relative_error);
        qb_qweight_free(&q);
        qb_qweight_free(&rtn);
        qb_hessian_free(&h);
        qb_hessian_free(&bad);
        qb_free(w);
    }
}

static void assert_same(const qb_qweight *a, const qb_qweight *b) {
    assert_memory_equal(a->codes, b->codes, (size_t)(a->rows * a->cols));
    assert_memory_equal(a->scales, b->scales, (size_t)(a->rows * a->n_groups) * sizeof(float));
    assert_memory_equal(a->zeros, b->zeros, (size_t)(a->rows * a->n_groups));
}

static void test_quant__threads_change_nothing(void **state) {
    (void)state;
    enum { ROWS = 300, COLS = 320 };
    float *w = noisy(ROWS * COLS, 2);
    qb_quant_config c = defaults("gptq");
    c.group_size = 32;
    c.symmetric = false;
    qb_qweight first = {0};
    double error = 0;
    for (int threads = 1; threads <= 3; threads++) {
        qb_threads *pool;
        assert_ok(qb_threads_create(threads, &pool));
        qb_hessian h = noisy_hessian(COLS, 4);
        qb_module_report report;
        qb_qweight q = run("gptq", &c, w, ROWS, COLS, &h, pool, &report);
        if (threads == 1) {
            first = q;
            error = report.error;
        } else {
            assert_same(&first, &q);
            assert_true(error == report.error);
            qb_qweight_free(&q);
        }
        qb_hessian_free(&h);
        qb_threads_free(pool);
    }
    qb_qweight_free(&first);
    qb_free(w);
}

extern const qb_grid_ops qb_grid_generic;

/* Whatever this CPU runs agrees with plain C to the bit. */
static void test_quant__instruction_sets_agree(void **state) {
    (void)state;
    enum { N = 40 };
    const qb_grid_ops *ops[2] = {&qb_grid_generic, qb_grid_ops_best()};
    print_message("comparing %s with %s\n", ops[0]->name, ops[1]->name);
    float *panel = noisy(N * QB_LANES, 8), u[N];
    for (int l = 0; l < QB_LANES; l++)
        for (int k = 0; k < N; k++) {
            float *x = &panel[k * QB_LANES + l];
            if (l == 3) *x = 0;
            if (l == 4) *x = fabsf(*x);
            if (l == 5) *x *= 1e-40F;
            if (l == 6) *x *= 1e30F;
        }
    for (int k = 0; k < N; k++) u[k] = 1.0F + noise(9, (uint64_t)k);
    for (int variant = 0; variant < 16; variant++) {
        qb_grid_rule rule = {
            .bits = (const int[]){2, 3, 4, 8}[variant / 4], .symmetric = variant & 1, .mse = variant & 2};
        float scale[2][QB_LANES], zero[2][QB_LANES], error[2][QB_LANES], *after[2];
        uint8_t codes[2][N * QB_LANES], column[2][QB_LANES];
        for (int i = 0; i < 2; i++) {
            assert_ok(qb_alloc(N * QB_LANES, sizeof(float), &after[i]));
            memcpy(after[i], panel, N * QB_LANES * sizeof(float));
            int maxq = (1 << rule.bits) - 1;
            ops[i]->find(&rule, panel, N, scale[i], zero[i]);
            ops[i]->encode(panel, N, scale[i], zero[i], maxq, codes[i]);
            ops[i]->step(after[i], N, u, scale[i], zero[i], maxq, column[i], error[i]);
        }
        assert_memory_equal(scale[0], scale[1], sizeof scale[0]);
        assert_memory_equal(zero[0], zero[1], sizeof zero[0]);
        assert_memory_equal(codes[0], codes[1], sizeof codes[0]);
        assert_memory_equal(column[0], column[1], sizeof column[0]);
        assert_memory_equal(error[0], error[1], sizeof error[0]);
        assert_memory_equal(after[0], after[1], N * QB_LANES * sizeof(float));
        for (int l = 0; l < QB_LANES; l++) {
            assert_true(scale[0][l] > 0 && isfinite(scale[0][l]));
            assert_true(zero[0][l] >= 0 && zero[0][l] < (float)(1 << rule.bits));
        }
        qb_free(after[0]);
        qb_free(after[1]);
    }
    qb_free(panel);
}

/* A row with what rows may hold: zeros, one sign, very small and very large weights, and a short last group.
 */
static float *odd_row(int64_t cols, int64_t group, uint64_t seed) {
    float *w = noisy((size_t)cols, seed);
    for (int64_t k = 0; k < cols; k++) switch (k / group % 5) {
        case 1:
            w[k] = k % 2 ? 0.0F : -0.0F;
            break;
        case 2:
            w[k] = -fabsf(w[k]);
            break;
        case 3:
            w[k] *= 1e-6F;
            break;
        case 4:
            w[k] = fabsf(w[k]) * 1e30F;
            break;
        default:
            break;
        }
    return w;
}

/* The grids and codes of rows against those of panels, which the paper's golden results are of. */
static void check_row(const qb_grid_ops *ops, const qb_grid_rule *rule, int64_t cols, int64_t group) {
    enum { MOST = 300, GROUPS = 40 };
    float *w = odd_row(cols, group, 8), *panel, scale[GROUPS], zero[GROUPS], s[QB_LANES], z[QB_LANES];
    uint8_t codes[MOST], zeros[GROUPS], *expected;
    int maxq = (1 << rule->bits) - 1;
    assert_true(cols <= MOST && (cols + group - 1) / group <= GROUPS);
    assert_ok(qb_alloc((size_t)(group * QB_LANES), sizeof *panel, &panel));
    assert_ok(qb_alloc((size_t)(group * QB_LANES), 1, &expected));
    ops->find_row(rule, w, cols, group, scale, zero);
    for (int64_t g = 0; g < (cols + group - 1) / group; g++) zeros[g] = (uint8_t)zero[g];
    ops->encode_row(w, cols, group, scale, zeros, maxq, codes);
    double error = 0, norm = 0, e, n;
    for (int64_t g = 0, first = 0; first < cols; first += group, g++) {
        int64_t length = cols - first < group ? cols - first : group;
        qb_grid_load(panel, w + first, cols, 1, length);
        ops->find(rule, panel, length, s, z);
        ops->encode(panel, length, s, z, maxq, expected);
        assert_true(s[0] == scale[g] && z[0] == zero[g]);
        for (int64_t k = 0; k < length; k++) {
            assert_int_equal(codes[first + k], expected[k * QB_LANES]);
            double x = (double)w[first + k],
                   d = x - (double)(s[0] * (float)(codes[first + k] - (int)zeros[g]));
            error += d * d;
            norm += x * x;
        }
    }
    ops->row_error(w, codes, cols, group, scale, zeros, &e, &n);
    assert_true(fabs(e - error) <= 1e-12 * error && fabs(n - norm) <= 1e-12 * norm);
    double e0, n0;
    qb_grid_generic.row_error(w, codes, cols, group, scale, zeros, &e0, &n0);
    assert_true(e == e0 && n == n0);
    qb_free(w);
    qb_free(panel);
    qb_free(expected);
}

static void test_quant__rows_and_panels_agree(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{256, 128}, {160, 32}, {288, 288}, {100, 24}, {37, 8}, {5, 5}};
    const qb_grid_ops *ops[2] = {&qb_grid_generic, qb_grid_ops_best()};
    for (int variant = 0; variant < 8; variant++)
        for (size_t i = 0; i < 2 * sizeof shapes / sizeof shapes[0]; i++) {
            qb_grid_rule rule = {.bits = (const int[]){2, 3, 4, 8}[variant / 2], .symmetric = variant & 1};
            check_row(ops[i % 2], &rule, shapes[i / 2][0], shapes[i / 2][1]);
        }
}

/* Codes by bounds, and the errors of what they stand for, against their definitions; FP4's order, whose codes
   are not their places. */
static void test_quant__codebooks_in_lanes(void **state) {
    (void)state;
    enum { MOST = 200, BLOCK = 32 };
    static const int lengths[] = {1, 15, 16, 31, 32, 33, 64, 100, MOST};
    const qb_grid_ops *ops[2] = {&qb_grid_generic, qb_grid_ops_best()};
    const float *table = qb_codebook_table(QB_CODEBOOK_NF4);
    qb_code_bounds d;
    for (int i = 0; i < 16; i++) d.code[i] = (uint8_t)(i * 7 % 16);
    for (int i = 0; i < 15; i++) d.bounds[i] = (table[i] + table[i + 1]) / 2;
    float *w = noisy(MOST, 31), absmax[MOST / BLOCK + 1];
    for (int i = 0; i < 15; i++) w[i * 11] = d.bounds[i] / 0.5F; /* ties */
    for (int i = 0; i <= MOST / BLOCK; i++) absmax[i] = 0.25F + 0.3F * (float)i;
    for (size_t i = 0; i < 2 * sizeof lengths / sizeof *lengths; i++) {
        const int n = lengths[i / 2];
        uint8_t codes[MOST];
        double error = 0, norm = 0, e, s;
        ops[i % 2]->encode_places(&d, w, n, 0.5F, codes);
        for (int k = 0; k < n; k++) {
            int place = 0;
            for (int b = 0; b < 15; b++) place += w[k] * 0.5F > d.bounds[b];
            assert_int_equal(codes[k], d.code[place]);
            const double x = (double)w[k], off = x - (double)(table[codes[k]] * absmax[k / BLOCK]);
            error += off * off;
            norm += x * x;
        }
        ops[i % 2]->block_error(w, codes, n, BLOCK, table, absmax, &e, &s);
        assert_true(fabs(e - error) <= 1e-12 * error && fabs(s - norm) <= 1e-12 * norm);
    }
    qb_free(w);
}

static void test_quant__largest_finds_what_is_not_finite(void **state) {
    (void)state;
    const qb_grid_ops *ops[2] = {&qb_grid_generic, qb_grid_ops_best()};
    float w[70];
    for (int i = 0; i < 2; i++)
        for (int at = 0; at < 70; at++) {
            for (int k = 0; k < 70; k++) w[k] = k % 2 ? 1.5F : -0.0F;
            w[at] = -7;
            assert_true(ops[i]->largest(w, 70) == 7);
            w[at] = -INFINITY;
            assert_true(ops[i]->largest(w, 70) == INFINITY);
            w[at] = -NAN;
            assert_true(isnan(ops[i]->largest(w, 70)));
        }
}

/* The weight as it came, in any type, against the same in float32. */
static void test_quant__source_types_agree(void **state) {
    (void)state;
    enum { ROWS = 70, COLS = 96 };
    static const qb_dtype types[] = {QB_DTYPE_F32, QB_DTYPE_F16, QB_DTYPE_BF16};
    static const char *const methods[] = {"rtn", "int8"};
    float *w = noisy(ROWS * COLS, 12);
    uint32_t stored[ROWS * COLS];
    for (size_t i = 0; i < 6; i++) {
        qb_quant_config c = defaults("rtn");
        c.group_size = 32;
        qb_dtype type = types[i / 2];
        assert_ok(qb_from_f32(type, w, ROWS * COLS, stored));
        assert_ok(qb_to_f32(type, stored, ROWS * COLS, w)); /* exact from here on */
        qb_weight source = {.rows = ROWS, .cols = COLS, .dtype = type, .dense = stored};
        qb_quant_job job = {"m", ROWS, COLS, w, QB_DTYPE_F32, NULL, &c, NULL, NULL, NULL};
        qb_qweight q[2];
        qb_module_report report[2];
        for (int k = 0; k < 2; k++) {
            job.source = k ? &source : NULL;
            assert_ok(quantize_alone(methods[i % 2], &job, &q[k], &report[k]));
        }
        assert_same(&q[0], &q[1]);
        assert_true(report[0].error == report[1].error);
        qb_qweight_free(&q[0]);
        qb_qweight_free(&q[1]);
    }
    qb_free(w);
}

static void test_quant__refuses_what_does_not_fit(void **state) {
    (void)state;
    const qb_quant_method *gptq = qb_quant_method_find("gptq");
    qb_quant_config c = defaults("gptq");
    qb_qweight q;
    assert_fails(gptq->describe("layers.0.down_proj", 128, 352, QB_DTYPE_F16, &c, &q), QB_ERR_USAGE,
                 "layers.0.down_proj: group size 128 does not divide its 352 input columns; sizes that do: "
                 "32, 16, 8, -1");
    assert_non_null(strstr(qb_error_text(), "--ragged-groups"));
    c.ragged_groups = true;
    assert_ok(gptq->describe("m", 128, 352, QB_DTYPE_F16, &c, &q));
    assert_int_equal(q.n_groups, 3);
    c.bits = 5;
    assert_fails(gptq->describe("m", 128, 256, QB_DTYPE_F16, &c, &q), QB_ERR_USAGE, "2, 3, 4 or 8");
    c.bits = 4;
    c.group_size = 0;
    assert_fails(gptq->describe("m", 128, 256, QB_DTYPE_F16, &c, &q), QB_ERR_USAGE,
                 "group size must be positive");
    c = defaults("gptq");
    c.damp_percent = NAN;
    assert_fails(gptq->describe("m", 128, 256, QB_DTYPE_F16, &c, &q), QB_ERR_USAGE, "damp percent");
    c = defaults("gptq");
    c.block_columns = 0;
    assert_fails(gptq->describe("m", 128, 256, QB_DTYPE_F16, &c, &q), QB_ERR_USAGE, "block columns");
}

static void test_quant__names_what_is_not_finite(void **state) {
    (void)state;
    qb_quant_config c = defaults("rtn");
    float *w = noisy(200 * 128, 6);
    w[150 * 128 + 9] = INFINITY;
    w[180 * 128] = NAN;
    qb_quant_job job = {"layers.2.k_proj", 200, 128, w, QB_DTYPE_F32, NULL, &c, NULL, NULL, NULL};
    qb_module_report report = {0};
    qb_qweight q;
    assert_fails(quantize_alone("rtn", &job, &q, &report), QB_ERR_NUMERIC,
                 "layers.2.k_proj: weight[150, 9] is infinite");
    qb_free(w);
    qb_hessian h = noisy_hessian(16, 1);
    qb_free(h.dead);
    h.dead = NULL;
    h.h[5 * 16 + 5] = NAN;
    assert_fails(qb_hessian_prepare("layers.2.o_proj", &h), QB_ERR_NUMERIC,
                 "layers.2.o_proj: input channel 5");
    qb_hessian_free(&h);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant__registry_is_sound),
        cmocka_unit_test(test_quant__toy_table),
        cmocka_unit_test(test_quant__factor_inverts_the_hessian),
        cmocka_unit_test(test_quant__damping_rises_until_it_serves),
        cmocka_unit_test(test_quant__falls_back_to_rtn),
        cmocka_unit_test(test_quant__gptq_beats_rtn_on_every_shape),
        cmocka_unit_test(test_quant__threads_change_nothing),
        cmocka_unit_test(test_quant__instruction_sets_agree),
        cmocka_unit_test(test_quant__rows_and_panels_agree),
        cmocka_unit_test(test_quant__codebooks_in_lanes),
        cmocka_unit_test(test_quant__largest_finds_what_is_not_finite),
        cmocka_unit_test(test_quant__source_types_agree),
        cmocka_unit_test(test_quant__refuses_what_does_not_fit),
        cmocka_unit_test(test_quant__names_what_is_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
