/* Rounding to nearest at the speed of memory: a warp a group of an affine weight, a warp a block of a
   codebook weight. */
#include "kernels/cuda/quantize.cuh"

#include <climits>

namespace {

using qb::affine_codes;
using qb::all_lanes;
using qb::warps_a_block;
using qb::weight_view;

constexpr int64_t most_sums = 1024, nested_block = QB_NESTED_BLOCK;

__device__ __forceinline__ int64_t warp_index() {
    return static_cast<int64_t>(blockIdx.x) * warps_a_block + threadIdx.x / 32;
}

__global__ void find_bad(weight_view w, int64_t n, unsigned long long *bad) {
    int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        if (w(i) * 0.0F != 0.0F) { /* 0 for every finite value, NaN for the others */
            atomicMin(bad, static_cast<unsigned long long>(i));
            return;
        }
}

struct group_values {
    weight_view w;
    int64_t first;
    __device__ __forceinline__ float operator()(int64_t k) const { return w(first + k); }
};

__global__ void __launch_bounds__(32 * warps_a_block)
    round_groups(qb_grid_rule rule, weight_view w, affine_codes q) {
    int64_t at = warp_index();
    if (at >= q.rows * q.n_groups) return;
    int64_t row = at / q.n_groups, begin = at % q.n_groups * q.group, first = row * q.cols + begin;
    int64_t n = q.cols - begin < q.group ? q.cols - begin : q.group;
    float scale, zero, maxq = static_cast<float>((1 << rule.bits) - 1);
    group_values values = {w, first};
    qb::find_grid(rule, values, n, &scale, &zero);
    for (int64_t k = threadIdx.x % 32; k < n; k += 32)
        q.codes[first + k] =
            static_cast<uint8_t>(static_cast<int32_t>(qb_grid_code(values(k), scale, zero, maxq)));
    if (threadIdx.x % 32 == 0) {
        q.scales[at] = scale;
        q.zeros[at] = static_cast<uint8_t>(zero);
    }
}

/* ---- codebooks ---- */

struct codebook_codes {
    uint8_t *codes;
    float *absmax;
    int64_t n, block, n_blocks;
    qb_code_bounds decision;
};

/* The least magnitude is clamped, so that a block of zeros gets the code of zero. */
__global__ void __launch_bounds__(32 * warps_a_block) encode_blocks(weight_view w, codebook_codes q) {
    int64_t b = warp_index();
    if (b >= q.n_blocks) return;
    int64_t first = b * q.block, n = q.n - first < q.block ? q.n - first : q.block;
    float absmax = 0;
    for (int64_t k = threadIdx.x % 32; k < n; k += 32) {
        float a = fabsf(w(first + k));
        absmax = a > absmax ? a : absmax;
    }
    absmax = qb::warp_max(absmax);
    float inverse = 1.0F / (absmax > 1e-38F ? absmax : 1e-38F);
    if (threadIdx.x % 32 == 0) q.absmax[b] = absmax;
    for (int64_t k = threadIdx.x % 32; k < n; k += 32) {
        float v = w(first + k) * inverse;
        int place = 0;
#pragma unroll
        for (int i = 0; i < 15; i++) place += v > q.decision.bounds[i];
        uint8_t code = 0;
#pragma unroll
        for (int i = 0; i < 16; i++) code = place == i ? q.decision.code[i] : code;
        q.codes[first + k] = code;
    }
}

/* The sum of all absmax in float64: floats of like size add up exactly there, whatever the order. */
__global__ void __launch_bounds__(most_sums) sum_absmax(const float *absmax, int64_t n, float *offset) {
    __shared__ double slots[32];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += most_sums) sum += static_cast<double>(absmax[i]);
    sum = qb::block_sum(sum, slots);
    if (threadIdx.x == 0) *offset = static_cast<float>(sum / static_cast<double>(n));
}

/* The entry of the ascending map that is nearest to x; the lower of two equally near. */
__device__ uint8_t nearest_entry(const float *map, float x) {
    int low = 0, high = 255;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (map[middle] <= x)
            low = middle;
        else
            high = middle;
    }
    return static_cast<uint8_t>(fabsf(x - map[high]) < fabsf(x - map[low]) ? high : low);
}

struct nested_codes {
    float *absmax, *nested_absmax;
    uint8_t *absmax_codes;
    const float *map, *offset;
    int64_t n_blocks;
};

