#include "kernels/cpu/simd.h"

#include "kernels/cpu/amx.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/integer.h"

#include <pthread.h>
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
static qb_simd amx;
static bool has_amx(void) {
    bool has = has_avx512() && qb_amx_has_bf16();
    if (has) qb_amx_bf16(&qb_simd_avx512, &amx);
    return has;
}
#endif

static bool always(void) {
    return true;
}

/* From the least to the best. */
static const struct {
    const qb_simd *set;
    bool (*is_there)(void);
} sets[] = {
    {&qb_simd_generic, always},
#if defined(__x86_64__)
    {&qb_simd_avx2, has_avx2},
    {&qb_simd_avx512, has_avx512},
    {&amx, has_amx},
#elif defined(__aarch64__)
    {&qb_simd_neon, always},
#endif
};
enum { SETS = sizeof sets / sizeof *sets };

/* Those that are there, asked for once: cpuid costs microseconds in a virtual machine. */
static const qb_simd *there[SETS + 1];
static void find_sets(void) {
    int n = 0;
    for (int i = 0; i < SETS; i++)
        if (sets[i].is_there()) there[n++] = sets[i].set;
}

const qb_simd *qb_simd_at(int index) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_sets);
    return there[index];
}

const qb_simd *qb_simd_best(void) {
    const qb_simd *best = NULL, *next;
    for (int i = 0; (next = qb_simd_at(i)); i++) best = next;
    return best;
}

/* $BENCH_SIMD: one of the sets that this CPU and this build have, of loops or of products in whole numbers
   (which say what loops they go with), or nothing. */
static const qb_simd *asked(const char *name) {
    const qb_simd *set;
    for (int i = 0; (set = qb_simd_at(i)); i++)
        if (!strcmp(name, set->name)) return set;
    return !*name ? qb_simd_best() : qb_integer_simd(name);
}

const qb_simd *qb_simd_chosen(void) {
    const char *name = getenv("BENCH_SIMD");
    const qb_simd *found = name ? asked(name) : NULL;
    return found ? found : qb_simd_best();
}

qb_status qb_simd_check(void) {
    const char *name = getenv("BENCH_SIMD");
    char names[128] = "";
    const qb_simd *set;
    const qb_integer *whole;
    if (!name || asked(name)) return QB_OK;
    for (int i = 0; (set = qb_simd_at(i)); i++) {
        if (i) strcat(names, ", ");
        strcat(names, set->name);
    }
    for (int i = 0; (whole = qb_integer_at(i)); i++)
        if (!strstr(names, whole->name)) strcat(strcat(names, ", "), whole->name);
    return qb_fail(QB_ERR_USAGE,
                   "BENCH_SIMD=%.40s is no instruction set that this processor and build have (%s)", name,
                   names);
}

const char *qb_cpu_simd(void) {
    return qb_simd_chosen()->name;
}
