#include "base/threads.h"

#include "base/clock.h"
#include "base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#else
#define RELAX() ((void)0)
#endif

/* Decode calls a loop every few tens of microseconds, and to be woken takes some ten: who waits spins before
   he sleeps. By the clock, since a pause takes 1 to 140 cycles by processor, and soon giving way to any other
   thread that wants the core: it may be the one that is waited for. To give way takes half a microsecond
   where nobody wants it, which the shortest waits are spared. */
static const int64_t give_way_ns = 10000, spin_ns = 100000;
enum { SPINS_A_LOOK = 16 };

/* A loop is published in one word for each node: its generation above, the node's chunks not yet taken below,
   and whether other nodes' threads may take of them. Taking a chunk is one compare-and-swap of that word, so
   a thread that comes late (the system had put it aside) cannot take part in a loop that is over, and nobody
   waits for it: a loop ends when its chunks are done, not when every thread has looked at it. */
typedef uint64_t ticket;
static const uint32_t at_home_bit = (uint32_t)1 << 31;
static uint32_t chunks_left(ticket t) {
    return (uint32_t)t & ~at_home_bit;
}
static bool at_home(ticket t) {
    return (uint32_t)t & at_home_bit;
}
static ticket ticket_make(uint32_t generation, uint32_t chunks, bool home) {
    return (ticket)generation << 32 | chunks | (home ? at_home_bit : 0);
}

/* A node's part of the present loops. What a chunk takes to be run lies in one line, which is what goes from
   core to core. */
typedef struct {
    alignas(QB_ALIGNMENT) _Atomic ticket open;
    _Atomic uint32_t done; /* chunks that are finished */
    _Atomic int sleeping;  /* workers of the node in, or on their way into, pthread_cond_wait */
    /* Written while no chunk is open or unfinished; read only by who holds a chunk. */
    const qb_loop *loops;
    uint32_t n_chunks;
    struct {
        uint32_t end,
            from; /* chunk of these behind a loop's last; what is to be added for the loop's chunk */
    } part[QB_LOOPS_MAX];
    pthread_cond_t wake;
} share;

typedef struct {
    struct qb_threads *pool;
    int index, node;
} worker_args;

struct qb_threads {
    int count, n_nodes;
    pthread_t *ids;
    worker_args *args;
    share *shares;               /* [n_nodes] */
    int first[QB_NODES_MAX + 1]; /* thread that a node's begin with */
    bool kept;                   /* the caller runs on `before` again afterwards */
    qb_cpus before;
    pthread_mutex_t lock;
    pthread_cond_t finished;
    _Atomic bool stop;
    _Atomic bool waiting; /* the caller, in or on its way into pthread_cond_wait */
};

int qb_cores_available(void) {
    return qb_cpus_count(qb_cpus_allowed());
}

/* ---- taking chunks ---- */

static void run_chunk(const share *s, uint32_t chunk, int worker) {
    int i = 0;
    while (chunk >= s->part[i].end) i++;
    const qb_loop *l = &s->loops[i];
    int64_t begin = (int64_t)(uint32_t)(chunk + s->part[i].from) * l->grain;
    l->fn(l->ctx, begin, begin + l->grain < l->n ? begin + l->grain : l->n, worker);
}

/* Takes a node's chunks in ascending order until none is open. */
static void take_of(qb_threads *t, share *s, bool guest, int worker) {
    ticket seen = atomic_load(&s->open);
    while (chunks_left(seen) && !(guest && at_home(seen))) {
        if (!atomic_compare_exchange_weak(&s->open, &seen, seen - 1)) continue;
        uint32_t all = s->n_chunks;
        run_chunk(s, all - chunks_left(seen), worker);
        /* Behind this line the loop may be over and its fields another's. */
        if (atomic_fetch_add(&s->done, 1) + 1 == all && atomic_load(&t->waiting)) {
            pthread_mutex_lock(&t->lock);
            pthread_cond_signal(&t->finished);
            pthread_mutex_unlock(&t->lock);
        }
        seen = atomic_load(&s->open);
    }
}

static void take_chunks(qb_threads *t, int node, int worker) {
    for (int k = 0; k < t->n_nodes; k++) take_of(t, &t->shares[(node + k) % t->n_nodes], k > 0, worker);
}

/* ---- waiting ---- */

typedef struct {
    int spins;
    int64_t from_ns;
} patience;

/* False when it is time to sleep. */
static bool spin(patience *p) {
    RELAX();
    if (++p->spins % SPINS_A_LOOK) return true;
    int64_t now = qb_now_ns();
    if (!p->from_ns) p->from_ns = now;
    if (now - p->from_ns > give_way_ns) sched_yield();
    return now - p->from_ns < spin_ns;
}

