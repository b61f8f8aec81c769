/* The CUDA backend's vtable and its counted memory. What touches the runtime stands in .cu files. */
#include "kernels/cuda/cuda_device.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"

#include <string.h>

static const double mib = 1.0 / (1 << 20);

static int64_t held_bytes(const cuda_device *d) {
    int64_t total = 0;
    for (int i = 0; i < QB_MEMORY_COUNT; i++) total += d->memory.now_bytes[i];
    return total;
}

static void count(cuda_device *d, const qb_cuda_allocation *a, int64_t bytes) {
    if (a->pinned) {
        d->pinned_now_bytes += bytes;
        if (d->pinned_now_bytes > d->pinned_peak_bytes) d->pinned_peak_bytes = d->pinned_now_bytes;
        return;
    }
    qb_memory *m = &d->memory;
    m->now_bytes[a->kind] += bytes;
    if (m->now_bytes[a->kind] > m->peak_bytes[a->kind]) m->peak_bytes[a->kind] = m->now_bytes[a->kind];
    int64_t total = held_bytes(d);
    if (total > m->total_peak_bytes) m->total_peak_bytes = total;
}

static qb_status out_of_memory(const cuda_device *d, int64_t bytes, int64_t free_bytes) {
    const int64_t *now = d->memory.now_bytes;
    return qb_fail(
        QB_ERR_MEMORY,
        "out of device memory: asked for %.1f MiB, %.1f MiB are free%s on device %d (%s, %.1f MiB); held: "
        "weights %.1f, kv %.1f, activations %.1f, workspace %.1f MiB",
        (double)bytes * mib, (double)free_bytes * mib, d->memory_limit > 0 ? " within the limit" : "",
        d->index, d->name, (double)d->total_bytes * mib, (double)now[QB_MEMORY_WEIGHTS] * mib,
        (double)now[QB_MEMORY_KV] * mib, (double)now[QB_MEMORY_ACTIVATIONS] * mib,
        (double)now[QB_MEMORY_WORKSPACE] * mib);
}

static int64_t cuda_available_bytes(const qb_device *dev) {
    const cuda_device *d = (const cuda_device *)dev;
    int64_t available = qb_cuda_raw_free_bytes(d) + d->idle_bytes;
    if (d->memory_limit <= 0) return available;
    int64_t left = d->memory_limit - held_bytes(d) + d->idle_bytes;
    return left < 0 ? 0 : left < available ? left : available;
}

static void drop_idle(cuda_device *d) {
    while (d->n_idle > 0) qb_cuda_free(&d->base, d->idle[--d->n_idle]);
    d->idle_bytes = 0;
}

static qb_status add_allocation(cuda_device *d, qb_cuda_allocation a, void **out) {
    *out = NULL;
    if (a.bytes < 0) return qb_fail(QB_ERR_MEMORY, "allocation of %lld bytes", (long long)a.bytes);
    if (a.bytes == 0) a.bytes = 1; /* an address of its own, as the cpu gives */
    qb_status st =
        qb_grow(&d->allocations, &d->allocation_capacity, d->n_allocations + 1, sizeof *d->allocations);
    if (st != QB_OK) return st;
    if (!a.pinned && d->memory_limit > 0 && a.bytes > d->memory_limit - held_bytes(d)) drop_idle(d);
    if (!a.pinned && d->memory_limit > 0 && a.bytes > d->memory_limit - held_bytes(d))
        return out_of_memory(d, a.bytes, cuda_available_bytes(&d->base));
    st = qb_cuda_raw_alloc(d, a.pinned, a.bytes, &a.pointer);
    if (st == QB_ERR_MEMORY && !a.pinned && d->n_idle > 0) {
        drop_idle(d);
        st = qb_cuda_raw_alloc(d, a.pinned, a.bytes, &a.pointer);
    }
    if (st == QB_ERR_MEMORY && !a.pinned) return out_of_memory(d, a.bytes, cuda_available_bytes(&d->base));
    if (st == QB_ERR_MEMORY)
        return qb_fail(st, "out of pinned host memory: asked for %.1f MiB beside %.1f MiB held",
                       (double)a.bytes * mib, (double)d->pinned_now_bytes * mib);
    if (st != QB_OK) return st;
    d->allocations[d->n_allocations++] = a;
    count(d, &a, a.bytes);
    *out = a.pointer;
    return QB_OK;
}

