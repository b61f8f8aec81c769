/* Dense rows by bfloat16 tiles (kernels/cpu/dense_tiles.c), over tiles in plain C: against float64 sums
   within the bound that is stated there, and float32's infinities and what is no number. */
#include "tests/kernels_support.h"
#include "tests/weight_support.h"

#if defined(__x86_64__)
#include "tests/tile_sets.h"
#include "tests/tiles_emulated.h"

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/products.h"
#include "kernels/dtype.h"

/* Under sanitizers one shape of each kind. */
#if defined(QB_SANITIZED)
enum { WHOLE = false };
#else
enum { WHOLE = true };
#endif

/* What the manual says of an instruction's single steps, in numbers that show it: a is 1 row of 2 pairs. */
static void test_tiles__bf16_products_are_the_manuals(void **state) {
    (void)state;
    static const struct {
        float sum;
        uint16_t a[4], b[4]; /* pairs */
        float want;
    } cases[] = {
        /* 1 + (2^-24 + 2^-24): even and odd are added up first; one after the other they would be lost */
        {1, {0x3f80, 0x3f80, 0, 0}, {0x3380, 0x3380, 0, 0}, 1 + 0x1p-23f},
        /* over k even sums stay apart from odd ones: (1 + 2^-24 to even: 1), (2^-24 + 2^-24), together */
        {0, {0x3f80, 0x3f80, 0x3f80, 0x3f80}, {0x3f80, 0x3380, 0x3380, 0x3380}, 1 + 0x1p-23f},
        /* operands below 2^-126 are zero, the sum too */
        {0, {0x0040, 0, 0, 0}, {0x7f00, 0, 0, 0}, 0},
        {0x1p-127f, {0, 0, 0, 0}, {0, 0, 0, 0}, 0},
        /* so are results: 2^-100 2^-30 twice, then 2^-126 less 2^-127 */
        {0, {0x0d80, 0, 0x0d80, 0}, {0x3080, 0, 0x3080, 0}, 0},
        {0x1p-126f, {0x0080, 0, 0, 0}, {0xbf00, 0, 0, 0}, 0x1p-126f},
        {0x1p-126f, {0x0080, 0, 0x0080, 0}, {0x3fc0, 0, 0xbfc0, 0}, 0x1p-126f},
        {0, {0x7f80, 0, 0, 0}, {0xbf80, 0, 0, 0}, -INFINITY},
        {0, {0x7f80, 0, 0, 0}, {0, 0, 0, 0}, NAN},
    };
    const qb_tile_shapes shapes = {.palette = 1, .row_bytes = {4, 8, 4}, .rows = {1, 1, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float sum = cases[i].sum;
        TILES_BEGIN(&shapes);
        TILE_LOAD(0, &sum, 4);
        TILE_LOAD(1, cases[i].a, 8);
        TILE_LOAD(2, cases[i].b, 4);
        TILE_DOT_BF16(0, 1, 2);
        TILE_STORE(0, &sum, 4);
        TILES_END();
        if (isnan(cases[i].want) ? !isnan(sum) : sum != cases[i].want)
            fail_msg("case %zu: %a, not %a", i, (double)sum, (double)cases[i].want);
    }
}

/* y[T, rows] of a device with these loops. */
static float *product(const qb_simd *simd, int threads, qb_dtype dtype, const void *w, int64_t rows,
                      int64_t cols, const float *x, int64_t T) {
    qb_device *dev = device_open("avx512", threads);
    cpu_of(dev)->simd = simd;
    qb_weight weight = {.rows = rows, .cols = cols, .dtype = dtype, .dense = w};
    qb_matrix m;
    assert_ok(qb_backend_cpu.matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    float *y = noise_new(T * rows + 1), guard = y[T * rows];
    assert_ok(qb_backend_cpu.matmul(dev, y, x, T, &m));
    assert_true(y[T * rows] == guard);
    qb_backend_cpu.matrix_free(dev, &m);
    assert_no_memory(dev);
    qb_backend_cpu.close(dev);
    return y;
}

/* The same with a quantized weight; left as it was. */
static float *packed_product(const qb_simd *simd, int threads, const qb_qweight *q, const float *x, int64_t T,
                             bool *in_tiles) {
    qb_device *dev = device_open("avx512", threads);
    cpu_of(dev)->simd = simd;
    qb_qweight copy = *q;
    qb_weight weight = {.rows = q->rows, .cols = q->cols, .packed = &copy};
    qb_matrix m;
    assert_ok(qb_backend_cpu.matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    *in_tiles = T >= qb_cpu_packed_tiles_least(m.packed);
    float *y = noise_new(T * q->rows + 1), guard = y[T * q->rows];
    assert_ok(qb_backend_cpu.matmul(dev, y, x, T, &m));
    assert_true(y[T * q->rows] == guard);
    qb_backend_cpu.matrix_free(dev, &m);
    assert_no_memory(dev);
    qb_backend_cpu.close(dev);
    return y;
}

/* rows x cols of noise in this type, on an odd element, as a mapping may give it; w: their values. */
static uint8_t *elements_new(qb_dtype dtype, int64_t rows, int64_t cols, float *w, const void **view) {
    uint8_t *bytes;
    assert_ok(qb_alloc((size_t)(rows * cols + 1), 4, &bytes));
    *view = bytes + qb_dtype_bytes(dtype);
    assert_ok(qb_from_f32(dtype, w, rows * cols, bytes + qb_dtype_bytes(dtype)));
    assert_ok(qb_to_f32(dtype, *view, rows * cols, w));
    return bytes;
}

static const qb_dtype types[] = {QB_DTYPE_BF16, QB_DTYPE_F16, QB_DTYPE_F32};
enum { TYPES = 3 };

/* Rounded sums of a result, and what is left out, in 2^-24 of the products' sizes. */
static double roundings(qb_dtype dtype, int64_t cols) {
    const int products = dtype == QB_DTYPE_BF16 ? 3 : dtype == QB_DTYPE_F16 ? 5 : 6;
    return (double)(18 + products * ((cols + 31) / 32));
}

static void check(qb_dtype dtype, int64_t rows, int64_t cols, int64_t T) {
    float *w = noise_new(rows * cols), *x = noise_new(T * cols);
    for (int64_t i = 0; i < T * cols; i += 97) x[i] *= 1000; /* outliers, as hidden states have them */
    const void *view;
    uint8_t *bytes = elements_new(dtype, rows, cols, w, &view);
    float *y = product(&with_tiles, 2, dtype, view, rows, cols, x, T);
    for (int64_t t = 0; t < T; t++)
        for (int64_t r = 0; r < rows; r++) {
            double want = 0, size = 0;
            for (int64_t c = 0; c < cols; c++) {
                double term = (double)x[t * cols + c] * (double)w[r * cols + c];
                want += term, size += fabs(term);
            }
            double off = fabs((double)y[t * rows + r] - want);
            if (!(off <= 1.001 * roundings(dtype, cols) * 0x1p-24 * size))
                fail_msg("%s [%lld, %lld], %lld tokens: row %lld of token %lld is off by %g of %g",
                         qb_dtype_name(dtype), (long long)rows, (long long)cols, (long long)T, (long long)r,
                         (long long)t, off, size);
        }
    qb_free(w), qb_free(x), qb_free(bytes), qb_free(y);
}

static void test_tiles__within_float32s_rounding(void **state) {
    (void)state;
    if (!plain) skip();
    static const int64_t shapes[][2] = {{1, 1},     {5, 31},  {16, 32},  {17, 33},
                                        {129, 172}, {40, 64}, {70, 1100}};
    static const int64_t tokens[] = {16, 24, 25, 31, 32, 33, 100};
    for (int d = 0; d < TYPES; d++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (size_t k = WHOLE ? 0 : 4; k < (WHOLE ? sizeof tokens / sizeof *tokens : 5); k++)
                check(types[d], shapes[i][0], shapes[i][1], tokens[k]);
        if (WHOLE)
            check(types[d], 35, 70, 512), check(types[d], 300, 40, 1100), check(types[d], 1060, 40, 65);
        check(types[d], 35, 70, 513);
    }
}

/* Neither threads nor other tokens of a call change a bit; fewer tokens keep to the loops. */
static void test_tiles__same_bits(void **state) {
    (void)state;
    if (!plain) skip();
    enum { ROWS = 150, COLS = 176, T = WHOLE ? 600 : 90 };
    float *x = noise_new(T * COLS);
    for (int i = 0; i < TYPES; i++) {
        float *w = noise_new(ROWS * COLS);
        const void *view;
        uint8_t *bytes = elements_new(types[i], ROWS, COLS, w, &view);
        float *all = product(&with_tiles, 1, types[i], view, ROWS, COLS, x, T);
        float *loops = product(plain, 2, types[i], view, ROWS, COLS, x, T);
        assert_memory_not_equal(all, loops, T * ROWS * sizeof *all);
        for (int threads = 2; threads <= 3; threads++) {
            float *y = product(&with_tiles, threads, types[i], view, ROWS, COLS, x, T);
            assert_memory_equal(all, y, T * ROWS * sizeof *y);
            qb_free(y);
        }
        for (int t = 0; t + 45 <= T; t += 45) {
            float *y = product(&with_tiles, 2, types[i], view, ROWS, COLS, x + t * COLS, 45);
            assert_memory_equal(all + t * ROWS, y, 45 * ROWS * sizeof *y);
            qb_free(y);
        }
        for (int few = 1; few < qb_cpu_tiles_least(types[i]); few++) {
            float *y = product(&with_tiles, 2, types[i], view, ROWS, COLS, x, few);
            float *want = product(plain, 2, types[i], view, ROWS, COLS, x, few);
            assert_memory_equal(want, y, (size_t)few * ROWS * sizeof *y);
            qb_free(y), qb_free(want);
        }
        qb_free(w), qb_free(bytes), qb_free(all), qb_free(loops);
    }
    qb_free(x);
}

/* The processor's own products are those of the manual, to the bit. */
static void test_tiles__own_tiles_give_the_same_bits(void **state) {
    (void)state;
    if (!own) skip();
    enum { ROWS = 150, COLS = 1176, T = 70 };
    float *x = noise_new(T * COLS);
    for (int64_t i = 0; i < T * COLS; i += 97) x[i] *= 1000;
    x[3 * COLS + 5] = 0x1p-130f, x[5] = INFINITY;
    for (int d = 0; d < TYPES; d++) {
        float *w = noise_new(ROWS * COLS);
        const void *view;
        uint8_t *bytes = elements_new(types[d], ROWS, COLS, w, &view);
        float *told = product(&with_tiles, 1, types[d], view, ROWS, COLS, x, T);
        float *got = product(own, 2, types[d], view, ROWS, COLS, x, T);
        assert_memory_equal(got, told, T * ROWS * sizeof *got);
        qb_free(w), qb_free(bytes), qb_free(told), qb_free(got);
    }
    qb_free(x);
}

/* One activation or weight at the ends of the range: what is finite, infinite or no number in float32 is so
   here, and finite results are within the bound. */
enum { END_ROWS = 140, END_COLS = 70, END_TOKENS = 20 };
static void check_end(qb_dtype dtype, float end, bool activation, bool weight, int col) {
    enum { ROW = 131, TOKEN = 17 };
    float *w = noise_new(END_ROWS * END_COLS), *x = noise_new(END_TOKENS * END_COLS);
    if (activation) x[TOKEN * END_COLS + col] = end;
    for (int r = 0; r < 32; r++) w[r * END_COLS + col] = 0; /* times infinity */
    if (weight) w[ROW * END_COLS + col] = end;
    for (int c = 0; c < END_COLS; c++) /* bfloat16 already: its lower parts are zero */
        if (c % 3 == 0) x[c] = 1;
    const void *view;
    uint8_t *bytes = elements_new(dtype, END_ROWS, END_COLS, w, &view);
    if (dtype == QB_DTYPE_BF16 && weight && fabsf(end) == 0x1.fffffep127f) /* the type's largest */
        memcpy(bytes + 2 + 2 * (ROW * END_COLS + col), &(uint16_t){0x7f7f}, 2),
            w[ROW * END_COLS + col] = 0x1.fep127f;
    float *y = product(&with_tiles, 2, dtype, view, END_ROWS, END_COLS, x, END_TOKENS);
    float *f32 = product(plain, 2, dtype, view, END_ROWS, END_COLS, x, END_TOKENS);
    for (int64_t i = 0; i < END_TOKENS * END_ROWS; i++) {
        double want = 0, size = 0;
        for (int c = 0; c < END_COLS; c++) {
            double term = (double)x[i / END_ROWS * END_COLS + c] * (double)w[i % END_ROWS * END_COLS + c];
            want += term, size += fabs(term);
        }
        bool same = isnan(f32[i]) ? isnan(y[i]) : isinf(f32[i]) ? y[i] == f32[i] : isfinite(y[i]);
        double least = 1.001 * roundings(dtype, END_COLS) * 0x1p-24 * size + END_COLS * 0x1p-124;
        if (!same || (isfinite(f32[i]) && fabs((double)y[i] - want) > least))
            fail_msg("%a as %s of %s, row %lld of token %lld: %a, in float32 %a", (double)end,
                     !weight      ? "activation"
                     : activation ? "both"
                                  : "weight",
                     qb_dtype_name(dtype), (long long)(i % END_ROWS), (long long)(i / END_ROWS), (double)y[i],
                     (double)f32[i]);
    }
    qb_free(w), qb_free(x), qb_free(bytes), qb_free(y), qb_free(f32);
}

static void test_tiles__ends_of_the_range(void **state) {
    (void)state;
    if (!plain) skip();
    float ends[] = {
        0,         0,          NAN,       INFINITY,  -INFINITY, 0x1.fffffep127f, -0x1.fffffep127f,
        0x1p-126f, -0x1p-130f, 0x1p-149f, 0x1p-100f, 0x1p-120f, 0x1.000002p0f,   -0x1.abcdefp-118f,
        0x1p-24f,  65504.0f};
    memcpy(ends, (const uint32_t[]){0x7f800001, 0x7fffffff}, 8); /* no numbers by their lower halves alone */
    for (int d = 0; d < TYPES; d++)
        for (size_t e = 0; e < sizeof ends / sizeof *ends; e++)
            for (int where = WHOLE ? 1 : 3; where < 4; where++)
                for (int col = 50; col < 70; col += 18) /* in either half of a word */
                    check_end(types[d], ends[e], where & 1, where & 2, col);
}

/* h += X^T X of its lower triangle alone; what float32 finds no number, or infinite, is so here. */
static void check_hessian(int64_t T, int64_t n, int threads, float end) {
    float *x = noise_new(T * n), *h = noise_new(n * n), *f32 = noise_new(n * n), *before = noise_new(n * n);
    for (int64_t i = 0; i < T * n; i += 97) x[i] *= 100;
    if (end != 0) x[(T - 1) * n + n / 2] = end;
    memcpy(f32, h, (size_t)(n * n) * 4), memcpy(before, h, (size_t)(n * n) * 4);
    const qb_simd *const sets[] = {plain, &with_tiles};
    for (int i = 0; i < 2; i++) {
        qb_device *dev = device_open("avx512", threads);
        cpu_of(dev)->simd = sets[i];
        assert_ok(qb_backend_cpu.hessian(dev, i ? h : f32, x, T, n));
        assert_no_memory(dev);
        qb_backend_cpu.close(dev);
    }
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < n; c++) {
            const float got = h[r * n + c], want = f32[r * n + c];
            double sum = (double)before[r * n + c], size = fabs(sum);
            if (c > r) {
                assert_true(got == before[r * n + c]);
                continue;
            }
            for (int64_t t = 0; t < T; t++) {
                const double term = (double)x[t * n + r] * (double)x[t * n + c];
                sum += term, size += fabs(term);
            }
            const bool same = isnan(want) ? isnan(got) : isinf(want) ? got == want : isfinite(got);
            const double most = 1.001 * (roundings(QB_DTYPE_F32, T) + 2) * 0x1p-24 * size;
            if (!same || (isfinite(want) && fabs((double)got - sum) > most))
                fail_msg("%lld tokens, %lld wide: [%lld, %lld] is %.9g, in float32 %.9g, in float64 %.9g",
                         (long long)T, (long long)n, (long long)r, (long long)c, (double)got, (double)want,
                         sum);
        }
    qb_free(x), qb_free(h), qb_free(f32), qb_free(before);
}

static void test_tiles__hessians(void **state) {
    (void)state;
    if (!plain) skip();
    check_hessian(32, 1, 1, 0), check_hessian(33, 33, 2, 0), check_hessian(70, 150, 2, 0);
    check_hessian(160, 300, 3, 0), check_hessian(2100, 40, 2, 0);
    if (WHOLE) check_hessian(40, 1200, 2, 0);
    check_hessian(64, 140, 2, INFINITY), check_hessian(64, 140, 2, NAN);
    check_hessian(64, 140, 2, 0x1.fffffep127f);
}

/* What lies behind a block, of `rows` rows; what float32 finds no number, or infinite, is so here. */
static void check_updates(const qb_bf16_tiles *tiles, int64_t n, int64_t block, int64_t rows, float end) {
    float *u = noise_new(n * n), *a = noise_new(block * rows), *before = noise_new(rows * n);
    if (end != 0) a[rows + rows / 2] = end;
    float *y = noise_new(rows * n), *again = noise_new(rows * n);
    for (int threads = 1; threads <= 2; threads++) {
        qb_device *dev = device_open(NULL, threads);
        qb_updates *q;
        float *to = threads == 1 ? y : again;
        memcpy(to, before, (size_t)(rows * n) * sizeof *y);
        assert_ok(qb_updates_create_by(tiles, dev->threads, u, n, block, rows + 3, &q));
        for (int64_t b = 0; (b + 1) * block < n; b++)
            qb_updates_add(q, threads - 1, b, a, rows, rows, to + (b + 1) * block, n);
        qb_updates_free(q);
        qb_backend_cpu.close(dev);
    }
    assert_memory_equal(again, y, (size_t)(rows * n) * sizeof *y);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < n; c++) {
            double want = before[r * n + c], size = fabs(want);
            for (int64_t k = 0; k < c / block * block; k++) {
                const double term = (double)a[k % block * rows + r] * (double)u[k * n + c];
                want += term, size += fabs(term);
            }
            const double most = roundings(QB_DTYPE_F32, block) * (double)(c / block + 1) * 0x1p-24 * size;
            const float got = y[r * n + c];
            if (isfinite(want) ? !(fabs((double)got - want) <= most) : isfinite(got))
                fail_msg("%lld wide, blocks of %lld, %lld rows: [%lld, %lld] is %.9g, in float64 %.9g",
                         (long long)n, (long long)block, (long long)rows, (long long)r, (long long)c,
                         (double)got, want);
        }
    qb_free(u), qb_free(a), qb_free(before), qb_free(y), qb_free(again);
}

static void test_tiles__updates_behind_blocks(void **state) {
    (void)state;
    for (int i = 0; i < (plain ? 2 : 1); i++) {
        const qb_bf16_tiles *tiles = i ? with_tiles.bf16 : NULL;
        check_updates(tiles, 300, 128, 33, 0), check_updates(tiles, 200, 64, 64, 0);
        check_updates(tiles, 150, 40, 100, 0), check_updates(tiles, 128, 128, 40, 0);
        check_updates(tiles, 90, 16, 40, 0), check_updates(tiles, 100, 32, 5, 0);
        check_updates(tiles, 161, 32, 40, INFINITY), check_updates(tiles, 161, 32, 40, NAN);
    }
}

/* Sums of two sets at once against float64's, whatever the threads. */
static void test_tiles__quadratic_forms(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {3, 40}, {17, 128}, {33, 200}, {20, 513}}; /* rows, n */
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int tiles = 0; tiles < (plain ? 2 : 1); tiles++) {
            const int64_t rows = shapes[s][0], n = shapes[s][1];
            float *d = noise_new(2 * rows * n), *h = noise_new(n * n);
            double got[2], again[2];
            for (int64_t i = 0; i < n; i++)
                for (int64_t k = 0; k < i; k++) h[k * n + i] = h[i * n + k];
            for (int threads = 1; threads <= 3; threads++) {
                qb_device *dev = device_open(NULL, threads);
                qb_quadratic *q;
                assert_ok(qb_quadratic_create_by(tiles ? with_tiles.bf16 : NULL, dev->threads, n,
                                                 2 * rows + 5, 2, &q));
                qb_quadratic_forms(q, d, rows, 2, h, threads == 1 ? got : again);
                if (threads > 1) assert_memory_equal(got, again, sizeof got);
                qb_quadratic_free(q);
                qb_backend_cpu.close(dev);
            }
            for (int set = 0; set < 2; set++) {
                double want = 0, size = 0;
                for (int64_t r = set * rows; r < (set + 1) * rows; r++)
                    for (int64_t i = 0; i < n; i++)
                        for (int64_t k = 0; k < n; k++) {
                            const double term =
                                (double)d[r * n + i] * (double)h[i * n + k] * (double)d[r * n + k];
                            want += term, size += fabs(term);
                        }
                const double cut = tiles ? 0x1p-17 : 0; /* two numbers of a product keep 17 bits */
                if (!(fabs(got[set] - want) <= (2 * roundings(QB_DTYPE_F32, n) * 0x1p-24 + cut) * size))
                    fail_msg("%lld rows of %lld, %s: %.12g, not %.12g", (long long)rows, (long long)n,
                             tiles ? "tiles" : "SGEMM", got[set], want);
            }
            qb_free(d), qb_free(h);
        }
}

