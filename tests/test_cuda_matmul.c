/* Every storage format times shapes and numbers of tokens, against float64 sums over the weights as
   qb_qweight_dequantize defines them; and what floats can be: large, small, not there. */
#include "tests/cuda_support.h"
#include "tests/weight_support.h"

#include "kernels/cuda/matrix.h"

static qb_device *dev;

static int open_device(void **state) {
    (void)state;
    dev = cuda_open_device();
    return 0;
}
static int close_device(void **state) {
    (void)state;
    cuda_close_device(dev);
    return 0;
}

static const format formats[] = {
    {.name = "int4 g128 sym", .bits = 4, .group = 128, .symmetric = true},
    {.name = "int4 g128 asym", .bits = 4, .group = 128},
    {.name = "int4 g32 asym float32 scales", .bits = 4, .group = 32, .odd_scales = true},
    {.name = "int4 g64 sym", .bits = 4, .group = 64, .symmetric = true},
    {.name = "int4 per row", .bits = 4, .symmetric = true},
    {.name = "int4 g64 act-order", .bits = 4, .group = 64, .act_order = true},
    {.name = "int4 g128 act-order", .bits = 4, .group = 128, .act_order = true},
    {.name = "int4 g32 offsets", .bits = 4, .group = 32, .offsets = true, .odd_scales = true},
    {.name = "int3 g128 asym", .bits = 3, .group = 128},
    {.name = "int3 g40 sym", .bits = 3, .group = 40, .symmetric = true},
    {.name = "int3 g64 act-order", .bits = 3, .group = 64, .act_order = true},
    {.name = "int3 per row asym", .bits = 3},
    {.name = "int2 g64 asym", .bits = 2, .group = 64},
    {.name = "int2 g128 sym", .bits = 2, .group = 128, .symmetric = true},
    {.name = "int2 g8 sym", .bits = 2, .group = 8, .symmetric = true},
    {.name = "int8 g128 asym", .bits = 8, .group = 128},
    {.name = "int8 g32 sym", .bits = 8, .group = 32, .symmetric = true},
    {.name = "int8 per row sym", .bits = 8, .symmetric = true},
    {.name = "int8 g32 float32 scales", .bits = 8, .group = 32, .odd_scales = true},
    {.name = "int5 g32 offsets", .bits = 5, .group = 32, .offsets = true},
    {.name = "int6 g16 sym", .bits = 6, .group = 16, .symmetric = true, .odd_scales = true},
    {.name = "int4 g32 both signs", .bits = 4, .group = 32, .symmetric = true, .any_sign = true},
    {.name = "int2 g16 offsets",
     .bits = 2,
     .group = 16,
     .offsets = true,
     .any_sign = true,
     .odd_scales = true},
    {.name = "nf4 b64", .codebook = QB_CODEBOOK_NF4, .group = 64},
    {.name = "nf4 b64 dq", .codebook = QB_CODEBOOK_NF4, .group = 64, .double_quant = true},
    {.name = "fp4 b32", .codebook = QB_CODEBOOK_FP4, .group = 32},
    {.name = "nf4 b4096 dq", .codebook = QB_CODEBOOK_NF4, .group = 4096, .double_quant = true},
    {.name = "fp4 b256", .codebook = QB_CODEBOOK_FP4, .group = 256},
    {.name = "iq4_nl b32", .codebook = QB_CODEBOOK_IQ4_NL, .group = 32},
    {.name = "e2m1 b32", .codebook = QB_CODEBOOK_E2M1, .group = 32},
};
enum { FORMATS = sizeof formats / sizeof *formats };

/* ||y - want|| / ||want|| in float64. */
static double relative_error(const float *y, const float *x, const float *w, int64_t T, int64_t rows,
                             int64_t cols) {
    double error = 0, size = 0;
    for (int64_t t = 0; t < T; t++)
        for (int64_t r = 0; r < rows; r++) {
            double want = 0;
            for (int64_t c = 0; c < cols; c++) want += (double)x[t * cols + c] * (double)w[r * cols + c];
            double apart = (double)y[t * rows + r] - want;
            error += apart * apart, size += want * want;
        }
    return sqrt(error / (size > 0 ? size : 1));
}

/* Activations and codebook values are rounded to float16, 2^-12 each of a random size, summed as random
   walks: some 3e-4. Few results are no statistics. */
static const double half_tolerance = 6e-4, few_tolerance = 2e-3, float_tolerance = 1e-6;