static bool called(const qb_threads *t, const share *s) {
    return chunks_left(atomic_load(&s->open)) || atomic_load(&t->stop);
}

static void *worker_main(void *pointer) {
    worker_args *a = pointer;
    qb_threads *t = a->pool;
    share *s = &t->shares[a->node];
    for (;;) {
        for (patience p = {0}; !called(t, s);) {
            if (spin(&p)) continue;
            pthread_mutex_lock(&t->lock);
            atomic_fetch_add(&s->sleeping, 1);
            while (!called(t, s)) pthread_cond_wait(&s->wake, &t->lock);
            atomic_fetch_sub(&s->sleeping, 1);
            pthread_mutex_unlock(&t->lock);
        }
        if (atomic_load(&t->stop)) return NULL;
        take_chunks(t, a->node, a->index);
    }
}

/* Who is about to sleep counts itself first and looks at the loop afterwards; the caller opens the loop first
   and looks at the count afterwards: one of the two sees the other. */
static void wake_sleepers(qb_threads *t, share *s) {
    if (!atomic_load(&s->sleeping)) return;
    pthread_mutex_lock(&t->lock);
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&t->lock);
}

static bool all_done(const qb_threads *t) {
    for (int k = 0; k < t->n_nodes; k++)
        if (atomic_load(&t->shares[k].done) < t->shares[k].n_chunks) return false;
    return true;
}

static void wait_done(qb_threads *t) {
    for (patience p = {0}; !all_done(t);) {
        if (spin(&p)) continue;
        pthread_mutex_lock(&t->lock);
        atomic_store(&t->waiting, true);
        while (!all_done(t)) pthread_cond_wait(&t->finished, &t->lock);
        atomic_store(&t->waiting, false);
        pthread_mutex_unlock(&t->lock);
    }
}

/* ---- the pool ---- */

/* A thread is born where the one that starts it runs. The caller ends at the first node, its own. */
static qb_status start_threads(qb_threads *t, const qb_places *places) {
    qb_cpus before;
    qb_status st = QB_OK;
    for (int node = t->n_nodes - 1; node >= 0; node--) {
        if (places->n_nodes) {
            QB_TRY(st, qb_cpus_keep_to(&places->node[node].cpus, &before));
            if (!t->kept) t->before = before;
            t->kept = true;
        }
        for (int i = t->first[node + 1] - 1; i >= t->first[node] && i > 0; i--) {
            t->args[i] = (worker_args){t, i, node};
            int rc = pthread_create(&t->ids[i], NULL, worker_main, &t->args[i]);
            if (rc == 0) continue;
            t->args[i].pool = NULL;
            return qb_fail(QB_ERR_MEMORY, "cannot start thread %d of %d: %s; try fewer --threads",
                           t->count - i + 1, t->count, strerror(rc));
        }
    }
out:
    return st;
}

qb_status qb_threads_create_at(const qb_places *places, qb_threads **out) {
    *out = NULL;
    qb_threads *t;
    qb_status st = qb_alloc_zero(1, sizeof *t, &t);
    if (st != QB_OK) return st;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->finished, NULL);
    t->count = places->threads;
    t->first[1] = t->count;
    if (places->n_nodes > 1) memcpy(t->first, places->first, sizeof t->first);
    int n_nodes = places->n_nodes > 1 ? places->n_nodes : 1;
    QB_TRY(st, qb_alloc_zero((size_t)t->count, sizeof *t->ids, &t->ids));
    QB_TRY(st, qb_alloc_zero((size_t)t->count, sizeof *t->args, &t->args));
    QB_TRY(st, qb_alloc_zero((size_t)n_nodes, sizeof *t->shares, &t->shares));
    for (; t->n_nodes < n_nodes; t->n_nodes++) pthread_cond_init(&t->shares[t->n_nodes].wake, NULL);
    QB_TRY(st, start_threads(t, places));
    *out = t;
    return QB_OK;
out:
    qb_threads_free(t);
    return st;
}

qb_status qb_threads_create(int n, qb_threads **out) {
    return qb_threads_create_at(&(qb_places){.threads = n > 0 ? n : qb_cores_available()}, out);
}

void qb_threads_free(qb_threads *t) {
    if (!t) return;
    atomic_store(&t->stop, true);
    for (int k = 0; k < t->n_nodes; k++) wake_sleepers(t, &t->shares[k]);
    for (int i = 1; t->args && i < t->count; i++)
        if (t->args[i].pool) pthread_join(t->ids[i], NULL);
    if (t->kept) (void)!qb_cpus_keep_to(&t->before, NULL);
    for (int k = 0; k < t->n_nodes; k++) pthread_cond_destroy(&t->shares[k].wake);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->finished);
    qb_free(t->ids);
    qb_free(t->args);
    qb_free(t->shares);
    qb_free(t);
}

