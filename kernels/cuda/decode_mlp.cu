/* Normed inputs times gate and up, activated; and the products that end in a residual. */
#include "kernels/cuda/decode_gemv_body.cuh"

namespace qb {
namespace {

/* Tile i of gate and of up side by side, or of up alone. */
template <int RT> struct mlp_items {
    const qb_cuda_view &gate, &up;
    __device__ __forceinline__ int n_items() const { return (up.rows + QB_TILE_ROWS - 1) / QB_TILE_ROWS; }
    __device__ __forceinline__ const qb_cuda_view &view(int, int r) const { return r + 1 == RT ? up : gate; }
    __device__ __forceinline__ int tile(int item, int) const { return item; }
};

struct mlp_arguments {
    qb_cuda_view gate, up;
    const float *gate_bias, *up_bias, *x;
    float *y;
    qb_activation kind;
    decode_norm norm;
    decode_launch launch;
};

template <int KIND, bool FINE, int RT>
__global__ void __launch_bounds__(DECODE_THREADS, DECODE_BLOCKS)
    mlp_kernel(const __grid_constant__ mlp_arguments a) {
    unsigned char *shared = ptx::dynamic_shared<unsigned char>();
    ptx::let_next_kernel_begin();
    auto stage = [&](auto sent) { return stage_normed(shared, a.launch, a.up, a.norm, a.x, sent); };
    auto epilogue = [&](int item, int row_in_tile, int token, const float(&value)[RT]) {
        const int row = item * QB_TILE_ROWS + row_in_tile;
        if (row >= a.up.rows) return;
        const float up = value[RT - 1] + (a.up_bias ? a.up_bias[row] : 0.0f);
        float y = RT == 1 ? up : value[0] + (a.gate_bias ? a.gate_bias[row] : 0.0f);
        y = qb::activation(a.kind, y);
        a.y[token * a.up.rows + row] = RT == 1 ? y : y * up;
    };
    gemv_body<KIND, FINE, 1, RT>(mlp_items<RT>{a.gate, a.up}, a.launch.T, a.launch.sp, a.launch.plan, shared,
                                 stage, epilogue);
}

struct residual_arguments {
    qb_cuda_view w;
    const float *bias, *x;
    float *y;
    decode_launch launch;
};

template <int KIND, bool FINE>
__global__ void __launch_bounds__(DECODE_THREADS, DECODE_BLOCKS)
    residual_kernel(const __grid_constant__ residual_arguments a) {
    unsigned char *shared = ptx::dynamic_shared<unsigned char>();
    ptx::let_next_kernel_begin();
    auto stage = [&](auto sent) { return stage_plain(shared, a.launch, a.w, a.x, sent); };
    auto epilogue = [&](int item, int row_in_tile, int token, const float(&value)[1]) {
        const int row = item * QB_TILE_ROWS + row_in_tile;
        if (row < a.w.rows) a.y[token * a.w.rows + row] += value[0] + (a.bias ? a.bias[row] : 0.0f);
    };
    gemv_body<KIND, FINE, 1, 1>(mlp_items<1>{a.w, a.w}, a.launch.T, a.launch.sp, a.launch.plan, shared, stage,
                                epilogue);
}

template <int RT> cudaError_t launch_mlp(const mlp_arguments &a, dim3 grid, const decode_device &dev) {
    const dim3 block(DECODE_THREADS);
    const size_t shared = static_cast<size_t>(a.launch.plan.total);
    const bool fine = qb_view_is_fine(&a.up) || qb_view_is_fine(&a.gate);
    switch (decode_codes(a.up.kind, fine)) {
#define LAUNCH(CODES, FINE)                                                                                  \
    case decode_codes(QB_CODES_##CODES, FINE):                                                               \
        return qb_launch_with(dev.dependent, mlp_kernel<QB_CODES_##CODES, FINE, RT>, grid, block, shared,    \
                              dev.stream, a);
        QB_DECODE_CODES(LAUNCH)
#undef LAUNCH
    default:
        return cudaErrorInvalidValue;
    }
}

} // namespace
} // namespace qb

using namespace qb;

static int tiles(const qb_cuda_view &v) {
    return static_cast<int>(qb_blocks(v.rows, QB_TILE_ROWS));
}

cudaError_t qb_decode_mlp(const qb_cuda_view *gate, const float *gate_bias, const qb_cuda_view &up,
                          const float *up_bias, qb_activation kind, const decode_norm &n, const float *x,
                          float *y, int64_t T, const decode_device &dev) {
    const int RT = gate ? 2 : 1;
    const bool fine = qb_view_is_fine(&up) || (gate && qb_view_is_fine(gate));
    const decode_grid g = decode_grid_of(up, fine, tiles(up), RT, T, dev);
    const mlp_arguments a = {gate ? *gate : up, up, gate_bias, up_bias, x, y, kind, n, g.launch};
    return gate ? launch_mlp<2>(a, g.grid, dev) : launch_mlp<1>(a, g.grid, dev);
}

cudaError_t qb_decode_residual(const qb_cuda_view &w, const float *bias, const float *x, float *y, int64_t T,
                               const decode_device &dev) {
    const decode_grid g = decode_grid_of(w, qb_view_is_fine(&w), tiles(w), 1, T, dev);
    const residual_arguments a = {w, bias, x, y, g.launch};
    const size_t shared = static_cast<size_t>(g.launch.plan.total);
    switch (decode_codes(w.kind, qb_view_is_fine(&w))) {
#define LAUNCH(CODES, FINE)                                                                                  \
    case decode_codes(QB_CODES_##CODES, FINE):                                                               \
        return qb_launch_with(dev.dependent, residual_kernel<QB_CODES_##CODES, FINE>, g.grid,                \
                              dim3(DECODE_THREADS), shared, dev.stream, a);
        QB_DECODE_CODES(LAUNCH)
#undef LAUNCH
    default:
        return cudaErrorInvalidValue;
    }
}
