/* A thread pool for short parallel loops. Work is cut into chunks that do not depend on the number of
   threads or where they run, and each output is written by one chunk, so results are the same for any thread
   count and placement. */
#pragma once

#include "base/numa.h"
#include "base/status.h"

#include <stdint.h>

typedef struct qb_threads qb_threads;

/* n = 0 takes the cores this process may use. The calling thread works too: n - 1 threads are started. */
qb_status qb_threads_create(int n, qb_threads **out) QB_NODISCARD;
/* The same where `places` says (base/numa.h). The calling thread is kept there too, until qb_threads_free,
   which is then to be called by the same thread. */
qb_status qb_threads_create_at(const qb_places *places, qb_threads **out) QB_NODISCARD;
void qb_threads_free(qb_threads *threads);
int qb_threads_count(const qb_threads *threads); /* 1 for NULL */
/* Nodes that the loops are divided among: 1 unless the pool was created at several. */
int qb_threads_nodes(const qb_threads *threads);
/* Chunk of `chunks` that a node's begin with; that of the node behind the last is `chunks`. */
int64_t qb_threads_boundary(const qb_threads *threads, int64_t chunks, int node);
int qb_cores_available(void);

/* fn(ctx, begin, end, worker) over [0, n) in chunks of `grain` (the last may be shorter). worker is in
   [0, count). */
typedef void (*qb_range_fn)(void *ctx, int64_t begin, int64_t end, int worker);
typedef struct qb_loop {
    int64_t n, grain;
    qb_range_fn fn;
    void *ctx;
} qb_loop;
enum { QB_LOOPS_MAX = 32 };

/* Runs at most QB_LOOPS_MAX loops, of which none waits for another, and returns when all are done. NULL
   threads, or a single chunk, runs on the caller. Not reentrant. Each loop's chunks are divided among the
   nodes in proportion to their threads, ascending, so that what one loop wrote the threads of the same node
   read in the next of equal length; who has done his node's takes of another's. */
void qb_parallel_loops(qb_threads *threads, const qb_loop *loops, int n_loops);
void qb_parallel_for(qb_threads *threads, int64_t n, int64_t grain, qb_range_fn fn, void *ctx);
/* Chunks divided as the caller says, who knows where that lies which they read: a node's begin with
   shares[node], not falling, from 0 to shares[qb_threads_nodes], the number of all. NULL: in proportion. */
void qb_parallel_shares(qb_threads *threads, const int64_t *shares, int64_t n, int64_t grain, qb_range_fn fn,
                        void *ctx);
/* The same, but a node's chunks are run by its own threads alone: memory that such a loop is the first to
   write lies where later ones read it. */
void qb_parallel_at_home(qb_threads *threads, const int64_t *shares, int64_t n, int64_t grain, qb_range_fn fn,
                         void *ctx);
/* All chunks on the threads of one node, of [0, qb_threads_nodes). */
void qb_parallel_on_node(qb_threads *threads, int node, int64_t n, int64_t grain, qb_range_fn fn, void *ctx);