/* Of n columns, n I + noise: its factor and then the factor's inverse. */
static float *factored(const qb_bf16_tiles *tiles, int threads, int64_t n) {
    qb_device *dev = device_open(NULL, threads);
    float *a = noise_new(n * n);
    qb_factor *f;
    bool ok;
    for (int64_t i = 0; i < n; i++) {
        a[i * n + i] += (float)n / 8;
        for (int64_t k = i + 1; k < n; k++) a[i * n + k] = 0;
    }
    assert_ok(qb_factor_create_by(tiles, 64, dev->threads, n, &f));
    qb_cholesky_lower(f, n, a, n, &ok);
    assert_true(ok);
    qb_invert_lower(f, n, a, n);
    qb_factor_free(f);
    qb_backend_cpu.close(dev);
    return a;
}

/* Blocks of a factor and of its inverse by tiles against OpenBLAS' (test_kernels_algebra.c holds that to
   LAPACK in float64), with any threads the same bits. */
static void test_tiles__factors(void **state) {
    (void)state;
    if (!plain) skip();
    static const int64_t sizes[] = {330, 600};
    for (size_t s = 0; s < (WHOLE ? sizeof sizes / sizeof *sizes : 1); s++) {
        const int64_t n = sizes[s];
        const uint32_t seed = noise_state;
        float *want = factored(NULL, 2, n), *got[3];
        for (int t = 0; t < 3; t++) {
            noise_state = seed;
            got[t] = factored(with_tiles.bf16, t + 1, n);
            assert_memory_equal(got[0], got[t], (size_t)(n * n) * sizeof *want);
        }
        int differ = 0;
        for (int64_t i = 0; i < n * n; i++) {
            const double size = 8 / (double)n;
            differ += want[i] != got[0][i];
            if (!(fabs((double)want[i] - (double)got[0][i]) <= 1e-5 * size))
                fail_msg("n = %lld, [%lld, %lld]: %g, not %g", (long long)n, (long long)(i / n),
                         (long long)(i % n), (double)got[0][i], (double)want[i]);
        }
        assert_true(differ > 0); /* tiles were used */
        for (int t = 0; t < 3; t++) qb_free(got[t]);
        qb_free(want);
    }
}

