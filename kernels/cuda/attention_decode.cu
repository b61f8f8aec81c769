/* Attention of one row a sequence. One block sees a split of the keys for up to eight query heads that share
   them. Its warps take tiles of keys in turn, each with a softmax of its own whose maximum runs along: the
   keys of the next tile are requested when those of this one are used up, its values when these are, so that
   a multiprocessor always waits for tens of kilobytes. Keys and values are read once, 16 bytes a lane. With
   several splits the last block to finish joins their sums in the order of the splits: the same bits on every
   run. Sums are float32 throughout. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_rows.cuh"

namespace {

enum { WARPS = 8, THREADS = 32 * WARPS, PER_LANE = 8 };

/* How a warp takes keys: 32 / LANES side by side, IN_FLIGHT after each other. The sums of a tile's scores are
   scattered N at a time, so that a lane keeps those of one head: sum v = in / LANES_A_SUM of a chunk is key
   v / G, head v % G. */
template <typename T, int G, int LANES> struct tile_shape {
    static constexpr int KEYS = 32 / LANES, IN_FLIGHT = (sizeof(T) == 4 ? 4 : 8) / (G >= 2 ? 2 : 1),
                         SIZE = KEYS * IN_FLIGHT, N = IN_FLIGHT * G < LANES ? IN_FLIGHT * G : LANES,
                         CHUNKS = IN_FLIGHT * G / N, CHUNK_KEYS = N / G, LANES_A_SUM = LANES / N,
                         HEAD_LANES = G * LANES_A_SUM; /* lanes that a key's sums take */
};

/* Heads whose sums the warps hand over together: bounds the shared memory. */
__host__ __device__ constexpr int handed(int G) {
    return G < 2 ? G : 2;
}

