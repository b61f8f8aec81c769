/* Attention of one row a sequence. One block sees a split of the keys for up to eight query heads that share
   them, in three phases: scores, softmax weights, weighted values. Keys and values are read once, 16 bytes a
   lane. With several splits a second kernel joins their sums in the order of the splits: no atomics, the same
   bits on every run. Sums are float32 throughout. */
#include "kernels/cuda/attention.cuh"

#include <cuda_fp16.h>

namespace {

enum { WARPS = 4, THREADS = 32 * WARPS, PER_LANE = 8, KEYS_IN_FLIGHT = 4, JOIN_THREADS = 512 };

/* Eight elements of a cache row as they lie in memory. */
template <typename T> struct raw8;
template <> struct raw8<half> { uint4 bits; };
template <> struct raw8<float> { uint4 bits[2]; };

template <typename T> __device__ raw8<T> raw8_zero();
template <> __device__ __forceinline__ raw8<half> raw8_zero<half>() {
    return {make_uint4(0, 0, 0, 0)};
}
template <> __device__ __forceinline__ raw8<float> raw8_zero<float>() {
    return {{make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)}};
}

/* p is 16-byte aligned: the rows are whole multiples of eight elements. */
__device__ __forceinline__ raw8<half> load8_aligned(const half *p) {
    return {*reinterpret_cast<const uint4 *>(p)};
}
__device__ __forceinline__ raw8<float> load8_aligned(const float *p) {
    const uint4 *q = reinterpret_cast<const uint4 *>(p);
    return {{q[0], q[1]}};
}

__device__ __forceinline__ void widen8(const raw8<half> &r, float (&out)[8]) {
    const uint32_t words[4] = {r.bits.x, r.bits.y, r.bits.z, r.bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        half2 pair;
        memcpy(&pair, &words[i], sizeof pair);
        float2 wide = __half22float2(pair);
        out[2 * i] = wide.x;
        out[2 * i + 1] = wide.y;
    }
}
__device__ __forceinline__ void widen8(const raw8<float> &r, float (&out)[8]) {
    memcpy(out, r.bits, sizeof out);
}

/* Elements d .. d + 7 of a row of n, zeros beyond its end. */
template <typename T, bool ALIGNED> __device__ __forceinline__ raw8<T> load8(const T *row, int d, int n) {
    if (ALIGNED) return d < n ? load8_aligned(row + d) : raw8_zero<T>();
    raw8<T> r = raw8_zero<T>();
    T part[8];
#pragma unroll
    for (int i = 0; i < 8; i++) part[i] = d + i < n ? row[d + i] : T(0.0f);
    memcpy(&r, part, sizeof part);
    return r;
}

/* Sums s[0 .. G-1] over the LANES lanes of a key, every lane keeping one of the sums: halving the list at
   each step takes G + log2(LANES / G) shuffles instead of G log2(LANES). Lane `in` ends with sum in / (LANES
   / G). */
template <int G, int LANES> __device__ __forceinline__ float scatter_sum(float (&s)[G], int in) {
    static_assert(G <= LANES, "a lane keeps at most one sum");
    int kept = G;
#pragma unroll
    for (int width = LANES / 2; width > 0; width /= 2) {
        if (kept > 1) {
            kept /= 2;
#pragma unroll
            for (int i = 0; i < G / 2; i++)
                if (i < kept) {
                    bool upper = in & width;
                    float give = upper ? s[i] : s[i + kept], keep = upper ? s[i + kept] : s[i];
                    s[i] = keep + __shfl_xor_sync(0xffffffffu, give, width);
                }
        } else {
            s[0] += __shfl_xor_sync(0xffffffffu, s[0], width);
        }
    }
    return s[0];
}

/* What a block works on. */
struct decode_span {
    int seq, kv_head, head0, heads; /* query heads head0 .. head0 + heads - 1 */
    int position;                   /* of the row, the last visible key */
    int first_key, n_keys;
    int64_t cache_row; /* of the first key, in rows of head_dim */
};

