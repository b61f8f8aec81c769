/* Measures what stands beside the matmuls of bench_kernels on the CPU backend; a program, not a test.
   bench_parts attention [DEPTH ...]: one token's attention over a cache beyond the processor's own, GB/s of
   keys and values and their share of the read ceiling. bench_parts gptq: Hessians, their factors and the
   forward of calibration at the widths of TinyLlama and of Llama 7B, GFLOP/s and their share of SGEMM.
   bench_parts small: dense products of small models' shapes. Without a name, all of them. */
#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state = 1;
static float noise(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * 0x1p-23f - 1.0f;
}

static void check(qb_status st) {
    if (st == QB_OK) return;
    fprintf(stderr, "%s: %s\n", qb_status_text(st), qb_error_text());
    exit(1);
}

static double seconds_since(int64_t start) {
    return (double)(qb_now_ns() - start) * 1e-9;
}

static float *random_floats(int64_t n) {
    float *x;
    check(qb_alloc((size_t)n, sizeof *x, &x));
    for (int64_t i = 0; i < n; i++) x[i] = noise();
    return x;
}

/* The middle one of an odd number of samples. */
static double median(double *s, int n) {
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && s[k] < s[k - 1]; k--) {
            double t = s[k];
            s[k] = s[k - 1], s[k - 1] = t;
        }
    return s[n / 2];
}
enum { SAMPLES = 7 };

/* ---- attention of one token ---- */

typedef struct {
    const char *name;
    int64_t heads, kv_heads, dim;
} head_shape;

static void attention_of(qb_device *dev, const qb_ceilings *c, const head_shape *s, qb_dtype dtype,
                         int64_t depth) {
    const int64_t element = (int64_t)qb_dtype_bytes(dtype), of_layer = s->kv_heads * depth * s->dim * element;
    const int64_t layers = (512 << 20) / (2 * of_layer) + 1;
    qb_kv kv = {.dtype = dtype, .n_layers = layers, .n_seq = 1, .capacity = depth, .n_kv_heads = s->kv_heads};
    kv.head_dim = kv.value_dim = s->dim;
    check(dev->backend->alloc(dev, QB_MEMORY_KV, layers * of_layer, &kv.k));
    check(dev->backend->alloc(dev, QB_MEMORY_KV, layers * of_layer, &kv.v));
    float *rows = random_floats(depth * s->kv_heads * s->dim);
    for (int64_t l = 0; l < layers; l++) check(dev->backend->kv_store(dev, &kv, l, rows, rows, 1, depth, 0));
    float *q = random_floats(s->heads * s->dim), *out = random_floats(s->heads * s->dim);
    const qb_attend_attr attr = {.heads = s->heads,
                                 .kv_heads = s->kv_heads,
                                 .head_dim = s->dim,
                                 .value_dim = s->dim,
                                 .scale = 1.0f / sqrtf((float)s->dim)};
    double samples[SAMPLES];
    for (int i = 0; i < SAMPLES; i++) {
        int64_t start = qb_now_ns();
        for (int64_t l = 0; l < layers; l++)
            check(dev->backend->attention(dev, &(qb_attention){.q = q,
                                                               .out = out,
                                                               .n_seq = 1,
                                                               .n_tok = 1,
                                                               .first = depth - 1,
                                                               .layer = l,
                                                               .kv = &kv,
                                                               .attr = &attr}));
        samples[i] = seconds_since(start);
    }
    double rate = (double)(2 * layers * of_layer) / median(samples, SAMPLES);
    printf("attention  %-22s %s  depth %5lld  %6.2f GB/s (%3.0f %% of reading)\n", s->name,
           qb_dtype_name(dtype), (long long)depth, rate * 1e-9, rate / c->read_bytes_per_s * 100);
    fflush(stdout);
    qb_free(rows), qb_free(q), qb_free(out);
    dev->backend->free(dev, kv.k);
    dev->backend->free(dev, kv.v);
}

static void attention(qb_device *dev, const qb_ceilings *c, int n, char **depths) {
    static const head_shape shapes[] = {{"32 heads of 128", 32, 32, 128},
                                        {"32 heads of 128, 8 kv", 32, 8, 128},
                                        {"32 heads of 64, 4 kv", 32, 4, 64}};
    static const int64_t usual[] = {1024, 2048, 4096};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int d = 0; d < (n ? n : 3); d++)
            for (int half = 0; half < 2; half++)
                attention_of(dev, c, &shapes[i], half ? QB_DTYPE_F16 : QB_DTYPE_F32,
                             n ? strtoll(depths[d], NULL, 10) : usual[d]);
}

/* ---- GPTQ's parts ---- */

static void say(const char *what, int64_t a, int64_t b, double flops, double s, const qb_ceilings *c) {
    printf("%-20s %6lld x %-6lld %8.1f ms  %7.1f GFLOP/s (%3.0f %% of SGEMM)\n", what, (long long)a,
           (long long)b, s * 1e3, flops / s * 1e-9, flops / s / c->gemm_flop_per_s * 100);
    fflush(stdout);
}

