/* Causal attention of many rows a sequence: one block takes some rows of one head and walks the visible keys
   in tiles, keeping each row's running maximum, sum and weighted values (online softmax). While the tensor
   cores multiply queries by a tile's keys its values are on their way from global memory, and the next tile's
   keys while they multiply weights by values (FlashAttention-2, Dao 2023, for the structure). Queries, keys,
   weights and values are rounded to float16, sums are float32, so the result differs from the float32 one by
   about 1e-3 of its size. A value beyond float16's range becomes infinite and shows in the logits, which are
   checked. Heads are padded with zeros to a multiple of 16 elements, so that one kernel serves every width up
   to 256. */
#include "kernels/cuda/attention.cuh"

#include <cuda_fp16.h>

namespace {

/* A warp takes one or two bands of 16 rows: with two, what it reads of keys and values serves twice the rows.
 */
enum { WARPS = 4, THREADS = 32 * WARPS, BAND = 16 };
template <int BANDS> __host__ __device__ constexpr int block_rows() {
    return WARPS * BANDS * BAND;
}

/* Rows of DIM + 8 halves: 16 bytes of padding spread the eight rows that ldmatrix reads over all banks. */
template <int DIM, int KEYS, int BANDS> struct prefill_tiles {
    half q[block_rows<BANDS>()][DIM + 8], k[KEYS][DIM + 8], v[KEYS][DIM + 8];
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
template <int DIM, int ROWS>
__device__ __forceinline__ void stage_queries(const attention_args &a, int seq, int head, int row0,
                                              half (&to)[ROWS][DIM + 8]) {
    const float *q = a.q + ((static_cast<int64_t>(seq) * a.n_tok + row0) * a.n_heads + head) * a.head_dim;
    const int64_t stride = static_cast<int64_t>(a.n_heads) * a.head_dim;
    if (a.head_dim % 4 == 0 && reinterpret_cast<uintptr_t>(a.q) % sizeof(float4) == 0) {
        for (int i = threadIdx.x; i < ROWS * (DIM / 4); i += THREADS) {
            const int row = i / (DIM / 4), d = i % (DIM / 4) * 4;
            float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (row0 + row < a.n_tok && d < a.head_dim)
                v = *reinterpret_cast<const float4 *>(q + row * stride + d);
            *reinterpret_cast<uint2 *>(&to[row][d]) =
                make_uint2(pack_half2(v.x * a.scale_log2, v.y * a.scale_log2),
                           pack_half2(v.z * a.scale_log2, v.w * a.scale_log2));
        }
        return;
    }
    for (int i = threadIdx.x; i < ROWS * DIM; i += THREADS) {
        const int row = i / DIM, d = i % DIM;
        const bool inside = row0 + row < a.n_tok && d < a.head_dim;
        to[row][d] = __float2half_rn(inside ? q[row * stride + d] * a.scale_log2 : 0.0f);
    }
}

/* Eight elements of a cache row, or zeros, to shared memory as halves: on their way until the copies of the
   thread are waited for. */
__device__ __forceinline__ void stage8(half *to, const half *from, bool inside) {
    ptx::cp_async_16(to, from, inside ? 16 : 0);
}
__device__ __forceinline__ void stage8(half *to, const float *from, bool inside) {
    float4 low = make_float4(0.0f, 0.0f, 0.0f, 0.0f), high = low;
    if (inside) {
        low = reinterpret_cast<const float4 *>(from)[0];
        high = reinterpret_cast<const float4 *>(from)[1];
    }
    *reinterpret_cast<uint4 *>(to) = make_uint4(pack_half2(low.x, low.y), pack_half2(low.z, low.w),
                                                pack_half2(high.x, high.y), pack_half2(high.z, high.w));
}
__device__ __forceinline__ half cache1(const half *p) {
    return *p;
}
__device__ __forceinline__ half cache1(const float *p) {
    return __float2half_rn(*p);
}

/* Asks for KEYS rows of the cache from `rows`, zeros beyond n_keys and the head. */
template <typename T, int DIM, int KEYS>
__device__ __forceinline__ void stage_cache(const T *rows, int n_keys, int head_dim,
                                            half (&to)[KEYS][DIM + 8]) {
    if (head_dim % 8 == 0) {
#pragma unroll
        for (int i = threadIdx.x; i < KEYS * (DIM / 8); i += THREADS) {
            const int j = i / (DIM / 8), d = i % (DIM / 8) * 8;
            const bool inside = j < n_keys && d < head_dim;
            stage8(&to[j][d], inside ? rows + static_cast<int64_t>(j) * head_dim + d : rows, inside);
        }
    } else {
        for (int i = threadIdx.x; i < KEYS * DIM; i += THREADS) {
            const int j = i / DIM, d = i % DIM;
            const bool inside = j < n_keys && d < head_dim;
            to[j][d] = inside ? cache1(rows + static_cast<int64_t>(j) * head_dim + d) : __float2half_rn(0.0f);
        }
    }
    ptx::cp_async_commit();
}

/* What the block asked for has arrived, and all its warps are done with what they read before. */
__device__ __forceinline__ void wait_for_stage() {
    ptx::cp_async_wait<0>();
    __syncthreads();
}

/* A warp's bands: of each a lane holds parts of rows lane / 4 and lane / 4 + 8 (the accumulators of m16n8).
 */
template <int DIM, int BANDS> struct row_state {
    float out[BANDS][DIM / 8][4];
    float largest[BANDS][2], sum[BANDS][2];
};

/* Scores in accumulators of [BAND][8 keys]. */
template <int KEYS, int BANDS> struct tile { float s[BANDS][KEYS / 8][4]; };

/* q . k for the warp's rows. */
template <int DIM, int KEYS, int BANDS>
__device__ __forceinline__ void tile_scores(const prefill_tiles<DIM, KEYS, BANDS> &t, tile<KEYS, BANDS> &c) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int b = 0; b < BANDS; b++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) c.s[b][n][i] = 0.0f;
#pragma unroll
    for (int d = 0; d < DIM; d += 16) {
        uint32_t q[BANDS][4];
#pragma unroll
        for (int b = 0; b < BANDS; b++)
            ptx::ldmatrix_x4(q[b], &t.q[(warp * BANDS + b) * BAND + lane % 16][d + lane / 16 * 8]);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
            /* matrices: keys 0-7 and 8-15 of the pair, each for the low and the high eight elements */
            uint32_t k[4];
            ptx::ldmatrix_x4(k, &t.k[n * 8 + lane / 16 * 8 + lane % 8][d + lane / 8 % 2 * 8]);
#pragma unroll
            for (int b = 0; b < BANDS; b++) {
                multiply(c.s[b][n], q[b], k[0], k[1]);
                multiply(c.s[b][n + 1], q[b], k[2], k[3]);
            }
        }
    }
}

