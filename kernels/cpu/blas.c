#define _GNU_SOURCE
#include "kernels/cpu/cpu.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* What OpenBLAS' x86 cores use: 2 AVX-512, 1 AVX2 with FMA, 0 less. A core of another architecture is never
 * below. */
static int core_level(const char *core) {
    static const char *const avx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids"};
    static const char *const avx2[] = {"Haswell", "Zen", "Excavator"};
    for (size_t i = 0; i < sizeof avx512 / sizeof *avx512; i++)
        if (strcasecmp(core, avx512[i]) == 0) return 2;
    for (size_t i = 0; i < sizeof avx2 / sizeof *avx2; i++)
        if (strcasecmp(core, avx2[i]) == 0) return 1;
    return 0;
}

/* The core this CPU deserves, or NULL where it is not for us to say. */
static const char *core_wanted(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return "SKYLAKEX";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "HASWELL";
#endif
    return NULL;
}

const char *qb_blas_core(void) {
    return openblas_get_corename();
}

const char *qb_blas_better_core(void) {
    const char *wanted = core_wanted();
    return wanted && core_level(qb_blas_core()) < core_level(wanted) ? wanted : NULL;
}

void qb_blas_ensure_core(char **argv) {
    openblas_set_num_threads(
        1); /* all parallelism is ours: fixed tiles, the same bits for any thread count */
    const char *wanted = qb_blas_better_core();
    if (!wanted) return;
    if (!strstr(openblas_get_config(), "DYNAMIC_ARCH"))
        return; /* one core only: the variable would not be read */
    if (getenv("OPENBLAS_CORETYPE") || getenv("BENCH_BLAS_RESTARTED")) return;
    if (setenv("OPENBLAS_CORETYPE", wanted, 1) != 0 || setenv("BENCH_BLAS_RESTARTED", "1", 1) != 0) return;
    setenv("OPENBLAS_NUM_THREADS", "1", 0); /* spares the new process a pool of idle threads */
    execv("/proc/self/exe", argv);
    unsetenv("OPENBLAS_CORETYPE"); /* could not: go on with the slow core */
    unsetenv("BENCH_BLAS_RESTARTED");
}
