/* What this machine can do at best, measured: speed results quote their share of it. */
#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/device.h"

#include <cblas.h>
#include <math.h>
#include <string.h>
#include <time.h>

/* ---- the best of some runs ---- */

/* Runs go on until none of the last CALM was better by more than GAIN; where other work took the processors
   meanwhile, for as long as PATIENCE in the hope that it ends. Linux adds to a running thread's time at its
   ticks, up to 10 ms apart, so that a share is told of BATCH of runs. */
enum { CALM = 6 };
static const double gain = 0.01, whole_cpu = 0.95, batch_s = 0.2, patience_s = 1.5, most_s = 3;

typedef struct {
    int threads;      /* that work in a run */
    double amount;    /* of a run */
    double best_rate; /* of a run */
    double cpu_share; /* of the batch that holds it */
    int calm;         /* runs since it was last passed */
} probe;

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double seconds_since(int64_t ns) {
    return (double)(qb_now_ns() - ns) * 1e-9;
}

static void run_batch(probe *p, void (*run)(void *ctx), void *ctx) {
    const double threads = p->threads, best = p->best_rate, cpu = cpu_seconds();
    const int64_t begun = qb_now_ns();
    do {
        int64_t start = qb_now_ns();
        run(ctx);
        double rate = p->amount / seconds_since(start);
        p->calm = rate > p->best_rate * (1 + gain) ? 0 : p->calm + 1;
        p->best_rate = fmax(rate, p->best_rate);
    } while (seconds_since(begun) < batch_s);
    if (p->best_rate > best) p->cpu_share = fmin((cpu_seconds() - cpu) / (seconds_since(begun) * threads), 1);
}

static void find_best(probe *p, void (*run)(void *ctx), void *ctx) {
    const int64_t begun = qb_now_ns();
    double spent = 0;
    while (spent < most_s && (p->calm < CALM || (p->cpu_share < whole_cpu && spent < patience_s))) {
        run_batch(p, run, ctx);
        spent = seconds_since(begun);
    }
}

static void keep(const probe *p, double *rate, qb_ceilings *out) {
    *rate = p->best_rate;
    if (!(out->cpu_share > 0 && out->cpu_share < p->cpu_share)) out->cpu_share = p->cpu_share;
}

/* ---- reading ---- */

enum { READ_CHUNK = 1 << 20, READ_GRAIN = 4 };
static const int64_t read_bytes = 1LL << 30; /* beyond any cache */

typedef struct {
    cpu_device *d;
    float *data;
    float *sink; /* one a chunk: the sums must not be optimised away */
    int64_t n_chunk;
    int node; /* whose threads read, and from where: */
    int64_t first;
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
        j->sink[c] = j->d->simd->sum(j->data + c * (READ_CHUNK / 4), READ_CHUNK / 4);
}

static void read_all(void *ctx) {
    read_job *j = ctx;
    qb_parallel_for(j->d->base.threads, j->n_chunk, READ_GRAIN, read_chunks, j);
}

static void read_part(void *ctx, int64_t begin, int64_t end, int worker) {
    const read_job *j = ctx;
    read_chunks(ctx, j->first + begin, j->first + end, worker);
}

static void read_node(void *ctx) {
    read_job *j = ctx;
    qb_parallel_on_node(j->d->base.threads, j->node, j->n_chunk, READ_GRAIN, read_part, j);
}

/* What each node's threads read of their own part alone. */
static void measure_nodes(const read_job *all) {
    cpu_device *d = all->d;
    const int64_t tasks = all->n_chunk / READ_GRAIN;
    for (int k = 0; k < d->places.n_nodes && qb_threads_nodes(d->base.threads) > 1; k++) {
        read_job j = *all;
        j.node = k;
        j.first = qb_threads_boundary(d->base.threads, tasks, k) * READ_GRAIN;
        j.n_chunk = qb_threads_boundary(d->base.threads, tasks, k + 1) * READ_GRAIN - j.first;
        probe p = {.threads = d->places.first[k + 1] - d->places.first[k],
                   .amount = (double)(j.n_chunk * READ_CHUNK)};
        find_best(&p, read_node, &j);
        d->node_read[k] = p.best_rate;
    }
}

