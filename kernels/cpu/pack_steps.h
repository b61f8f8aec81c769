/* A row's codes, one a byte, moved together. */
#pragma once

#include <stdint.h>

static inline uint64_t qb_eight_codes(const uint8_t *code) {
    uint64_t x = 0;
    for (int i = 0; i < 8; i++) x |= (uint64_t)code[i] << (8 * i); /* one load where bytes lie so already */
    return x;
}

/* Eight codes of four bits, moved together by halves. */
static inline uint32_t qb_pack_step_4(const uint8_t *code) {
    uint64_t x = qb_eight_codes(code);
    x = (x | x >> 4) & 0x00ff00ff00ff00ff;
    x = (x | x >> 8) & 0x0000ffff0000ffff;
    return (uint32_t)(x | x >> 16);
}

static inline uint32_t qb_pack_half_step_2(const uint8_t *code) {
    uint64_t x = qb_eight_codes(code);
    x = (x | x >> 6) & 0x000f000f000f000f;
    x = (x | x >> 12) & 0x000000ff000000ff;
    return (uint32_t)(x | x >> 24) & 0xffff;
}
