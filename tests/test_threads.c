/* The pool under many short loops: every chunk exactly once, whichever thread comes late and wherever it
   runs. Nodes are sets of this machine's processors. */
#define _GNU_SOURCE
#include "tests/support.h"

#include "base/rng.h"
#include "base/threads.h"

#include <sched.h>
#include <stdatomic.h>

enum { ITEMS = 256, LOOPS = 40000, MOST_LOOPS = 5 };

typedef struct {
    int64_t hits[ITEMS];
    int64_t add;
    _Atomic int workers_seen; /* bits */
} tally;

/* Of several loops each has items of its own. */
typedef struct {
    tally *t;
    int64_t first;
} part;

static void count(void *ctx, int64_t begin, int64_t end, int worker) {
    const part *p = ctx;
    for (int64_t i = begin; i < end; i++)
        p->t->hits[p->first + i] += p->t->add; /* a chunk is one thread's: no atomic needed */
    atomic_fetch_or(&p->t->workers_seen, 1 << worker);
}

/* n items as 1 .. MOST_LOOPS loops. */
static void run_as_several(qb_threads *threads, tally *t, int64_t n, uint64_t seed) {
    qb_loop loops[MOST_LOOPS];
    part parts[MOST_LOOPS];
    int n_loops = 1 + (int)(qb_noise_u64(3, seed) % MOST_LOOPS);
    int64_t first = 0;
    for (int i = 0; i < n_loops; i++) {
        int64_t left = n - first, own = i == n_loops - 1 ? left : left / 2;
        parts[i] = (part){t, first};
        loops[i] = (qb_loop){own, 1 + (int64_t)(qb_noise_u64(4 + (uint64_t)i, seed) % 40), count, &parts[i]};
        first += own;
    }
    qb_parallel_loops(threads, loops, n_loops);
}

static void check_short_loops(qb_threads *threads) {
    static tally t;
    static int64_t wanted[ITEMS];
    memset(&t, 0, sizeof t);
    memset(wanted, 0, sizeof wanted);
    part whole = {&t, 0};
    for (uint64_t l = 0; l < LOOPS; l++) {
        int64_t n = 1 + (int64_t)(qb_noise_u64(1, l) % ITEMS), grain = 1 + (int64_t)(qb_noise_u64(2, l) % 40);
        int node = (int)(l / 4 % (uint64_t)qb_threads_nodes(threads));
        t.add = 1 + (int64_t)(l % 5);
        if (l % 4 == 0) qb_parallel_for(threads, n, grain, count, &whole);
        if (l % 4 == 1) run_as_several(threads, &t, n, l);
        if (l % 4 == 2) qb_parallel_at_home(threads, NULL, n, grain, count, &whole);
        if (l % 4 == 3) qb_parallel_on_node(threads, node, n, grain, count, &whole);
        for (int64_t i = 0; i < n; i++) wanted[i] += t.add;
    }
    assert_memory_equal(t.hits, wanted, sizeof wanted);
    assert_true(t.workers_seen >> qb_threads_count(threads) == 0); /* worker numbers stay below the count */
}

static void test_threads__short_loops_run_every_chunk_once(void **state) {
    (void)state;
    /* More threads than cores, so that some are always put aside in the midst of a loop. */
    for (int n_threads = 1; n_threads <= 8; n_threads += n_threads < 3 ? 1 : 5) {
        qb_threads *threads;
        assert_ok(qb_threads_create(n_threads, &threads));
        assert_int_equal(qb_threads_nodes(threads), 1);
        check_short_loops(threads);
        qb_threads_free(threads);
    }
}

static void test_threads__sleeping_workers_wake(void **state) {
    (void)state;
    qb_threads *threads;
    static tally t;
    memset(&t, 0, sizeof t);
    t.add = 1;
    part whole = {&t, 0};
    assert_ok(qb_threads_create(3, &threads));
    for (int i = 0; i < 5; i++) {
        usleep(20000); /* longer than workers spin */
        qb_parallel_for(threads, ITEMS, 1, count, &whole);
    }
    for (int i = 0; i < ITEMS; i++) assert_int_equal(t.hits[i], 5);
    qb_threads_free(threads);
}

/* ---- nodes ---- */

/* The processors in turn; where they are fewer than nodes, each node has all of them. */
static qb_places places_of(int n_nodes, int threads) {
    qb_places p = {.n_nodes = n_nodes, .threads = threads};
    const qb_cpus *all = qb_cpus_allowed();
    int seen = 0, few = qb_cpus_count(all) < n_nodes;
    for (int i = 0; i < QB_CPUS_MAX; i++) {
        uint64_t bit = all->word[i / 64] & (uint64_t)1 << (i % 64);
        for (int k = 0; bit && k < n_nodes; k++)
            if (few || seen % n_nodes == k) p.node[k].cpus.word[i / 64] |= bit;
        seen += bit != 0;
    }
    for (int k = 0; k < n_nodes; k++) p.node[k].id = 3 * k;
    for (int k = 0; k <= n_nodes; k++) p.first[k] = threads * k / n_nodes;
    return p;
}

static void test_threads__nodes_run_every_chunk_once(void **state) {
    (void)state;
    for (int n_nodes = 1; n_nodes <= 3; n_nodes++)
        for (int n_threads = n_nodes; n_threads <= 8; n_threads += 3) {
            qb_threads *threads;
            qb_places places = places_of(n_nodes, n_threads);
            assert_ok(qb_threads_create_at(&places, &threads));
            assert_int_equal(qb_threads_nodes(threads), n_nodes);
            assert_int_equal(qb_threads_count(threads), n_threads);
            check_short_loops(threads);
            qb_threads_free(threads);
        }
}