static qb_status measure_read(cpu_device *d, qb_ceilings *out) {
    read_job j = {.d = d, .n_chunk = read_bytes / READ_CHUNK};
    probe p = {.threads = qb_threads_count(d->base.threads), .amount = (double)read_bytes};
    float *block = NULL;
    qb_status st = qb_cpu_alloc(&d->base, QB_MEMORY_WORKSPACE, read_bytes + j.n_chunk * 4, &block);
    if (st != QB_OK) return qb_fail_prefix(st, "measuring the read bandwidth");
    j.data = block, j.sink = block + read_bytes / 4;
    qb_parallel_at_home(d->base.threads, NULL, j.n_chunk, READ_GRAIN, fill_chunks, &j);
    find_best(&p, read_all, &j);
    keep(&p, &out->read_bytes_per_s, out);
    measure_nodes(&j);
    qb_cpu_free(&d->base, block);
    return QB_OK;
}

/* ---- products of float32 ---- */

enum { MATRIX = 2048 };

typedef struct {
    cpu_device *d;
    const float *a, *b;
    float *c;
} gemm_job;

static void multiply(void *ctx) {
    const gemm_job *j = ctx;
    qb_gemm(j->d->base.threads, false, true, MATRIX, MATRIX, MATRIX, 1.0f, j->a, MATRIX, j->b, MATRIX, 0.0f,
            j->c, MATRIX);
}

static qb_status measure_gemm(cpu_device *d, qb_ceilings *out) {
    const int64_t n = MATRIX;
    probe p = {.threads = qb_threads_count(d->base.threads),
               .amount = 2.0 * (double)n * (double)n * (double)n};
    float *a;
    qb_status st = qb_cpu_alloc(&d->base, QB_MEMORY_WORKSPACE, 3 * n * n * 4, &a);
    if (st != QB_OK) return st;
    for (int64_t i = 0; i < 2 * n * n; i++) a[i] = (float)(i % 251) * 0.004f - 0.5f;
    memset(a + 2 * n * n, 0, (size_t)(n * n) * 4);
    gemm_job j = {d, a, a + n * n, a + 2 * n * n};
    find_best(&p, multiply, &j);
    keep(&p, &out->gemm_flop_per_s, out);
    qb_cpu_free(&d->base, a);
    return QB_OK;
}

typedef struct {
    cpu_device *d;
    const qb_matrix *w;
    const float *x;
    float *y;
    qb_status st;
} dense_job;

static void multiply_dense(void *ctx) {
    dense_job *j = ctx;
    if (j->st == QB_OK) j->st = qb_cpu_matmul(&j->d->base, j->y, j->x, MATRIX, j->w);
}

/* Bfloat16 weights are one part (simd.h), the fewest products. */
static qb_status measure_dense(cpu_device *d, qb_ceilings *out) {
    const int64_t n = MATRIX;
    probe p = {.threads = qb_threads_count(d->base.threads),
               .amount = 2.0 * (double)n * (double)n * (double)n};
    float *x;
    if (!d->simd->bf16) return QB_OK;
    qb_status st = qb_cpu_alloc(&d->base, QB_MEMORY_WORKSPACE, 2 * n * n * 4 + n * n * 2, &x);
    if (st != QB_OK) return st;
    uint16_t *weights = (uint16_t *)(void *)(x + 2 * n * n);
    for (int64_t i = 0; i < n * n; i++) x[i] = (float)(i % 251) * 0.004f - 0.5f;
    memset(x + n * n, 0, (size_t)(n * n) * 4);
    d->simd->bf16_of_f32(x, n * n, weights);
    const qb_matrix w = {.rows = n, .cols = n, .dtype = QB_DTYPE_BF16, .dense = weights, .bytes = n * n * 2};
    dense_job j = {d, &w, x, x + n * n, QB_OK};
    find_best(&p, multiply_dense, &j);
    keep(&p, &out->dense_flop_per_s, out);
    qb_cpu_free(&d->base, x);
    return j.st;
}

/* ---- products in whole numbers ---- */

enum { SPIN_ROUNDS = 1 << 16, SPIN_TASKS = 8 }; /* tasks a thread: one that is held up delays a part */

