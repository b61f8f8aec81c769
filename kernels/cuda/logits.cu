/* What is read off logits: the negative log-likelihood, the largest, and whether all are finite. One block a
   row; a row is read twice, the second time from the L2 cache. */
#include "kernels/cuda/cuda.cuh"

#include <cmath>

namespace {

constexpr unsigned threads = 256;
constexpr int none = 0x7fffffff;

/* The first index of the largest element, `none` where the row holds a NaN or an infinity. Every thread gets
 * both. */
__device__ int largest_of_row(const float *row, int64_t V, float *largest) {
    __shared__ float slots[32];
    __shared__ int places[32];
    float best = -INFINITY;
    int at = none;
    bool bad = false;
    for (int64_t i = threadIdx.x; i < V; i += threads) {
        float v = row[i];
        bad |= !(fabsf(v) < INFINITY);
        if (v > best) best = v, at = static_cast<int>(i);
    }
    bad = __syncthreads_or(bad) != 0;
    *largest = qb::block_max(best, slots);
    /* Of the threads that saw it the lowest index wins: as a negative, so that the same maximum serves. */
    int first = -qb::block_max(best == *largest ? -at : -none, places);
    return bad ? none : first;
}

/* out: a NaN where the row is not finite, 0 where there is no target. The exponentials are float32, which is
   exact to 1 ulp; what adds up thousands of them is float64. */
__global__ void __launch_bounds__(threads) nll_kernel(const float *__restrict__ logits, int64_t V,
                                                      const int32_t *__restrict__ targets, double *out) {
    __shared__ double sums[32];
    const float *row = logits + blockIdx.x * V;
    float shift;
    int at = largest_of_row(row, V, &shift);
    int32_t target = targets[blockIdx.x];
    double sum = 0.0;
    if (at != none && target >= 0)
        for (int64_t i = threadIdx.x; i < V; i += threads) sum += static_cast<double>(expf(row[i] - shift));
    sum = qb::block_sum(sum, sums);
    if (threadIdx.x != 0) return;
    double nll = 0.0;
    if (at == none)
        nll = static_cast<double>(NAN);
    else if (target >= 0)
        nll = log(sum) - (static_cast<double>(row[target]) - static_cast<double>(shift));
    out[blockIdx.x] = nll;
}

/* out: `none` where the row is not finite. */
__global__ void __launch_bounds__(threads)
    argmax_kernel(const float *__restrict__ logits, int64_t V, int32_t *out) {
    float largest;
    int at = largest_of_row(logits + blockIdx.x * V, V, &largest);
    if (threadIdx.x == 0) out[blockIdx.x] = at;
}

/* found: set to 1 where anything is not finite, by whoever sees it. */
__global__ void __launch_bounds__(threads)
    finite_kernel(const float *__restrict__ x, int64_t n, int32_t *found) {
    bool bad = false;
    int64_t stride = static_cast<int64_t>(gridDim.x) * threads;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x; i < n; i += stride)
        bad |= !(fabsf(x[i]) < INFINITY);
    if (__syncthreads_or(bad) && threadIdx.x == 0) *found = 1;
}

qb_status not_finite(int64_t row) {
    return qb_fail(QB_ERR_NUMERIC, "the logits of row %lld hold a NaN or an infinity",
                   static_cast<long long>(row));
}

} // namespace

extern "C" qb_status qb_cuda_nll(qb_device *dev, const float *logits, int64_t T, int64_t V,
                                 const int32_t *targets, double *out) {
    cuda_device *d = cuda_of(dev);
    const int64_t out_bytes = T * 8, target_bytes = T * 4;
    double *dev_out;
    for (int64_t t = 0; t < T; t++)
        if (targets[t] >= V)
            return qb_fail(QB_ERR_INTERNAL, "target %d of row %lld; the vocabulary has %lld", targets[t],
                           static_cast<long long>(t), static_cast<long long>(V));
    if (T <= 0) return QB_OK;
    qb_status st = qb_cuda_scratch(d, out_bytes + target_bytes, &dev_out);
    if (st != QB_OK) return st;
    int32_t *dev_targets = reinterpret_cast<int32_t *>(dev_out + T);
    st = qb_cuda_upload(dev, dev_targets, targets, target_bytes);
    if (st == QB_OK)
        st = qb_cuda_status(d,
                            qb_launch(nll_kernel, dim3(qb_blocks(T, 1)), dim3(threads), 0, d->stream, logits,
                                      V, dev_targets, dev_out),
                            "nll");
    if (st == QB_OK) st = qb_cuda_download(dev, out, dev_out, out_bytes);
    if (st != QB_OK) return st;
    for (int64_t t = T - 1; t >= 0; t--)
        if (std::isnan(out[t])) out[t] = 0.0, st = not_finite(t); /* the first one's sentence stays */
    return st;
}

extern "C" qb_status qb_cuda_argmax(qb_device *dev, const float *logits, int64_t T, int64_t V, int32_t *out) {
    cuda_device *d = cuda_of(dev);
    int32_t *dev_out;
    if (T <= 0) return QB_OK;
    qb_status st = qb_cuda_scratch(d, T * 4, &dev_out);
    if (st == QB_OK)
        st = qb_cuda_status(
            d,
            qb_launch(argmax_kernel, dim3(qb_blocks(T, 1)), dim3(threads), 0, d->stream, logits, V, dev_out),
            "argmax");
    if (st == QB_OK) st = qb_cuda_download(dev, out, dev_out, T * 4);
    if (st != QB_OK) return st;
    for (int64_t t = T - 1; t >= 0; t--)
        if (out[t] == none) out[t] = 0, st = not_finite(t);
    return st;
}

extern "C" qb_status qb_cuda_all_finite(qb_device *dev, const float *x, int64_t n, bool *out) {
    cuda_device *d = cuda_of(dev);
    int32_t *dev_found, found = 0;
    *out = true;
    if (n <= 0) return QB_OK;
    qb_status st = qb_cuda_scratch(d, 4, &dev_found);
    if (st == QB_OK) st = qb_cuda_clear(dev, dev_found, 4);
    int64_t most = static_cast<int64_t>(d->multiprocessors) * 8, blocks = (n + threads - 1) / threads;
    if (st == QB_OK)
        st = qb_cuda_status(d,
                            qb_launch(finite_kernel, dim3(qb_blocks(blocks < most ? blocks : most, 1)),
                                      dim3(threads), 0, d->stream, x, n, dev_found),
                            "all_finite");
    if (st == QB_OK) st = qb_cuda_download(dev, &found, dev_found, 4);
    *out = found == 0;
    return st;
}
