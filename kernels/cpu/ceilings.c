/* What this machine can do at best, measured: speed results quote their share of it. */
#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/device.h"

#include <cblas.h>
#include <string.h>

/* A gigabyte lies beyond any cache; repeats are bounded by time. */
enum { READ_CHUNK = 1 << 20, MATRIX = 2048 };
static const int64_t read_bytes = 1LL << 30, read_budget_ns = 700000000, gemm_budget_ns = 500000000;

typedef struct {
    const qb_simd *simd;
    float *data;
    float *sink; /* one a chunk: the sums must not be optimised away */
    int64_t n_chunk;
} read_job;

static void fill_chunks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const read_job *j = ctx;
    for (int64_t c = begin; c < end; c++)
        for (int64_t i = 0; i < READ_CHUNK / 4; i++) j->data[c * (READ_CHUNK / 4) + i] = (float)(i & 1023);
}

static void read_chunks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const read_job *j = ctx;
    for (int64_t c = begin; c < end; c++)
        j->sink[c] = j->simd->sum(j->data + c * (READ_CHUNK / 4), READ_CHUNK / 4);
}

static qb_status measure_read(cpu_device *d, double *bytes_per_s) {
    read_job j = {.simd = d->simd, .n_chunk = read_bytes / READ_CHUNK};
    float *block = NULL;
    qb_status st = qb_cpu_alloc(&d->base, QB_MEMORY_WORKSPACE, read_bytes + j.n_chunk * 4, &block);
    if (st != QB_OK) return qb_fail_prefix(st, "measuring the read bandwidth");
    j.data = block, j.sink = block + read_bytes / 4;
    qb_parallel_for(d->base.threads, j.n_chunk, 16, fill_chunks, &j);
    *bytes_per_s = 0;
    int64_t begun = qb_now_ns();
    for (int run = 0; run < 3 || (run < 20 && qb_now_ns() - begun < read_budget_ns); run++) {
        int64_t start = qb_now_ns();
        qb_parallel_for(d->base.threads, j.n_chunk, 4, read_chunks, &j);
        double rate = (double)read_bytes / ((double)(qb_now_ns() - start) * 1e-9);
        if (rate > *bytes_per_s) *bytes_per_s = rate;
    }
    qb_cpu_free(&d->base, block);
    return QB_OK;
}

static qb_status measure_gemm(cpu_device *d, double *flop_per_s) {
    int64_t n = MATRIX;
    float *a;
    qb_status st = qb_cpu_alloc(&d->base, QB_MEMORY_WORKSPACE, 3 * n * n * 4, &a);
    if (st != QB_OK) return st;
    float *b = a + n * n, *c = b + n * n;
    for (int64_t i = 0; i < 2 * n * n; i++) a[i] = (float)(i % 251) * 0.004f - 0.5f;
    memset(c, 0, (size_t)(n * n) * 4);
    *flop_per_s = 0;
    int64_t begun = qb_now_ns();
    for (int run = 0; run < 2 || (run < 10 && qb_now_ns() - begun < gemm_budget_ns); run++) {
        int64_t start = qb_now_ns();
        qb_gemm(d->base.threads, false, true, n, n, n, 1.0f, a, n, b, n, 0.0f, c, n);
        double rate = 2.0 * (double)n * (double)n * (double)n / ((double)(qb_now_ns() - start) * 1e-9);
        if (rate > *flop_per_s) *flop_per_s = rate;
    }
    qb_cpu_free(&d->base, a);
    return QB_OK;
}

/* ---- products in whole numbers ---- */

enum { SPIN_ROUNDS = 1 << 16, SPIN_TASKS = 8 }; /* tasks a thread: one that is held up delays a part */
static const int64_t spin_budget_ns = 100000000;

typedef struct {
    uint32_t (*spin)(int64_t rounds, const uint8_t *codes, const int32_t *words);
    uint32_t *sink; /* one a task */
} spin_job;

static void spin_tasks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const spin_job *j = ctx;
    uint8_t codes[QB_SPIN_BYTES];
    int32_t words[QB_SPIN_WORDS];
    for (int i = 0; i < QB_SPIN_BYTES; i++) codes[i] = (uint8_t)(i & 15);
    for (int i = 0; i < QB_SPIN_WORDS; i++) words[i] = 0x01030507 * (i % 13 + 1);
    for (int64_t t = begin; t < end; t++) j->sink[t] = j->spin(SPIN_ROUNDS, codes, words);
}

static qb_status measure_whole(cpu_device *d, bool eight, double *op_per_s) {
    int64_t tasks = (int64_t)SPIN_TASKS * qb_threads_count(d->base.threads);
    spin_job j = {eight ? d->integer->spin_i8 : d->integer->spin_i16, NULL};
    qb_status st = qb_cpu_alloc(&d->base, QB_MEMORY_WORKSPACE, tasks * 4, &j.sink);
    if (st != QB_OK) return st;
    *op_per_s = 0;
    int64_t begun = qb_now_ns();
    for (int run = 0; run < 3 || (run < 20 && qb_now_ns() - begun < spin_budget_ns); run++) {
        int64_t start = qb_now_ns();
        qb_parallel_for(d->base.threads, tasks, 1, spin_tasks, &j);
        double operations = 2.0 * SPIN_ROUNDS * d->integer->spin_products * (double)tasks;
        double rate = operations / ((double)(qb_now_ns() - start) * 1e-9);
        if (rate > *op_per_s) *op_per_s = rate;
    }
    qb_cpu_free(&d->base, j.sink);
    return QB_OK;
}

/* The arrays of a measurement are no part of what a model needs: its figures come back as they were. */
qb_status qb_cpu_ceilings(qb_device *dev, qb_ceilings *out) {
    cpu_device *d = cpu_of(dev);
    if (!d->ceilings_known) {
        qb_memory before = d->memory;
        qb_status st = measure_read(d, &d->ceilings.read_bytes_per_s);
        if (st == QB_OK) st = measure_gemm(d, &d->ceilings.gemm_flop_per_s);
        if (st == QB_OK) st = measure_whole(d, true, &d->ceilings.int8_op_per_s);
        if (st == QB_OK) st = measure_whole(d, false, &d->ceilings.int16_op_per_s);
        d->memory = before;
        if (st != QB_OK) return st;
        d->ceilings_known = true;
    }
    *out = d->ceilings;
    return QB_OK;
}

struct cJSON *qb_cpu_describe(qb_device *dev) {
    qb_json *json = qb_json_object();
    qb_json_put_int(json, "threads", qb_threads_count(dev->threads));
    qb_json_put_text(json, "simd", cpu_of(dev)->simd->name);
    qb_json_put_text(json, "blas", qb_blas_core());
    qb_json_put_text(json, "blas_config", openblas_get_config());
    return json;
}