typedef struct {
    cpu_device *d;
    uint32_t (*spin)(int64_t rounds, const uint8_t *codes, const int32_t *words);
    uint32_t *sink; /* one a task */
    int64_t tasks;
} spin_job;

static void spin_tasks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const spin_job *j = ctx;
    uint8_t codes[QB_SPIN_BYTES];
    int32_t words[QB_SPIN_WORDS];
    for (int i = 0; i < QB_SPIN_BYTES; i++) codes[i] = (uint8_t)(i & QB_SPIN_MOST);
    for (int i = 0; i < QB_SPIN_WORDS; i++) words[i] = 0x01030507 * (i % 13 + 1);
    for (int64_t t = begin; t < end; t++) j->sink[t] = j->spin(SPIN_ROUNDS, codes, words);
}

static void spin_all(void *ctx) {
    spin_job *j = ctx;
    qb_parallel_for(j->d->base.threads, j->tasks, 1, spin_tasks, j);
}

static qb_status measure_whole(cpu_device *d, bool eight, qb_ceilings *out) {
    spin_job j = {.d = d,
                  .spin = eight ? d->integer->spin_i8 : d->integer->spin_i16,
                  .tasks = (int64_t)SPIN_TASKS * qb_threads_count(d->base.threads)};
    probe p = {.threads = qb_threads_count(d->base.threads),
               .amount = 2.0 * SPIN_ROUNDS * d->integer->spin_products * (double)j.tasks};
    qb_status st = qb_cpu_alloc(&d->base, QB_MEMORY_WORKSPACE, j.tasks * 4, &j.sink);
    if (st != QB_OK) return st;
    find_best(&p, spin_all, &j);
    keep(&p, eight ? &out->int8_op_per_s : &out->int16_op_per_s, out);
    qb_cpu_free(&d->base, j.sink);
    return QB_OK;
}

/* The arrays of a measurement are no part of what a model needs: its figures come back as they were. */
qb_status qb_cpu_ceilings(qb_device *dev, qb_ceilings *out) {
    cpu_device *d = cpu_of(dev);
    if (!d->ceilings_known) {
        qb_memory before = d->memory;
        d->ceilings = (qb_ceilings){0};
        qb_status st = measure_read(d, &d->ceilings);
        if (st == QB_OK) st = measure_gemm(d, &d->ceilings);
        if (st == QB_OK) st = measure_dense(d, &d->ceilings);
        if (st == QB_OK) st = measure_whole(d, true, &d->ceilings);
        if (st == QB_OK) st = measure_whole(d, false, &d->ceilings);
        d->memory = before;
        if (st != QB_OK) return st;
        d->ceilings_known = true;
    }
    *out = d->ceilings;
    return QB_OK;
}

/* What qb_cpu_place and the settling of matrices and caches are for, and what they are not. */
static const char *const placed[] = {"packed weights", "dense weights of a model that is loaded whole",
                                     "keys and values"};
static const char *const not_placed[] = {"dense weights that are read block by block",
                                         "embedding tables that are no head", "recurrent states",
                                         "activations"};

static void put_texts(const char *key, const char *const *texts, size_t n, qb_json *to) {
    qb_json *array = qb_json_array();
    for (size_t i = 0; i < n; i++) qb_json_push_text(array, texts[i]);
    qb_json_put(to, key, array);
}

struct cJSON *qb_cpu_describe(qb_device *dev) {
    qb_json *json = qb_json_object();
    qb_json_put_int(json, "threads", qb_threads_count(dev->threads));
    qb_json_put_text(json, "simd", cpu_of(dev)->simd->name);
    qb_json_put_text(json, "integer", cpu_of(dev)->integer->name);
    qb_json_put_text(json, "blas", qb_blas_core());
    qb_json_put_text(json, "blas_config", openblas_get_config());
    qb_places_describe(cpu_of(dev)->numa, &cpu_of(dev)->places, cpu_of(dev)->node_read, json);
    if (qb_places_matter(&cpu_of(dev)->places)) {
        put_texts("placed", placed, sizeof placed / sizeof *placed, json);
        put_texts("not_placed", not_placed, sizeof not_placed / sizeof *not_placed, json);
    }
    return json;
}
