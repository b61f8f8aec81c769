/* Sixteen bytes at a time, as every machine that this runs on has them, for moves of small codes. Bytes lie
   lowest first. */
#pragma once

#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef uint8_t qb_u8x16 __attribute__((vector_size(16)));
typedef uint16_t qb_u16x8 __attribute__((vector_size(16)));
typedef uint32_t qb_u32x4 __attribute__((vector_size(16)));
typedef uint64_t qb_u64x2 __attribute__((vector_size(16)));

static inline qb_u8x16 qb_u8x16_at(const void *p) {
    qb_u8x16 x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void qb_u8x16_put(qb_u8x16 x, void *p) {
    memcpy(p, &x, sizeof x);
}

/* Of each byte the bits of `mask` from bit `from` on. */
static inline qb_u8x16 qb_cut_u8(qb_u8x16 x, int from, uint8_t mask) {
    return (qb_u8x16)((qb_u16x8)x >> from) & mask;
}

/* Elements of a and b by turns: of their first halves, of their second ones. */
static inline qb_u8x16 qb_zip_low_8(qb_u8x16 a, qb_u8x16 b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
static inline qb_u8x16 qb_zip_high_8(qb_u8x16 a, qb_u8x16 b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
static inline qb_u16x8 qb_zip_low_16(qb_u16x8 a, qb_u16x8 b) {
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
static inline qb_u16x8 qb_zip_high_16(qb_u16x8 a, qb_u16x8 b) {
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

/* a's elements, then b's, in half the bits: below 256, and below 32768. */
static inline qb_u8x16 qb_narrow_16(qb_u16x8 a, qb_u16x8 b) {
#ifdef __SSE2__
    return (qb_u8x16)_mm_packus_epi16((__m128i)a, (__m128i)b);
#else
    return __builtin_shufflevector((qb_u8x16)a, (qb_u8x16)b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24,
                                   26, 28, 30);
#endif
}
static inline qb_u16x8 qb_narrow_32(qb_u32x4 a, qb_u32x4 b) {
#ifdef __SSE2__
    return (qb_u16x8)_mm_packs_epi32((__m128i)a, (__m128i)b);
#else
    return __builtin_shufflevector((qb_u16x8)a, (qb_u16x8)b, 0, 2, 4, 6, 8, 10, 12, 14);
#endif
}

/* How many of n bytes are `value`. */
static inline int64_t qb_count_u8(const uint8_t *bytes, int64_t n, uint8_t value) {
    enum { ROUNDS = 255 }; /* as many as a byte counts */
    int64_t found = 0, i = 0;
    while (i + 16 <= n) {
        qb_u8x16 count = {0};
        for (int round = 0; round < ROUNDS && i + 16 <= n; round++, i += 16)
            count -= (qb_u8x16)(qb_u8x16_at(bytes + i) == value);
        for (int k = 0; k < 16; k++) found += count[k];
    }
    for (; i < n; i++) found += bytes[i] == value;
    return found;
}

/* Row r's element c becomes row c's element r. */
static inline void qb_turn_4x4(qb_u32x4 rows[4]) {
    const qb_u32x4 a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
    const qb_u32x4 b = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
    const qb_u32x4 c = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
    const qb_u32x4 d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
    rows[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5), rows[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    rows[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5), rows[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}
