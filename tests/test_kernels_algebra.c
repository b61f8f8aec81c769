/* The tiled GEMM, Cholesky and triangular inverse against float64 sums and LAPACK, and their bits across
 * thread counts. */
#include "tests/support.h"

#include "kernels/cpu/cpu.h"

#include <f77blas.h>
#include <math.h>

static uint32_t noise_state = 1;
static float noise(void) {
    noise_state = noise_state * 1664525u + 1013904223u;
    return (float)(int32_t)noise_state * 0x1p-31f;
}
static float *noise_new(int64_t n) {
    float *x;
    assert_ok(qb_alloc((size_t)(n ? n : 1), sizeof *x, &x));
    for (int64_t i = 0; i < n; i++) x[i] = noise();
    return x;
}

static void check_gemm(qb_threads *threads, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                       float beta) {
    int64_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 1, ldc = n + 2;
    float *a = noise_new((ta ? k : m) * lda), *b = noise_new((tb ? n : k) * ldb), *c = noise_new(m * ldc);
    float *before = noise_new(m * ldc);
    memcpy(before, c, (size_t)(m * ldc) * sizeof *c);
    qb_gemm(threads, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < ldc; j++) {
            double want = (double)before[i * ldc + j], size = 1;
            if (j < n) {
                want *= (double)beta;
                for (int64_t l = 0; l < k; l++) {
                    double p = (double)alpha * (double)(ta ? a[l * lda + i] : a[i * lda + l]) *
                               (double)(tb ? b[j * ldb + l] : b[l * ldb + j]);
                    want += p;
                    size += fabs(p);
                }
            }
            assert_true(fabs((double)c[i * ldc + j] - want) <= 1e-6 * size);
        }
    qb_free(a), qb_free(b), qb_free(c), qb_free(before);
}

static void test_algebra__gemm_equals_the_float64_sum(void **state) {
    (void)state;
    qb_threads *threads;
    assert_ok(qb_threads_create(2, &threads));
    static const int64_t shapes[][3] = {{1, 1, 1},    {0, 4, 4},   {4, 0, 4},      {3, 5, 0},   {17, 33, 7},
                                        {1, 1025, 3}, {257, 1, 9}, {300, 530, 41}, {64, 64, 64}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int t = 0; t < 4; t++)
            check_gemm(threads, t & 1, t & 2, shapes[s][0], shapes[s][1], shapes[s][2], t == 3 ? -0.5f : 1.0f,
                       t == 0   ? 0.0f
                       : t == 1 ? 1.0f
                                : 0.25f);
    qb_threads_free(threads);
}

/* X X^T + n I / 8, X uniform: well conditioned, lower triangle only; zeros above. */
static float *spd_new(int64_t n) {
    float *x = noise_new(n * n), *a = noise_new(n * n);
    qb_gemm(NULL, false, true, n, n, n, 1.0f, x, n, x, n, 0.0f, a, n);
    for (int64_t i = 0; i < n; i++) {
        a[i * n + i] += (float)n / 8;
        for (int64_t j = i + 1; j < n; j++) a[i * n + j] = 0;
    }
    qb_free(x);
    return a;
}

static qb_factor *factor_new(qb_threads *threads, int64_t n) {
    qb_factor *f;
    assert_ok(qb_factor_create(threads, n, &f));
    return f;
}

static void check_factor(qb_threads *threads, int64_t n) {
    float *a = spd_new(n);
    double *want;
    assert_ok(qb_alloc((size_t)(n * n), sizeof *want, &want));
    for (int64_t i = 0; i < n * n; i++) want[i] = (double)a[i];
    bool ok = false;
    qb_factor *f = factor_new(threads, n);
    qb_cholesky_lower(f, n, a, n, &ok);
    assert_true(ok);
    /* The lower triangle by rows is the upper one by columns. */
    char upper = 'U', not_unit = 'N';
    blasint order = (blasint)n, info = -1;
    dpotrf_(&upper, &order, want, &order, &info);
    assert_int_equal(info, 0);
    double scale = sqrt((double)n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            if (j > i)
                assert_true(a[i * n + j] == 0.0f);
            else
                assert_true(fabs((double)a[i * n + j] - want[i * n + j]) < 1e-5 * scale);
        }
    qb_invert_lower(f, n, a, n);
    dtrtri_(&upper, &not_unit, &order, want, &order, &info);
    assert_int_equal(info, 0);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            if (j > i)
                assert_true(a[i * n + j] == 0.0f);
            else
                assert_true(fabs((double)a[i * n + j] - want[i * n + j]) < 2e-5 / scale);
        }
    qb_factor_free(f);
    qb_free(a), qb_free(want);
}

static void test_algebra__cholesky_and_inverse_equal_lapack(void **state) {
    (void)state;
    qb_threads *threads;
    assert_ok(qb_threads_create(2, &threads));
    /* The last are large enough for tiles, where there are such. */
    static const int64_t sizes[] = {1, 2, 17, 255, 256, 257, 511, 513, 700, 1030, 1300};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) check_factor(threads, sizes[i]);
    bool ok = false;
    qb_factor *f = factor_new(threads, 0);
    qb_cholesky_lower(f, 0, NULL, 1, &ok);
    assert_true(ok);
    qb_factor_free(f);
    qb_threads_free(threads);
}

static void test_algebra__a_bad_pivot_is_told(void **state) {
    (void)state;
    static const int64_t where[] = {0, 5, 300, 599};
    for (int nan = 0; nan < 2; nan++)
        for (size_t i = 0; i < 4; i++) {
            float *a = spd_new(600);
            a[where[i] * 601] = nan ? NAN : -1.0f;
            bool ok = true;
            qb_factor *f = factor_new(NULL, 600);
            qb_cholesky_lower(f, 600, a, 600, &ok);
            assert_false(ok);
            qb_factor_free(f);
            qb_free(a);
        }
}

static void test_algebra__same_bits_for_any_thread_count(void **state) {
    (void)state;
    enum { N = 800 };
    float *first = NULL;
    for (int count = 1; count <= 3; count++) {
        qb_threads *threads;
        assert_ok(qb_threads_create(count, &threads));
        noise_state = 7;
        float *a = spd_new(N), *b = noise_new(N * N), *c = noise_new(N * N);
        bool ok;
        qb_factor *f = factor_new(threads, N);
        qb_cholesky_lower(f, N, a, N, &ok);
        qb_invert_lower(f, N, a, N);
        qb_factor_free(f);
        qb_gemm(threads, false, true, N, N, N, 1.0f, a, N, b, N, 1.0f, c, N);
        if (first)
            assert_memory_equal(first, c, N * N * sizeof *c);
        else
            first = c, c = NULL;
        qb_free(a), qb_free(b), qb_free(c);
        qb_threads_free(threads);
    }
    qb_free(first);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_algebra__gemm_equals_the_float64_sum),
        cmocka_unit_test(test_algebra__cholesky_and_inverse_equal_lapack),
        cmocka_unit_test(test_algebra__a_bad_pivot_is_told),
        cmocka_unit_test(test_algebra__same_bits_for_any_thread_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
