#include "checkpoint/layouts/bitpack.h"

#include "base/vectors.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t low_bits(int n) {
    return (1ull << n) - 1;
}

/* squeeze8 and spread8 for widths of which two do not fit a byte: each half is cut out before it moves. */
INLINE uint64_t squeeze8_wide(uint64_t x, int b) {
    const uint64_t ones = low_bits(b) * 0x0001000100010001ull;
    const uint64_t pairs = low_bits(2 * b) * 0x0000000100000001ull;
    x = (x & ones) | (x >> 8 & ones) << b;
    x = (x & pairs) | (x >> 16 & pairs) << 2 * b;
    return (x & low_bits(4 * b)) | (x >> 32 & low_bits(4 * b)) << 4 * b;
}

INLINE uint64_t spread8_wide(uint64_t x, int b) {
    const uint64_t ones = low_bits(b) * 0x0001000100010001ull;
    const uint64_t pairs = low_bits(2 * b) * 0x0000000100000001ull;
    x = (x & low_bits(4 * b)) | (x >> 4 * b & low_bits(4 * b)) << 32;
    x = (x & pairs) | (x >> 2 * b & pairs) << 16;
    return (x & ones) | (x >> b & ones) << 8;
}

/* Eight bytes of b-bit codes to 8*b contiguous bits: neighbours are joined, then pairs, then fours. `b` is a
   constant after inlining, so each step is two operations. */
INLINE uint64_t squeeze8(uint64_t x, int b) {
    if (2 * b > 8 && b < 8) return squeeze8_wide(x, b);
    const uint64_t pairs = ((1ull << 2 * b) - 1) * 0x0001000100010001ull;
    const uint64_t fours = ((1ull << 4 * b) - 1) * 0x0000000100000001ull;
    x = (x | x >> (8 - b)) & pairs;
    x = (x | x >> (16 - 2 * b)) & fours;
    x = x | x >> (32 - 4 * b);
    return b == 8 ? x : x & ((1ull << (8 * b & 63)) - 1);
}

INLINE uint64_t spread8(uint64_t x, int b) {
    if (2 * b > 8 && b < 8) return spread8_wide(x, b);
    const uint64_t ones = ((1ull << b) - 1) * 0x0101010101010101ull;
    const uint64_t pairs = ((1ull << 2 * b) - 1) * 0x0001000100010001ull;
    const uint64_t fours = ((1ull << 4 * b) - 1) * 0x0000000100000001ull;
    x = (x | x << (32 - 4 * b)) & fours;
    x = (x | x << (16 - 2 * b)) & pairs;
    return (x | x << (8 - b)) & ones;
}

/* 32 codes and b words. */
INLINE void pack32(const uint8_t *codes, int b, uint32_t *words) {
    uint64_t held = 0;
    int n_held = 0;
    for (int i = 0; i < 4; i++) {
        uint64_t x;
        memcpy(&x, codes + 8 * i, 8);
        held |= squeeze8(x, b) << n_held;
        for (n_held += 8 * b; n_held >= 32; n_held -= 32) {
            *words++ = (uint32_t)held;
            held >>= 32;
        }
    }
}

INLINE void unpack32(const uint32_t *words, int b, uint8_t *codes) {
    if (b == 8) {
        memcpy(codes, words, 32);
        return;
    }
    const uint64_t mask = (1ull << (8 * b & 63)) - 1;
    uint64_t held = 0;
    int n_held = 0;
    for (int i = 0; i < 4; i++) {
        for (; n_held < 8 * b; n_held += 32) held |= (uint64_t)*words++ << n_held;
        uint64_t x = spread8(held & mask, b);
        memcpy(codes + 8 * i, &x, 8);
        held >>= 8 * b & 63;
        n_held -= 8 * b;
    }
}

/* ---- the same, sixteen codes at a time ---- */

INLINE void pack32_4(const uint8_t *codes, uint8_t *bytes) {
    const qb_u16x8 a = (qb_u16x8)qb_u8x16_at(codes), b = (qb_u16x8)qb_u8x16_at(codes + 16);
    qb_u8x16_put(qb_narrow_16((a | a >> 4) & 0xff, (b | b >> 4) & 0xff), bytes);
}

/* How many of n codes were packed, a multiple of 32. */
INLINE int64_t pack_many(const uint8_t *codes, int64_t n, int b, uint32_t *words) {
    int64_t i = 0;
    if (b == 4)
        for (; i + 32 <= n; i += 32) pack32_4(codes + i, (uint8_t *)words + i / 2);
    return i;
}

