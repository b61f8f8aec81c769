#include "base/huge.h"

#include "base/memory.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CHUNK_BYTES = 16 * QB_HUGE_PAGE_BYTES };

typedef struct qb_huge_chunk {
    struct qb_huge_chunk *next;
    char *memory;
    int64_t bytes, used;
    int64_t held; /* arrays that are not freed */
} chunk;

/* Before every array. */
typedef struct {
    chunk *from;
    int64_t bytes; /* with this, rounded */
} head;
enum { HEAD_BYTES = QB_ALIGNMENT };

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

#ifdef QB_SANITIZED
/* Each array comes from the heap, whose ends are watched. */
static qb_status take_memory(chunk *c, int64_t need) {
    c->bytes = need;
    return qb_alloc((size_t)need, 1, &c->memory);
}

static void give_memory(const chunk *c) {
    qb_free(c->memory);
}
#else
/* Whole huge pages; small ones where the system declines. */
static qb_status take_memory(chunk *c, int64_t need) {
    const uintptr_t page = QB_HUGE_PAGE_BYTES;
    c->bytes = round_up(need > CHUNK_BYTES ? need : CHUNK_BYTES, QB_HUGE_PAGE_BYTES);
    char *p = mmap(NULL, (size_t)c->bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return qb_fail(QB_ERR_MEMORY, "cannot allocate %lld bytes", (long long)c->bytes);
    size_t before = (size_t)((page - (uintptr_t)p % page) % page);
    if (before) munmap(p, before);
    c->memory = p + before;
    munmap(c->memory + c->bytes, page - before);
    qb_ask_huge_pages(c->memory, c->bytes);
    return QB_OK;
}

static void give_memory(const chunk *c) {
    munmap(c->memory, (size_t)c->bytes);
}
#endif

static qb_status add_chunk(qb_huge *all, int64_t need) {
    chunk *c;
    qb_status st = qb_alloc_zero(1, sizeof *c, &c);
    if (st != QB_OK) return st;
    if ((st = take_memory(c, need)) != QB_OK) {
        qb_free(c);
        return st;
    }
    c->next = all->chunks;
    all->chunks = c;
    return QB_OK;
}

static void drop_chunk(qb_huge *all, chunk *c) {
    chunk **at = &all->chunks;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    give_memory(c);
    qb_free(c);
}

qb_status qb_huge_alloc(qb_huge *all, int64_t bytes, void *out_pointer) {
    void **out = out_pointer;
    *out = NULL;
    if (bytes < 0 || bytes > INT64_MAX / 2)
        return qb_fail(QB_ERR_MEMORY, "cannot allocate %lld bytes", (long long)bytes);
    const int64_t need = round_up(bytes + HEAD_BYTES, QB_ALIGNMENT);
    if (!all->chunks || all->chunks->bytes - all->chunks->used < need) {
        qb_status st = add_chunk(all, need);
        if (st != QB_OK) return st;
    }
    chunk *c = all->chunks;
    char *p = c->memory + c->used;
    memcpy(p, &(head){c, need}, sizeof(head));
    c->used += need;
    c->held++;
    *out = p + HEAD_BYTES;
    return QB_OK;
}

void qb_huge_free(qb_huge *all, void *memory) {
    if (!memory) return;
    char *p = (char *)memory - HEAD_BYTES;
    head h;
    memcpy(&h, p, sizeof h);
    chunk *c = h.from;
    if (--c->held == 0) {
        drop_chunk(all, c);
        return;
    }
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)p + page - 1) / page * page;
    const uintptr_t end = (uintptr_t)(p + h.bytes) / page * page;
    if (from < end) (void)madvise((void *)from, end - from, MADV_DONTNEED);
    if (p + h.bytes == c->memory + c->used) c->used -= h.bytes;
}