/* Logits of scaled scores, hidden keys -inf. `position` is that of the warp's first row.
   SHAPED: logits are more than scaled scores, or rows do not see all keys before them. */
template <bool SHAPED, int KEYS, int BANDS>
__device__ __forceinline__ void tile_logits(tile<KEYS, BANDS> &c, const attention_shape &shape, int head,
                                            int key0, int position) {
    const bool bends = SHAPED && shape.bends(),
               edge = key0 + KEYS - 1 > position ||
                      (SHAPED && key0 < shape.first_key(position + BANDS * BAND - 1));
    if (!bends && !edge) return;
    const int lane = threadIdx.x % 32;
    const float slope = bends && shape.slopes ? shape.slopes[head] : 0.0f;
#pragma unroll
    for (int b = 0; b < BANDS; b++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = position + b * BAND + h * 8 + lane / 4;
            const int first = SHAPED ? shape.first_key(row) : 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float &v = c.s[b][n][2 * h + i];
                    const int key = key0 + n * 8 + lane % 4 * 2 + i;
                    if (bends) v = shape.logit(v, slope, key, row);
                    if (key > row || (SHAPED && key < first)) v = -INFINITY;
                }
        }
}

/* Logits become 2^(logit - row's largest), and what is summed so far is scaled to the new largest. SHAPED: a
   row may see nothing of a tile. */
template <int DIM, int KEYS, int BANDS, bool SHAPED>
__device__ __forceinline__ void tile_softmax(tile<KEYS, BANDS> &c, row_state<DIM, BANDS> &r) {
#pragma unroll
    for (int b = 0; b < BANDS; b++)
#pragma unroll
        for (int h = 0; h < 2; h++) { /* rows lane / 4 and lane / 4 + 8 */
            float largest = r.largest[b][h];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
                largest = fmaxf(largest, fmaxf(c.s[b][n][2 * h], c.s[b][n][2 * h + 1]));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
            const float base = SHAPED && largest == -INFINITY ? 0.0f : largest;
            const float shrink = ptx::exp2_flushed(r.largest[b][h] - base);
            r.largest[b][h] = largest;
            float sum = r.sum[b][h] * shrink;
#pragma unroll
            for (int n = 0; n < DIM / 8; n++) {
                r.out[b][n][2 * h] *= shrink;
                r.out[b][n][2 * h + 1] *= shrink;
            }
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    sum += c.s[b][n][2 * h + i] = ptx::exp2_flushed(c.s[b][n][2 * h + i] - base);
            r.sum[b][h] = sum;
        }
}

