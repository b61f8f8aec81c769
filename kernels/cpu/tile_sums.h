/* Products of matrices by tiles of bfloat16 (simd.h), as all their users take them: the rows of one side, the
   right, are laid out as a whole, those of the other a chunk of columns at a time in a worker's room. */
#pragma once

#include "kernels/cpu/simd.h"

enum { QB_TILE_PAIR = 2 * QB_BF16_TILE }; /* rows */

/* s from a row and a column on. */
qb_bf16_source qb_bf16_part(const qb_bf16_source *s, int64_t row, int64_t col);

typedef struct qb_tile_right {
    const qb_bf16_tiles *tiles;
    qb_bf16_source rows; /* float32 */
    uint16_t *laid; /* [pair of tiles of rows][tile of columns][qb_bf16_pair(parts)], aligned to 64 bytes */
} qb_tile_right;

int64_t qb_tile_right_bytes(int64_t rows, int64_t cols, int parts);
/* The loop over qb_pieces(rows, QB_TILE_PAIR) that lays them; ctx: a qb_tile_right. */
void qb_tile_right_lay(void *ctx, int64_t begin, int64_t end, int worker);

/* A worker's room for so many rows of either side; a multiple of 64. */
int64_t qb_tile_room_bytes(int64_t left_rows, int64_t right_rows);
/* Sums over columns [from, end), from a multiple of 32, of all rows of `left`, with their signs changed where
   negative, and of the right rows [row, row + rows), row a multiple of QB_TILE_PAIR. They lie in the room:
   [pair of right tiles][pair of left tiles][2][2][16 left][16 right]. */
const float *qb_tile_sums(const qb_tile_right *right, int64_t row, int64_t rows, const qb_bf16_source *left,
                          bool negative, int64_t from, int64_t end, void *room);
