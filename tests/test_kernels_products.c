/* Several products at once: the bits of one by one, whatever they share. */
#include "tests/kernels_support.h"
#include "tests/weight_support.h"

static const format formats[] = {
    {.name = "int4 g128 sym", .bits = 4, .group = 128, .symmetric = true},
    {.name = "another", .bits = 4, .group = 128, .symmetric = true},
    {.name = "int4 g128 asym", .bits = 4, .group = 128},
    {.name = "another asym", .bits = 4, .group = 128},
    {.name = "int4 g64 act-order", .bits = 4, .group = 64, .act_order = true},
    {.name = "the same order", .bits = 4, .group = 64, .act_order = true},
    {.name = "int8 g128 asym", .bits = 8, .group = 128},
    {.name = "int3 g64 asym", .bits = 3, .group = 64},
    {.name = "Q6_K", .bits = 6, .group = 16, .symmetric = true, .any_sign = true, .factored = true},
    {.name = "Q4_K", .bits = 4, .group = 32, .offsets = true, .factored = true},
    {.name = "nf4 b64", .codebook = QB_CODEBOOK_NF4, .group = 64},
    {.name = "fp4 b64", .codebook = QB_CODEBOOK_FP4, .group = 64},
    {.name = "iq4_nl", .codebook = QB_CODEBOOK_IQ4_NL, .group = 32},
    {.name = "nf4 b4096", .codebook = QB_CODEBOOK_NF4, .group = 4096},
};
static const qb_dtype dense[] = {QB_DTYPE_F16, QB_DTYPE_BF16, QB_DTYPE_F32, QB_DTYPE_F16};
enum { PACKED = sizeof formats / sizeof *formats, DENSE = 4, ALL = PACKED + DENSE };

typedef struct {
    qb_device *dev;
    int64_t cols;
    qb_matrix m[ALL];
    void *elements[DENSE];
} matrices;

static void matrices_create(matrices *a, const char *simd, int threads, qb_activations mode, int64_t cols) {
    a->dev = device_open(simd, threads);
    a->cols = cols;
    qb_activations got;
    assert_ok(a->dev->backend->set_activations(a->dev, mode, &got));
    for (int i = 0; i < ALL; i++) {
        int64_t rows = 17 + 13 * i;
        qb_weight weight = {.rows = rows, .cols = cols};
        if (i < PACKED)
            weight.packed = weight_new(&formats[i], rows, cols);
        else {
            float *w = noise_new(rows * cols);
            weight.dtype = dense[i - PACKED];
            assert_ok(qb_alloc((size_t)(rows * cols), 4, &a->elements[i - PACKED]));
            assert_ok(qb_from_f32(weight.dtype, w, rows * cols, a->elements[i - PACKED]));
            weight.dense = a->elements[i - PACKED];
            qb_free(w);
        }
        assert_ok(a->dev->backend->matrix_create(a->dev, &weight, QB_PLACE_DEVICE, &a->m[i]));
        qb_weight_free(&weight);
    }
}

static void matrices_free(matrices *a) {
    for (int i = 0; i < ALL; i++) a->dev->backend->matrix_free(a->dev, &a->m[i]);
    for (int i = 0; i < DENSE; i++) qb_free(a->elements[i]);
    assert_no_memory(a->dev);
    a->dev->backend->close(a->dev);
}

/* All matrices of one x of T tokens, and of other rows of it with fewer, as routed experts have. */
static void check(const matrices *a, int64_t T, const char *simd) {
    const qb_backend *be = a->dev->backend;
    qb_product of[2 * ALL];
    float *x = noise_new(T * a->cols), *want[2 * ALL];
    for (int i = 0; i < 2 * ALL; i++) {
        const qb_matrix *m = &a->m[i % ALL];
        int64_t skip = i < ALL ? 0 : i % 3 % T, rows = i < ALL ? T : i % 5 ? T - skip : 0;
        of[i] = (qb_product){m, x + skip * a->cols, noise_new(rows * m->rows + 1), rows};
        want[i] = noise_new(rows * m->rows + 1);
        want[i][rows * m->rows] = of[i].y[rows * m->rows];
        assert_ok(be->matmul(a->dev, want[i], of[i].x, rows, m));
    }
    assert_ok(be->matmul_all(a->dev, of, 2 * ALL));
    for (int i = 0; i < 2 * ALL; i++) {
        if (memcmp(want[i], of[i].y, (size_t)(of[i].T * of[i].w->rows + 1) * sizeof **want) != 0)
            fail_msg("%s, %s, %lld of %lld tokens differ", simd,
                     i % ALL < PACKED ? formats[i % ALL].name : qb_dtype_name(dense[i % ALL - PACKED]),
                     (long long)of[i].T, (long long)T);
        qb_free(of[i].y), qb_free(want[i]);
    }
    qb_free(x);
}

static void test_products__same_bits_as_one_by_one(void **state) {
    (void)state;
    static const qb_activations modes[] = {QB_ACTIVATIONS_F32, QB_ACTIVATIONS_I16, QB_ACTIVATIONS_I8};
    static const int64_t tokens[] = {1, 2, 9, 33, 250};
    for (int s = 0; simd_name(s); s++)
        for (int mode = 0; mode < 3; mode++)
            for (int threads = 1; threads <= 3; threads += 2) {
                matrices a = {0};
                matrices_create(&a, simd_name(s), threads, modes[mode], 320);
                for (int t = 0; t < (s == 0 ? 4 : 5); t++) check(&a, tokens[t], simd_name(s));
                assert_ok(a.dev->backend->matmul_all(a.dev, NULL, 0));
                matrices_free(&a);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_products__same_bits_as_one_by_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
