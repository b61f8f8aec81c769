/* How kernels are launched: qb_launch(kernel, grid, block, shared_bytes, stream, arguments...). */
#pragma once

#include <cuda_runtime.h>
#include <utility>

/* Shared memory that a block has without asking, static and dynamic together. No kernel declares QUESTIONED
   bytes statically, so that less dynamic memory than the rest needs no look at the kernel. */
enum { QB_SHARED_BYTES_DEFAULT = 48 << 10, QB_SHARED_BYTES_QUESTIONED = 16 << 10 };

/* Allows `kernel` as much dynamic shared memory as it is launched with. Only ever more: a captured launch of
   the same kernel may still count on what it was allowed. */
template <typename... Parameters>
cudaError_t qb_allow_shared(void (*kernel)(Parameters...), size_t shared_bytes) {
    if (shared_bytes <= QB_SHARED_BYTES_DEFAULT - QB_SHARED_BYTES_QUESTIONED) return cudaSuccess;
    cudaFuncAttributes now = {};
    cudaError_t error = cudaFuncGetAttributes(&now, kernel);
    if (error != cudaSuccess) return error;
    size_t allowed = static_cast<size_t>(now.maxDynamicSharedSizeBytes), fixed = now.sharedSizeBytes;
    if (fixed + shared_bytes <= QB_SHARED_BYTES_DEFAULT) return cudaSuccess;
    if (shared_bytes <= allowed && fixed + allowed > QB_SHARED_BYTES_DEFAULT) return cudaSuccess;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(shared_bytes));
}

template <typename... Parameters, typename... Arguments>
cudaError_t qb_launch_with(bool dependent, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                           size_t shared_bytes, cudaStream_t stream, Arguments &&...arguments) {
    cudaError_t error = qb_allow_shared(kernel, shared_bytes);
    /* A multiprocessor divides its memory between L1 and shared anew only when it is idle: kernels that shall
       stand beside each other ask for the same division. */
    if (error == cudaSuccess && dependent)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                     cudaSharedmemCarveoutMaxShared);
    if (error != cudaSuccess) return error;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = dependent ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

template <typename... Parameters, typename... Arguments>
cudaError_t qb_launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                      cudaStream_t stream, Arguments &&...arguments) {
    return qb_launch_with(false, kernel, grid, block, shared_bytes, stream,
                          std::forward<Arguments>(arguments)...);
}

/* May begin while the kernel before it still runs (compute capability 9.0 and above only): the kernel calls
   ptx::wait_for_previous_kernel before it touches what that one writes. */
template <typename... Parameters, typename... Arguments>
cudaError_t qb_launch_dependent(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                                cudaStream_t stream, Arguments &&...arguments) {
    return qb_launch_with(true, kernel, grid, block, shared_bytes, stream,
                          std::forward<Arguments>(arguments)...);
}
