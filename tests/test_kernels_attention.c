/* Attention over the cache against its definition in float64: windows, chunks, caps, slopes, sinks and values
   of another width than keys, for few queries and many, in every instruction set and for 1 to 3 threads. */
#include "tests/cpu_support.h"

typedef struct {
    int64_t heads, kv_heads, dim, value_dim, seq, first, tok;
    qb_dtype dtype;
    int64_t window, chunk;
    float softcap;
    qb_alibi alibi;
    bool sinks;
} attention_case;

static double cache_value(const attention_case *c, const void *cache, int64_t at) {
    return (double)(c->dtype == QB_DTYPE_F16 ? qb_f32_of_f16(((const uint16_t *)cache)[at])
                                             : ((const float *)cache)[at]);
}

static bool seen(const attention_case *c, int64_t query, int64_t key) {
    return key <= query && (c->window == 0 || key > query - c->window) &&
           (c->chunk == 0 || key / c->chunk == query / c->chunk);
}

static double rounded_bf16(double x) {
    return (double)qb_f32_of_bf16(qb_bf16_of_f32((float)x));
}

static double logit_of(const attention_case *c, const qb_attention *a, double product, int64_t h,
                       int64_t query, int64_t key) {
    double slope = a->slopes ? (double)a->slopes[h] : 0;
    if (c->alibi == QB_ALIBI_BF16) product += rounded_bf16(rounded_bf16(slope) * rounded_bf16((double)key));
    double s = product * (double)a->attr->scale;
    if (c->softcap > 0) s = (double)c->softcap * tanh(s / (double)c->softcap);
    if (c->alibi == QB_ALIBI_PLAIN) s += slope * (double)(key - query);
    return s;
}

static void attention_reference(const attention_case *c, const qb_attention *a, int64_t row, int64_t h,
                                double *out) {
    const qb_kv *kv = a->kv;
    int64_t seq = row / c->tok, query = c->first + row % c->tok;
    int64_t base = ((a->layer * kv->n_seq + seq) * c->kv_heads + h / (c->heads / c->kv_heads)) * kv->capacity;
    double total = a->sinks ? exp((double)a->sinks[h]) : 0, score[2048];
    for (int64_t d = 0; d < c->value_dim; d++) out[d] = 0;
    for (int64_t k = 0; k <= query; k++) {
        score[k] = 0;
        if (!seen(c, query, k)) continue;
        for (int64_t d = 0; d < c->dim; d++)
            score[k] += (double)a->q[(row * c->heads + h) * c->dim + d] *
                        cache_value(c, kv->k, (base + k) * c->dim + d);
        score[k] = exp(logit_of(c, a, score[k], h, query, k));
        total += score[k];
    }
    for (int64_t k = 0; k <= query; k++)
        for (int64_t d = 0; seen(c, query, k) && d < c->value_dim; d++)
            out[d] += score[k] / total * cache_value(c, kv->v, (base + k) * c->value_dim + d);
}

/* Keys that no row of the call sees lie where nothing may be read. */
static void poison_unseen(const attention_case *c, const qb_kv *kv, int64_t layer) {
    for (int64_t k = 0; k < c->first; k++) {
        bool any = false;
        for (int64_t t = 0; t < c->tok; t++) any = any || seen(c, c->first + t, k);
        for (int64_t i = 0; i < c->seq * c->kv_heads && !any && c->tok <= 4; i++) {
            int64_t at = (layer * kv->n_seq * c->kv_heads + i) * kv->capacity + k,
                    size = c->dtype == QB_DTYPE_F16 ? 2 : 4;
            memset((char *)kv->k + at * c->dim * size, 0xff, (size_t)(c->dim * size));
            memset((char *)kv->v + at * c->value_dim * size, 0xff, (size_t)(c->value_dim * size));
        }
    }
}

static void check_rows(const attention_case *c, const qb_attention *a) {
    double want[256];
    for (int64_t row = 0; row<c->seq * c->tok; row += c->tok> 40 ? 7 : 1)
        for (int64_t h = 0; h < c->heads; h++) {
            attention_reference(c, a, row, h, want);
            for (int64_t d = 0; d < c->value_dim; d++) {
                double got = (double)a->out[(row * c->heads + h) * c->value_dim + d];
                if (!(fabs(got - want[d]) < 4e-6))
                    fail_msg("row %d, head %d, element %d: %.8g, not %.8g", (int)row, (int)h, (int)d, got,
                             want[d]);
            }
        }
}

/* The cache is filled by two kv_store calls, so that positions and sequences are checked with the attention.
 */
