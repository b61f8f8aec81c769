/* AMX's tiles: eight registers of up to 16 rows of 64 bytes, whose shapes a thread loads before it uses them
   and releases after (Intel's SDM, LDTILECFG, TILELOADD, TDPBSUD, TDPBF16PS). As statements of assembler: GCC
   12's intrinsics do not say what memory they read. Registers are written as numbers 0 to 7.
   tests/tiles_emulated.h has the same in plain C. */
#pragma once

#include <stdint.h>

/* LDTILECFG's 64 bytes. */
typedef struct qb_tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16]; /* eight of them are in use */
    uint8_t rows[16];
} qb_tile_shapes;

#if !defined(TILES_EMULATED)
/* All tiles are zero then. */
#define TILES_BEGIN(shapes) __asm__ volatile("ldtilecfg %0" ::"m"(*(shapes)))
#define TILES_END()         __asm__ volatile("tilerelease" ::)
#define TILE_ZERO(n)        __asm__ volatile("tilezero %%tmm" #n ::)
/* Rows `stride` bytes apart. */
#define TILE_LOAD(n, from, stride)                                                                           \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #n ::"r"((const void *)(from)), "r"((int64_t)(stride))     \
                     : "memory")
#define TILE_STORE(n, to, stride)                                                                            \
    __asm__ volatile("tilestored %%tmm" #n ", (%0,%1,1)" ::"r"((void *)(to)), "r"((int64_t)(stride))         \
                     : "memory")
/* sum[m][n] += over k and four bytes: a[m][k] (signed) b[k][n] (unsigned), modulo 2^32. */
#define TILE_DOT(sum, a, b) __asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)
/* sum[m][n] += over k a[m][2 k] b[k][2 n], and over k a[m][2 k + 1] b[k][2 n + 1], of bfloat16 numbers: both
   sums of fused multiply-adds in float32 that begin with 0, then one of them, then that of sum. To nearest
   even; what is below 2^-126 counts as zero, before and after. */
#define TILE_DOT_BF16(sum, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)
#endif
