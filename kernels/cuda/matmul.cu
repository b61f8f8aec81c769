/* Which product serves how many tokens, and how its work is divided. */
#include "kernels/cuda/matmul_kernel.cuh"
#include "kernels/cuda/matrix_kernels.h"

namespace {

using namespace qb;

/* The crossovers. Up to FEW_TOKENS (8) one tile of tokens costs what one token does; up to TENSOR_TOKENS the
   codes are read once (twice above 32) and dequantized in registers; beyond, dequantizing whole panels for
   cuBLAS is cheaper than dequantizing again for every 32 tokens. */
constexpr int64_t TENSOR_TOKENS = 64;
/* Activations that each block converts for itself rather than reading what a kernel before it wrote. */
constexpr int64_t IN_BLOCK_BYTES = 40 << 10;
/* Warps a multiprocessor that keep its share of the memory's bandwidth in flight. */
constexpr int WARPS_A_MULTIPROCESSOR = 16;
constexpr int REDUCE_THREADS = 256;

/* At least so many steps has a row, whatever the kernel (gemv.cuh, step_shape). */
int steps_of(const qb_cuda_view &v) {
    return static_cast<int>(v.padded_cols / QB_TILE_COLS);
}

/* y[i] = sum over k of partial[k][i], in order. */
__global__ void reduce_kernel(float *y, const float *partial, int64_t n, int k_blocks) {
    int64_t i = static_cast<int64_t>(blockIdx.x) * REDUCE_THREADS + threadIdx.x;
    if (i >= n) return;
    float sum = 0.0f;
    for (int k = 0; k < k_blocks; k++) sum += partial[k * n + i];
    y[i] = sum;
}

struct division {
    int nt, rt;
    split sp;
    unsigned items, blocks, token_blocks;
};

division divide(const cuda_device *d, const qb_cuda_view &v, int64_t T) {
    division r = {};
    const bool few = T <= FEW_TOKENS;
    r.nt = (few ? FEW_TOKENS : SOME_TOKENS) / 8, r.rt = few ? FEW_ROW_TILES : SOME_ROW_TILES;
    r.items = qb_blocks(v.rows, QB_TILE_ROWS * r.rt);
    r.token_blocks = qb_blocks(T, 8 * r.nt);
    const int steps = steps_of(v);
    const int64_t wanted = static_cast<int64_t>(d->multiprocessors) * WARPS_A_MULTIPROCESSOR;
    r.sp = {few ? 1 : 2, 1};
    while (r.sp.k_warps < MATMUL_WARPS && r.sp.k_warps * 2 <= steps && r.items * r.sp.k_warps < wanted && few)
        r.sp.k_warps *= 2;
    r.blocks = qb_blocks(r.items, MATMUL_WARPS / r.sp.k_warps);
    /* Many tokens' activations are read by all blocks: they hold more rows, and divide columns among blocks.
     */
    while (!few &&
           r.blocks * r.token_blocks * static_cast<unsigned>(r.sp.k_blocks) <
               static_cast<unsigned>(d->multiprocessors) &&
           r.sp.k_blocks * r.sp.k_warps * 4 <= steps && r.sp.k_blocks < 16)
        r.sp.k_blocks *= 2;
    /* The codebook's table is filled once a block: blocks stay and take more items. */
    if (v.kind == QB_CODES_BOOK && r.blocks > static_cast<unsigned>(d->multiprocessors) * 2)
        r.blocks = static_cast<unsigned>(d->multiprocessors) * 2;
    return r;
}

/* Shared memory for two blocks a multiprocessor. */
gemv_shared plan_of(const cuda_device *d, const qb_cuda_view &v, const division &r, int64_t T,
                    bool in_block) {
    const int tokens = static_cast<int>(T < 8 * r.nt ? T : 8 * r.nt);
    return gemv_shared_within((d->shared_bytes + 1024) / 2 - 1024, GEMV_IN_FLIGHT / 2, d->major >= 8, v.kind,
                              qb_view_is_fine(&v),
                              v.scale_kind == QB_VIEW_SCALES_NESTED && v.kind == QB_CODES_BOOK,
                              in_block ? tokens : 0, v.padded_cols, MATMUL_WARPS, r.rt, tokens);
}

qb_status matmul_tensor(cuda_device *d, float *y, const float *x, int64_t T, const qb_cuda_view &v) {
    const division r = divide(d, v, T);
    matmul_arguments a = {};
    a.T = static_cast<int>(T), a.sp = r.sp;
    const bool in_block = T <= FEW_TOKENS && T * staged_stride(v.padded_cols) * 2 <= IN_BLOCK_BYTES &&
                          plan_of(d, v, r, T, true).total <= d->shared_bytes;
    a.plan = plan_of(d, v, r, T, in_block);
    a.stride = in_block ? staged_stride(v.padded_cols) : v.padded_cols;
    const int64_t x_bytes = in_block ? 0 : (T * a.stride * 2 + 255) / 256 * 256,
                  unscale_bytes = in_block ? 0 : 256;
    const int64_t sums_bytes = r.sp.k_blocks > 1 ? r.sp.k_blocks * T * v.rows * 4 : 0;
    unsigned char *scratch = nullptr;
    qb_status st = QB_OK;
    if (x_bytes + sums_bytes > 0) st = qb_cuda_scratch(d, x_bytes + unscale_bytes + sums_bytes, &scratch);
    if (st != QB_OK) return st;
    a.y = r.sp.k_blocks > 1 ? reinterpret_cast<float *>(scratch + x_bytes + unscale_bytes) : y;
    if (in_block) {
        a.x = x;
    } else {
        float *unscale = reinterpret_cast<float *>(scratch + x_bytes);
        a.staged_x = reinterpret_cast<half *>(scratch), a.unscale = unscale;
        st = qb_cuda_stage(d, &v, x, T, scratch, a.stride, unscale);
        if (st != QB_OK) return st;
    }
    const dim3 grid(r.blocks, static_cast<unsigned>(r.sp.k_blocks), r.token_blocks);
    st = qb_cuda_status(
        d, T <= FEW_TOKENS ? launch_few(v, grid, d->stream, a) : launch_some(v, grid, d->stream, a),
        "matmul");
    if (st != QB_OK || r.sp.k_blocks == 1) return st;
    return qb_cuda_status(d,
                          qb_launch(reduce_kernel, dim3(qb_blocks(T * v.rows, REDUCE_THREADS)),
                                    dim3(REDUCE_THREADS), 0, d->stream, y, a.y, T * v.rows, r.sp.k_blocks),
                          "matmul");
}

} // namespace

static qb_status matmul(qb_device *dev, float *y, const float *x, int64_t T, const qb_matrix *w, bool again) {
    cuda_device *d = cuda_of(dev);
    if (T <= 0 || w->rows <= 0) return QB_OK;
    const qb_cuda_matrix *m = qb_cuda_matrix_of(w);
    if (T <= TENSOR_TOKENS && m->view.kind != QB_CODES_F32) return matmul_tensor(d, y, x, T, m->view);
    return qb_cuda_gemm(d, y, x, T, m, again);
}

extern "C" qb_status qb_cuda_matmul(qb_device *dev, float *y, const float *x, int64_t T, const qb_matrix *w) {
    return matmul(dev, y, x, T, w, false);
}

extern "C" qb_status qb_cuda_matmul_again(qb_device *dev, float *y, const float *x, int64_t T,
                                          const qb_matrix *w) {
    return matmul(dev, y, x, T, w, true);
}