/* Quantized rows: the sums of the dequantized weights within float32's rounding, of every layout of groups,
   with any threads the same bits, and what float32's loops find no number or infinite. */
static const format formats[] = {
    {.name = "int4 g128", .bits = 4, .group = 128},
    {.name = "int4 g32 sym", .bits = 4, .group = 32, .symmetric = true},
    {.name = "int2 g64", .bits = 2, .group = 64},
    {.name = "int3 g96", .bits = 3, .group = 96},
    {.name = "int8 row", .bits = 8},
    {.name = "int8 g160 sym", .bits = 8, .group = 160, .symmetric = true},
    {.name = "int4 g64 act-order", .bits = 4, .group = 64, .act_order = true},
    {.name = "int4 g24", .bits = 4, .group = 24},
    {.name = "int4 g32 offsets", .bits = 4, .group = 32, .offsets = true},
    {.name = "NF4", .codebook = QB_CODEBOOK_NF4, .group = 64},
    {.name = "NF4 double", .codebook = QB_CODEBOOK_NF4, .group = 64, .double_quant = true},
    {.name = "IQ4_NL", .codebook = QB_CODEBOOK_IQ4_NL, .group = 32},
    {.name = "MXFP4", .codebook = QB_CODEBOOK_E2M1, .group = 32},
    {.name = "int8 g32 offsets", .bits = 8, .group = 32, .offsets = true},
};
static const format k_types[] = {
    {.name = "Q2_K", .bits = 2, .group = 16, .offsets = true, .factored = true},
    {.name = "Q3_K", .bits = 3, .group = 16, .symmetric = true, .any_sign = true, .factored = true},
    {.name = "Q4_K", .bits = 4, .group = 32, .offsets = true, .factored = true},
    {.name = "Q5_K", .bits = 5, .group = 32, .offsets = true, .factored = true},
    {.name = "Q6_K", .bits = 6, .group = 16, .symmetric = true, .any_sign = true, .factored = true},
};

