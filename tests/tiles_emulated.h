/* The statements of kernels/cpu/tiles.h in plain C, as Intel's SDM defines the instructions; what there
   raises an exception ends the program. */
#pragma once

#define TILES_EMULATED
#include "kernels/cpu/tiles.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TILES = 8, TILE_ROWS = 16, TILE_BYTES = 64 };
typedef struct {
    qb_tile_shapes shapes; /* palette 0: none */
    uint8_t tile[TILES][TILE_ROWS][TILE_BYTES];
} tile_state;
static _Thread_local tile_state emulated_tiles;

static inline void tile_refuse(const char *what) {
    fprintf(stderr, "emulated tiles: %s\n", what);
    abort();
}

static inline void tiles_begin(const qb_tile_shapes *shapes) {
    static const uint8_t zeros[14];
    _Static_assert(sizeof *shapes == 64, "LDTILECFG reads 64 bytes");
    if (shapes->palette != 1 || shapes->start_row != 0) tile_refuse("not palette 1 from row 0 on");
    if (memcmp(shapes->reserved, zeros, sizeof shapes->reserved) != 0) tile_refuse("reserved bytes are set");
    for (int n = 0; n < 16; n++) {
        if (n >= TILES && (shapes->rows[n] || shapes->row_bytes[n])) tile_refuse("a ninth tile");
        if (shapes->rows[n] > TILE_ROWS || shapes->row_bytes[n] > TILE_BYTES) tile_refuse("too large a tile");
        if (!shapes->rows[n] != !shapes->row_bytes[n]) tile_refuse("a tile with rows or columns alone");
    }
    memset(&emulated_tiles, 0, sizeof emulated_tiles);
    emulated_tiles.shapes = *shapes;
}

static inline void tiles_end(void) {
    memset(&emulated_tiles, 0, sizeof emulated_tiles);
}

static inline void tile_check(int n) {
    if (emulated_tiles.shapes.palette == 0 || n < 0 || n >= TILES || emulated_tiles.shapes.rows[n] == 0)
        tile_refuse("a tile without a shape");
    if (emulated_tiles.shapes.row_bytes[n] % 4) tile_refuse("rows of no whole words");
}

static inline void tile_zero(int n) {
    tile_check(n);
    memset(emulated_tiles.tile[n], 0, sizeof emulated_tiles.tile[n]);
}

static inline void tile_load(int n, const void *from, int64_t stride) {
    tile_zero(n);
    for (int r = 0; r < emulated_tiles.shapes.rows[n]; r++)
        memcpy(emulated_tiles.tile[n][r], (const uint8_t *)from + r * stride,
               emulated_tiles.shapes.row_bytes[n]);
}

static inline void tile_store(int n, void *to, int64_t stride) {
    tile_check(n);
    for (int r = 0; r < emulated_tiles.shapes.rows[n]; r++)
        memcpy((uint8_t *)to + r * stride, emulated_tiles.tile[n][r], emulated_tiles.shapes.row_bytes[n]);
}

static inline void tile_check_product(int sum, int a, int b) {
    const qb_tile_shapes *s = &emulated_tiles.shapes;
    tile_check(sum), tile_check(a), tile_check(b);
    if (sum == a || sum == b || a == b) tile_refuse("a product of one tile twice");
    if (s->rows[sum] != s->rows[a] || s->row_bytes[sum] != s->row_bytes[b] ||
        s->row_bytes[a] != 4 * s->rows[b])
        tile_refuse("a product of shapes that do not meet");
}

/* Products of tiles touch nothing but the tiles, and builds without optimization took minutes over them. */
#if defined(__clang__)
#define TILE_PRODUCT static inline __attribute__((no_sanitize("address", "undefined")))
#else
#define TILE_PRODUCT static inline __attribute__((no_sanitize("address", "undefined"), optimize("O2")))
#endif

/* TDPBSUD: a's bytes are signed, b's are not; modulo 2^32. */
TILE_PRODUCT void tile_dot(int sum, int a, int b) {
    tile_check_product(sum, a, b);
    for (int m = 0; m < emulated_tiles.shapes.rows[a]; m++)
        for (int n = 0; n < emulated_tiles.shapes.row_bytes[b] / 4; n++) {
            uint32_t s;
            memcpy(&s, emulated_tiles.tile[sum][m] + 4 * n, 4);
            for (int k = 0; k < emulated_tiles.shapes.rows[b]; k++)
                for (int i = 0; i < 4; i++)
                    s += (uint32_t)((int8_t)emulated_tiles.tile[a][m][4 * k + i] *
                                    emulated_tiles.tile[b][k][4 * n + i]);
            memcpy(emulated_tiles.tile[sum][m] + 4 * n, &s, 4);
        }
}

TILE_PRODUCT float tile_flush(float x) {
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}
TILE_PRODUCT float tile_fma(uint16_t a, uint16_t b, float sum) {
    const uint32_t bits[2] = {(uint32_t)a << 16, (uint32_t)b << 16};
    float f[2];
    memcpy(f, bits, sizeof f);
    return tile_flush(fmaf(tile_flush(f[0]), tile_flush(f[1]), sum));
}
/* TDPBF16PS */
TILE_PRODUCT void tile_dot_bf16(int sum, int a, int b) {
    tile_check_product(sum, a, b);
    for (int m = 0; m < emulated_tiles.shapes.rows[a]; m++)
        for (int n = 0; n < emulated_tiles.shapes.row_bytes[b] / 4; n++) {
            float s, even = 0, odd = 0;
            memcpy(&s, emulated_tiles.tile[sum][m] + 4 * n, 4);
            for (int k = 0; k < emulated_tiles.shapes.rows[b]; k++) {
                uint16_t x[2], y[2];
                memcpy(x, emulated_tiles.tile[a][m] + 4 * k, 4);
                memcpy(y, emulated_tiles.tile[b][k] + 4 * n, 4);
                even = tile_fma(x[0], y[0], even);
                odd = tile_fma(x[1], y[1], odd);
            }
            s = tile_flush(tile_flush(s) + tile_flush(even + odd));
            memcpy(emulated_tiles.tile[sum][m] + 4 * n, &s, 4);
        }
}

#define TILES_BEGIN(shapes)        tiles_begin(shapes)
#define TILES_END()                tiles_end()
#define TILE_ZERO(n)               tile_zero(n)
#define TILE_LOAD(n, from, stride) tile_load(n, from, stride)
#define TILE_STORE(n, to, stride)  tile_store(n, to, stride)
#define TILE_DOT(sum, a, b)        tile_dot(sum, a, b)
#define TILE_DOT_BF16(sum, a, b)   tile_dot_bf16(sum, a, b)
