/* Measures the matmuls of the CPU backend beside the machine's own ceilings; a program, not a test.
   bench_kernels [FORMAT-SUBSTRING [TOKENS ...]]: for each kind of activations that a format has, GB/s over a
   working set beyond cache and GFLOP/s, with their shares of the ceilings (of SGEMM's in whole numbers too).
   bench_kernels prefetch[-i16|-i8] [FORMAT-SUBSTRING [TOKENS ...]]: several prefetch distances in turn
   (`far`: into the second cache, in whole numbers alone), which is what a row of kernels/cpu/tuning.c is
   chosen by. bench_kernels rows [...]: dense rows side by side and one by one. bench_kernels gemm [...]:
   dense rows by SGEMM and by loops of our own (AVX-512). bench_kernels activations [FORMAT-SUBSTRING [TOKENS
   ...]]: the kinds of activations in turn, each with its share of the ceiling of such products. bench_kernels
   threads: what a loop costs beside its work (docs/threads.md). */
#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tuning.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 11008, COLS = 4096, MAX_COPIES = 64 };
static const int64_t working_set = 1100000000;

typedef struct {
    const char *name;
    int bits; /* 0: dense; -1: codebook */
    int64_t group;
    bool symmetric, act_order, double_quant;
    bool factored, offsets; /* as GGUF's K types: a byte times a scale of 256 columns */
    qb_codebook codebook;
    qb_dtype dtype;
} format;

static const format formats[] = {
    {.name = "f16", .dtype = QB_DTYPE_F16},
    {.name = "bf16", .dtype = QB_DTYPE_BF16},
    {.name = "f32", .dtype = QB_DTYPE_F32},
    {.name = "int8-g128-sym", .bits = 8, .group = 128, .symmetric = true},
    {.name = "int4-g128-sym", .bits = 4, .group = 128, .symmetric = true},
    {.name = "int4-g128-asym", .bits = 4, .group = 128},
    {.name = "int4-g128-asym-actorder", .bits = 4, .group = 128, .act_order = true},
    {.name = "int4-g32-asym", .bits = 4, .group = 32},
    {.name = "int3-g128-asym", .bits = 3, .group = 128},
    {.name = "int2-g64-asym", .bits = 2, .group = 64},
    {.name = "q4_0", .bits = 4, .group = 32, .symmetric = true},
    {.name = "q4_k", .bits = 4, .group = 32, .factored = true, .offsets = true},
    {.name = "q2_k", .bits = 2, .group = 16, .factored = true, .offsets = true},
    {.name = "q3_k", .bits = 3, .group = 16, .symmetric = true, .factored = true},
    {.name = "q5_k", .bits = 5, .group = 32, .factored = true, .offsets = true},
    {.name = "q6_k", .bits = 6, .group = 16, .symmetric = true, .factored = true},
    {.name = "nf4-b64", .bits = -1, .group = 64, .codebook = QB_CODEBOOK_NF4},
    {.name = "nf4-b64-dq", .bits = -1, .group = 64, .double_quant = true, .codebook = QB_CODEBOOK_NF4},
    {.name = "fp4-b64", .bits = -1, .group = 64, .codebook = QB_CODEBOOK_FP4},
    {.name = "iq4_nl", .bits = -1, .group = 32, .codebook = QB_CODEBOOK_IQ4_NL},
};

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static uint32_t state = 1;
static uint32_t noise(void) {
    return state = state * 1664525u + 1013904223u;
}

static qb_status check(qb_status st) {
    if (st != QB_OK) {
        fprintf(stderr, "%s: %s\n", qb_status_text(st), qb_error_text());
        exit(1);
    }
    return st;
}

/* Of group i: a whole number times a float16 with all its bits. */
static void set_factors(const format *f, qb_qweight *q, int64_t i) {
    const int bits = f->bits == 2 ? 4 : 6, least = f->bits == 3 ? 32 : 0;
    const int scale = (int)(noise() >> (32 - bits)) - least;
    q->scale_factors.inner[i] = (uint8_t)scale;
    q->scale_factors.outer[i / q->factor_groups] = 0x1.554p-12f;
    q->scales[i] = 0x1.554p-12f * (float)scale;
    if (!f->offsets) return;
    q->offset_factors.inner[i] = (uint8_t)(noise() >> (32 - bits));
    q->offset_factors.outer[i / q->factor_groups] = -0x1.334p-10f;
    q->offsets[i] = -0x1.334p-10f * (float)q->offset_factors.inner[i];
}

