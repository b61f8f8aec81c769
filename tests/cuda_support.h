/* Shared by the tests of kernels/cuda/: the device they run on (the shim's or a real one) beside the cpu, and
   arrays that lie on both. */
#pragma once

#include "tests/kernels_support.h"

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_probe.h"
#ifdef QB_SHIM
#include "tests/shim/shim.h"
#endif

static const qb_backend *const cuda = &qb_backend_cuda;

/* Runs the tests, or leaves with 77 where there is no device; on the shim there always is. */
static inline int cuda_run(int (*run)(void)) {
    char why[256] = "";
    if (qb_cuda_count(why, sizeof why) > 0) return run();
    printf("skipped: no CUDA device: %s\n", why);
    return 77;
}

static inline qb_device *cuda_open_device(void) {
    qb_device *dev;
    assert_ok(cuda->open(&(qb_device_options){.threads = 2}, &dev));
    return dev;
}

/* Closes it and checks that whoever used it gave all its memory back. */
static inline void cuda_close_device(qb_device *dev) {
    qb_memory m;
    cuda->memory(dev, &m);
    assert_int_equal(m.now_bytes[QB_MEMORY_WEIGHTS], 0);
    assert_int_equal(m.now_bytes[QB_MEMORY_KV], 0);
    assert_int_equal(m.now_bytes[QB_MEMORY_ACTIVATIONS], 0);
    cuda->close(dev);
#ifdef QB_SHIM
    assert_int_equal(qb_shim_allocations(), 0);
#endif
}

/* A copy of `bytes` of host memory on the device; an activation by kind. */
static inline void *cuda_put(qb_device *dev, const void *host, int64_t bytes) {
    void *p;
    assert_ok(cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, bytes, &p));
    assert_ok(cuda->upload(dev, p, host, bytes));
    return p;
}
static inline float *cuda_put_floats(qb_device *dev, const float *host, int64_t n) {
    return cuda_put(dev, host, n * (int64_t)sizeof *host);
}
/* A host copy of n floats of the device; free with qb_free. */
static inline float *cuda_get_floats(qb_device *dev, const float *p, int64_t n) {
    float *host;
    assert_ok(qb_alloc((size_t)(n ? n : 1), sizeof *host, &host));
    assert_ok(cuda->download(dev, host, p, n * (int64_t)sizeof *host));
    return host;
}

/* Every element of the device's array is within absolute +
   relative * |want| of the host's; NaN agrees with NaN. */
static inline void assert_cuda_floats(qb_device *dev, const float *got_dev, const float *want, int64_t n,
                                      double absolute, double relative_part, const char *what) {
    float *got = cuda_get_floats(dev, got_dev, n);
    for (int64_t i = 0; i < n; i++) {
        double g = (double)got[i], w = (double)want[i];
        if (isnan(g) && isnan(w)) continue;
        if (!(fabs(g - w) <= absolute + relative_part * fabs(w)) && g != w)
            fail_msg("%s: element %lld is %.9g, not %.9g", what, (long long)i, g, w);
    }
    qb_free(got);
}

/* On the shim runs the body for in-order execution and for a few random orders; on a device once. */
#ifdef QB_SHIM
#define FOR_EACH_ORDER(seed) for (uint64_t seed = 0; seed < 3 && (qb_shim_set_seed(seed), true); seed++)
#else
#define FOR_EACH_ORDER(seed) for (uint64_t seed = 0; seed < 1; seed++)
#endif
