/* Rotary positions, and keys and values into the cache. */
#include "kernels/cuda/place.cuh"

#include <cuda_fp16.h>

namespace {

constexpr int64_t threads = 256;

struct rope_shape {
    int64_t n_pairs; /* rows * heads * rot / 2 */
    int64_t n_tok, heads, head_dim, offset, rot;
    cuda_place place;
};

/* One thread a pair. */
__global__ void rope_kernel(bool halves, float *x, const float *__restrict__ table, rope_shape s) {
    int64_t pair = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x, half = s.rot / 2;
    if (pair >= s.n_pairs) return;
    int64_t i = pair % half, head = pair / half, position = s.place.position(head / s.heads % s.n_tok);
    float c = table[position * s.rot + 2 * i], t = table[position * s.rot + 2 * i + 1];
    float *a = x + head * s.head_dim + s.offset + (halves ? i : 2 * i), *b = a + (halves ? half : 1);
    float u = *a, v = *b;
    *a = u * c - v * t;
    *b = v * c + u * t;
}

struct store_shape {
    int64_t heads_in_all; /* rows * n_kv_heads */
    int64_t n_tok, heads, capacity, head_dim, value_dim;
    cuda_place place;
};

__device__ __forceinline__ void put(float *to, float v) {
    *to = v;
}
__device__ __forceinline__ void put(half *to, float v) {
    *to = __float2half_rn(v);
}

/* Element i of x [rows][heads][dim] into its place of the cache. */
template <typename Element>
__device__ __forceinline__ void store_element(Element *cache, const float *__restrict__ x, int64_t i,
                                              int64_t dim, const store_shape &s) {
    int64_t head = i / dim % s.heads, row = i / dim / s.heads;
    int64_t seq = row / s.n_tok, position = s.place.position(row % s.n_tok);
    put(cache + ((seq * s.heads + head) * s.capacity + position) * dim + i % dim, x[i]);
}

/* One thread an element of k and one of v; the cache pointers stand at the layer's first sequence. */
template <typename Element>
__global__ void store_kernel(Element *k_cache, Element *v_cache, const float *__restrict__ k,
                             const float *__restrict__ v, store_shape s) {
    int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (i < s.heads_in_all * s.head_dim) store_element(k_cache, k, i, s.head_dim, s);
    if (i < s.heads_in_all * s.value_dim) store_element(v_cache, v, i, s.value_dim, s);
}

template <typename Element>
cudaError_t store(const qb_kv *kv, int64_t layer, const float *k, const float *v, const store_shape &s,
                  cudaStream_t stream) {
    int64_t before = layer * kv->n_seq * kv->n_kv_heads * kv->capacity;
    int64_t widest = s.value_dim > s.head_dim ? s.value_dim : s.head_dim;
    return qb_launch(store_kernel<Element>, dim3(qb_blocks(s.heads_in_all * widest, threads)), dim3(threads),
                     0, stream, static_cast<Element *>(kv->k) + before * s.head_dim,
                     static_cast<Element *>(kv->v) + before * s.value_dim, k, v, s);
}

} // namespace

cudaError_t qb_queue_rope(const qb_rope_attr &attr, float *x, const float *table, int64_t n_seq,
                          int64_t n_tok, cuda_place place, cudaStream_t stream) {
    rope_shape s = {n_seq * n_tok * attr.heads * (attr.width / 2),
                    n_tok,
                    attr.heads,
                    attr.head_dim,
                    attr.offset,
                    attr.width,
                    place};
    if (s.n_pairs <= 0) return cudaSuccess;
    return qb_launch(rope_kernel, dim3(qb_blocks(s.n_pairs, threads)), dim3(threads), 0, stream,
                     attr.kind == QB_ROPE_HALF, x, table, s);
}

cudaError_t qb_queue_store(const qb_kv *kv, int64_t layer, const float *k, const float *v, int64_t n_seq,
                           int64_t n_tok, cuda_place place, cudaStream_t stream) {
    store_shape s = {n_seq * n_tok * kv->n_kv_heads,
                     n_tok,
                     kv->n_kv_heads,
                     kv->capacity,
                     kv->head_dim,
                     kv->value_dim,
                     place};
    if (s.heads_in_all <= 0) return cudaSuccess;
    return kv->dtype == QB_DTYPE_F16 ? store<half>(kv, layer, k, v, s, stream)
                                     : store<float>(kv, layer, k, v, s, stream);
}

extern "C" qb_status qb_cuda_rope(qb_device *dev, const qb_rope_attr *attr, float *x, const float *table,
                                  int64_t n_seq, int64_t n_tok, int64_t first) {
    cuda_device *d = cuda_of(dev);
    return qb_cuda_status(d, qb_queue_rope(*attr, x, table, n_seq, n_tok, {NULL, first}, d->stream), "rope");
}

extern "C" qb_status qb_cuda_kv_store(qb_device *dev, const qb_kv *kv, int64_t layer, const float *k,
                                      const float *v, int64_t n_seq, int64_t n_tok, int64_t first) {
    cuda_device *d = cuda_of(dev);
    return qb_cuda_status(d, qb_queue_store(kv, layer, k, v, n_seq, n_tok, {NULL, first}, d->stream),
                          "kv_store");
}
