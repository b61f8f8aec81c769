/* Causal attention of many rows a sequence: one block takes 64 rows of one head and walks the visible keys in
   tiles, keeping each row's running maximum, sum and weighted values (online softmax). Products run on tensor
   cores: queries, keys, weights and values rounded to float16, sums in float32, so the result differs from
   the float32 one by about 1e-3 of its size. A value beyond float16's range becomes infinite and shows in the
   logits, which are checked. Heads are padded with zeros to a multiple of 16 elements, so that one kernel
   serves every width up to 256. */
#include "kernels/cuda/attention.cuh"

#include <cuda_fp16.h>

namespace {

enum { WARPS = 4, THREADS = 32 * WARPS, ROWS = 16 * WARPS };

/* Rows of DIM + 8 halves: 16 bytes of padding spread the eight rows that ldmatrix reads over all banks. */
template <int DIM, int KEYS> struct prefill_tiles {
    half q[ROWS][DIM + 8], k[KEYS][DIM + 8], v[KEYS][DIM + 8];
};

__device__ __forceinline__ uint32_t pack_half2(float low, float high) {
    half2 pair = __floats2half2_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

/* c += a * b over 16 elements; 7.5 has tensor cores for eight at a time. */
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t low, uint32_t high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    const uint32_t left[2] = {a[0], a[1]}, right[2] = {a[2], a[3]};
    ptx::mma_m16n8k8_f16_f32(c, left, low);
    ptx::mma_m16n8k8_f16_f32(c, right, high);
#else
    const uint32_t b[2] = {low, high};
    ptx::mma_m16n8k16_f16_f32(c, a, b);
#endif
}

/* Rows of the queries from row `row0`, scaled, zeros beyond n_tok and the head. */
template <int DIM>
__device__ __forceinline__ void stage_queries(const attention_args &a, int seq, int head, int row0,
                                              half (*to)[DIM + 8]) {
    for (int i = threadIdx.x; i < ROWS * DIM; i += THREADS) {
        const int row = i / DIM, d = i % DIM, t = row0 + row;
        const int64_t at = ((static_cast<int64_t>(seq) * a.n_tok + t) * a.n_heads + head) * a.head_dim + d;
        to[row][d] = __float2half_rn(t < a.n_tok && d < a.head_dim ? a.q[at] * a.scale_log2 : 0.0f);
    }
}

/* Eight elements of a cache row as halves. */
__device__ __forceinline__ uint4 cache8(const half *row) {
    return *reinterpret_cast<const uint4 *>(row);
}
__device__ __forceinline__ uint4 cache8(const float *row) {
    const float4 *p = reinterpret_cast<const float4 *>(row);
    const float4 low = p[0], high = p[1];
    return make_uint4(pack_half2(low.x, low.y), pack_half2(low.z, low.w), pack_half2(high.x, high.y),
                      pack_half2(high.z, high.w));
}
__device__ __forceinline__ half cache1(const half *p) {
    return *p;
}
__device__ __forceinline__ half cache1(const float *p) {
    return __float2half_rn(*p);
}

/* KEYS rows of the cache from `rows`, zeros beyond n_keys and the head. */
template <typename T, int DIM, int KEYS>
__device__ __forceinline__ void stage_cache(const T *rows, int n_keys, int head_dim, half (*to)[DIM + 8]) {
    if (head_dim % 8 == 0) {
        for (int i = threadIdx.x; i < KEYS * (DIM / 8); i += THREADS) {
            const int j = i / (DIM / 8), d = i % (DIM / 8) * 8;
            const bool inside = j < n_keys && d < head_dim;
            *reinterpret_cast<uint4 *>(&to[j][d]) =
                inside ? cache8(rows + static_cast<int64_t>(j) * head_dim + d) : make_uint4(0, 0, 0, 0);
        }
        return;
    }
    for (int i = threadIdx.x; i < KEYS * DIM; i += THREADS) {
        const int j = i / DIM, d = i % DIM;
        const bool inside = j < n_keys && d < head_dim;
        to[j][d] = inside ? cache1(rows + static_cast<int64_t>(j) * head_dim + d) : __float2half_rn(0.0f);
    }
}

/* A warp's 16 rows: each lane holds parts of rows lane / 4 and lane / 4 + 8 (the accumulators of m16n8). */
template <int DIM> struct row_state {
    float out[DIM / 8][4];
    float largest[2], sum[2];
};

/* s[KEYS / 8] tiles of q . k for the warp's rows. */
template <int DIM, int KEYS>
__device__ __forceinline__ void tile_scores(const prefill_tiles<DIM, KEYS> &t, float (&s)[KEYS / 8][4]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] = 0.0f;
#pragma unroll
    for (int d = 0; d < DIM; d += 16) {
        uint32_t q[4];
        ptx::ldmatrix_x4(q, &t.q[warp * 16 + lane % 16][d + lane / 16 * 8]);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
            /* matrices: keys 0-7 and 8-15 of the pair, each for the low and the high eight elements */
            uint32_t k[4];
            ptx::ldmatrix_x4(k, &t.k[n * 8 + lane / 16 * 8 + lane % 8][d + lane / 8 % 2 * 8]);
            multiply(s[n], q, k[0], k[1]);
            multiply(s[n + 1], q, k[2], k[3]);
        }
    }
}

