/* The Hessian of a GPTQ problem: finished, ordered and factored where it was summed. As quant/hessian.c: with
   P the index reversal and P H P = L L^T, the upper factor of H^-1 is P L^-1 P (docs/methods.md, 6), which
   takes one Cholesky factorization and one inversion of a triangle, and never H^-1. */
#include "kernels/cuda/gptq.cuh"

#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cusolverDn.h>

namespace {

constexpr int tile_width = 32, wide_block = 1024;

/* Scales the lower triangle and writes it above the diagonal too, a pair of tiles a block of threads. */
__global__ void __launch_bounds__(tile_width * 8) mirror(float *h, int64_t n, float scale) {
    __shared__ float tile[tile_width][tile_width + 1];
    if (blockIdx.x > blockIdx.y) return;
    int64_t row0 = static_cast<int64_t>(blockIdx.y) * tile_width,
            col0 = static_cast<int64_t>(blockIdx.x) * tile_width;
    for (int r = static_cast<int>(threadIdx.y); r < tile_width; r += 8) {
        int64_t i = row0 + r, j = col0 + threadIdx.x;
        if (i >= n || j > i) continue;
        float v = h[i * n + j] * scale;
        h[i * n + j] = v;
        tile[r][threadIdx.x] = v;
    }
    __syncthreads();
    for (int r = static_cast<int>(threadIdx.y); r < tile_width; r += 8) {
        int64_t i = row0 + threadIdx.x, j = col0 + r; /* (j, i) above the diagonal */
        if (i < n && j < i) h[j * n + i] = tile[threadIdx.x][r];
    }
}

/* Any NaN, infinity or overflow in the inputs shows on the diagonal, since |x y| <= (x x + y y) / 2. */
__global__ void __launch_bounds__(wide_block) inspect_diagonal(qb_gptq_hessian h) {
    __shared__ double sums[32];
    __shared__ int counts[32];
    double sum = 0;
    int dead = 0;
    for (int64_t i = threadIdx.x; i < h.n; i += wide_block) {
        float v = h.h[i * h.n + i];
        if (!isfinite(v) || v < 0) atomicMin(&h.facts->bad_channel, static_cast<unsigned long long>(i));
        bool is_dead = v == 0.0F;
        if (is_dead) h.h[i * h.n + i] = v = 1.0F;
        h.dead[i] = is_dead;
        h.diagonal[i] = isfinite(v) ? v : 0.0F; /* an order of all columns comes of it in any case */
        dead += is_dead;
        sum += static_cast<double>(v);
    }
    sum = qb::block_sum(sum, sums);
    dead = qb::block_sum(dead, counts);
    __syncthreads();
    if (threadIdx.x != 0) return;
    h.facts->mean = sum / static_cast<double>(h.n);
    h.facts->dead = dead;
    if (h.facts->bad_channel != ULLONG_MAX)
        h.facts->bad_sum = h.h[h.facts->bad_channel * static_cast<unsigned long long>(h.n + 1)];
}

/* A column's place is the number of columns before it: larger on the diagonal, or equal and of lower index.
 */
__global__ void __launch_bounds__(256) rank_columns(qb_gptq_hessian h) {
    int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= h.n) return;
    float own = h.diagonal[i];
    int64_t before = 0;
    for (int64_t j = 0; j < h.n; j++) {
        float other = h.diagonal[j];
        before += other > own || (other == own && j < i);
    }
    h.perm[before] = static_cast<int32_t>(i);
}

/* Lower triangle of the damped, permuted H with its index reversed; zeros above. */
__global__ void __launch_bounds__(256) gather(qb_gptq_hessian h, double damp_percent) {
    int64_t i = blockIdx.y, j = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x, last = h.n - 1;
    if (j >= h.n) return;
    float v = 0;
    if (j <= i) {
        int64_t row = h.perm ? h.perm[last - i] : last - i, col = h.perm ? h.perm[last - j] : last - j;
        v = h.h[row * h.n + col];
        if (i == j) v += static_cast<float>(damp_percent * h.facts->mean);
    }
    h.u[i * h.n + j] = v;
}

