/* Shared by the kernels that choose codes: weights widened as they are read, grids found by a warp, and
   device memory that lives for one problem. The files that include this are compiled without contraction of
   products and sums (-fmad=false): quant/'s loops contract nothing either, and both must give the same bits.
 */
#pragma once

#include "kernels/cuda/cuda.cuh"
#include "kernels/grid_math.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace qb {

constexpr unsigned all_lanes = 0xffffffffu;
constexpr int warps_a_block = 8;

/* Elements of a weight as float32. */
struct weight_view {
    const void *data;
    qb_dtype dtype;
    __device__ __forceinline__ float operator()(int64_t i) const {
        if (dtype == QB_DTYPE_F16) return __half2float(static_cast<const __half *>(data)[i]);
        if (dtype == QB_DTYPE_BF16) return __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[i]);
        return static_cast<const float *>(data)[i];
    }
};

/* Codes of an affine weight on the device. */
struct affine_codes {
    uint8_t *codes, *zeros; /* [rows, cols], [rows, n_groups] */
    float *scales;          /* [rows, n_groups] */
    int64_t rows, cols, group, n_groups;
    /* Element i, whose grid is at `at`, as a reader of the file finds it: the scale is stored as float16. */
    __device__ __forceinline__ float stored(int64_t i, int64_t at) const {
        return __half2float(__float2half(scales[at])) *
               (static_cast<float>(codes[i]) - static_cast<float>(zeros[at]));
    }
};

__device__ __forceinline__ float warp_least(float v) {
    for (int step = 16; step > 0; step >>= 1) {
        float other = __shfl_xor_sync(all_lanes, v, step);
        v = other < v ? other : v;
    }
    return v;
}

/* The mse search: each lane tries every 32nd range over all n values in their order, as the loops of quant/
   do; the least error wins, the first of equals. */
template <typename Values>
__device__ void search_grid(qb_grid_rule rule, const Values &value_of, int64_t n, float lo, float hi,
                            float maxq, float *scale, float *zero) {
    float best = INFINITY, best_scale = *scale, best_zero = *zero;
    int best_step = QB_GRID_SEARCH_STEPS, lane = static_cast<int>(threadIdx.x % 32);
    for (int i = lane; i < QB_GRID_SEARCH_STEPS; i += 32) {
        float p = qb_grid_shrink(i), s = qb_grid_settle_step((p * hi - p * lo) / maxq);
        float z = rule.symmetric ? *zero : qb_grid_round_even(-(p * lo) / s), error = 0;
        for (int64_t k = 0; k < n; k++) {
            float x = value_of(k), d = s * (qb_grid_code(x, s, z, maxq) - z) - x;
            error += qb_grid_power_2_4(fabsf(d));
        }
        if (error < best) best = error, best_scale = s, best_zero = z, best_step = i;
    }
    for (int step = 16; step > 0; step >>= 1) {
        float error = __shfl_xor_sync(all_lanes, best, step),
              s = __shfl_xor_sync(all_lanes, best_scale, step);
        float z = __shfl_xor_sync(all_lanes, best_zero, step);
        int at = __shfl_xor_sync(all_lanes, best_step, step);
        if (error < best || (error == best && at < best_step))
            best = error, best_scale = s, best_zero = z, best_step = at;
    }
    *scale = best_scale;
    *zero = best_zero;
}

/* Scale and zero point of n values, found by a whole warp; every lane gets them. */
template <typename Values>
__device__ void find_grid(qb_grid_rule rule, const Values &value_of, int64_t n, float *scale, float *zero) {
    float maxq = static_cast<float>((1 << rule.bits) - 1), lo = 0, hi = 0;
    for (int64_t k = threadIdx.x % 32; k < n; k += 32) {
        float x = value_of(k);
        lo = x < lo ? x : lo;
        hi = x > hi ? x : hi;
    }
    lo = warp_least(lo);
    hi = warp_max(hi);
    qb_grid_settle_range(rule.symmetric, maxq, &lo, &hi);
    float s = qb_grid_settle_step((hi - lo) / maxq);
    *scale = s;
    *zero = rule.symmetric ? (maxq + 1.0F) * 0.5F : qb_grid_round_even(-lo / s);
    if (rule.mse) search_grid(rule, value_of, n, lo, hi, maxq, scale, zero);
}

/* Device memory of one problem, given back with it. Out of memory is told once, by status(). */
class device_memory {
  public:
    explicit device_memory(cuda_device *d) : device(d) {}
    device_memory(const device_memory &) = delete;
    device_memory &operator=(const device_memory &) = delete;
    ~device_memory() {
        while (count > 0) qb_cuda_give_back(device, blocks[--count]);
    }
    template <typename T> T *take(int64_t n) {
        void *p = nullptr;
        if (state != QB_OK || count == max_blocks) return nullptr;
        state = qb_cuda_borrow(device, n * static_cast<int64_t>(sizeof(T)), &p);
        if (state == QB_OK) blocks[count++] = p;
        return static_cast<T *>(p);
    }
    qb_status status() const { return state; }

  private:
    static constexpr int max_blocks = 32;
    cuda_device *device;
    void *blocks[max_blocks];
    int count = 0;
    qb_status state = QB_OK;
};

} // namespace qb

#define QB_STEP(expr)                                                                                        \
    do {                                                                                                     \
        qb_status qb_step_status = (expr);                                                                   \
        if (qb_step_status != QB_OK) return qb_step_status;                                                  \
    } while (0)
#define QB_LAUNCH(d, op, ...) QB_STEP(qb_cuda_status(d, qb_launch(__VA_ARGS__), op))

/* quantize_round.cu: rounds rows of a weight on the device to nearest; grids by `rule`. */
qb_status qb_cuda_round_affine(cuda_device *d, qb_grid_rule rule, qb::weight_view w,
                               const qb::affine_codes *q) QB_NODISCARD;
/* The first element that is NaN or infinite lowers *dev_bad, which starts as UINT64_MAX. */
qb_status qb_cuda_find_bad(cuda_device *d, qb::weight_view w, int64_t n,
                           unsigned long long *dev_bad) QB_NODISCARD;
