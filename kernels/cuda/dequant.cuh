/* Codes to float16 in registers: what a lane holds of a tile (layout.cuh) becomes the operands of mma.
   Integer codes become code - zero exactly: 0x6400 | v is 1024 + v in float16, and 1024 + 4^p v, masked in
   place without a shift, comes down by an exact fused multiply-add. */
#pragma once

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/view.h"

#include <cstring>
#include <cuda_fp16.h>

namespace qb {

__device__ __forceinline__ half2 as_half2(uint32_t bits) {
    half2 h;
    memcpy(&h, &bits, 4);
    return h;
}
__device__ __forceinline__ uint32_t bits_of(half2 h) {
    uint32_t bits;
    memcpy(&bits, &h, 4);
    return bits;
}
__device__ __forceinline__ float as_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
/* 2^e for e in -126 .. 127. */
__device__ __forceinline__ float power_of_two(int e) {
    return as_float(static_cast<uint32_t>(127 + e) << 23);
}

/* What brings magic numbers down: minus (1024 / 4^p + zero) in both halves of term[p], put together as
   integers, for the zero point's bits stand in those of the mantissa. */
template <int KIND> struct zero_terms {
    static constexpr bool in_place =
        KIND == QB_CODES_2 || KIND == QB_CODES_3; /* p = 0 .. 3; 4 bits have 0 and 2 */
    uint32_t term[in_place ? 4 : KIND == QB_CODES_4 ? 2 : 1];

    __device__ __forceinline__ void set(uint32_t zero) {
        const uint32_t both = zero * 0x00010001u;
        term[0] = 0xe400e400u + both; /* -1024 */
        if constexpr (in_place) {
            term[1] = 0xdc00dc00u + both * 4;  /* -256 */
            term[2] = 0xd400d400u + both * 16; /* -64 */
            term[3] = 0xcc00cc00u + both * 64; /* -16 */
        } else if constexpr (KIND == QB_CODES_4) {
            term[1] = 0xd400d400u + both * 16;
        }
    }
};
template <> struct zero_terms<QB_CODES_BOOK> {
    __device__ __forceinline__ void set(uint32_t) {}
};

template <uint32_t MASK> __device__ __forceinline__ uint32_t magic(uint32_t word) {
    return ptx::lop3<0xea>(word, MASK, 0x64006400); /* (a & b) | c */
}
__device__ __forceinline__ uint32_t lower(uint32_t magic_bits, uint32_t factor, uint32_t term) {
    return bits_of(__hfma2(as_half2(magic_bits), as_half2(factor), as_half2(term)));
}
__device__ __forceinline__ uint32_t lower(uint32_t magic_bits, uint32_t term) {
    return bits_of(__hadd2(as_half2(magic_bits), as_half2(term)));
}

/* Entry b of a lane's copy of the book, b in bits 7 .. 14 of `shifted`: a bank is four bytes, an entry 32 of
 * them. */
__device__ __forceinline__ uint32_t book_entry(const unsigned char *book, uint32_t shifted, int lane) {
    const uint32_t place = (shifted & 0x7f80) | static_cast<uint32_t>(lane) * 4;
    return *reinterpret_cast<const uint32_t *>(book + place);
}

constexpr uint32_t QUARTER = 0x34003400, SIXTEENTH = 0x2c002c00, SIXTY_FOURTH = 0x24002400;

/* The run (unit, half) of a lane's words as four pairs of float16: column 2 p in the low half of w[p]. `book`
   is the codebook's table for this lane: entry b at book[32 b]. */
template <int KIND>
__device__ __forceinline__ void run_halves(const uint32_t *words, int unit, int half,
                                           const zero_terms<KIND> &zero, const unsigned char *book, int lane,
                                           uint32_t (&w)[4]) {
    if constexpr (KIND == QB_CODES_4) {
        uint32_t q = words[unit * 2 + half], q8 = q >> 8;
        w[0] = lower(magic<0x000f000f>(q), zero.term[0]);
        w[1] = lower(magic<0x00f000f0>(q), SIXTEENTH, zero.term[1]);
        w[2] = lower(magic<0x000f000f>(q8), zero.term[0]);
        w[3] = lower(magic<0x00f000f0>(q8), SIXTEENTH, zero.term[1]);
    } else if constexpr (KIND == QB_CODES_8) {
        uint32_t a = words[unit * 4 + half * 2], b = words[unit * 4 + half * 2 + 1];
        w[0] = lower(__byte_perm(a, 0x64646464, 0x4140), zero.term[0]);
        w[1] = lower(__byte_perm(a, 0x64646464, 0x4342), zero.term[0]);
        w[2] = lower(__byte_perm(b, 0x64646464, 0x4140), zero.term[0]);
        w[3] = lower(__byte_perm(b, 0x64646464, 0x4342), zero.term[0]);
    } else if constexpr (KIND == QB_CODES_BOOK) {
        uint32_t q = words[unit * 2 + half];
        w[0] = book_entry(book, q << 7, lane);
        w[1] = book_entry(book, q >> 1, lane);
        w[2] = book_entry(book, q >> 9, lane);
        w[3] = book_entry(book, q >> 17, lane);
    } else {
        uint32_t q = half ? words[unit] >> 8 : words[unit];
        uint32_t m0 = magic<0x00030003>(q), m1 = magic<0x000c000c>(q), m2 = magic<0x00300030>(q),
                 m3 = magic<0x00c000c0>(q);
        if constexpr (KIND == QB_CODES_3) { /* each third bit now stands right above its low bits */
            uint32_t high = words[4 + unit / 2];
            if (half) high = __byte_perm(high, 0, 0x2301);
            if (unit % 2) high >>= 1;
            m0 = ptx::lop3<0xea>(high, 0x00040004, m0);
            m1 = ptx::lop3<0xea>(high, 0x00100010, m1);
            m2 = ptx::lop3<0xea>(high, 0x00400040, m2);
            m3 = ptx::lop3<0xea>(high, 0x01000100, m3);
        }
        w[0] = lower(m0, zero.term[0]);
        w[1] = lower(m1, QUARTER, zero.term[1]);
        w[2] = lower(m2, SIXTEENTH, zero.term[2]);
        w[3] = lower(m3, SIXTY_FOURTH, zero.term[3]);
    }
}

/* Four of the pairs above from eight consecutive bfloat16, times 2^exponent. */
__device__ __forceinline__ void bf16_halves(const uint32_t *pairs, float factor, uint32_t (&w)[4]) {
    for (int p = 0; p < 4; p++)
        w[p] = bits_of(
            __floats2half2_rn(as_float(pairs[p] << 16) * factor, as_float(pairs[p] & 0xffff0000) * factor));
}

/* The codebook's table in shared memory: for each byte the two values of its nibbles, once a bank, so that 32
   lanes with 32 different bytes read without conflict. words: 256 * 32. All threads of the block call it. */
__device__ __forceinline__ void fill_book(uint32_t *words, const float *table) {
    for (unsigned i = threadIdx.x; i < 256 * QB_LANES; i += blockDim.x) {
        unsigned b = i / QB_LANES;
        words[i] = bits_of(__floats2half2_rn(table[b & 15], table[b >> 4]));
    }
}

/* ---- scales and zero points of a lane's two rows ---- */

/* As loaded, to be decoded when it is needed: a load in flight costs nothing, a conversion waits for it. */
struct raw_scale {
    uint32_t a, b;
};
struct row_pair {
    float half[2];
};

/* Where a lane finds what it reads of a row tile. */
struct row_cursor {
    const uint8_t *codes; /* packed: of its first step */
    int scales;           /* entry of the first group; those of group i are 8 i further on */
    int blocks; /* nested absmax: number of the first row's first block; the second's is 8 rows on */
};
__device__ __forceinline__ row_cursor cursor_of(const qb_cuda_view &v, int row_tile, int lane) {
    row_cursor c;
    const int64_t tiles = v.padded_cols / QB_TILE_COLS;
    c.codes = v.codes + row_tile * tiles * qb_tile_bytes(static_cast<qb_codes_kind>(v.kind)) + lane * 16;
    c.scales = row_tile * v.n_groups * 8 + lane / 4;
    c.blocks = (row_tile * QB_TILE_ROWS + lane / 4) * v.row_blocks;
    return c;
}

/* Two zero points of up to 4 bits in a byte, of 8 in two. */
template <int KIND> __device__ __forceinline__ uint32_t load_zeros(const qb_cuda_view &v, int place) {
    return KIND == QB_CODES_8 ? __ldg(reinterpret_cast<const uint16_t *>(v.zeros) + place)
                              : __ldg(v.zeros + place);
}

template <int KIND, bool FINE>
__device__ __forceinline__ raw_scale load_scale(const qb_cuda_view &v, int place) {
    raw_scale r = {0, 0};
    if constexpr (KIND == QB_CODES_BOOK) {
        if (v.scale_kind == QB_VIEW_SCALES_NESTED) {
            r.a = __ldg(static_cast<const uint16_t *>(v.scales) + place);
            return r;
        }
    } else if (!FINE || v.scale_kind == QB_VIEW_SCALES_F16) {
        r.a = __ldg(static_cast<const uint32_t *>(v.scales) + place);
        if (v.zeros) r.b = load_zeros<KIND>(v, place);
        return r;
    }
    uint2 pair = __ldg(static_cast<const uint2 *>(v.scales) + place);
    r.a = pair.x, r.b = pair.y;
    return r;
}

/* The same into 8 bytes of a lane's own in shared memory. What is narrower than a word comes with its
   neighbours: pick_scale takes it out. Arrays of scales hold whole words, for their rows come by eight. */
template <int KIND, bool FINE>
__device__ __forceinline__ void copy_scale(const qb_cuda_view &v, int place, unsigned char *to) {
    if (KIND == QB_CODES_BOOK && v.scale_kind == QB_VIEW_SCALES_NESTED) {
        ptx::cp_async_small<4>(to, static_cast<const uint32_t *>(v.scales) + place / 2);
    } else if (KIND != QB_CODES_BOOK && (!FINE || v.scale_kind == QB_VIEW_SCALES_F16)) {
        ptx::cp_async_small<4>(to, static_cast<const uint32_t *>(v.scales) + place);
        if (v.zeros)
            ptx::cp_async_small<4>(to + 4, reinterpret_cast<const uint32_t *>(v.zeros) +
                                               place / (KIND == QB_CODES_8 ? 2 : 4));
    } else {
        ptx::cp_async_small<8>(to, static_cast<const uint2 *>(v.scales) + place);
    }
}
/* What load_scale gives, of what copy_scale brought for lane / 4 of a row tile: places are 8 k + lane / 4. */
template <int KIND, bool FINE>
__device__ __forceinline__ raw_scale pick_scale(const qb_cuda_view &v, uint2 copied, int lane) {
    const unsigned half = (static_cast<unsigned>(lane) / 4 & 1) * 16,
                   byte = (static_cast<unsigned>(lane) / 4 & 3) * 8;
    raw_scale r = {copied.x, copied.y};
    if (KIND == QB_CODES_BOOK) {
        if (v.scale_kind == QB_VIEW_SCALES_NESTED) r.a = copied.x >> half & 0xffff;
    } else if (!FINE || v.scale_kind == QB_VIEW_SCALES_F16) {
        r.b = KIND == QB_CODES_8 ? copied.y >> half & 0xffff : copied.y >> byte & 0xff;
    }
    return r;
}

/* The zero points of integer codes. */
template <int KIND, bool FINE>
__device__ __forceinline__ void set_zeros(const qb_cuda_view &v, raw_scale r, int place,
                                          zero_terms<KIND> (&zero)[2]) {
    constexpr int width = KIND == QB_CODES_8 ? 8 : 4;
    uint32_t pair = static_cast<uint32_t>(v.zero) * ((1u << width) + 1);
    if (v.zeros) pair = !FINE || v.scale_kind == QB_VIEW_SCALES_F16 ? r.b : load_zeros<KIND>(v, place);
    zero[0].set(pair & ((1u << width) - 1));
    zero[1].set(pair >> width);
}

/* `map`: the nested map's 256 values, in shared or global memory. */
template <int KIND, bool FINE>
__device__ __forceinline__ row_pair decode_scale(const qb_cuda_view &v, raw_scale r, const row_cursor &c,
                                                 int group, const float *map) {
    row_pair s;
    if (KIND == QB_CODES_BOOK && v.scale_kind == QB_VIEW_SCALES_NESTED) {
        const unsigned first = static_cast<unsigned>(c.blocks + group);
        const unsigned second = first + 8 * static_cast<unsigned>(v.row_blocks);
        s.half[0] = fmaf(map[r.a & 0xff], __ldg(v.nested + first / 256), v.nested_offset);
        s.half[1] = fmaf(map[r.a >> 8], __ldg(v.nested + second / 256), v.nested_offset);
    } else if (KIND != QB_CODES_BOOK && (!FINE || v.scale_kind == QB_VIEW_SCALES_F16)) {
        float2 pair = __half22float2(as_half2(r.a));
        s.half[0] = pair.x, s.half[1] = pair.y;
    } else {
        s.half[0] = as_float(r.a), s.half[1] = as_float(r.b);
    }
    return s;
}

__device__ __forceinline__ row_pair load_offsets(const qb_cuda_view &v, int place) {
    row_pair o = {{0.0f, 0.0f}};
    if (v.offsets) {
        float2 pair = __ldg(reinterpret_cast<const float2 *>(v.offsets) + place);
        o.half[0] = pair.x, o.half[1] = pair.y;
    }
    return o;
}

} // namespace qb