/* y of T tokens on the device, which must not write past it and must give the same bits again. */
static float *multiply(const qb_matrix *m, const float *x, int64_t T) {
    float *y = noise_new(T * m->rows + 1), guard = y[T * m->rows];
    float *dx = cuda_put_floats(dev, x, T * m->cols), *dy = cuda_put_floats(dev, y, T * m->rows + 1);
    assert_ok(cuda->matmul(dev, dy, dx, T, m));
    assert_ok(cuda->download(dev, y, dy, (T * m->rows + 1) * 4));
    assert_true(y[T * m->rows] == guard);
    assert_ok(cuda->matmul_again(dev, dy, dx, T, m));
    float *again = cuda_get_floats(dev, dy, T * m->rows);
    assert_memory_equal(y, again, (size_t)(T * m->rows) * 4);
    qb_free(again);
    cuda->free(dev, dx), cuda->free(dev, dy);
    return y;
}

static void check_tokens(const char *name, const qb_matrix *m, const float *w, const int *tokens,
                         double tolerance) {
    for (; *tokens; tokens++) {
        int64_t T = *tokens;
        float *x = noise_new(T * m->cols), *y = multiply(m, x, T);
        double error = relative_error(y, x, w, T, m->rows, m->cols);
        bool few = tolerance > float_tolerance && T * m->rows < 64;
        if (!(error < (few ? few_tolerance : tolerance)))
            fail_msg("%s, [%lld, %lld], %lld tokens: error %g", name, (long long)m->rows, (long long)m->cols,
                     (long long)T, error);
        qb_free(x), qb_free(y);
    }
}

static void check_packed(const format *f, qb_place place, int64_t rows, int64_t cols, const int *tokens) {
    qb_qweight *q = weight_new(f, rows, cols);
    qb_weight weight = {.rows = rows, .cols = cols, .packed = q};
    qb_matrix m;
    float *w = noise_new(rows * cols);
    qb_qweight_dequantize(q, w);
    assert_ok(cuda->matrix_create(dev, &weight, place, &m));
    qb_weight_free(&weight);
    check_tokens(f->name, &m, w, tokens, half_tolerance);
    cuda->matrix_free(dev, &m);
    qb_free(w);
}

static void test_cuda_matmul__packed_equals_the_dequantized_weight(void **state) {
    (void)state;
    static const int all[] = {1, 2, 3, 5, 8, 16, 17, 33, 64, 65, 130, 0}, few[] = {1, 9, 65, 0};
    static const int64_t ragged[][2] = {{33, 172}, {100, 36}, {5, 43}, {16, 96}};
    for (int i = 0; i < FORMATS; i++) {
        check_packed(&formats[i], QB_PLACE_DEVICE, 64, 256, all);
        for (size_t k = 0; k < sizeof ragged / sizeof *ragged; k++)
            check_packed(&formats[i], QB_PLACE_DEVICE, ragged[k][0], ragged[k][1], few);
    }
}

/* Long rows: every warp has a share of the columns, blocks divide them too, items outnumber blocks. Blocks
   and threads in other orders too, which a missing barrier would show. */
static void test_cuda_matmul__long_and_tall(void **state) {
    (void)state;
    static const int some[] = {1, 4, 40, 0};
    FOR_EACH_ORDER(seed) for (int i = (int)seed; i < FORMATS; i += 4) {
        check_packed(&formats[i], QB_PLACE_DEVICE, 48, 4096, some);
        check_packed(&formats[i], QB_PLACE_DEVICE, 2064, 128, some);
    }
}

static void test_cuda_matmul__weights_in_host_memory(void **state) {
    (void)state;
    static const int some[] = {1, 12, 70, 0};
    cuda_device *d = cuda_of(dev);
    int64_t before = d->pinned_now_bytes;
    for (int i = 0; i < FORMATS; i += 4) check_packed(&formats[i], QB_PLACE_HOST, 40, 320, some);
    assert_int_equal(d->pinned_now_bytes, before);
    assert_true(d->pinned_peak_bytes > before + 40 * 320 / 4);
}