/* s becomes 2^(s - row's largest), hidden keys zero; what is summed so far is scaled to the new largest.
   SHAPED: logits are more than scaled scores, or rows do not see all keys before them. A row may then see
   nothing of a tile. */
template <int DIM, int KEYS, bool SHAPED>
__device__ __forceinline__ void tile_softmax(float (&s)[KEYS / 8][4], const attention_shape &shape, int head,
                                             int key0, int position, row_state<DIM> &r) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) { /* rows lane / 4 and lane / 4 + 8 */
        const int last = position + h * 8 - key0;
        const int begin = SHAPED ? shape.first_key(position + h * 8) - key0 : 0;
        const float slope = SHAPED && shape.slopes ? shape.slopes[head] : 0.0f;
        float largest = r.largest[h];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float &v = s[n][2 * h + i];
                const int j = n * 8 + lane % 4 * 2 + i;
                if (SHAPED && shape.bends()) v = shape.logit(v, slope, key0 + j, position + h * 8);
                if (j > last || (SHAPED && j < begin)) v = -INFINITY;
                largest = fmaxf(largest, v);
            }
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
        const float base = SHAPED && largest == -INFINITY ? 0.0f : largest;
        const float shrink = exp2f(r.largest[h] - base);
        r.largest[h] = largest;
        r.sum[h] *= shrink;
#pragma unroll
        for (int n = 0; n < DIM / 8; n++) {
            r.out[n][2 * h] *= shrink;
            r.out[n][2 * h + 1] *= shrink;
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) r.sum[h] += s[n][2 * h + i] = exp2f(s[n][2 * h + i] - base);
    }
}

/* r.out += s * values. The accumulators of two score tiles are the left operand of a 16-key product. */
template <int DIM, int KEYS>
__device__ __forceinline__ void tile_values(const prefill_tiles<DIM, KEYS> &t, const float (&s)[KEYS / 8][4],
                                            row_state<DIM> &r) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < KEYS; j += 16) {
        const float(&low)[4] = s[j / 8], (&high)[4] = s[j / 8 + 1];
        const uint32_t weights[4] = {pack_half2(low[0], low[1]), pack_half2(low[2], low[3]),
                                     pack_half2(high[0], high[1]), pack_half2(high[2], high[3])};
#pragma unroll
        for (int d = 0; d < DIM; d += 16) {
            uint32_t v[4];
            ptx::ldmatrix_x4_trans(v, &t.v[j + lane % 16][d + lane / 16 * 8]);
            multiply(r.out[d / 8], weights, v[0], v[1]);
            multiply(r.out[d / 8 + 1], weights, v[2], v[3]);
        }
    }
}

template <int DIM, bool SHAPED>
__device__ __forceinline__ void write_rows(const attention_args &a, int seq, int head, int row0,
                                           row_state<DIM> &r) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = r.sum[h] + __shfl_xor_sync(0xffffffffu, r.sum[h], 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        float factor = 1.0f;
        if (SHAPED && a.shape.sinks) { /* which may stand above every key */
            const float sink = a.shape.sinks[head] * 1.44269504f, largest = fmaxf(r.largest[h], sink);
            factor = exp2f(r.largest[h] - largest);
            sum = sum * factor + exp2f(sink - largest);
        }
        const int t = row0 + lane / 4 + h * 8;
        float *out = a.out + ((static_cast<int64_t>(seq) * a.n_tok + t) * a.n_heads + head) * a.value_dim;
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int d = n * 8 + lane % 4 * 2 + i;
                const float v = SHAPED ? r.out[n][2 * h + i] * factor : r.out[n][2 * h + i];
                if (t < a.n_tok && d < a.value_dim) out[d] = v / sum;
            }
    }
}

