/* The products of few tokens, straight from the packed codes: y[t, row] = sum over k of w[row, k] x[t, k].

   Weights are mma's left operand (16 rows), activations its right (8 tokens), so that one token costs what
   eight do and dequantizing is all the arithmetic there is. A warp takes some row tiles' columns in steps,
   loads ahead of what it computes in a ring of registers, and keeps float32 sums; the warps of a block that
   share a row tile add theirs in a fixed order. Nothing is atomic: the same inputs give the same bits.

   What a kernel made of gemv_body chooses:
     KIND     the codes (qb_codes_kind)
     FINE     whether a step may hold several groups, or offsets (qb_view_is_fine of any matrix taking part)
     NT       tiles of 8 tokens a warp computes at once
     RT       row tiles a warp computes at once, sharing the activations; not all of one matrix (gate and up)
     Items    which row tiles make up item i: n_items(), view(i, r), tile(i, r), all pure. All views have the
   same kind, columns and order Stage    called by every thread once the first weights are on their way;
   returns the staged activations Epilogue called once for each finished (item, row in tile, token) with the
   RT values */
#pragma once

#include "kernels/cuda/stage.cuh"

namespace qb {

/* Activations in float16 as stage.cuh makes them, in shared or global memory. */
struct staged {
    const half *x;
    int64_t stride; /* halves between tokens, a multiple of 8 */
    const float *unscale;
};

/* A step is what a warp loads and computes at a time: a tile, half of one where scales are many or codes
 * large. */
template <int KIND, bool FINE> struct step_shape {
    static constexpr bool packed = KIND < QB_CODES_PACKED_COUNT;
    static constexpr bool half_tile =
        KIND == QB_CODES_8 || KIND == QB_CODES_BOOK || (KIND == QB_CODES_4 && FINE);
    static constexpr int units = KIND == QB_CODES_F32 ? 1 : half_tile || !packed ? 2 : QB_TILE_UNITS;
    static constexpr int words = !packed              ? 16
                                 : KIND == QB_CODES_3 ? 6
                                 : KIND == QB_CODES_2 ? 4
                                                      : (KIND == QB_CODES_8 ? 4 : 2) * units;
};

/* Steps in flight: enough to keep the memory busy, as registers allow. */
template <int KIND, bool FINE, int RT> __host__ __device__ constexpr int ring_depth() {
    return RT > 1 && FINE && KIND == QB_CODES_2 ? 1
                                                : (step_shape<KIND, FINE>::words == 4 ? 4 : 2) /
                                                      (RT > 1 && (KIND < QB_CODES_4 || FINE) ? 2 : 1);
}

/* ---- loads ---- */

__device__ __forceinline__ void put_16(uint32_t *words, uint4 v) {
    words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
}

/* What a lane holds of a step. Fine steps hold a scale for each unit, of which those that begin a group
 * count. */
template <int KIND, bool FINE> struct step_codes {
    uint32_t words[step_shape<KIND, FINE>::words];
    raw_scale scale[FINE ? step_shape<KIND, FINE>::units : 1];
};

/* Fine: units of a step that share a scale, less one: a mask, for groups are powers of two of units. */
template <int KIND, bool FINE> __device__ __forceinline__ int group_mask(const qb_cuda_view &v) {
    constexpr int units = step_shape<KIND, FINE>::units;
    return v.group_shift < 2 ? min(1 << v.group_shift, units) - 1 : units - 1; /* units is 2 or 4 */
}

template <int KIND, bool FINE>
__device__ __forceinline__ void load_packed(const qb_cuda_view &v, const row_cursor &c, int step,
                                            step_codes<KIND, FINE> &to) {
    constexpr int units = step_shape<KIND, FINE>::units, words = step_shape<KIND, FINE>::words;
    constexpr int step_bytes =
        static_cast<int>(qb_tile_bytes(static_cast<qb_codes_kind>(KIND))) / (QB_TILE_UNITS / units);
    const uint8_t *from = c.codes + static_cast<int64_t>(step) * step_bytes;
    put_16(to.words, ptx::load_streaming_16(from));
    if constexpr (words == 6) { /* 8 bytes a lane, not 16 */
        uint2 high = ptx::load_streaming_8(from + 512 - threadIdx.x % 32 * 8);
        to.words[4] = high.x, to.words[5] = high.y;
    } else if constexpr (words == 8) {
        put_16(to.words + 4, ptx::load_streaming_16(from + 512));
    }
    if constexpr (FINE) {
        const int mask = group_mask<KIND, FINE>(v);
#pragma unroll
        for (int u = 0; u < units; u++)
            if ((u & mask) == 0)
                to.scale[u] = load_scale<KIND, FINE>(v, c.scales + ((step * units + u) >> v.group_shift) * 8);
    } else {
        to.scale[0] = load_scale<KIND, FINE>(v, c.scales + ((step * units) >> v.group_shift) * 8);
    }
}

/* Dense rows as they lie. Past the last column there is zero; past the last row, the last row again. */
template <int KIND, bool FINE>
__device__ __forceinline__ void load_dense(const qb_cuda_view &v, int row_tile, int step, int lane,
                                           uint32_t *to) {
    constexpr int units = step_shape<KIND, FINE>::units, size = KIND == QB_CODES_F32 ? 4 : 2,
                  words = size * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = row_tile * static_cast<int64_t>(QB_TILE_ROWS) + qb_lane_row(lane, h);
        if (row >= v.rows) row = v.rows - 1;
        const uint8_t *from = v.codes + row * v.cols * size;
#pragma unroll
        for (int u = 0; u < units; u++) {
            const int col = (step * units + u) * QB_UNIT_COLS + lane % 4 * QB_RUN_COLS,
                      cols = static_cast<int>(v.cols);
            uint32_t *run = to + (u * 2 + h) * words;
            if (cols % 8 == 0) {
#pragma unroll
                for (int w = 0; w < words; w += 4)
                    put_16(run + w, col < cols ? ptx::load_streaming_16(
                                                     from + static_cast<int64_t>(col) * size + w * 4)
                                               : make_uint4(0, 0, 0, 0));
            } else { /* rows start anywhere */
#pragma unroll
                for (int w = 0; w < words; w++) {
                    const uint8_t *at = from + static_cast<int64_t>(col) * size + w * 4;
                    if constexpr (size == 4) {
                        run[w] = col + w < cols ? __ldg(reinterpret_cast<const uint32_t *>(at)) : 0;
                    } else {
                        const uint16_t *pair = reinterpret_cast<const uint16_t *>(at);
                        uint32_t low = col + 2 * w < cols ? __ldg(pair) : 0;
                        uint32_t high = col + 2 * w + 1 < cols ? __ldg(pair + 1) : 0;
                        run[w] = low | high << 16;
                    }
                }
            }
        }
    }
}