qb_status qb_cuda_alloc(qb_device *dev, qb_memory_kind kind, int64_t bytes, void *out_pointer) {
    return add_allocation(cuda_of(dev), (qb_cuda_allocation){.bytes = bytes, .kind = kind}, out_pointer);
}

qb_status qb_cuda_alloc_pinned(cuda_device *d, int64_t bytes, void *out_pointer) {
    return add_allocation(d, (qb_cuda_allocation){.bytes = bytes, .pinned = true}, out_pointer);
}

void qb_cuda_free(qb_device *dev, void *pointer) {
    cuda_device *d = cuda_of(dev);
    if (!pointer) return;
    for (size_t i = d->n_allocations; i-- > 0;) {
        qb_cuda_allocation a = d->allocations[i];
        if (a.pointer != pointer) continue;
        d->allocations[i] = d->allocations[--d->n_allocations];
        count(d, &a, -a.bytes);
        qb_cuda_raw_free(d, a.pinned, pointer);
        return;
    } /* not from this allocator: a leak is better than a wild free */
}

static int64_t bytes_of(const cuda_device *d, const void *pointer) {
    for (size_t i = d->n_allocations; i-- > 0;)
        if (d->allocations[i].pointer == pointer) return d->allocations[i].bytes;
    return -1;
}

static void *take_idle(cuda_device *d, size_t i) {
    void *pointer = d->idle[i];
    d->idle_bytes -= bytes_of(d, pointer);
    memmove(d->idle + i, d->idle + i + 1, (--d->n_idle - i) * sizeof *d->idle);
    return pointer;
}

/* The smallest block that does, if it wastes no more than a quarter. */
qb_status qb_cuda_borrow(cuda_device *d, int64_t bytes, void *out_pointer) {
    void **out = out_pointer;
    size_t best = d->n_idle;
    int64_t best_bytes = bytes + bytes / 4 + 1;
    for (size_t i = 0; i < d->n_idle; i++) {
        int64_t has = bytes_of(d, d->idle[i]);
        if (has < bytes || has >= best_bytes) continue;
        best = i;
        best_bytes = has;
    }
    if (best == d->n_idle) return qb_cuda_alloc(&d->base, QB_MEMORY_WORKSPACE, bytes, out);
    *out = take_idle(d, best);
    return QB_OK;
}

void qb_cuda_give_back(cuda_device *d, void *pointer) {
    int64_t bytes = pointer ? bytes_of(d, pointer) : -1, most = d->total_bytes / 16;
    if (bytes < 0) return;
    while (d->n_idle > 0 && (d->n_idle == QB_CUDA_IDLE_MOST || d->idle_bytes + bytes > most))
        qb_cuda_free(&d->base, take_idle(d, 0));
    if (bytes > most) {
        qb_cuda_free(&d->base, pointer);
        return;
    }
    d->idle[d->n_idle++] = pointer;
    d->idle_bytes += bytes;
}

qb_status qb_cuda_scratch(cuda_device *d, int64_t bytes, void *out_pointer) {
    void **out = out_pointer;
    if (bytes > d->scratch_bytes) {
        qb_cuda_free(&d->base, d->scratch); /* waits for what still uses it */
        d->scratch = NULL, d->scratch_bytes = 0;
        qb_status st = qb_cuda_alloc(&d->base, QB_MEMORY_WORKSPACE, bytes, &d->scratch);
        if (st != QB_OK) return st;
        d->scratch_bytes = bytes;
    }
    *out = d->scratch;
    d->scratch_uses++;
    return QB_OK;
}

static void cuda_close(qb_device *dev) {
    if (!dev) return;
    cuda_device *d = cuda_of(dev);
    for (int i = 0; i < QB_CUDA_PART_COUNT; i++)
        if (d->parts[i].state) d->parts[i].free(d, d->parts[i].state);
    drop_idle(d);
    qb_cuda_runtime_close(d);
    qb_cuda_free(dev, d->scratch);
    qb_cuda_free(dev, d->blas_workspace);
    qb_cuda_free(dev, d->results);
    qb_free(d->allocations);
    qb_threads_free(dev->threads);
    qb_free(d);
}

