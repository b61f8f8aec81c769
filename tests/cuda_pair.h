/* A CPU device and a CUDA device side by side, for tests that compare them. */
#pragma once

#include "tests/cuda_support.h"

static qb_device *on_cpu, *on_cuda;

static inline int pair_open(void **state) {
    (void)state;
    assert_ok(qb_backend_cpu.open(&(qb_device_options){.threads = 2}, &on_cpu));
    on_cuda = cuda_open_device();
    return 0;
}
static inline int pair_close(void **state) {
    (void)state;
    cuda_close_device(on_cuda);
    on_cpu->backend->close(on_cpu);
    return 0;
}

/* ||a - b|| / ||b|| */
static inline double relative_error(const float *a, const float *b, int64_t n) {
    double off = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(off / size);
}

/* What follows runs its blocks and threads in another order, where there is a shim to say so. */
static inline void other_order(uint64_t seed) {
#ifdef QB_SHIM
    qb_shim_set_seed(seed);
#else
    (void)seed;
#endif
}
