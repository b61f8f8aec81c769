/* Where the packed layout of the CUDA kernels keeps each code: index maps shared by the host, the packing
   kernel and the matmuls. The common subset of C and C++, without CUDA's headers, so that a host test sees
   every map.

   A matrix is cut into tiles of 16 rows by 128 columns. A warp reads a tile with 16-byte loads, and what lane
   4 g + t reads is what it feeds to mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"): of rows g
   and g + 8, from each unit of 32 columns, the run of columns 8 t .. 8 t + 7. The same order of columns
   within a unit makes the other operand plain: lane 4 g + t reads the 16 bytes of float16 activations at
   column 8 t of token g. (Within a unit mma's own k order is permuted, the same way for both operands, which
   no sum sees.)

   A lane's codes of a tile, four units of two runs of eight codes, are words of 32 bits:
     4 bits     8 words, a run each; column i of the run at nibble (i & 1) * 4 + i / 2, so that a mask of both
                halves takes columns 2 p and 2 p + 1
     codebook   8 words, a run each; column i at nibble i: a byte is the table's index for two columns
     8 bits    16 words, two a run; column i at byte i
     2 bits     4 words, two runs each: pair p of the eight at bits 2 p and 16 + 2 p
     3 bits     the low two bits as 2 bits; the high bits of two units in one word, each where one shift or
                one exchange of bytes brings it above its low bits
   A word's index names its load: words 4 j .. 4 j + 3 are load j, at 512 j + 16 lane; the high bits of 3-bit
   codes follow at 512 + 8 lane. Tiles of a row tile follow each other by column. */
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#define QB_MAP __host__ __device__ constexpr static inline
#elif defined(__cplusplus)
#define QB_MAP constexpr static inline
#else
#define QB_MAP static inline
#endif

enum {
    QB_TILE_ROWS = 16,
    QB_TILE_COLS = 128,
    QB_UNIT_COLS = 32, /* columns that share a scale at the least: groups are padded to whole units */
    QB_TILE_UNITS = QB_TILE_COLS / QB_UNIT_COLS,
    QB_RUN_COLS = 8,
    QB_LANES = 32,
    QB_LANE_WORDS_MAX = 16,
};

typedef enum {
    QB_CODES_2,
    QB_CODES_3,
    QB_CODES_4,
    QB_CODES_8,
    QB_CODES_BOOK,
    QB_CODES_PACKED_COUNT,
    /* Dense weights stay row-major, as other ops read them; the same kernels take them. */
    QB_CODES_F16 = QB_CODES_PACKED_COUNT,
    QB_CODES_BF16,
    QB_CODES_F32,
    QB_CODES_COUNT,
} qb_codes_kind;

/* Words of 32 bits that a lane holds of a tile. */
QB_MAP int qb_lane_words(qb_codes_kind kind) {
    return kind == QB_CODES_2 ? 4 : kind == QB_CODES_3 ? 6 : kind == QB_CODES_8 ? 16 : 8;
}
QB_MAP int64_t qb_tile_bytes(qb_codes_kind kind) {
    return (int64_t)qb_lane_words(kind) * 4 * QB_LANES;
}
/* Byte of a lane's word within the tile. */
QB_MAP int qb_word_byte(qb_codes_kind kind, int lane, int word) {
    return kind == QB_CODES_3 && word >= 4 ? 512 + lane * 8 + (word - 4) * 4
                                           : word / 4 * 512 + lane * 16 + word % 4 * 4;
}

/* Coordinates of row r (0 .. 15) and column c (0 .. 127) of a tile. */
QB_MAP int qb_tile_lane(int r, int c) {
    return r % 8 * 4 + c % QB_UNIT_COLS / QB_RUN_COLS;
}
QB_MAP int qb_lane_row(int lane, int half) { /* half 0, 1: the lane's two rows */
    return lane / 4 + 8 * half;
}
QB_MAP int qb_lane_col(int lane, int unit, int i) {
    return unit * QB_UNIT_COLS + lane % 4 * QB_RUN_COLS + i;
}

/* Word and lowest bit of column i (0 .. 7) of a lane's run (unit, half). For 3 bits: of the two low bits. */
QB_MAP int qb_code_word(qb_codes_kind kind, int unit, int half, int i) {
    return kind == QB_CODES_2 || kind == QB_CODES_3 ? unit
           : kind == QB_CODES_8                     ? unit * 4 + half * 2 + i / 4
                                                    : unit * 2 + half;
}
QB_MAP int qb_code_bit(qb_codes_kind kind, int half, int i) {
    return kind == QB_CODES_2 || kind == QB_CODES_3 ? i % 2 * 16 + 2 * (half * 4 + i / 2)
           : kind == QB_CODES_8                     ? i % 4 * 8
           : kind == QB_CODES_4                     ? (i % 2 * 4 + i / 2) * 4
                                                    : i * 4;
}
/* The third bit of 3-bit codes. Pair p of a run wants it at bit 2 p + 2 of its half word: there already (even
   unit), after a shift by one (odd unit); the second rows' after the two bytes of each half word change
   places. */
QB_MAP int qb_high_word(int unit) {
    return 4 + unit / 2;
}
QB_MAP int qb_high_bit(int unit, int half, int i) {
    return i % 2 * 16 + (i / 2 * 2 + 2 + unit % 2 + 8 * half) % 16;
}

/* Adds a code to the lane's words, which start at zero. */
QB_MAP void qb_put_code(qb_codes_kind kind, uint32_t *words, int unit, int half, int i, uint32_t code) {
    uint32_t low = kind == QB_CODES_3 ? code & 3 : code;
    words[qb_code_word(kind, unit, half, i)] |= low << qb_code_bit(kind, half, i);
    if (kind == QB_CODES_3) words[qb_high_word(unit)] |= code >> 2 << qb_high_bit(unit, half, i);
}

/* Scales, zero points and absmax lie by row tile, group, g = row % 8, half = row / 8 % 2: a lane reads both
   its rows' in one load. Zero points of up to 4 bits share a byte, the first half's in the low nibble. */
QB_MAP int64_t qb_scale_index(int64_t row, int64_t group, int64_t n_groups) {
    return ((row / QB_TILE_ROWS * n_groups + group) * 8 + row % 8) * 2 + row / 8 % 2;
}
