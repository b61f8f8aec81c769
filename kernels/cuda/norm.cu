/* RMSNorm and LayerNorm: one block a group of elements. */
#include "kernels/cuda/cuda.cuh"

namespace {

constexpr unsigned threads = 256;

/* Each thread reads and writes the same elements, so y may be x. */
__global__ void __launch_bounds__(threads)
    norm_kernel(bool layer, float *y, const float *x, const float *__restrict__ weight,
                const float *__restrict__ bias, int64_t D, int64_t weight_rows, float eps) {
    __shared__ float slots[32];
    const int64_t vectors = blockIdx.x % weight_rows * D;
    x += blockIdx.x * D;
    y += blockIdx.x * D;
    float mean = 0.0f;
    if (layer) {
        float sum = 0.0f;
        for (int64_t i = threadIdx.x; i < D; i += threads) sum += x[i];
        mean = qb::block_sum(sum, slots) / static_cast<float>(D);
    }
    float square = 0.0f; /* of the distance from the mean: a second pass, so that nothing cancels */
    for (int64_t i = threadIdx.x; i < D; i += threads) square += (x[i] - mean) * (x[i] - mean);
    float inverse = 1.0f / sqrtf(qb::block_sum(square, slots) / static_cast<float>(D) + eps);
    for (int64_t i = threadIdx.x; i < D; i += threads) {
        float v = (x[i] - mean) * inverse;
        if (weight) v *= weight[vectors + i];
        y[i] = bias ? v + bias[vectors + i] : v;
    }
}

} // namespace

extern "C" qb_status qb_cuda_norm(qb_device *dev, const qb_norm_attr *attr, float *y, const float *x,
                                  const float *weight, const float *bias, int64_t T, int64_t n) {
    cuda_device *d = cuda_of(dev);
    if (attr->dim < 1 || n % attr->dim != 0 || (attr->weight_rows > 1 && attr->weight_rows * attr->dim != n))
        return qb_fail(QB_ERR_INTERNAL,
                       "a norm of %lld elements with %lld rows of weights over %lld elements",
                       (long long)attr->dim, (long long)attr->weight_rows, (long long)n);
    if (T <= 0) return QB_OK;
    const int64_t groups = n / attr->dim, weight_rows = attr->weight_rows > 1 ? attr->weight_rows : 1;
    return qb_cuda_status(d,
                          qb_launch(norm_kernel, dim3(qb_blocks(T * groups, 1)), dim3(threads), 0, d->stream,
                                    attr->kind == QB_NORM_LAYER, y, x, weight, bias, attr->dim, weight_rows,
                                    attr->eps),
                          "norm");
}