INLINE void pack_any(const uint8_t *codes, int64_t n, int b, uint32_t *words) {
    int64_t i = pack_many(codes, n, b, words);
    words += i / 32 * b;
    for (; i + 32 <= n; i += 32, words += b) pack32(codes + i, b, words);
    if (i == n) return;
    uint8_t tail[32] = {0};
    uint32_t tail_words[8];
    memcpy(tail, codes + i, (size_t)(n - i));
    pack32(tail, b, tail_words);
    memcpy(words, tail_words, (size_t)(((n - i) * b + 31) / 32) * 4);
}

INLINE void unpack64_2(const uint8_t *bytes, uint8_t *codes) {
    const qb_u8x16 x = qb_u8x16_at(bytes);
    const qb_u8x16 a = qb_cut_u8(x, 0, 3), b = qb_cut_u8(x, 2, 3), c = qb_cut_u8(x, 4, 3),
                   d = qb_cut_u8(x, 6, 3);
    const qb_u16x8 ab[2] = {(qb_u16x8)qb_zip_low_8(a, b), (qb_u16x8)qb_zip_high_8(a, b)};
    const qb_u16x8 cd[2] = {(qb_u16x8)qb_zip_low_8(c, d), (qb_u16x8)qb_zip_high_8(c, d)};
    for (int i = 0; i < 2; i++) {
        qb_u8x16_put((qb_u8x16)qb_zip_low_16(ab[i], cd[i]), codes + 32 * i);
        qb_u8x16_put((qb_u8x16)qb_zip_high_16(ab[i], cd[i]), codes + 32 * i + 16);
    }
}

INLINE void unpack32_4(const uint8_t *bytes, uint8_t *codes) {
    const qb_u8x16 x = qb_u8x16_at(bytes), even = qb_cut_u8(x, 0, 15), odd = qb_cut_u8(x, 4, 15);
    qb_u8x16_put(qb_zip_low_8(even, odd), codes);
    qb_u8x16_put(qb_zip_high_8(even, odd), codes + 16);
}

/* Reads eleven bytes. */
INLINE void unpack16_3(const uint8_t *bytes, uint8_t *codes) {
    uint64_t a, b;
    memcpy(&a, bytes, 8);
    memcpy(&b, bytes + 3, 8);
    qb_u64x2 x = {a, b};
    x = ((x & 0xffffff) | x << 20) & 0x00000fff00000fff;
    x = (x | x << 10) & 0x003f003f003f003f;
    x = (x | x << 5) & 0x0707070707070707;
    qb_u8x16_put((qb_u8x16)x, codes);
}

/* How many of n codes were unpacked, a multiple of 32. */
INLINE int64_t unpack_many(const uint32_t *words, int64_t n, int b, uint8_t *codes) {
    const uint8_t *bytes = (const uint8_t *)words;
    int64_t i = 0;
    if (b == 2)
        for (; i + 64 <= n; i += 64) unpack64_2(bytes + i / 4, codes + i);
    if (b == 3)
        for (; i + 64 <= n; i += 32) {
            unpack16_3(bytes + i / 8 * 3, codes + i);
            unpack16_3(bytes + i / 8 * 3 + 6, codes + i + 16);
        }
    if (b == 4)
        for (; i + 32 <= n; i += 32) unpack32_4(bytes + i / 2, codes + i);
    return i;
}

INLINE void unpack_any(const uint32_t *words, int64_t n, int b, uint8_t *codes) {
    int64_t i = unpack_many(words, n, b, codes);
    words += i / 32 * b;
    for (; i + 32 <= n; i += 32, words += b) unpack32(words, b, codes + i);
    if (i == n) return;
    uint8_t tail[32];
    uint32_t tail_words[8] = {0};
    memcpy(tail_words, words, (size_t)(((n - i) * b + 31) / 32) * 4);
    unpack32(tail_words, b, tail);
    memcpy(codes + i, tail, (size_t)(n - i));
}

/* Each width has code of its own. */
#define WIDTHS(X) X(2) X(3) X(4) X(5) X(6) X(8)

bool qb_bits_fit(const uint8_t *codes, int64_t n, int bits) {
    unsigned any = 0;
    for (int64_t i = 0; i < n; i++) any |= codes[i];
    return any >> bits == 0;
}

void qb_bits_pack(const uint8_t *codes, int64_t n, int bits, uint32_t *words) {
    switch (bits) {
#define PACK(b)                                                                                              \
    case b:                                                                                                  \
        pack_any(codes, n, b, words);                                                                        \
        break;
        WIDTHS(PACK)
    default:
        assert(0 && "a width that is not packed");
    }
}