/* Reversing both indices reverses the array as a whole. */
__global__ void __launch_bounds__(256) reverse(float *u, int64_t count) {
    int64_t stride = static_cast<int64_t>(gridDim.x) * 256;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x; i < count / 2; i += stride) {
        float v = u[i];
        u[i] = u[count - 1 - i];
        u[count - 1 - i] = v;
    }
}

/* The library's word, and that every pivot is a positive number: some factorizations let NaN through. */
__global__ void __launch_bounds__(wide_block) inspect_factor(qb_gptq_hessian h, const int *info) {
    if (threadIdx.x == 0 && *info != 0) h.facts->not_positive = 1;
    for (int64_t i = threadIdx.x; i < h.n; i += wide_block) {
        float v = h.u[i * h.n + i];
        if (!(v > 0.0F) || !isfinite(v)) atomicMax(&h.facts->not_positive, 1);
    }
}

/* ---- the library ---- */

struct solver {
    cusolverDnHandle_t handle;
    cusolverDnParams_t params;
};

void free_solver(cuda_device *, void *state) {
    solver *s = static_cast<solver *>(state);
    if (s->params) cusolverDnDestroyParams(s->params);
    if (s->handle) cusolverDnDestroy(s->handle);
    delete s;
}

qb_status solver_status(cuda_device *d, cusolverStatus_t status) {
    if (status == CUSOLVER_STATUS_SUCCESS) return QB_OK;
    char words[40];
    snprintf(words, sizeof words, "code %d%s", static_cast<int>(status),
             status == CUSOLVER_STATUS_ALLOC_FAILED ? ", out of memory" : "");
    return qb_library_status(d, status == CUSOLVER_STATUS_ALLOC_FAILED, "cuSOLVER", "gptq", words);
}

qb_status solver_of(cuda_device *d, solver **out) {
    auto &part = d->parts[QB_CUDA_PART_GPTQ];
    *out = nullptr;
    if (!part.state) {
        solver *s = new solver();
        qb_status st = solver_status(d, cusolverDnCreate(&s->handle));
        if (st == QB_OK) st = solver_status(d, cusolverDnCreateParams(&s->params));
        if (st == QB_OK) st = solver_status(d, cusolverDnSetStream(s->handle, d->stream));
        if (st != QB_OK) {
            free_solver(d, s);
            return st;
        }
        part.state = s;
        part.free = free_solver;
    }
    *out = static_cast<solver *>(part.state);
    return QB_OK;
}

/* A need of the library: on the device, and on the host. */
struct work_space {
    void *device, *host;
    size_t device_bytes, host_bytes;
};
struct solver_work {
    solver *with;
    work_space potrf, trtri;
    int *info;
};

/* Row-major lower is column-major upper. */
constexpr cublasFillMode_t triangle = CUBLAS_FILL_MODE_UPPER;

/* All sizes are of 64 bits: a square of 46341 columns and more has 2^31 elements. */
qb_status plan_work(cuda_device *d, qb::device_memory *memory, qb_gptq_hessian *h, solver_work *w) {
    QB_STEP(solver_of(d, &w->with));
    QB_STEP(solver_status(d, cusolverDnXpotrf_bufferSize(w->with->handle, w->with->params, triangle, h->n,
                                                         CUDA_R_32F, h->u, h->n, CUDA_R_32F,
                                                         &w->potrf.device_bytes, &w->potrf.host_bytes)));
    QB_STEP(solver_status(d, cusolverDnXtrtri_bufferSize(w->with->handle, triangle, CUBLAS_DIAG_NON_UNIT,
                                                         h->n, CUDA_R_32F, h->u, h->n, &w->trtri.device_bytes,
                                                         &w->trtri.host_bytes)));
    w->potrf.device = memory->take<uint8_t>(static_cast<int64_t>(w->potrf.device_bytes));
    w->trtri.device = memory->take<uint8_t>(static_cast<int64_t>(w->trtri.device_bytes));
    w->info = memory->take<int>(1);
    return memory->status();
}