template <int KIND, bool FINE>
__device__ __forceinline__ void load_step(const qb_cuda_view &v, int row_tile, const row_cursor &c, int step,
                                          int lane, step_codes<KIND, FINE> &to) {
    if constexpr (step_shape<KIND, FINE>::packed)
        load_packed<KIND, FINE>(v, c, step, to);
    else
        load_dense<KIND, FINE>(v, row_tile, step, lane, to.words);
}

/* ---- arithmetic ---- */

/* Sums of one row tile: fragments of mma, total[n][0..1] of row g, [2..3] of row g + 8, tokens 8 n + 2 t and
   + 1. Float32 weights (F32) are not for tensor cores: there a lane sums its own columns of its two rows for
   each token, and finish() adds up the four lanes. */
template <int KIND, int NT> struct tile_sums {
    float total[NT][4];
    float own[KIND == QB_CODES_F32 ? NT * 8 : 1][2];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int n = 0; n < NT; n++)
            for (int i = 0; i < 4; i++) total[n][i] = 0.0f;
        if constexpr (KIND == QB_CODES_F32)
#pragma unroll
            for (int n = 0; n < NT * 8; n++) own[n][0] = own[n][1] = 0.0f;
    }
    /* to[token][row] for the tokens that are there. */
    __device__ __forceinline__ void store(float *to, int T, int lane) const {
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int token = n * 8 + lane % 4 * 2 + i % 2;
                if (token < T) to[token * QB_TILE_ROWS + qb_lane_row(lane, i / 2)] = total[n][i];
            }
    }
    __device__ __forceinline__ void finish(int lane) {
        if constexpr (KIND == QB_CODES_F32) {
#pragma unroll
            for (int n = 0; n < NT * 8; n++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float s = own[n][h];
                    s += __shfl_xor_sync(0xffffffffu, s, 1);
                    s += __shfl_xor_sync(0xffffffffu, s, 2);
                    if (lane % 4 == n % 8 / 2) total[n / 8][h * 2 + n % 2] = s;
                }
        }
    }
};

