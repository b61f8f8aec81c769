/* Memory of several nodes. No memory policy is set: a page comes to lie on the node whose thread first writes
   to it, so each node is made the first to write what its threads will read. What that is follows from the
   division that loops have, of which both sides ask the same functions. */
#include "kernels/cpu/device.h"

#include "base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

enum { PAGES_A_TASK = 16 };

void qb_cpu_row_shares(const qb_threads *threads, int64_t rows, int64_t bytes, int64_t at[QB_NODES_MAX + 1]) {
    if (rows < 1) rows = 1;
    const int64_t tasks = (rows + QB_ROWS_A_TASK - 1) / QB_ROWS_A_TASK;
    for (int k = 0; k <= qb_threads_nodes(threads); k++) {
        int64_t first = qb_threads_boundary(threads, tasks, k) * QB_ROWS_A_TASK;
        at[k] = first < rows ? bytes / rows * first + bytes % rows * first / rows : bytes;
    }
}

typedef struct {
    int64_t page_bytes;
    int64_t page[QB_NODES_MAX + 1];   /* of the address space, that a node's begin with */
    int64_t shares[QB_NODES_MAX + 1]; /* its first task */
} page_job;

static void write_pages(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const page_job *j = ctx;
    int node = 0;
    for (int64_t task = begin; task < end; task++) {
        while (task >= j->shares[node + 1]) node++;
        int64_t page = j->page[node] + (task - j->shares[node]) * PAGES_A_TASK, last = page + PAGES_A_TASK;
        for (; page < last && page < j->page[node + 1]; page++)
            *(volatile char *)(uintptr_t)(page * j->page_bytes) = 0;
    }
}

void qb_cpu_place(qb_threads *threads, void *memory, const int64_t *at) {
    const int n = qb_threads_nodes(threads);
    if (n == 1) return;
    page_job j = {.page_bytes = (int64_t)sysconf(_SC_PAGESIZE)};
    const int64_t from = (int64_t)(uintptr_t)memory, end = (from + at[n]) / j.page_bytes;
    for (int k = 0; k <= n; k++) {
        int64_t first = (from + at[k] + j.page_bytes - 1) / j.page_bytes;
        j.page[k] = first < end ? first : end;
    }
    for (int k = 0; k < n; k++)
        j.shares[k + 1] = j.shares[k] + (j.page[k + 1] - j.page[k] + PAGES_A_TASK - 1) / PAGES_A_TASK;
    /* Pages of the heap may have been written before. Where they cannot be given back (locked memory) they
       stay where they are. */
    char *base = (char *)(uintptr_t)(j.page[0] * j.page_bytes);
    if (j.page[0] == end || madvise(base, (size_t)((end - j.page[0]) * j.page_bytes), MADV_DONTNEED) != 0)
        return;
    qb_parallel_at_home(threads, j.shares, j.shares[n], 1, write_pages, &j);
}

/* ---- huge pages ---- */

/* Between two nodes' shares lies a page that is of both: of small ones that is nothing, of huge ones half of
   one lies wrong on the average, which is to be little beside a share. */
enum { HUGE_PAGES_A_SHARE = 8 };

void qb_cpu_fit_pages(const qb_threads *threads, void *memory, int64_t bytes, int64_t share_bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)memory;
    const uintptr_t first = (from + page - 1) / page * page, end = (from + (uintptr_t)bytes) / page * page;
    if (qb_threads_nodes(threads) == 1 || share_bytes >= HUGE_PAGES_A_SHARE * (int64_t)QB_HUGE_PAGE_BYTES)
        return;
    if (first < end) (void)madvise((void *)first, end - first, MADV_NOHUGEPAGE);
}
