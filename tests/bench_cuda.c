/* The op sweep of a GPU: matmuls of the four shapes of a 7B layer in the formats that count, beside the copy
   rate measured in the same run; a program, not a test. Weights are rotated over copies far beyond the second
   level cache. bench_cuda [--json] [--device N] [FORMAT-SUBSTRING [TOKENS ...]] A row: microseconds, GB/s of
   what one pass reads (qb_matrix.bytes) and its share of the copy rate, TFLOP/s and its share of the GEMM
   rate. Exit 77 without a device. */
#include "base/clock.h"
#include "base/memory.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COPIES = 64, MAX_TOKENS = 2048, ROUNDS = 5 };
static const int64_t working_set = 256000000; /* a round's weights: four times the largest cache */

typedef struct {
    const char *name;
    int bits; /* 0: dense; -1: codebook */
    int64_t group;
    bool symmetric, double_quant, act_order;
    qb_dtype dtype;
} format;

static const format formats[] = {
    {.name = "int4-g128-sym", .bits = 4, .group = 128, .symmetric = true},
    {.name = "int4-g128-asym", .bits = 4, .group = 128},
    {.name = "int4-g128-act-order", .bits = 4, .group = 128, .symmetric = true, .act_order = true},
    {.name = "int4-g32-asym", .bits = 4, .group = 32},
    {.name = "int3-g128-asym", .bits = 3, .group = 128},
    {.name = "int2-g64-asym", .bits = 2, .group = 64},
    {.name = "int8-g128-sym", .bits = 8, .group = 128, .symmetric = true},
    {.name = "nf4-b64", .bits = -1, .group = 64},
    {.name = "nf4-b64-dq", .bits = -1, .group = 64, .double_quant = true},
    {.name = "f16", .dtype = QB_DTYPE_F16},
    {.name = "bf16", .dtype = QB_DTYPE_BF16},
};
static const struct {
    const char *name;
    int64_t rows, cols;
} shapes[] = {{"qkv", 12288, 4096}, {"o", 4096, 4096}, {"gate-up", 22016, 4096}, {"down", 4096, 11008}};
static const int64_t usual_tokens[] = {1, 2, 4, 8, 16, 32, 64, 128, 2048};

typedef struct {
    qb_device *dev;
    qb_ceilings ceilings;
    bool json;
    int64_t rows_written;
    float *x, *y; /* on the device */
} sweep;

static void check(qb_status st) {
    if (st == QB_OK) return;
    fprintf(stderr, "%s: %s\n", qb_status_text(st), qb_error_text());
    exit(1);
}

static uint32_t state = 1;
static uint32_t noise(void) {
    return state = state * 1664525u + 1013904223u;
}

static void fill_weight(const format *f, int64_t rows, int64_t cols, qb_qweight *q) {
    if (f->bits > 0) {
        check(qb_qweight_alloc_affine(rows, cols, f->bits, f->group, f->act_order, q));
        for (int64_t i = 0; i < rows * q->n_groups; i++) {
            q->scales[i] = 0.0078125f;
            q->zeros[i] =
                (uint8_t)(f->symmetric ? 1u << (f->bits - 1) : noise() >> 16 & ((1u << f->bits) - 1));
        }
        for (int64_t c = 0; f->act_order && c < cols; c++) q->g_idx[c] = (int32_t)(c * 37 % cols / f->group);
    } else {
        check(qb_qweight_alloc_codebook(rows, cols, QB_CODEBOOK_NF4, f->group, f->double_quant, q));
        q->nested_offset = 0.02f;
        for (int64_t i = 0; f->double_quant && i < (q->n_blocks + QB_NESTED_BLOCK - 1) / QB_NESTED_BLOCK; i++)
            q->nested_absmax[i] = 0.01f;
        for (int64_t i = 0; i < q->n_blocks; i++) {
            if (f->double_quant) q->absmax_codes[i] = (uint8_t)(noise() >> 24);
            q->absmax[i] =
                f->double_quant ? qb_dynamic_map()[q->absmax_codes[i]] * 0.01f + q->nested_offset : 0.03f;
        }
    }
    unsigned mask = f->bits > 0 ? (1u << f->bits) - 1 : 15;
    for (int64_t i = 0; i < rows * cols; i++) q->codes[i] = (uint8_t)(noise() >> 16 & mask);
}

