#define _GNU_SOURCE
#include "kernels/cpu/cpu.h"

#include "base/memory.h"
#include "kernels/cpu/device.h"
#include "kernels/cpu/tuning.h"

#include <cblas.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

/* OpenBLAS maps a buffer of this size for each thread that is in it, some versions the first one while they
 * are loaded. */
enum { BUFFER_BYTES = (128 << 20) + (256 << 10) };

/* ---- one thread from its first moment ---- */

/* OpenBLAS starts a pool of threads and takes a buffer for each when it is loaded, before main: under a limit
 * of processes or of address space that fails, or is tried again for ever. It is told by its environment,
 * which the program therefore shows it: functions of .preinit_array run before those of the libraries, and
 * constructors of the program after them. One entry of the environment gives its place meanwhile. (ASan's own
 * start comes first.) */
#if defined(__linux__) && !defined(QB_SANITIZED)
static char one_thread[] = "OPENBLAS_NUM_THREADS=1";
static char **lent_place, *lent_entry;

static bool starts_with(const char *text, const char *head) {
    while (*head && *text == *head) text++, head++;
    return !*head;
}

/* Said here, because the library would ask again for ever before main. */
static void need_first_buffer(void) {
    static const char line[] =
        "bench: no room in memory for OpenBLAS: it needs 128 MiB of address space to start; "
        "raise the limit (ulimit -v)\n";
    void *buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) {
        (void)!write(STDERR_FILENO, line, sizeof line - 1);
        _exit(1);
    }
    munmap(buffer, BUFFER_BYTES);
}

static void lend_entry(int argc, char **argv, char **environment) {
    (void)argc;
    (void)argv;
    need_first_buffer();
    for (char **e = environment; *e; e++) {
        if (starts_with(*e, "OPENBLAS_NUM_THREADS=")) {
            lent_place = e;
            break;
        }
        /* None of those that libraries may read when they are loaded. */
        if (!starts_with(*e, "OPENBLAS_") && !starts_with(*e, "LD_") && !starts_with(*e, "QB_"))
            lent_place = e;
    }
    if (!lent_place) return;
    lent_entry = *lent_place;
    *lent_place = one_thread;
}
__attribute__((section(".preinit_array"), used)) static void (*const lend)(int, char **,
                                                                           char **) = lend_entry;

__attribute__((constructor)) static void give_back_entry(void) {
    if (lent_place && *lent_place == one_thread) *lent_place = lent_entry;
}
#endif

/* Its own names for a thread's buffer. A library without them takes its buffers later, when it needs them. */
extern void *blas_memory_alloc(int position) __attribute__((weak));
extern void blas_memory_free(void *buffer) __attribute__((weak));

static int room_for(void **buffers, int n) {
    int found = 0;
    for (; found < n; found++) {
        buffers[found] = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (buffers[found] == MAP_FAILED) break;
    }
    for (int i = 0; i < found; i++) munmap(buffers[i], BUFFER_BYTES);
    return found;
}

qb_status qb_blas_take_buffers(int threads) {
    static int taken; /* OpenBLAS keeps them */
    void **buffers;
    if (threads <= taken) return QB_OK;
    qb_status st = qb_alloc((size_t)threads, sizeof *buffers, &buffers);
    if (st != QB_OK) return st;
    int found = room_for(buffers, threads);
    if (found < threads) {
        st = qb_fail(
            QB_ERR_MEMORY,
            "no room in memory for OpenBLAS: %d threads need %d MiB of address space each, %d have it; "
            "raise the limit (ulimit -v) or use fewer --threads",
            threads, BUFFER_BYTES >> 20, found);
    } else if (blas_memory_alloc && blas_memory_free) {
        for (int i = 0; i < threads; i++) buffers[i] = blas_memory_alloc(1);
        for (int i = 0; i < threads; i++) blas_memory_free(buffers[i]);
        taken = threads;
    }
    qb_free(buffers);
    return st;
}

/* ---- its core ---- */

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

/* The core this CPU deserves by its instruction sets, or NULL where it is not for us to say. */
static const char *core_by_level(void) {
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
    const char *measured = qb_cpu_tuning_here()->blas_core, *level = core_by_level();
    if (measured) return strcasecmp(qb_blas_core(), measured) != 0 ? measured : NULL;
    return level && core_level(qb_blas_core()) < core_level(level) ? level : NULL;
}

void qb_blas_ensure_core(char **argv) {
    openblas_set_num_threads(
        1); /* all parallelism is ours: fixed tiles, the same bits for any thread count */
    const char *wanted = qb_blas_better_core();
    if (!wanted) return;
    if (!strstr(openblas_get_config(), "DYNAMIC_ARCH"))
        return; /* one core only: the variable would not be read */
    if (getenv("OPENBLAS_CORETYPE") || getenv("BENCH_BLAS_RESTARTED")) return;
    /* Going on with another core would give other last digits, and nobody would know why. */
    if (setenv("OPENBLAS_CORETYPE", wanted, 1) != 0 || setenv("BENCH_BLAS_RESTARTED", "1", 1) != 0) {
        fprintf(stderr, "bench: out of memory while OpenBLAS' core was chosen\n");
        exit(1);
    }
    setenv("OPENBLAS_NUM_THREADS", "1", 0); /* spares the new process a pool of idle threads */
    execv("/proc/self/exe", argv);
    fprintf(stderr,
            "bench: warning: OpenBLAS goes on with its core %s, for /proc/self/exe cannot be started: %s\n",
            qb_blas_core(), strerror(errno));
    unsetenv("OPENBLAS_CORETYPE");
    unsetenv("BENCH_BLAS_RESTARTED");
}