static void check_packed(const format *f, int64_t rows, int64_t cols, int64_t T, bool by_tiles, float end) {
    qb_qweight *q = weight_new(f, rows, cols);
    float *x = noise_new(T * cols), *w = noise_new(rows * cols);
    bool tiles, loops;
    for (int64_t i = 0; i < T * cols; i += 97) x[i] *= 100;
    if (end != 0) x[(T - 1) * cols + cols / 2] = end;
    qb_qweight_dequantize(q, w);
    float *y = packed_product(&with_tiles, 1, q, x, T, &tiles),
          *f32 = packed_product(plain, 2, q, x, T, &loops);
    assert_int_equal(tiles, by_tiles);
    for (int threads = 2; threads <= (WHOLE ? 3 : 2); threads++) {
        float *again = packed_product(&with_tiles, threads, q, x, T, &tiles);
        assert_memory_equal(again, y, (size_t)(T * rows) * sizeof *y);
        qb_free(again);
    }
    for (int64_t i = 0; i < T * rows; i++) {
        double want = 0, size = 0;
        const float *row = w + i % rows * cols, *of = x + i / rows * cols;
        for (int64_t c = 0; c < cols; c++)
            want += (double)row[c] * (double)of[c], size += fabs((double)row[c] * (double)of[c]);
        /* values, and zero points or offsets, are larger than their differences */
        const double most =
            (by_tiles && !f->offsets ? 1.5 : 40) * roundings(QB_DTYPE_F32, cols) * 0x1p-24 * size;
        const bool odd = !isfinite(want) ? isfinite(y[i]) : !isfinite(y[i]);
        if (odd || (isfinite(want) && fabs((double)y[i] - want) > most))
            fail_msg("%s [%lld, %lld], %lld tokens: row %lld of token %lld is %.9g, by loops %.9g, in "
                     "float64 %.9g",
                     f->name, (long long)rows, (long long)cols, (long long)T, (long long)(i % rows),
                     (long long)(i / rows), (double)y[i], (double)f32[i], want);
    }
    qb_qweight_free(q);
    qb_free(q), qb_free(x), qb_free(w), qb_free(y), qb_free(f32);
}