/* As many matrices of one format and shape as make up the working set; the same random bits in all. */
static int make_matrices(const sweep *s, const format *f, int64_t rows, int64_t cols, qb_matrix *m) {
    qb_qweight q = {0};
    qb_weight w = {.rows = rows, .cols = cols, .dtype = f->dtype};
    uint16_t *dense = NULL;
    int64_t size = 0;
    int n = 0;
    if (f->bits) {
        fill_weight(f, rows, cols, &q), w.packed = &q;
    } else {
        check(qb_alloc((size_t)(rows * cols), sizeof *dense, &dense));
        for (int64_t i = 0; i < rows * cols; i++) dense[i] = (uint16_t)(noise() >> 20 | 0x2800);
        w.dense = dense;
    }
    for (; size < working_set && n < MAX_COPIES; n++) {
        check(s->dev->backend->matrix_create(s->dev, &w, QB_PLACE_DEVICE, &m[n]));
        size += m[n].bytes;
    }
    qb_qweight_free(&q);
    qb_free(dense);
    return n;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of some rounds over all matrices, in seconds a matmul. */
static double measure(const sweep *s, const qb_matrix *m, int n, int64_t T) {
    double seconds[ROUNDS + 1];
    for (int round = 0; round <= ROUNDS; round++) { /* the first warms up */
        check(s->dev->backend->timer_start(s->dev));
        for (int i = 0; i < n; i++) check(s->dev->backend->matmul(s->dev, s->y, s->x, T, &m[i]));
        check(s->dev->backend->timer_stop(s->dev, &seconds[round]));
    }
    qsort(seconds + 1, ROUNDS, sizeof *seconds, by_value);
    return seconds[1 + ROUNDS / 2] / n;
}

static void report(sweep *s, const char *name, size_t shape, int64_t T, const qb_matrix *m, double seconds) {
    double rate = (double)m->bytes / seconds,
           flops = 2.0 * (double)m->rows * (double)m->cols * (double)T / seconds;
    double of_copy = rate / s->ceilings.read_bytes_per_s, of_gemm = flops / s->ceilings.gemm_flop_per_s;
    if (s->json)
        printf(
            "%s\n  {\"format\": \"%s\", \"shape\": \"%s\", \"rows\": %lld, \"cols\": %lld, \"tokens\": %lld, "
            "\"microseconds\": %.3f, \"gb_per_s\": %.2f, \"of_copy\": %.4f, \"tflop_per_s\": %.3f, "
            "\"of_gemm\": "
            "%.4f}",
            s->rows_written++ ? "," : "", name, shapes[shape].name, (long long)m->rows, (long long)m->cols,
            (long long)T, seconds * 1e6, rate * 1e-9, of_copy, flops * 1e-12, of_gemm);
    else
        printf("%-22s %-8s T %4lld  %9.2f us  %8.1f GB/s (%3.0f %%)  %8.2f TFLOP/s (%3.0f %%)\n", name,
               shapes[shape].name, (long long)T, seconds * 1e6, rate * 1e-9, of_copy * 100, flops * 1e-12,
               of_gemm * 100);
    fflush(stdout);
}

static void open_sweep(sweep *s, int device) {
    const qb_backend *cuda = qb_backend_find("cuda");
    if (!cuda) check(qb_fail(QB_ERR_UNSUPPORTED, "this build has no cuda backend"));
    check(cuda->open(&(qb_device_options){.threads = 0, .index = device}, &s->dev));
    check(s->dev->backend->ceilings(s->dev, &s->ceilings));
    float *x;
    const int64_t widest_in = 11008, widest_out = 22016;
    check(qb_alloc((size_t)(MAX_TOKENS * widest_in), sizeof *x, &x));
    for (int64_t i = 0; i < MAX_TOKENS * widest_in; i++) x[i] = (float)(int32_t)noise() * 0x1p-31f;
    check(s->dev->backend->alloc(s->dev, QB_MEMORY_ACTIVATIONS, MAX_TOKENS * widest_in * 4, &s->x));
    check(s->dev->backend->alloc(s->dev, QB_MEMORY_ACTIVATIONS, MAX_TOKENS * widest_out * 4, &s->y));
    check(s->dev->backend->upload(s->dev, s->x, x, MAX_TOKENS * widest_in * 4));
    qb_free(x);
    if (s->json)
        printf("{\"copy_bytes_per_s\": %.4g, \"gemm_flop_per_s\": %.4g, \"rows\": [",
               s->ceilings.read_bytes_per_s, s->ceilings.gemm_flop_per_s);
    else
        printf("copy %.0f GB/s, GEMM %.1f TFLOP/s\n", s->ceilings.read_bytes_per_s * 1e-9,
               s->ceilings.gemm_flop_per_s * 1e-12);
}

int main(int argc, char **argv) {
    sweep s = {0};
    int device = 0, first = 1;
    char why[256];
    for (; first < argc && strncmp(argv[first], "--", 2) == 0; first++) {
        if (strcmp(argv[first], "--json") == 0)
            s.json = true;
        else if (strcmp(argv[first], "--device") == 0 && first + 1 < argc)
            device = atoi(argv[++first]);
        else
            return fprintf(stderr, "usage: bench_cuda [--json] [--device N] [FORMAT [TOKENS ...]]\n"), 2;
    }
    if (qb_cuda_count(why, sizeof why) < 1) return fprintf(stderr, "no CUDA device: %s\n", why), 77;
    open_sweep(&s, device);
    int asked = argc - first > 1 ? argc - first - 1 : (int)(sizeof usual_tokens / sizeof *usual_tokens);
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        if (argc > first && !strstr(formats[f].name, argv[first])) continue;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            qb_matrix m[MAX_COPIES];
            int n = make_matrices(&s, &formats[f], shapes[i].rows, shapes[i].cols, m);
            for (int t = 0; t < asked; t++) {
                int64_t T = argc - first > 1 ? strtoll(argv[first + 1 + t], NULL, 10) : usual_tokens[t];
                if (T < 1 || T > MAX_TOKENS) continue;
                report(&s, formats[f].name, i, T, &m[0], measure(&s, m, T > 64 ? (n < 4 ? n : 4) : n, T));
            }
            for (int k = 0; k < n; k++) s.dev->backend->matrix_free(s.dev, &m[k]);
        }
    }
    if (s.json) printf("]}\n");
    s.dev->backend->free(s.dev, s.x), s.dev->backend->free(s.dev, s.y);
    s.dev->backend->close(s.dev);
    return 0;
}
