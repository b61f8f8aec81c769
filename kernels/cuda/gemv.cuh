/* The products of few tokens, straight from the packed codes: y[t, row] = sum over k of w[row, k] x[t, k].

   Weights are mma's left operand (16 rows), activations its right (8 tokens), so that one token costs what
   eight do and dequantizing is all the arithmetic there is. A warp takes some row tiles' columns in steps and
   keeps float32 sums; the warps of a block that share a row tile add theirs in a fixed order. Nothing is
   atomic: the same inputs give the same bits.

   The codes are on their way long before they are needed: each lane copies what it will read, step after step
   and item after item, into a ring of its own in shared memory (gemv_queue.cuh), so that registers do not
   bound what a multiprocessor has in flight and no barrier stands between a copy and its use.

   What a kernel made of gemv_body chooses:
     KIND     the codes (qb_codes_kind)
     FINE     whether a step may hold several groups, or offsets (qb_view_is_fine of any matrix taking part)
     NT       tiles of 8 tokens a warp computes at once
     RT       row tiles a warp computes at once, sharing the activations; not all of one matrix (gate and up)
     Items    which row tiles make up item i: n_items(), view(i, r), tile(i, r), all pure. All views have the
   same kind, columns and order Stage    called by every thread once the first weights are on their way, with
   what sends for the rest, to be called when the activations are sent for; returns them staged Epilogue
   called once for each finished (item, row in tile, token) with the RT values */
#pragma once

#include "kernels/cuda/gemv_queue.cuh"
#include "kernels/cuda/stage.cuh"

namespace qb {

/* Activations in float16 as stage.cuh makes them, in shared or global memory. */
struct staged {
    const half *x;
    int64_t stride; /* halves between tokens, a multiple of 8 */
    const float *unscale;
};

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

/* Few tokens' products follow each other too closely for one chain of sums. */
constexpr __host__ __device__ int sum_chains(int NT) {
    return NT == 1 ? 2 : 1;
}
template <int NT> using group_sums = float[sum_chains(NT)][NT][4];

template <int NT>
__device__ __forceinline__ void multiply_unit(group_sums<NT> &sum, const uint32_t (&w0)[4],
                                              const uint32_t (&w1)[4], const uint4 (&b)[NT]) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
        multiply_16(sum[0][n], w0[0], w1[0], w0[1], w1[1], b[n].x, b[n].y);
        multiply_16(sum[sum_chains(NT) - 1][n], w0[2], w1[2], w0[3], w1[3], b[n].z, b[n].w);
    }
}