static void check_dense(qb_dtype dtype, qb_place place, int64_t rows, int64_t cols, const int *tokens) {
    float *w = noise_new(rows * cols);
    uint8_t *bytes, *view; /* on an odd element, as a mapping may give it */
    assert_ok(qb_alloc((size_t)(rows * cols + 1), 4, &bytes));
    view = bytes + qb_dtype_bytes(dtype);
    assert_ok(qb_from_f32(dtype, w, rows * cols, view));
    assert_ok(qb_to_f32(dtype, view, rows * cols, w));
    qb_weight weight = {.rows = rows, .cols = cols, .dtype = dtype, .dense = view};
    qb_matrix m;
    assert_ok(cuda->matrix_create(dev, &weight, place, &m));
    assert_int_equal(m.bytes, rows * cols * (int64_t)qb_dtype_bytes(dtype));
    assert_non_null(m.dense);
    check_tokens(qb_dtype_name(dtype), &m, w, tokens,
                 dtype == QB_DTYPE_F32 ? float_tolerance : half_tolerance);
    cuda->matrix_free(dev, &m);
    qb_free(w), qb_free(bytes);
}

static void test_cuda_matmul__dense_types(void **state) {
    (void)state;
    static const qb_dtype types[] = {QB_DTYPE_F32, QB_DTYPE_F16, QB_DTYPE_BF16};
    static const int all[] = {1, 2, 8, 16, 17, 33, 64, 65, 130, 0}, few[] = {1, 9, 65, 0};
    for (int i = 0; i < 3; i++) {
        check_dense(types[i], QB_PLACE_DEVICE, 64, 256, all);
        check_dense(types[i], QB_PLACE_DEVICE, 70, 172, few);
        check_dense(types[i], QB_PLACE_DEVICE, 7, 43, few);
        check_dense(types[i], QB_PLACE_HOST, 40, 136, few);
    }
}

/* ---- what floats can be ---- */

/* Each token times a power of two of its own gives exactly the results times
   it: a row's scale is exact, and nothing is too large or too small for
   float16. Many tokens share one scale; there all take the same power. */
