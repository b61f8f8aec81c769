/* Codes, one a byte, to the bits that they lie in: of a row sixteen at a time, of a block's sixteen rows side
   by side. */
#pragma once

#include "base/vectors.h"
#include "kernels/cpu/pack.h"

#include <stdbool.h>

/* Inlined with constants, so that each kind has code of its own. */
#define QB_PACK_INLINE static inline __attribute__((always_inline))

/* Without an end at each code, so that many are looked at together. */
static inline bool qb_codes_below(const uint8_t *codes, int64_t n, int limit) {
    uint8_t most = 0;
    for (int64_t i = 0; i < n; i++) most = codes[i] > most ? codes[i] : most;
    return most < limit;
}

/* ---- a row ---- */

/* Elements of b bits, two neighbours becoming one. */
QB_PACK_INLINE qb_u16x8 qb_join_8(qb_u8x16 x, int b) {
    const qb_u16x8 pairs = (qb_u16x8)x;
    return (pairs | pairs >> (8 - b)) & (uint16_t)((1 << 2 * b) - 1);
}
QB_PACK_INLINE qb_u32x4 qb_join_16(qb_u16x8 x, int b) {
    const qb_u32x4 pairs = (qb_u32x4)x;
    return (pairs | pairs >> (16 - b)) & ((1u << 2 * b) - 1);
}

/* The lowest bits of 64 codes, two of each, or of 32, four: column i at bit i times these of four words. */
QB_PACK_INLINE qb_u32x4 qb_row_words_2(const uint8_t *codes) {
    qb_u32x4 bytes[4];
    for (int i = 0; i < 4; i++) bytes[i] = qb_join_16(qb_join_8(qb_u8x16_at(codes + 16 * i) & 3, 2), 4);
    return (qb_u32x4)qb_narrow_16(qb_narrow_32(bytes[0], bytes[1]), qb_narrow_32(bytes[2], bytes[3]));
}
QB_PACK_INLINE qb_u32x4 qb_row_words_4(const uint8_t *codes) {
    return (qb_u32x4)qb_narrow_16(qb_join_8(qb_u8x16_at(codes) & 15, 4),
                                  qb_join_8(qb_u8x16_at(codes + 16) & 15, 4));
}

/* ---- a block ---- */

/* Four words of each of sixteen rows, in lines of one of each. */
typedef struct {
    qb_u32x4 row[QB_BLOCK_ROWS];
} qb_row_words;

QB_PACK_INLINE void qb_put_lines(qb_row_words *w, uint8_t *to) {
    for (int lane = 0; lane < QB_BLOCK_ROWS; lane += 4) {
        qb_turn_4x4(w->row + lane);
        for (int i = 0; i < 4; i++) qb_u8x16_put((qb_u8x16)w->row[lane + i], to + 64 * i + 4 * lane);
    }
}

/* Columns of a unit: as many as fill four lines, of three bits three. */
enum { QB_UNIT_COLS_2 = 64, QB_UNIT_COLS_3 = 32, QB_UNIT_COLS_4 = 32, QB_UNIT_COLS_8 = 16 };

/* Steps of QB_PACK_2 and QB_PACK_4, of the lowest bits of codes that may have more. */
QB_PACK_INLINE void qb_put_unit_2(const uint8_t *const rows[QB_BLOCK_ROWS], int64_t k, uint8_t *to) {
    qb_row_words w;
    for (int lane = 0; lane < QB_BLOCK_ROWS; lane++) w.row[lane] = qb_row_words_2(rows[lane] + k);
    qb_put_lines(&w, to);
}
QB_PACK_INLINE void qb_put_unit_4(const uint8_t *const rows[QB_BLOCK_ROWS], int64_t k, uint8_t *to) {
    qb_row_words w;
    for (int lane = 0; lane < QB_BLOCK_ROWS; lane++) w.row[lane] = qb_row_words_4(rows[lane] + k);
    qb_put_lines(&w, to);
}

/* Eight codes of three bits of two rows, 24 bits together. */
QB_PACK_INLINE qb_u64x2 qb_eights_3(const uint8_t *a, const uint8_t *b) {
    uint64_t x, y;
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    const qb_u32x4 fours = qb_join_16(qb_join_8((qb_u8x16)(qb_u64x2){x, y}, 3), 6);
    return ((qb_u64x2)fours | (qb_u64x2)fours >> 20) & 0xffffff;
}

/* A step of QB_PACK_3 (pack.h): of two rows 48 bits, of two such pairs a vector. */
QB_PACK_INLINE void qb_put_unit_3(const uint8_t *const rows[QB_BLOCK_ROWS], int64_t k, uint8_t *to) {
    for (int lane = 0; lane < QB_BLOCK_ROWS; lane += 4) {
        qb_u64x2 x[4];
        for (int i = 0; i < 4; i++)
            x[i] = qb_eights_3(rows[lane] + k + 8 * i, rows[lane + 2] + k + 8 * i) |
                   qb_eights_3(rows[lane + 1] + k + 8 * i, rows[lane + 3] + k + 8 * i) << 24;
        const qb_u64x2 lines[3] = {x[0] | x[3] >> 32 << 48,
                                   x[1] << 48 | x[1] >> 16 | (x[3] >> 16 & 0xffff) << 32,
                                   x[2] << 32 | x[2] >> 32 | (x[3] & 0xffff) << 16};
        for (int i = 0; i < 3; i++) qb_u8x16_put((qb_u8x16)lines[i], to + 64 * i + 4 * lane);
    }
}

/* Sixteen rows of sixteen signed bytes become columns: each round puts what is eight apart side by side. */
QB_PACK_INLINE void qb_put_unit_8(const uint8_t *const rows[QB_BLOCK_ROWS], int64_t k, uint8_t *to) {
    qb_u8x16 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = qb_u8x16_at(rows[i] + k) ^ 0x80;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++)
            b[2 * i] = qb_zip_low_8(a[i], a[i + 8]), b[2 * i + 1] = qb_zip_high_8(a[i], a[i + 8]);
        memcpy(a, b, sizeof a);
    }
    for (int i = 0; i < 16; i++) qb_u8x16_put(a[i], to + 16 * i);
}