typedef struct {
    const qb_places *places;
    int worker[ITEMS]; /* that ran an item */
    _Atomic int strayed;
} tracks;

static int node_of(const qb_places *p, int worker) {
    int node = 0;
    while (worker >= p->first[node + 1]) node++;
    return node;
}

static void track(void *ctx, int64_t begin, int64_t end, int worker) {
    tracks *t = ctx;
    int cpu = sched_getcpu();
    const qb_cpus *own = &t->places->node[node_of(t->places, worker)].cpus;
    if (!(own->word[cpu / 64] >> (cpu % 64) & 1)) atomic_fetch_add(&t->strayed, 1);
    for (int64_t i = begin; i < end; i++) t->worker[i] = worker;
}

/* Which node runs what follows from the chunks and the threads alone. */
static void test_threads__at_home(void **state) {
    (void)state;
    for (int n_threads = 2; n_threads <= 7; n_threads++) {
        qb_places places = places_of(2, n_threads);
        qb_threads *threads;
        tracks t = {.places = &places};
        assert_ok(qb_threads_create_at(&places, &threads));
        for (int round = 0; round < 200; round++) {
            int grain = 1 + round % 9, chunks = (ITEMS + grain - 1) / grain;
            int second = (chunks * places.first[1] + n_threads - 1) / n_threads * grain;
            qb_parallel_at_home(threads, NULL, ITEMS, grain, track, &t);
            for (int i = 0; i < ITEMS; i++) assert_int_equal(node_of(&places, t.worker[i]), i >= second);
            qb_parallel_on_node(threads, round % 2, ITEMS, grain, track, &t);
            for (int i = 0; i < ITEMS; i++) assert_int_equal(node_of(&places, t.worker[i]), round % 2);
            qb_parallel_on_node(threads, 1, 1, 1, track, &t); /* a single chunk too */
            assert_int_equal(node_of(&places, t.worker[0]), 1);
        }
        assert_int_equal(t.strayed, 0);
        qb_threads_free(threads);
    }
}

/* As the caller divides them, also where a node has none, and a single chunk. */
static void test_threads__shares_that_are_told(void **state) {
    (void)state;
    qb_places places = places_of(2, 3);
    qb_threads *threads;
    tracks t = {.places = &places};
    assert_ok(qb_threads_create_at(&places, &threads));
    for (int round = 0; round < 200; round++) {
        int grain = 1 + round % 9, chunks = (ITEMS + grain - 1) / grain, second = round * 7 % (chunks + 1);
        const int64_t shares[] = {0, second, chunks}, elsewhere[] = {0, 0, 1};
        qb_parallel_at_home(threads, shares, ITEMS, grain, track, &t);
        for (int i = 0; i < ITEMS; i++) assert_int_equal(node_of(&places, t.worker[i]), i >= second * grain);
        qb_parallel_at_home(threads, elsewhere, 1, 1, track, &t);
        assert_int_equal(node_of(&places, t.worker[0]), 1);
        static tally all;
        memset(&all, 0, sizeof all);
        all.add = 1;
        qb_parallel_shares(threads, shares, ITEMS, grain, count, &(part){&all, 0});
        for (int i = 0; i < ITEMS; i++) assert_int_equal(all.hits[i], 1);
    }
    assert_int_equal(t.strayed, 0);
    qb_threads_free(threads);
}

typedef struct {
    _Atomic int done;
} stall;

/* The second node's only thread holds the first of its chunks until all others are done. */
static void stall_there(void *ctx, int64_t begin, int64_t end, int worker) {
    stall *s = ctx;
    (void)begin;
    (void)end;
    if (worker == 1)
        while (atomic_load(&s->done) < ITEMS - 1) sched_yield();
    atomic_fetch_add(&s->done, 1);
}

static void test_threads__a_node_takes_of_another(void **state) {
    (void)state;
    qb_places places = places_of(2, 2);
    qb_threads *threads;
    assert_ok(qb_threads_create_at(&places, &threads));
    for (int round = 0; round < 200; round++) {
        stall s = {0};
        qb_parallel_for(threads, ITEMS, 1, stall_there, &s);
        assert_int_equal(s.done, ITEMS);
    }
    qb_threads_free(threads);
}

static void test_threads__the_caller_is_set_free(void **state) {
    (void)state;
    qb_places places = places_of(2, 2);
    qb_threads *threads;
    cpu_set_t before, within, after;
    int cores = qb_cores_available();
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_ok(qb_threads_create_at(&places, &threads));
    assert_int_equal(sched_getaffinity(0, sizeof within, &within), 0);
    assert_int_equal(CPU_COUNT(&within), qb_cpus_count(&places.node[0].cpus));
    assert_int_equal(qb_cores_available(), cores);
    qb_threads_free(threads);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
    places.node[1].cpus = (qb_cpus){0};
    places.node[1].cpus.word[QB_CPUS_MAX / 64 - 1] = (uint64_t)1 << 63; /* not there */
    assert_fails(qb_threads_create_at(&places, &threads), QB_ERR_UNSUPPORTED, "the processors 1023:");
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads__short_loops_run_every_chunk_once),
        cmocka_unit_test(test_threads__sleeping_workers_wake),
        cmocka_unit_test(test_threads__nodes_run_every_chunk_once),
        cmocka_unit_test(test_threads__at_home),
        cmocka_unit_test(test_threads__shares_that_are_told),
        cmocka_unit_test(test_threads__a_node_takes_of_another),
        cmocka_unit_test(test_threads__the_caller_is_set_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