/* A block of threads a nested block, a thread an absmax. */
__global__ void __launch_bounds__(nested_block) compress_absmax(nested_codes q) {
    __shared__ float slots[32];
    int64_t b = static_cast<int64_t>(blockIdx.x) * nested_block + threadIdx.x;
    float offset = *q.offset, x = b < q.n_blocks ? q.absmax[b] - offset : 0.0F;
    float largest = qb::block_max(fabsf(x), slots);
    if (threadIdx.x == 0) q.nested_absmax[blockIdx.x] = largest;
    if (b >= q.n_blocks) return;
    uint8_t code = nearest_entry(q.map, largest > 0 ? x / largest : 0.0F);
    q.absmax_codes[b] = code;
    q.absmax[b] = q.map[code] * largest + offset;
}

/* ---- errors ---- */

struct affine_values {
    affine_codes q;
    __device__ __forceinline__ float operator()(int64_t i) const {
        int64_t row = i / q.cols, at = row * q.n_groups + i % q.cols / q.group;
        return q.stored(i, at);
    }
};
struct codebook_values {
    const uint8_t *codes;
    const float *absmax, *table;
    int64_t block;
    __device__ __forceinline__ float operator()(int64_t i) const {
        return table[codes[i] & 15] * absmax[i / block];
    }
};

/* Sums of squares of w - q and of w, a pair a block of threads. */
template <typename Values>
__global__ void __launch_bounds__(256) square_errors(weight_view w, Values q, int64_t n, double *sums) {
    __shared__ double slots[32];
    double error = 0, norm = 0;
    int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) {
        double x = static_cast<double>(w(i)), e = x - static_cast<double>(q(i));
        error += e * e;
        norm += x * x;
    }
    error = qb::block_sum(error, slots);
    norm = qb::block_sum(norm, slots);
    if (threadIdx.x == 0) sums[2 * blockIdx.x] = error, sums[2 * blockIdx.x + 1] = norm;
}

unsigned blocks_for(int64_t n) {
    int64_t blocks = (n + 2047) / 2048;
    return static_cast<unsigned>(blocks < 1 ? 1 : blocks > most_sums ? most_sums : blocks);
}

/* Waits; the sums are added in the order of the blocks. */
qb_status read_errors(cuda_device *d, const double *sums, unsigned blocks, qb_code_job *job) {
    double host[2 * most_sums];
    QB_STEP(qb_cuda_download(&d->base, host, sums, static_cast<int64_t>(2 * blocks * sizeof *host)));
    job->error = job->norm = 0;
    for (unsigned i = 0; i < blocks; i++) {
        job->error += host[2 * i];
        job->norm += host[2 * i + 1];
    }
    return QB_OK;
}

qb_status round_affine_job(cuda_device *d, qb_grid_rule rule, weight_view w, qb::device_memory *memory,
                           double *sums, qb_code_job *job) {
    qb_qweight *q = job->q;
    int64_t n = job->rows * job->cols, grids = job->rows * q->n_groups;
    affine_codes codes = {};
    codes.codes = memory->take<uint8_t>(n);
    codes.zeros = memory->take<uint8_t>(grids);
    codes.scales = memory->take<float>(grids);
    codes.rows = job->rows, codes.cols = job->cols, codes.group = q->group_size, codes.n_groups = q->n_groups;
    QB_STEP(memory->status());
    QB_STEP(qb_cuda_round_affine(d, rule, w, &codes));
    unsigned blocks = blocks_for(n);
    affine_values values = {codes};
    QB_LAUNCH(d, "round", square_errors<affine_values>, blocks, 256, 0, d->stream, w, values, n, sums);
    QB_STEP(qb_cuda_download(&d->base, q->codes, codes.codes, n));
    QB_STEP(qb_cuda_download(&d->base, q->zeros, codes.zeros, grids));
    QB_STEP(qb_cuda_download(&d->base, q->scales, codes.scales, grids * static_cast<int64_t>(sizeof(float))));
    return read_errors(d, sums, blocks, job);
}

