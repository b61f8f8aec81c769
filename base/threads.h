/* A thread pool for short parallel loops. Work is cut into chunks that do not depend on the number of
   threads, and each output is written by one chunk, so results are the same for any thread count. */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct qb_threads qb_threads;

/* n = 0 takes the cores this process may use. The calling thread works too: n - 1 threads are started. */
qb_status qb_threads_create(int n, qb_threads **out) QB_NODISCARD;
void qb_threads_free(qb_threads *threads);
int qb_threads_count(const qb_threads *threads); /* 1 for NULL */
int qb_cores_available(void);

/* Calls fn(ctx, begin, end, worker) over [0, n) in chunks of `grain` (the last may be shorter) and returns
   when all are done. worker is in [0, count). NULL threads, or a single chunk, runs on the caller. Not
   reentrant. */
typedef void (*qb_range_fn)(void *ctx, int64_t begin, int64_t end, int worker);
void qb_parallel_for(qb_threads *threads, int64_t n, int64_t grain, qb_range_fn fn, void *ctx);
