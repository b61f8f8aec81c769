/* RMSNorm and LayerNorm: one block a row. */
#include "kernels/cuda/cuda.cuh"

namespace {

constexpr unsigned threads = 256;

/* Each thread reads and writes the same elements, so y may be x. */
__global__ void __launch_bounds__(threads)
    norm_kernel(bool layer, float *y, const float *x, const float *__restrict__ weight,
                const float *__restrict__ bias, int64_t D, float eps) {
    __shared__ float slots[32];
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
        float v = (x[i] - mean) * inverse * weight[i];
        y[i] = bias ? v + bias[i] : v;
    }
}

} // namespace

extern "C" qb_status qb_cuda_norm(qb_device *dev, qb_norm_kind kind, float *y, const float *x,
                                  const float *weight, const float *bias, int64_t T, int64_t D, float eps) {
    cuda_device *d = cuda_of(dev);
    if (T <= 0) return QB_OK;
    return qb_cuda_status(d,
                          qb_launch(norm_kernel, dim3(qb_blocks(T, 1)), dim3(threads), 0, d->stream,
                                    kind == QB_NORM_LAYER, y, x, weight, bias, D, eps),
                          "norm");
}
