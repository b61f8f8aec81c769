/* UTF-8 as the Unicode standard defines it (table 3-7): no overlong forms, no surrogates, nothing above
 * U+10FFFF. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the well-formed character at p (1..4), or 0 when none starts there. n > 0 bytes may be read. */
static inline size_t qb_utf8_length(const uint8_t *p, size_t n) {
    uint8_t c = p[0];
    if (c < 0x80) return 1;
    if (c < 0xC2 || c > 0xF4) return 0;
    size_t length = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (n < length) return 0;
    uint8_t low = c == 0xE0   ? 0xA0
                  : c == 0xF0 ? 0x90
                              : 0x80,
            high = c == 0xED   ? 0x9F
                   : c == 0xF4 ? 0x8F
                               : 0xBF;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return length;
}

/* One character's bytes as a number: distinct for distinct characters. length <= 4. */
static inline uint32_t qb_utf8_pack(const uint8_t *p, size_t length) {
    uint32_t packed = 0;
    memcpy(&packed, p, length);
    return packed;
}
