/* Products of routed rows: a block finds its expert's matrix by the id that the routing left on the device.
   Codes of several kinds among the experts (a plan may give each its own) have a launch each, whose blocks
   leave where the expert is of another. */
#include "kernels/cuda/experts.cuh"

#include "kernels/cuda/decode_gemv_body.cuh"
#include "kernels/cuda/matrix.h"

extern "C" {
#include "base/memory.h"
}

namespace qb {
namespace {

constexpr int F32_CODES = decode_codes(QB_CODES_F32, false);

struct expert_arguments {
    const expert_matrix *matrices;
    const int32_t *chosen;
    const float *x;
    float *y;
    int64_t rows, cols;
    split sp;
};

struct expert_items {
    const qb_cuda_view &v;
    __device__ __forceinline__ int n_items() const {
        return static_cast<int>((v.rows + QB_TILE_ROWS - 1) / QB_TILE_ROWS);
    }
    __device__ __forceinline__ const qb_cuda_view &view(int, int) const { return v; }
    __device__ __forceinline__ int tile(int item, int) const { return item; }
};

/* The block's expert into shared memory; every thread calls. */
__device__ __forceinline__ void find_expert(const expert_arguments &a, int row, expert_matrix *to) {
    static_assert(sizeof(expert_matrix) % 4 == 0, "copied by words");
    const uint32_t *from = reinterpret_cast<const uint32_t *>(a.matrices + a.chosen[row]);
    for (unsigned i = threadIdx.x; i < sizeof(expert_matrix) / 4; i += blockDim.x)
        reinterpret_cast<uint32_t *>(to)[i] = from[i];
    __syncthreads();
}

/* A block has an item or two: what four steps of each warp keep in flight is most of them. */
__host__ __device__ inline gemv_shared expert_plan(int kind, bool fine, bool nested, int64_t padded_cols,
                                                   bool async_copies) {
    return gemv_shared_plan(kind, fine, nested, 1, padded_cols, DECODE_WARPS, 1, 1, async_copies ? 4 : 0);
}

template <int KIND, bool FINE>
__global__ void __launch_bounds__(DECODE_THREADS, DECODE_BLOCKS)
    expert_kernel(const __grid_constant__ expert_arguments a) {
    __shared__ expert_matrix m;
    unsigned char *shared = ptx::dynamic_shared<unsigned char>();
    const int row = static_cast<int>(blockIdx.z);
    ptx::let_next_kernel_begin();
    ptx::wait_for_previous_kernel();
    find_expert(a, row, &m);
    if (m.view.kind != KIND) return;
    const bool nested = KIND == QB_CODES_BOOK && m.view.scale_kind == QB_VIEW_SCALES_NESTED;
    const decode_launch l = {1, a.sp, expert_plan(KIND, FINE, nested, m.view.padded_cols, QB_STEPS_IN_SHARED),
                             staged_stride(m.view.padded_cols)};
    const float *bias = m.bias;
    float *y = a.y + row * a.rows;
    auto stage = [&](auto sent) { return stage_plain(shared, l, m.view, a.x + row * a.cols, sent); };
    auto epilogue = [&](int item, int row_in_tile, int, const float(&value)[1]) {
        const int at = item * QB_TILE_ROWS + row_in_tile;
        if (at < a.rows) y[at] = value[0] + (bias ? bias[at] : 0.0f);
    };
    gemv_body<KIND, FINE, 1, 1>(expert_items{m.view}, 1, l.sp, l.plan, shared, stage, epilogue);
}

/* Float32 experts, in float32: a warp a row. */
__global__ void __launch_bounds__(DECODE_THREADS)
    expert_f32_kernel(const __grid_constant__ expert_arguments a) {
    __shared__ expert_matrix m;
    const int row = static_cast<int>(blockIdx.z), lane = static_cast<int>(threadIdx.x) % 32;
    ptx::let_next_kernel_begin();
    ptx::wait_for_previous_kernel();
    find_expert(a, row, &m);
    if (m.view.kind != QB_CODES_F32) return;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * DECODE_WARPS + threadIdx.x / 32;
    if (at >= a.rows) return;
    const float *w = reinterpret_cast<const float *>(m.view.codes) + at * a.cols, *x = a.x + row * a.cols;
    float sum = 0.0f;
    for (int64_t k = lane; k < a.cols; k += 32) sum = fmaf(w[k], x[k], sum);
    sum = warp_sum(sum);
    if (lane == 0) a.y[row * a.rows + at] = sum + (m.bias ? m.bias[at] : 0.0f);
}

/* Blocks a routed row, and the warps that share a row tile's columns: what fills the device twice. */
dim3 divide(const expert_group &g, int64_t rows, const decode_device &dev, expert_arguments *a) {
    const int items = static_cast<int>(qb_blocks(g.rows, QB_TILE_ROWS));
    const int64_t warps = 2LL * DECODE_WARPS * dev.multiprocessors;
    const int64_t steps = g.padded_cols / QB_TILE_COLS;
    int k_warps = 1;
    while (k_warps < DECODE_WARPS && items * rows * k_warps < 2 * warps && steps >= 4 * k_warps) k_warps *= 2;
    a->sp = {k_warps, 1};
    return dim3(qb_blocks(items, DECODE_WARPS / k_warps), 1, static_cast<unsigned>(rows));
}

cudaError_t launch_codes(int codes, const expert_group &g, dim3 grid, const decode_device &dev,
                         const expert_arguments &a) {
    const dim3 block(DECODE_THREADS);
    const size_t shared = static_cast<size_t>(
        expert_plan(codes / 2, codes % 2, g.nested, g.padded_cols, dev.async_copies).total);
    switch (codes) {
    case F32_CODES:
        return qb_launch_with(dev.dependent, expert_f32_kernel,
                              dim3(qb_blocks(g.rows, DECODE_WARPS), 1, grid.z), block, 0, dev.stream, a);
#define LAUNCH(CODES, FINE)                                                                                  \
    case decode_codes(QB_CODES_##CODES, FINE):                                                               \
        return qb_launch_with(dev.dependent, expert_kernel<QB_CODES_##CODES, FINE>, grid, block, shared,     \
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

cudaError_t qb_decode_expert_products(const expert_group &g, const int32_t *chosen, int64_t rows,
                                      const float *x, float *y, const decode_device &dev) {
    expert_arguments a = {g.matrices, chosen, x, y, g.rows, g.cols, {}};
    const dim3 grid = divide(g, rows, dev, &a);
    cudaError_t error = cudaSuccess;
    for (int codes = 0; codes <= F32_CODES && error == cudaSuccess; codes++)
        if (g.codes >> codes & 1) error = launch_codes(codes, g, grid, dev, a);
    return error;
}

bool qb_decode_experts_fit(const qb_cuda_view &v, const decode_device &dev) {
    /* what the kernels hold statically is below 2 KiB */
    return v.kind == QB_CODES_F32 ||
           expert_plan(v.kind, true, true, v.padded_cols, dev.async_copies).total + QB_DECODE_STATIC_BYTES <=
               dev.shared_bytes;
}

int64_t qb_decode_experts_run(const qb_step_weights *w, int64_t i, int64_t n_experts) {
    const qb_step *p = &w->steps[i];
    const qb_matrix *m = &w->matrices[p->module];
    int64_t n = 0;
    for (; i + n < w->n_steps && n < n_experts; n++) {
        const qb_step *q = p + n;
        if (q->kind != QB_STEP_LINEAR || q->in != p->in || q->out != p->out || q->expert != n) return 0;
        if (w->matrices[q->module].rows != m->rows || w->matrices[q->module].cols != m->cols) return 0;
    }
    return n == n_experts ? n : 0;
}

namespace {

const qb_step_weights *list_at(const qb_decoder *d, int64_t i) {
    return i == 0 ? d->enter : i <= d->n_layers ? d->blocks[i - 1] : d->leave;
}

/* The group that begins at step i, its matrices into `to` (host memory). */
expert_group group_of(const qb_step_weights *w, int64_t i, int64_t n, expert_matrix *to) {
    expert_group g = {};
    bool kinds[QB_CODES_COUNT] = {}, fine[QB_CODES_COUNT] = {};
    g.w = w, g.at = i, g.n = n;
    g.rows = w->matrices[w->steps[i].module].rows, g.cols = w->matrices[w->steps[i].module].cols;
    for (int64_t e = 0; e < n; e++) {
        const int module = w->steps[i + e].module;
        const qb_cuda_view &v = *qb_cuda_view_of(&w->matrices[module]);
        to[e] = {v, w->biases[module]};
        kinds[v.kind] = true;
        fine[v.kind] = fine[v.kind] || qb_view_is_fine(&v);
        g.nested = g.nested || v.scale_kind == QB_VIEW_SCALES_NESTED;
        if (v.padded_cols > g.padded_cols) g.padded_cols = v.padded_cols;
    }
    for (int kind = 0; kind < QB_CODES_COUNT; kind++)
        if (kinds[kind]) g.codes |= 1u << decode_codes(kind, fine[kind]);
    return g;
}

template <typename Each> void each_group(const qb_decoder *d, Each each) {
    for (int64_t l = 0; l < d->n_layers + 2; l++) {
        const qb_step_weights *w = list_at(d, l);
        for (int64_t i = 0; i < w->n_steps; i++) {
            if (w->steps[i].kind != QB_STEP_LINEAR || w->steps[i].expert < 0) continue;
            each(w, i);
            i += d->n_experts - 1;
        }
    }
}

} // namespace

qb_status qb_decode_experts_make(cuda_device *d, const qb_decoder *decoder, decode_experts *out) {
    int64_t n_groups = 0, at = 0;
    expert_matrix *host = NULL;
    qb_status st = QB_OK;
    each_group(decoder, [&](const qb_step_weights *, int64_t) { n_groups++; });
    qb_decode_experts_free(d, out);
    if (n_groups > 0) {
        const int64_t n = n_groups * decoder->n_experts, bytes = n * static_cast<int64_t>(sizeof *host);
        st = qb_alloc_zero(static_cast<size_t>(n_groups), sizeof *out->groups, &out->groups);
        if (st == QB_OK) st = qb_alloc_zero(static_cast<size_t>(n), sizeof *host, &host);
        if (st == QB_OK) st = qb_cuda_alloc(&d->base, QB_MEMORY_WORKSPACE, bytes, &out->table);
        if (st == QB_OK) {
            each_group(decoder, [&](const qb_step_weights *w, int64_t i) {
                out->groups[at] = group_of(w, i, decoder->n_experts, host + at * decoder->n_experts);
                out->groups[at].matrices =
                    static_cast<const expert_matrix *>(out->table) + at * decoder->n_experts;
                at++;
            });
            st = qb_cuda_upload(&d->base, out->table, host, bytes);
        }
        qb_free(host);
    }
    if (st != QB_OK) {
        qb_decode_experts_free(d, out);
        return st;
    }
    out->n_groups = n_groups;
    out->decoder = decoder->id;
    return QB_OK;
}

void qb_decode_experts_free(cuda_device *d, decode_experts *e) {
    qb_cuda_free(&d->base, e->table);
    qb_free(e->groups);
    *e = {};
}
