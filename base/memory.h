/* Checked allocation and arenas. Nothing here aborts: a failed allocation is QB_ERR_MEMORY with the size. */
#pragma once

#include "base/status.h"

#include <stdint.h>

enum { QB_ALIGNMENT = 64 }; /* one cache line, one zmm register */

/* count * size bytes, 64-byte aligned, not cleared; *out = NULL for zero bytes. Overflow is an error. Free
 * with qb_free. */
qb_status qb_alloc(size_t count, size_t size, void *out_pointer) QB_NODISCARD;
/* The same, cleared to zero. */
qb_status qb_alloc_zero(size_t count, size_t size, void *out_pointer) QB_NODISCARD;
/* Grows *pointer (from qb_alloc, or NULL) to hold `need` items of `size`, doubling *capacity; keeps the first
 *capacity items. */
qb_status qb_grow(void *pointer_to_pointer, size_t *capacity, size_t need, size_t size) QB_NODISCARD;
void qb_free(void *pointer);
/* Asks for huge pages within memory of which all is written soon. The system may decline. */
enum { QB_HUGE_PAGE_BYTES = 1 << 21 };
void qb_ask_huge_pages(void *memory, int64_t bytes);
/* Whether the system ever gives them: false where it says that it never does, or does not say (`path`, NULL:
   /sys/kernel/mm/transparent_hugepage/enabled). */
bool qb_huge_pages_given(const char *path);
/* Once, as a program begins: what is freed stays in the heap for the next of its size, up to tens of
   megabytes, and the largest blocks, for which huge pages are asked, come from the system. By default the
   heap's library maps and unmaps every block above a hundred kilobytes that is aligned to more than it needs.
 */
void qb_keep_heap(void);
char *qb_strdup(const char *text); /* NULL on exhaustion or NULL input; free with qb_free */

/* An arena owns everything allocated from it and frees it at once. Zero-initialise; {0} is an empty arena. */
typedef struct qb_arena {
    struct qb_arena_chunk *head;
    size_t total_bytes; /* handed out so far, rounding included */
} qb_arena;

/* Cleared, 64-byte aligned; lives until qb_arena_free. */
qb_status qb_arena_alloc(qb_arena *arena, size_t count, size_t size, void *out_pointer) QB_NODISCARD;
qb_status qb_arena_strdup(qb_arena *arena, const char *text, const char **out) QB_NODISCARD;
void qb_arena_free(qb_arena *arena);

/* What the system and this process's control groups give without swapping; -1 with the error set: not read */
int64_t qb_available_memory_bytes(void);
/* Resident memory of this process now: program, libraries, what it holds. 0 when the system does not say. */
int64_t qb_resident_bytes(void);