static void check_attention(const attention_case *c) {
    int64_t capacity = c->first + c->tok + 3, layers = 2, layer = 1,
            outs = c->seq * c->tok * c->heads * c->value_dim;
    float *first = NULL, slopes[16], sinks[16];
    for (int i = 0; i < 16; i++) slopes[i] = (float)pow(2.0, -0.7 * (i + 1)), sinks[i] = 1.5f * noise();
    float *k0 = noise_new(c->seq * c->first * c->kv_heads * c->dim);
    float *v0 = noise_new(c->seq * c->first * c->kv_heads * c->value_dim);
    float *k1 = noise_new(c->seq * c->tok * c->kv_heads * c->dim);
    float *v1 = noise_new(c->seq * c->tok * c->kv_heads * c->value_dim);
    float *q = noise_new(c->seq * c->tok * c->heads * c->dim);
    for (int64_t i = 0; i < c->seq * c->tok * c->heads * c->dim; i++) q[i] *= 4;
    FOR_EACH_DEVICE(dev) {
        qb_kv kv = {c->dtype,     layers, c->seq + 1, capacity, c->kv_heads, c->dim,
                    c->value_dim, NULL,   NULL,       0,        NULL};
        int64_t rows = layers * kv.n_seq * c->kv_heads * capacity;
        assert_ok(cpu->alloc(dev, QB_MEMORY_KV, rows * c->dim * 4, &kv.k));
        assert_ok(cpu->alloc(dev, QB_MEMORY_KV, rows * c->value_dim * 4, &kv.v));
        memset(kv.k, 0xff, (size_t)(rows * c->dim) * 4); /* NaN wherever nothing was stored */
        memset(kv.v, 0xff, (size_t)(rows * c->value_dim) * 4);
        if (c->first) assert_ok(cpu->kv_store(dev, &kv, layer, k0, v0, c->seq, c->first, 0));
        assert_ok(cpu->kv_store(dev, &kv, layer, k1, v1, c->seq, c->tok, c->first));
        poison_unseen(c, &kv, layer);
        float *out = noise_new(outs);
        qb_attend_attr attr = {c->heads,  c->kv_heads, c->dim,     c->value_dim, 1.0f / sqrtf((float)c->dim),
                               c->window, c->chunk,    c->softcap, c->alibi};
        qb_attention a = {q,
                          out,
                          c->seq,
                          c->tok,
                          c->first,
                          layer,
                          &kv,
                          &attr,
                          c->alibi ? slopes : NULL,
                          c->sinks ? sinks : NULL};
        assert_ok(cpu->attention(dev, &a));
        if (device_i % 3 == 0) {
            check_rows(c, &a);
            qb_free(first), first = out;
        } else {
            assert_memory_equal(first, out, (size_t)outs * sizeof *out);
            qb_free(out);
        }
        cpu->free(dev, kv.k), cpu->free(dev, kv.v);
        assert_no_memory(dev);
    }
    qb_free(first), qb_free(k0), qb_free(v0), qb_free(k1), qb_free(v1), qb_free(q);
}

static void check_all(const attention_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) check_attention(&cases[i]);
}
#define CHECK_ALL(cases) check_all(cases, sizeof cases / sizeof *cases)