/* A lane's activations of a unit: the 8 columns of one token for each tile of tokens. */
template <int NT>
__device__ __forceinline__ void load_activations(const staged &s, int T, int unit, int lane, uint4 (&b)[NT]) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
        int token = min(n * 8 + lane / 4, T - 1); /* the last again is computed and thrown away */
        b[n] = *reinterpret_cast<const uint4 *>(s.x + token * s.stride + unit * QB_UNIT_COLS +
                                                lane % 4 * QB_RUN_COLS);
    }
}

/* One m16n8k16; before compute capability 8.0 two m16n8k8, whose operands are its halves. */
__device__ __forceinline__ void multiply_16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                            uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    ptx::mma_m16n8k8_f16_f32(c, {a0, a1}, b0);
    ptx::mma_m16n8k8_f16_f32(c, {a2, a3}, b1);
#else
    ptx::mma_m16n8k16_f16_f32(c, {a0, a1, a2, a3}, {b0, b1});
#endif
}

template <int NT>
__device__ __forceinline__ void multiply_unit(float (&sum)[NT][4], const uint32_t (&w0)[4],
                                              const uint32_t (&w1)[4], const uint4 (&b)[NT]) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
        multiply_16(sum[n], w0[0], w1[0], w0[1], w1[1], b[n].x, b[n].y);
        multiply_16(sum[n], w0[2], w1[2], w0[3], w1[3], b[n].z, b[n].w);
    }
}

template <int NT>
__device__ __forceinline__ void fold(float (&total)[NT][4], const row_pair &factor,
                                     const float (&sum)[NT][4]) {
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) total[n][i] = fmaf(factor.half[i / 2], sum[n][i], total[n][i]);
}
template <int NT> __device__ __forceinline__ void clear(float (&sum)[NT][4]) {
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sum[n][i] = 0.0f;
}

/* One step of RT row tiles. Products with (code - zero) are exact and are summed over a group, or what of it
   the step holds, before they take its scale. */
template <int KIND, bool FINE, int NT, int RT, class Items>
__device__ __forceinline__ void compute_packed(const Items &items, int item, const row_cursor (&cursor)[RT],
                                               int step, int lane, const step_codes<KIND, FINE> (&codes)[RT],
                                               const staged &s, int T, const unsigned char *book,
                                               const float *map, tile_sums<KIND, NT> (&sums)[RT]) {
    constexpr int units = step_shape<KIND, FINE>::units;
    float sum[RT][NT][4];
    zero_terms<KIND> zero[RT][2];
    raw_scale raw[RT] = {};
#pragma unroll
    for (int u = 0; u < units; u++) {
        uint4 b[NT];
        load_activations(s, T, step * units + u, lane, b);
#pragma unroll
        for (int r = 0; r < RT; r++) {
            const qb_cuda_view &v = items.view(item, r);
            const int group = (step * units + (FINE ? u : 0)) >> v.group_shift,
                      place = cursor[r].scales + group * 8;
            const int mask = FINE ? group_mask<KIND, FINE>(v) : units - 1;
            if ((u & mask) == 0) {
                raw[r] = codes[r].scale[FINE ? u : 0];
                if constexpr (KIND != QB_CODES_BOOK) set_zeros<KIND, FINE>(v, raw[r], place, zero[r]);
                clear(sum[r]);
            }
            uint32_t w0[4], w1[4];
            run_halves<KIND>(codes[r].words, u, 0, zero[r][0], book, lane, w0);
            run_halves<KIND>(codes[r].words, u, 1, zero[r][1], book, lane, w1);
            multiply_unit(sum[r], w0, w1, b);
            if (((u + 1) & mask) == 0)
                fold(sums[r].total, decode_scale<KIND, FINE>(v, raw[r], cursor[r], group, map), sum[r]);
            if constexpr (FINE && KIND != QB_CODES_BOOK)
                if (v.offsets) { /* offset times the sum of the activations, unit by unit */
                    constexpr uint32_t one[4] = {0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00};
                    float ones[NT][4];
                    clear(ones);
                    multiply_unit(ones, one, one, b);
                    fold(sums[r].total, load_offsets(v, place), ones);
                }
        }
    }
}

template <int KIND, int NT>
__device__ __forceinline__ void compute_f32(int step, int lane, const uint32_t *words, const staged &s, int T,
                                            tile_sums<KIND, NT> &sums) {
#pragma unroll
    for (int n = 0; n < NT * 8; n++) {
        if (n >= T) break;
        uint4 b = *reinterpret_cast<const uint4 *>(s.x + n * s.stride + step * QB_UNIT_COLS +
                                                   lane % 4 * QB_RUN_COLS);
        const uint32_t pairs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float x = i % 2 ? __high2float(as_half2(pairs[i / 2])) : __low2float(as_half2(pairs[i / 2]));
            sums.own[n][0] = fmaf(as_float(words[i]), x, sums.own[n][0]);
            sums.own[n][1] = fmaf(as_float(words[8 + i]), x, sums.own[n][1]);
        }
    }
}

