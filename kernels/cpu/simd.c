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

/* $BENCH_SIMD: one of the sets that this CPU and this build have, or nothing. */
static const qb_simd *asked(const char *name) {
    const qb_simd *best = qb_simd_best();
    if (!strcmp(name, qb_simd_generic.name)) return &qb_simd_generic;
#if defined(__x86_64__)
    if (!strcmp(name, qb_simd_avx2.name) && best != &qb_simd_generic) return &qb_simd_avx2;
    if (!strcmp(name, qb_simd_avx512.name) && best == &qb_simd_avx512) return &qb_simd_avx512;
#endif
    return !*name ? best : NULL;
}

const qb_simd *qb_simd_chosen(void) {
    const char *name = getenv("BENCH_SIMD");
    const qb_simd *found = name ? asked(name) : NULL;
    return found ? found : qb_simd_best();
}

qb_status qb_simd_check(void) {
    const char *name = getenv("BENCH_SIMD");
    if (!name || asked(name)) return QB_OK;
    return qb_fail(QB_ERR_USAGE,
                   "BENCH_SIMD=%.40s is none of generic, avx2, avx512 that this CPU has (at most %s)", name,
                   qb_simd_best()->name);
}

const char *qb_cpu_simd(void) {
    return qb_simd_chosen()->name;
}
