/* What memory this process may have: the machine's, or less where a control group says so. */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct qb_host_memory {
    int64_t total_bytes;     /* of the machine, or the least limit of the process's control groups */
    int64_t available_bytes; /* that can be taken without swapping */
} qb_host_memory;

/* Reads /proc/meminfo and the limits of the control group (v1 and v2) that the process is in and of all above
 * it. Fails where one of these files is there and cannot be read: a reading that failed is no amount. */
qb_status qb_host_memory_now(qb_host_memory *out) QB_NODISCARD;
/* The same below another root, for tests: ROOT/proc, ROOT/sys. */
qb_status qb_host_memory_in(const char *root, qb_host_memory *out) QB_NODISCARD;
