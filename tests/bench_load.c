/* Measures the loading of quantized models on the CPU backend, from the system's cache to the packed form; a
   program, not a test.
   bench_load [-t THREADS] [-n ROUNDS] MODEL ...: of each the median and the best of ROUNDS (7) loads after
   one that fills the cache, and the checkpoint's bytes over the median and the threads (1), GB/s a core. */
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS_MOST = 1001, CONTEXT = 64 };

static void check(qb_status st) {
    if (st == QB_OK) return;
    fprintf(stderr, "bench_load: %s\n", *qb_error_text() ? qb_error_text() : qb_status_text(st));
    exit(1);
}

static int usage(void) {
    fprintf(stderr, "usage: bench_load [-t THREADS] [-n ROUNDS] MODEL ...\n");
    return 2;
}

static double load_once(const char *path, int threads, int64_t *bytes) {
    qb_device *dev;
    qb_model *m;
    check(qb_backend_find("cpu")->open(&(qb_device_options){.threads = threads}, &dev));
    check(qb_model_open(path, &m));
    check(qb_model_load(m, dev, CONTEXT, true));
    double seconds = m->load_seconds;
    *bytes = qb_checkpoint_tensor_bytes(m->checkpoint);
    qb_model_close(m);
    dev->backend->close(dev);
    return seconds;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *path, int threads, int rounds) {
    double seconds[ROUNDS_MOST];
    int64_t bytes;
    load_once(path, threads, &bytes);
    for (int i = 0; i < rounds; i++) seconds[i] = load_once(path, threads, &bytes);
    qsort(seconds, (size_t)rounds, sizeof *seconds, ascending);
    double median = seconds[rounds / 2];
    printf("%-40s  %8.1f MB  median %6.3f s  best %6.3f s  %5.2f GB/s a core\n", path, (double)bytes / 1e6,
           median, seconds[0], (double)bytes / median / threads / 1e9);
    fflush(stdout);
}

/* The number behind an option, 1 .. most; 0 where there is none. */
static int number_of(const char *text, int most) {
    char *end = NULL;
    long n = text ? strtol(text, &end, 10) : 0;
    return text && *text && !*end && n >= 1 && n <= most ? (int)n : 0;
}

int main(int argc, char **argv) {
    int threads = 1, rounds = 7, i = 1;
    qb_keep_heap();
    qb_blas_ensure_core(argv);
    for (; i < argc && argv[i][0] == '-'; i += 2) {
        int *to = !strcmp(argv[i], "-t") ? &threads : !strcmp(argv[i], "-n") ? &rounds : NULL;
        if (!to || !(*to = number_of(i + 1 < argc ? argv[i + 1] : NULL, ROUNDS_MOST))) return usage();
    }
    if (i >= argc) return usage();
    for (; i < argc; i++) measure(argv[i], threads, rounds);
    return 0;
}
