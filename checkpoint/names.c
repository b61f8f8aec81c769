#include "checkpoint/names.h"

#include "base/memory.h"

#include <string.h>

typedef struct qb_names_slot {
    const char *name; /* NULL: free */
    uint32_t position;
} slot;

uint64_t qb_name_hash(const char *name) {
    uint64_t h = 0xcbf29ce484222325u;
    for (const unsigned char *p = (const unsigned char *)name; *p; p++) h = (h ^ *p) * 0x100000001b3u;
    return h;
}

/* The slot that holds the name, or the free one where it belongs. The low bits of FNV-1a are good enough to
 * index by. */
static slot *slot_of(slot *slots, size_t capacity, const char *name) {
    size_t i = (size_t)qb_name_hash(name) & (capacity - 1);
    while (slots[i].name && strcmp(slots[i].name, name) != 0) i = (i + 1) & (capacity - 1);
    return &slots[i];
}

static qb_status grow(qb_names *names) {
    size_t capacity = names->capacity ? names->capacity * 2 : 64;
    slot *slots;
    qb_status st = qb_alloc_zero(capacity, sizeof *slots, &slots);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < names->capacity; i++)
        if (names->slots[i].name) *slot_of(slots, capacity, names->slots[i].name) = names->slots[i];
    qb_free(names->slots);
    names->slots = slots;
    names->capacity = capacity;
    return QB_OK;
}

qb_status qb_names_add(qb_names *names, const char *name, uint32_t position, uint32_t *found) {
    if (2 * (names->count + 1) > names->capacity) {
        qb_status st = grow(names);
        if (st != QB_OK) return st;
    }
    slot *s = slot_of(names->slots, names->capacity, name);
    if (!s->name) {
        *s = (slot){name, position};
        names->count++;
    }
    *found = s->position;
    return QB_OK;
}

bool qb_names_find(const qb_names *names, const char *name, uint32_t *position) {
    if (names->count == 0) return false;
    const slot *s = slot_of(names->slots, names->capacity, name);
    if (s->name) *position = s->position;
    return s->name != NULL;
}

void qb_names_free(qb_names *names) {
    qb_free(names->slots);
    *names = (qb_names){0};
}
