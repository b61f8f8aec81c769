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
enum { SPINS = 4000 }; /* about 0.2 ms */

typedef struct {
    struct qb_threads *pool;
    int index;
} worker_args;

/* A loop is published in one word: its generation above, its chunks not yet taken below. Taking a chunk is
   one compare-and-swap of that word, so a thread that comes late (the system had put it aside) cannot take
   part in a loop that is over, and nobody waits for it: a loop ends when its chunks are done, not when every
   thread has looked at it. */
typedef uint64_t ticket;
static uint32_t chunks_left(ticket t) {
    return (uint32_t)t;
}
static ticket ticket_make(uint32_t generation, uint32_t chunks) {
    return (ticket)generation << 32 | chunks;
}

struct qb_threads {
    int count;
    pthread_t *ids;
    worker_args *args;
    pthread_mutex_t lock;
    pthread_cond_t wake, finished;
    _Atomic ticket open;   /* the present loop */
    _Atomic uint32_t done; /* its chunks that are finished */
    _Atomic bool stop;
    _Atomic int sleeping; /* workers in, or on their way into, pthread_cond_wait */
    _Atomic bool waiting; /* the caller likewise */
    uint32_t generation;  /* the caller's own */
    /* The loop. Written while no chunk is open or unfinished; read only by who holds a chunk. */
    uint32_t n_chunks;
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

/* Takes chunks in ascending order until none is open. */
static void take_chunks(qb_threads *t, int worker) {
    ticket seen = atomic_load(&t->open);
    while (chunks_left(seen)) {
        if (!atomic_compare_exchange_weak(&t->open, &seen, seen - 1)) continue;
        uint32_t chunk = t->n_chunks - chunks_left(seen), all = t->n_chunks;
        int64_t begin = (int64_t)chunk * t->grain;
        t->fn(t->ctx, begin, begin + t->grain < t->n ? begin + t->grain : t->n, worker);
        /* Behind this line the loop may be over and its fields another's. */
        if (atomic_fetch_add(&t->done, 1) + 1 == all && atomic_load(&t->waiting)) {
            pthread_mutex_lock(&t->lock);
            pthread_cond_signal(&t->finished);
            pthread_mutex_unlock(&t->lock);
        }
        seen = atomic_load(&t->open);
    }
}

static void *worker_main(void *pointer) {
    worker_args *a = pointer;
    qb_threads *t = a->pool;
    for (;;) {
        for (int spins = 0; !chunks_left(atomic_load(&t->open)) && !atomic_load(&t->stop); spins++) {
            if (spins < SPINS) {
                RELAX();
                continue;
            }
            pthread_mutex_lock(&t->lock);
            atomic_fetch_add(&t->sleeping, 1);
            while (!chunks_left(atomic_load(&t->open)) && !atomic_load(&t->stop))
                pthread_cond_wait(&t->wake, &t->lock);
            atomic_fetch_sub(&t->sleeping, 1);
            pthread_mutex_unlock(&t->lock);
        }
        if (atomic_load(&t->stop)) return NULL;
        take_chunks(t, a->index);
    }
}

/* Who is about to sleep counts itself first and looks at the loop afterwards; the caller opens the loop first
   and looks at the count afterwards: one of the two sees the other. */
static void wake_sleepers(qb_threads *t) {
    if (!atomic_load(&t->sleeping)) return;
    pthread_mutex_lock(&t->lock);
    pthread_cond_broadcast(&t->wake);
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
    pthread_mutex_lock(&t->lock);
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
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

static void wait_done(qb_threads *t) {
    for (int spins = 0; atomic_load(&t->done) < t->n_chunks; spins++) {
        if (spins < SPINS) {
            RELAX();
            continue;
        }
        pthread_mutex_lock(&t->lock);
        atomic_store(&t->waiting, true);
        while (atomic_load(&t->done) < t->n_chunks) pthread_cond_wait(&t->finished, &t->lock);
        atomic_store(&t->waiting, false);
        pthread_mutex_unlock(&t->lock);
    }
}

void qb_parallel_for(qb_threads *t, int64_t n, int64_t grain, qb_range_fn fn, void *ctx) {
    if (n <= 0) return;
    if (grain < 1) grain = 1;
    int64_t n_chunks = n / grain + (n % grain != 0);
    if (!t || t->count == 1 || n_chunks == 1 || n_chunks > UINT32_MAX) {
        for (int64_t begin = 0; begin < n; begin += grain)
            fn(ctx, begin, begin + grain < n ? begin + grain : n, 0);
        return;
    }
    t->fn = fn;
    t->ctx = ctx;
    t->n = n;
    t->grain = grain;
    t->n_chunks = (uint32_t)n_chunks;
    atomic_store(&t->done, 0);
    atomic_store(&t->open, ticket_make(++t->generation, (uint32_t)n_chunks));
    wake_sleepers(t);
    take_chunks(t, 0);
    wait_done(t);
}
