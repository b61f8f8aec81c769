/* Which node's threads touch which pages first, and which read them. Two processors are told to be two nodes;
   where the program gives pages back to the system, the test takes away the right to touch them, so that the
   first touch of each page is a fault, of which it notes the processor. */
#define _GNU_SOURCE
#include "tests/numa_tree.h"
#include "tests/said.h"
#include "tests/weight_support.h"

#include "kernels/cpu/device.h"
#include "model/decoder.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

/* ---- the recorder ---- */

enum { RANGES_MAX = 64, PAGES_MAX = 1 << 16, NOBODY = -1 };
typedef struct {
    uintptr_t begin, end;
    int first; /* its pages' place in the records */
} range;

static range ranges[RANGES_MAX];
static int n_ranges, n_pages, given_back, small_pages;
static bool watching; /* whether ranges are taken up */
static _Atomic int touched[PAGES_MAX], read_by[PAGES_MAX];
static _Atomic int *noting; /* of the two */
static uintptr_t page_bytes;
static qb_nodes nodes;
static struct sigaction before;

static int node_here(void) {
    int cpu = sched_getcpu(), node = 0;
    while (node < nodes.n && !(nodes.node[node].cpus.word[cpu / 64] >> (cpu % 64) & 1)) node++;
    return node;
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr / page_bytes * page_bytes;
    for (int i = 0; i < n_ranges; i++) {
        if (at < ranges[i].begin || at >= ranges[i].end) continue;
        int nobody = NOBODY;
        atomic_compare_exchange_strong(&noting[ranges[i].first + (int)((at - ranges[i].begin) / page_bytes)],
                                       &nobody, node_here());
        mprotect((void *)at, page_bytes, PROT_READ | PROT_WRITE);
        return;
    }
    sigaction(SIGSEGV, &before, NULL); /* not ours: the same instruction faults again */
}

/* In the place of the C library's. */
int madvise(void *memory, size_t bytes, int advice) {
    int rc = (int)syscall(SYS_madvise, memory, bytes, advice);
    small_pages += advice == MADV_NOHUGEPAGE;
    if (advice != MADV_DONTNEED) return rc;
    given_back++;
    if (!watching || rc != 0) return rc;
    range r = {(uintptr_t)memory, (uintptr_t)memory + bytes, n_pages};
    n_pages += (int)(bytes / page_bytes);
    if (n_ranges == RANGES_MAX || n_pages > PAGES_MAX) abort();
    ranges[n_ranges++] = r;
    mprotect(memory, bytes, PROT_NONE);
    return rc;
}

static void watch_begin(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    n_ranges = n_pages = 0;
    for (int i = 0; i < PAGES_MAX; i++) touched[i] = read_by[i] = NOBODY;
    noting = touched;
    watching = true;
    assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
}

static void check_all_touched(void) {
    assert_true(n_pages > 0);
    for (int i = 0; i < n_pages; i++) assert_true(touched[i] != NOBODY);
}

/* From here on it is noted who reads. */
static void watch_reading(void) {
    watching = false;
    check_all_touched();
    noting = read_by;
    for (int i = 0; i < n_ranges; i++)
        mprotect((void *)ranges[i].begin, ranges[i].end - ranges[i].begin, PROT_NONE);
}

static void watch_end(void) {
    for (int i = 0; i < n_ranges; i++)
        mprotect((void *)ranges[i].begin, ranges[i].end - ranges[i].begin, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &before, NULL);
}

/* Each node read so many pages (the second none, where nothing is its own), and where they were touched. A
   page that two shares meet in is either's: one in a range. */
static void check_read(int pages_least, bool second) {
    int seen[2] = {0}, elsewhere = 0;
    for (int i = 0; i < n_pages; i++) {
        if (read_by[i] == NOBODY) continue;
        seen[read_by[i]]++;
        elsewhere += read_by[i] != touched[i];
    }
    if (seen[0] < pages_least || (second ? seen[1] < pages_least : seen[1] > 0) || elsewhere > n_ranges)
        fail_msg(
            "%d and %d pages were read, at least %d and %s expected; %d were touched by another node, at "
            "most %d expected",
            seen[0], seen[1], pages_least, second ? "as many" : "none", elsewhere, n_ranges);
}

