/* Work in a process of its own: its memory is its own, its peak is known exactly, and its crash or its kill
   by the system is one failed piece of work and not the end of the run. The parent must have no threads. */
#pragma once

#include "base/json.h"

#include <stdint.h>

/* Runs in the child. *result (may stay NULL) reaches the parent also when the status is not QB_OK. */
typedef qb_status (*qb_child_fn)(void *ctx, qb_json **result);

typedef struct qb_child_end {
    qb_json *result;        /* owned by the caller; NULL when there is none */
    int64_t peak_rss_bytes; /* of the child, from wait4 */
    double seconds;
} qb_child_end;

/* Forks, runs fn, waits. Returns fn's status with its sentence, or QB_ERR_INTERNAL saying how the child died,
   or QB_ERR_INTERRUPTED when this process was asked to end (the child is ended too). `what` heads sentences.
 */
qb_status qb_child_run(const char *what, qb_child_fn fn, void *ctx, qb_child_end *end) QB_NODISCARD;

/* From now on SIGINT and SIGTERM only set a flag, which ends children and stops the run between two cases. */
void qb_interrupt_watch(void);
bool qb_interrupted(void);
