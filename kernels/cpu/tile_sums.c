#include "kernels/cpu/tile_sums.h"

#include "base/whole.h"

#include <string.h>

/* Tiles of columns of a chunk: a pair of tiles of it fits the first cache with a pair of the right rows'. */
enum { CHUNK_PARTS = 12, COLS = QB_BF16_TILE_COLS, PAIR_SUMS = QB_TILE_PAIR * QB_TILE_PAIR };

static int parts_of(const qb_bf16_source *s) {
    return s->cut ? QB_BF16_CUT : qb_bf16_parts(s->dtype);
}
static int64_t chunk_of(int parts) {
    return parts == 1 ? 6 : parts == 2 ? 5 : 4;
}

qb_bf16_source qb_bf16_part(const qb_bf16_source *s, int64_t row, int64_t col) {
    qb_bf16_source part = *s;
    const int64_t at = s->across ? col * s->stride + row : row * s->stride + col;
    part.numbers = (const uint8_t *)s->numbers + at * (int64_t)qb_dtype_bytes(s->dtype);
    part.rows -= row, part.cols -= col;
    return part;
}

int64_t qb_tile_right_bytes(int64_t rows, int64_t cols, int parts) {
    return qb_pieces(rows, QB_TILE_PAIR) * qb_pieces(cols, COLS) * qb_bf16_pair(parts) * 2;
}

void qb_tile_right_lay(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const qb_tile_right *r = ctx;
    const int64_t of_pair = qb_pieces(r->rows.cols, COLS) * qb_bf16_pair(parts_of(&r->rows));
    for (int64_t i = begin; i < end; i++) {
        const qb_bf16_source pair = qb_bf16_part(&r->rows, i * QB_TILE_PAIR, 0);
        r->tiles->lay_right(&pair, r->laid + i * of_pair);
    }
}

static int64_t sums_bytes(int64_t left_rows, int64_t right_rows) {
    return qb_pieces(left_rows, QB_TILE_PAIR) * qb_pieces(right_rows, QB_TILE_PAIR) * PAIR_SUMS * 4;
}
int64_t qb_tile_room_bytes(int64_t left_rows, int64_t right_rows) {
    return sums_bytes(left_rows, right_rows) +
           qb_pieces(left_rows, QB_TILE_PAIR) * CHUNK_PARTS * qb_bf16_pair(1) * 2;
}

/* Columns [col, end) of rows that lie far apart, of which the processor foresees nothing. */
static void ask_for(const qb_bf16_source *s, int64_t col, int64_t end) {
    enum { LINE = 64 };
    const int64_t size = (int64_t)qb_dtype_bytes(s->dtype);
    for (int64_t r = 0; r < s->rows && !s->across; r++) {
        const uint8_t *p = (const uint8_t *)s->numbers + (r * s->stride + col) * size;
        for (const uint8_t *e = p + (end - col) * size; p < e; p += LINE) __builtin_prefetch(p, 0, 2);
    }
}

static void change_signs(uint16_t *numbers, int64_t n) {
    for (int64_t i = 0; i < n; i++) numbers[i] ^= 0x8000;
}

const float *qb_tile_sums(const qb_tile_right *right, int64_t row, int64_t rows, const qb_bf16_source *left,
                          bool negative, int64_t from, int64_t end, void *room) {
    const int parts = parts_of(left), right_parts = parts_of(&right->rows);
    const int64_t lefts = qb_pieces(left->rows, QB_TILE_PAIR), rights = qb_pieces(rows, QB_TILE_PAIR);
    const int64_t chunk = chunk_of(parts), pair = qb_bf16_pair(parts), last = qb_pieces(end, COLS);
    const int64_t step = qb_bf16_pair(right_parts), depth = qb_pieces(right->rows.cols, COLS);
    float *sums = room;
    uint16_t *laid = (uint16_t *)(void *)((uint8_t *)room + sums_bytes(left->rows, rows));
    if (last <= from / COLS) memset(sums, 0, (size_t)(lefts * rights * PAIR_SUMS) * sizeof *sums);
    for (int64_t k = from / COLS; k < last; k += chunk) {
        const int64_t n = qb_least(chunk, last - k);
        ask_for(left, qb_least((k + n) * COLS, end), qb_least((k + 2 * n) * COLS, end));
        for (int64_t l = 0; l < lefts; l++) {
            qb_bf16_source some = qb_bf16_part(left, l * QB_TILE_PAIR, k * COLS);
            some.cols = qb_least(n * COLS, end - k * COLS);
            right->tiles->lay_left(&some, laid + l * n * pair);
        }
        if (negative) change_signs(laid, lefts * n * pair);
        right->tiles->multiply(parts, right_parts, n, laid, lefts,
                               right->laid + (row / QB_TILE_PAIR * depth + k) * step, rights, depth * step,
                               k == from / COLS, sums);
    }
    return sums;
}