static void test_cuda_matmul__activations_of_any_size(void **state) {
    (void)state;
    enum { ROWS = 32, COLS = 256, MOST = 70 };
    static const int tokens[] = {1, 3, 12, MOST};
    static const int powers[] = {-60, 0, 20, 40, -24};
    for (int i = 0; i < FORMATS; i += 5) {
        qb_qweight *q = weight_new(&formats[i], ROWS, COLS);
        qb_weight weight = {.rows = ROWS, .cols = COLS, .packed = q};
        qb_matrix m;
        assert_ok(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
        for (int k = 0; k < 4; k++) {
            int T = tokens[k];
            float *x = noise_new(T * COLS), *want = multiply(&m, x, T);
            for (int round = 0; round < 5; round++) {
                float *scaled = noise_new(T * COLS);
                for (int j = 0; j < T * COLS; j++)
                    scaled[j] = ldexpf(x[j], powers[(T > 64 ? round : round + j / COLS) % 5]);
                float *y = multiply(&m, scaled, T);
                for (int j = 0; j < T * ROWS; j++)
                    if (y[j] != ldexpf(want[j], powers[(T > 64 ? round : round + j / ROWS) % 5]))
                        fail_msg("%s, %d tokens: %g times 2^%d became %g", formats[i].name, T,
                                 (double)want[j], powers[round], (double)y[j]);
                qb_free(scaled), qb_free(y);
            }
            qb_free(x), qb_free(want);
        }
        cuda->matrix_free(dev, &m);
        qb_weight_free(&weight);
    }
}

/* One enormous activation beside ordinary ones: both count. */
static void test_cuda_matmul__outliers_beyond_float16(void **state) {
    (void)state;
    enum { ROWS = 32, COLS = 256 };
    static const int tokens[] = {1, 20, 70};
    qb_qweight *q = weight_new(&formats[0], ROWS, COLS);
    qb_weight weight = {.rows = ROWS, .cols = COLS, .packed = q};
    qb_matrix m;
    float *w = noise_new(ROWS * COLS);
    qb_qweight_dequantize(q, w);
    assert_ok(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    for (int k = 0; k < 3; k++) {
        int T = tokens[k];
        float *x = noise_new(T * COLS);
        for (int t = 0; t < T; t++) x[t * COLS + 17] = 1e6f;
        float *y = multiply(&m, x, T);
        for (int t = 0; t < T; t++)
            for (int r = 0; r < ROWS; r++) { /* what the outlier leaves is that of the others */
                double want = 0;
                for (int c = 0; c < COLS; c++)
                    if (c != 17) want += (double)x[t * COLS + c] * (double)w[r * COLS + c];
                double outlier = 1e6 * (double)w[r * COLS + 17];
                double apart = fabs((double)y[t * ROWS + r] - outlier - want);
                if (!(apart < 1e-3 * fabs(outlier) + 1e-2))
                    fail_msg("%d tokens: %g + %g became %g", T, outlier, want, (double)y[t * ROWS + r]);
            }
        qb_free(x), qb_free(y);
    }
    cuda->matrix_free(dev, &m);
    qb_weight_free(&weight);
    qb_free(w);
}

/* Matrices of other exponents, orders and paddings after one another, with what else takes the scratch
   between: the bits are those of a product by itself. */
static void test_cuda_matmul__what_was_converted_serves_again(void **state) {
    (void)state;
    enum { ROWS = 32, COLS = 256, T = 70 };
    float *x = noise_new(T * COLS), *dx = cuda_put_floats(dev, x, T * COLS), *dy, *h;
    qb_matrix before = {0};
    assert_ok(cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, T * ROWS * 4, &dy));
    assert_ok(cuda->alloc(dev, QB_MEMORY_WORKSPACE, COLS * COLS * 4, &h));
    for (int i = 0; i < 2 * FORMATS; i++) {
        qb_qweight *q = weight_new(&formats[i % FORMATS], ROWS, COLS);
        qb_weight weight = {.rows = ROWS, .cols = COLS, .packed = q};
        qb_matrix m;
        for (int64_t g = 0; q->scales && g < ROWS * q->n_groups; g++)
            q->scales[g] *= 1.0f + 7.0f * (float)(i % 3);
        assert_ok(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
        assert_ok(cuda->matmul(dev, dy, dx, T, &m));
        float *alone = cuda_get_floats(dev, dy, T * ROWS);
        if (before.packed) assert_ok(cuda->matmul(dev, dy, dx, T, &before));
        if (i >= FORMATS) assert_ok(cuda->hessian(dev, h, dx, 1 + i % T, COLS));
        assert_ok(cuda->matmul_again(dev, dy, dx, T, &m));
        float *again = cuda_get_floats(dev, dy, T * ROWS);
        assert_memory_equal(alone, again, T * ROWS * 4);
        cuda->matrix_free(dev, &before);
        before = m;
        qb_weight_free(&weight);
        qb_free(alone), qb_free(again);
    }
    cuda->matrix_free(dev, &before);
    cuda->free(dev, dx), cuda->free(dev, dy), cuda->free(dev, h);
    qb_free(x);
}

static void test_cuda_matmul__what_is_not_finite_stays_so(void **state) {
    (void)state;
    enum { ROWS = 32, COLS = 256 };
    static const int tokens[] = {2, 20, 70};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    qb_qweight *q = weight_new(&formats[0], ROWS, COLS);
    qb_weight weight = {.rows = ROWS, .cols = COLS, .packed = q};
    qb_matrix m;
    assert_ok(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    for (int k = 0; k < 3; k++)
        for (int b = 0; b < 3; b++) {
            int T = tokens[k];
            float *x = noise_new(T * COLS);
            x[COLS + 3] = bad[b];
            float *dx = cuda_put_floats(dev, x, T * COLS), *dy;
            assert_ok(cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, T * ROWS * 4, &dy));
            assert_ok(cuda->matmul(dev, dy, dx, T, &m));
            float *y = cuda_get_floats(dev, dy, T * ROWS);
            for (int r = 0; r < ROWS; r++) assert_false(isfinite(y[ROWS + r]) && q->codes[r * COLS + 3] != 8);
            for (int r = 0; r < ROWS; r++) assert_true(isfinite(y[r]));
            cuda->free(dev, dx), cuda->free(dev, dy);
            qb_free(x), qb_free(y);
        }
    cuda->matrix_free(dev, &m);
    qb_weight_free(&weight);
}

/* Weights whose values float16 could not hold as they are. */
static void test_cuda_matmul__weights_of_any_size(void **state) {
    (void)state;
    enum { ROWS = 32, COLS = 256 };
    static const int tokens[] = {1, 70, 0};
    static const float sizes[] = {1e-12f, 1e12f};
    format f = {.name = "int8 g64 asym, enormous and tiny", .bits = 8, .group = 64, .odd_scales = true};
    for (int i = 0; i < 2; i++) {
        qb_qweight *q = weight_new(&f, ROWS, COLS);
        for (int64_t g = 0; g < ROWS * q->n_groups; g++) q->scales[g] *= sizes[i];
        qb_weight weight = {.rows = ROWS, .cols = COLS, .packed = q};
        qb_matrix m;
        float *w = noise_new(ROWS * COLS), *dense = noise_new(ROWS * COLS);
        uint16_t bf16[ROWS * COLS];
        qb_qweight_dequantize(q, w);
        assert_ok(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
        check_tokens(f.name, &m, w, tokens, half_tolerance);
        cuda->matrix_free(dev, &m);
        qb_weight_free(&weight);
        for (int j = 0; j < ROWS * COLS; j++) dense[j] *= sizes[i];
        assert_ok(qb_from_f32(QB_DTYPE_BF16, dense, ROWS * COLS, bf16));
        assert_ok(qb_to_f32(QB_DTYPE_BF16, bf16, ROWS * COLS, dense));
        weight = (qb_weight){.rows = ROWS, .cols = COLS, .dtype = QB_DTYPE_BF16, .dense = bf16};
        assert_ok(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
        check_tokens("bf16, enormous and tiny", &m, dense, tokens, half_tolerance);
        cuda->matrix_free(dev, &m);
        qb_free(w), qb_free(dense);
    }
}

/* A file with another nested map: what the reader decoded counts. */
static void test_cuda_matmul__another_nested_map(void **state) {
    (void)state;
    static const int tokens[] = {1, 70, 0};
    format f = {
        .name = "nf4 b64 dq, another map", .codebook = QB_CODEBOOK_NF4, .group = 64, .double_quant = true};
    qb_qweight *q = weight_new(&f, 20, 128);
    for (int64_t b = 0; b < q->n_blocks; b++) q->absmax[b] *= 1.01f;
    qb_weight weight = {.rows = 20, .cols = 128, .packed = q};
    float *w = noise_new(20 * 128);
    qb_qweight_dequantize(q, w);
    qb_matrix m;
    assert_ok(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    assert_int_equal(qb_cuda_view_of(&m)->scale_kind, QB_VIEW_SCALES_F32);
    check_tokens(f.name, &m, w, tokens, half_tolerance);
    cuda->matrix_free(dev, &m);
    qb_weight_free(&weight);
    qb_free(w);
}

/* ---- the packed form ---- */

static void test_cuda_matmul__packed_bytes_are_those_of_the_format(void **state) {
    (void)state;
    for (int i = 0; i < FORMATS; i++) {
        const format *f = &formats[i];
        bool padded = f->group == 8 || f->group == 16 || f->group == 40;
        if (padded || f->odd_scales || f->bits == 5) continue;
        int64_t rows = 64, cols = 4096;
        qb_qweight *q = weight_new(f, rows, cols);
        qb_weight weight = {.rows = rows, .cols = cols, .packed = q};
        qb_matrix m;
        assert_ok(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
        /* A symmetric weight needs no zeros here; others' take four bits or eight. */
        double parts = (double)rows * (double)q->n_groups;
        double zeros = f->bits == 0   ? 0
                       : f->symmetric ? -q->bits * parts
                                      : ((f->bits <= 4 ? 4 : 8) - q->bits) * parts;
        double want = qb_qweight_bits_per_weight(q) * (double)(rows * cols) + zeros;
        if (fabs((double)m.bytes * 8 - want) > 0.5)
            fail_msg("%s: %lld bytes, not %.0f", f->name, (long long)m.bytes, want / 8);
        cuda->matrix_free(dev, &m);
        qb_weight_free(&weight);
    }
}

static void test_cuda_matmul__blocks_that_no_32_columns_hold_are_float32(void **state) {
    (void)state;
    format f = {.name = "nf4 b64", .codebook = QB_CODEBOOK_NF4, .group = 64};
    qb_weight weight = {.rows = 20, .cols = 172, .packed = weight_new(&f, 20, 172)};
    qb_matrix m;
    assert_ok(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    assert_int_equal(m.bytes, 20 * 172 * 4);
    assert_int_equal(qb_cuda_view_of(&m)->kind, QB_CODES_F32);
    cuda->matrix_free(dev, &m);
    qb_weight_free(&weight);
}

static void test_cuda_matmul__files_that_lie_are_refused(void **state) {
    (void)state;
    qb_matrix m;
    qb_qweight *q = weight_new(&formats[5], 16, 128);
    qb_weight weight = {.rows = 16, .cols = 128, .packed = q};
    q->g_idx[7] = 2;
    assert_fails(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m), QB_ERR_FORMAT, "column 7");
    q->g_idx[7] = 0;
    q->codes[3] = 16;
    assert_fails(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m), QB_ERR_FORMAT, "code 16");
    q->codes[3] = 15;
    q->zeros[2] = 200;
    assert_fails(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m), QB_ERR_FORMAT, "zero point 200");
    assert_null(m.packed);
    weight.rows = 15;
    assert_fails(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m), QB_ERR_INTERNAL, "[15, 128]");
    weight.rows = 16;
    qb_weight_free(&weight);
    int64_t data = 0;
    weight = (qb_weight){.rows = 1, .cols = 1, .dtype = QB_DTYPE_I64, .dense = &data};
    assert_fails(cuda->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m), QB_ERR_UNSUPPORTED, "I64");
}

/* ---- Hessians ---- */

static void check_hessian(int64_t T, int64_t n, float size) {
    float *x = noise_new(T * n), *h = noise_new(n * n);
    double largest = 0;
    for (int64_t i = 0; i < T * n; i++) x[i] *= size;
    for (int64_t i = 0; i < n * n; i++) h[i] *= size * size;
    float *dx = cuda_put_floats(dev, x, T * n), *dh = cuda_put_floats(dev, h, n * n);
    assert_ok(cuda->hessian(dev, dh, dx, T, n));
    float *got = cuda_get_floats(dev, dh, n * n);
    assert_ok(cuda->upload(dev, dh, h, n * n * 4));
    assert_ok(cuda->hessian(dev, dh, dx, T, n));
    float *again = cuda_get_floats(dev, dh, n * n);
    assert_memory_equal(got, again, (size_t)(n * n) * 4);
    double error = 0, total = 0;
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < n; c++) {
            if (c > r) {
                if (got[r * n + c] != h[r * n + c])
                    fail_msg("above the diagonal: %lld, %lld", (long long)r, (long long)c);
                continue;
            }
            double want = (double)h[r * n + c];
            for (int64_t t = 0; t < T; t++) want += (double)x[t * n + r] * (double)x[t * n + c];
            double apart = (double)got[r * n + c] - want;
            error += apart * apart, total += want * want;
            largest = fmax(largest, fabs(want));
        }
    if (!(sqrt(error / total) < 3e-4))
        fail_msg("hessian of %lld x %lld: error %g", (long long)T, (long long)n, sqrt(error / total));
    cuda->free(dev, dx), cuda->free(dev, dh);
    qb_free(x), qb_free(h), qb_free(got), qb_free(again);
}

static void test_cuda_matmul__hessian(void **state) {
    (void)state;
    check_hessian(1, 1, 1.0f);
    check_hessian(7, 36, 1.0f);
    check_hessian(64, 172, 1.0f);
    check_hessian(200, 256, 1e6f);
    check_hessian(33, 600, 1e-9f);
}

/* Numbers of tokens beyond a chunk, a few columns wide. */
static void test_cuda_matmul__more_tokens_than_a_chunk(void **state) {
    (void)state;
    static const int many[] = {16385, 0};
    check_packed(&formats[1], QB_PLACE_DEVICE, 16, 32, many);
    check_dense(QB_DTYPE_F32, QB_PLACE_DEVICE, 8, 16, many);
    check_hessian(16400, 8, 1.0f);
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_matmul__packed_equals_the_dequantized_weight),
        cmocka_unit_test(test_cuda_matmul__long_and_tall),
        cmocka_unit_test(test_cuda_matmul__weights_in_host_memory),
        cmocka_unit_test(test_cuda_matmul__dense_types),
        cmocka_unit_test(test_cuda_matmul__activations_of_any_size),
        cmocka_unit_test(test_cuda_matmul__outliers_beyond_float16),
        cmocka_unit_test(test_cuda_matmul__what_was_converted_serves_again),
        cmocka_unit_test(test_cuda_matmul__what_is_not_finite_stays_so),
        cmocka_unit_test(test_cuda_matmul__weights_of_any_size),
        cmocka_unit_test(test_cuda_matmul__another_nested_map),
        cmocka_unit_test(test_cuda_matmul__packed_bytes_are_those_of_the_format),
        cmocka_unit_test(test_cuda_matmul__blocks_that_no_32_columns_hold_are_float32),
        cmocka_unit_test(test_cuda_matmul__files_that_lie_are_refused),
        cmocka_unit_test(test_cuda_matmul__hessian),
        cmocka_unit_test(test_cuda_matmul__more_tokens_than_a_chunk),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    return cuda_run(run);
}