static void test_tiles__quantized_rows(void **state) {
    (void)state;
    if (!plain) skip();
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const format *f = &formats[i];
        const bool suited = f->group % 32 == 0;
        const bool exact = f->bits || f->codebook != QB_CODEBOOK_NF4;
        check_packed(f, 35, 384, 33, suited && exact, 0);
        if (WHOLE) check_packed(f, 150, 352, 40, suited && exact, 0);
        if (WHOLE || !exact) check_packed(f, 16, 256, 300, suited, 0);
        check_packed(f, 35, 192, exact ? 37 : 260, suited, INFINITY);
    }
    for (size_t i = 0; i < sizeof k_types / sizeof *k_types; i++) {
        const format *f = &k_types[i];
        check_packed(f, 35, 256, 70, true, 0);
        check_packed(f, 16, 256, 33, f->bits < 4, 0); /* the others are two parts */
        if (WHOLE) check_packed(f, 150, 1280, 70, true, 0);
        check_packed(f, 35, 512, 64, true, INFINITY);
    }
    if (WHOLE)
        check_packed(&formats[0], 290, 640, 530, true, 0), check_packed(&formats[0], 1060, 64, 65, true, 0);
}

/* A group that no column is in, as act-order's numbers may leave one. */
static void test_tiles__groups_without_columns(void **state) {
    (void)state;
    if (!plain) skip();
    enum { ROWS = 20, COLS = 128, T = 70 };
    const format f = {.name = "int4 g32", .bits = 4, .group = 32, .act_order = true};
    for (int empty = 0; empty < 4; empty += 3) {
        qb_qweight *q = weight_new(&f, ROWS, COLS);
        for (int c = 0; c < COLS; c++)
            if (q->g_idx[c] == empty) q->g_idx[c] = 1;
        float *x = noise_new(T * COLS);
        bool tiles;
        float *want = packed_product(plain, 1, q, x, T, &tiles);
        float *y = packed_product(&with_tiles, 1, q, x, T, &tiles);
        assert_false(tiles);
        for (int64_t i = 0; i < T * ROWS; i++)
            assert_true(fabsf(y[i] - want[i]) <= 1e-4f * (1 + fabsf(want[i])));
        qb_qweight_free(q);
        qb_free(q), qb_free(x), qb_free(y), qb_free(want);
    }
}

