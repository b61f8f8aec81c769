/* The devices that CUDA sees. */
#include "kernels/cuda/cuda_probe.h"

#include <cstdio>
#include <cuda_runtime.h>

namespace {

int fail(cudaError_t error, char *why, size_t why_bytes) {
    snprintf(why, why_bytes, "%s", cudaGetErrorString(error));
    cudaGetLastError(); /* the next call shall not report it again */
    return 1;
}

} // namespace

extern "C" int qb_cuda_count(char *why, size_t why_bytes) {
    int n = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess) {
        /* Without a driver the runtime complains of the driver's version, which then is 0. */
        int driver = 0;
        if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess &&
            driver == 0)
            snprintf(why, why_bytes, "no NVIDIA driver on this machine");
        else
            fail(error, why, why_bytes);
        return 0;
    }
    if (n == 0) snprintf(why, why_bytes, "the driver lists no device");
    return n;
}

extern "C" int qb_cuda_describe(int device, qb_cuda_info *out, char *why, size_t why_bytes) {
    cudaDeviceProp p;
    cudaError_t error = cudaGetDeviceProperties(&p, device);
    if (error != cudaSuccess) return fail(error, why, why_bytes);
    snprintf(out->name, sizeof out->name, "%.*s", static_cast<int>(sizeof out->name) - 1, p.name);
    out->compute_major = p.major;
    out->compute_minor = p.minor;
    out->multiprocessors = p.multiProcessorCount;
    size_t free_bytes = 0, total = 0;
    error = cudaSetDevice(device);
    if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &total);
    if (error != cudaSuccess) return fail(error, why, why_bytes);
    out->memory_bytes = static_cast<int64_t>(total);
    out->free_bytes = static_cast<int64_t>(free_bytes);
    return 0;
}
