/* The matmul of few tokens as a kernel: gemv_body with plain activations in and plain results out. */
#pragma once

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/gemv.cuh"

namespace qb {

constexpr int MATMUL_WARPS = 8;

/* Item i: row tiles i RT .. i RT + RT - 1 of one matrix; past the last, the last again. */
template <int RT> struct one_matrix {
    const qb_cuda_view &v;
    __device__ __forceinline__ int n_tiles() const {
        return static_cast<int>((v.rows + QB_TILE_ROWS - 1) / QB_TILE_ROWS);
    }
    __device__ __forceinline__ int n_items() const { return (n_tiles() + RT - 1) / RT; }
    __device__ __forceinline__ const qb_cuda_view &view(int, int) const { return v; }
    __device__ __forceinline__ int tile(int item, int r) const {
        return RT == 1 ? item : min(item * RT + r, n_tiles() - 1);
    }
};

struct matmul_arguments {
    const float *x;       /* [T, cols]: the block stages them; or NULL */
    const half *staged_x; /* [T][stride] */
    const float *unscale; /* [T] beside staged_x */
    float *y;             /* [T, rows]; with k_blocks > 1 partial sums [k_blocks][T, rows] */
    int64_t stride;       /* of staged activations, wherever they are */
    int T;
    split sp;
    gemv_shared plan;
};

/* Registers for as many blocks a multiprocessor as keep the memory busy. */
constexpr int blocks_a_multiprocessor(int NT) {
    return NT > 1 ? 1 : 2;
}

/* IN_BLOCK: the block stages its activations, in shared memory. */
template <int KIND, bool FINE, bool IN_BLOCK, int NT, int RT>
__global__ void __launch_bounds__(MATMUL_WARPS * 32, blocks_a_multiprocessor(NT))
    matmul_kernel(const __grid_constant__ qb_cuda_view v, const __grid_constant__ matmul_arguments a) {
    unsigned char *shared = ptx::dynamic_shared<unsigned char>();
    const int first = static_cast<int>(blockIdx.z) * NT * 8, T = min(a.T - first, NT * 8);
    float *y = a.y + (static_cast<int64_t>(blockIdx.y) * a.T + first) * v.rows;
    auto stage = [&](auto sent) {
        if constexpr (IN_BLOCK) {
            half *x = reinterpret_cast<half *>(shared + a.plan.x);
            float *unscale = reinterpret_cast<float *>(shared + a.plan.unscale);
            float *partial = reinterpret_cast<float *>(shared + a.plan.partial);
            const plain_rows rows = {a.x, v.cols, v.source};
            if (rows.aligned())
                stage_aligned(x, a.stride, unscale, partial, T, static_cast<int>(v.padded_cols), rows, sent);
            else
                sent(), stage_rows(x, a.stride, unscale, partial, T, v.padded_cols, rows);
            return staged{x, a.stride, unscale};
        } else {
            sent();
            return staged{a.staged_x + first * a.stride, a.stride, a.unscale + first};
        }
    };
    auto epilogue = [&](int item, int row_in_tile, int token, const float(&value)[RT]) {
#pragma unroll
        for (int r = 0; r < RT; r++) {
            int row = (item * RT + r) * QB_TILE_ROWS + row_in_tile;
            if (row < v.rows) y[token * v.rows + row] = value[r];
        }
    };
    gemv_body<KIND, FINE, NT, RT>(one_matrix<RT>{v}, T, a.sp, a.plan, shared, stage, epilogue);
}

template <bool IN_BLOCK, int NT, int RT>
cudaError_t launch_matmul(const qb_cuda_view &v, dim3 grid, cudaStream_t stream, const matmul_arguments &a) {
    const dim3 block(MATMUL_WARPS * 32);
    const size_t shared = static_cast<size_t>(a.plan.total);
    const bool fine = qb_view_is_fine(&v);
    switch (v.kind) {
#define LAUNCH(name, fine)                                                                                   \
    qb_launch(matmul_kernel<QB_CODES_##name, fine, IN_BLOCK, NT, RT>, grid, block, shared, stream, v, a)
#define PACKED(name)                                                                                         \
    case QB_CODES_##name:                                                                                    \
        return fine ? LAUNCH(name, true) : LAUNCH(name, false);
#define DENSE(name)                                                                                          \
    case QB_CODES_##name:                                                                                    \
        return LAUNCH(name, false);
        PACKED(2)
        PACKED(3)
        PACKED(4)
        PACKED(8)
        PACKED(BOOK)
        DENSE(F16)
        DENSE(BF16)
#undef LAUNCH
#undef PACKED
#undef DENSE
    default:
        return cudaErrorInvalidValue;
    }
}

/* Each in a file of its own, for they take long to compile: matmul_few.cu, matmul_some.cu. */
enum { FEW_TOKENS = 8, SOME_TOKENS = 32 /* a block's; grid.z holds more */ };
cudaError_t launch_few(const qb_cuda_view &v, dim3 grid, cudaStream_t stream, const matmul_arguments &a);
cudaError_t launch_some(const qb_cuda_view &v, dim3 grid, cudaStream_t stream, const matmul_arguments &a);
enum { FEW_ROW_TILES = 1, SOME_ROW_TILES = 2 };

} // namespace qb