template <typename T, int DIM, int KEYS, bool SHAPED>
__global__ void __launch_bounds__(THREADS) prefill_kernel(attention_args a) {
    prefill_tiles<DIM, KEYS> &t = *ptx::dynamic_shared<prefill_tiles<DIM, KEYS>>();
    /* the rows that see most keys first, so that blocks end together */
    const int row0 = (gridDim.x - 1 - blockIdx.x) * ROWS, head = blockIdx.y, seq = blockIdx.z;
    const int first = a.dev_first ? *a.dev_first : a.first, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int visible = first + min(row0 + ROWS, a.n_tok), position = first + row0 + warp * 16 + lane / 4;
    const int64_t row = (static_cast<int64_t>(seq) * (a.n_heads / a.group) + head / a.group) * a.capacity;

    row_state<DIM> r;
#pragma unroll
    for (int n = 0; n < DIM / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) r.out[n][i] = 0.0f;
    r.largest[0] = r.largest[1] = -INFINITY;
    r.sum[0] = r.sum[1] = 0.0f;

    stage_queries<DIM>(a, seq, head, row0, t.q);
    const int key_begin = SHAPED ? a.shape.first_key(first + row0) / KEYS * KEYS : 0;
    for (int key0 = key_begin; key0 < visible; key0 += KEYS) {
        const T *k = static_cast<const T *>(a.k) + (row + key0) * a.head_dim,
                *v = static_cast<const T *>(a.v) + (row + key0) * a.value_dim;
        stage_cache<T, DIM, KEYS>(k, visible - key0, a.head_dim, t.k);
        stage_cache<T, DIM, KEYS>(v, visible - key0, a.value_dim, t.v);
        __syncthreads();
        float s[KEYS / 8][4];
        tile_scores<DIM, KEYS>(t, s);
        tile_softmax<DIM, KEYS, SHAPED>(s, a.shape, head, key0, position, r);
        tile_values<DIM, KEYS>(t, s, r);
        __syncthreads();
    }
    write_rows<DIM, SHAPED>(a, seq, head, row0 + warp * 16, r);
}

bool is_shaped(const attention_shape &s) {
    return s.window > 0 || s.chunk > 0 || s.softcap != 0.0f || s.alibi != QB_ALIBI_NONE || s.sinks;
}

template <typename T, int DIM, int KEYS, bool SHAPED>
cudaError_t launch_kernel(const attention_args &a, cudaStream_t stream) {
    const size_t bytes = sizeof(prefill_tiles<DIM, KEYS>);
    const dim3 grid((a.n_tok + ROWS - 1) / ROWS, a.n_heads, a.n_seq);
    return qb_launch(prefill_kernel<T, DIM, KEYS, SHAPED>, grid, dim3(THREADS), bytes, stream, a);
}

template <typename T, int DIM> cudaError_t launch_prefill(const attention_args &a, cudaStream_t stream) {
    /* Fewer keys a tile for wide heads: T4 gives a block 64 KiB. Fewer of float32 where logits are shaped:
       the registers would not do. */
    constexpr int KEYS = DIM <= 128 ? 64 : 16, SHAPED_KEYS = KEYS == 64 && sizeof(T) == 4 ? 32 : KEYS;
    return is_shaped(a.shape) ? launch_kernel<T, DIM, SHAPED_KEYS, true>(a, stream)
                              : launch_kernel<T, DIM, KEYS, false>(a, stream);
}

template <typename T> cudaError_t launch_width(const attention_args &a, cudaStream_t stream) {
    const int widest = a.value_dim > a.head_dim ? a.value_dim : a.head_dim;
    if (widest <= 16) return launch_prefill<T, 16>(a, stream);
    if (widest <= 32) return launch_prefill<T, 32>(a, stream);
    if (widest <= 64) return launch_prefill<T, 64>(a, stream);
    if (widest <= 80) return launch_prefill<T, 80>(a, stream);
    if (widest <= 96) return launch_prefill<T, 96>(a, stream);
    if (widest <= 128) return launch_prefill<T, 128>(a, stream);
    return launch_prefill<T, 256>(a, stream);
}

} // namespace

cudaError_t qb_attention_prefill(const attention_args &a, cudaStream_t stream) {
    return a.half_cache ? launch_width<half>(a, stream) : launch_width<float>(a, stream);
}
