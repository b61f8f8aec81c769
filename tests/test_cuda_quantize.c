/* Codes chosen on the device against the loops of quant/, which define them: rounding to the bit, GPTQ but
   for float ties. */
#include "quant/hessian.h"
#include "quant/on_device.h"
#include "tests/cuda_support.h"
#include "tests/method_support.h"

static qb_device *host, *device;

static int open_devices(void **state) {
    (void)state;
    host = device_open(NULL, 2);
    assert_ok(qb_backend_find("cuda")->open(&(qb_device_options){.threads = 1}, &device));
    return 0;
}
static int close_devices(void **state) {
    (void)state;
    qb_memory m;
    device->backend->memory(device, &m);
    assert_int_equal(m.now_bytes[QB_MEMORY_WEIGHTS], 0);
    host->backend->close(host);
    device->backend->close(device);
    return 0;
}

typedef struct {
    int64_t rows, cols;
    qb_dtype dtype;
    float *wide; /* what dense holds, in float32 */
    void *dense;
    qb_weight view;
} test_weight;

static test_weight weight_new(int64_t rows, int64_t cols, qb_dtype dtype) {
    test_weight w = {rows, cols, dtype, noise_new(rows * cols), NULL, {0}};
    for (int64_t i = 0; i < rows * cols; i++) {
        w.wide[i] *= 0.1F * (1.0F + 3.0F * (float)(i % 7 == 0)); /* some outliers */
        if (i / 5 % 11 == 0) w.wide[i] = fabsf(w.wide[i]);
        if (i % cols < 64 && i / cols == 3) w.wide[i] = 0; /* an empty group */
    }
    assert_ok(qb_alloc((size_t)(rows * cols) * qb_dtype_bytes(dtype), 1, &w.dense));
    assert_ok(qb_from_f32(dtype, w.wide, rows * cols, w.dense));
    assert_ok(qb_to_f32(dtype, w.dense, rows * cols, w.wide));
    w.view = (qb_weight){.rows = rows, .cols = cols, .dtype = dtype, .dense = w.dense};
    return w;
}
static void weight_free(test_weight *w) {
    qb_free(w->wide);
    qb_free(w->dense);
}

static void quantize_on(const char *method, test_weight *w, const qb_quant_config *c, bool on_device,
                        qb_qweight *q, qb_module_report *report) {
    float *copy = noise_new(w->rows * w->cols);
    memcpy(copy, w->wide, (size_t)(w->rows * w->cols) * sizeof *copy);
    qb_quant_job job = {.module = "m",
                        .rows = w->rows,
                        .cols = w->cols,
                        .weight = on_device ? NULL : copy,
                        .source_dtype = w->dtype,
                        .config = c,
                        .threads = host->threads,
                        .dev = on_device ? device : NULL,
                        .source = &w->view};
    *report = (qb_module_report){0};
    assert_true(qb_device_rounds(device));
    assert_ok(quantize_alone(method, &job, q, report));
    qb_free(copy);
}

static void expect_near(double found, double expected, double relative, const char *what) {
    if (!(fabs(found - expected) <= relative * fabs(expected) + 1e-30))
        fail_msg("%s: found %.9g, expected %.9g", what, found, expected);
}