qb_status factor_once(cuda_device *d, qb_gptq_hessian *h, double damp_percent, const solver_work *w,
                      qb_gptq_facts *facts) {
    dim3 grid(qb_blocks(h->n, 256), static_cast<unsigned>(h->n));
    QB_LAUNCH(d, "gptq", gather, grid, 256, 0, d->stream, *h, damp_percent);
    QB_STEP(solver_status(d, cusolverDnXpotrf(w->with->handle, w->with->params, triangle, h->n, CUDA_R_32F,
                                              h->u, h->n, CUDA_R_32F, w->potrf.device, w->potrf.device_bytes,
                                              w->potrf.host, w->potrf.host_bytes, w->info)));
    QB_LAUNCH(d, "gptq", inspect_factor, 1, wide_block, 0, d->stream, *h, w->info);
    QB_STEP(solver_status(d, cusolverDnXtrtri(w->with->handle, triangle, CUBLAS_DIAG_NON_UNIT, h->n,
                                              CUDA_R_32F, h->u, h->n, w->trtri.device, w->trtri.device_bytes,
                                              w->trtri.host, w->trtri.host_bytes, w->info)));
    QB_LAUNCH(d, "gptq", reverse, 1024, 256, 0, d->stream, h->u, h->n * h->n);
    QB_LAUNCH(d, "gptq", inspect_factor, 1, wide_block, 0, d->stream, *h, w->info);
    return qb_cuda_download(&d->base, facts, h->facts, sizeof *facts);
}

qb_status factor(cuda_device *d, qb_gptq_problem *p, qb_gptq_hessian *h, const solver_work *w) {
    qb_gptq_facts facts;
    double damp = p->damp_percent;
    for (;;) {
        p->damp_used = damp;
        QB_STEP(factor_once(d, h, damp, w, &facts));
        p->dead_columns = facts.dead;
        if (facts.bad_channel != ULLONG_MAX) {
            p->bad_channel = static_cast<int64_t>(facts.bad_channel);
            p->bad_sum = facts.bad_sum;
            return QB_OK;
        }
        if (!facts.not_positive) return QB_OK;
        if (damp >= 1.0) break;
        damp = damp > 0 ? fmin(damp * 10, 1.0) : 0.01;
        p->retries++;
        facts.not_positive = 0;
        QB_STEP(qb_cuda_upload(&d->base, h->facts, &facts, sizeof facts));
    }
    p->not_positive = true;
    return QB_OK;
}

} // namespace

qb_status qb_cuda_gptq_factor(cuda_device *d, qb_gptq_problem *p, qb::device_memory *memory,
                              qb_gptq_hessian *h) {
    int64_t n = p->cols;
    qb_gptq_facts start = {};
    solver_work work = {};
    start.bad_channel = ULLONG_MAX;
    *h = {};
    h->n = n, h->h = p->dev_h;
    h->u = memory->take<float>(n * n);
    h->diagonal = memory->take<float>(n);
    h->dead = memory->take<uint8_t>(n);
    if (p->act_order) h->perm = memory->take<int32_t>(n);
    h->facts = memory->take<qb_gptq_facts>(1);
    QB_STEP(memory->status());
    QB_STEP(plan_work(d, memory, h, &work));
    QB_STEP(qb_cuda_upload(&d->base, h->facts, &start, sizeof start));
    unsigned tiles = qb_blocks(n, tile_width);
    QB_LAUNCH(d, "gptq", mirror, dim3(tiles, tiles), dim3(tile_width, 8), 0, d->stream, h->h, n,
              2.0F / static_cast<float>(p->n_samples));
    QB_LAUNCH(d, "gptq", inspect_diagonal, 1, wide_block, 0, d->stream, *h);
    if (h->perm) QB_LAUNCH(d, "gptq", rank_columns, qb_blocks(n, 256), 256, 0, d->stream, *h);
    if (work.potrf.host_bytes + work.trtri.host_bytes > 0) {
        work.potrf.host = malloc(work.potrf.host_bytes + work.trtri.host_bytes + alignof(max_align_t));
        if (!work.potrf.host) return qb_fail(QB_ERR_MEMORY, "out of memory");
        size_t skip = (work.potrf.host_bytes + alignof(max_align_t) - 1) / alignof(max_align_t);
        work.trtri.host = static_cast<uint8_t *>(work.potrf.host) + skip * alignof(max_align_t);
    }
    qb_status st = factor(d, p, h, &work);
    free(work.potrf.host);
    return st;
}