qb_status double_quantize(cuda_device *d, qb::device_memory *memory, float *absmax, qb_qweight *q) {
    int64_t nested = (q->n_blocks + nested_block - 1) / nested_block, f = sizeof(float);
    float *map = memory->take<float>(256), *offset = memory->take<float>(1);
    nested_codes n = {};
    n.absmax = absmax, n.map = map, n.offset = offset, n.n_blocks = q->n_blocks;
    n.nested_absmax = memory->take<float>(nested);
    n.absmax_codes = memory->take<uint8_t>(q->n_blocks);
    QB_STEP(memory->status());
    QB_STEP(qb_cuda_upload(&d->base, map, qb_dynamic_map(), 256 * f));
    QB_LAUNCH(d, "double quantization", sum_absmax, 1, most_sums, 0, d->stream, absmax, q->n_blocks, offset);
    QB_LAUNCH(d, "double quantization", compress_absmax, static_cast<unsigned>(nested), nested_block, 0,
              d->stream, n);
    QB_STEP(qb_cuda_download(&d->base, q->absmax_codes, n.absmax_codes, q->n_blocks));
    QB_STEP(qb_cuda_download(&d->base, q->nested_absmax, n.nested_absmax, nested * f));
    return qb_cuda_download(&d->base, &q->nested_offset, offset, f);
}

qb_status round_codebook_job(cuda_device *d, const qb_code_bounds *bounds, weight_view w,
                             qb::device_memory *memory, double *sums, qb_code_job *job) {
    qb_qweight *q = job->q;
    int64_t n = job->rows * job->cols, f = sizeof(float);
    codebook_codes codes = {};
    float *table = memory->take<float>(16);
    codes.codes = memory->take<uint8_t>(n);
    codes.absmax = memory->take<float>(q->n_blocks);
    codes.n = n, codes.block = q->block_size, codes.n_blocks = q->n_blocks, codes.decision = *bounds;
    QB_STEP(memory->status());
    QB_STEP(qb_cuda_upload(&d->base, table, qb_codebook_table(q->codebook), 16 * f));
    QB_LAUNCH(d, "encode", encode_blocks, qb_blocks(q->n_blocks, warps_a_block), 32 * warps_a_block, 0,
              d->stream, w, codes);
    if (q->double_quant) QB_STEP(double_quantize(d, memory, codes.absmax, q));
    unsigned blocks = blocks_for(n);
    codebook_values values = {codes.codes, codes.absmax, table, q->block_size};
    QB_LAUNCH(d, "encode", square_errors<codebook_values>, blocks, 256, 0, d->stream, w, values, n, sums);
    QB_STEP(qb_cuda_download(&d->base, q->codes, codes.codes, n));
    QB_STEP(qb_cuda_download(&d->base, q->absmax, codes.absmax, q->n_blocks * f));
    return read_errors(d, sums, blocks, job);
}

} // namespace

qb_status qb_cuda_round_affine(cuda_device *d, qb_grid_rule rule, qb::weight_view w, const affine_codes *q) {
    QB_LAUNCH(d, "round", round_groups, qb_blocks(q->rows * q->n_groups, warps_a_block), 32 * warps_a_block,
              0, d->stream, rule, w, *q);
    return QB_OK;
}

qb_status qb_cuda_find_bad(cuda_device *d, qb::weight_view w, int64_t n, unsigned long long *dev_bad) {
    QB_LAUNCH(d, "round", find_bad, blocks_for(n), 256, 0, d->stream, w, n, dev_bad);
    return QB_OK;
}

extern "C" qb_status qb_cuda_round(qb_device *dev, const qb_grid_rule *rule, const qb_code_bounds *bounds,
                                   qb_code_job *job) {
    cuda_device *d = cuda_of(dev);
    qb::device_memory memory(d);
    int64_t n = job->rows * job->cols, bytes = n * static_cast<int64_t>(qb_dtype_bytes(job->dtype));
    unsigned long long bad = ULLONG_MAX;
    weight_view w = {memory.take<uint8_t>(bytes), job->dtype};
    auto *dev_bad = memory.take<unsigned long long>(1);
    double *sums = memory.take<double>(2 * most_sums);
    QB_STEP(memory.status());
    QB_STEP(qb_cuda_upload(dev, const_cast<void *>(w.data), job->dense, bytes));
    QB_STEP(qb_cuda_upload(dev, dev_bad, &bad, sizeof bad));
    QB_STEP(qb_cuda_find_bad(d, w, n, dev_bad));
    QB_STEP(qb_cuda_download(dev, &bad, dev_bad, sizeof bad));
    job->bad = bad == ULLONG_MAX ? -1 : static_cast<int64_t>(bad);
    if (job->bad >= 0) return QB_OK;
    return rule ? round_affine_job(d, *rule, w, &memory, sums, job)
                : round_codebook_job(d, bounds, w, &memory, sums, job);
}
