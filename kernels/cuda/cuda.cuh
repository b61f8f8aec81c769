/* What every .cu of the backend includes: the device, launches, and errors as qb_status. */
#pragma once

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

#include <cublas_v2.h>
#include <cuda_runtime.h>

/* QB_OK, or the error's sentence: "OP: ...". Faults that end the context mark the device as lost. `op` is
   what the user would call it ("norm", "matmul int4"). */
qb_status qb_cuda_status(cuda_device *d, cudaError_t error, const char *op) QB_NODISCARD;
qb_status qb_cublas_status(cuda_device *d, cublasStatus_t status, const char *op) QB_NODISCARD;
/* A library's failure keeps its kind: the device is lost, memory is short (`no_memory`), or the library's own
 * words. */
qb_status qb_library_status(cuda_device *d, bool no_memory, const char *library, const char *op,
                            const char *words) QB_NODISCARD;

/* Ceiling of n / d as a grid's width. */
static inline unsigned qb_blocks(int64_t n, int64_t d) {
    return static_cast<unsigned>((n + d - 1) / d);
}

namespace qb {

/* Sum (or largest) of one value a thread over a block of up to 1024 threads, the same on every run: a tree in
   the warp, then over the warps. `slots` is shared memory for 32 values; every thread of the block calls,
   every thread gets the result. The block's size is a multiple of 32. */
template <typename T> __device__ __forceinline__ T warp_sum(T v) {
    for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}
template <typename T> __device__ __forceinline__ T warp_max(T v) {
    for (int step = 16; step > 0; step >>= 1) {
        T other = __shfl_xor_sync(0xffffffffu, v, step);
        v = other > v ? other : v;
    }
    return v;
}
template <typename T> __device__ __forceinline__ T block_sum(T v, T *slots) {
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    v = warp_sum(v);
    __syncthreads(); /* who still reads the slots of an earlier call is done */
    if (lane == 0) slots[warp] = v;
    __syncthreads();
    return warp_sum(lane < warps ? slots[lane] : T(0));
}
template <typename T> __device__ __forceinline__ T block_max(T v, T *slots) {
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    v = warp_max(v);
    __syncthreads();
    if (lane == 0) slots[warp] = v;
    __syncthreads();
    return warp_max(slots[lane < warps ? lane : 0]);
}

} // namespace qb
