#define _GNU_SOURCE
#include "base/threads.h"

#include "base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#else
#define RELAX() ((void)0)
#endif

/* Decode calls a loop every few tens of microseconds, so workers spin a while before they sleep. */
enum { SPINS = 20000 };

typedef struct {
    struct qb_threads *pool;
    int index;
} worker_args;

struct qb_threads {
    int count;
    pthread_t *ids;
    worker_args *args;
    pthread_mutex_t lock;
    pthread_cond_t wake, finished;
    _Atomic uint32_t generation; /* one loop, one generation */
    _Atomic int running;         /* workers not yet done with this generation */
    _Atomic int64_t next;        /* next chunk */
    _Atomic bool stop;
    int sleeping;
    qb_range_fn fn;
    void *ctx;
    int64_t n, grain;
};

int qb_cores_available(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static void take_chunks(qb_threads *t, int worker) {
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed) * t->grain;
        if (begin >= t->n) return;
        int64_t end = begin + t->grain < t->n ? begin + t->grain : t->n;
        t->fn(t->ctx, begin, end, worker);
    }
}

static void *worker_main(void *pointer) {
    worker_args *a = pointer;
    qb_threads *t = a->pool;
    uint32_t seen = 0;
    for (;;) {
        int spins = 0;
        while (atomic_load_explicit(&t->generation, memory_order_acquire) == seen) {
            if (++spins < SPINS) {
                RELAX();
                continue;
            }
            pthread_mutex_lock(&t->lock);
            t->sleeping++;
            while (atomic_load(&t->generation) == seen) pthread_cond_wait(&t->wake, &t->lock);
            t->sleeping--;
            pthread_mutex_unlock(&t->lock);
        }
        seen++;
        if (atomic_load(&t->stop)) return NULL;
        take_chunks(t, a->index);
        if (atomic_fetch_sub_explicit(&t->running, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&t->lock);
            pthread_cond_signal(&t->finished);
            pthread_mutex_unlock(&t->lock);
        }
    }
}

static void start_generation(qb_threads *t) {
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add_explicit(&t->generation, 1, memory_order_release);
    if (t->sleeping) pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

qb_status qb_threads_create(int n, qb_threads **out) {
    *out = NULL;
    if (n <= 0) n = qb_cores_available();
    qb_threads *t;
    qb_status st = qb_alloc_zero(1, sizeof *t, &t);
    if (st != QB_OK) return st;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    pthread_cond_init(&t->finished, NULL);
    t->count = 1;
    if ((st = qb_alloc_zero((size_t)n, sizeof *t->ids, &t->ids)) == QB_OK)
        st = qb_alloc_zero((size_t)n, sizeof *t->args, &t->args);
    for (int i = 1; st == QB_OK && i < n; i++) {
        t->args[i] = (worker_args){t, i};
        int rc = pthread_create(&t->ids[i], NULL, worker_main, &t->args[i]);
        if (rc != 0)
            st = qb_fail(QB_ERR_MEMORY, "cannot start thread %d of %d: %s; try fewer --threads", i + 1, n,
                         strerror(rc));
        else
            t->count = i + 1;
    }
    if (st != QB_OK) {
        qb_threads_free(t);
        return st;
    }
    *out = t;
    return QB_OK;
}

void qb_threads_free(qb_threads *t) {
    if (!t) return;
    atomic_store(&t->stop, true);
    start_generation(t);
    for (int i = 1; i < t->count; i++) pthread_join(t->ids[i], NULL);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->wake);
    pthread_cond_destroy(&t->finished);
    qb_free(t->ids);
    qb_free(t->args);
    qb_free(t);
}

int qb_threads_count(const qb_threads *threads) {
    return threads ? threads->count : 1;
}

void qb_parallel_for(qb_threads *t, int64_t n, int64_t grain, qb_range_fn fn, void *ctx) {
    if (n <= 0) return;
    if (grain < 1) grain = 1;
    if (!t || t->count == 1 || n <= grain) {
        for (int64_t begin = 0; begin < n; begin += grain)
            fn(ctx, begin, begin + grain < n ? begin + grain : n, 0);
        return;
    }
    t->fn = fn;
    t->ctx = ctx;
    t->n = n;
    t->grain = grain;
    atomic_store_explicit(&t->next, 0, memory_order_relaxed);
    atomic_store_explicit(&t->running, t->count - 1, memory_order_relaxed);
    start_generation(t);
    take_chunks(t, 0);
    for (int spins = 0; atomic_load_explicit(&t->running, memory_order_acquire) > 0; spins++) {
        if (spins < SPINS) {
            RELAX();
            continue;
        }
        pthread_mutex_lock(&t->lock);
        while (atomic_load(&t->running) > 0) pthread_cond_wait(&t->finished, &t->lock);
        pthread_mutex_unlock(&t->lock);
    }
}
