/* Codes as methods and files have them, one a byte, into the tiles that matmuls read. */
#include "kernels/cuda/matrix_kernels.h"

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/layout.cuh"

namespace {

constexpr int WARPS = 8;

struct pack_arguments {
    qb_cuda_view v;
    const uint8_t *codes; /* [n_rows, cols] from row first_row */
    uint8_t *to;
    int64_t first_row, n_rows;
};

/* A warp a tile: each lane gathers the codes that it will one day read. */
template <qb_codes_kind KIND> __global__ void pack_kernel(const __grid_constant__ pack_arguments a) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64_t tiles = a.v.padded_cols / QB_TILE_COLS,
                  row_tiles = (a.n_rows + QB_TILE_ROWS - 1) / QB_TILE_ROWS;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
    if (at >= tiles * row_tiles) return;
    const int64_t row_tile = at / tiles, tile = at % tiles;
    uint32_t words[QB_LANE_WORDS_MAX] = {};
#pragma unroll
    for (int unit = 0; unit < QB_TILE_UNITS; unit++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t row = row_tile * QB_TILE_ROWS + qb_lane_row(lane, half);
#pragma unroll
            for (int i = 0; i < QB_RUN_COLS; i++) {
                int64_t k = tile * QB_TILE_COLS + qb_lane_col(lane, unit, i);
                int64_t c = a.v.source ? a.v.source[k] : k;
                if (row < a.n_rows && c >= 0 && c < a.v.cols)
                    qb_put_code(KIND, words, unit, half, i, a.codes[row * a.v.cols + c]);
            }
        }
    uint8_t *to = a.to + ((a.first_row / QB_TILE_ROWS + row_tile) * tiles + tile) * qb_tile_bytes(KIND);
#pragma unroll
    for (int w = 0; w < qb_lane_words(KIND); w++)
        *reinterpret_cast<uint32_t *>(to + qb_word_byte(KIND, lane, w)) = words[w];
}

} // namespace

extern "C" qb_status qb_cuda_pack_codes(cuda_device *d, const qb_cuda_view *v, const uint8_t *codes,
                                        int64_t first_row, int64_t n_rows) {
    if (n_rows < 1) return QB_OK;
    const pack_arguments a = {*v, codes, const_cast<uint8_t *>(v->codes), first_row, n_rows};
    const int64_t warps = (n_rows + QB_TILE_ROWS - 1) / QB_TILE_ROWS * (v->padded_cols / QB_TILE_COLS);
    const dim3 grid(static_cast<unsigned>((warps + WARPS - 1) / WARPS)), block(WARPS * 32);
    cudaError_t error = cudaErrorInvalidValue;
    switch (v->kind) {
#define KIND(name)                                                                                           \
    case QB_CODES_##name:                                                                                    \
        error = qb_launch(pack_kernel<QB_CODES_##name>, grid, block, 0, d->stream, a);                       \
        break;
        KIND(2)
        KIND(3)
        KIND(4)
        KIND(8)
        KIND(BOOK)
#undef KIND
    default:
        break;
    }
    return qb_cuda_status(d, error, "packing codes");
}
