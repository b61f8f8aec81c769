/* What a warp reads of a matrix, step by step, on its way ahead of the arithmetic (gemv.cuh). From compute
   capability 8.0 on the way ends in shared memory: a lane copies exactly what it will read itself (cp.async),
   so that waiting for its own copies is all the order there must be. Before, two steps wait in registers. */
#pragma once

#include "kernels/cuda/dequant.cuh"

/* Compiled for a device with asynchronous copies, or for the shim, which plays one. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define QB_STEPS_IN_SHARED 1
#else
#define QB_STEPS_IN_SHARED 0
#endif

namespace qb {

/* A step is what a warp loads and computes at a time: a tile, half of one where scales are many or codes
 * large. */
__host__ __device__ constexpr int step_units(int kind, bool fine) {
    const bool half_tile = kind == QB_CODES_8 || kind == QB_CODES_BOOK || (kind == QB_CODES_4 && fine);
    return kind == QB_CODES_F32 ? 1 : half_tile || kind >= QB_CODES_PACKED_COUNT ? 2 : QB_TILE_UNITS;
}
/* Words of 32 bits that a lane holds of it. */
__host__ __device__ constexpr int step_words(int kind, bool fine) {
    return kind >= QB_CODES_PACKED_COUNT ? 16
           : kind == QB_CODES_3          ? 6
           : kind == QB_CODES_2          ? 4
                                         : (kind == QB_CODES_8 ? 4 : 2) * step_units(kind, fine);
}
/* Scales of a step that are loaded with it. */
__host__ __device__ constexpr int step_scales(int kind, bool fine) {
    return kind >= QB_CODES_PACKED_COUNT ? 0 : fine ? step_units(kind, fine) : 1;
}
/* Bytes of a warp's step in shared memory: words by loads as in the tile, then 8 bytes a lane for each scale.
 */
__host__ __device__ constexpr int step_bytes(int kind, bool fine) {
    return (step_words(kind, fine) * 4 + step_scales(kind, fine) * 8) * QB_LANES;
}
template <int KIND, bool FINE> struct step_shape {
    static constexpr bool packed = KIND < QB_CODES_PACKED_COUNT;
    static constexpr int units = step_units(KIND, FINE), words = step_words(KIND, FINE),
                         bytes = step_bytes(KIND, FINE);
};

/* ---- to registers ---- */

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
__device__ __forceinline__ const uint8_t *packed_step(const row_cursor &c, int step) {
    constexpr int bytes = static_cast<int>(qb_tile_bytes(static_cast<qb_codes_kind>(KIND))) /
                          (QB_TILE_UNITS / step_shape<KIND, FINE>::units);
    return c.codes + static_cast<int64_t>(step) * bytes;
}

