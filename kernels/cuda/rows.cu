/* Ops that move rows: fused tensors cut and joined, tokens to their experts and back. Routing itself is the
   host's. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/experts.cuh"

extern "C" {
#include "base/memory.h"
}

namespace {

constexpr int64_t threads = 256;

struct split_shape {
    int64_t width[3], group, n; /* elements of a group, and of all rows */
};
struct split_parts {
    float *part[3];
};

__global__ void split_kernel(split_shape s, const float *__restrict__ x, split_parts out) {
    int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (i >= s.n) return;
    int64_t group = i / s.group, d = i % s.group;
    int part = 0;
    for (; part < 2 && d >= s.width[part]; part++) d -= s.width[part];
    out.part[part][group * s.width[part] + d] = x[i];
}

__global__ void join_kernel(qb_join_attr a, float *y, const float *__restrict__ x,
                            const float *__restrict__ shared, int64_t n) {
    int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (i >= n) return;
    int64_t head = i / (a.width + a.shared), d = i % (a.width + a.shared);
    y[i] = d < a.width ? x[head * a.width + d] : shared[head / a.heads * a.shared + d - a.width];
}

struct concat_parts {
    const float *part[3];
    int64_t width[3];
};

__global__ void concat_kernel(float *out, concat_parts p, int64_t width, int64_t n) {
    int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (i >= n) return;
    int64_t row = i / width, d = i % width;
    int part = 0;
    for (; part < 2 && d >= p.width[part]; part++) d -= p.width[part];
    out[i] = p.part[part][row * p.width[part] + d];
}

/* One block a row of the routing. token NULL: rows lie by token, top_k each. */
__global__ void gather_kernel(float *y, const float *__restrict__ x, const int32_t *__restrict__ token,
                              const float *__restrict__ weight, int64_t top_k, int64_t n) {
    const float *from = x + (token ? token[blockIdx.x] : blockIdx.x / top_k) * n;
    float *to = y + blockIdx.x * n;
    for (int64_t i = threadIdx.x; i < n; i += threads)
        to[i] = weight ? weight[blockIdx.x] * from[i] : from[i];
}

/* One block a token; its rows in the order of their experts. row NULL: they lie so. */
__global__ void scatter_kernel(float *y, const float *__restrict__ x, const int32_t *__restrict__ row,
                               const float *__restrict__ weight, int64_t top_k, int64_t n) {
    const int64_t first = blockIdx.x * top_k;
    for (int64_t i = threadIdx.x; i < n; i += threads) {
        float sum = 0.0f;
        for (int64_t k = first; k < first + top_k; k++) {
            const int64_t at = row ? row[k] : k;
            sum += (weight ? weight[at] : 1.0f) * x[at * n + i];
        }
        y[blockIdx.x * n + i] = sum;
    }
}

/* Rows and weights of a routing in the device's scratch; dev_weight NULL when not wanted. */
qb_status put_routing(qb_device *dev, const int32_t *index, const float *weight, int64_t n, bool weigh,
                      int32_t **dev_index, float **dev_weight) {
    const int64_t bytes = n * static_cast<int64_t>(sizeof *index);
    *dev_weight = NULL;
    qb_status st = qb_cuda_scratch(cuda_of(dev), 2 * bytes, dev_index);
    if (st == QB_OK) st = qb_cuda_upload(dev, *dev_index, index, bytes);
    if (st != QB_OK || !weigh) return st;
    *dev_weight = reinterpret_cast<float *>(*dev_index + n);
    return qb_cuda_upload(dev, *dev_weight, weight, bytes);
}

} // namespace

cudaError_t qb_queue_gather(const float *weight, float *y, const float *x, int64_t T, int64_t top_k,
                            int64_t n, cudaStream_t stream) {
    const int32_t *by_token = nullptr;
    return qb_launch(gather_kernel, dim3(qb_blocks(T * top_k, 1)), dim3(threads), 0, stream, y, x, by_token,
                     weight, top_k, n);
}

cudaError_t qb_queue_scatter(const float *weight, float *y, const float *x, int64_t T, int64_t top_k,
                             int64_t n, cudaStream_t stream) {
    const int32_t *by_token = nullptr;
    return qb_launch(scatter_kernel, dim3(qb_blocks(T, 1)), dim3(threads), 0, stream, y, x, by_token, weight,
                     top_k, n);
}

