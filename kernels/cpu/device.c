#include "kernels/cpu/device.h"

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cpu/gemm.h"

#include <stdlib.h>
#include <string.h>

/* Stands before every allocation, so that freeing can uncount it. */
typedef struct {
    int64_t bytes;
    int32_t kind;
    uint32_t mark;
} header;
enum { HEADER_BYTES = QB_ALIGNMENT };
static const uint32_t header_mark = 0x51426d31;

void qb_cpu_count(cpu_device *d, qb_memory_kind kind, int64_t bytes) {
    qb_memory *m = &d->memory;
    m->now_bytes[kind] += bytes;
    if (m->now_bytes[kind] > m->peak_bytes[kind]) m->peak_bytes[kind] = m->now_bytes[kind];
    int64_t total = 0;
    for (int i = 0; i < QB_MEMORY_COUNT; i++) total += m->now_bytes[i];
    if (total > m->total_peak_bytes) m->total_peak_bytes = total;
}

qb_status qb_cpu_alloc(qb_device *dev, qb_memory_kind kind, int64_t bytes, void *out_pointer) {
    void **out = out_pointer;
    *out = NULL;
    if (bytes < 0) return qb_fail(QB_ERR_MEMORY, "allocation of %lld bytes", (long long)bytes);
    char *base;
    qb_status st = kind == QB_MEMORY_WEIGHTS
                       ? qb_huge_alloc(&cpu_of(dev)->weights, bytes + HEADER_BYTES, &base)
                       : qb_alloc((size_t)bytes + HEADER_BYTES, 1, &base);
    if (st != QB_OK) return st;
    if (kind != QB_MEMORY_WEIGHTS) qb_ask_huge_pages(base, bytes + HEADER_BYTES);
    header h = {bytes, (int32_t)kind, header_mark};
    memcpy(base, &h, sizeof h);
    *out = base + HEADER_BYTES;
    qb_cpu_count(cpu_of(dev), kind, bytes);
    return QB_OK;
}

void qb_cpu_free(qb_device *dev, void *pointer) {
    if (!pointer) return;
    char *base = (char *)pointer - HEADER_BYTES;
    header h;
    memcpy(&h, base, sizeof h);
    if (h.mark != header_mark) return; /* not from this allocator: a leak is better than a wild free */
    qb_cpu_count(cpu_of(dev), (qb_memory_kind)h.kind, -h.bytes);
    memset(base, 0, sizeof h);
    if (h.kind == QB_MEMORY_WEIGHTS)
        qb_huge_free(&cpu_of(dev)->weights, base);
    else
        qb_free(base);
}

qb_status qb_cpu_workspace(cpu_device *d, int64_t bytes, void *out_pointer) {
    void **out = out_pointer;
    if (bytes > d->workspace_bytes) {
        qb_cpu_free(&d->base, d->workspace);
        d->workspace = NULL, d->workspace_bytes = 0;
        qb_status st = qb_cpu_alloc(&d->base, QB_MEMORY_WORKSPACE, bytes, &d->workspace);
        if (st != QB_OK) return st;
        d->workspace_bytes = bytes;
    }
    *out = d->workspace;
    return QB_OK;
}

static void cpu_close(qb_device *dev) {
    if (!dev) return;
    cpu_device *d = cpu_of(dev);
    qb_cpu_free(dev, d->workspace);
    qb_threads_free(dev->threads);
    qb_free(d);
}

static qb_status cpu_open(const qb_device_options *options, qb_device **out) {
    *out = NULL;
    if (options->index != 0)
        return qb_fail(QB_ERR_USAGE, "the cpu backend has device 0 only, found %d", options->index);
    cpu_device *d;
    qb_status st = qb_alloc_zero(1, sizeof *d, &d);
    if (st != QB_OK) return st;
    qb_blas_single_thread();
    d->base.backend = &qb_backend_cpu;
    d->memory_limit = options->memory_bytes;
    d->simd = qb_simd_chosen();
    d->integer = qb_integer_chosen();
    st = qb_simd_check();
    d->numa = options->numa;
    if (st == QB_OK) st = qb_places_here(d->numa, options->threads, &d->places);
    d->settles = qb_places_matter(&d->places) || qb_huge_pages_given(NULL);
    if (st == QB_OK) st = qb_threads_create_at(&d->places, &d->base.threads);
    if (st == QB_OK) st = qb_blas_take_buffers(qb_threads_count(d->base.threads));
    if (st != QB_OK) {
        cpu_close(&d->base);
        return st;
    }
    *out = &d->base;
    return QB_OK;
}

