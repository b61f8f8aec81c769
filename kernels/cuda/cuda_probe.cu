/* Devices and their copy rate. The kernel copies 16 bytes a thread and step, which is what a GEMV's loads
 * look like. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

#include <cstdio>
#include <cuda_runtime.h>

namespace {

int fail(cudaError_t error, char *why, size_t why_bytes) {
    snprintf(why, why_bytes, "%s", cudaGetErrorString(error));
    cudaGetLastError(); /* the next call shall not report it again */
    return 1;
}

__global__ void copy_kernel(const int4 *__restrict__ from, int4 *__restrict__ to, int64_t n) {
    int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        to[i] = from[i];
}

struct copy_buffers {
    int4 *from = nullptr, *to = nullptr;
    cudaEvent_t start = nullptr, stop = nullptr;
    ~copy_buffers() {
        if (start) cudaEventDestroy(start);
        if (stop) cudaEventDestroy(stop);
        cudaFree(from);
        cudaFree(to);
    }
};

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

extern "C" int qb_cuda_copy_rate(int device, int64_t bytes, double *bytes_per_s, char *why,
                                 size_t why_bytes) {
    copy_buffers b;
    int64_t n = bytes / static_cast<int64_t>(sizeof(int4));
    size_t size = static_cast<size_t>(n) * sizeof(int4);
    cudaDeviceProp p;
    cudaError_t error = cudaSetDevice(device);
    if (error == cudaSuccess) error = cudaGetDeviceProperties(&p, device);
    if (error == cudaSuccess) error = cudaMalloc(&b.from, size);
    if (error == cudaSuccess) error = cudaMalloc(&b.to, size);
    if (error == cudaSuccess) error = cudaMemset(b.from, 0x5a, size);
    if (error == cudaSuccess) error = cudaEventCreate(&b.start);
    if (error == cudaSuccess) error = cudaEventCreate(&b.stop);
    float best_ms = 0;
    for (int round = 0; error == cudaSuccess && round < 12; round++) {
        cudaEventRecord(b.start);
        error =
            qb_launch(copy_kernel, dim3(p.multiProcessorCount * 16), dim3(512), 0, nullptr, b.from, b.to, n);
        cudaEventRecord(b.stop);
        if (error == cudaSuccess) error = cudaEventSynchronize(b.stop);
        if (error == cudaSuccess) error = cudaGetLastError();
        float ms = 0;
        if (error == cudaSuccess) error = cudaEventElapsedTime(&ms, b.start, b.stop);
        if (round >= 2 && (best_ms == 0 || ms < best_ms)) best_ms = ms; /* two rounds warm up */
    }
    if (error != cudaSuccess) return fail(error, why, why_bytes);
    *bytes_per_s = 2.0 * static_cast<double>(size) / (static_cast<double>(best_ms) * 1e-3);
    return 0;
}
