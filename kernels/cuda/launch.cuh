/* How kernels are launched: qb_launch(kernel, grid, block, shared_bytes, stream, arguments...). */
#pragma once

#include <cuda_runtime.h>
#include <utility>

enum { QB_SHARED_BYTES_DEFAULT = 48 << 10 }; /* above it a kernel must be allowed its dynamic shared memory */

template <typename... Parameters, typename... Arguments>
cudaError_t qb_launch_with(bool dependent, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                           size_t shared_bytes, cudaStream_t stream, Arguments &&...arguments) {
    if (shared_bytes > QB_SHARED_BYTES_DEFAULT) {
        cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(shared_bytes));
        if (error != cudaSuccess) return error;
    }
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
