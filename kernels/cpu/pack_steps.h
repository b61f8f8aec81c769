/* A row's codes, one a byte, moved together. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Without an end at each code, so that many are looked at together. */
static inline bool qb_codes_below(const uint8_t *codes, int64_t n, int limit) {
    uint8_t most = 0;
    for (int64_t i = 0; i < n; i++) most = codes[i] > most ? codes[i] : most;
    return most < limit;
}

static inline uint64_t qb_eight_codes(const uint8_t *code) {
    uint64_t x; /* the first code lowest: as every machine that this runs on has it */
    memcpy(&x, code, 8);
    return x;
}

/* What eight codes hold above `low` bits, `high` bits each, 8 / quads bytes: those of a byte come from
   `quads` neighbours, the first lowest. Bytes move together by pairs, until `quads` are one; then these do.
 */
static inline uint32_t qb_pack_high(const uint8_t *code, int low, int high, int quads) {
    uint64_t x = qb_eight_codes(code) >> low & (high == 1 ? 0x0101010101010101 : 0x0303030303030303);
    x = (x | x >> (8 - high)) & 0x00ff00ff00ff00ff;
    if (quads == 4) {
        x = (x | x >> (16 - 2 * high)) & 0x000000ff000000ff;
        return (uint32_t)((x | x >> 24) & 0xffff);
    }
    x = (x | x >> 8) & 0x0000ffff0000ffff;
    return (uint32_t)(x | x >> 16);
}

/* Eight codes of three bits, 24 together, by halves. */
static inline uint64_t qb_pack_eight_3(const uint8_t *code) {
    uint64_t x = qb_eight_codes(code);
    x = (x | x >> 5) & 0x003f003f003f003f;
    x = (x | x >> 10) & 0x00000fff00000fff;
    return (x | x >> 20) & 0xffffff;
}

/* A step of 32 codes of three bits of lane `lane`, into the three lines of the step (pack.h). Even lanes come
   first: they fill what they share with the next. */
static inline void qb_pack_step_3(const uint8_t *code, int lane, uint8_t *lines) {
    const int shift = lane % 2 * 24;
    uint64_t eight[4];
    for (int i = 0; i < 4; i++) eight[i] = qb_pack_eight_3(code + 8 * i) << shift;
    const uint64_t words[3] = {eight[0] | eight[3] >> 32 << 48,
                               eight[1] << 48 | eight[1] >> 16 | (eight[3] >> 16 & 0xffff) << 32,
                               eight[2] << 32 | eight[2] >> 32 | (eight[3] & 0xffff) << 16};
    for (int w = 0; w < 3; w++) {
        uint8_t *to = lines + 64 * w + 8 * (lane / 2);
        uint64_t other = 0;
        if (shift) memcpy(&other, to, 8);
        other |= words[w];
        memcpy(to, &other, 8);
    }
}

/* Eight codes of four bits, moved together by halves. */
static inline uint32_t qb_pack_step_4(const uint8_t *code) {
    uint64_t x = qb_eight_codes(code);
    x = (x | x >> 4) & 0x00ff00ff00ff00ff;
    x = (x | x >> 8) & 0x0000ffff0000ffff;
    return (uint32_t)(x | x >> 16);
}

/* Four rows' four bytes each, to four columns' four: what stands at byte i of words[l] goes to byte l of
   words[i]. */
static inline void qb_turn_4(uint32_t words[4]) {
    const uint32_t even = 0x00ff00ff, odd = 0xff00ff00, low = 0xffff;
    uint32_t a = (words[0] & even) | (words[1] & even) << 8, b = (words[0] & odd) >> 8 | (words[1] & odd);
    uint32_t c = (words[2] & even) | (words[3] & even) << 8, d = (words[2] & odd) >> 8 | (words[3] & odd);
    words[0] = (a & low) | c << 16, words[1] = (b & low) | d << 16;
    words[2] = a >> 16 | (c & ~low), words[3] = b >> 16 | (d & ~low);
}

static inline uint32_t qb_pack_half_step_2(const uint8_t *code) {
    uint64_t x = qb_eight_codes(code);
    x = (x | x >> 6) & 0x000f000f000f000f;
    x = (x | x >> 12) & 0x000000ff000000ff;
    return (uint32_t)(x | x >> 24) & 0xffff;
}