static void fill_weight(const format *f, qb_qweight *q) {
    if (f->bits > 0) {
        if (f->offsets)
            check(qb_qweight_alloc_offsets(ROWS, COLS, f->bits, f->group, q));
        else
            check(qb_qweight_alloc_affine(ROWS, COLS, f->bits, f->group, f->act_order, q));
        if (f->factored) check(qb_qweight_alloc_factors(q, (int)(256 / f->group), q->offsets != NULL));
        for (int64_t i = 0; i < ROWS * q->n_groups; i++) {
            q->scales[i] = 0.0078125f;
            if (f->factored) set_factors(f, q, i);
            if (!f->offsets)
                q->zeros[i] = (uint8_t)(f->symmetric ? 1 << (f->bits - 1)
                                                     : (int)(noise() >> 16) & ((1 << f->bits) - 1));
        }
        for (int64_t c = 0; f->act_order && c < COLS; c++) q->g_idx[c] = (int32_t)(c * 37 % COLS / f->group);
    } else {
        check(qb_qweight_alloc_codebook(ROWS, COLS, f->codebook, f->group, f->double_quant, q));
        for (int64_t i = 0; i < q->n_blocks; i++) q->absmax[i] = 0.03f;
        for (int64_t i = 0; f->double_quant && i < q->n_blocks; i++) q->absmax_codes[i] = (uint8_t)noise();
    }
    unsigned mask = f->bits > 0 ? (1u << f->bits) - 1 : 15;
    for (int64_t i = 0; i < (int64_t)ROWS * COLS; i++) q->codes[i] = (uint8_t)(noise() >> 16 & mask);
}

static int make_matrices(qb_device *dev, const format *f, qb_matrix *m, void **dense) {
    qb_qweight q = {0};
    qb_weight w = {.rows = ROWS, .cols = COLS, .dtype = f->dtype};
    int64_t size = 0, start = qb_now_ns();
    int n = 0;
    if (f->bits)
        fill_weight(f, &q), w.packed = &q;
    else {
        int64_t one = (int64_t)ROWS * COLS * (int64_t)qb_dtype_bytes(f->dtype);
        int copies = (int)(working_set / one + 1);
        check(qb_alloc((size_t)(one * copies), 1, dense));
        for (int64_t i = 0; i < one * copies / 2; i++)
            ((uint16_t *)*dense)[i] = (uint16_t)(noise() >> 20 | 0x2800);
    }
    if (f->bits) start = qb_now_ns();
    for (; size < working_set && n < MAX_COPIES; n++) {
        if (*dense)
            w.dense = (const char *)*dense + n * (int64_t)ROWS * COLS * (int64_t)qb_dtype_bytes(f->dtype);
        check(dev->backend->matrix_create(dev, &w, QB_PLACE_DEVICE, &m[n]));
        size += m[n].bytes;
    }
    if (f->bits)
        printf("%-24s %d matrices, packed in %.0f ms each\n", f->name, n,
               (double)(qb_now_ns() - start) * 1e-6 / n);
    qb_qweight_free(&q);
    return n;
}

static void measure(qb_device *dev, const qb_ceilings *c, const format *f, const char *mode,
                    const qb_matrix *m, int n, int64_t T) {
    float *x, *y;
    check(qb_alloc((size_t)(T * COLS), 4, &x));
    check(qb_alloc((size_t)(T * ROWS), 4, &y));
    for (int64_t i = 0; i < T * COLS; i++) x[i] = (float)(i % 17) * 0.1f - 0.8f;
    double best = 1e9;
    int passes = T > 64 ? 3 : 2, count = T > 64 ? 1 : T > 8 ? n / 4 : n;
    for (int pass = 0; pass < passes; pass++) {
        int64_t start = qb_now_ns();
        for (int i = 0; i < count; i++) check(dev->backend->matmul(dev, y, x, T, &m[i]));
        double s = (double)(qb_now_ns() - start) * 1e-9;
        if (s < best) best = s;
    }
    double bytes = (double)m[0].bytes * count / best, flops = 2.0 * ROWS * COLS * (double)T * count / best;
    printf("%-24s T %4lld  %-4s  %7.2f GB/s (%3.0f %%)  %7.1f GFLOP/s (%3.0f %%)\n", f->name, (long long)T,
           mode, bytes * 1e-9, bytes / c->read_bytes_per_s * 100, flops * 1e-9,
           flops / c->gemm_flop_per_s * 100);
    fflush(stdout);
    qb_free(x);
    qb_free(y);
}