template <int KIND, bool FINE>
__device__ __forceinline__ void load_packed(const qb_cuda_view &v, const row_cursor &c, int step,
                                            step_codes<KIND, FINE> &to) {
    constexpr int units = step_shape<KIND, FINE>::units, words = step_shape<KIND, FINE>::words;
    const uint8_t *from = packed_step<KIND, FINE>(c, step);
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

/* ---- to shared memory ---- */

/* Words 4 j .. 4 j + 3 of a lane at 512 j + 16 lane; words 4 and 5 of 3-bit codes at 512 + 8 lane. */
template <int KIND, bool FINE>
__device__ __forceinline__ void copy_packed(const qb_cuda_view &v, const row_cursor &c, int step, int lane,
                                            unsigned char *to) {
    constexpr int units = step_shape<KIND, FINE>::units, words = step_shape<KIND, FINE>::words;
    const uint8_t *from = packed_step<KIND, FINE>(c, step);
    ptx::cp_async_16(to + lane * 16, from);
    if constexpr (words == 6)
        ptx::cp_async_small<8>(to + 512 + lane * 8, from + 512 - lane * 8);
    else if constexpr (words == 8)
        ptx::cp_async_16(to + 512 + lane * 16, from + 512);
    unsigned char *scales = to + words * 4 * QB_LANES + lane * 8;
    if constexpr (FINE) {
        const int mask = group_mask<KIND, FINE>(v);
#pragma unroll
        for (int u = 0; u < units; u++)
            if ((u & mask) == 0)
                copy_scale<KIND, FINE>(v, c.scales + ((step * units + u) >> v.group_shift) * 8,
                                       scales + u * 8 * QB_LANES);
    } else {
        copy_scale<KIND, FINE>(v, c.scales + ((step * units) >> v.group_shift) * 8, scales);
    }
}

/* Dense rows, as load_dense has them: words 4 j .. 4 j + 3 at 512 j + 16 lane. */
template <int KIND, bool FINE>
__device__ __forceinline__ void copy_dense(const qb_cuda_view &v, int row_tile, int step, int lane,
                                           unsigned char *to) {
    constexpr int units = step_shape<KIND, FINE>::units;
    const int cols = static_cast<int>(v.cols);
    if (cols % 8 != 0) { /* rows start anywhere */
        uint32_t words[step_shape<KIND, FINE>::words];
        load_dense<KIND, FINE>(v, row_tile, step, lane, words);
#pragma unroll
        for (int j = 0; j < step_shape<KIND, FINE>::words / 4; j++)
            *reinterpret_cast<uint4 *>(to + j * 512 + lane * 16) =
                make_uint4(words[4 * j], words[4 * j + 1], words[4 * j + 2], words[4 * j + 3]);
        return;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = row_tile * static_cast<int64_t>(QB_TILE_ROWS) + qb_lane_row(lane, h);
        if (row >= v.rows) row = v.rows - 1;
        const uint8_t *from = v.codes + row * v.cols * 2;
#pragma unroll
        for (int u = 0; u < units; u++) {
            const int col = (step * units + u) * QB_UNIT_COLS + lane % 4 * QB_RUN_COLS;
            ptx::cp_async_16(to + (u * 2 + h) * 512 + lane * 16, col < cols ? from + col * 2 : from,
                             col < cols ? 16 : 0);
        }
    }
}

/* ---- the queue ---- */

/* A place on a warp's way through its items. */
template <int RT> struct step_walk {
    int item, step;
    row_cursor cursor[RT];

    template <class Items> __device__ __forceinline__ void enter(const Items &items, int lane) {
#pragma unroll
        for (int r = 0; r < RT; r++) cursor[r] = cursor_of(items.view(item, r), items.tile(item, r), lane);
    }
};

/* A warp's steps in the order of its walk: depth() are pushed (load, or nothing where the walk has ended,
   then close) before the first is taken, and one after each that was. */
template <int KIND, bool FINE, int RT> struct step_queue {
    static_assert(KIND != QB_CODES_F32, "float32 weights are computed elsewhere");
#if QB_STEPS_IN_SHARED
    unsigned char *ring;
    int slots, lane, push_at, take_at; /* bytes from the ring's start */

    static constexpr int slot_bytes = RT * step_shape<KIND, FINE>::bytes;

    __device__ __forceinline__ step_queue(unsigned char *shared, int depth, int lane_)
        : ring(shared), slots(depth), lane(lane_), push_at(0), take_at(0) {}
    __device__ __forceinline__ int depth() const {
        return slots;
    }
    __device__ __forceinline__ int after(int at) const {
        return at + slot_bytes == slots * slot_bytes ? 0 : at + slot_bytes;
    }
    template <class Items> __device__ __forceinline__ void load(const Items &items, const step_walk<RT> &w) {
#pragma unroll
        for (int r = 0; r < RT; r++) {
            unsigned char *to = ring + push_at + r * step_shape<KIND, FINE>::bytes;
            if constexpr (step_shape<KIND, FINE>::packed)
                copy_packed<KIND, FINE>(items.view(w.item, r), w.cursor[r], w.step, lane, to);
            else
                copy_dense<KIND, FINE>(items.view(w.item, r), items.tile(w.item, r), w.step, lane, to);
        }
    }
    __device__ __forceinline__ void close() {
        ptx::cp_async_commit();
        push_at = after(push_at);
    }
    /* Waits until all but the last slots - 1 groups have arrived: the oldest has. */
    __device__ __forceinline__ void wait() const {
        if (slots == 8) ptx::cp_async_wait<7>();
        if (slots == 4) ptx::cp_async_wait<3>();
        if (slots == 16) ptx::cp_async_wait<15>();
        if (slots == 2) ptx::cp_async_wait<1>();
    }
    template <class Items>
    __device__ __forceinline__ void take(const Items &items, int item, step_codes<KIND, FINE> (&to)[RT]) {
        constexpr int words = step_shape<KIND, FINE>::words, scales = step_scales(KIND, FINE);
        wait();
#pragma unroll
        for (int r = 0; r < RT; r++) {
            const unsigned char *from = ring + take_at + r * step_shape<KIND, FINE>::bytes;
#pragma unroll
            for (int j = 0; j < words / 4; j++)
                put_16(to[r].words + 4 * j, *reinterpret_cast<const uint4 *>(from + j * 512 + lane * 16));
            if constexpr (words == 6) {
                const uint2 high = *reinterpret_cast<const uint2 *>(from + 512 + lane * 8);
                to[r].words[4] = high.x, to[r].words[5] = high.y;
            }
#pragma unroll
            for (int u = 0; u < scales; u++) {
                const uint2 pair =
                    *reinterpret_cast<const uint2 *>(from + (words * 4 + u * 8) * QB_LANES + lane * 8);
                to[r].scale[u] = pick_scale<KIND, FINE>(items.view(item, r), pair, lane);
            }
        }
        take_at = after(take_at);
    }
#else
    step_codes<KIND, FINE> first[RT], second[RT];
    int lane;
    bool one; /* the first is pushed, the second not yet */

    __device__ __forceinline__ step_queue(unsigned char *, int, int lane_) : lane(lane_), one(false) {}
    __device__ __forceinline__ int depth() const {
        return 2;
    }
    template <class Items> __device__ __forceinline__ void load(const Items &items, const step_walk<RT> &w) {
#pragma unroll
        for (int r = 0; r < RT; r++)
            load_step<KIND, FINE>(items.view(w.item, r), items.tile(w.item, r), w.cursor[r], w.step, lane,
                                  second[r]);
    }
    __device__ __forceinline__ void close() {
        if (one) return;
        one = true;
#pragma unroll
        for (int r = 0; r < RT; r++) first[r] = second[r];
    }
    template <class Items>
    __device__ __forceinline__ void take(const Items &, int, step_codes<KIND, FINE> (&to)[RT]) {
#pragma unroll
        for (int r = 0; r < RT; r++) to[r] = first[r], first[r] = second[r];
    }
#endif
};

} // namespace qb