int qb_threads_count(const qb_threads *threads) {
    return threads ? threads->count : 1;
}

int qb_threads_nodes(const qb_threads *threads) {
    return threads ? threads->n_nodes : 1;
}

/* ---- loops ---- */

static int64_t chunks_of(const qb_loop *l) {
    return l->n <= 0 ? 0 : l->n / l->grain + (l->n % l->grain != 0);
}

/* Rounded up: few chunks are of the first node, the caller's. */
int64_t qb_threads_boundary(const qb_threads *t, int64_t chunks, int node) {
    if (node == 0 || node == qb_threads_nodes(t)) return node ? chunks : 0;
    return (chunks * t->first[node] + t->count - 1) / t->count;
}

/* How chunks are divided among the nodes. */
typedef struct {
    const int64_t *shares; /* of the only loop, or NULL: in proportion */
    int only;              /* node that runs all of them, or ALL_NODES */
    bool home;             /* no node takes of another's */
} division;
enum { ALL_NODES = -1 };

static int64_t first_chunk(const qb_threads *t, const division *d, int64_t chunks, int node) {
    if (d->only != ALL_NODES) return node <= d->only ? 0 : chunks;
    return d->shares ? d->shares[node] : qb_threads_boundary(t, chunks, node);
}

static void divide(const qb_threads *t, const qb_loop *loops, int n_loops, int node, const division *d) {
    share *s = &t->shares[node];
    s->loops = loops;
    s->n_chunks = 0;
    for (int i = 0; i < n_loops; i++) {
        int64_t n = chunks_of(&loops[i]);
        int64_t begin = first_chunk(t, d, n, node), end = first_chunk(t, d, n, node + 1);
        s->part[i].from = (uint32_t)begin - s->n_chunks; /* modulo 2^32 */
        s->part[i].end = s->n_chunks += (uint32_t)(end - begin);
    }
    atomic_store(&s->done, 0);
}

static void run_alone(const qb_loop *loops, int n_loops) {
    for (const qb_loop *l = loops; l < loops + n_loops; l++)
        for (int64_t begin = 0; begin < l->n; begin += l->grain)
            l->fn(l->ctx, begin, begin + l->grain < l->n ? begin + l->grain : l->n, 0);
}

static void run(qb_threads *t, const qb_loop *loops, int n_loops, const division *d) {
    int64_t chunks = 0;
    for (int i = 0; i < n_loops; i++) chunks += chunks_of(&loops[i]);
    /* A single chunk is run here, unless it is another node's than the first, the caller's. */
    if (!t || t->count == 1 || chunks > INT32_MAX ||
        (chunks <= 1 && first_chunk(t, d, chunks, 1) == chunks)) {
        run_alone(loops, n_loops);
        return;
    }
    for (int k = 0; k < t->n_nodes; k++) divide(t, loops, n_loops, k, d);
    for (int k = 0; k < t->n_nodes; k++) {
        share *s = &t->shares[k];
        if (!s->n_chunks) continue;
        uint32_t generation = (uint32_t)(atomic_load(&s->open) >> 32) + 1;
        atomic_store(&s->open, ticket_make(generation, s->n_chunks, d->home));
        wake_sleepers(t, s);
    }
    take_chunks(t, 0, 0);
    wait_done(t);
}

void qb_parallel_loops(qb_threads *t, const qb_loop *loops, int n_loops) {
    run(t, loops, n_loops, &(division){.only = ALL_NODES});
}

static void run_one(qb_threads *t, int64_t n, int64_t grain, qb_range_fn fn, void *ctx, const division *d) {
    qb_loop loop = {n, grain < 1 ? 1 : grain, fn, ctx};
    run(t, &loop, 1, d);
}

void qb_parallel_for(qb_threads *t, int64_t n, int64_t grain, qb_range_fn fn, void *ctx) {
    run_one(t, n, grain, fn, ctx, &(division){.only = ALL_NODES});
}

void qb_parallel_shares(qb_threads *t, const int64_t *shares, int64_t n, int64_t grain, qb_range_fn fn,
                        void *ctx) {
    run_one(t, n, grain, fn, ctx, &(division){.shares = shares, .only = ALL_NODES});
}

void qb_parallel_at_home(qb_threads *t, const int64_t *shares, int64_t n, int64_t grain, qb_range_fn fn,
                         void *ctx) {
    run_one(t, n, grain, fn, ctx, &(division){.shares = shares, .only = ALL_NODES, .home = true});
}

void qb_parallel_on_node(qb_threads *t, int node, int64_t n, int64_t grain, qb_range_fn fn, void *ctx) {
    run_one(t, n, grain, fn, ctx, &(division){.only = node, .home = true});
}