template <int NT>
__device__ __forceinline__ void fold(float (&total)[NT][4], const row_pair &factor,
                                     const group_sums<NT> &sum) {
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float group =
                sum_chains(NT) == 1 ? sum[0][n][i] : sum[0][n][i] + sum[sum_chains(NT) - 1][n][i];
            total[n][i] = fmaf(factor.half[i / 2], group, total[n][i]);
        }
}
template <int NT> __device__ __forceinline__ void clear(group_sums<NT> &sum) {
#pragma unroll
    for (int c = 0; c < sum_chains(NT); c++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sum[c][n][i] = 0.0f;
}

/* One step of RT row tiles. Products with (code - zero) are exact and are summed over a group, or what of it
   the step holds, before they take its scale. */
template <int KIND, bool FINE, int NT, int RT, class Items>
__device__ __forceinline__ void compute_packed(const Items &items, int item, const row_cursor (&cursor)[RT],
                                               int step, int lane, const step_codes<KIND, FINE> (&codes)[RT],
                                               const staged &s, int T, const unsigned char *book,
                                               const float *map, tile_sums<KIND, NT> (&sums)[RT]) {
    constexpr int units = step_shape<KIND, FINE>::units;
    group_sums<NT> sum[RT];
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
                clear<NT>(sum[r]);
            }
            uint32_t w0[4], w1[4];
            run_halves<KIND>(codes[r].words, u, 0, zero[r][0], book, lane, w0);
            run_halves<KIND>(codes[r].words, u, 1, zero[r][1], book, lane, w1);
            multiply_unit<NT>(sum[r], w0, w1, b);
            if (((u + 1) & mask) == 0)
                fold<NT>(sums[r].total, decode_scale<KIND, FINE>(v, raw[r], cursor[r], group, map), sum[r]);
            if constexpr (FINE && KIND != QB_CODES_BOOK)
                if (v.offsets) { /* offset times the sum of the activations, unit by unit */
                    constexpr uint32_t one[4] = {0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00};
                    group_sums<NT> ones;
                    clear<NT>(ones);
                    multiply_unit<NT>(ones, one, one, b);
                    fold<NT>(sums[r].total, load_offsets(v, place), ones);
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
#pragma unroll
            for (int n = 0; n < NT; n++) {
                multiply_16(sums[r].total[n], w0[0], w1[0], w0[1], w1[1], b[n].x, b[n].y);
                multiply_16(sums[r].total[n], w0[2], w1[2], w0[3], w1[3], b[n].z, b[n].w);
            }
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

/* Shared memory of a block in bytes from its start; what is absent takes none. `depth` steps of a warp are in
   flight, and the sums of `finish` rounds of items are added up together. */
struct gemv_shared {
    int64_t map, partial, unscale, x, sums, ring, total; /* the codebook's table is at 0 */
    int depth, finish;
};
enum { GEMV_DEPTH_MAX = 16, GEMV_FINISH_MAX = 8, GEMV_SUM_BYTES = 8 << 10 };

/* What a block of `warps` needs. T_staged: tokens staged in shared memory, 0 when they are staged in global
   memory. depth: steps in flight, 0 where they are in registers (compute capability 7.5). */
__host__ __device__ inline gemv_shared gemv_shared_plan(int kind, bool fine, bool nested, int T_staged,
                                                        int64_t padded_cols, int warps, int RT, int T,
                                                        int depth) {
    gemv_shared s = {};
    s.map = (kind == QB_CODES_BOOK ? 256 * QB_LANES * 4 : 0);
    s.x = s.map + (nested ? 256 * 4 : 0);
    s.partial = s.x + T_staged * staged_stride(padded_cols) * 2;
    s.unscale = s.partial + (T_staged * warps + 3) / 4 * 16;
    s.sums = s.unscale + (T_staged + 3) / 4 * 16;
    const int round_bytes = warps * RT * T * QB_TILE_ROWS * 4;
    s.finish = GEMV_SUM_BYTES / round_bytes;
    s.finish = s.finish < 1 ? 1 : s.finish > GEMV_FINISH_MAX ? GEMV_FINISH_MAX : s.finish;
    s.ring = (s.sums + 2LL * s.finish * round_bytes + 15) / 16 * 16;
    s.depth = depth;
    s.total = s.ring + static_cast<int64_t>(depth) * warps * RT * step_bytes(kind, fine);
    return s;
}
/* What a multiprocessor has on its way at most: more only stands in the way of the inputs' loads, which wait
   behind it. Measured on an H200, 7B with 4 bits: 80 KB 448 tokens a second, 160 KB 425. */
constexpr int64_t GEMV_IN_FLIGHT = 100 << 10;

/* The same as deep as `bytes` of shared memory and `in_flight` bytes on their way allow: 16, 8, 4 or 2 steps;
   two if not even they fit. */
inline gemv_shared gemv_shared_within(int64_t bytes, int64_t in_flight, bool async_copies, int kind,
                                      bool fine, bool nested, int T_staged, int64_t padded_cols, int warps,
                                      int RT, int T) {
    for (int depth = GEMV_DEPTH_MAX; async_copies; depth /= 2) {
        const gemv_shared s =
            gemv_shared_plan(kind, fine, nested, T_staged, padded_cols, warps, RT, T, depth);
        if ((s.total <= bytes && s.total - s.ring <= in_flight) || depth == 2) return s;
    }
    return gemv_shared_plan(kind, fine, nested, T_staged, padded_cols, warps, RT, T, 0);
}

/* Adds up what the block's warps hold of the items of `rounds` rounds, from item `base` on, and hands it on:
   sums is [round][warp][RT][T][16]. */
template <int KIND, int RT, class Items, class Epilogue>
__device__ __forceinline__ void finish_items(const Items &items, int base, int per_round, int rounds,
                                             int item_warps, int k_warps, int T, const float *sums,
                                             const float *unscale, Epilogue &epilogue) {
    const int round_values = item_warps * T * QB_TILE_ROWS;
    for (int i = static_cast<int>(threadIdx.x); i < rounds * round_values;
         i += static_cast<int>(blockDim.x)) {
        const int round = i / round_values, in_round = i % round_values;
        const int row = in_round % QB_TILE_ROWS, token = in_round / QB_TILE_ROWS % T,
                  w = in_round / (QB_TILE_ROWS * T), item = base + round * per_round + w;
        if (item >= items.n_items()) continue;
        float value[RT];
#pragma unroll
        for (int r = 0; r < RT; r++) {
            float v = 0.0f;
            for (int k = 0; k < k_warps; k++)
                v += sums[((((round * item_warps + w) * k_warps + k) * RT + r) * T + token) * QB_TILE_ROWS +
                          row];
            v *= unscale[token];
            if constexpr (KIND == QB_CODES_BF16) v *= power_of_two(-items.view(item, r).exponent);
            value[r] = v;
        }
        epilogue(item, row, token, value);
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

    step_queue<KIND, FINE, RT> queue(
        shared + plan.ring + static_cast<int64_t>(warp) * plan.depth * RT * step_shape<KIND, FINE>::bytes,
        plan.depth, lane);
    step_walk<RT> ahead = {item, first, {}};
    auto push = [&]() {
        if (ahead.item < n_items && ahead.step < n_steps) {
            if (ahead.step == first) ahead.enter(items, lane);
            queue.load(items, ahead);
            ahead.step += stride;
            if (ahead.step >= n_steps) ahead.item += per_round, ahead.step = first;
        }
        queue.close();
    };
    /* The first steps go before the inputs, which may not be there yet; the others would stand in their way.
     */
    constexpr int begun = 2;
    for (int d = 0; d < begun; d++) push();
    if constexpr (KIND == QB_CODES_BOOK) fill_tables(items.view(0, 0), plan, shared);
    const staged s = stage([&]() {
        for (int d = begun; d < queue.depth(); d++) push();
    });

    const int round_floats = warps * RT * T * QB_TILE_ROWS;
    for (int parity = 0; base < n_items; parity ^= 1) {
        float *sums_of = reinterpret_cast<float *>(shared + plan.sums) + parity * plan.finish * round_floats;
        int rounds = 0;
        for (int at = base; rounds < plan.finish && at < n_items; rounds++, at += per_round) {
            tile_sums<KIND, NT> sums[RT];
#pragma unroll
            for (int r = 0; r < RT; r++) sums[r].clear();
            if (item < n_items) {
                step_walk<RT> now = {item, first, {}};
                now.enter(items, lane);
                for (; now.step < n_steps; now.step += stride) {
                    step_codes<KIND, FINE> codes[RT];
                    queue.take(items, item, codes);
                    compute_step<KIND, FINE, NT, RT>(items, item, now.cursor, now.step, lane, codes, s, T,
                                                     book, map, sums);
                    push();
                }
            }
            float *out = sums_of + rounds * round_floats;
#pragma unroll
            for (int r = 0; r < RT; r++) {
                sums[r].finish(lane);
                sums[r].store(out + (warp * RT + r) * T * QB_TILE_ROWS, T, lane);
            }
            item += per_round;
        }
        __syncthreads(); /* one is enough: what follows is written to the other half of `sums` */
        finish_items<KIND, RT>(items, base, per_round, rounds, item_warps, sp.k_warps, T, sums_of, s.unscale,
                               epilogue);
        base += rounds * per_round;
    }
}

} // namespace qb