/* What a block works on. */
struct decode_span {
    int seq, kv_head, head0, heads; /* query heads head0 .. head0 + heads - 1 */
    int position;                   /* of the row, the last visible key */
    int live;                       /* splits that hold keys */
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
    const int from = a.shape.first_key(s->position), visible = s->position + 1 - from;
    const attention_split cut = qb_attention_split(visible, a.most_splits);
    s->live = cut.live;
    s->first_key = from + static_cast<int>(blockIdx.x) * cut.length;
    s->n_keys = min(cut.length, s->position + 1 - s->first_key);
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
__device__ __forceinline__ void decode_begin(const attention_args &a, const decode_span &s, bool newest,
                                             float *shared) {
    const attention_append &p = a.append;
    const int dim = a.head_dim;
#pragma unroll 1
    for (int i = threadIdx.x; i < s.heads * dim; i += THREADS) {
        const int g = i / dim, d = i % dim, head = s.head0 + g;
        const float *q = a.q + (static_cast<int64_t>(s.seq) * a.n_heads + head) * dim;
        const float *bias = p.bias[0] ? p.bias[0] + head * dim : nullptr;
        shared[i] = (p.k ? turned(p, q, bias, d, s.position) : q[d]) * a.scale_log2;
    }
    if (!newest) return;
    const int64_t from = static_cast<int64_t>(s.seq) * (a.n_heads / a.group) + s.kv_head;
    const int64_t to = s.cache_row + s.n_keys - 1;
    const float *bias = p.bias[1] ? p.bias[1] + s.kv_head * dim : nullptr;
    /* from the block's other end, where threads have no query */
#pragma unroll 1
    for (int d = THREADS - 1 - static_cast<int>(threadIdx.x); d < dim; d += THREADS)
        static_cast<T *>(a.k)[to * dim + d] = T(turned(p, p.k + from * dim, bias, d, s.position));
#pragma unroll 1
    for (int d = threadIdx.x; d < a.value_dim; d += THREADS) {
        const float v =
            p.v[from * a.value_dim + d] + (p.bias[2] ? p.bias[2][s.kv_head * a.value_dim + d] : 0.0f);
        static_cast<T *>(a.v)[to * a.value_dim + d] = T(v);
    }
}

/* A tile's rows from `lane` on, which is the lane's part of row 0 of the split; zeros from row `end` on. */
template <typename T, int LANES, bool ALIGNED, int N>
__device__ __forceinline__ void load_tile(const T *lane, int dim, int first, int end, raw8<T> (&raw)[N]) {
    constexpr int KEYS = 32 / LANES;
    const int side = threadIdx.x % 32 / LANES, d = threadIdx.x % LANES * PER_LANE;
    const T *row = lane + first * dim;
#pragma unroll
    for (int u = 0; u < N; u++) {
        raw[u] = first + u * KEYS + side < end ? load8<T, ALIGNED>(row, d, dim) : raw8_zero<T>();
        row += KEYS * dim;
    }
}

/* A warp's running softmax: the lane's own head's largest score and sum of weights, over the keys that the
   lane has seen; values of all heads, over the keys of the lane's side. */
template <int G> struct running { float largest, sum, values[G][PER_LANE]; };

__device__ __forceinline__ float finite_or_0(float largest) {
    return largest == -INFINITY ? 0.0f : largest;
}

/* weight[c] = the lane's score of chunk c: q . k, in the softmax's powers of two. */
template <typename T, int G, int LANES>
__device__ __forceinline__ void score_tile(const raw8<T> (&keys)[tile_shape<T, G, LANES>::IN_FLIGHT],
                                           const float (&q)[G][PER_LANE],
                                           float (&weight)[tile_shape<T, G, LANES>::CHUNKS]) {
    using shape = tile_shape<T, G, LANES>;
#pragma unroll
    for (int c = 0; c < shape::CHUNKS; c++) {
        float sums[shape::N];
#pragma unroll
        for (int u = 0; u < shape::CHUNK_KEYS; u++) {
            float k[PER_LANE];
            widen8(keys[c * shape::CHUNK_KEYS + u], k);
#pragma unroll
            for (int g = 0; g < G; g++) {
                float s = 0.0f;
#pragma unroll
                for (int i = 0; i < PER_LANE; i++) s = fmaf(q[g][i], k[i], s);
                sums[u * G + g] = s;
            }
        }
        weight[c] = scatter_sum<shape::N, LANES>(sums, threadIdx.x % LANES);
    }
}

/* Scores become weights; the largest so far and what is summed under it follow. first: the tile's key 0. */
template <typename T, int G, int LANES>
__device__ __forceinline__ void weigh_tile(const attention_args &a, const decode_span &s, int first,
                                           float slope, float (&weight)[tile_shape<T, G, LANES>::CHUNKS],
                                           running<G> &r) {
    using shape = tile_shape<T, G, LANES>;
    const int lane = threadIdx.x % 32, v = lane % LANES / shape::LANES_A_SUM;
    const bool bends = a.shape.bends();
    float largest = r.largest;
#pragma unroll
    for (int c = 0; c < shape::CHUNKS; c++) {
        const int j = first + (c * shape::CHUNK_KEYS + v / G) * shape::KEYS + lane / LANES;
        if (bends) weight[c] = a.shape.logit(weight[c], slope, s.first_key + j, s.position);
        if (j >= s.n_keys) weight[c] = -INFINITY;
        largest = fmaxf(largest, weight[c]);
    }
#pragma unroll
    for (int width = shape::HEAD_LANES; width < LANES; width *= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, width));
    const float base = finite_or_0(largest), factor = exp2f(r.largest - base);
    r.largest = largest;
    r.sum *= factor;
#pragma unroll
    for (int c = 0; c < shape::CHUNKS; c++) r.sum += weight[c] = exp2f(weight[c] - base);
#pragma unroll
    for (int g = 0; g < G; g++) {
        const float f = G == 1 ? factor : __shfl_sync(0xffffffffu, factor, g * shape::LANES_A_SUM, LANES);
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) r.values[g][i] *= f;
    }
}

template <typename T, int G, int LANES>
__device__ __forceinline__ void add_values(const raw8<T> (&rows)[tile_shape<T, G, LANES>::IN_FLIGHT],
                                           const float (&weight)[tile_shape<T, G, LANES>::CHUNKS],
                                           running<G> &r) {
    using shape = tile_shape<T, G, LANES>;
#pragma unroll
    for (int u = 0; u < shape::IN_FLIGHT; u++) {
        float v[PER_LANE];
        widen8(rows[u], v);
#pragma unroll
        for (int g = 0; g < G; g++) {
            const int from = (u % shape::CHUNK_KEYS * G + g) * shape::LANES_A_SUM;
            const float w = __shfl_sync(0xffffffffu, weight[u / shape::CHUNK_KEYS], from, LANES);
#pragma unroll
            for (int i = 0; i < PER_LANE; i++) r.values[g][i] = fmaf(w, v[i], r.values[g][i]);
        }
    }
}