void qb_bits_unpack(const uint32_t *words, int64_t n, int bits, uint8_t *codes) {
    switch (bits) {
#define UNPACK(b)                                                                                            \
    case b:                                                                                                  \
        unpack_any(words, n, b, codes);                                                                      \
        break;
        WIDTHS(UNPACK)
    default:
        assert(0 && "a width that is not packed");
    }
}

/* Tiles of 32 rows and 256 columns: read and written in runs of whole cache lines, and at most 8 KiB between.
 */
enum { TILE_ROWS = 64, TILE_COLS = 256, TILE_WORDS = TILE_COLS / 32 * 8 };

/* out[c, r] = in[r, c] of 4 x 4 words. */
INLINE void turn_4x4(const uint32_t *in, int64_t in_stride, uint32_t *out, int64_t out_stride) {
    qb_u32x4 rows[4];
    for (int i = 0; i < 4; i++) rows[i] = (qb_u32x4)qb_u8x16_at(in + i * in_stride);
    qb_turn_4x4(rows);
    for (int i = 0; i < 4; i++) qb_u8x16_put((qb_u8x16)rows[i], out + i * out_stride);
}

/* Rows of a file's matrix lie pages apart, where no machine looks ahead by itself. */
enum { AHEAD = 8 };

/* out[c, r] = in[r, c]. */
static void turn(const uint32_t *in, int64_t in_stride, int64_t rows, int64_t cols, uint32_t *out,
                 int64_t out_stride) {
    const int64_t whole_rows = rows / 4 * 4, whole_cols = cols / 4 * 4;
    for (int64_t r = 0; r < whole_rows; r += 4) {
        for (int64_t i = r + AHEAD; i < r + AHEAD + 4 && i < rows; i++)
            for (int64_t c = 0; c < cols; c += 16) __builtin_prefetch(in + i * in_stride + c);
        for (int64_t c = 0; c < whole_cols; c += 4)
            turn_4x4(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = r < whole_rows ? whole_cols : 0; c < cols; c++)
            out[c * out_stride + r] = in[r * in_stride + c];
}

typedef struct {
    const uint8_t *codes; /* [rows, cols] */
    int64_t rows, cols;
    int bits;
    uint32_t *words;  /* [cols * bits / 32, rows] */
    _Atomic bool bad; /* a code does not fit */
} transposition;

static void pack_columns(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    transposition *run = ctx;
    const uint8_t *codes = run->codes;
    int64_t rows = run->rows, cols = run->cols;
    int bits = run->bits;
    uint32_t *words = run->words, tile[TILE_ROWS][TILE_WORDS];
    for (int64_t c = begin; c < end; c += TILE_COLS) {
        int64_t width = cols - c < TILE_COLS ? cols - c : TILE_COLS;
        int64_t n_words = width * bits / 32;
        for (int64_t r = 0; r < rows; r += TILE_ROWS) {
            int64_t height = rows - r < TILE_ROWS ? rows - r : TILE_ROWS;
            for (int64_t i = 0; i < height; i++) {
                const uint8_t *from = codes + (r + i) * cols + c;
                if (!qb_bits_fit(from, width, bits)) atomic_store(&run->bad, true);
                qb_bits_pack(from, width, bits, tile[i]);
            }
            turn(tile[0], TILE_WORDS, height, n_words, words + c * bits / 32 * rows + r, rows);
        }
    }
}

bool qb_bits_pack_transposed(qb_threads *threads, const uint8_t *codes, int64_t rows, int64_t cols, int bits,
                             uint32_t *words) {
    transposition run = {codes, rows, cols, bits, words, false};
    qb_parallel_for(threads, cols, TILE_COLS, pack_columns, &run);
    return !atomic_load(&run.bad);
}

void qb_bits_unpack_transposed(const uint32_t *words, int64_t rows, int64_t cols, int bits, int64_t first,
                               int64_t n, uint8_t *codes) {
    uint32_t tile[TILE_ROWS][TILE_WORDS] = {0}; /* clang's analyzer does not see that it is filled */
    for (int64_t c = 0; c < cols; c += TILE_COLS) {
        int64_t width = cols - c < TILE_COLS ? cols - c : TILE_COLS;
        int64_t n_words = width * bits / 32;
        for (int64_t r = 0; r < n; r += TILE_ROWS) {
            int64_t height = n - r < TILE_ROWS ? n - r : TILE_ROWS;
            turn(words + c * bits / 32 * rows + first + r, rows, n_words, height, tile[0], TILE_WORDS);
            for (int64_t i = 0; i < height; i++)
                qb_bits_unpack(tile[i], width, bits, codes + (r + i) * cols + c);
        }
    }
}