/* False when the block's split holds none of the visible keys. */
template <int G> __device__ __forceinline__ bool decode_span_of(const attention_args &a, decode_span *s) {
    const int chunks = (a.group + G - 1) / G, chunk = blockIdx.y % chunks;
    s->position = a.dev_first ? *a.dev_first : a.first;
    s->seq = blockIdx.z;
    s->kv_head = blockIdx.y / chunks;
    s->head0 = s->kv_head * a.group + chunk * G;
    s->heads = min(G, a.group - chunk * G);
    s->first_key = max(static_cast<int>(blockIdx.x) * a.split, a.shape.first_key(s->position));
    s->n_keys = min((static_cast<int>(blockIdx.x) + 1) * a.split, s->position + 1) - s->first_key;
    const int64_t n_kv_heads = a.n_heads / a.group;
    s->cache_row = (s->seq * n_kv_heads + s->kv_head) * a.capacity + s->first_key;
    return s->n_keys > 0;
}

/* Element d of a head with its bias, turned to the position. */
__device__ __forceinline__ float turned(const attention_append &p, const float *head, const float *bias,
                                        int d, int position) {
    const float v = head[d] + (bias ? bias[d] : 0.0f);
    if (d >= p.rope_width) return v;
    const int half = p.rope_width / 2, pair = p.rope == QB_ROPE_HALF ? d % half : d / 2;
    const bool first = p.rope == QB_ROPE_HALF ? d < half : d % 2 == 0;
    const int other = p.rope == QB_ROPE_HALF ? (first ? d + half : d - half) : (first ? d + 1 : d - 1);
    const float w = head[other] + (bias ? bias[other] : 0.0f);
    const int64_t at = (static_cast<int64_t>(position) * half + pair) * 2;
    const float c = p.rope_table[at], s = p.rope_table[at + 1];
    return first ? v * c - w * s : v * c + w * s;
}

/* shared[g][head_dim] = the block's queries, scaled. The block that sees the newest key stores it first;
   where several blocks share a key head, each writes the same bits. */
template <typename T>
__device__ __forceinline__ void decode_begin(const attention_args &a, const decode_span &s, float *shared) {
    const attention_append &p = a.append;
    const int dim = a.head_dim;
    for (int i = threadIdx.x; i < s.heads * dim; i += THREADS) {
        const int g = i / dim, d = i % dim, head = s.head0 + g;
        const float *q = a.q + (static_cast<int64_t>(s.seq) * a.n_heads + head) * dim;
        const float *bias = p.bias[0] ? p.bias[0] + head * dim : nullptr;
        shared[i] = (p.k ? turned(p, q, bias, d, s.position) : q[d]) * a.scale_log2;
    }
    if (p.k && s.first_key + s.n_keys == s.position + 1) {
        const int64_t from = static_cast<int64_t>(s.seq) * (a.n_heads / a.group) + s.kv_head;
        const int64_t to = s.cache_row + s.n_keys - 1;
        const float *bias = p.bias[1] ? p.bias[1] + s.kv_head * dim : nullptr;
        for (int d = threadIdx.x; d < dim; d += THREADS)
            static_cast<T *>(a.k)[to * dim + d] = T(turned(p, p.k + from * dim, bias, d, s.position));
        for (int d = threadIdx.x; d < a.value_dim; d += THREADS) {
            const float v =
                p.v[from * a.value_dim + d] + (p.bias[2] ? p.bias[2][s.kv_head * a.value_dim + d] : 0.0f);
            static_cast<T *>(a.v)[to * a.value_dim + d] = T(v);
        }
    }
}