/* Alone on a busy machine, the time that this thread had a processor; else the time on the clock. */
static double now_s(const qb_device *dev) {
    struct timespec t;
    if (qb_threads_count(dev->threads) > 1) return (double)qb_now_ns() * 1e-9;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What is compared: the i-th way's name once it is in force; NULL behind the last. */
static const char *set_distance(qb_device *dev, int i) {
    static const char *const names[] = {"ahead 0",    "ahead 512",  "ahead 1024", "ahead 2048",
                                        "ahead 4096", "ahead 8192", "far 2048",   "far 4096",
                                        "far 8192",   "far 16384",  "far 32768"};
    (void)dev;
    if (i >= (int)(sizeof names / sizeof *names)) return NULL;
    qb_cpu_tuning *tuning = qb_cpu_tuning_here();
    bool far = names[i][0] == 'f';
    int32_t ahead = (int32_t)strtol(strchr(names[i], ' '), NULL, 10);
    tuning->packed_prefetch_bytes = tuning->dense_prefetch_bytes = ahead;
    for (int kind = 0; kind < QB_PACK_COUNT; kind++) tuning->whole[kind] = (qb_prefetch){ahead, far};
    return names[i];
}
static const char *set_rows(qb_device *dev, int i) {
    static const char *const names[] = {"together", "singly"};
    (void)dev;
    if (i >= (int)(sizeof names / sizeof *names)) return NULL;
    qb_cpu_tuning_here()->dense_prefetch_bytes = 0;
    qb_cpu_tuning_here()->dense_singly_bytes = i == 1 ? INT64_MAX : 0;
    return names[i];
}
static const char *set_gemm(qb_device *dev, int i) {
    static const char *const names[] = {"SGEMM", "own loops"};
    (void)dev;
    if (i >= (int)(sizeof names / sizeof *names)) return NULL;
    qb_cpu_tuning_here()->wide_gemm_tokens = i == 1 ? INT64_MAX : 1;
    return names[i];
}
static const char *set_activations(qb_device *dev, int i) {
    if (i >= QB_ACTIVATIONS_FASTEST) return NULL;
    qb_activations got;
    check(dev->backend->set_activations(dev, (qb_activations)i, &got));
    return qb_activations_name(got);
}
typedef const char *(*way_fn)(qb_device *dev, int i);

/* The ways change from one matrix to the next, so that what else the machine does falls on all alike. */
static void compare_ways(qb_device *dev, const qb_ceilings *c, way_fn set, const format *f,
                         const qb_matrix *m, int n, int64_t T) {
    enum { WAYS = 11, SAMPLES = 96 };
    double seconds[WAYS][SAMPLES], median = 0;
    int ways = 0, samples = T > 8 ? SAMPLES / 8 : SAMPLES;
    while (ways < WAYS && set(dev, ways)) ways++;
    float *x, *y;
    check(qb_alloc((size_t)(T * COLS), 4, &x));
    check(qb_alloc((size_t)(T * ROWS), 4, &y));
    for (int64_t i = 0; i < T * COLS; i++) x[i] = (float)(i % 17) * 0.1f - 0.8f;
    for (int i = 0; i < ways * samples; i++) {
        set(dev, i % ways);
        double start = now_s(dev);
        check(dev->backend->matmul(dev, y, x, T, &m[i * 7 % n]));
        seconds[i % ways][i / ways] = now_s(dev) - start;
    }
    for (int d = 0; d < ways; d++) {
        double bytes = (double)m[0].bytes * 1e-9, flops = 2e-9 * ROWS * COLS * (double)T;
        qsort(seconds[d], (size_t)samples, sizeof **seconds, ascending);
        if (d == 0) median = seconds[0][samples / 2];
        printf(
            "%-24s T %4lld  %-10s  median %6.2f GB/s %7.1f GFLOP/s, %5.2f times the first; best %6.2f GB/s\n",
            f->name, (long long)T, set(dev, d), bytes / seconds[d][samples / 2],
            flops / seconds[d][samples / 2], median / seconds[d][samples / 2], bytes / seconds[d][0]);
        if (set == set_activations) { /* each kind has a ceiling of its own */
            const double most[] = {c->gemm_flop_per_s, c->int16_op_per_s, c->int8_op_per_s};
            printf("%-24s T %4lld  %-10s  %3.0f %% of the ceiling of such products, %.0f Gop/s\n", f->name,
                   (long long)T, set(dev, d), flops * 1e9 / seconds[d][samples / 2] / most[d] * 100,
                   most[d] * 1e-9);
        }
    }
    fflush(stdout);
    qb_free(x);
    qb_free(y);
}

/* ---- what a loop costs before and behind its work ---- */

static void nothing(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)ctx, (void)begin, (void)end, (void)worker;
}

/* A chunk each, which begin together. */
static void meet(void *ctx, int64_t begin, int64_t end, int worker) {
    _Atomic int *here = ctx;
    (void)begin, (void)end, (void)worker;
    atomic_fetch_add(here, 1);
    while (atomic_load(here) < 2) {
    }
}

