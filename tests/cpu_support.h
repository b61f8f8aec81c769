/* Shared by the tests of the cpu backend. */
#pragma once

#include "tests/kernels_support.h"

static const qb_backend *const cpu = &qb_backend_cpu;

/* Runs body for each instruction set with 1, 2 and 3 threads; `dev` is open. */
#define FOR_EACH_DEVICE(dev)                                                                                 \
    for (int device_i = 0; simd_name(device_i / 3); device_i++)                                              \
        for (qb_device *dev = device_open(simd_name(device_i / 3), device_i % 3 + 1); dev;                   \
             cpu->close(dev), dev = NULL)
