/* A hash table from tensor names to their positions: checkpoints hold up to tens of thousands of tensors.
   Private to checkpoint/. */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct qb_names {
    struct qb_names_slot *slots;
    size_t capacity, count; /* capacity is 0 or a power of two */
} qb_names;

/* Adds a name (not copied: it must outlive the table). A name that is there already keeps its position, which
 *goes to found; otherwise *found is `position`. */
qb_status qb_names_add(qb_names *names, const char *name, uint32_t position, uint32_t *found) QB_NODISCARD;
/* False when absent. */
bool qb_names_find(const qb_names *names, const char *name, uint32_t *position);
void qb_names_free(qb_names *names);

uint64_t qb_name_hash(const char *name); /* FNV-1a, 64 bits */
