/* Every storage format times every shape, instruction set and thread count, against float64 sums over the
   weights as qb_qweight_dequantize defines them. */
#include "tests/kernels_support.h"
#include "tests/weight_support.h"

#include "kernels/cpu/k_layout.h"
#include "kernels/cpu/simd.h"

static const format formats[] = {
    {.name = "int4 g128 sym", .bits = 4, .group = 128, .symmetric = true},
    {.name = "int4 g128 asym", .bits = 4, .group = 128},
    {.name = "int4 g32 asym float32 scales", .bits = 4, .group = 32, .odd_scales = true},
    {.name = "int4 per row", .bits = 4, .symmetric = true},
    {.name = "int4 g64 act-order", .bits = 4, .group = 64, .act_order = true},
    {.name = "int3 g128 asym", .bits = 3, .group = 128},
    {.name = "int3 g40 sym", .bits = 3, .group = 40, .symmetric = true},
    {.name = "int3 g64 act-order", .bits = 3, .group = 64, .act_order = true},
    {.name = "int2 g64 asym", .bits = 2, .group = 64},
    {.name = "int2 g8 sym", .bits = 2, .group = 8, .symmetric = true},
    {.name = "int8 g128 asym", .bits = 8, .group = 128},
    {.name = "int8 per row sym", .bits = 8, .symmetric = true},
    {.name = "Q4_0", .bits = 4, .group = 32, .symmetric = true, .any_sign = true},
    {.name = "Q4_1", .bits = 4, .group = 32, .offsets = true, .any_sign = true},
    {.name = "Q5_0", .bits = 5, .group = 32, .symmetric = true, .any_sign = true, .packed_bits = 8.5},
    {.name = "Q5_1", .bits = 5, .group = 32, .offsets = true, .any_sign = true, .packed_bits = 9},
    {.name = "Q2_K", .bits = 2, .group = 16, .offsets = true, .factored = true, .packed_bits = 2.75},
    {.name = "Q3_K",
     .bits = 3,
     .group = 16,
     .symmetric = true,
     .any_sign = true,
     .factored = true,
     .packed_bits = 3.625},
    {.name = "Q4_K", .bits = 4, .group = 32, .offsets = true, .factored = true, .packed_bits = 4.75},
    {.name = "Q5_K", .bits = 5, .group = 32, .offsets = true, .factored = true, .packed_bits = 5.75},
    {.name = "Q6_K",
     .bits = 6,
     .group = 16,
     .symmetric = true,
     .any_sign = true,
     .factored = true,
     .packed_bits = 6.625},
    {.name = "int4 g32 float32 offsets",
     .bits = 4,
     .group = 32,
     .offsets = true,
     .odd_scales = true,
     .packed_bits = 6},
    {.name = "int6 g16 sym float32 scales",
     .bits = 6,
     .group = 16,
     .symmetric = true,
     .any_sign = true,
     .odd_scales = true,
     .packed_bits = 10},
    {.name = "int6 g64 asym", .bits = 6, .group = 64, .packed_bits = 8.375},
    {.name = "int5 g16 act-order asym", .bits = 5, .group = 16, .act_order = true, .packed_bits = 9.5 + 0.5},
    {.name = "int3 g16 asym", .bits = 3, .group = 16, .packed_bits = 5.25},
    {.name = "nf4 b64", .codebook = QB_CODEBOOK_NF4, .group = 64},
    {.name = "nf4 b64 dq", .codebook = QB_CODEBOOK_NF4, .group = 64, .double_quant = true},
    {.name = "fp4 b32", .codebook = QB_CODEBOOK_FP4, .group = 32},
    {.name = "nf4 b4096 dq", .codebook = QB_CODEBOOK_NF4, .group = 4096, .double_quant = true},
    {.name = "fp4 b256", .codebook = QB_CODEBOOK_FP4, .group = 256},
    {.name = "iq4_nl b32", .codebook = QB_CODEBOOK_IQ4_NL, .group = 32},
    {.name = "e2m1 b32", .codebook = QB_CODEBOOK_E2M1, .group = 32},
};
enum { FORMATS = sizeof formats / sizeof *formats };

/* Largest error of y[T, rows] against float64, over the sum of the products' sizes: what float32 sums are
 * held to. */
