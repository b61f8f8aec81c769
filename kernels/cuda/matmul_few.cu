/* The products of up to 8 tokens. */
#include "kernels/cuda/matmul_kernel.cuh"

cudaError_t qb::launch_few(const qb_cuda_view &v, dim3 grid, cudaStream_t stream, const matmul_arguments &a) {
    return a.x ? launch_matmul<true, FEW_TOKENS / 8, FEW_ROW_TILES>(v, grid, stream, a)
               : launch_matmul<false, FEW_TOKENS / 8, FEW_ROW_TILES>(v, grid, stream, a);
}
