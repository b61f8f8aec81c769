/* Rows of a matrix as float16, for tensor-core GEMMs over many tokens: row-major in packed column order,
   times a power of two that keeps the largest weight below 2^15 (exact, undone by the GEMM's alpha). */
#include "kernels/cuda/matrix_kernels.h"

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/gemv.cuh"

namespace {

using namespace qb;

constexpr int WARPS = 8;

struct panel_arguments {
    qb_cuda_view v;
    half *to; /* [n_tiles * 16, padded_cols] */
    int first_tile, n_tiles;
};

__device__ uint4 scaled_run(const uint32_t (&w)[4], float scale, float offset) {
    uint32_t out[4];
#pragma unroll
    for (int p = 0; p < 4; p++) {
        float2 v = __half22float2(as_half2(w[p]));
        out[p] = bits_of(__floats2half2_rn(fmaf(v.x, scale, offset), fmaf(v.y, scale, offset)));
    }
    return make_uint4(out[0], out[1], out[2], out[3]);
}

/* One step of a row tile into to[16][padded_cols]: four lanes write 64 consecutive bytes of a row. */
template <int KIND>
__device__ void write_step(const qb_cuda_view &v, int row_tile, int step, int lane, const unsigned char *book,
                           const float *map, half *to) {
    constexpr int units = step_shape<KIND, true>::units;
    constexpr bool packed = step_shape<KIND, true>::packed;
    const row_cursor cursor = cursor_of(v, row_tile, lane);
    step_codes<KIND, true> codes;
    load_step<KIND, true>(v, row_tile, cursor, step, lane, codes);
    const float factor = power_of_two(v.exponent);
#pragma unroll
    for (int u = 0; u < units; u++) {
        zero_terms<packed ? KIND : QB_CODES_8> zero[2];
        row_pair scale = {{factor, factor}}, offset = {{0.0f, 0.0f}};
        if constexpr (packed) {
            const int group = (step * units + u) >> v.group_shift, place = cursor.scales + group * 8;
            const raw_scale raw = load_scale<KIND, true>(v, place);
            if constexpr (KIND != QB_CODES_BOOK) set_zeros<KIND, true>(v, raw, place, zero);
            scale = decode_scale<KIND, true>(v, raw, cursor, group, map);
            offset = load_offsets(v, place);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t w[4];
            uint4 run;
            if constexpr (packed) {
                run_halves<KIND>(codes.words, u, h, zero[h], book, lane, w);
                run = scaled_run(w, scale.half[h] * factor, offset.half[h] * factor);
            } else {
                const uint32_t *pairs = codes.words + (u * 2 + h) * 4;
                if constexpr (KIND == QB_CODES_BF16)
                    bf16_halves(pairs, factor, w);
                else
                    for (int p = 0; p < 4; p++) w[p] = pairs[p];
                run = make_uint4(w[0], w[1], w[2], w[3]);
            }
            half *at = to + qb_lane_row(lane, h) * v.padded_cols + (step * units + u) * QB_UNIT_COLS +
                       lane % 4 * QB_RUN_COLS;
            ptx::store_16(at, run);
        }
    }
}

template <int KIND>
__global__ void __launch_bounds__(WARPS * 32) panel_kernel(const __grid_constant__ panel_arguments a) {
    unsigned char *book = ptx::dynamic_shared<unsigned char>();
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int steps = static_cast<int>(a.v.padded_cols) / (QB_UNIT_COLS * step_shape<KIND, true>::units);
    if constexpr (KIND == QB_CODES_BOOK) {
        fill_book(reinterpret_cast<uint32_t *>(book), a.v.table);
        __syncthreads();
    }
    /* a step is 512 weights and more: 32 bits count them all */
    const unsigned all = static_cast<unsigned>(a.n_tiles) * static_cast<unsigned>(steps);
    for (unsigned at = blockIdx.x * WARPS + threadIdx.x / 32; at < all; at += gridDim.x * WARPS) {
        const unsigned tile = at / static_cast<unsigned>(steps),
                       step = at - tile * static_cast<unsigned>(steps);
        write_step<KIND>(a.v, a.first_tile + static_cast<int>(tile), static_cast<int>(step), lane, book,
                         a.v.table + 16, a.to + tile * static_cast<int64_t>(QB_TILE_ROWS) * a.v.padded_cols);
    }
}

} // namespace

extern "C" qb_status qb_cuda_dequantize(cuda_device *d, const qb_cuda_view *v, int64_t first_row,
                                        int64_t n_rows, void *to) {
    if (n_rows < 1) return QB_OK;
    const panel_arguments a = {*v, static_cast<half *>(to), static_cast<int>(first_row / QB_TILE_ROWS),
                               static_cast<int>((n_rows + QB_TILE_ROWS - 1) / QB_TILE_ROWS)};
    const int64_t warps = a.n_tiles * (v->padded_cols / QB_UNIT_COLS), most = d->multiprocessors * 16;
    const int64_t blocks = (warps + WARPS - 1) / WARPS;
    const dim3 grid(static_cast<unsigned>(blocks < most ? blocks : most)), block(WARPS * 32);
    cudaError_t error = cudaErrorInvalidValue;
    switch (v->kind) {
#define KIND(name, shared)                                                                                   \
    case QB_CODES_##name:                                                                                    \
        error = qb_launch(panel_kernel<QB_CODES_##name>, grid, block, shared, d->stream, a);                 \
        break;
        KIND(2, 0)
        KIND(3, 0)
        KIND(4, 0)
        KIND(8, 0)
        KIND(BOOK, 256 * QB_LANES * 4)
        KIND(F16, 0)
        KIND(BF16, 0)
#undef KIND
    default:
        break;
    }
    return qb_cuda_status(d, error, "dequantizing");
}