static double product_error(const float *y, const float *x, const float *w, int64_t T, int64_t rows,
                            int64_t cols) {
    double worst = 0;
    for (int64_t t = 0; t < T; t++)
        for (int64_t r = 0; r < rows; r++) {
            double want = 0, size = 1e-30;
            for (int64_t c = 0; c < cols; c++) {
                double p = (double)x[t * cols + c] * (double)w[r * cols + c];
                want += p;
                size += fabs(p);
            }
            double error = fabs((double)y[t * rows + r] - want) / size;
            if (!(error <= worst)) worst = error;
        }
    return worst;
}

/* Zero points are applied to sums of activations, which costs a few roundings more. */
static const double packed_tolerance = 1e-6, dense_tolerance = 5e-7;

static void check_packed(const format *f, const char *simd, int64_t rows, int64_t cols, const int *tokens) {
    qb_device *dev = device_open(simd, 2);
    qb_qweight *q = weight_new(f, rows, cols);
    qb_weight weight = {.rows = rows, .cols = cols, .packed = q};
    qb_matrix m;
    float *w = noise_new(rows * cols);
    qb_qweight_dequantize(q, w);
    assert_ok(qb_backend_cpu.matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    qb_weight_free(&weight);
    for (; *tokens; tokens++) {
        int64_t T = *tokens;
        float *x = noise_new(T * cols), *y = noise_new(T * rows + 1), guard = y[T * rows];
        assert_ok(qb_backend_cpu.matmul(dev, y, x, T, &m));
        double error = product_error(y, x, w, T, rows, cols);
        if (!(error < packed_tolerance) || y[T * rows] != guard)
            fail_msg("%s, %s, [%lld, %lld], %lld tokens: error %g", f->name, simd, (long long)rows,
                     (long long)cols, (long long)T, error);
        qb_free(x), qb_free(y);
    }
    qb_backend_cpu.matrix_free(dev, &m);
    assert_no_memory(dev);
    qb_backend_cpu.close(dev);
    qb_free(w);
}

static void test_matmul__packed_equals_the_dequantized_weight(void **state) {
    (void)state;
    static const int few[] = {1, 2, 3, 8, 17, 64, 0}, one[] = {1, 5, 0};
    static const int64_t shapes[][2] = {{16, 128}, {33, 172}, {70, 352}, {1, 64}, {5, 43}, {37, 512}};
    for (int i = 0; i < FORMATS; i++)
        for (int s = 0; simd_name(s); s++) {
            for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
                check_packed(&formats[i], simd_name(s), shapes[k][0], shapes[k][1], few);
            check_packed(&formats[i], simd_name(s), 131, 4096, one);
        }
}

static qb_status host_alloc(void *owner, int64_t bytes, void *out) {
    (void)owner;
    return qb_alloc((size_t)bytes, 1, out);
}
static void host_free(void *owner, void *pointer) {
    (void)owner;
    qb_free(pointer);
}
static const qb_pack_memory host_memory = {NULL, host_alloc, host_free};

/* Every code, zero and scale comes back from the packed form to the bit, in every instruction set. */
static void test_matmul__unpacking_is_exact(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{16, 512}, {50, 352}, {21, 172}};
    for (int i = 0; i < FORMATS * 3; i++) {
        const format *f = &formats[i / 3];
        int64_t rows = shapes[i % 3][0], cols = shapes[i % 3][1];
        qb_qweight *q = weight_new(f, rows, cols);
        float *want = noise_new(rows * cols);
        qb_qweight_dequantize(q, want);
        qb_packed *p;
        assert_ok(qb_pack(q, NULL, &host_memory, &p));
        for (int s = 0; simd_name(s) && !p->by_row; s++) {
            setenv("BENCH_SIMD", simd_name(s), 1);
            const qb_simd *simd = qb_simd_chosen();
            float *panel = noise_new(p->padded_cols * 17);
            for (int64_t b = 0; b < p->blocks; b++) {
                simd->unpack_block(p, b, panel, 17);
                for (int64_t k = 0; k < p->padded_cols; k++) {
                    int64_t c = p->source ? p->source[k] : k;
                    for (int64_t l = 0; c >= 0 && l < 16 && b * 16 + l < rows; l++)
                        if (panel[k * 17 + l] != want[(b * 16 + l) * cols + c])
                            fail_msg("%s, %s: row %lld column %lld is %g, not %g", f->name, simd->name,
                                     (long long)(b * 16 + l), (long long)c, (double)panel[k * 17 + l],
                                     (double)want[(b * 16 + l) * cols + c]);
                }
            }
            qb_free(panel);
        }
        unsetenv("BENCH_SIMD");
        qb_pack_free(p, &host_memory);
        qb_qweight_free(q);
        qb_free(q), qb_free(want);
    }
}

