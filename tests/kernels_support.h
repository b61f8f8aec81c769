/* Shared by the tests of kernels/: repeatable noise, and
   devices of every instruction set that this CPU has. */
#pragma once

#include "tests/support.h"

#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

#include <math.h>

static uint32_t noise_state = 1;
static inline uint32_t noise_u32(void) {
    return noise_state = noise_state * 1664525u + 1013904223u;
}
static inline float noise(void) {
    return (float)(int32_t)noise_u32() * 0x1p-31f;
} /* [-1, 1) */
static inline float *noise_new(int64_t n) {
    float *x;
    assert_ok(qb_alloc((size_t)(n ? n : 1), sizeof *x, &x));
    for (int64_t i = 0; i < n; i++) x[i] = noise();
    return x;
}

/* The instruction sets that this CPU has: every one is tested; NULL behind the last. */
static inline const char *simd_name(int index) {
    const qb_simd *set = qb_simd_at(index);
    return set ? set->name : NULL;
}

static inline qb_device *device_open(const char *simd, int threads) {
    qb_device *dev;
    if (simd) setenv("BENCH_SIMD", simd, 1);
    assert_ok(qb_backend_cpu.open(&(qb_device_options){.threads = threads}, &dev));
    unsetenv("BENCH_SIMD");
    return dev;
}

static inline void assert_no_memory(qb_device *dev) {
    qb_memory m;
    qb_backend_cpu.memory(dev, &m);
    assert_int_equal(m.now_bytes[QB_MEMORY_WEIGHTS], 0);
    assert_int_equal(m.now_bytes[QB_MEMORY_KV], 0);
    assert_int_equal(m.now_bytes[QB_MEMORY_ACTIVATIONS], 0);
}