static void expect_same_bits(const char *method, test_weight *w, const qb_quant_config *c) {
    qb_qweight a, b;
    qb_module_report ra, rb;
    char what[160];
    snprintf(what, sizeof what, "%s %lldx%lld %s bits %lld group %lld sym %d mse %d block %lld dq %d", method,
             (long long)w->rows, (long long)w->cols, qb_dtype_name(w->dtype), (long long)c->bits,
             (long long)c->group_size, c->symmetric, c->mse, (long long)c->block_size, c->double_quant);
    quantize_on(method, w, c, false, &a, &ra);
    quantize_on(method, w, c, true, &b, &rb);
#define SAME(array, n)                                                                                       \
    if (a.array && memcmp(a.array, b.array, (size_t)(n) * sizeof *a.array)) fail_msg("%s: " #array, what)
    SAME(codes, a.rows * a.cols);
    SAME(scales, a.rows * a.n_groups);
    SAME(zeros, a.rows * a.n_groups);
    SAME(absmax, a.n_blocks);
    SAME(absmax_codes, a.n_blocks);
    SAME(nested_absmax, (a.n_blocks + QB_NESTED_BLOCK - 1) / QB_NESTED_BLOCK);
#undef SAME
    assert_true(a.nested_offset == b.nested_offset);
    expect_near(rb.error, ra.error, 1e-12, what);
    expect_near(rb.relative_error, ra.relative_error, 1e-12, what);
    assert_string_equal(ra.error_kind, rb.error_kind);
    qb_qweight_free(&a);
    qb_qweight_free(&b);
}

static const struct {
    int64_t rows, cols;
    qb_dtype dtype;
} shapes[] = {
    {24, 128, QB_DTYPE_F16}, {9, 300, QB_DTYPE_BF16}, {5, 77, QB_DTYPE_F32}, {70, 256, QB_DTYPE_F16}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static void test_cuda_quantize__rtn_is_the_same_to_the_bit(void **state) {
    (void)state;
    static const int64_t bits[] = {2, 3, 4, 8}, groups[] = {-1, 32, 128};
    for (size_t s = 0; s < N_SHAPES; s++) {
        test_weight w = weight_new(shapes[s].rows, shapes[s].cols, shapes[s].dtype);
        for (size_t b = 0; b < 4; b++)
            for (size_t g = 0; g < 3; g++)
                for (int k = 0; k < 4; k++) {
                    if (k >= 2 && (w.rows > 24 || bits[b] == 8)) continue; /* the search is slow here */
                    qb_quant_config c = {.bits = bits[b],
                                         .group_size = groups[g],
                                         .symmetric = k & 1,
                                         .mse = k & 2,
                                         .ragged_groups = true};
                    expect_same_bits("rtn", &w, &c);
                }
        weight_free(&w);
    }
}

/* Where float16 has few bits left for the step. */
static void test_cuda_quantize__small_steps_are_the_same_to_the_bit(void **state) {
    (void)state;
    static const int64_t bits[] = {3, 4, 8};
    for (float factor = 1e-3F; factor > 1e-9F; factor *= 0.03F) {
        test_weight w = weight_new(16, 128, QB_DTYPE_F32);
        for (int64_t i = 0; i < w.rows * w.cols; i++) w.wide[i] *= factor;
        memcpy(w.dense, w.wide, (size_t)(w.rows * w.cols) * sizeof *w.wide);
        for (int k = 0; k < 6; k++) {
            qb_quant_config c = {
                .bits = bits[k / 2], .group_size = 32, .symmetric = k & 1, .mse = k / 2 == 1};
            expect_same_bits("rtn", &w, &c);
        }
        weight_free(&w);
    }
}

static void test_cuda_quantize__codebooks_are_the_same_to_the_bit(void **state) {
    (void)state;
    static const int64_t blocks[] = {32, 64, 4096};
    for (size_t s = 0; s < N_SHAPES; s++) {
        test_weight w = weight_new(shapes[s].rows, shapes[s].cols, shapes[s].dtype);
        for (size_t b = 0; b < 3; b++)
            for (int k = 0; k < 4; k++) {
                qb_quant_config c = {.block_size = blocks[b], .double_quant = k & 1};
                expect_same_bits(k & 2 ? "fp4" : "nf4", &w, &c);
            }
        weight_free(&w);
    }
    test_weight large = weight_new(300, 512, QB_DTYPE_F16); /* several nested blocks */
    qb_quant_config c = {.block_size = 64, .double_quant = true};
    expect_same_bits("nf4", &large, &c);
    weight_free(&large);
}

static void test_cuda_quantize__what_is_not_finite_is_named(void **state) {
    (void)state;
    test_weight w = weight_new(6, 64, QB_DTYPE_F32);
    ((float *)w.dense)[2 * 64 + 5] = INFINITY;
    ((float *)w.dense)[4 * 64 + 1] = NAN;
    qb_quant_config c = {.bits = 4, .group_size = 32, .block_size = 64};
    qb_quant_job job = {.module = "m", .rows = 6, .cols = 64, .config = &c, .dev = device, .source = &w.view};
    qb_qweight q;
    qb_module_report report = {0};
    assert_fails(quantize_alone("rtn", &job, &q, &report), QB_ERR_NUMERIC, "m: weight[2, 5]");
    assert_fails(quantize_alone("nf4", &job, &q, &report), QB_ERR_NUMERIC, "m: weight[2, 5]");
    weight_free(&w);
}

/* ---- GPTQ ---- */

enum { LINEARS = 3, TOKENS = 320, SAMPLES = 5 };

/* Inputs with correlated, dead and loud columns; their sum of outer products, lower triangle. Wide ones have
   more tokens than columns: of a sum that is damped alone a last bit moves hundreds of codes and the error by
   2e-2. */
static float *make_sum(int64_t n, bool dead) {
    const int64_t tokens = n > TOKENS ? 2 * n : TOKENS;
    float *x = noise_new(tokens * n), *h = NULL, *back = noise_new(n * n);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t k = 1; k < n; k++) {
            x[t * n + k] = 0.6F * x[t * n + k - 1] + 0.5F * x[t * n + k];
            if (k % 37 == 9) x[t * n + k] *= 5.0F;
        }
    for (int64_t t = 0; dead && t < tokens; t++) x[t * n + 4] = x[t * n + n - 2] = 0.0F;
    assert_ok(host->backend->alloc(host, QB_MEMORY_WORKSPACE, n * n * 4, &h));
    assert_ok(host->backend->clear(host, h, n * n * 4));
    assert_ok(host->backend->hessian(host, h, x, tokens, n));
    memcpy(back, h, (size_t)(n * n) * sizeof *back);
    host->backend->free(host, h);
    qb_free(x);
    return back;
}

static void sum_on(qb_device *dev, const float *h, int64_t n, qb_hessian_sum *sum) {
    assert_ok(qb_hessian_sum_create(dev, n, sum));
    assert_ok(dev->backend->upload(dev, sum->dev_h, h, n * n * 4));
    sum->n_samples = SAMPLES;
}

/* What one code that goes the other way moves on: with the factor's and the products' last bits changed at
   random, as libraries differ in them, up to 24 of 12288 codes and 4e-3 of a small weight's output error. The
   shim's libraries are the host's. The device takes the weights' own forms of factors rounded to 11 bits,
   which shows most where H is indefinite and terms cancel. */
#ifdef QB_SHIM
static const double error_tolerance = 5e-3, norm_tolerance = 2e-3;
#else
static const double error_tolerance = 2e-2, norm_tolerance = 2e-3;
#endif

typedef struct {
    int64_t codes, differing;
    double worst; /* relative difference of output errors */
} agreement;

static void compare_linears(const qb_qweight *a, const qb_qweight *b, const qb_module_report *ra,
                            const qb_module_report *rb, const char *what, agreement *sum) {
    for (int64_t i = 0; i < a->rows * a->cols; i++) sum->differing += a->codes[i] != b->codes[i];
    sum->codes += a->rows * a->cols;
    double difference = fabs(rb->error - ra->error) / ra->error;
    if (difference > sum->worst) sum->worst = difference;
    if (!(difference <= error_tolerance))
        fail_msg("%s: output error %.9g, on the host %.9g", what, rb->error, ra->error);
    /* 0 where w H w^T is not positive, on both alike */
    assert_int_equal(ra->relative_error == 0, rb->relative_error == 0);
    if (ra->relative_error != 0)
        expect_near(rb->error / rb->relative_error, ra->error / ra->relative_error, norm_tolerance, what);
    assert_int_equal(ra->dead_columns, rb->dead_columns);
    assert_int_equal(ra->retries, rb->retries);
    assert_float_equal((float)ra->damp_percent, (float)rb->damp_percent, 1e-7);
    assert_int_equal(ra->fallback != NULL, rb->fallback != NULL);
    assert_int_equal(a->g_idx != NULL, b->g_idx != NULL);
    if (a->g_idx) assert_memory_equal(a->g_idx, b->g_idx, (size_t)a->cols * sizeof *a->g_idx);
}

typedef struct {
    int64_t n;
    qb_qweight q[LINEARS];
    qb_module_report report[LINEARS];
} taken_linears;

static qb_status take_next(void *ctx, int64_t linear, qb_qweight *q, qb_module_report *report) {
    taken_linears *to = ctx;
    assert_int_equal(linear, to->n);
    to->q[to->n] = *q;
    to->report[to->n++] = *report;
    *q = (qb_qweight){0};
    return QB_OK;
}

static qb_status gptq_on_device(const qb_quant_config *c, qb_hessian_sum *sum, const qb_site_linear *linears,
                                int64_t n, taken_linears *to) {
    qb_site_job job = {.linears = linears,
                       .n = n,
                       .sum = sum,
                       .config = c,
                       .dev = device,
                       .threads = device->threads,
                       .take = take_next,
                       .ctx = to};
    *to = (taken_linears){0};
    return qb_gptq_on_device(&job);
}

/* All linears as one problem on the device, one by one on the host. */
static agreement run_gptq(const qb_quant_config *c, int64_t cols, const float *h, const char *what) {
    static const int64_t heights[LINEARS] = {24, 7, 33};
    test_weight w[LINEARS];
    qb_site_linear linears[LINEARS];
    taken_linears on_device;
    qb_hessian_sum sum;
    qb_hessian hessian;
    agreement found = {0};
    for (int i = 0; i < LINEARS; i++) {
        w[i] = weight_new(heights[i], cols, i == 1 ? QB_DTYPE_F32 : QB_DTYPE_F16);
        linears[i] = (qb_site_linear){"m", &w[i].view};
    }
    sum_on(host, h, cols, &sum);
    assert_ok(qb_hessian_finish(host, &sum, "m", &hessian));
    sum_on(device, h, cols, &sum);
    assert_ok(gptq_on_device(c, &sum, linears, LINEARS, &on_device));
    assert_null(sum.dev_h);
    for (int i = 0; i < LINEARS; i++) {
        qb_qweight q;
        qb_module_report report = {0};
        qb_quant_job job = {.module = "m",
                            .rows = w[i].rows,
                            .cols = cols,
                            .weight = w[i].wide,
                            .source_dtype = w[i].dtype,
                            .hessian = &hessian,
                            .config = c,
                            .threads = host->threads};
        assert_ok(quantize_alone("gptq", &job, &q, &report));
        compare_linears(&q, &on_device.q[i], &report, &on_device.report[i], what, &found);
        qb_qweight_free(&q);
        qb_qweight_free(&on_device.q[i]);
        weight_free(&w[i]);
    }
    qb_hessian_free(&hessian);
    return found;
}

static void expect_agreement(const qb_quant_config *c, int64_t cols, bool dead) {
    char what[160];
    snprintf(what, sizeof what,
             "%lld columns, bits %lld group %lld sym %d mse %d act %d static %d block %lld dead %d",
             (long long)cols, (long long)c->bits, (long long)c->group_size, c->symmetric, c->mse,
             c->act_order, c->static_groups, (long long)c->block_columns, dead);
    float *h = make_sum(cols, dead);
    agreement a = run_gptq(c, cols, h, what);
    print_message("%-88s %5lld of %lld codes differ, output error within %.1e\n", what,
                  (long long)a.differing, (long long)a.codes, a.worst);
    if (a.differing * 100 > a.codes) fail_msg("%s: %lld codes differ", what, (long long)a.differing);
    qb_free(h);
}

static void test_cuda_gptq__agrees_with_the_host(void **state) {
    (void)state;
    const qb_quant_config usual = {
        .bits = 4, .group_size = 64, .symmetric = true, .damp_percent = 0.01, .block_columns = 128};
    qb_quant_config c = usual;
    expect_agreement(&c, 192, false);
    expect_agreement(&c, 256, true);
    expect_agreement(&c, 1088, true); /* forms in several panels */
    for (int bits = 2; bits <= 8; bits += bits == 4 ? 4 : 1) {
        c = usual;
        c.bits = bits, c.symmetric = false, c.group_size = 128;
        expect_agreement(&c, 256, true);
    }
    c = usual, c.act_order = true;
    expect_agreement(&c, 192, true);
    c.static_groups = true;
    expect_agreement(&c, 192, true);
    c.act_order = false;
    expect_agreement(&c, 192, true);
    c = usual, c.group_size = -1, c.symmetric = false; /* grids before dead columns are cleared */
    expect_agreement(&c, 160, true);
    c.act_order = true;
    expect_agreement(&c, 160, true);
    c = usual, c.group_size = 32, c.symmetric = false; /* stale weights at group starts inside a block */
    expect_agreement(&c, 192, false);
    c = usual, c.group_size = 48, c.ragged_groups = true, c.block_columns = 100; /* nothing divides */
    expect_agreement(&c, 203, true);
    c = usual, c.group_size = 256; /* longer than a block */
    expect_agreement(&c, 256, false);
    c = usual, c.mse = true, c.group_size = 64;
    expect_agreement(&c, 128, true);
    c = usual, c.block_columns = 32;
    expect_agreement(&c, 128, false);
    c.block_columns = 256; /* the factor's block does not fit shared memory */
    expect_agreement(&c, 300 - 44, false);
    c.block_columns = 512;
    expect_agreement(&c, 320, false);
}

static void test_cuda_gptq__raises_damping_as_the_host_does(void **state) {
    (void)state;
    enum { N = 64 };
    qb_quant_config c = {.bits = 4, .group_size = 32, .damp_percent = 0, .block_columns = 128};
    float *h = make_sum(N, false);
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++) h[i * N + j] = 1.0F; /* of rank 1 */
    run_gptq(&c, N, h, "rank 1");
    for (int i = 0; i < N; i++) h[i * N + i] = 1e-6F; /* indefinite: nothing helps, so rounded to nearest */
    run_gptq(&c, N, h, "indefinite");
    qb_free(h);
}

