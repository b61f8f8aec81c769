/* What the device can do at best, measured: speed results quote their share of it. */
#include "kernels/cuda/cuda.cuh"

#include <cuda_fp16.h>

namespace {

constexpr int64_t copy_bytes_most = int64_t{1} << 30;
constexpr int gemm_size_most = 8192, gemm_size_least = 512, rounds_most = 10, rounds_least = 3;
constexpr double seconds_most = 0.5, gemm_seconds_enough = 5e-3;

/* 16 bytes a thread and step, as the loads of a GEMV. */
__global__ void copy_kernel(const int4 *__restrict__ from, int4 *__restrict__ to, int64_t n) {
    int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        to[i] = from[i];
}

/* Noise of both signs: zeros run faster than weights do. */
__global__ void fill_kernel(half *x, int64_t n) {
    int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) {
        unsigned v = static_cast<unsigned>(i) * 2654435761u;
        x[i] = __float2half_rn(static_cast<float>(static_cast<int>(v >> 16) - 32768) / 32768.0f);
    }
}

cudaError_t fill(cuda_device *d, void *x, int64_t bytes) {
    return qb_launch(fill_kernel, dim3(static_cast<unsigned>(d->multiprocessors) * 8), dim3(256), 0,
                     d->stream, static_cast<half *>(x), bytes / 2);
}

/* Shortest time of several runs; the first warms up. */
template <typename Run> qb_status best_seconds(cuda_device *d, const Run &run, double *best) {
    double all = 0;
    *best = 0;
    for (int i = 0; i < rounds_least || (i < rounds_most && all < seconds_most); i++) {
        double seconds = 0;
        qb_status st = qb_cuda_timer_start(&d->base);
        if (st == QB_OK) st = run();
        if (st == QB_OK) st = qb_cuda_timer_stop(&d->base, &seconds);
        if (st != QB_OK) return st;
        all += seconds;
        if (i > 0 && (*best == 0 || seconds < *best)) *best = seconds;
    }
    return QB_OK;
}

qb_status measure_copy(cuda_device *d, double *bytes_per_s) {
    int64_t bytes = d->base.backend->available_bytes(&d->base) / 8 / 16 * 16;
    if (bytes > copy_bytes_most) bytes = copy_bytes_most;
    char *from = nullptr;
    double best = 0;
    qb_status st = qb_cuda_alloc(&d->base, QB_MEMORY_WORKSPACE, 2 * bytes, &from);
    if (st != QB_OK) return st;
    st = qb_cuda_status(d, fill(d, from, bytes), "the copy rate");
    auto run = [&] {
        return qb_cuda_status(d,
                              qb_launch(copy_kernel, dim3(static_cast<unsigned>(d->multiprocessors) * 16),
                                        dim3(512), 0, d->stream, reinterpret_cast<const int4 *>(from),
                                        reinterpret_cast<int4 *>(from + bytes), bytes / 16),
                              "the copy rate");
    };
    if (st == QB_OK) st = best_seconds(d, run, &best);
    if (st == QB_OK && best > 0) *bytes_per_s = 2.0 * static_cast<double>(bytes) / best;
    qb_cuda_free(&d->base, from);
    return st;
}

qb_status gemm_of_size(cuda_device *d, int n, double *best) {
    int64_t matrix = static_cast<int64_t>(n) * n * 2;
    char *a = nullptr;
    qb_status st = qb_cuda_alloc(&d->base, QB_MEMORY_WORKSPACE, 3 * matrix, &a);
    if (st != QB_OK) return st;
    st = qb_cuda_status(d, fill(d, a, 2 * matrix), "the GEMM rate");
    const float one = 1.0f, zero = 0.0f;
    auto run = [&] {
        return qb_cublas_status(d,
                                cublasGemmEx(d->blas, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a, CUDA_R_16F,
                                             n, a + matrix, CUDA_R_16F, n, &zero, a + 2 * matrix, CUDA_R_16F,
                                             n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                                "the GEMM rate");
    };
    if (st == QB_OK) st = best_seconds(d, run, best);
    qb_cuda_free(&d->base, a);
    return st;
}

/* Larger until a product takes long enough to fill the device. */
qb_status measure_gemm(cuda_device *d, double *flop_per_s) {
    for (int n = gemm_size_least; n <= gemm_size_most; n *= 2) {
        double best = 0;
        if (6 * static_cast<int64_t>(n) * n > d->base.backend->available_bytes(&d->base)) break;
        qb_status st = gemm_of_size(d, n, &best);
        if (st != QB_OK) return st;
        if (best <= 0) continue;
        double rate = 2.0 * n * n * n / best;
        if (rate > *flop_per_s) *flop_per_s = rate;
        if (best > gemm_seconds_enough) break;
    }
    return *flop_per_s > 0 ? QB_OK : qb_fail(QB_ERR_MEMORY, "no device memory left to measure the GEMM rate");
}

} // namespace

/* The arrays of a measurement are no part of what a model needs: its figures come back as they were. */
extern "C" qb_status qb_cuda_ceilings(qb_device *dev, qb_ceilings *out) {
    cuda_device *d = cuda_of(dev);
    if (!d->ceilings_known) {
        qb_memory before = d->memory;
        d->ceilings = qb_ceilings{};
        qb_status st = measure_copy(d, &d->ceilings.read_bytes_per_s);
        if (st == QB_OK) st = measure_gemm(d, &d->ceilings.gemm_flop_per_s);
        d->memory = before;
        if (st != QB_OK) return st;
        d->ceilings_known = true;
    }
    *out = d->ceilings;
    return QB_OK;
}