static qb_status cpu_copy(qb_device *dev, void *to, const void *from, int64_t bytes) {
    (void)dev;
    if (bytes > 0) memmove(to, from, (size_t)bytes);
    return QB_OK;
}

/* What the system hands out is cleared by it too, where it is touched first: that is shared as well. */
enum { CLEAR_BYTES = 2 << 20 };
typedef struct {
    uint8_t *to;
    int64_t bytes;
} clear_job;
static void clear_parts(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const clear_job *j = ctx;
    const int64_t first = begin * CLEAR_BYTES, last = end * CLEAR_BYTES;
    memset(j->to + first, 0, (size_t)((last < j->bytes ? last : j->bytes) - first));
}

static qb_status cpu_clear(qb_device *dev, void *to, int64_t bytes) {
    clear_job j = {to, bytes};
    qb_parallel_for(dev->threads, (bytes + CLEAR_BYTES - 1) / CLEAR_BYTES, 1, clear_parts, &j);
    return QB_OK;
}

static int64_t cpu_available_bytes(const qb_device *dev) {
    const cpu_device *d = (const cpu_device *)dev;
    int64_t available = qb_available_memory_bytes();
    if (d->memory_limit <= 0 || available < 0) return available;
    int64_t left = d->memory_limit;
    for (int i = 0; i < QB_MEMORY_COUNT; i++) left -= d->memory.now_bytes[i];
    return left < 0 ? 0 : left < available ? left : available;
}

static qb_status cpu_timer_start(qb_device *dev) {
    cpu_of(dev)->timer_ns = qb_now_ns();
    return QB_OK;
}

static qb_status cpu_timer_stop(qb_device *dev, double *seconds) {
    *seconds = (double)(qb_now_ns() - cpu_of(dev)->timer_ns) * 1e-9;
    return QB_OK;
}

static qb_status cpu_sync(qb_device *dev) {
    (void)dev; /* every op has finished when it returns */
    return QB_OK;
}

static void cpu_memory(const qb_device *dev, qb_memory *out) {
    *out = ((const cpu_device *)dev)->memory;
}

const qb_backend qb_backend_cpu = {
    .name = "cpu",
    .summary =
        "host processor: AVX-512, AVX2, NEON or plain C chosen at run time, OpenBLAS for large products",
    .check_step = qb_step_check,
    .open = cpu_open,
    .close = cpu_close,
    .alloc = qb_cpu_alloc,
    .free = qb_cpu_free,
    .upload = cpu_copy,
    .upload_new = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .clear = cpu_clear,
    .sync = cpu_sync,
    .memory = cpu_memory,
    .available_bytes = cpu_available_bytes,
    .timer_start = cpu_timer_start,
    .timer_stop = cpu_timer_stop,
    .matrix_create = qb_cpu_matrix_create,
    .matrix_free = qb_cpu_matrix_free,
    .matrix_settle = qb_cpu_matrix_settle,
    .kv_settle = qb_cpu_kv_settle,
    .matmul = qb_cpu_matmul,
    .matmul_all = qb_cpu_matmul_all,
    .hessian = qb_cpu_hessian,
    .norm = qb_cpu_norm,
    .rope = qb_cpu_rope,
    .kv_store = qb_cpu_kv_store,
    .attention = qb_cpu_attention,
    .activate = qb_cpu_activate,
    .add = qb_cpu_add,
    .add_bias = qb_cpu_add_bias,
    .map = qb_cpu_map,
    .gate_rows = qb_cpu_gate_rows,
    .temperature = qb_cpu_temperature,
    .split = qb_cpu_split,
    .join = qb_cpu_join,
    .concat = qb_cpu_concat,
    .conv = qb_cpu_conv,
    .delta = qb_cpu_delta,
    .xielu = qb_cpu_xielu,
    .route = qb_cpu_route,
    .gather = qb_cpu_gather,
    .scatter = qb_cpu_scatter,
    .embed = qb_cpu_embed,
    .nll = qb_cpu_nll,
    .argmax = qb_cpu_argmax,
    .all_finite = qb_cpu_all_finite,
    .ceilings = qb_cpu_ceilings,
    .describe = qb_cpu_describe,
    .set_activations = qb_cpu_set_activations,
};