/* The sides of a warp become one: every lane of a head's ends with its largest and its sum, lanes 0 ..
   LANES - 1 with the values. */
template <typename T, int G, int LANES> __device__ __forceinline__ void join_sides(running<G> &r) {
    using shape = tile_shape<T, G, LANES>;
    float largest = r.largest;
#pragma unroll
    for (int width = LANES; width < 32; width *= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, width));
    const float factor = exp2f(r.largest - finite_or_0(largest));
    r.largest = largest;
    r.sum *= factor;
#pragma unroll
    for (int width = shape::HEAD_LANES; width < LANES; width *= 2)
        r.sum += __shfl_xor_sync(0xffffffffu, r.sum, width);
#pragma unroll
    for (int width = LANES; width < 32; width *= 2) r.sum += __shfl_xor_sync(0xffffffffu, r.sum, width);
#pragma unroll
    for (int g = 0; g < G; g++) {
        const float f = G == 1 ? factor : __shfl_sync(0xffffffffu, factor, g * shape::LANES_A_SUM, LANES);
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            r.values[g][i] *= f;
#pragma unroll
            for (int width = LANES; width < 32; width *= 2)
                r.values[g][i] += __shfl_xor_sync(0xffffffffu, r.values[g][i], width);
        }
    }
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

/* Element d of a head: the result where the block sees all keys, else the split's share of it. */
__device__ __forceinline__ void finish_element(const attention_args &a, const decode_span &s, int g, int d,
                                               float value, float2 sums) {
    const int64_t head = static_cast<int64_t>(s.seq) * a.n_heads + s.head0 + g;
    if (s.live == 1) {
        const float factor = join_sink(a.shape, s.head0 + g, &sums);
        a.out[head * a.value_dim + d] = (a.shape.sinks ? value * factor : value) / sums.y;
        return;
    }
    const int64_t split = head * a.n_splits + blockIdx.x;
    a.partial[split * a.value_dim + d] = value;
    if (d == 0) a.partial_sums[split] = sums;
}

/* Joins the warps, `handed` heads at a time through shared memory. */
template <typename T, int G, int LANES>
__device__ __forceinline__ void join_warps(const attention_args &a, const decode_span &s, const running<G> &r,
                                           float *shared, float2 (&sums)[WARPS][G]) {
    constexpr int HANDED = handed(G);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, dim = a.value_dim;
    if (lane < LANES && lane % tile_shape<T, G, LANES>::LANES_A_SUM == 0) {
        const int g = lane / tile_shape<T, G, LANES>::LANES_A_SUM; /* of key 0 below G */
        if (g < G) sums[warp][g] = make_float2(r.largest, r.sum);
    }
#pragma unroll
    for (int g0 = 0; g0 < G; g0 += HANDED) {
        if (g0 > 0) __syncthreads();
#pragma unroll
        for (int g = 0; g < HANDED; g++)
#pragma unroll
            for (int i = 0; i < PER_LANE; i++)
                if (lane < LANES && lane * PER_LANE + i < dim)
                    shared[(warp * HANDED + g) * dim + lane * PER_LANE + i] = r.values[g0 + g][i];
        __syncthreads();
#pragma unroll 1
        for (int i = threadIdx.x; i < min(HANDED, s.heads - g0) * dim; i += THREADS) {
            const int g = i / dim, d = i % dim;
            float2 all = make_float2(-INFINITY, 0.0f);
            float value = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) all.x = fmaxf(all.x, sums[w][g0 + g].x);
            const float base = finite_or_0(all.x);
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                const float f = exp2f(sums[w][g0 + g].x - base);
                all.y = fmaf(f, sums[w][g0 + g].y, all.y);
                value = fmaf(f, shared[(w * HANDED + g) * dim + d], value);
            }
            finish_element(a, s, g0 + g, d, value, all);
        }
    }
}

