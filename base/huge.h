/* Arrays that last, side by side in huge pages. From the heap each begins and ends within a huge page, so
   that a third of a few megabytes lies in small ones, which take the system as long to hand out as it takes
   to fill them, and who reads them translates an address every 4 KiB. */
#pragma once

#include "base/status.h"

#include <stdint.h>

/* Zero-initialise; {0} holds nothing. Not for several threads at once. */
typedef struct qb_huge {
    struct qb_huge_chunk *chunks;
} qb_huge;

/* QB_ALIGNMENT-aligned, not cleared, never NULL. */
qb_status qb_huge_alloc(qb_huge *all, int64_t bytes, void *out_pointer) QB_NODISCARD;
/* Gives the memory back to the system: that of whole pages at once, the rest with what lies beside it. Takes
   NULL. */
void qb_huge_free(qb_huge *all, void *memory);
