/* kernels/route.c's choice of experts on the device, a warp a token: float64 scores, the first of equals. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/experts.cuh"

namespace {

constexpr int WARP = 32;

/* A warp's token in shared memory. */
struct route_rows {
    double *score, *value; /* [experts]: what the choice looks at, what the weights are made of */
    double *kept;          /* [top_k] in the order of choice */
    int32_t *chosen;
};

__device__ __forceinline__ double shuffle(double v, int width) {
    return __shfl_xor_sync(0xffffffffu, v, width);
}

/* The first of the largest, for every lane. */
__device__ __forceinline__ int best_of(const double *x, int n) {
    double most = -INFINITY;
    int best = n;
    for (int i = static_cast<int>(threadIdx.x); i < n; i += WARP)
        if (x[i] > most) most = x[i], best = i;
    for (int width = WARP / 2; width > 0; width /= 2) {
        const double other = shuffle(most, width);
        const int at = __shfl_xor_sync(0xffffffffu, best, width);
        if (other > most || (other == most && at < best)) most = other, best = at;
    }
    return best < n ? best : 0;
}

__device__ __forceinline__ double largest_of(const double *x, int n) {
    double m = -INFINITY;
    for (int i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* x = softmax(x). */
__device__ __forceinline__ void softmax(double *x, int n) {
    double m = -INFINITY, sum = 0.0;
    for (int i = static_cast<int>(threadIdx.x); i < n; i += WARP) m = x[i] > m ? x[i] : m;
    m = qb::warp_max(m);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += WARP) sum += x[i] = exp(x[i] - m);
    sum = qb::warp_sum(sum);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += WARP) x[i] /= sum;
    __syncwarp();
}

/* All but the best groups leave the choice; the last of equals falls first. */
__device__ __forceinline__ void limit_groups(const qb_route_attr &a, double *score) {
    const int groups = static_cast<int>(a.groups), size = static_cast<int>(a.experts / a.groups);
    for (int64_t drop = a.groups - a.keep_groups; drop > 0; drop--) {
        double least = INFINITY;
        int worst = -1;
        for (int g = static_cast<int>(threadIdx.x); g < groups; g += WARP) {
            const double m = largest_of(score + g * size, size);
            if (m > -INFINITY && m <= least) worst = g, least = m;
        }
        for (int width = WARP / 2; width > 0; width /= 2) {
            const double other = shuffle(least, width);
            const int at = __shfl_xor_sync(0xffffffffu, worst, width);
            if (other < least || (other == least && at > worst)) least = other, worst = at;
        }
        for (int i = static_cast<int>(threadIdx.x); worst >= 0 && i < size; i += WARP)
            score[worst * size + i] = -INFINITY;
        __syncwarp();
    }
}

__device__ __forceinline__ void take(const route_rows &r, int k, int e, double kept) {
    if (threadIdx.x == 0) r.chosen[k] = e, r.kept[k] = kept, r.score[e] = -INFINITY;
    __syncwarp();
}

__device__ __forceinline__ void choose(const qb_route_attr &a, const float *bias, const route_rows &r) {
    const int n = static_cast<int>(a.experts);
    if (a.kind == QB_ROUTER_SOFTMAX) softmax(r.value, n);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += WARP) {
        if (a.kind == QB_ROUTER_SIGMOID) r.value[i] = 1.0 / (1.0 + exp(-r.value[i]));
        if (bias) r.score[i] = r.value[i] + static_cast<double>(bias[i]);
    }
    __syncwarp();
    if (a.groups > 0) limit_groups(a, r.score);
    for (int k = 0; k < static_cast<int>(a.top_k); k++) {
        const int e = best_of(r.score, n);
        take(r, k, e, r.value[e]);
    }
    if (a.kind == QB_ROUTER_SOFTMAX_TOPK) softmax(r.kept, static_cast<int>(a.top_k));
}

/* Phi-3.5-MoE (transformers, models/phimoe): `value` holds the logits. */
__device__ __forceinline__ void choose_sparsemixer(const qb_route_attr &a, const route_rows &r) {
    const int n = static_cast<int>(a.experts);
    for (int k = 0; k < static_cast<int>(a.top_k); k++) {
        const int e = best_of(r.score, n);
        const double m = r.score[e];
        double sum = 0.0;
        for (int i = static_cast<int>(threadIdx.x); i < n; i += WARP) {
            const double factor = fmax(fabs(r.value[i]), m);
            const bool far = (m - r.score[i]) / factor > 2.0 * static_cast<double>(a.jitter);
            if (r.score[i] > -INFINITY && !far) sum += exp(r.score[i] - m);
        }
        sum = qb::warp_sum(sum);
        take(r, k, e, 1.0 / sum);
    }
}

/* Normalised, scaled and in the order of the experts: a few numbers, by one lane. */
__device__ __forceinline__ void finish(const qb_route_attr &a, const route_rows &r) {
    const int n = static_cast<int>(a.top_k);
    double sum = 0.0;
    for (int k = 0; k < n; k++) sum += r.kept[k];
    for (int k = 0; k < n; k++)
        r.kept[k] = (a.normalise && sum > 0.0 ? r.kept[k] / sum : r.kept[k]) * static_cast<double>(a.scale);
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && r.chosen[j - 1] > r.chosen[j]; j--) {
            const int32_t expert = r.chosen[j];
            const double weight = r.kept[j];
            r.chosen[j] = r.chosen[j - 1], r.kept[j] = r.kept[j - 1];
            r.chosen[j - 1] = expert, r.kept[j - 1] = weight;
        }
}

__global__ void __launch_bounds__(WARP)
    route_kernel(qb_route_attr a, const float *logits, const float *bias, int32_t *chosen, float *weight) {
    const int n = static_cast<int>(a.experts), top_k = static_cast<int>(a.top_k);
    route_rows r;
    r.score = ptx::dynamic_shared<double>();
    r.value = r.score + n;
    r.kept = r.value + n;
    r.chosen = reinterpret_cast<int32_t *>(r.kept + top_k);
    logits += static_cast<int64_t>(blockIdx.x) * n;
    bool fine = true;
    for (int i = static_cast<int>(threadIdx.x); i < n; i += WARP) {
        const float v = logits[i];
        fine = fine && isfinite(v) && (!bias || isfinite(bias[i]));
        r.score[i] = r.value[i] = isfinite(v) ? static_cast<double>(v) : 0.0; /* the ids stay in range */
    }
    fine = __all_sync(0xffffffffu, fine);
    __syncwarp();
    if (a.kind == QB_ROUTER_SPARSEMIXER)
        choose_sparsemixer(a, r);
    else
        choose(a, fine ? bias : nullptr, r);
    if (threadIdx.x == 0) finish(a, r);
    __syncwarp();
    for (int k = static_cast<int>(threadIdx.x); k < top_k; k += WARP) {
        const int64_t at = static_cast<int64_t>(blockIdx.x) * top_k + k;
        chosen[at] = r.chosen[k];
        weight[at] = fine ? static_cast<float>(r.kept[k]) : NAN;
    }
}

} // namespace

cudaError_t qb_queue_route(const qb_route_attr &a, const float *logits, const float *bias, int64_t T,
                           int32_t *chosen, float *weight, cudaStream_t stream) {
    const size_t bytes = static_cast<size_t>(2 * a.experts + a.top_k) * sizeof(double) +
                         static_cast<size_t>(a.top_k) * sizeof(int32_t);
    if (T <= 0) return cudaSuccess;
    return qb_launch(route_kernel, dim3(qb_blocks(T, 1)), dim3(WARP), bytes, stream, a, logits, bias, chosen,
                     weight);
}
