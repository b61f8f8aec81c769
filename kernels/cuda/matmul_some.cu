/* The products of 9 to 64 tokens, 32 a block. */
#include "kernels/cuda/matmul_kernel.cuh"

cudaError_t qb::launch_some(const qb_cuda_view &v, dim3 grid, cudaStream_t stream,
                            const matmul_arguments &a) {
    return launch_matmul<false, SOME_TOKENS / 8, SOME_ROW_TILES>(v, grid, stream, a);
}