extern "C" qb_status qb_cuda_split(qb_device *dev, const qb_split_attr *a, const float *x,
                                   float *const out[3], int64_t T) {
    cuda_device *d = cuda_of(dev);
    split_shape s = {{a->width[0], a->width[1], a->width[2]}, a->width[0] + a->width[1] + a->width[2], 0};
    s.n = T * a->groups * s.group;
    if (s.n <= 0) return QB_OK;
    const split_parts parts = {{out[0], out[1], a->width[2] > 0 ? out[2] : NULL}};
    return qb_cuda_status(
        d, qb_launch(split_kernel, dim3(qb_blocks(s.n, threads)), dim3(threads), 0, d->stream, s, x, parts),
        "split");
}

extern "C" qb_status qb_cuda_join(qb_device *dev, const qb_join_attr *a, float *y, const float *x,
                                  const float *shared, int64_t T) {
    cuda_device *d = cuda_of(dev);
    const int64_t n = T * a->heads * (a->width + a->shared);
    if (n <= 0) return QB_OK;
    return qb_cuda_status(
        d,
        qb_launch(join_kernel, dim3(qb_blocks(n, threads)), dim3(threads), 0, d->stream, *a, y, x, shared, n),
        "join");
}

extern "C" qb_status qb_cuda_concat(qb_device *dev, float *out, const float *const x[3], const int64_t n[3],
                                    int64_t T) {
    cuda_device *d = cuda_of(dev);
    const concat_parts p = {{x[0], x[1], x[2]}, {n[0], n[1], x[2] ? n[2] : 0}};
    const int64_t width = p.width[0] + p.width[1] + p.width[2], all = T * width;
    if (all <= 0) return QB_OK;
    return qb_cuda_status(d,
                          qb_launch(concat_kernel, dim3(qb_blocks(all, threads)), dim3(threads), 0, d->stream,
                                    out, p, width, all),
                          "concat");
}

extern "C" qb_status qb_cuda_route(qb_device *dev, const qb_route_attr *attr, const float *logits,
                                   const float *bias, int64_t T, qb_routing *out) {
    const int64_t n = T * attr->experts, width = sizeof(float);
    float *host, *host_bias = NULL; /* behind the logits */
    qb_status st = qb_alloc(static_cast<size_t>(n + attr->experts), sizeof *host, &host);
    if (st == QB_OK) st = qb_cuda_download(dev, host, logits, n * width);
    if (st == QB_OK && bias) st = qb_cuda_download(dev, host_bias = host + n, bias, attr->experts * width);
    if (st == QB_OK) st = qb_route(attr, host, host_bias, T, out);
    qb_free(host);
    return st;
}

extern "C" qb_status qb_cuda_gather(qb_device *dev, const qb_routing *r, bool weigh, float *y, const float *x,
                                    int64_t n) {
    cuda_device *d = cuda_of(dev);
    int32_t *token;
    float *weight;
    if (r->rows <= 0) return QB_OK;
    qb_status st = put_routing(dev, r->token, r->weight, r->rows, weigh, &token, &weight);
    if (st != QB_OK) return st;
    return qb_cuda_status(d,
                          qb_launch(gather_kernel, dim3(qb_blocks(r->rows, 1)), dim3(threads), 0, d->stream,
                                    y, x, token, weight, r->top_k, n),
                          "gather");
}

extern "C" qb_status qb_cuda_scatter(qb_device *dev, const qb_routing *r, bool weigh, float *y,
                                     const float *x, int64_t T, int64_t n) {
    cuda_device *d = cuda_of(dev);
    int32_t *row;
    float *weight;
    if (T * r->top_k != r->rows)
        return qb_fail(QB_ERR_INTERNAL, "%lld tokens of %lld experts from a routing of %lld rows",
                       (long long)T, (long long)r->top_k, (long long)r->rows);
    if (r->rows <= 0) return QB_OK;
    qb_status st = put_routing(dev, r->row, r->weight, r->rows, weigh, &row, &weight);
    if (st != QB_OK) return st;
    return qb_cuda_status(d,
                          qb_launch(scatter_kernel, dim3(qb_blocks(T, 1)), dim3(threads), 0, d->stream, y, x,
                                    row, weight, r->top_k, n),
                          "scatter");
}