/* scores[key][G] = q . k, already in the softmax's powers of two. Overwrites the queries. */
template <typename T, int G, int LANES, bool ALIGNED>
__device__ __forceinline__ void decode_scores(const attention_args &a, const decode_span &s, float *scores) {
    constexpr int KEYS = 32 / LANES; /* side by side in a warp */
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, in = lane % LANES, sub = lane / LANES;
    const int dim = a.head_dim, d = in * PER_LANE;
    const T *rows = static_cast<const T *>(a.k) + s.cache_row * dim;
    float q[G][PER_LANE];
#pragma unroll
    for (int g = 0; g < G; g++)
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            q[g][i] = g < s.heads && d + i < dim ? scores[g * dim + d + i] : 0.0f;
        }
    __syncthreads();
    for (int j0 = warp * KEYS * KEYS_IN_FLIGHT; j0 < s.n_keys; j0 += WARPS * KEYS * KEYS_IN_FLIGHT) {
        raw8<T> raw[KEYS_IN_FLIGHT];
#pragma unroll
        for (int u = 0; u < KEYS_IN_FLIGHT; u++) {
            int j = j0 + u * KEYS + sub;
            raw[u] = j < s.n_keys ? load8<T, ALIGNED>(rows + static_cast<int64_t>(j) * dim, d, dim)
                                  : raw8_zero<T>();
        }
#pragma unroll
        for (int u = 0; u < KEYS_IN_FLIGHT; u++) {
            float k[PER_LANE], sums[G];
            widen8(raw[u], k);
#pragma unroll
            for (int g = 0; g < G; g++) {
                sums[g] = 0.0f;
#pragma unroll
                for (int i = 0; i < PER_LANE; i++) sums[g] = fmaf(q[g][i], k[i], sums[g]);
            }
            float score = scatter_sum<G, LANES>(sums, in);
            int j = j0 + u * KEYS + sub;
            if (in % (LANES / G) == 0 && j < s.n_keys) scores[j * G + in / (LANES / G)] = score;
        }
    }
}

/* Scaled scores to logits, where there is more to them. */
template <int G>
__device__ __forceinline__ void decode_bend(const attention_args &a, const decode_span &s, float *scores) {
    for (int i = threadIdx.x; i < s.n_keys * G; i += THREADS) {
        const int g = i % G;
        if (g >= s.heads) continue;
        const float slope = a.shape.slopes ? a.shape.slopes[s.head0 + g] : 0.0f;
        scores[i] = a.shape.logit(scores[i], slope, s.first_key + i / G, s.position);
    }
    __syncthreads();
}

/* A sink joins the sum of a head's weights (largest, sum), which it may shrink. Gives the factor of the
   values summed so far. */
__device__ __forceinline__ float join_sink(const attention_shape &shape, int head, float2 *sums) {
    if (!shape.sinks) return 1.0f;
    const float sink = shape.sinks[head] * 1.44269504f, largest = fmaxf(sums->x, sink);
    const float factor = exp2f(sums->x - largest);
    *sums = make_float2(largest, sums->y * factor + exp2f(sink - largest));
    return factor;
}

/* scores become 2^(score - largest); sums[g] = (largest, sum of these), warps taking heads in turn. */
template <int G> __device__ __forceinline__ void decode_softmax(int n_keys, float *scores, float2 *sums) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int g = warp; g < G; g += WARPS) {
        float largest = -INFINITY, sum = 0.0f;
        for (int j = lane; j < n_keys; j += 32) largest = fmaxf(largest, scores[j * G + g]);
#pragma unroll
        for (int width = 16; width > 0; width /= 2)
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, width));
        for (int j = lane; j < n_keys; j += 32) sum += scores[j * G + g] = exp2f(scores[j * G + g] - largest);
#pragma unroll
        for (int width = 16; width > 0; width /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, width);
        if (lane == 0) sums[g] = make_float2(largest, sum);
    }
}

