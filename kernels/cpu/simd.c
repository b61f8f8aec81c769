#include "kernels/cpu/simd.h"

#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* Not every compiler's __builtin_cpu_supports knows "f16c" (clang 14 does not). */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const qb_simd *qb_simd_best(void) {
#if defined(__x86_64__)
    if (has_avx512()) return &qb_simd_avx512;
    if (has_avx2()) return &qb_simd_avx2;
#endif
    return &qb_simd_generic;
}

const qb_simd *qb_simd_chosen(void) {
    const qb_simd *best = qb_simd_best();
#if defined(__x86_64__)
    const char *lower = getenv("BENCH_SIMD");
    if (lower && strcmp(lower, "generic") == 0) return &qb_simd_generic;
    if (lower && strcmp(lower, "avx2") == 0 && best == &qb_simd_avx512) return &qb_simd_avx2;
#endif
    return best;
}

const char *qb_cpu_simd(void) {
    return qb_simd_chosen()->name;
}