/* r.out += weights * values. The accumulators of two score tiles are the left operand of a 16-key product. */
template <int DIM, int KEYS, int BANDS>
__device__ __forceinline__ void tile_values(const prefill_tiles<DIM, KEYS, BANDS> &t,
                                            const tile<KEYS, BANDS> &c, row_state<DIM, BANDS> &r) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < KEYS; j += 16) {
        uint32_t weights[BANDS][4];
#pragma unroll
        for (int b = 0; b < BANDS; b++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&pair)[4] = c.s[b][j / 8 + i / 2];
                weights[b][i] = pack_half2(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
            }
#pragma unroll
        for (int d = 0; d < DIM; d += 16) {
            uint32_t v[4];
            ptx::ldmatrix_x4_trans(v, &t.v[j + lane % 16][d + lane / 16 * 8]);
#pragma unroll
            for (int b = 0; b < BANDS; b++) {
                multiply(r.out[b][d / 8], weights[b], v[0], v[1]);
                multiply(r.out[b][d / 8 + 1], weights[b], v[2], v[3]);
            }
        }
    }
}

/* The warp's rows, from row0 on. */
template <int DIM, int BANDS, bool SHAPED>
__device__ __forceinline__ void write_rows(const attention_args &a, int seq, int head, int row0,
                                           const row_state<DIM, BANDS> &r) {
    const int lane = threadIdx.x % 32;
    const bool pairs = a.value_dim % 2 == 0 && reinterpret_cast<uintptr_t>(a.out) % sizeof(float2) == 0;
#pragma unroll
    for (int b = 0; b < BANDS; b++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = r.sum[b][h] + __shfl_xor_sync(0xffffffffu, r.sum[b][h], 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            float factor = 1.0f;
            if (SHAPED && a.shape.sinks) { /* which may stand above every key */
                const float sink = a.shape.sinks[head] * 1.44269504f, largest = fmaxf(r.largest[b][h], sink);
                factor = exp2f(r.largest[b][h] - largest);
                sum = sum * factor + exp2f(sink - largest);
            }
            const int t = row0 + b * BAND + h * 8 + lane / 4;
            if (t >= a.n_tok) continue;
            const float scale = factor / sum;
            float *out = a.out + ((static_cast<int64_t>(seq) * a.n_tok + t) * a.n_heads + head) * a.value_dim;
#pragma unroll
            for (int n = 0; n < DIM / 8; n++) {
                const int d = n * 8 + lane % 4 * 2;
                const float2 v = make_float2(r.out[b][n][2 * h] * scale, r.out[b][n][2 * h + 1] * scale);
                if (pairs && d < a.value_dim) {
                    *reinterpret_cast<float2 *>(out + d) = v;
                } else {
                    if (d < a.value_dim) out[d] = v.x;
                    if (d + 1 < a.value_dim) out[d + 1] = v.y;
                }
            }
        }
}

template <typename T, int DIM, int KEYS, int BANDS, bool SHAPED>
__global__ void __launch_bounds__(THREADS) prefill_kernel(attention_args a) {
    constexpr int ROWS = block_rows<BANDS>(), WARP_ROWS = ROWS / WARPS;
    prefill_tiles<DIM, KEYS, BANDS> &t = *ptx::dynamic_shared<prefill_tiles<DIM, KEYS, BANDS>>();
    /* of all heads the rows that see most keys first, so that blocks end together */
    const int row0 = (gridDim.y - 1 - blockIdx.y) * ROWS, head = blockIdx.x, seq = blockIdx.z;
    const int warp_row = row0 + threadIdx.x / 32 * WARP_ROWS;
    const int first = a.dev_first ? *a.dev_first : a.first;
    const int visible = first + min(row0 + ROWS, a.n_tok), position = first + warp_row;
    const int64_t row = (static_cast<int64_t>(seq) * (a.n_heads / a.group) + head / a.group) * a.capacity;
    const T *k = static_cast<const T *>(a.k) + row * a.head_dim,
            *v = static_cast<const T *>(a.v) + row * a.value_dim;

    row_state<DIM, BANDS> r;
#pragma unroll
    for (int b = 0; b < BANDS; b++) {
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) r.out[b][n][i] = 0.0f;
        r.largest[b][0] = r.largest[b][1] = -INFINITY;
        r.sum[b][0] = r.sum[b][1] = 0.0f;
    }

    const int key_begin = SHAPED ? a.shape.first_key(first + row0) / KEYS * KEYS : 0;
    stage_cache<T, DIM>(k + static_cast<int64_t>(key_begin) * a.head_dim, visible - key_begin, a.head_dim,
                        t.k);
    stage_queries<DIM>(a, seq, head, row0, t.q);
    for (int key0 = key_begin; key0 < visible; key0 += KEYS) {
        /* whether any of the warp's rows sees any of the tile */
        const bool seen =
            key0 < position + WARP_ROWS && (!SHAPED || key0 + KEYS > a.shape.first_key(position));
        tile<KEYS, BANDS> c;
        wait_for_stage();
        stage_cache<T, DIM>(v + static_cast<int64_t>(key0) * a.value_dim, visible - key0, a.value_dim, t.v);
        if (seen) tile_scores(t, c);
        wait_for_stage();
        const int next = key0 + KEYS;
        if (next < visible)
            stage_cache<T, DIM>(k + static_cast<int64_t>(next) * a.head_dim, visible - next, a.head_dim, t.k);
        if (!seen) continue;
        tile_logits<SHAPED>(c, a.shape, head, key0, position);
        tile_softmax<DIM, KEYS, BANDS, SHAPED>(c, r);
        tile_values(t, c, r);
    }
    write_rows<DIM, BANDS, SHAPED>(a, seq, head, warp_row, r);
}

