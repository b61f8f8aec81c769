/* Copies between host and device through two pinned buffers: while one is on the bus the other is filled or
   emptied, so that pageable memory (mapped checkpoints) moves at nearly the bus's speed. */
#include "kernels/cuda/cuda.cuh"

#include <cstring>
extern "C" {
#include "base/memory.h"
}

namespace {

constexpr int slots = 2;
constexpr int64_t slot_bytes = 16 << 20, copy_grain_bytes = 1 << 20;

struct ring {
    cudaStream_t stream;
    void *slot[slots];
    cudaEvent_t used[slots]; /* behind the last copy from or to the slot */
    int next;
};

/* Each made when it is first wanted. A ring of its own lets uploads to new memory pass what is queued. */
enum ring_kind { RING_ORDERED, RING_NEW, RING_COUNT };
struct transfer {
    ring rings[RING_COUNT];
};

void ring_close(cuda_device *d, ring *r) {
    for (int i = 0; i < slots; i++) {
        if (r->used[i]) cudaEventDestroy(r->used[i]);
        if (r->slot[i]) qb_cuda_raw_free(d, true, r->slot[i]);
    }
    *r = ring();
}

void transfer_free(cuda_device *d, void *state) {
    transfer *t = static_cast<transfer *>(state);
    for (ring &r : t->rings) ring_close(d, &r);
    qb_free(t);
}

qb_status ring_open(cuda_device *d, cudaStream_t stream, ring *r) {
    qb_status st = QB_OK;
    for (int i = 0; st == QB_OK && i < slots; i++) {
        st = qb_cuda_raw_alloc(d, true, slot_bytes, &r->slot[i]);
        if (st == QB_OK)
            st = qb_cuda_status(d, cudaEventCreateWithFlags(&r->used[i], cudaEventDisableTiming),
                                "making an event");
    }
    r->stream = stream;
    if (st == QB_OK) return st;
    ring_close(d, r);
    return qb_fail_prefix(st, "the buffers of copies to the device");
}

qb_status ring_of(cuda_device *d, ring_kind kind, ring **out) {
    auto &part = d->parts[QB_CUDA_PART_TRANSFER];
    qb_status st = QB_OK;
    if (!part.state && (st = qb_alloc_zero(1, sizeof(transfer), &part.state)) != QB_OK) return st;
    part.free = transfer_free;
    *out = &static_cast<transfer *>(part.state)->rings[kind];
    if ((*out)->slot[0]) return QB_OK;
    return ring_open(d, kind == RING_NEW ? d->copy_stream : d->stream, *out);
}

struct host_copy {
    char *to;
    const char *from;
};

void copy_range(void *ctx, int64_t begin, int64_t end, int) {
    const host_copy *c = static_cast<const host_copy *>(ctx);
    memcpy(c->to + begin, c->from + begin, static_cast<size_t>(end - begin));
}

/* One core copies slower than the bus. */
void copy_on_host(cuda_device *d, void *to, const void *from, int64_t bytes) {
    host_copy c = {static_cast<char *>(to), static_cast<const char *>(from)};
    qb_parallel_for(d->base.threads, bytes, copy_grain_bytes, copy_range, &c);
}

/* The next slot, once what used it last is through. */
cudaError_t take_slot(ring *r, int *slot) {
    *slot = r->next;
    r->next = (r->next + 1) % slots;
    return cudaEventSynchronize(r->used[*slot]);
}

cudaError_t upload_part(cuda_device *d, ring *r, char *to, const char *from, int64_t bytes) {
    int i;
    cudaError_t error = take_slot(r, &i);
    if (error != cudaSuccess) return error;
    copy_on_host(d, r->slot[i], from, bytes);
    error = cudaMemcpyAsync(to, r->slot[i], static_cast<size_t>(bytes), cudaMemcpyHostToDevice, r->stream);
    return error == cudaSuccess ? cudaEventRecord(r->used[i], r->stream) : error;
}

struct part {
    int slot;
    int64_t begin, bytes; /* 0: none */
};

cudaError_t begin_download(ring *r, const char *from, part *p) {
    cudaError_t error = take_slot(r, &p->slot);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(r->slot[p->slot], from + p->begin, static_cast<size_t>(p->bytes),
                                cudaMemcpyDeviceToHost, r->stream);
    return error == cudaSuccess ? cudaEventRecord(r->used[p->slot], r->stream) : error;
}

cudaError_t end_download(cuda_device *d, const ring *r, char *to, const part *p) {
    cudaError_t error = cudaEventSynchronize(r->used[p->slot]);
    if (error == cudaSuccess) copy_on_host(d, to + p->begin, r->slot[p->slot], p->bytes);
    return error;
}

int64_t part_bytes(int64_t left) {
    return left < slot_bytes ? left : slot_bytes;
}

qb_status upload(cuda_device *d, ring_kind kind, void *to, const void *from, int64_t bytes) {
    ring *r;
    qb_status st = ring_of(d, kind, &r);
    cudaError_t error = cudaSuccess;
    if (st != QB_OK || bytes <= 0) return st;
    for (int64_t at = 0; error == cudaSuccess && at < bytes; at += slot_bytes)
        error = upload_part(d, r, static_cast<char *>(to) + at, static_cast<const char *>(from) + at,
                            part_bytes(bytes - at));
    if (error == cudaSuccess && r->stream != d->stream) /* what is queued from now on comes after the copy */
        error = cudaStreamWaitEvent(d->stream, r->used[(r->next + slots - 1) % slots], 0);
    return qb_cuda_status(d, error, "copying to the device");
}

} // namespace

extern "C" qb_status qb_cuda_upload(qb_device *dev, void *to, const void *from, int64_t bytes) {
    return upload(cuda_of(dev), RING_ORDERED, to, from, bytes);
}

extern "C" qb_status qb_cuda_upload_new(qb_device *dev, void *to, const void *from, int64_t bytes) {
    return upload(cuda_of(dev), RING_NEW, to, from, bytes);
}

extern "C" qb_status qb_cuda_download(qb_device *dev, void *to, const void *from, int64_t bytes) {
    cuda_device *d = cuda_of(dev);
    ring *r;
    qb_status st = ring_of(d, RING_ORDERED, &r);
    cudaError_t error = cudaSuccess;
    if (st != QB_OK) return st;
    part before = {0, 0, 0};
    for (int64_t at = 0; error == cudaSuccess && at < bytes; at += slot_bytes) {
        part now = {0, at, part_bytes(bytes - at)};
        error = begin_download(r, static_cast<const char *>(from), &now);
        if (error == cudaSuccess && before.bytes)
            error = end_download(d, r, static_cast<char *>(to), &before);
        before = now;
    }
    if (error == cudaSuccess && before.bytes) error = end_download(d, r, static_cast<char *>(to), &before);
    return qb_cuda_status(d, error, "copying from the device");
}

extern "C" qb_status qb_cuda_copy(qb_device *dev, void *to, const void *from, int64_t bytes) {
    cuda_device *d = cuda_of(dev);
    if (bytes <= 0) return QB_OK;
    return qb_cuda_status(
        d, cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, d->stream),
        "copy");
}

extern "C" qb_status qb_cuda_clear(qb_device *dev, void *to, int64_t bytes) {
    cuda_device *d = cuda_of(dev);
    if (bytes <= 0) return QB_OK;
    return qb_cuda_status(d, cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), d->stream), "clear");
}