/* Whether the block is the last of a head's splits to finish, whose shares it then sees. The counter is 0
   again afterwards. */
__device__ __forceinline__ bool is_last_split(const attention_args &a, const decode_span &s) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        const unsigned most = static_cast<unsigned>(s.live) - 1;
        last = atomicInc(a.arrived + blockIdx.z * gridDim.y + blockIdx.y, most) == most;
    }
    __syncthreads();
    __threadfence();
    return last;
}

/* Elements beside each other of a sum over the splits' shares, which come from L2: another multiprocessor
   wrote them. */
template <int W> struct share;
template <> struct share<4> {
    float4 v;
    __device__ __forceinline__ void add(float weight, const share *p) {
        const float4 w = __ldcg(&p->v);
        v = make_float4(fmaf(weight, w.x, v.x), fmaf(weight, w.y, v.y), fmaf(weight, w.z, v.z),
                        fmaf(weight, w.w, v.w));
    }
    __device__ __forceinline__ void store(float *to) const { *reinterpret_cast<float4 *>(to) = v; }
    __device__ __forceinline__ void store_over(float total, float *to) const {
        *reinterpret_cast<float4 *>(to) = make_float4(v.x / total, v.y / total, v.z / total, v.w / total);
    }
};
template <> struct share<1> {
    float v;
    __device__ __forceinline__ void add(float weight, const share *p) { v = fmaf(weight, __ldcg(&p->v), v); }
    __device__ __forceinline__ void store(float *to) const { *to = v; }
    __device__ __forceinline__ void store_over(float total, float *to) const { *to = v / total; }
};

/* What the splits of head g weigh against each other, and the sum of all weights. By one warp. */
__device__ __forceinline__ void weigh_splits(const attention_args &a, const decode_span &s, int g,
                                             float *weights, float *total) {
    const int lane = threadIdx.x % 32;
    const int64_t head = static_cast<int64_t>(s.seq) * a.n_heads + s.head0 + g;
    const float2 *sums = a.partial_sums + head * a.n_splits;
    float largest = -INFINITY, sum = 0.0f;
#pragma unroll 2
    for (int i = lane; i < s.live; i += 32) largest = fmaxf(largest, __ldcg(sums + i).x);
    largest = qb::warp_max(largest);
    const float sink = a.shape.sinks ? a.shape.sinks[s.head0 + g] * 1.44269504f : -INFINITY;
    const float base = finite_or_0(fmaxf(largest, sink));
#pragma unroll 2
    for (int i = lane; i < s.live; i += 32) {
        const float2 split = __ldcg(sums + i);
        weights[i] = exp2f(split.x - base);
        sum = fmaf(weights[i], split.y, sum);
    }
    sum = qb::warp_sum(sum);
    if (lane == 0) *total = a.shape.sinks ? sum + exp2f(sink - base) : sum;
}

/* out = sum over splits of 2^(largest - overall largest) * partial, over the same of the sums. A thread adds
   W elements beside each other; threads that the heads' elements leave over take slices of the splits. */
template <int G, int W>
__device__ __forceinline__ void join_splits(const attention_args &a, const decode_span &s, float *slices) {
    __shared__ float weights[G][ATTENTION_MAX_SPLITS], totals[G];
    const int warp = threadIdx.x / 32, row = a.value_dim / W, items = s.heads * row;
    for (int g = warp; g < s.heads; g += WARPS) weigh_splits(a, s, g, weights[g], &totals[g]);
    __syncthreads();
    const int n_slices = max(1, min(THREADS / items, s.live));
    const int64_t head0 = static_cast<int64_t>(s.seq) * a.n_heads + s.head0;
#pragma unroll 1
    for (int i = threadIdx.x; i < n_slices * items; i += THREADS) {
        const int slice = i / items, item = i % items, g = item / row;
        const share<W> *partial =
            reinterpret_cast<const share<W> *>(a.partial) + (head0 + g) * a.n_splits * row + item % row;
        share<W> sum = {};
#pragma unroll 8
        for (int j = slice; j < s.live; j += n_slices) sum.add(weights[g][j], partial + j * row);
        if (n_slices > 1)
            sum.store(slices + i * W);
        else
            sum.store_over(totals[g], a.out + (head0 * row + item) * W);
    }
    if (n_slices == 1) return;
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < items * W; i += THREADS) {
        float v = 0.0f;
        for (int j = 0; j < n_slices; j++) v += slices[j * items * W + i];
        a.out[head0 * a.value_dim + i] = v / totals[i / a.value_dim];
    }
}