/* Asked for the fastest a product has 16-bit activations, or with many tokens float32: the bits of what it is
   said to have. Groups of 32 columns alone change, whose values are too large for sums in whole numbers. */
static void test_tiles__the_fastest_may_be_float32(void **state) {
    (void)state;
    enum { ROWS = 20, COLS = 64 };
    static const qb_activations modes[] = {QB_ACTIVATIONS_F32, QB_ACTIVATIONS_I16, QB_ACTIVATIONS_FASTEST};
    static const format of[] = {{.name = "int4 g32", .bits = 4, .group = 32, .symmetric = true},
                                {.name = "iq4_nl", .codebook = QB_CODEBOOK_IQ4_NL, .group = 32},
                                {.name = "int4 g64", .bits = 4, .group = 64, .symmetric = true},
                                {.name = "nf4 b32", .codebook = QB_CODEBOOK_NF4, .group = 32}};
    if (!plain) skip();
    for (int i = 0; i < 4; i++)
        for (int64_t T = 126; T < 130; T++) {
            qb_qweight *q = weight_new(&of[i], ROWS, COLS);
            float *x = noise_new(T * COLS), *y[3];
            bool float32 = false, fast = false;
            for (int m = 0; m < 3; m++) {
                qb_device *dev = device_open("avx512", 1);
                cpu_of(dev)->simd = &with_tiles;
                qb_qweight copy = *q;
                qb_weight weight = {.rows = ROWS, .cols = COLS, .packed = &copy};
                qb_activations got;
                qb_matrix w;
                assert_ok(dev->backend->set_activations(dev, modes[m], &got));
                assert_ok(dev->backend->matrix_create(dev, &weight, QB_PLACE_DEVICE, &w));
                y[m] = noise_new(T * ROWS);
                assert_ok(dev->backend->matmul(dev, y[m], x, T, &w));
                assert_int_equal(w.float32_tokens, i == 1 ? 128 : 0);
                float32 = got == QB_ACTIVATIONS_F32 || (w.float32_tokens && T >= w.float32_tokens);
                fast = w.integer >> QB_ACTIVATIONS_I16 & 1;
                dev->backend->matrix_free(dev, &w);
                dev->backend->close(dev);
            }
            if (fast) assert_memory_not_equal(y[0], y[1], (size_t)T * ROWS * sizeof **y);
            assert_memory_equal(y[2], y[float32 ? 0 : 1], (size_t)T * ROWS * sizeof **y);
            for (int m = 0; m < 3; m++) qb_free(y[m]);
            qb_free(x);
            qb_qweight_free(q);
            qb_free(q);
        }
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiles__bf16_products_are_the_manuals),
        cmocka_unit_test(test_tiles__within_float32s_rounding),
        cmocka_unit_test(test_tiles__same_bits),
        cmocka_unit_test(test_tiles__own_tiles_give_the_same_bits),
        cmocka_unit_test(test_tiles__ends_of_the_range),
        cmocka_unit_test(test_tiles__quantized_rows),
        cmocka_unit_test(test_tiles__groups_without_columns),
        cmocka_unit_test(test_tiles__the_fastest_may_be_float32),
        cmocka_unit_test(test_tiles__hessians),
        cmocka_unit_test(test_tiles__updates_behind_blocks),
        cmocka_unit_test(test_tiles__quadratic_forms),
        cmocka_unit_test(test_tiles__factors),
    };
    return cmocka_run_group_tests(tests, find_sets, NULL);
}
#else
int main(void) {
    return 0;
}
#endif