template <int KIND, bool FINE, int NT, int RT, class Items>
__device__ __forceinline__ void compute_16_bit(const Items &items, int item, int step, int lane,
                                               const step_codes<KIND, FINE> (&codes)[RT], const staged &s,
                                               int T, tile_sums<KIND, NT> (&sums)[RT]) {
    constexpr int units = step_shape<KIND, FINE>::units;
#pragma unroll
    for (int u = 0; u < units; u++) {
        uint4 b[NT];
        load_activations(s, T, step * units + u, lane, b);
#pragma unroll
        for (int r = 0; r < RT; r++) {
            uint32_t w0[4], w1[4];
            const uint32_t *run0 = codes[r].words + u * 8, *run1 = run0 + 4;
            if constexpr (KIND == QB_CODES_BF16) {
                float factor = power_of_two(items.view(item, r).exponent);
                bf16_halves(run0, factor, w0);
                bf16_halves(run1, factor, w1);
            } else {
#pragma unroll
                for (int p = 0; p < 4; p++) w0[p] = run0[p], w1[p] = run1[p];
            }
            multiply_unit(sums[r].total, w0, w1, b);
        }
    }
}

template <int KIND, bool FINE, int NT, int RT, class Items>
__device__ __forceinline__ void compute_step(const Items &items, int item, const row_cursor (&cursor)[RT],
                                             int step, int lane, const step_codes<KIND, FINE> (&codes)[RT],
                                             const staged &s, int T, const unsigned char *book,
                                             const float *map, tile_sums<KIND, NT> (&sums)[RT]) {
    if constexpr (step_shape<KIND, FINE>::packed)
        compute_packed<KIND, FINE, NT, RT>(items, item, cursor, step, lane, codes, s, T, book, map, sums);
    else if constexpr (KIND == QB_CODES_F32)
        for (int r = 0; r < RT; r++) compute_f32<KIND, NT>(step, lane, codes[r].words, s, T, sums[r]);
    else
        compute_16_bit<KIND, FINE, NT, RT>(items, item, step, lane, codes, s, T, sums);
}

/* ---- the block ---- */

/* How a block divides its warps: k_warps of them share a row tile's columns (with k_blocks blocks in grid.y),
   the others take other items. k_warps divides the block's warps. */
struct split {
    int k_warps, k_blocks;
};

/* Shared memory of a block in bytes from its start; what is absent takes none. */
struct gemv_shared {
    int64_t map, partial, unscale, x, sums, total; /* the codebook's table is at 0 */
};
/* T_staged: tokens staged in shared memory, 0 when they are staged in global memory. */
__host__ __device__ inline gemv_shared gemv_shared_plan(int kind, bool nested, int T_staged,
                                                        int64_t padded_cols, int warps, int RT, int T) {
    gemv_shared s = {};
    s.map = (kind == QB_CODES_BOOK ? 256 * QB_LANES * 4 : 0);
    s.x = s.map + (nested ? 256 * 4 : 0);
    s.partial = s.x + T_staged * staged_stride(padded_cols) * 2;
    s.unscale = s.partial + (T_staged * warps + 3) / 4 * 16;
    s.sums = s.unscale + (T_staged + 3) / 4 * 16;
    s.total = s.sums + 2LL * warps * RT * T * QB_TILE_ROWS * 4;
    return s;
}

/* Adds up what the block's warps hold of each item and hands it on: sums is [warp][RT][T][16]. */
template <int KIND, int RT, class Items, class Epilogue>
__device__ __forceinline__ void finish_items(const Items &items, int base, int item_warps, int k_warps, int T,
                                             const float *sums, const float *unscale, Epilogue &epilogue) {
    for (int i = static_cast<int>(threadIdx.x); i < item_warps * T * QB_TILE_ROWS;
         i += static_cast<int>(blockDim.x)) {
        int row = i % QB_TILE_ROWS, token = i / QB_TILE_ROWS % T, w = i / (QB_TILE_ROWS * T);
        if (base + w >= items.n_items()) continue;
        float value[RT];
#pragma unroll
        for (int r = 0; r < RT; r++) {
            float v = 0.0f;
            for (int k = 0; k < k_warps; k++)
                v += sums[(((w * k_warps + k) * RT + r) * T + token) * QB_TILE_ROWS + row];
            v *= unscale[token];
            if constexpr (KIND == QB_CODES_BF16) v *= power_of_two(-items.view(base + w, r).exponent);
            value[r] = v;
        }
        epilogue(base + w, row, token, value);
    }
}

