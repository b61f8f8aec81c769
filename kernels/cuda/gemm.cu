/* Many tokens, and Hessians: float16 into cuBLAS, float32 sums. Weights are dequantized in panels, whole
   matrices but for the largest: fewer rows leave multiprocessors idle, which costs more than the second level
   cache saves; activations are converted once. Both are scaled by powers of two, so that no float32
   activation and no weight is too large for float16. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/matrix_kernels.h"

#include <cuda_fp16.h>

namespace {

constexpr int64_t PANEL_BYTES = 48 << 20, PANEL_MOST = 128 << 20; /* dequantized weights at once */
constexpr int64_t CHUNK_TOKENS = 16 << 10; /* activations at once; a panel is dequantized once a chunk */
constexpr int64_t ALIGNMENT = QB_CUDA_SCRATCH_ALIGNMENT;
/* The tile of a GEMM that one multiprocessor computes at a time, as cuBLAS cuts large ones. */
constexpr int64_t GEMM_TILE_ROWS = 128, GEMM_TILE_COLS = 256;
constexpr int HESSIAN_PANELS = 16, HESSIAN_PANEL_LEAST = 256;

int64_t aligned(int64_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}
int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* cuBLAS takes its scalars from the device while one of these lives. */
struct device_scalars {
    cublasHandle_t handle;
    explicit device_scalars(cuda_device *d) : handle(d->blas) {
        cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_DEVICE);
    }
    ~device_scalars() { cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_HOST); }
};

/* Float32 weights [rows, cols], exactly: no TF32, for the handle's math mode is the default. */
qb_status gemm_f32(cuda_device *d, float *y, const float *x, int64_t T, const qb_cuda_matrix *m) {
    const qb_cuda_view *v = &m->view;
    const int64_t panel_rows = m->pinned ? least(v->rows, PANEL_BYTES / (v->cols * 4) + 1) : v->rows;
    const float one = 1.0f, zero = 0.0f;
    float *panel = nullptr;
    qb_status st = m->pinned ? qb_cuda_scratch(d, panel_rows * v->cols * 4, &panel) : QB_OK;
    for (int64_t row = 0; row < v->rows && st == QB_OK; row += panel_rows) {
        const int64_t n = least(panel_rows, v->rows - row);
        const float *w = reinterpret_cast<const float *>(v->codes) + row * v->cols;
        if (m->pinned) {
            st = qb_cuda_status(
                d,
                cudaMemcpyAsync(panel, w, static_cast<size_t>(n * v->cols * 4), cudaMemcpyDefault, d->stream),
                "matmul");
            w = panel;
        }
        for (int64_t t = 0; t < T && st == QB_OK; t += CHUNK_TOKENS)
            st = qb_cublas_status(d,
                                  cublasSgemm(d->blas, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(n),
                                              static_cast<int>(least(CHUNK_TOKENS, T - t)),
                                              static_cast<int>(v->cols), &one, w, static_cast<int>(v->cols),
                                              x + t * v->cols, static_cast<int>(v->cols), &zero,
                                              y + t * v->rows + row, static_cast<int>(v->rows)),
                                  "matmul");
    }
    return st;
}

int64_t share(int64_t all, int64_t parts) {
    return (all + parts - 1) / parts;
}

/* Rows of each of a matrix's panels, for T tokens. */
int64_t rows_of_panel(const cuda_device *d, int64_t rows, int64_t row_bytes, int64_t T) {
    const int64_t tiles = share(rows, GEMM_TILE_ROWS) * share(T, GEMM_TILE_COLS),
                  busy = tiles * 32 / (d->multiprocessors * 31), fewest = share(rows * row_bytes, PANEL_MOST);
    int64_t count = least(share(rows * row_bytes, PANEL_BYTES), busy);
    if (count < fewest) count = fewest;
    return share(share(rows, count), QB_TILE_ROWS) * QB_TILE_ROWS;
}

struct panels {
    const qb_cuda_view *v;
    bool direct; /* the weights are what cuBLAS can read */
    int64_t k;   /* columns of both operands */
    int64_t rows;
    half *x, *w;
    float *scalars;
};

int64_t operand_columns(const qb_cuda_matrix *m) {
    return m->view.kind == QB_CODES_F16 && m->view.cols % 8 == 0 && !m->pinned ? m->view.cols
                                                                               : m->view.padded_cols;
}

