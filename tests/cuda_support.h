/* Shared by the tests of kernels/cuda/: which device they run on, the shim's or a real one. */
#pragma once

#include "tests/kernels_support.h"

#include "kernels/cuda/cuda_ops.h"
#ifdef QB_SHIM
#include "tests/shim/shim.h"
#endif

/* Runs the tests, or leaves with 77 where there is no device; on the shim there always is. */
static inline int cuda_run(int (*run)(void)) {
    char why[256] = "";
    if (qb_cuda_count(why, sizeof why) > 0) return run();
    printf("skipped: no CUDA device: %s\n", why);
    return 77;
}