static void test_cuda_gptq__bad_input_is_named(void **state) {
    (void)state;
    enum { N = 64 };
    qb_quant_config c = {.bits = 4, .group_size = 32, .damp_percent = 0.01, .block_columns = 128};
    float *h = make_sum(N, false);
    qb_hessian_sum sum;
    test_weight w = weight_new(8, N, QB_DTYPE_F32);
    qb_site_linear linear = {"block.1.q", &w.view};
    taken_linears none;
    for (int act = 0; act < 2; act++) { /* an order must come even of a damaged diagonal */
        c.act_order = act;
        h[7 * N + 7] = NAN;
        sum_on(device, h, N, &sum);
        assert_fails(gptq_on_device(&c, &sum, &linear, 1, &none), QB_ERR_NUMERIC,
                     "block.1.q: input channel 7");
        qb_hessian_sum_free(device, &sum);
    }
    h[7 * N + 7] = 1;
    ((float *)w.dense)[3 * N + 2] = NAN;
    sum_on(device, h, N, &sum);
    assert_fails(gptq_on_device(&c, &sum, &linear, 1, &none), QB_ERR_NUMERIC, "block.1.q: weight[3, 2]");
    c.block_columns = 1000;
    assert_fails(gptq_on_device(&c, &sum, &linear, 1, &none), QB_ERR_UNSUPPORTED, "1000 columns");
    qb_hessian_sum_free(device, &sum);
    weight_free(&w);
    qb_free(h);
}