bool is_shaped(const attention_shape &s) {
    return s.window > 0 || s.chunk > 0 || s.softcap != 0.0f || s.alibi != QB_ALIBI_NONE || s.sinks;
}

template <int BANDS> dim3 grid_of(const attention_args &a) {
    return dim3(a.n_heads, qb_blocks(a.n_tok, block_rows<BANDS>()), a.n_seq);
}

template <typename T, int DIM, int KEYS, int BANDS, bool SHAPED>
cudaError_t launch_kernel(const attention_args &a, cudaStream_t stream) {
    return qb_launch(prefill_kernel<T, DIM, KEYS, BANDS, SHAPED>, grid_of<BANDS>(a), dim3(THREADS),
                     sizeof(prefill_tiles<DIM, KEYS, BANDS>), stream, a);
}

/* Two bands a warp where they are enough for every multiprocessor and their tiles fit. A row's result is the
   same either way. */
template <int DIM, int KEYS> bool takes_two_bands(const attention_args &a, const cuda_device *d) {
    const dim3 grid = grid_of<2>(a);
    return static_cast<int64_t>(grid.x) * grid.y * grid.z >= d->multiprocessors &&
           static_cast<int64_t>(sizeof(prefill_tiles<DIM, KEYS, 2>)) <= d->shared_bytes;
}

template <typename T, int DIM> cudaError_t launch_prefill(const attention_args &a, const cuda_device *d) {
    /* Fewer keys a tile for wide heads: T4 gives a block 64 KiB. */
    constexpr int KEYS = DIM <= 128 ? 64 : 16;
    /* Shaped logits keep one band: with two, their registers spill. */
    if (is_shaped(a.shape)) return launch_kernel<T, DIM, KEYS, 1, true>(a, d->stream);
    if constexpr (sizeof(T) == 2 && DIM >= 64 && DIM <= 128)
        if (takes_two_bands<DIM, KEYS>(a, d)) return launch_kernel<T, DIM, KEYS, 2, false>(a, d->stream);
    return launch_kernel<T, DIM, KEYS, 1, false>(a, d->stream);
}

template <typename T> cudaError_t launch_width(const attention_args &a, const cuda_device *d) {
    const int widest = a.value_dim > a.head_dim ? a.value_dim : a.head_dim;
    if (widest <= 16) return launch_prefill<T, 16>(a, d);
    if (widest <= 32) return launch_prefill<T, 32>(a, d);
    if (widest <= 64) return launch_prefill<T, 64>(a, d);
    if (widest <= 80) return launch_prefill<T, 80>(a, d);
    if (widest <= 96) return launch_prefill<T, 96>(a, d);
    if (widest <= 128) return launch_prefill<T, 128>(a, d);
    return launch_prefill<T, 256>(a, d);
}

} // namespace

cudaError_t qb_attention_prefill(const cuda_device *d, const attention_args &a) {
    return a.half_cache ? launch_width<half>(a, d) : launch_width<float>(a, d);
}
