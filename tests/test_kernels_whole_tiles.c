/* What tiles of bfloat16 do beside float32 products (test_kernels_tiles.c), over tiles in plain C: products
   in whole numbers of short groups, to the bit those of the other sets, and attention of many queries. */
#include "tests/kernels_support.h"
#include "tests/weight_support.h"

#if defined(__x86_64__)
#include "tests/tile_sets.h"

#include "kernels/cpu/products.h"

/* y[T, rows] with activations of this mode; whether tiles have them in whole numbers. */
static float *product(const qb_simd *simd, int threads, qb_activations mode, const qb_qweight *q,
                      const float *x, int64_t T, bool *in_tiles) {
    qb_device *dev = device_open("avx512", threads);
    cpu_of(dev)->simd = simd;
    qb_qweight copy = *q;
    qb_weight weight = {.rows = q->rows, .cols = q->cols, .packed = &copy};
    qb_matrix m;
    qb_activations got;
    assert_ok(dev->backend->set_activations(dev, mode, &got));
    assert_ok(dev->backend->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    *in_tiles = (m.integer >> mode & 1) && T >= qb_cpu_whole_tiles_least(mode == QB_ACTIVATIONS_I8) &&
                qb_cpu_packed_whole_tiles(cpu_of(dev), m.packed, mode == QB_ACTIVATIONS_I8);
    float *y = noise_new(T * q->rows + 1), guard = y[T * q->rows];
    assert_ok(dev->backend->matmul(dev, y, x, T, &m));
    assert_true(y[T * q->rows] == guard);
    dev->backend->matrix_free(dev, &m);
    assert_no_memory(dev);
    dev->backend->close(dev);
    return y;
}

/* Numbers of any size, so that what is rounded first shows; `end` in the last token, or 0. */
static float *activations_new(int64_t T, int64_t cols, float end) {
    float *x = noise_new(T * cols);
    for (int64_t i = 0; i < T * cols; i += 97) x[i] *= 100;
    for (int64_t i = 0; i < 32 && i < cols; i++) x[cols + i] = 0; /* a group of zeros */
    if (end != 0) x[(T - 1) * cols + cols / 2] = end;
    return x;
}

static void check_whole(const format *f, qb_activations mode, int64_t rows, int64_t cols, int64_t T,
                        bool by_tiles, float end) {
    qb_qweight *q = weight_new(f, rows, cols);
    float *x = activations_new(T, cols, end);
    bool tiles, not_there;
    float *want = product(plain, 2, mode, q, x, T, &not_there);
    assert_false(not_there);
    const qb_simd *const sets[] = {&with_tiles, own};
    for (int s = 0; s < 2 && sets[s]; s++)
        for (int threads = 1; threads <= 3; threads += 2) {
            float *y = product(sets[s], threads, mode, q, x, T, &tiles);
            if (tiles != by_tiles) fail_msg("%s, %s: in tiles %d", f->name, qb_activations_name(mode), tiles);
            for (int64_t i = 0; i < T * rows; i++)
                if (isnan(want[i]) ? !isnan(y[i]) : memcmp(&y[i], &want[i], 4) != 0)
                    fail_msg("%s, %s, %lld x %lld, %lld tokens: row %lld of token %lld is %a, not %a",
                             f->name, qb_activations_name(mode), (long long)rows, (long long)cols,
                             (long long)T, (long long)(i % rows), (long long)(i / rows), (double)y[i],
                             (double)want[i]);
            qb_free(y);
        }
    qb_qweight_free(q);
    qb_free(q), qb_free(x), qb_free(want);
}

/* short_groups: that tiles have as a whole; both: sums of 16-bit activations stay whole numbers in float32
 * too. */
static const struct {
    format f;
    bool short_groups, both;
} formats[] = {
    {{.name = "int4 g32 sym", .bits = 4, .group = 32, .symmetric = true}, true, true},
    {{.name = "int4 g32", .bits = 4, .group = 32}, true, true},
    {{.name = "int4 g32 offsets", .bits = 4, .group = 32, .offsets = true}, true, true},
    {{.name = "int4 g32 act-order", .bits = 4, .group = 32, .act_order = true}, true, true},
    {{.name = "int2 g32", .bits = 2, .group = 32}, true, true},
    {{.name = "int3 g32 sym", .bits = 3, .group = 32, .symmetric = true}, true, true},
    {{.name = "int3 g32", .bits = 3, .group = 32}, true, true},
    {{.name = "int8 g32 sym", .bits = 8, .group = 32, .symmetric = true}, true, false},
    {{.name = "int8 g32", .bits = 8, .group = 32}, true, false},
    {{.name = "int8 g32 offsets", .bits = 8, .group = 32, .offsets = true}, true, false},
    {{.name = "int5 g32 offsets", .bits = 5, .group = 32, .offsets = true}, true, false},
    {{.name = "IQ4_NL", .codebook = QB_CODEBOOK_IQ4_NL, .group = 32}, true, false},
    {{.name = "MXFP4", .codebook = QB_CODEBOOK_E2M1, .group = 32}, true, true},
    {{.name = "int4 g64", .bits = 4, .group = 64}, true, false},
    {{.name = "int4 g64 sym", .bits = 4, .group = 64, .symmetric = true}, true, true},
    {{.name = "int3 g128 sym", .bits = 3, .group = 128, .symmetric = true}, true, true},
    {{.name = "int2 g128", .bits = 2, .group = 128}, true, true},
    {{.name = "int8 g128", .bits = 8, .group = 128}, true, false},
    {{.name = "NF4 b32", .codebook = QB_CODEBOOK_NF4, .group = 32}, false, false},
    {{.name = "int4 g24", .bits = 4, .group = 24}, false, false},
};

static void test_whole_tiles__have_the_bits_of_other_sets(void **state) {
    (void)state;
    if (!plain) skip();
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        for (qb_activations mode = QB_ACTIVATIONS_I16; mode <= QB_ACTIVATIONS_I8; mode++) {
            const format *f = &formats[i].f;
            const bool tiles = formats[i].short_groups && (formats[i].both || mode == QB_ACTIVATIONS_I8);
            const int64_t least = qb_cpu_whole_tiles_least(mode == QB_ACTIVATIONS_I8);
            check_whole(f, mode, 35, 192, least + 1, tiles, 0);
            /* the last group is short; blocks of codebooks then begin anywhere */
            check_whole(f, mode, 16, 80, least, tiles && f->bits, 0);
            check_whole(f, mode, 80, 64, least - 1, false, 0);
            check_whole(f, mode, 35, 64, 72, tiles, NAN), check_whole(f, mode, 35, 64, 72, tiles, INFINITY);
            check_whole(f, mode, 35, 64, 72, tiles, 0x1p-120f);
        }
    const format wide = {.name = "int4 g160", .bits = 4, .group = 160};
    check_whole(&wide, QB_ACTIVATIONS_I8, 35, 352, 70, false, 0);
    check_whole(&formats[0].f, QB_ACTIVATIONS_I8, 290, 288, 530, true, 0);
    check_whole(&formats[2].f, QB_ACTIVATIONS_I16, 70, 288, 530, true, 0);
}

/* Codes and activations at their ends: the sums that are largest. */
static void test_whole_tiles__largest_sums(void **state) {
    (void)state;
    if (!plain) skip();
    enum { ROWS = 32, COLS = 64, T = 64 };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        for (qb_activations mode = QB_ACTIVATIONS_I16; mode <= QB_ACTIVATIONS_I8; mode++)
            for (int sign = 0; sign < 2; sign++) {
                qb_qweight *q = weight_new(&formats[i].f, ROWS, COLS);
                const int top = q->bits ? (1 << q->bits) - 1 : 15;
                for (int64_t k = 0; k < ROWS * COLS; k++) q->codes[k] = (uint8_t)(sign ? 0 : top);
                for (int64_t k = 0; q->zeros && !q->symmetric && k < ROWS * q->n_groups; k++)
                    q->zeros[k] = (uint8_t)(sign ? top : 0);
                float *x;
                bool tiles, not_there;
                assert_ok(qb_alloc(T * COLS, sizeof *x, &x));
                for (int64_t k = 0; k < T * COLS; k++) /* all of them the largest, some one step less */
                    x[k] = (k / COLS % 2 ? -1.0f : 1.0f) * (k % 5 ? 32512.0f : 32511.0f);
                float *want = product(plain, 1, mode, q, x, T, &not_there);
                float *y = product(&with_tiles, 1, mode, q, x, T, &tiles);
                assert_memory_equal(y, want, T * ROWS * sizeof *y);
                qb_qweight_free(q);
                qb_free(q), qb_free(x), qb_free(y), qb_free(want);
            }
}

/* ---- attention ---- */

typedef struct {
    int64_t heads, kv_heads, dim, value_dim, seq, first, tok;
    qb_dtype dtype;
    int64_t window;
    bool sinks;
} attention_case;

/* Of one device; the same numbers each time. */
static float *attended(const attention_case *c, const qb_simd *simd, int threads, float end) {
    const uint32_t seed = noise_state;
    qb_device *dev = device_open("avx512", threads);
    cpu_of(dev)->simd = simd;
    const qb_backend *cpu = dev->backend;
    qb_kv kv = {c->dtype, 2, c->seq + 1, c->first + c->tok + 3, c->kv_heads, c->dim, c->value_dim, NULL,
                NULL,     0, NULL};
    const int64_t rows = kv.n_layers * kv.n_seq * kv.n_kv_heads * kv.capacity, all = c->first + c->tok;
    float *k = noise_new(c->seq * all * c->kv_heads * c->dim), sinks[16];
    float *v = noise_new(c->seq * all * c->kv_heads * c->value_dim);
    float *q = noise_new(c->seq * c->tok * c->heads * c->dim);
    float *out = noise_new(c->seq * c->tok * c->heads * c->value_dim);
    for (int i = 0; i < 16; i++) sinks[i] = noise();
    /* logits so far apart that weights are smaller than any normal number */
    for (int64_t i = 0; i < c->seq * c->tok * c->heads * c->dim; i++) q[i] *= 20;
    if (end != 0) q[c->dim + 1] = end;
    assert_ok(cpu->alloc(dev, QB_MEMORY_KV, rows * c->dim * 4, &kv.k));
    assert_ok(cpu->alloc(dev, QB_MEMORY_KV, rows * c->value_dim * 4, &kv.v));
    memset(kv.k, 0xff, (size_t)(rows * c->dim) * 4); /* NaN wherever nothing was stored */
    memset(kv.v, 0xff, (size_t)(rows * c->value_dim) * 4);
    assert_ok(cpu->kv_store(dev, &kv, 1, k, v, c->seq, all, 0));
    const qb_attend_attr attr = {.heads = c->heads,
                                 .kv_heads = c->kv_heads,
                                 .head_dim = c->dim,
                                 .value_dim = c->value_dim,
                                 .scale = 1.0f / sqrtf((float)c->dim),
                                 .window = c->window};
    const qb_attention a = {.q = q,
                            .out = out,
                            .n_seq = c->seq,
                            .n_tok = c->tok,
                            .first = c->first,
                            .layer = 1,
                            .kv = &kv,
                            .attr = &attr,
                            .sinks = c->sinks ? sinks : NULL};
    assert_ok(cpu->attention(dev, &a));
    cpu->free(dev, kv.k), cpu->free(dev, kv.v);
    assert_no_memory(dev);
    cpu->close(dev);
    qb_free(k), qb_free(v), qb_free(q);
    noise_state = seed;
    return out;
}

static void check_attention(const attention_case *c, float end) {
    const int64_t n = c->seq * c->tok * c->heads * c->value_dim;
    const uint32_t seed = noise_state;
    float *want = attended(c, plain, 2, end), *first = NULL;
    int differ = 0;
    for (int threads = 1; threads <= 3; threads++) {
        float *y = attended(c, &with_tiles, threads, end);
        for (int64_t i = 0; i < n; i++) {
            differ += y[i] != want[i];
            if (isfinite(want[i]) ? !(fabsf(y[i] - want[i]) <= 2e-5f) : isfinite(y[i]))
                fail_msg("%lld heads of %lld, %lld tokens behind %lld: element %lld is %g, not %g",
                         (long long)c->heads, (long long)c->dim, (long long)c->tok, (long long)c->first,
                         (long long)i, (double)y[i], (double)want[i]);
        }
        if (first) assert_memory_equal(first, y, (size_t)n * sizeof *y);
        if (first) qb_free(y);
        if (!first) first = y;
    }
    assert_true(differ > 0); /* tiles were used */
    qb_free(want), qb_free(first);
    noise_state = seed;
    (void)noise();
}

static void test_whole_tiles__attention_of_many_queries(void **state) {
    (void)state;
    if (!plain) skip();
    static const attention_case cases[] = {
        {4, 2, 64, 64, 2, 0, 70, QB_DTYPE_F32, 0, false},
        {3, 1, 80, 48, 1, 37, 65, QB_DTYPE_F16, 0, true},
        {2, 2, 33, 33, 1, 0, 129, QB_DTYPE_F32, 0, false},
        {2, 1, 64, 64, 1, 1100, 40, QB_DTYPE_F32, 300, false}, /* keys before the first that any sees */
        {8, 1, 128, 128, 1, 0, 20, QB_DTYPE_F32, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_attention(&cases[i], 0);
    check_attention(&cases[0], NAN), check_attention(&cases[0], 0x1.fffffep127f);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_tiles__have_the_bits_of_other_sets),
        cmocka_unit_test(test_whole_tiles__largest_sums),
        cmocka_unit_test(test_whole_tiles__attention_of_many_queries),
    };
    return cmocka_run_group_tests(tests, find_sets, NULL);
}
#else
int main(void) {
    return 0;
}
#endif
