/* One table of inner loops for each instruction set, chosen at run time. The loops are written once, in *.inc
   files over the 16-lane vectors of kernels/cpu/lanes.h, and compiled by simd_generic.c, simd_avx2.c and
   simd_avx512.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef struct qb_simd {
    const char *name; /* "generic", "avx2", "avx512" */

    /* n elements; any alignment. */
    void (*f32_of_f16)(const void *in, int64_t n, float *out);
    void (*f32_of_bf16)(const void *in, int64_t n, float *out);
    void (*f16_of_f32)(const float *in, int64_t n, void *out);
    void (*bf16_of_f32)(const float *in, int64_t n, void *out);
} qb_simd;

extern const qb_simd qb_simd_generic;
#if defined(__x86_64__)
extern const qb_simd qb_simd_avx2, qb_simd_avx512;
#endif

/* The best table of this CPU; found once. */
const qb_simd *qb_simd_best(void);
/* The best table at or below $BENCH_SIMD (read at each call; tests change it between devices). */
const qb_simd *qb_simd_chosen(void);