/* sums[warp][g][value_dim] = values of the warp's keys times their weights. Overwrites the scores. */
template <typename T, int G, int LANES, bool ALIGNED>
__device__ __forceinline__ void decode_values(const attention_args &a, const decode_span &s, float *shared) {
    constexpr int KEYS = 32 / LANES;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, in = lane % LANES, sub = lane / LANES;
    const int dim = a.value_dim, d = in * PER_LANE;
    const T *rows = static_cast<const T *>(a.v) + s.cache_row * dim;
    float acc[G][PER_LANE];
#pragma unroll
    for (int g = 0; g < G; g++)
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) acc[g][i] = 0.0f;
    for (int j0 = warp * KEYS * KEYS_IN_FLIGHT; j0 < s.n_keys; j0 += WARPS * KEYS * KEYS_IN_FLIGHT) {
        raw8<T> raw[KEYS_IN_FLIGHT];
#pragma unroll
        for (int u = 0; u < KEYS_IN_FLIGHT; u++) {
            int j = j0 + u * KEYS + sub;
            raw[u] = j < s.n_keys ? load8<T, ALIGNED>(rows + static_cast<int64_t>(j) * dim, d, dim)
                                  : raw8_zero<T>();
        }
#pragma unroll
        for (int u = 0; u < KEYS_IN_FLIGHT; u++) {
            int j = j0 + u * KEYS + sub;
            float v[PER_LANE];
            widen8(raw[u], v);
#pragma unroll
            for (int g = 0; g < G; g++) {
                float weight = j < s.n_keys ? shared[j * G + g] : 0.0f;
#pragma unroll
                for (int i = 0; i < PER_LANE; i++) acc[g][i] = fmaf(weight, v[i], acc[g][i]);
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int g = 0; g < G; g++)
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
#pragma unroll
            for (int width = LANES; width < 32; width *= 2)
                acc[g][i] += __shfl_xor_sync(0xffffffffu, acc[g][i], width);
            if (sub == 0 && d + i < dim) shared[(warp * G + g) * dim + d + i] = acc[g][i];
        }
}

template <typename T, int G, int LANES, bool ALIGNED>
__global__ void __launch_bounds__(THREADS, (sizeof(T) == 4 && G == 8 ? 3 : 4))
    decode_kernel(attention_args a) {
    /* queries[G][head_dim], then scores[split][G], then sums[WARPS][G][value_dim] */
    float *shared = ptx::dynamic_shared<float>();
    __shared__ float2 sums[G];
    ptx::let_next_kernel_begin();
    ptx::wait_for_previous_kernel();
    decode_span s;
    if (!decode_span_of<G>(a, &s)) return;
    decode_begin<T>(a, s, shared);
    __syncthreads();
    decode_scores<T, G, LANES, ALIGNED>(a, s, shared);
    __syncthreads();
    if (a.shape.bends()) decode_bend<G>(a, s, shared);
    decode_softmax<G>(s.n_keys, shared, sums);
    __syncthreads();
    decode_values<T, G, LANES, ALIGNED>(a, s, shared);
    __syncthreads();
    const int dim = a.value_dim;
    for (int i = threadIdx.x; i < s.heads * dim; i += THREADS) {
        const int g = i / dim, d = i % dim;
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum += shared[(w * G + g) * dim + d];
        const int64_t head = static_cast<int64_t>(s.seq) * a.n_heads + s.head0 + g;
        if (a.n_splits == 1) {
            float2 all = sums[g];
            const float factor = join_sink(a.shape, s.head0 + g, &all);
            a.out[head * dim + d] = (a.shape.sinks ? sum * factor : sum) / all.y;
        } else
            a.partial[(head * a.n_splits + blockIdx.x) * dim + d] = sum;
    }
    if (a.n_splits > 1 && static_cast<int>(threadIdx.x) < s.heads)
        a.partial_sums[(static_cast<int64_t>(s.seq) * a.n_heads + s.head0 + threadIdx.x) * a.n_splits +
                       blockIdx.x] = sums[threadIdx.x];
}

/* Largest or sum of a value over the block; every thread gets it. */
__device__ __forceinline__ float join_block(float v, bool largest, float *scratch) {
#pragma unroll
    for (int width = 16; width > 0; width /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, v, width);
        v = largest ? fmaxf(v, other) : v + other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = scratch[0];
    for (int w = 1; w < JOIN_THREADS / 32; w++) v = largest ? fmaxf(v, scratch[w]) : v + scratch[w];
    return v;
}

/* out = sum over splits of 2^(largest - overall largest) * partial, over the same of the sums. A block a
   head; `lanes` threads stand over a head's elements, the rest of the block over further splits. */
