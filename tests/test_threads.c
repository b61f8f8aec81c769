/* The pool under many short loops: every chunk exactly once, whichever thread comes late. */
#include "tests/support.h"

#include "base/rng.h"
#include "base/threads.h"

#include <stdatomic.h>

enum { ITEMS = 256, LOOPS = 40000 };

typedef struct {
    int64_t hits[ITEMS];
    int64_t add;
    _Atomic int workers_seen; /* bits */
} tally;

static void count(void *ctx, int64_t begin, int64_t end, int worker) {
    tally *t = ctx;
    for (int64_t i = begin; i < end; i++)
        t->hits[i] += t->add; /* a chunk is one thread's: no atomic needed */
    atomic_fetch_or(&t->workers_seen, 1 << worker);
}

static void test_threads__short_loops_run_every_chunk_once(void **state) {
    (void)state;
    /* More threads than cores, so that some are always put aside in the midst of a loop. */
    for (int n_threads = 1; n_threads <= 8; n_threads += n_threads < 3 ? 1 : 5) {
        qb_threads *threads;
        static tally t;
        static int64_t wanted[ITEMS];
        memset(&t, 0, sizeof t);
        memset(wanted, 0, sizeof wanted);
        assert_ok(qb_threads_create(n_threads, &threads));
        for (uint64_t l = 0; l < LOOPS; l++) {
            int64_t n = 1 + (int64_t)(qb_noise_u64(1, l) % ITEMS),
                    grain = 1 + (int64_t)(qb_noise_u64(2, l) % 40);
            t.add = 1 + (int64_t)(l % 5);
            qb_parallel_for(threads, n, grain, count, &t);
            for (int64_t i = 0; i < n; i++) wanted[i] += t.add;
        }
        assert_memory_equal(t.hits, wanted, sizeof wanted);
        assert_true(t.workers_seen >> n_threads == 0); /* worker numbers stay below the count */
        qb_threads_free(threads);
    }
}

static void test_threads__sleeping_workers_wake(void **state) {
    (void)state;
    qb_threads *threads;
    static tally t;
    memset(&t, 0, sizeof t);
    t.add = 1;
    assert_ok(qb_threads_create(3, &threads));
    for (int i = 0; i < 5; i++) {
        usleep(20000); /* longer than workers spin */
        qb_parallel_for(threads, ITEMS, 1, count, &t);
    }
    for (int i = 0; i < ITEMS; i++) assert_int_equal(t.hits[i], 5);
    qb_threads_free(threads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads__short_loops_run_every_chunk_once),
        cmocka_unit_test(test_threads__sleeping_workers_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