qb_status plan_panels(cuda_device *d, const qb_cuda_matrix *m, int64_t T, panels *p) {
    const qb_cuda_view *v = &m->view;
    p->v = v;
    p->direct = v->kind == QB_CODES_F16 && v->cols % 8 == 0 && !m->pinned;
    p->k = operand_columns(m);
    p->rows = p->direct ? v->rows : rows_of_panel(d, v->rows, p->k * 2, least(T, CHUNK_TOKENS));
    const int64_t x_bytes = aligned(least(T, CHUNK_TOKENS) * p->k * 2),
                  w_bytes = p->direct ? 0 : p->rows * p->k * 2;
    unsigned char *scratch;
    qb_status st = qb_cuda_scratch(d, QB_CONVERT_BYTES + x_bytes + w_bytes, &scratch);
    if (st != QB_OK) return st;
    p->scalars = reinterpret_cast<float *>(scratch);
    p->x = reinterpret_cast<half *>(scratch + QB_CONVERT_BYTES);
    p->w = reinterpret_cast<half *>(scratch + QB_CONVERT_BYTES + x_bytes);
    return QB_OK;
}

bool is_converted(const cuda_device *d, const qb_cuda_matrix *m, const float *x, int64_t T) {
    return d->converted.use == d->scratch_uses && d->converted.x == x && d->converted.T == T &&
           d->converted.cols == m->view.cols && d->converted.stride == operand_columns(m) &&
           d->converted.order == m->view.order;
}

void note_converted(cuda_device *d, const qb_cuda_matrix *m, const float *x, int64_t T, int64_t stride) {
    d->converted = {x, T, m->view.cols, stride, m->view.order, d->scratch_uses};
}