/* ---- loops in step ---- */

/* Threads take tasks side by side, so that none is done with its node's before the others and takes of
   theirs: the tasks of a loop are as many for each. */
static struct {
    int threads;
    _Atomic int arrived, alone;
} step;

static void keep_step(void) {
    int mine = atomic_fetch_add(&step.arrived, 1), round = mine / step.threads + 1;
    for (time_t begun = time(NULL); atomic_load(&step.arrived) < round * step.threads;) {
        if (time(NULL) - begun > 20) {
            atomic_fetch_add(&step.alone, 1);
            return;
        }
        sched_yield();
    }
}

static const qb_simd *loops; /* what is stepped through */
static void step_dense_f32(const void *w, int64_t cols, int64_t n_rows, const float *x, int64_t T, float *y,
                           int64_t ldy) {
    keep_step();
    loops->dense_f32(w, cols, n_rows, x, T, y, ldy);
}
static void step_dense_f16(const void *w, int64_t cols, int64_t n_rows, const float *x, int64_t T, float *y,
                           int64_t ldy) {
    keep_step();
    loops->dense_f16(w, cols, n_rows, x, T, y, ldy);
}
static void step_dense_bf16(const void *w, int64_t cols, int64_t n_rows, const float *x, int64_t T, float *y,
                            int64_t ldy) {
    keep_step();
    loops->dense_bf16(w, cols, n_rows, x, T, y, ldy);
}
static void step_attend_f16(const float *q, int64_t heads, int64_t dim, int64_t value_dim, const void *k,
                            const void *v, int64_t n_keys, const qb_score_rule *rule, float *scores,
                            float *largest, float *sum, float *out) {
    keep_step();
    loops->attend_f16(q, heads, dim, value_dim, k, v, n_keys, rule, scores, largest, sum, out);
}
static void step_attend_f32(const float *q, int64_t heads, int64_t dim, int64_t value_dim, const void *k,
                            const void *v, int64_t n_keys, const qb_score_rule *rule, float *scores,
                            float *largest, float *sum, float *out) {
    keep_step();
    loops->attend_f32(q, heads, dim, value_dim, k, v, n_keys, rule, scores, largest, sum, out);
}
/* Of one token, which is the first tile's. */
static void step_packed(const qb_packed *p, int64_t begin, int64_t end, const float *x, const float *sums,
                        int64_t tokens, float *y, int64_t ldy) {
    keep_step();
    loops->tiles[0].fn[p->kind](p, begin, end, x, sums, tokens, y, ldy);
}

static void step_through(qb_device *dev) {
    static qb_simd stepped;
    static qb_packed_tile tile;
    loops = cpu_of(dev)->simd;
    step.threads = qb_threads_count(dev->threads);
    step.arrived = step.alone = 0;
    stepped = *loops;
    stepped.dense_f32 = step_dense_f32, stepped.dense_f16 = step_dense_f16;
    stepped.dense_bf16 = step_dense_bf16;
    stepped.attend_f32 = step_attend_f32, stepped.attend_f16 = step_attend_f16;
    tile.tokens = loops->tiles[0].tokens;
    for (int k = 0; k < QB_PACK_COUNT; k++) tile.fn[k] = step_packed;
    stepped.tiles = &tile, stepped.n_tiles = 1;
    cpu_of(dev)->simd = &stepped;
}
static void step_end(qb_device *dev) {
    cpu_of(dev)->simd = loops;
    assert_int_equal(step.alone, 0); /* else fewer threads than there are took part */
    assert_true(step.arrived > 0 && step.arrived % step.threads == 0);
}

/* ---- devices ---- */

static const qb_backend *const cpu = &qb_backend_cpu;
static char *root;