__global__ void __launch_bounds__(JOIN_THREADS) join_kernel(attention_args a, int lanes) {
    __shared__ float scratch[JOIN_THREADS / 32], weights[ATTENTION_MAX_SPLITS], slices[JOIN_THREADS];
    ptx::let_next_kernel_begin();
    ptx::wait_for_previous_kernel();
    const int position = a.dev_first ? *a.dev_first : a.first;
    const int first_split = a.shape.first_key(position) / a.split, splits = position / a.split + 1;
    const int64_t head = static_cast<int64_t>(blockIdx.y) * a.n_heads + blockIdx.x;
    const float2 *sums = a.partial_sums + head * a.n_splits;
    float largest = -INFINITY, sum = 0.0f;
    for (int i = first_split + threadIdx.x; i < splits; i += JOIN_THREADS)
        largest = fmaxf(largest, sums[i].x);
    largest = join_block(largest, true, scratch);
    if (a.shape.sinks) largest = fmaxf(largest, a.shape.sinks[blockIdx.x] * 1.44269504f);
    for (int i = first_split + threadIdx.x; i < splits; i += JOIN_THREADS) {
        weights[i] = exp2f(sums[i].x - largest);
        sum += weights[i] * sums[i].y;
    }
    sum = join_block(sum, false, scratch);
    if (a.shape.sinks) sum += exp2f(a.shape.sinks[blockIdx.x] * 1.44269504f - largest);

    const int d = threadIdx.x % lanes, slice = threadIdx.x / lanes, n_slices = JOIN_THREADS / lanes;
    const float *partial = a.partial + head * a.n_splits * a.value_dim;
    float v = 0.0f;
    if (d < a.value_dim) {
#pragma unroll 4
        for (int i = first_split + slice; i < splits; i += n_slices)
            v = fmaf(weights[i], partial[static_cast<int64_t>(i) * a.value_dim + d], v);
    }
    slices[threadIdx.x] = v;
    __syncthreads();
    if (slice == 0 && d < a.value_dim) {
        for (int i = 1; i < n_slices; i++) v += slices[i * lanes + d];
        a.out[head * a.value_dim + d] = v / sum;
    }
}

int power_of_two(int64_t at_least) {
    int p = 1;
    while (p < at_least) p *= 2;
    return p;
}

template <typename T, int G, int LANES, bool ALIGNED>
cudaError_t launch_decode(const attention_args &a, cudaStream_t stream) {
    const int chunks = (a.group + G - 1) / G;
    const dim3 grid(a.n_splits, a.n_heads / a.group * chunks, a.n_seq);
    const int sums = WARPS * a.value_dim > a.head_dim ? WARPS * a.value_dim : a.head_dim;
    const size_t floats = static_cast<size_t>(G) * (a.split > sums ? a.split : sums);
    return qb_launch_with(a.dependent, decode_kernel<T, G, LANES, ALIGNED>, grid, dim3(THREADS),
                          floats * sizeof(float), stream, a);
}

template <typename T, int G> cudaError_t launch_width(const attention_args &a, cudaStream_t stream) {
    const int widest = a.value_dim > a.head_dim ? a.value_dim : a.head_dim;
    if (a.head_dim % PER_LANE != 0 || a.value_dim % PER_LANE != 0)
        return launch_decode<T, G, 32, false>(a, stream);
    if (widest <= 64) return launch_decode<T, G, 8, true>(a, stream);
    if (widest <= 128) return launch_decode<T, G, 16, true>(a, stream);
    return launch_decode<T, G, 32, true>(a, stream);
}

template <typename T> cudaError_t launch_group(const attention_args &a, cudaStream_t stream) {
    if (a.group == 1) return launch_width<T, 1>(a, stream);
    if (a.group == 2) return launch_width<T, 2>(a, stream);
    if (a.group <= 4) return launch_width<T, 4>(a, stream);
    return launch_width<T, 8>(a, stream);
}

} // namespace

cudaError_t qb_attention_decode(const attention_args &a, cudaStream_t stream) {
    cudaError_t error = a.half_cache ? launch_group<half>(a, stream) : launch_group<float>(a, stream);
    if (error != cudaSuccess || a.n_splits == 1) return error;
    const int lanes = power_of_two(a.value_dim < 32 ? 32 : a.value_dim);
    return qb_launch_with(a.dependent, join_kernel, dim3(a.n_heads, a.n_seq), dim3(JOIN_THREADS), 0, stream,
                          a, lanes);
}