/* y[n, rows] of one chunk, whose activations are converted. */
qb_status multiply_panels(cuda_device *d, const panels *p, float *y, int64_t n) {
    const device_scalars scope(d);
    qb_status st = QB_OK;
    for (int64_t row = 0; row < p->v->rows && st == QB_OK; row += p->rows) {
        const int64_t m = least(p->rows, p->v->rows - row);
        const void *w = p->w;
        if (p->direct)
            w = p->v->codes;
        else
            st = qb_cuda_dequantize(d, p->v, row, m, p->w);
        if (st == QB_OK)
            st = qb_cublas_status(
                d,
                cublasGemmEx(d->blas, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(m), static_cast<int>(n),
                             static_cast<int>(p->k), p->scalars, w, CUDA_R_16F, static_cast<int>(p->k), p->x,
                             CUDA_R_16F, static_cast<int>(p->k), p->scalars + 1, y + row, CUDA_R_32F,
                             static_cast<int>(p->v->rows), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                "matmul");
    }
    return st;
}

/* ---- Hessians ---- */

constexpr int ADD_THREADS = 256;

/* h[r, c] += tile[r, c] for c <= r, the tile's rows `side` apart and h's n. */
__global__ void add_lower_kernel(float *h, int64_t n, const float *tile, int side) {
    const int r = static_cast<int>(blockIdx.y);
    const int c = static_cast<int>(blockIdx.x * ADD_THREADS + threadIdx.x);
    if (c <= r) h[r * n + c] += tile[static_cast<int64_t>(r) * side + c];
}

struct gram {
    cuda_device *d;
    const half *x; /* [T, width] */
    const float *scalars;
    int64_t T, width;

    /* c[i, j] (rows `ldc` apart) = beta c + sum over t of x[t, row + i] x[t, col + j]. */
    qb_status multiply(int64_t row, int64_t n_rows, int64_t col, int64_t n_cols, const float *beta, float *c,
                       int64_t ldc) const {
        return qb_cublas_status(d,
                                cublasGemmEx(d->blas, CUBLAS_OP_N, CUBLAS_OP_T, static_cast<int>(n_cols),
                                             static_cast<int>(n_rows), static_cast<int>(T), scalars, x + col,
                                             CUDA_R_16F, static_cast<int>(width), x + row, CUDA_R_16F,
                                             static_cast<int>(width), beta, c, CUDA_R_32F,
                                             static_cast<int>(ldc), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                                "hessian");
    }
};

/* Rounds of tiles, one a multiprocessor, that the products of panels of `side` rows of a triangle take. */
int64_t hessian_rounds(const cuda_device *d, int64_t n, int64_t side) {
    int64_t rounds = 0;
    for (int64_t row = 0; row < n; row += side) {
        const int64_t down = share(least(side, n - row), GEMM_TILE_ROWS);
        rounds += share(down * share(least(side, n - row), GEMM_TILE_COLS), d->multiprocessors);
        if (row > 0) rounds += share(down * share(row, GEMM_TILE_COLS), d->multiprocessors);
    }
    return rounds;
}

/* Many panels leave little of the half that nobody needs, and few keep all multiprocessors busy. */
int64_t hessian_side(const cuda_device *d, int64_t n) {
    int64_t best = 0, best_rounds = 0;
    for (int64_t count = 1; count <= HESSIAN_PANELS; count++) {
        int64_t side = share(share(n, count), 64) * 64;
        if (count > 1 && side < HESSIAN_PANEL_LEAST) break;
        const int64_t rounds = hessian_rounds(d, n, side);
        if (best && rounds >= best_rounds) continue;
        best = side, best_rounds = rounds;
    }
    return least(best, n);
}

/* Rows row .. row + side of the lower triangle: what lies left of the diagonal tile in place, the tile itself
   by way of `tile`, for above the diagonal h is not ours. */
qb_status hessian_panel(const gram &g, float *h, int64_t n, int64_t row, int64_t side, float *tile) {
    qb_status st = row > 0 ? g.multiply(row, side, 0, row, g.scalars + 2, h + row * n, n) : QB_OK;
    if (st == QB_OK) st = g.multiply(row, side, row, side, g.scalars + 1, tile, side);
    if (st != QB_OK) return st;
    return qb_cuda_status(
        g.d,
        qb_launch(add_lower_kernel, dim3(qb_blocks(side, ADD_THREADS), static_cast<unsigned>(side)),
                  dim3(ADD_THREADS), 0, g.d->stream, h + row * n + row, n, tile, static_cast<int>(side)),
        "hessian");
}

} // namespace

extern "C" qb_status qb_cuda_gemm(cuda_device *d, float *y, const float *x, int64_t T,
                                  const qb_cuda_matrix *m, bool again) {
    if (m->view.kind == QB_CODES_F32) return gemm_f32(d, y, x, T, m);
    panels p = {};
    const void *held = d->scratch;
    again = again && is_converted(d, m, x, T);
    qb_status st = plan_panels(d, m, T, &p);
    again = again && held == d->scratch; /* it may have had to grow */
    for (int64_t t = 0; t < T && st == QB_OK; t += CHUNK_TOKENS) {
        const int64_t n = least(CHUNK_TOKENS, T - t);
        const int exponent = p.direct ? 0 : m->view.exponent;
        st = again ? qb_cuda_convert_again(d, exponent, p.scalars)
                   : qb_cuda_convert(d, x + t * m->view.cols, n, m->view.cols, m->view.source, p.k, exponent,
                                     false, p.x, p.scalars);
        if (T <= CHUNK_TOKENS) note_converted(d, m, x, T, p.k);
        if (st == QB_OK) st = multiply_panels(d, &p, y + t * m->view.rows, n);
    }
    return st;
}

extern "C" qb_status qb_cuda_hessian(qb_device *dev, float *h, const float *x, int64_t T, int64_t n) {
    cuda_device *d = cuda_of(dev);
    if (T <= 0 || n <= 0) return QB_OK;
    const int64_t width = (n + 7) / 8 * 8, chunk = least(T, CHUNK_TOKENS);
    const int64_t side = hessian_side(d, n);
    unsigned char *scratch;
    qb_status st =
        qb_cuda_scratch(d, QB_CONVERT_BYTES + aligned(side * side * 4) + chunk * width * 2, &scratch);
    if (st != QB_OK) return st;
    float *scalars = reinterpret_cast<float *>(scratch),
          *tile = reinterpret_cast<float *>(scratch + QB_CONVERT_BYTES);
    half *x16 = reinterpret_cast<half *>(scratch + QB_CONVERT_BYTES + aligned(side * side * 4));
    for (int64_t t = 0; t < T && st == QB_OK; t += chunk) {
        const gram g = {d, x16, scalars, least(chunk, T - t), width};
        st = qb_cuda_convert(d, x + t * n, g.T, n, nullptr, width, 0, true, x16, scalars);
        const device_scalars scope(d);
        for (int64_t row = 0; row < n && st == QB_OK; row += side)
            st = hessian_panel(g, h, n, row, least(side, n - row), tile);
    }
    return st;
}
