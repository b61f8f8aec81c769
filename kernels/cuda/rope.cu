/* Rotary positions, and keys and values into the cache. */
#include "kernels/cuda/place.cuh"

#include <cuda_fp16.h>

namespace {

constexpr int64_t threads = 256;

/* A row of tokens is blockIdx.x, so that what a thread divides is of its row and has 32 bits: divisions of 64
   take longer than the memory does. */
struct rope_shape {
    int n_tok, pairs, half; /* pairs of a row, and of a head */
    int64_t head_dim, offset, row_floats;
    cuda_place place;
};

/* One thread a pair. */
__global__ void rope_kernel(bool halves, float *x, const float *__restrict__ table, rope_shape s) {
    const int pair = static_cast<int>(blockIdx.y * threads + threadIdx.x);
    if (pair >= s.pairs) return;
    const int head = pair / s.half, i = pair - head * s.half;
    const int64_t position = s.place.position(static_cast<int>(blockIdx.x) % s.n_tok);
    const float2 turn = *reinterpret_cast<const float2 *>(table + 2 * (position * s.half + i));
    float *a = x + blockIdx.x * s.row_floats + head * s.head_dim + s.offset + (halves ? i : 2 * i);
    float *b = a + (halves ? s.half : 1);
    const float u = *a, v = *b;
    *a = u * turn.x - v * turn.y;
    *b = v * turn.x + u * turn.y;
}

struct store_shape {
    int n_tok, heads;
    int dims[2]; /* of k and of v */
    int64_t capacity;
    cuda_place place;
};

__device__ __forceinline__ void put(float *to, float v) {
    *to = v;
}
__device__ __forceinline__ void put(half *to, float v) {
    *to = __float2half_rn(v);
}
__device__ __forceinline__ void put(float *to, float4 v) {
    *reinterpret_cast<float4 *>(to) = v;
}
__device__ __forceinline__ void put(half *to, float4 v) {
    half2 pairs[2] = {__floats2half2_rn(v.x, v.y), __floats2half2_rn(v.z, v.w)};
    uint2 bits;
    memcpy(&bits, pairs, sizeof bits);
    *reinterpret_cast<uint2 *>(to) = bits;
}

/* Rows [heads][dim] into their places of the cache, one thread a Value (float, or four of them); blockIdx.z
   says whether of k or of v. The cache pointers stand at the layer's first sequence. */
template <typename Element, typename Value>
__global__ void store_kernel(Element *k_cache, Element *v_cache, const float *__restrict__ k,
                             const float *__restrict__ v, store_shape s) {
    constexpr int width = sizeof(Value) / sizeof(float);
    const int dim = blockIdx.z == 0 ? s.dims[0] : s.dims[1];
    const int i = static_cast<int>(blockIdx.y * threads + threadIdx.x) * width, all = s.heads * dim;
    if (i >= all) return;
    const int head = i / dim, row = static_cast<int>(blockIdx.x), seq = row / s.n_tok;
    const int64_t position = s.place.position(row - seq * s.n_tok);
    const float *from = (blockIdx.z == 0 ? k : v) + static_cast<int64_t>(row) * all + i;
    Element *to = blockIdx.z == 0 ? k_cache : v_cache;
    to += ((static_cast<int64_t>(seq) * s.heads + head) * s.capacity + position) * dim + (i - head * dim);
    put(to, *reinterpret_cast<const Value *>(from));
}

template <typename Element, typename Value>
cudaError_t launch_store(Element *k_cache, Element *v_cache, const float *k, const float *v, int64_t rows,
                         const store_shape &s, cudaStream_t stream) {
    const int widest = s.dims[1] > s.dims[0] ? s.dims[1] : s.dims[0];
    const int64_t values = static_cast<int64_t>(s.heads) * widest / (sizeof(Value) / sizeof(float));
    return qb_launch(store_kernel<Element, Value>,
                     dim3(static_cast<unsigned>(rows), qb_blocks(values, threads), 2), dim3(threads), 0,
                     stream, k_cache, v_cache, k, v, s);
}

template <typename Element>
cudaError_t store(const qb_kv *kv, int64_t layer, const float *k, const float *v, int64_t rows,
                  const store_shape &s, cudaStream_t stream) {
    const int64_t before = layer * kv->n_seq * kv->n_kv_heads * kv->capacity;
    Element *k_cache = static_cast<Element *>(kv->k) + before * kv->head_dim,
            *v_cache = static_cast<Element *>(kv->v) + before * kv->value_dim;
    return s.dims[0] % 4 == 0 && s.dims[1] % 4 == 0
               ? launch_store<Element, float4>(k_cache, v_cache, k, v, rows, s, stream)
               : launch_store<Element, float>(k_cache, v_cache, k, v, rows, s, stream);
}

} // namespace

cudaError_t qb_queue_rope(const qb_rope_attr &attr, float *x, const float *table, int64_t n_seq,
                          int64_t n_tok, cuda_place place, cudaStream_t stream) {
    const int64_t of_head = attr.width / 2, pairs = attr.heads * of_head, rows = n_seq * n_tok;
    if (rows * pairs <= 0) return cudaSuccess;
    rope_shape s = {static_cast<int>(n_tok),
                    static_cast<int>(pairs),
                    static_cast<int>(of_head),
                    attr.head_dim,
                    attr.offset,
                    attr.heads * attr.head_dim,
                    place};
    return qb_launch(rope_kernel, dim3(static_cast<unsigned>(rows), qb_blocks(pairs, threads)), dim3(threads),
                     0, stream, attr.kind == QB_ROPE_HALF, x, table, s);
}

cudaError_t qb_queue_store(const qb_kv *kv, int64_t layer, const float *k, const float *v, int64_t n_seq,
                           int64_t n_tok, cuda_place place, cudaStream_t stream) {
    const int64_t rows = n_seq * n_tok;
    if (rows * kv->n_kv_heads <= 0) return cudaSuccess;
    store_shape s = {static_cast<int>(n_tok),
                     static_cast<int>(kv->n_kv_heads),
                     {static_cast<int>(kv->head_dim), static_cast<int>(kv->value_dim)},
                     kv->capacity,
                     place};
    return kv->dtype == QB_DTYPE_F16 ? store<half>(kv, layer, k, v, rows, s, stream)
                                     : store<float>(kv, layer, k, v, rows, s, stream);
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