/* The codebook's tables. All threads call it; ends with a barrier. */
__device__ __forceinline__ void fill_tables(const qb_cuda_view &v, const gemv_shared &plan,
                                            unsigned char *shared) {
    fill_book(reinterpret_cast<uint32_t *>(shared), v.table);
    if (plan.x > plan.map)
        for (unsigned i = threadIdx.x; i < 256; i += blockDim.x)
            reinterpret_cast<float *>(shared + plan.map)[i] = v.table[16 + i];
    __syncthreads();
}

/* The whole of a kernel. shared: dynamic shared memory laid out by `plan`. T: tokens computed, at most 8 NT.
 */
template <int KIND, bool FINE, int NT, int RT, class Items, class Stage, class Epilogue>
__device__ __forceinline__ void gemv_body(const Items &items, int T, split sp, const gemv_shared &plan,
                                          unsigned char *shared, Stage stage, Epilogue epilogue) {
    constexpr int depth = ring_depth<KIND, FINE, RT>();
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
              warps = static_cast<int>(blockDim.x) / 32, item_warps = warps / sp.k_warps;
    const int n_items = items.n_items(), per_round = static_cast<int>(gridDim.x) * item_warps;
    const int n_steps =
        static_cast<int>(items.view(0, 0).padded_cols) / (QB_UNIT_COLS * step_shape<KIND, FINE>::units);
    const int first = static_cast<int>(blockIdx.y) * sp.k_warps + warp % sp.k_warps,
              stride = sp.k_blocks * sp.k_warps;
    const unsigned char *book = shared; /* first, so that an entry's address is its place and a constant */
    const float *map = reinterpret_cast<const float *>(shared + plan.map);
    int base = static_cast<int>(blockIdx.x) * item_warps, item = base + warp / sp.k_warps;
    step_codes<KIND, FINE> ring[depth][RT];

    row_cursor cursor[RT] = {};
    auto begin_item = [&]() {
        if (item >= n_items) return;
#pragma unroll
        for (int r = 0; r < RT; r++) cursor[r] = cursor_of(items.view(item, r), items.tile(item, r), lane);
    };
    begin_item();
    auto load = [&](int step, step_codes<KIND, FINE>(&to)[RT]) {
        if (item >= n_items || step >= n_steps) return;
#pragma unroll
        for (int r = 0; r < RT; r++)
            load_step<KIND, FINE>(items.view(item, r), items.tile(item, r), cursor[r], step, lane, to[r]);
    };
#pragma unroll
    for (int d = 0; d < depth; d++) load(first + d * stride, ring[d]);
    if constexpr (KIND == QB_CODES_BOOK) fill_tables(items.view(0, 0), plan, shared);
    const staged s = stage();

    for (int round = 0; base < n_items; round ^= 1) {
        tile_sums<KIND, NT> sums[RT];
#pragma unroll
        for (int r = 0; r < RT; r++) sums[r].clear();
        if (item < n_items)
            for (int at = first; at < n_steps; at += depth * stride) {
#pragma unroll
                for (int d = 0; d < depth; d++) {
                    int step = at + d * stride;
                    if (step >= n_steps) break;
                    compute_step<KIND, FINE, NT, RT>(items, item, cursor, step, lane, ring[d], s, T, book,
                                                     map, sums);
                    load(step + depth * stride, ring[d]);
                }
            }
        float *out = reinterpret_cast<float *>(shared + plan.sums) + round * warps * RT * T * QB_TILE_ROWS;
#pragma unroll
        for (int r = 0; r < RT; r++) {
            sums[r].finish(lane);
            sums[r].store(out + (warp * RT + r) * T * QB_TILE_ROWS, T, lane);
        }
        item += per_round; /* the next items' weights are on their way while these are finished */
        begin_item();
#pragma unroll
        for (int d = 0; d < depth; d++) load(first + d * stride, ring[d]);
        __syncthreads(); /* one a round is enough: the next round writes the other half of `sums` */
        finish_items<KIND, RT>(items, base, item_warps, sp.k_warps, T, out, s.unscale, epilogue);
        base += per_round;
    }
}

} // namespace qb