template <typename T, int G, int LANES, bool ALIGNED>
__global__ void __launch_bounds__(THREADS, qb_attention_resident(G)) decode_kernel(attention_args a) {
    using shape = tile_shape<T, G, LANES>;
    /* queries[G][head_dim], then sums[WARPS][handed][value_dim], then slices[THREADS][4] */
    float *queries = ptx::dynamic_shared<float>(), *sums = queries + G * a.head_dim;
    __shared__ float2 warps[WARPS][G];
    ptx::let_next_kernel_begin();
    ptx::wait_for_previous_kernel();
    decode_span s;
    if (!decode_span_of<G>(a, &s)) return;
    const bool newest = a.append.k && s.first_key + s.n_keys == s.position + 1;
    const int lane = threadIdx.x % 32, d = lane % LANES * PER_LANE, dim = a.head_dim;
    const T *keys = static_cast<const T *>(a.k) + (s.cache_row + lane / LANES) * dim;
    const T *values = static_cast<const T *>(a.v) + (s.cache_row + lane / LANES) * a.value_dim;
    raw8<T> k[shape::IN_FLIGHT], v[shape::IN_FLIGHT];
    int first = static_cast<int>(threadIdx.x) / 32 * shape::SIZE;
    const int stored = newest ? s.n_keys - 1 : s.n_keys;
    load_tile<T, LANES, ALIGNED>(keys, dim, first, stored, k);
    load_tile<T, LANES, ALIGNED>(values, a.value_dim, first, stored, v);
    decode_begin<T>(a, s, newest, queries);
    __syncthreads();
    if (newest && first <= stored && stored < first + shape::SIZE) { /* it has just been written */
        load_tile<T, LANES, ALIGNED>(keys, dim, first, s.n_keys, k);
        load_tile<T, LANES, ALIGNED>(values, a.value_dim, first, s.n_keys, v);
    }
    float q[G][PER_LANE], weight[shape::CHUNKS];
    running<G> r = {-INFINITY, 0.0f, {}};
#pragma unroll
    for (int g = 0; g < G; g++)
#pragma unroll
        for (int i = 0; i < PER_LANE; i++)
            q[g][i] = g < s.heads && d + i < dim ? queries[g * dim + d + i] : 0.0f;
    const int own = lane % LANES / shape::LANES_A_SUM % G;
    const float slope = a.shape.slopes && own < s.heads ? a.shape.slopes[s.head0 + own] : 0.0f;
    for (; first < s.n_keys; first += WARPS * shape::SIZE) {
        score_tile<T, G, LANES>(k, q, weight);
        load_tile<T, LANES, ALIGNED>(keys, dim, first + WARPS * shape::SIZE, s.n_keys, k);
        weigh_tile<T, G, LANES>(a, s, first, slope, weight, r);
        add_values<T, G, LANES>(v, weight, r);
        load_tile<T, LANES, ALIGNED>(values, a.value_dim, first + WARPS * shape::SIZE, s.n_keys, v);
    }
    join_sides<T, G, LANES>(r);
    join_warps<T, G, LANES>(a, s, r, sums, warps);
    if (s.live > 1 && is_last_split(a, s)) join_splits<G, ALIGNED ? 4 : 1>(a, s, sums);
}

template <typename T, int G, int LANES, bool ALIGNED>
cudaError_t launch_decode(const attention_args &a, cudaStream_t stream) {
    const int chunks = (a.group + G - 1) / G, joined = WARPS * handed(G) * a.value_dim;
    const dim3 grid(a.n_splits, a.n_heads / a.group * chunks, a.n_seq);
    const size_t floats = static_cast<size_t>(G * a.head_dim + (joined > 4 * THREADS ? joined : 4 * THREADS));
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
    return a.half_cache ? launch_group<half>(a, stream) : launch_group<float>(a, stream);
}