/* Rows looked up in a packed table are those of the dequantized weight, in every instruction set. */
static void check_lookups(const format *f, const char *simd, int64_t rows, int64_t cols, int64_t T,
                          bool left) {
    qb_device *dev = device_open(simd, 2);
    qb_qweight *q = weight_new(f, rows, cols);
    qb_weight weight = {.rows = rows, .cols = cols, .packed = q};
    qb_matrix m;
    float *w = noise_new(rows * cols), *x = noise_new(T * cols + 1), guard = x[T * cols];
    int32_t ids[64];
    qb_qweight_dequantize(q, w);
    if (left) weight_leave(q);
    assert_ok(qb_backend_cpu.matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    qb_weight_free(&weight);
    for (int64_t t = 0; t < T; t++) ids[t] = (int32_t)(t * 7 % rows);
    assert_ok(qb_backend_cpu.embed(dev, x, &m, ids, T));
    for (int64_t t = 0; t < T; t++)
        for (int64_t c = 0; c < cols; c++)
            if (x[t * cols + c] != w[ids[t] * cols + c])
                fail_msg("%s, %s: row %d column %lld is %g, not %g", f->name, simd, ids[t], (long long)c,
                         (double)x[t * cols + c], (double)w[ids[t] * cols + c]);
    assert_true(x[T * cols] == guard);
    qb_backend_cpu.matrix_free(dev, &m);
    assert_no_memory(dev);
    qb_backend_cpu.close(dev);
    qb_free(w), qb_free(x);
}

static void test_matmul__packed_tables_are_looked_up(void **state) {
    (void)state;
    for (int i = 0; i < FORMATS; i++)
        for (int s = 0; simd_name(s); s++) {
            check_lookups(&formats[i], simd_name(s), 50, 352, 64, false);
            check_lookups(&formats[i], simd_name(s), 21, 172, 3, false);
        }
}

/* Codes by rows, and factors without their products, as readers leave them. */
static void test_matmul__what_a_reader_left_is_read(void **state) {
    (void)state;
    for (int i = 0; i < FORMATS; i++) {
        check_lookups(&formats[i], simd_name(0), 205, 512, 64, true);
        check_lookups(&formats[i], simd_name(0), 21, 172, 3, true);
    }
}

static void test_matmul__packed_bytes_are_those_of_the_format(void **state) {
    (void)state;
    for (int i = 0; i < FORMATS; i++) {
        const format *f = &formats[i];
        if (f->packed_bits == 0 && (f->odd_scales || f->group == 8 || f->group == 40))
            continue; /* float32 scales; groups padded to a step */
        int64_t rows = 64, cols = 1024;
        qb_qweight *q = weight_new(f, rows, cols);
        qb_packed *p;
        assert_ok(qb_pack(q, NULL, &host_memory, &p));
        double bits = (double)p->bytes * 8 / (double)(rows * cols);
        /* In memory a symmetric weight needs no zeros. */
        double zeros =
            q->coding == QB_CODING_AFFINE && q->symmetric ? (double)q->bits / (double)q->group_size : 0;
        double expected = f->packed_bits > 0 ? f->packed_bits : qb_qweight_bits_per_weight(q) - zeros;
        if (fabs(bits - expected) > 1e-9)
            fail_msg("%s: %g bits a weight, expected %g", f->name, bits, expected);
        qb_pack_free(p, &host_memory);
        qb_qweight_free(q);
        qb_free(q);
    }
}

/* Group values that have factors within the kind's range lie as these; others as they are. */
static void test_matmul__factors_lie_as_they_are(void **state) {
    (void)state;
    static const struct {
        int bits, inner[4];
        float outer;
        bool none, factored;
    } rows[] = {{6, {63, 1, -128, 127}, 0x1.554p-10f, false, true},
                {6, {0, 0, 0, 0}, 0, false, true},
                {6, {1, 3, 0, 0}, -0x1p-140f, false, true},
                {6, {63, 1, -128, 127}, 0x1.554p-10f, true, false},
                {3, {-32, 31, 0, 1}, 0.1f, false, true},
                {3, {-33, 31, 0, 1}, 0.1f, false, false},
                {3, {-32, 32, 0, 1}, 0.1f, false, false}};
    for (size_t k = 0; k < 2 * (sizeof rows / sizeof *rows); k++) {
        const size_t i = k / 2;
        const bool left = k % 2 && !rows[i].none;
        format f = {
            .name = "one row", .bits = rows[i].bits, .group = 16, .symmetric = true, .factored = true};
        qb_qweight *q = weight_new(&f, 1, 256);
        for (int g = 0; g < 16; g++) q->scale_factors.inner[g] = g < 4 ? (uint8_t)rows[i].inner[g] : 0;
        q->scale_factors.outer[0] = rows[i].outer;
        set_values_of_factors(q);
        if (rows[i].none) q->factor_groups = 0;
        float scales[4];
        memcpy(scales, q->scales, sizeof scales);
        if (left) weight_leave(q);
        qb_packed *p;
        assert_ok(qb_pack(q, NULL, &host_memory, &p));
        const bool factored = p->scale_kind == QB_SCALES_FACTORED;
        if (factored != rows[i].factored) fail_msg("row %zu lies in form %d", i, p->scale_kind);
        float outer = 0;
        if (factored) memcpy(&outer, p->codes + qb_k_outer_at(p->kind), sizeof outer);
        for (int g = 0; g < 4 && factored; g++)
            assert_true((float)(int8_t)p->codes[qb_k_scales_at(p->kind) + g] * outer == scales[g]);
        for (int g = 0; g < 4 && !factored; g++) {
            float scale;
            memcpy(&scale, (const float *)p->scales + (ptrdiff_t)g * QB_BLOCK_ROWS, sizeof scale);
            if (p->scale_kind == QB_SCALES_F32) assert_true(scale == scales[g]);
        }
        qb_pack_free(p, &host_memory);
        qb_qweight_free(q);
        qb_free(q);
    }
}

/* Packed results depend neither on the threads nor on which other tokens share the call. */
static void test_matmul__same_bits_for_threads_and_batches(void **state) {
    (void)state;
    enum { ROWS = 150, T = 27 };
    for (int i = 0; i < FORMATS; i++) {
        const int64_t COLS = formats[i].factored ? 512 : 352;
        qb_qweight *q = weight_new(&formats[i], ROWS, COLS);
        qb_weight weight = {.rows = ROWS, .cols = COLS, .packed = q};
        float *x = noise_new(T * COLS), *first = noise_new(T * ROWS), *y = noise_new(T * ROWS);
        for (int threads = 1; threads <= 3; threads++) {
            qb_device *dev = device_open(NULL, threads);
            qb_matrix m;
            assert_ok(qb_backend_cpu.matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
            assert_ok(qb_backend_cpu.matmul(dev, threads == 1 ? first : y, x, T, &m));
            if (threads > 1) assert_memory_equal(first, y, T * ROWS * sizeof *y);
            bool one_kernel = strcmp(qb_cpu_simd(), "avx512") == 0;
            for (int n = 1; n <= T && one_kernel; n += n) {
                for (int t = 0; t < T; t += n)
                    assert_ok(
                        qb_backend_cpu.matmul(dev, y + t * ROWS, x + t * COLS, n < T - t ? n : T - t, &m));
                assert_memory_equal(first, y, T * ROWS * sizeof *y);
            }
            qb_backend_cpu.matrix_free(dev, &m);
            qb_backend_cpu.close(dev);
        }
        qb_weight_free(&weight);
        qb_free(x), qb_free(first), qb_free(y);
    }
}

static void check_dense(qb_dtype dtype, const char *simd, int64_t rows, int64_t cols, int64_t T) {
    float *w = noise_new(rows * cols), *x = noise_new(T * cols), *first = NULL;
    uint8_t *bytes, *view; /* on an odd element, as a mapping may give it */
    assert_ok(qb_alloc((size_t)(rows * cols + 1), 4, &bytes));
    view = bytes + qb_dtype_bytes(dtype);
    assert_ok(qb_from_f32(dtype, w, rows * cols, view));
    assert_ok(qb_to_f32(dtype, view, rows * cols, w));
    for (int threads = 1; threads <= 3; threads++) {
        qb_device *dev = device_open(simd, threads);
        qb_weight weight = {.rows = rows, .cols = cols, .dtype = dtype, .dense = view};
        qb_matrix m;
        assert_ok(qb_backend_cpu.matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
        assert_int_equal(m.bytes, rows * cols * (int64_t)qb_dtype_bytes(dtype));
        float *y = noise_new(T * rows);
        assert_ok(qb_backend_cpu.matmul(dev, y, x, T, &m));
        double error = product_error(y, x, w, T, rows, cols);
        if (!(error < dense_tolerance))
            fail_msg("%s, %s, [%lld, %lld], %lld tokens: error %g", qb_dtype_name(dtype), simd,
                     (long long)rows, (long long)cols, (long long)T, error);
        if (first) assert_memory_equal(first, y, (size_t)(T * rows) * sizeof *y);
        if (first)
            qb_free(y);
        else
            first = y;
        qb_backend_cpu.matrix_free(dev, &m);
        assert_no_memory(dev);
        qb_backend_cpu.close(dev);
    }
    qb_free(first), qb_free(w), qb_free(x), qb_free(bytes);
}

static void test_matmul__dense_types(void **state) {
    (void)state;
    static const qb_dtype types[] = {QB_DTYPE_F32, QB_DTYPE_F16, QB_DTYPE_BF16};
    static const int64_t tokens[] = {1, 2, 3, 8, 17, 64};
    for (int d = 0; d < 3; d++)
        for (int s = 0; simd_name(s); s++)
            for (int t = 0; t < 6; t++) {
                check_dense(types[d], simd_name(s), 70, 172, tokens[t]);
                if (t < 2) check_dense(types[d], simd_name(s), 300, 43, 17 * tokens[t]);
                /* beyond what rows and tokens a task takes at once */
                check_dense(types[d], simd_name(s), 85, 147, 9 * tokens[t]);
            }
}

/* A file with another nested map: what the reader decoded counts. */
static void test_matmul__another_nested_map(void **state) {
    (void)state;
    const format *f = formats;
    while (strcmp(f->name, "nf4 b64 dq") != 0) f++;
    for (int64_t cols = 128; cols <= 172; cols += 44) {
        qb_qweight *q = weight_new(f, 20, cols);
        for (int64_t b = 0; b < q->n_blocks; b++) q->absmax[b] *= 1.01f;
        qb_weight weight = {.rows = 20, .cols = cols, .packed = q};
        float *w = noise_new(20 * cols), *x = noise_new(cols), y[20];
        qb_qweight_dequantize(q, w);
        qb_device *dev = device_open(NULL, 1);
        qb_matrix m;
        assert_ok(qb_backend_cpu.matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
        assert_ok(qb_backend_cpu.matmul(dev, y, x, 1, &m));
        assert_true(product_error(y, x, w, 1, 20, cols) < packed_tolerance);
        assert_int_equal(m.bytes, (cols == 128 ? 32 * cols / 2 : 20 * cols / 2) + 4 * q->n_blocks);
        qb_backend_cpu.matrix_free(dev, &m);
        qb_backend_cpu.close(dev);
        qb_weight_free(&weight);
        qb_free(w), qb_free(x);
    }
}

static void test_matmul__files_that_lie_are_refused(void **state) {
    (void)state;
    qb_packed *p;
    qb_qweight *q = weight_new(&formats[4], 16, 128);
    q->g_idx[7] = 2;
    assert_fails(qb_pack(q, NULL, &host_memory, &p), QB_ERR_FORMAT, "column 7");
    q->g_idx[7] = 0;
    q->codes[3] = 16;
    assert_fails(qb_pack(q, NULL, &host_memory, &p), QB_ERR_FORMAT, "code 16");
    q->codes[3] = 15;
    q->zeros[2] = 200;
    assert_fails(qb_pack(q, NULL, &host_memory, &p), QB_ERR_FORMAT, "zero point 200");
    assert_null(p);
    qb_qweight_free(q);
    qb_free(q);
    qb_device *dev = device_open(NULL, 1);
    int64_t data = 0;
    qb_matrix m;
    assert_fails(qb_backend_cpu.matrix_create(
                     dev, &(qb_weight){.rows = 1, .cols = 1, .dtype = QB_DTYPE_I64, .dense = &data},
                     QB_PLACE_DEVICE, &m),
                 QB_ERR_UNSUPPORTED, "I64");
    qb_backend_cpu.close(dev);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul__unpacking_is_exact),
        cmocka_unit_test(test_matmul__packed_tables_are_looked_up),
        cmocka_unit_test(test_matmul__what_a_reader_left_is_read),
        cmocka_unit_test(test_matmul__packed_equals_the_dequantized_weight),
        cmocka_unit_test(test_matmul__packed_bytes_are_those_of_the_format),
        cmocka_unit_test(test_matmul__factors_lie_as_they_are),
        cmocka_unit_test(test_matmul__same_bits_for_threads_and_batches),
        cmocka_unit_test(test_matmul__dense_types),
        cmocka_unit_test(test_matmul__another_nested_map),
        cmocka_unit_test(test_matmul__files_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
