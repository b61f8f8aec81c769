/* Normed inputs times one to three matrices: q, k and v in one launch, and the head. */
#include "kernels/cuda/decode_gemv_body.cuh"

namespace qb {
namespace {

struct part_items {
    const decode_parts &p;
    __device__ __forceinline__ int part(int item) const {
        return item < p.first[1] ? 0 : item < p.first[2] ? 1 : 2;
    }
    __device__ __forceinline__ int n_items() const { return p.first[QB_DECODE_PARTS]; }
    __device__ __forceinline__ const qb_cuda_view &view(int item, int) const { return p.v[part(item)]; }
    __device__ __forceinline__ int tile(int item, int) const { return item - p.first[part(item)]; }
};

template <int KIND, bool FINE>
__global__ void __launch_bounds__(DECODE_THREADS, DECODE_BLOCKS)
    project_kernel(const __grid_constant__ decode_parts p, const decode_norm n, const float *x,
                   const decode_launch l) {
    unsigned char *shared = ptx::dynamic_shared<unsigned char>();
    ptx::let_next_kernel_begin();
    const part_items items = {p};
    auto stage = [&](auto sent) { return stage_normed(shared, l, p.v[0], n, x, sent); };
    auto epilogue = [&](int item, int row_in_tile, int token, const float(&value)[1]) {
        const int part = items.part(item);
        const int row = items.tile(item, 0) * QB_TILE_ROWS + row_in_tile;
        const int64_t rows = p.v[part].rows;
        if (row < rows) p.y[part][token * rows + row] = value[0];
    };
    gemv_body<KIND, FINE, 1, 1>(items, l.T, l.sp, l.plan, shared, stage, epilogue);
}

} // namespace
} // namespace qb

using namespace qb;

cudaError_t qb_decode_project(const decode_parts &parts, const decode_norm &n, const float *x, int64_t T,
                              const decode_device &dev) {
    bool fine = false;
    for (const qb_cuda_view &v : parts.v) fine = fine || (v.rows > 0 && qb_view_is_fine(&v));
    const decode_grid g = decode_grid_of(parts.v[0], fine, parts.first[QB_DECODE_PARTS], 1, T, dev);
    switch (decode_codes(parts.v[0].kind, fine)) {
#define LAUNCH(CODES, FINE)                                                                                  \
    case decode_codes(QB_CODES_##CODES, FINE):                                                               \
        return qb_launch_with(dev.dependent, project_kernel<QB_CODES_##CODES, FINE>, g.grid,                 \
                              dim3(DECODE_THREADS), static_cast<size_t>(g.launch.plan.total), dev.stream,    \
                              parts, n, x, g.launch);
        QB_DECODE_CODES(LAUNCH)
#undef LAUNCH
    default:
        return cudaErrorInvalidValue;
    }
}

bool qb_decode_gemv_fits(const qb_cuda_view &v, int64_t T, const decode_device &dev) {
    if (T > QB_DECODE_GEMV_TOKENS || v.kind == QB_CODES_F32) return false;
    /* what the kernels hold statically is below 2 KiB */
    return decode_plan(v, true, T, 2, dev).total + QB_DECODE_STATIC_BYTES <= dev.shared_bytes;
}

bool qb_decode_gemv_alike(const qb_cuda_view &a, const qb_cuda_view &b) {
    return a.kind == b.kind && a.cols == b.cols && a.padded_cols == b.padded_cols && a.order == b.order &&
           a.scale_kind == b.scale_kind && a.codebook == b.codebook;
}
