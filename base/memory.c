#include "base/memory.h"

#include "base/host_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static qb_status checked_bytes(size_t count, size_t size, size_t *bytes) {
    if (__builtin_mul_overflow(count, size, bytes) || *bytes > SIZE_MAX / 2)
        return qb_fail(QB_ERR_MEMORY, "allocation of %zu items of %zu bytes overflows", count, size);
    return QB_OK;
}

qb_status qb_alloc(size_t count, size_t size, void *out_pointer) {
    void **out = out_pointer;
    *out = NULL;
    size_t bytes;
    qb_status st = checked_bytes(count, size, &bytes);
    if (st != QB_OK || bytes == 0) return st;
    size_t rounded = (bytes + QB_ALIGNMENT - 1) / QB_ALIGNMENT * QB_ALIGNMENT;
    *out = aligned_alloc(QB_ALIGNMENT, rounded);
    if (!*out) return qb_fail(QB_ERR_MEMORY, "cannot allocate %zu bytes", bytes);
    return QB_OK;
}

qb_status qb_alloc_zero(size_t count, size_t size, void *out_pointer) {
    qb_status st = qb_alloc(count, size, out_pointer);
    void **out = out_pointer;
    if (st == QB_OK && *out) memset(*out, 0, count * size);
    return st;
}

qb_status qb_grow(void *pointer_to_pointer, size_t *capacity, size_t need, size_t size) {
    void **pointer = pointer_to_pointer;
    if (need <= *capacity) return QB_OK;
    size_t next = *capacity < 16 ? 16 : *capacity + *capacity / 2;
    if (next < need) next = need;
    void *bigger;
    qb_status st = qb_alloc(next, size, &bigger);
    if (st != QB_OK) return st;
    if (*pointer) memcpy(bigger, *pointer, *capacity * size);
    qb_free(*pointer);
    *pointer = bigger;
    *capacity = next;
    return QB_OK;
}

void qb_free(void *pointer) {
    free(pointer);
}

void qb_ask_huge_pages(void *memory, int64_t bytes) {
    const int64_t page = QB_HUGE_PAGE_BYTES;
    int64_t skip = (page - (int64_t)((uintptr_t)memory % (uintptr_t)page)) % page;
    int64_t whole = (bytes - skip) / page * page;
    if (bytes > skip && whole > 0) (void)madvise((char *)memory + skip, (size_t)whole, MADV_HUGEPAGE);
}

bool qb_huge_pages_given(const char *path) {
    char said[64] = "[never]";
    FILE *f = fopen(path ? path : "/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (!f) return false;
    const bool read = fgets(said, sizeof said, f) != NULL;
    fclose(f);
    return read && !strstr(said, "[never]");
}

void qb_keep_heap(void) {
#ifdef __GLIBC__
    enum { MAPPED_BYTES = 2 * QB_HUGE_PAGE_BYTES, KEPT_BYTES = 8 * MAPPED_BYTES };
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
#endif
}

char *qb_strdup(const char *text) {
    if (!text) return NULL;
    size_t n = strlen(text) + 1;
    char *copy;
    if (qb_alloc(n, 1, &copy) != QB_OK) return NULL;
    memcpy(copy, text, n);
    return copy;
}

typedef struct qb_arena_chunk {
    struct qb_arena_chunk *next;
    size_t used, capacity;
    unsigned char *bytes;
} chunk;

enum { CHUNK_BYTES = 256 * 1024 };

qb_status qb_arena_alloc(qb_arena *arena, size_t count, size_t size, void *out_pointer) {
    void **out = out_pointer;
    *out = NULL;
    size_t bytes;
    qb_status st = checked_bytes(count, size, &bytes);
    if (st != QB_OK) return st;
    bytes = (bytes + QB_ALIGNMENT - 1) / QB_ALIGNMENT * QB_ALIGNMENT;
    if (bytes == 0) bytes = QB_ALIGNMENT;
    chunk *c = arena->head;
    if (!c || c->capacity - c->used < bytes) {
        size_t capacity = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        chunk *fresh = malloc(sizeof *fresh);
        if (!fresh) return qb_fail(QB_ERR_MEMORY, "cannot allocate an arena chunk");
        st = qb_alloc(capacity, 1, &fresh->bytes);
        if (st != QB_OK) {
            free(fresh);
            return st;
        }
        fresh->used = 0;
        fresh->capacity = capacity;
        fresh->next = arena->head;
        arena->head = c = fresh;
    }
    *out = c->bytes + c->used;
    memset(*out, 0, bytes);
    c->used += bytes;
    arena->total_bytes += bytes;
    return QB_OK;
}

qb_status qb_arena_strdup(qb_arena *arena, const char *text, const char **out) {
    size_t n = strlen(text) + 1;
    char *copy;
    qb_status st = qb_arena_alloc(arena, n, 1, &copy);
    if (st == QB_OK) memcpy(copy, text, n);
    *out = copy;
    return st;
}

void qb_arena_free(qb_arena *arena) {
    if (!arena) return;
    for (chunk *c = arena->head; c;) {
        chunk *next = c->next;
        qb_free(c->bytes);
        free(c);
        c = next;
    }
    *arena = (qb_arena){0};
}

int64_t qb_resident_bytes(void) {
    long long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%lld %lld", &total, &resident) != 2) resident = 0;
        fclose(f);
    }
    return (int64_t)resident * (int64_t)sysconf(_SC_PAGESIZE);
}

int64_t qb_available_memory_bytes(void) {
    qb_host_memory m;
    return qb_host_memory_now(&m) == QB_OK ? m.available_bytes : -1;
}