#ifdef QB_SHIM
/* What cuSOLVER says keeps its kind: short memory is tried again elsewhere, a lost device is not. */
static void test_cuda_gptq__failures_of_the_library_keep_their_kind(void **state) {
    (void)state;
    enum { N = 64 };
    qb_quant_config c = {.bits = 4, .group_size = 32, .damp_percent = 0.01, .block_columns = 128};
    float *h = make_sum(N, false);
    qb_hessian_sum sum;
    test_weight w = weight_new(8, N, QB_DTYPE_F32);
    qb_site_linear linear = {"m", &w.view};
    taken_linears none;
    static const struct {
        int code;
        qb_status status;
        const char *words;
    } cases[] = {{2, QB_ERR_MEMORY, "cuSOLVER, gptq: code 2, out of memory"},
                 {6, QB_ERR_INTERNAL, "cuSOLVER, gptq: code 6"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sum_on(device, h, N, &sum);
        qb_shim_fail_solver(cases[i].code);
        assert_fails(gptq_on_device(&c, &sum, &linear, 1, &none), cases[i].status, cases[i].words);
        qb_hessian_sum_free(device, &sum);
    }
    weight_free(&w);
    qb_free(h);
}
#endif

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_quantize__rtn_is_the_same_to_the_bit),
        cmocka_unit_test(test_cuda_quantize__small_steps_are_the_same_to_the_bit),
        cmocka_unit_test(test_cuda_quantize__codebooks_are_the_same_to_the_bit),
        cmocka_unit_test(test_cuda_quantize__what_is_not_finite_is_named),
        cmocka_unit_test(test_cuda_gptq__agrees_with_the_host),
        cmocka_unit_test(test_cuda_gptq__raises_damping_as_the_host_does),
        cmocka_unit_test(test_cuda_gptq__bad_input_is_named),
#ifdef QB_SHIM
        cmocka_unit_test(test_cuda_gptq__failures_of_the_library_keep_their_kind),
#endif
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}

int main(void) {
    return cuda_run(run);
}