static void time_loops(qb_threads *threads, const char *name, int64_t chunks, qb_range_fn fn,
                       int64_t gap_ns) {
    enum { SAMPLES = 2000 };
    static double ns[SAMPLES];
    int n = gap_ns > 100000 ? SAMPLES / 10 : SAMPLES;
    for (int i = 0; i < n; i++) {
        _Atomic int here = 0;
        for (int64_t until = qb_now_ns() + gap_ns; qb_now_ns() < until;) {
        }
        int64_t start = qb_now_ns();
        qb_parallel_for(threads, chunks, 1, fn, &here);
        ns[i] = (double)(qb_now_ns() - start);
    }
    qsort(ns, (size_t)n, sizeof *ns, ascending);
    printf("%d threads, %-40s median %7.0f ns, tenth %7.0f, nine tenths %7.0f\n", qb_threads_count(threads),
           name, ns[n / 2], ns[n / 10], ns[n * 9 / 10]);
}

static void bench_threads(void) {
    for (int n = 1; n <= 2; n++) {
        qb_threads *threads;
        check(qb_threads_create(n, &threads));
        time_loops(threads, "2 empty chunks", 2, nothing, 0);
        time_loops(threads, "64 empty chunks", 64, nothing, 0);
        if (n == 2) {
            time_loops(threads, "both begin, the worker spins", 2, meet, 2000);
            time_loops(threads, "both begin, it gives way (20 us later)", 2, meet, 20000);
            time_loops(threads, "both begin, it sleeps (600 us later)", 2, meet, 600000);
        }
        qb_threads_free(threads);
    }
}

/* What was asked for and is not there, or help. */
static int usage(const char *unknown) {
    FILE *to = unknown ? stderr : stdout;
    if (unknown) fprintf(to, "bench_kernels: no format's name has \"%s\"\n", unknown);
    fprintf(to,
            "bench_kernels [prefetch|prefetch-i16|prefetch-i8|rows|gemm|activations] [FORMAT [TOKENS ...]]\n"
            "bench_kernels threads\n"
            "FORMAT: a part of a name of");
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) fprintf(to, " %s", formats[i].name);
    fprintf(to, "\n");
    return unknown ? 2 : 0;
}

static bool is_format(const char *part) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strstr(formats[i].name, part)) return true;
    return false;
}

int main(int argc, char **argv) {
    qb_blas_ensure_core(argv);
    static const int64_t usual[] = {1, 2, 4, 8, 16, 32, 512};
    const char *first = argc > 1 ? argv[1] : "";
    if (!strcmp(first, "threads")) {
        bench_threads();
        return 0;
    }
    way_fn ways = !strncmp(first, "prefetch", 8)  ? set_distance
                  : !strcmp(first, "rows")        ? set_rows
                  : !strcmp(first, "gemm")        ? set_gemm
                  : !strcmp(first, "activations") ? set_activations
                                                  : NULL;
    if (ways) argc--, argv++;
    if (!strcmp(first, "--help") || !strcmp(first, "-h")) return usage(NULL);
    if (argc > 1 && !is_format(argv[1])) return usage(argv[1]);
    qb_device *dev;
    qb_ceilings c;
    check(qb_backend_cpu.open(&(qb_device_options){.threads = 0}, &dev));
    check(dev->backend->ceilings(dev, &c));
    if (!strcmp(first, "prefetch-i16")) set_activations(dev, QB_ACTIVATIONS_I16);
    if (!strcmp(first, "prefetch-i8")) set_activations(dev, QB_ACTIVATIONS_I8);
    printf("simd %s, OpenBLAS %s, %d threads: read %.1f GB/s, SGEMM %.1f GFLOP/s\n", qb_cpu_simd(),
           qb_blas_core(), qb_threads_count(dev->threads), c.read_bytes_per_s * 1e-9,
           c.gemm_flop_per_s * 1e-9);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (argc > 1 && !strstr(formats[i].name, argv[1])) continue;
        qb_matrix m[MAX_COPIES];
        void *dense = NULL;
        int n = make_matrices(dev, &formats[i], m, &dense);
        int asked = argc > 2 ? argc - 2 : (int)(sizeof usual / sizeof *usual);
        for (int t = 0; t < asked; t++) {
            int64_t T = argc > 2 ? strtoll(argv[2 + t], NULL, 10) : usual[t];
            if (ways)
                compare_ways(dev, &c, ways, &formats[i], m, n, T);
            else
                for (int k = 0; k < QB_ACTIVATIONS_FASTEST; k++)
                    if (k == 0 || m[0].integer >> k & 1)
                        measure(dev, &c, &formats[i], set_activations(dev, k), m, n, T);
        }
        for (int k = 0; k < n; k++) dev->backend->matrix_free(dev, &m[k]);
        qb_free(dense);
    }
    dev->backend->close(dev);
    return 0;
}
