/* Instructions that this process's threads retire in user space, where the kernel counts them. */
#pragma once

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* What the kernel says of one thread: a counter that shared the processor's registers with others ran for a
 * part of the time. */
typedef struct qb_counter_reading {
    uint64_t count, enabled_ns, running_ns;
} qb_counter_reading;
/* The sum over threads, each scaled to the time that it was enabled; NaN where one was never counted while it
 * was. */
double qb_counter_sum(const qb_counter_reading *readings, size_t n);

typedef struct qb_thread_counter {
    int fd;
    bool known; /* what it stood at when the counting began: */
    qb_counter_reading begun;
} qb_thread_counter;

/* A counter a thread; {0} before it is opened. */
typedef struct qb_counters {
    qb_thread_counter *threads;
    size_t n, capacity;
    char why[160]; /* there are none; "" */
} qb_counters;
/* Opens `config` of perf_event_open's `type` for every thread that there is, and for those that they start.
   False with `why` where the kernel gives none. Close it either way. */
bool qb_counters_open(qb_counters *c, uint32_t type, uint64_t config);
/* The same for retired instructions. */
bool qb_instructions_open(qb_counters *c);
void qb_counters_begin(qb_counters *c);
/* What was counted since; NaN where a counter cannot be read. */
double qb_counters_end(qb_counters *c);
void qb_counters_close(qb_counters *c);