static void hessian_of(qb_device *dev, const qb_ceilings *c, int64_t n, int64_t tokens) {
    float *x = random_floats(tokens * n), *h;
    check(dev->backend->alloc(dev, QB_MEMORY_WORKSPACE, n * n * 4, &h));
    check(dev->backend->clear(dev, h, n * n * 4));
    double sum[3], factor[3];
    for (int i = 0; i < 3; i++) {
        int64_t start = qb_now_ns();
        check(dev->backend->hessian(dev, h, x, tokens, n));
        sum[i] = seconds_since(start);
    }
    say("Hessian, tokens", n, tokens, (double)n * (double)(n + 1) * (double)tokens, median(sum, 3), c);
    qb_factor *f;
    check(qb_factor_create(dev->threads, n, &f));
    for (int i = 0; i < 3; i++) {
        bool ok;
        check(dev->backend->clear(dev, h, n * n * 4));
        for (int64_t k = 0; k < n; k++) h[k * n + k] = 2.0f;
        int64_t start = qb_now_ns();
        qb_cholesky_lower(f, n, h, n, &ok);
        qb_invert_lower(f, n, h, n);
        factor[i] = seconds_since(start);
    }
    qb_factor_free(f);
    say("factor and inverse", n, n, 2.0 / 3 * (double)n * (double)n * (double)n, median(factor, 3), c);
    dev->backend->free(dev, h);
    qb_free(x);
}

static void product_of(qb_device *dev, const qb_ceilings *c, const char *what, const qb_weight *w,
                       int64_t tokens) {
    float *x = random_floats(tokens * w->cols), *y = random_floats(tokens * w->rows);
    qb_matrix m;
    check(dev->backend->matrix_create(dev, w, QB_PLACE_DEVICE, &m));
    double samples[SAMPLES];
    for (int i = 0; i < SAMPLES; i++) {
        int64_t start = qb_now_ns();
        check(dev->backend->matmul(dev, y, x, tokens, &m));
        samples[i] = seconds_since(start);
    }
    char name[64];
    snprintf(name, sizeof name, "%s, %lld tokens", what, (long long)tokens);
    say(name, w->rows, w->cols, 2.0 * (double)w->rows * (double)w->cols * (double)tokens,
        median(samples, SAMPLES), c);
    dev->backend->matrix_free(dev, &m);
    qb_free(x), qb_free(y);
}

static void forward_of(qb_device *dev, const qb_ceilings *c, int64_t rows, int64_t cols, int64_t tokens) {
    qb_qweight q;
    check(qb_qweight_alloc_affine(rows, cols, 4, 128, false, &q));
    for (int64_t i = 0; i < rows * q.n_groups; i++) q.scales[i] = 0.0078125f, q.zeros[i] = 8;
    for (int64_t i = 0; i < rows * cols; i++)
        q.codes[i] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 28);
    product_of(dev, c, "int4 g128", &(qb_weight){.rows = rows, .cols = cols, .packed = &q}, tokens);
    qb_qweight_free(&q);
}

static void gptq(qb_device *dev, const qb_ceilings *c) {
    static const int64_t widths[] = {2048, 5632, 4096, 11008};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) hessian_of(dev, c, widths[i], 2048);
    forward_of(dev, c, 5632, 2048, 2048);
    forward_of(dev, c, 11008, 4096, 2048);
}

/* ---- dense products of small models ---- */

static void small(qb_device *dev, const qb_ceilings *c) {
    static const int64_t shapes[][2] = {{192, 192},  {512, 192},  {576, 576},
                                        {1536, 576}, {576, 1536}, {49152, 576}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int64_t tokens = 512; tokens <= 2048; tokens *= 4) {
            float *dense = random_floats(shapes[i][0] * shapes[i][1]);
            const qb_weight w = {
                .rows = shapes[i][0], .cols = shapes[i][1], .dtype = QB_DTYPE_F32, .dense = dense};
            product_of(dev, c, "f32", &w, tokens);
            qb_free(dense);
        }
}

int main(int argc, char **argv) {
    qb_blas_ensure_core(argv);
    const char *only = argc > 1 ? argv[1] : "";
    if (*only && strcmp(only, "attention") != 0 && strcmp(only, "gptq") != 0 && strcmp(only, "small") != 0) {
        fprintf(stderr, "usage: bench_parts [attention [DEPTH ...] | gptq | small]\n");
        return 2;
    }
    qb_device *dev;
    qb_ceilings c;
    check(qb_backend_cpu.open(&(qb_device_options){.threads = 0}, &dev));
    check(dev->backend->ceilings(dev, &c));
    printf("simd %s, OpenBLAS %s, %d threads: read %.1f GB/s, SGEMM %.1f GFLOP/s\n", qb_cpu_simd(),
           qb_blas_core(), qb_threads_count(dev->threads), c.read_bytes_per_s * 1e-9,
           c.gemm_flop_per_s * 1e-9);
    if (!*only || !strcmp(only, "attention")) attention(dev, &c, argc > 2 ? argc - 2 : 0, argv + 2);
    if (!*only || !strcmp(only, "gptq")) gptq(dev, &c);
    if (!*only || !strcmp(only, "small")) small(dev, &c);
    dev->backend->close(dev);
    return 0;
}