/* What every test begins with. */
static void tell_two_nodes(void) {
    two_nodes_write(root, "0-1\n");
    setenv("BENCH_NUMA_ROOT", root, 1);
    assert_ok(qb_nodes_read(NULL, qb_cpus_allowed(), &nodes));
    assert_int_equal(nodes.n, 2);
}

static qb_device *open_at(qb_numa numa, int threads, int64_t memory_bytes) {
    qb_device *dev;
    assert_ok(cpu->open(&(qb_device_options){.threads = threads, .numa = numa, .memory_bytes = memory_bytes},
                        &dev));
    return dev;
}
/* On both nodes, by turns of threads to processors: three are two on the first node and one on the second. */
static qb_device *open_on_two(int threads) {
    qb_device *dev = open_at((qb_numa){QB_NUMA_AUTO, 0}, threads, 0);
    assert_int_equal(qb_threads_nodes(dev->threads), 2);
    return dev;
}

/* ---- weights ---- */

/* Six tasks of rows for two threads, nine for three. */
static int64_t rows_for(int threads) {
    return (threads == 2 ? 6 : 9) * QB_ROWS_A_TASK - 10;
}

static void check_dense(qb_dtype dtype, int threads) {
    qb_device *dev = open_on_two(threads);
    int64_t rows = rows_for(threads), cols = 1000, n = rows * cols;
    float *values = noise_new(n), *x = noise_new(cols), *first = noise_new(rows), *y = noise_new(rows);
    uint16_t *half = NULL;
    assert_ok(qb_alloc((size_t)n, sizeof *half, &half));
    if (dtype == QB_DTYPE_F16) cpu_of(dev)->simd->f16_of_f32(values, n, half);
    if (dtype == QB_DTYPE_BF16) cpu_of(dev)->simd->bf16_of_f32(values, n, half);
    const void *bytes = dtype == QB_DTYPE_F32 ? (const void *)values : half;
    qb_weight weight = {.rows = rows, .cols = cols, .dtype = dtype, .dense = bytes};
    qb_memory memory;
    qb_matrix m;
    bool copied;
    assert_ok(cpu->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    assert_ptr_equal(m.dense, bytes);
    assert_ok(cpu->matmul(dev, first, x, 1, &m));
    watch_begin();
    assert_ok(cpu->matrix_settle(dev, &m, &copied));
    assert_true(copied && m.copied && m.dense != bytes);
    assert_int_equal(n_ranges, 1);
    watch_reading();
    step_through(dev);
    assert_ok(cpu->matmul(dev, y, x, 1, &m));
    step_end(dev);
    watch_end();
    check_read(60, true);
    assert_memory_equal(y, first, (size_t)rows * sizeof *y);
    cpu->memory(dev, &memory);
    assert_int_equal(memory.now_bytes[QB_MEMORY_WEIGHTS], m.bytes); /* not the view's too */
    assert_int_equal(memory.peak_bytes[QB_MEMORY_WEIGHTS], m.bytes);
    assert_ok(cpu->matrix_settle(dev, &m, &copied)); /* is there already */
    assert_false(copied);
    cpu->matrix_free(dev, &m);
    assert_no_memory(dev);
    cpu->close(dev);
    qb_free(values), qb_free(half), qb_free(x), qb_free(y), qb_free(first);
}

static void test_numa_memory__dense_weights_lie_where_they_are_read(void **state) {
    (void)state;
    tell_two_nodes();
    for (int threads = 2; threads <= 3; threads++) {
        check_dense(QB_DTYPE_BF16, threads);
        check_dense(QB_DTYPE_F16, threads);
        check_dense(QB_DTYPE_F32, threads);
    }
}

static void test_numa_memory__packed_weights_lie_where_they_are_read(void **state) {
    (void)state;
    tell_two_nodes();
    static const format four = {.name = "int4 g128 asym", .bits = 4, .group = 128};
    for (int threads = 2; threads <= 3; threads++) {
        qb_device *dev = open_on_two(threads);
        int64_t rows = rows_for(threads), cols = 2048;
        qb_weight weight = {.rows = rows, .cols = cols, .packed = weight_new(&four, rows, cols)};
        float *x = noise_new(cols), *y = noise_new(rows);
        qb_matrix m;
        watch_begin();
        assert_ok(cpu->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
        watch_reading();
        step_through(dev);
        assert_ok(cpu->matmul(dev, y, x, 1, &m));
        step_end(dev);
        watch_end();
        check_read(30, true);
        cpu->matrix_free(dev, &m);
        cpu->close(dev);
        qb_weight_free(&weight);
        qb_free(x), qb_free(y);
    }
}

/* ---- the cache ---- */

typedef struct {
    int threads;
    int64_t seq, heads, capacity; /* of the cache */
    int64_t n_seq, n_tok, first;  /* of the step */
    int64_t window;
    bool first_only; /* all that is read is the first node's */
    bool in_step;    /* as many tasks for each thread; where they are not, only the bits are compared */
} cache_case;

enum { DIM = 64, GROUP = 2, LAYERS = 2, LAYER = 1 };

static void cache_new(qb_device *dev, const cache_case *c, qb_dtype dtype, qb_kv *kv) {
    int64_t bytes = LAYERS * c->seq * c->heads * c->capacity * DIM * (int64_t)qb_dtype_bytes(dtype);
    *kv = (qb_kv){.dtype = dtype,
                  .n_layers = LAYERS,
                  .n_seq = c->seq,
                  .capacity = c->capacity,
                  .n_kv_heads = c->heads,
                  .head_dim = DIM,
                  .value_dim = DIM};
    assert_ok(cpu->alloc(dev, QB_MEMORY_KV, bytes, &kv->k));
    assert_ok(cpu->alloc(dev, QB_MEMORY_KV, bytes, &kv->v));
    cpu->kv_settle(dev, kv);
}

static void attend(qb_device *dev, const cache_case *c, const qb_kv *kv, const float *q, float *out) {
    qb_attend_attr attr = {.heads = c->heads * GROUP,
                           .kv_heads = c->heads,
                           .head_dim = DIM,
                           .value_dim = DIM,
                           .scale = 0.125f,
                           .window = c->window};
    assert_ok(cpu->attention(dev, &(qb_attention){.q = q,
                                                  .out = out,
                                                  .n_seq = c->n_seq,
                                                  .n_tok = c->n_tok,
                                                  .first = c->first,
                                                  .layer = LAYER,
                                                  .kv = kv,
                                                  .attr = &attr}));
}

static void check_cache(const cache_case *c, qb_dtype dtype) {
    int64_t stored = c->seq * (c->first + c->n_tok) * c->heads * DIM;
    int64_t outs = c->n_seq * c->n_tok * c->heads * GROUP * DIM;
    float *k = noise_new(stored), *v = noise_new(stored), *q = noise_new(outs), *y = noise_new(outs);
    float *want = noise_new(outs);
    qb_device *one = open_at((qb_numa){QB_NUMA_OFF, 0}, c->threads, 0), *two = open_on_two(c->threads);
    qb_kv kv;
    cache_new(one, c, dtype, &kv);
    assert_ok(cpu->kv_store(one, &kv, LAYER, k, v, c->seq, c->first + c->n_tok, 0));
    attend(one, c, &kv, q, want);
    cpu->free(one, kv.k), cpu->free(one, kv.v);
    cpu->close(one);
    watch_begin();
    cache_new(two, c, dtype, &kv);
    assert_int_equal(n_ranges, 2 * LAYERS);
    check_all_touched();
    assert_ok(cpu->kv_store(two, &kv, LAYER, k, v, c->seq, c->first + c->n_tok, 0));
    watch_reading();
    if (c->in_step) step_through(two);
    attend(two, c, &kv, q, y);
    if (c->in_step) step_end(two);
    watch_end();
    if (c->in_step || c->first_only) check_read(4, !c->first_only);
    assert_memory_equal(y, want, (size_t)outs * sizeof *y);
    cpu->free(two, kv.k), cpu->free(two, kv.v);
    assert_no_memory(two);
    cpu->close(two);
    qb_free(k), qb_free(v), qb_free(q), qb_free(y), qb_free(want);
}

static void test_numa_memory__the_cache_lies_where_decode_reads_it(void **state) {
    (void)state;
    tell_two_nodes();
    static const cache_case cases[] = {
        {.threads = 2, .seq = 1, .heads = 4, .capacity = 700, .n_seq = 1, .n_tok = 1, .first = 650},
        {.threads = 2, .seq = 1, .heads = 4, .capacity = 2000, .n_seq = 1, .n_tok = 1, .first = 90},
        /* A head of which each node has a half. */
        {.threads = 2, .seq = 1, .heads = 3, .capacity = 1024, .n_seq = 1, .n_tok = 1, .first = 1023},
        {.threads = 2, .seq = 1, .heads = 1, .capacity = 2048, .n_seq = 1, .n_tok = 1, .first = 2000},
        {.threads = 2, .seq = 2, .heads = 1, .capacity = 600, .n_seq = 2, .n_tok = 1, .first = 100},
        {.threads = 3, .seq = 1, .heads = 3, .capacity = 512, .n_seq = 1, .n_tok = 1, .first = 500},
        {.threads = 3, .seq = 2, .heads = 3, .capacity = 999, .n_seq = 2, .n_tok = 1, .first = 900},
        {.threads = 2, .seq = 1, .heads = 2, .capacity = 512, .n_seq = 1, .n_tok = 2, .first = 300},
        {.threads = 2,
         .seq = 1,
         .heads = 2,
         .capacity = 2048,
         .n_seq = 1,
         .n_tok = 1,
         .first = 1500,
         .window = 600},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cache_case c = cases[i];
        c.in_step = true;
        check_cache(&c, QB_DTYPE_F16);
        check_cache(&c, QB_DTYPE_F32);
    }
}

/* Of few sequences or the begin of the context, tasks are not divided evenly. */
static void test_numa_memory__parts_of_the_cache_are_read_where_they_lie(void **state) {
    (void)state;
    tell_two_nodes();
    static const cache_case cases[] = {
        {.threads = 2, .seq = 2, .heads = 2, .capacity = 600, .n_seq = 1, .n_tok = 1, .first = 550},
        {.threads = 3, .seq = 3, .heads = 1, .capacity = 600, .n_seq = 2, .n_tok = 3, .first = 550},
        {.threads = 2, .seq = 1, .heads = 1, .capacity = 2048, .n_seq = 1, .n_tok = 1, .first = 1000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cache_case c = cases[i];
        c.first_only = true;
        check_cache(&c, QB_DTYPE_F16);
    }
}

static void test_numa_memory__fewer_sequences_and_short_contexts_change_no_bit(void **state) {
    (void)state;
    tell_two_nodes();
    static const cache_case cases[] = {
        {.threads = 2, .seq = 3, .heads = 1, .capacity = 600, .n_seq = 2, .n_tok = 1, .first = 550},
        {.threads = 3, .seq = 2, .heads = 1, .capacity = 5000, .n_seq = 2, .n_tok = 3, .first = 100},
        {.threads = 2, .seq = 1, .heads = 5, .capacity = 1400, .n_seq = 1, .n_tok = 4, .first = 900},
        {.threads = 2, .seq = 2, .heads = 3, .capacity = 600, .n_seq = 2, .n_tok = 40, .first = 550},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_cache(&cases[i], QB_DTYPE_F16);
}

/* A huge page is one node's: small shares are of small ones. */
static void test_numa_memory__huge_pages_of_large_shares_alone(void **state) {
    (void)state;
    tell_two_nodes();
    qb_device *dev = open_on_two(2);
    const cache_case small = {.seq = 1, .heads = 4, .capacity = 4096},
                     large = {.seq = 1, .heads = 2, .capacity = 1 << 16};
    qb_kv kv;
    small_pages = 0;
    cache_new(dev, &large, QB_DTYPE_F32, &kv);
    assert_int_equal(small_pages, 0);
    cpu->free(dev, kv.k), cpu->free(dev, kv.v);
    cache_new(dev, &small, QB_DTYPE_F32, &kv);
    assert_int_equal(small_pages, 2);
    cpu->free(dev, kv.k), cpu->free(dev, kv.v);
    cpu->close(dev);
}

/* ---- where nothing is to be gained ---- */

/* Neither a copy nor a page is touched. */
static void check_left_alone(qb_device *dev, qb_dtype dtype, int64_t rows, const float *values) {
    const cache_case c = {.seq = 1, .heads = 4, .capacity = 4096};
    qb_weight weight = {.rows = rows, .cols = 1000, .dtype = dtype, .dense = values};
    qb_matrix m;
    qb_kv kv;
    bool copied = true;
    assert_ok(cpu->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    given_back = small_pages = 0;
    assert_ok(cpu->matrix_settle(dev, &m, &copied));
    assert_false(copied);
    assert_ptr_equal(m.dense, values);
    if (qb_threads_nodes(dev->threads) == 1) {
        cache_new(dev, &c, QB_DTYPE_F16, &kv);
        cpu->free(dev, kv.k), cpu->free(dev, kv.v);
    }
    assert_int_equal(given_back + small_pages, 0);
    cpu->matrix_free(dev, &m);
    assert_no_memory(dev);
    cpu->close(dev);
}

/* As on a system that gives none. */
static qb_device *without_huge_pages(qb_device *dev) {
    cpu_of(dev)->settles = qb_places_matter(&cpu_of(dev)->places);
    return dev;
}
static qb_device *with_huge_pages(qb_device *dev) {
    cpu_of(dev)->settles = true;
    return dev;
}

static void test_numa_memory__one_node_without_huge_pages_is_left_alone(void **state) {
    (void)state;
    tell_two_nodes();
    float *values = noise_new(400 * 1000);
    check_left_alone(without_huge_pages(open_at((qb_numa){QB_NUMA_OFF, 0}, 2, 0)), QB_DTYPE_F32, 400, values);
    check_left_alone(without_huge_pages(open_at((qb_numa){QB_NUMA_AUTO, 0}, 1, 0)), QB_DTYPE_F32, 400,
                     values);
    check_left_alone(open_on_two(2), QB_DTYPE_F32, 20, values); /* which the caller reads alone */
    setenv("BENCH_NUMA_ROOT", "/nowhere", 1);                   /* a system without nodes */
    check_left_alone(without_huge_pages(open_at((qb_numa){QB_NUMA_AUTO, 0}, 2, 0)), QB_DTYPE_F32, 400,
                     values);
    check_left_alone(without_huge_pages(open_at((qb_numa){QB_NUMA_NODE, 0}, 2, 0)), QB_DTYPE_F32, 400,
                     values);
    qb_free(values);
}

static void check_copied(qb_device *dev, const float *values) {
    qb_weight weight = {.rows = 400, .cols = 1000, .dtype = QB_DTYPE_F32, .dense = values};
    qb_matrix m;
    bool copied;
    assert_ok(cpu->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    given_back = 0;
    assert_ok(cpu->matrix_settle(dev, &m, &copied));
    assert_true(copied);
    assert_memory_equal(m.dense, values, 400 * 1000 * 4);
    if (qb_threads_nodes(dev->threads) == 1) assert_int_equal(given_back, 0); /* no page is placed */
    cpu->matrix_free(dev, &m);
    assert_no_memory(dev);
    cpu->close(dev);
}

/* A system says which of three it does; one that has no such file gives none. */
static void test_numa_memory__huge_pages_of_one_node(void **state) {
    (void)state;
    static const struct {
        const char *said;
        bool given;
    } systems[] = {{"always madvise [never]\n", false},
                   {"always [madvise] never\n", true},
                   {"[always] madvise never\n", true},
                   {"", false}};
    char *path = qb_path_join(root, "enabled");
    float *values = noise_new(400 * 1000);
    assert_false(qb_huge_pages_given("/nowhere/enabled"));
    for (size_t i = 0; i < sizeof systems / sizeof *systems; i++) {
        assert_ok(qb_file_write_atomic(path, systems[i].said, strlen(systems[i].said)));
        assert_int_equal(qb_huge_pages_given(path), systems[i].given);
    }
    tell_two_nodes();
    qb_device *dev = open_at((qb_numa){QB_NUMA_OFF, 0}, 2, 0);
    assert_int_equal(cpu_of(dev)->settles, qb_huge_pages_given(NULL));
    check_copied(with_huge_pages(dev), values);
    check_copied(with_huge_pages(open_at((qb_numa){QB_NUMA_AUTO, 0}, 1, 0)), values);
    qb_free(values), qb_free(path);
}

/* All threads on one node of two: its file may lie on the other. */
static void test_numa_memory__a_chosen_node_has_the_copy(void **state) {
    (void)state;
    tell_two_nodes();
    float *values = noise_new(400 * 1000);
    check_copied(open_at((qb_numa){QB_NUMA_NODE, 1}, 2, 0), values);
    qb_free(values);
}

static void test_numa_memory__no_room_for_a_copy_is_said_once(void **state) {
    (void)state;
    tell_two_nodes();
    const int64_t bytes = 400 * 1000 * 4;
    float *values = noise_new(400 * 1000);
    qb_device *dev = open_at((qb_numa){QB_NUMA_AUTO, 0}, 2, 4 * bytes);
    qb_weight weight = {.rows = 400, .cols = 1000, .dtype = QB_DTYPE_F32, .dense = values};
    qb_matrix m[3];
    said[0] = 0;
    qb_log_capture(keep, NULL);
    for (int i = 0; i < 3; i++) {
        bool copied;
        assert_ok(cpu->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m[i]));
        assert_ok(cpu->matrix_settle(dev, &m[i], &copied));
        assert_int_equal(copied, i < 2); /* 3 and 2 of 4 are free, then 1 */
    }
    qb_log_capture(NULL, NULL);
    const char *line = strstr(said, "small pages on whichever memory node, where one token after the other "
                                    "reads them more slowly: a copy of 1.60 MB is made only where twice that "
                                    "is available, found 1.60 MB");
    assert_non_null(line);
    assert_string_equal(strchr(line, '\n'), "\n"); /* and no other */
    for (int i = 0; i < 3; i++) cpu->matrix_free(dev, &m[i]);
    assert_no_memory(dev);
    cpu->close(dev);
    qb_free(values);
}

/* ---- a model ---- */

enum { TOKENS = 24 };

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\","
    "\"hidden_size\":256,\"intermediate_size\":640,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":1,\"vocab_size\":1024,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,"
    "\"rope_theta\":10000.0,\"tie_word_embeddings\":%s,\"torch_dtype\":\"float16\"}";

/* Logits of a prompt and of tokens behind it, one by one; whether the model's weights are copies. */
static void run_model(const char *spec, qb_device *dev, bool copies, float *logits) {
    qb_workspace ws;
    qb_model *m;
    qb_kv kv;
    float *x;
    int32_t ids[TOKENS];
    assert_ok(qb_model_open(spec, &m));
    assert_ok(qb_model_load(m, dev, TOKENS, true));
    for (int64_t l = 0; l < m->config.n_layers; l++)
        for (int64_t i = 0; i < m->blocks[l].w.n_modules; i++) {
            bool large = m->blocks[l].w.matrices[i].bytes >= QB_ALONE_BYTES; /* k and v are not */
            assert_int_equal(m->blocks[l].w.matrices[i].copied, copies && large);
            assert_int_equal(m->blocks[l].source[i].dense == NULL, copies && large);
        }
    const qb_matrix *head = &m->leave.w.matrices[m->topology.head];
    assert_int_equal(head->copied, copies);
    assert_int_equal(m->embed.copied, copies && m->head_is_embed); /* else rows of it alone are read */
    assert_int_equal(m->embed_source.dense == NULL, copies && m->head_is_embed);
    if (m->head_is_embed) assert_ptr_equal(head->dense, m->embed.dense);
    assert_ok(qb_workspace_create(m, TOKENS, &ws));
    assert_ok(qb_kv_create(m, QB_DTYPE_F16, m->config.n_layers, 1, TOKENS, &kv));
    assert_ok(cpu->alloc(dev, QB_MEMORY_ACTIVATIONS, TOKENS * m->config.hidden * 4, &x));
    for (int t = 0; t < TOKENS; t++) ids[t] = (t * 7919 + 13) % (int)m->config.vocab;
    for (int t = 0, n = TOKENS / 2; t < TOKENS; t += n, n = 1)
        assert_ok(
            qb_model_next(m, &ws, x, ids + t, &(qb_span){1, n, t, &kv, 0}, logits + t * m->config.vocab));
    cpu->free(dev, x);
    qb_kv_free(m, &kv);
    qb_workspace_free(m, &ws);
    qb_model_close(m);
    assert_no_memory(dev);
    cpu->close(dev);
}

static void test_numa_memory__a_model_is_copied_whole(void **state) {
    (void)state;
    tell_two_nodes();
    static const char *const tied[] = {"true", "false"};
    char *dir = scratch_make(), *path = qb_path_join(dir, "config.json"), spec[1024], text[1024];
    snprintf(spec, sizeof spec, "synthetic:%s", dir);
    for (int i = 0; i < 2; i++) {
        float *want = noise_new(TOKENS * 1024), *got = noise_new(TOKENS * 1024);
        memset(want, 0, TOKENS * 1024 * 4), memset(got, 0, TOKENS * 1024 * 4);
        snprintf(text, sizeof text, config, tied[i]);
        assert_ok(qb_file_write_atomic(path, text, strlen(text)));
        qb_device *const devices[] = {with_huge_pages(open_at((qb_numa){QB_NUMA_OFF, 0}, 2, 0)),
                                      open_at((qb_numa){QB_NUMA_AUTO, 0}, 2, 0),
                                      open_at((qb_numa){QB_NUMA_NODE, 1}, 2, 0)};
        run_model(spec, without_huge_pages(open_at((qb_numa){QB_NUMA_OFF, 0}, 2, 0)), false, want);
        for (int d = 0; d < 3; d++) {
            run_model(spec, devices[d], true, got);
            assert_memory_equal(got, want, TOKENS * 1024 * 4);
        }
        qb_free(want), qb_free(got);
    }
    scratch_remove(dir);
    qb_free(path);
}

static int begin(void **state) {
    (void)state;
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    root = scratch_make();
    return 0;
}
static int end(void **state) {
    (void)state;
    unsetenv("BENCH_NUMA_ROOT");
    scratch_remove(root);
    return 0;
}
int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numa_memory__dense_weights_lie_where_they_are_read),
        cmocka_unit_test(test_numa_memory__packed_weights_lie_where_they_are_read),
        cmocka_unit_test(test_numa_memory__the_cache_lies_where_decode_reads_it),
        cmocka_unit_test(test_numa_memory__parts_of_the_cache_are_read_where_they_lie),
        cmocka_unit_test(test_numa_memory__fewer_sequences_and_short_contexts_change_no_bit),
        cmocka_unit_test(test_numa_memory__huge_pages_of_large_shares_alone),
        cmocka_unit_test(test_numa_memory__one_node_without_huge_pages_is_left_alone),
        cmocka_unit_test(test_numa_memory__huge_pages_of_one_node),
        cmocka_unit_test(test_numa_memory__a_chosen_node_has_the_copy),
        cmocka_unit_test(test_numa_memory__no_room_for_a_copy_is_said_once),
        cmocka_unit_test(test_numa_memory__a_model_is_copied_whole),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