static void test_attention__plain(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {4, 4, 8, 8, 1, 0, 1, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {4, 2, 16, 16, 2, 9, 1, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {2, 1, 80, 80, 1, 1100, 1, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {6, 2, 128, 128, 1, 600, 2, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {2, 2, 20, 20, 3, 511, 3, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {4, 2, 8, 8, 2, 0, 70, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {2, 1, 128, 128, 1, 30, 130, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {3, 1, 80, 80, 1, 500, 65, QB_DTYPE_F32, 0, 0, 0, 0, 0},
    };
    CHECK_ALL(cases);
}

static void test_attention__windows_and_chunks(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {2, 1, 16, 16, 2, 1100, 1, QB_DTYPE_F16, 1, 0, 0, 0, 0},
        {2, 1, 16, 16, 1, 1100, 3, QB_DTYPE_F32, 78, 0, 0, 0, 0},
        {2, 2, 16, 16, 1, 1100, 4, QB_DTYPE_F32, 590, 0, 0, 0, 0},
        {2, 1, 16, 16, 1, 5, 2, QB_DTYPE_F32, 4000, 0, 0, 0, 0},
        {2, 1, 16, 16, 1, 1022, 4, QB_DTYPE_F16, 0, 512, 0, 0, 0},
        {2, 1, 16, 16, 1, 700, 2, QB_DTYPE_F16, 0, 300, 0, 0, 0},
        {2, 1, 16, 16, 2, 1000, 70, QB_DTYPE_F16, 33, 0, 0, 0, 0},
        {2, 2, 24, 24, 1, 0, 150, QB_DTYPE_F32, 1, 0, 0, 0, 0},
        {2, 1, 16, 16, 1, 600, 130, QB_DTYPE_F32, 0, 100, 0, 0, 0},
        {2, 1, 16, 16, 1, 600, 90, QB_DTYPE_F32, 40, 64, 0, 0, 0},
    };
    CHECK_ALL(cases);
}

static void test_attention__caps_slopes_and_sinks(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {4, 2, 16, 16, 1, 530, 1, QB_DTYPE_F16, 0, 0, 2.0f, 0, 0},
        {4, 2, 20, 20, 1, 3, 70, QB_DTYPE_F32, 0, 0, 2.0f, 0, 0},
        {8, 4, 16, 16, 2, 530, 2, QB_DTYPE_F32, 0, 0, 0, QB_ALIBI_PLAIN, 0},
        {8, 8, 16, 16, 1, 30, 66, QB_DTYPE_F16, 0, 0, 0, QB_ALIBI_PLAIN, 0},
        {8, 2, 16, 16, 1, 700, 3, QB_DTYPE_F32, 0, 0, 0, QB_ALIBI_BF16, 0},
        {8, 8, 16, 16, 2, 300, 70, QB_DTYPE_F32, 0, 0, 0, QB_ALIBI_BF16, 0},
        {4, 2, 16, 16, 2, 530, 2, QB_DTYPE_F16, 0, 0, 0, 0, true},
        {4, 2, 16, 16, 1, 9, 70, QB_DTYPE_F32, 0, 0, 0, 0, true},
        {8, 2, 18, 18, 1, 530, 2, QB_DTYPE_F32, 97, 0, 3.0f, QB_ALIBI_PLAIN, true},
        {8, 2, 18, 18, 1, 530, 90, QB_DTYPE_F32, 97, 0, 3.0f, QB_ALIBI_BF16, true},
    };
    CHECK_ALL(cases);
}

static void test_attention__values_of_another_width(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {4, 4, 24, 16, 2, 520, 1, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {4, 2, 24, 40, 2, 20, 3, QB_DTYPE_F32, 0, 0, 0, 0, 0},
        {4, 4, 24, 16, 2, 3, 70, QB_DTYPE_F16, 0, 0, 0, 0, 0},
        {4, 1, 16, 48, 1, 500, 70, QB_DTYPE_F32, 50, 0, 0, 0, true},
    };
    CHECK_ALL(cases);
}

static void test_attention__refuses_what_does_not_fit(void **state) {
    (void)state;
    qb_device *dev = device_open(NULL, 1);
    float cell[64] = {0};
    qb_kv kv = {QB_DTYPE_F32, 1, 1, 4, 2, 8, 8, cell, cell, 0, NULL};
    qb_attend_attr attr = {.heads = 2, .kv_heads = 2, .head_dim = 8, .value_dim = 8, .scale = 1};
    qb_attention a = {.q = cell, .out = cell, .n_seq = 1, .n_tok = 3, .first = 2, .kv = &kv, .attr = &attr};
    assert_fails(cpu->attention(dev, &a), QB_ERR_INTERNAL, "cache of 4");
    attr.heads = 3, a.n_tok = 1;
    assert_fails(cpu->attention(dev, &a), QB_ERR_UNSUPPORTED, "3 query heads");
    attr.heads = 2, attr.value_dim = 4;
    assert_fails(cpu->attention(dev, &a), QB_ERR_INTERNAL, "8 and 4 elements");
    attr.value_dim = 8, attr.alibi = QB_ALIBI_PLAIN;
    assert_fails(cpu->attention(dev, &a), QB_ERR_UNSUPPORTED, "slopes");
    kv.dtype = QB_DTYPE_BF16;
    assert_fails(cpu->attention(dev, &a), QB_ERR_UNSUPPORTED, "BF16");
    assert_fails(cpu->kv_store(dev, &kv, 0, cell, cell, 1, 1, 0), QB_ERR_UNSUPPORTED, "BF16");
    kv.dtype = QB_DTYPE_F16;
    assert_fails(cpu->kv_store(dev, &kv, 0, cell, cell, 1, 2, 3), QB_ERR_INTERNAL, "3 .. 4");
    cpu->close(dev);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention__plain),
        cmocka_unit_test(test_attention__windows_and_chunks),
        cmocka_unit_test(test_attention__caps_slopes_and_sinks),
        cmocka_unit_test(test_attention__values_of_another_width),
        cmocka_unit_test(test_attention__refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
