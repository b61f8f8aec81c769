/* Rotary positions, and keys and values into the cache. */
#include "kernels/cuda/cuda.cuh"

#include <cuda_fp16.h>

namespace {

constexpr int64_t threads = 256;

struct rope_shape {
    int64_t n_pairs; /* rows * heads * rot / 2 */
    int64_t n_tok, first, heads, head_dim, rot;
};

/* One thread a pair. */
__global__ void rope_kernel(bool halves, float *x, const float *__restrict__ table, rope_shape s) {
    int64_t pair = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x, half = s.rot / 2;
    if (pair >= s.n_pairs) return;
    int64_t i = pair % half, head = pair / half, position = s.first + head / s.heads % s.n_tok;
    float c = table[position * s.rot + 2 * i], t = table[position * s.rot + 2 * i + 1];
    float *a = x + head * s.head_dim + (halves ? i : 2 * i), *b = a + (halves ? half : 1);
    float u = *a, v = *b;
    *a = u * c - v * t;
    *b = v * c + u * t;
}

struct store_shape {
    int64_t n; /* elements of k: rows * n_kv_heads * head_dim */
    int64_t n_tok, first, heads, head_dim, capacity;
};

__device__ __forceinline__ void put(float *to, float v) {
    *to = v;
}
__device__ __forceinline__ void put(half *to, float v) {
    *to = __float2half_rn(v);
}

/* One thread an element of k and the same of v; the cache pointers stand at the layer's first sequence. */
template <typename Element>
__global__ void store_kernel(Element *k_cache, Element *v_cache, const float *__restrict__ k,
                             const float *__restrict__ v, store_shape s) {
    int64_t from = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (from >= s.n) return;
    int64_t i = from % s.head_dim, head = from / s.head_dim % s.heads, row = from / s.head_dim / s.heads;
    int64_t seq = row / s.n_tok, position = s.first + row % s.n_tok;
    int64_t to = ((seq * s.heads + head) * s.capacity + position) * s.head_dim + i;
    put(k_cache + to, k[from]);
    put(v_cache + to, v[from]);
}

template <typename Element>
cudaError_t store(cuda_device *d, const qb_kv *kv, int64_t layer, const float *k, const float *v,
                  const store_shape &s) {
    int64_t offset = layer * kv->n_seq * kv->n_kv_heads * kv->capacity * kv->head_dim;
    return qb_launch(store_kernel<Element>, dim3(qb_blocks(s.n, threads)), dim3(threads), 0, d->stream,
                     static_cast<Element *>(kv->k) + offset, static_cast<Element *>(kv->v) + offset, k, v, s);
}

} // namespace

extern "C" qb_status qb_cuda_rope(qb_device *dev, qb_rope_kind kind, float *x, const float *table,
                                  int64_t n_seq, int64_t n_tok, int64_t first, int64_t heads,
                                  int64_t head_dim, int64_t rot) {
    cuda_device *d = cuda_of(dev);
    rope_shape s = {n_seq * n_tok * heads * (rot / 2), n_tok, first, heads, head_dim, rot};
    if (s.n_pairs <= 0) return QB_OK;
    return qb_cuda_status(d,
                          qb_launch(rope_kernel, dim3(qb_blocks(s.n_pairs, threads)), dim3(threads), 0,
                                    d->stream, kind == QB_ROPE_HALF, x, table, s),
                          "rope");
}

extern "C" qb_status qb_cuda_kv_store(qb_device *dev, const qb_kv *kv, int64_t layer, const float *k,
                                      const float *v, int64_t n_seq, int64_t n_tok, int64_t first) {
    cuda_device *d = cuda_of(dev);
    store_shape s = {n_seq * n_tok * kv->n_kv_heads * kv->head_dim,
                     n_tok,
                     first,
                     kv->n_kv_heads,
                     kv->head_dim,
                     kv->capacity};
    if (s.n <= 0) return QB_OK;
    return qb_cuda_status(d,
                          kv->dtype == QB_DTYPE_F16 ? store<half>(d, kv, layer, k, v, s)
                                                    : store<float>(d, kv, layer, k, v, s),
                          "kv_store");
}