static qb_status cuda_open(const qb_device_options *options, qb_device **out) {
    *out = NULL;
    cuda_device *d;
    qb_status st = qb_alloc_zero(1, sizeof *d, &d);
    if (st != QB_OK) return st;
    d->base.backend = &qb_backend_cuda;
    d->memory_limit = options->memory_bytes;
    d->numa = options->numa;
    if (d->numa.mode == QB_NUMA_AUTO) d->numa.mode = QB_NUMA_OFF;
    QB_TRY(st, qb_places_here(d->numa, options->threads, &d->places));
    QB_TRY(st, qb_threads_create_at(&d->places, &d->base.threads));
    QB_TRY(st, qb_cuda_runtime_open(d, options->index));
    QB_TRY(st, qb_cuda_alloc_pinned(d, QB_CUDA_RESULT_BYTES, &d->results));
    *out = &d->base;
    return QB_OK;
out:
    cuda_close(&d->base);
    return st;
}

static void cuda_memory(const qb_device *dev, qb_memory *out) {
    *out = ((const cuda_device *)dev)->memory;
}

static qb_json *cuda_describe(qb_device *dev) {
    const cuda_device *d = cuda_of(dev);
    qb_json *json = qb_json_object();
    qb_str capability = {0};
    qb_str_printf(&capability, "%d.%d", d->major, d->minor);
    qb_json_put_text(json, "device", d->name);
    qb_json_put_int(json, "index", d->index);
    qb_json_put_text(json, "compute_capability", qb_str_get(&capability));
    qb_json_put_int(json, "multiprocessors", d->multiprocessors);
    qb_json_put_int(json, "memory_bytes", d->total_bytes);
    qb_json_put_int(json, "threads", qb_threads_count(dev->threads));
    qb_places_describe(d->numa, &d->places, NULL, json);
    qb_str_free(&capability);
    return json;
}

const qb_backend qb_backend_cuda = {
    .name = "cuda",
    .separate_memory = true,
    .summary = "NVIDIA GPUs of compute capability 7.5 and above: own kernels, cuBLAS for large products",
    .batch_rows = 8192, /* four windows of 2048: dequantizing takes some hundredths of the GEMM's time */
    .check_step = qb_cuda_check_step,
    .open = cuda_open,
    .close = cuda_close,
    .alloc = qb_cuda_alloc,
    .free = qb_cuda_free,
    .upload = qb_cuda_upload,
    .upload_new = qb_cuda_upload_new,
    .download = qb_cuda_download,
    .copy = qb_cuda_copy,
    .clear = qb_cuda_clear,
    .sync = qb_cuda_sync,
    .memory = cuda_memory,
    .available_bytes = cuda_available_bytes,
    .timer_start = qb_cuda_timer_start,
    .timer_stop = qb_cuda_timer_stop,
    .matrix_create = qb_cuda_matrix_create,
    .matrix_free = qb_cuda_matrix_free,
    .matmul = qb_cuda_matmul,
    .matmul_again = qb_cuda_matmul_again,
    .hessian = qb_cuda_hessian,
    .norm = qb_cuda_norm,
    .rope = qb_cuda_rope,
    .kv_store = qb_cuda_kv_store,
    .attention = qb_cuda_attention,
    .activate = qb_cuda_activate,
    .add = qb_cuda_add,
    .add_bias = qb_cuda_add_bias,
    .map = qb_cuda_map,
    .gate_rows = qb_cuda_gate_rows,
    .temperature = qb_cuda_temperature,
    .xielu = qb_cuda_xielu,
    .split = qb_cuda_split,
    .join = qb_cuda_join,
    .route = qb_cuda_route,
    .gather = qb_cuda_gather,
    .scatter = qb_cuda_scatter,
    .embed = qb_cuda_embed,
    .nll = qb_cuda_nll,
    .argmax = qb_cuda_argmax,
    .all_finite = qb_cuda_all_finite,
    .ceilings = qb_cuda_ceilings,
    .describe = cuda_describe,
    .monitor = qb_cuda_monitor,
    .round = qb_cuda_round,
    .gptq = qb_cuda_gptq,
    .decode = qb_cuda_decode,
    .decode_greedy = qb_cuda_decode_greedy,
    .concat = qb_cuda_concat,
    .conv = qb_cuda_conv,
    .delta = qb_cuda_delta,
};
