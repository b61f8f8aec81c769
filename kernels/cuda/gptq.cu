/* GPTQ's loop over columns (Frantar et al. 2022, arXiv:2210.17323) with all rows of all weights that read one
   input at once: a warp a row, a kernel a block of columns, a product in between. Choices and quirks are
   those of quant/gptq.c, to which codes are compared. */
#include "kernels/cuda/gptq.cuh"

#include <climits>

namespace {

using qb::affine_codes;
using qb::all_lanes;
using qb::warps_a_block;
using qb::weight_view;

constexpr int64_t shared_columns = 128, most_columns = 512, form_rows = 4096, form_cols = 1024;

/* Rows of all weights, one below the other. */
struct stack {
    int64_t rows, cols, block, group;
    bool one_group, static_groups;
    qb_grid_rule rule;
    float *source; /* [rows, cols] float32 as they came */
    float *w; /* [rows, cols] in the order of quantization, dead columns 0; compensated as blocks finish */
    float *errors;  /* [rows, block] */
    int32_t *g_idx; /* [cols] group of each column */
    affine_codes q;
    qb_gptq_hessian h;
};

__device__ __forceinline__ int64_t warp_index() {
    return static_cast<int64_t>(blockIdx.x) * warps_a_block + threadIdx.x / 32;
}

__global__ void __launch_bounds__(256) widen(weight_view from, float *to, int64_t n) {
    int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        to[i] = from(i);
}

/* Brings the columns into order, dead ones cleared. */
__global__ void __launch_bounds__(256) order_columns(stack s) {
    int64_t place = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
    if (place >= s.cols) return;
    int64_t column = s.h.perm ? s.h.perm[place] : place;
    bool dead = s.h.dead[column];
    for (int64_t row = blockIdx.y; row < s.rows; row += gridDim.y)
        s.w[row * s.cols + place] = dead ? 0.0F : s.source[row * s.cols + column];
}

/* Act-order without static groups stores groups in the order in which columns were taken. */
__global__ void __launch_bounds__(256) index_groups(stack s) {
    int64_t place = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
    if (place >= s.cols) return;
    bool by_place = s.h.perm && !s.static_groups && !s.one_group;
    s.g_idx[by_place ? s.h.perm[place] : place] = static_cast<int32_t>(place / s.group);
}

struct source_values {
    const float *row;
    const uint8_t *dead; /* NULL: as they came */
    int64_t first;
    __device__ __forceinline__ float operator()(int64_t k) const {
        return dead && dead[first + k] ? 0.0F : row[first + k];
    }
};

__device__ __forceinline__ void put_grid(const stack &s, int64_t row, int64_t group, float scale,
                                         float zero) {
    if (threadIdx.x % 32 != 0) return;
    s.q.scales[row * s.q.n_groups + group] = scale;
    s.q.zeros[row * s.q.n_groups + group] = static_cast<uint8_t>(zero);
}

/* Grids that are fixed before the loop: of the whole row as it came, or of all groups with dead columns 0. */
__global__ void __launch_bounds__(32 * warps_a_block) find_fixed_grids(stack s) {
    int64_t at = warp_index();
    if (at >= s.rows * s.q.n_groups) return;
    int64_t row = at / s.q.n_groups, group = at % s.q.n_groups, first = group * s.group;
    int64_t n = s.cols - first < s.group ? s.cols - first : s.group;
    float scale, zero;
    source_values values = {s.source + row * s.cols, s.one_group ? nullptr : s.h.dead, first};
    qb::find_grid(s.rule, values, n, &scale, &zero);
    put_grid(s, row, group, scale, zero);
}

/* Rows of U's diagonal block, the part right of the diagonal: row i begins at packed_row(i, n) + i. */
__host__ __device__ __forceinline__ int packed_row(int i, int n) {
    return i * n - i * (i + 1) / 2;
}

struct tile_values {
    const float *row;
    __device__ __forceinline__ float operator()(int64_t k) const { return row[k]; }
};

/* n columns from place i1 on. Lane l owns columns l, l + 32, ...; the error of a column goes from its owner
   to all. Grids at group starts come from `w`, which lacks the compensation of the present block: the paper's
   code reads the global matrix there. */
template <int OWNED, bool SHARED>
__global__ void __launch_bounds__(32 * warps_a_block) quantize_columns(stack s, int64_t i1, int n) {
    float *packed = ptx::dynamic_shared<float>();
    const float *u = s.h.u + i1 * s.cols + i1;
    if (SHARED) {
        for (int i = static_cast<int>(threadIdx.x / 32); i < n; i += warps_a_block)
            for (int k = i + static_cast<int>(threadIdx.x % 32); k < n; k += 32)
                packed[packed_row(i, n) + k] = u[i * s.cols + k];
        __syncthreads();
    }
    int64_t row = warp_index();
    if (row >= s.rows) return;
    int lane = static_cast<int>(threadIdx.x % 32);
    const float *from = s.w + row * s.cols;
    float w[OWNED], error[OWNED], own_scale[OWNED], own_zero[OWNED];
    uint8_t code[OWNED];
    float scale = 0, zero = 0, maxq = static_cast<float>((1 << s.rule.bits) - 1);
#pragma unroll
    for (int j = 0; j < OWNED; j++) {
        int at = 32 * j + lane;
        w[j] = at < n ? from[i1 + at] : 0.0F;
        own_scale[j] = own_zero[j] = error[j] = 0;
        code[j] = 0;
        if (!s.static_groups || at >= n) continue;
        int64_t column = s.h.perm ? s.h.perm[i1 + at] : i1 + at, grid = row * s.q.n_groups + column / s.group;
        own_scale[j] = s.q.scales[grid];
        own_zero[j] = static_cast<float>(s.q.zeros[grid]);
    }
    if (!s.static_groups && (s.one_group || i1 % s.group != 0)) {
        int64_t grid = row * s.q.n_groups + i1 / s.group;
        scale = s.q.scales[grid];
        zero = static_cast<float>(s.q.zeros[grid]);
    }
#pragma unroll
    for (int j = 0; j < OWNED; j++)
        for (int l = 0; l < 32 && 32 * j + l < n; l++) {
            int i = 32 * j + l;
            int64_t place = i1 + i;
            if (s.static_groups) {
                scale = __shfl_sync(all_lanes, own_scale[j], l);
                zero = __shfl_sync(all_lanes, own_zero[j], l);
            } else if (!s.one_group && place % s.group == 0) {
                tile_values values = {from + place};
                int64_t width = s.cols - place < s.group ? s.cols - place : s.group;
                qb::find_grid(s.rule, values, width, &scale, &zero);
                put_grid(s, row, place / s.group, scale, zero);
            }
            const float *u_row = SHARED ? packed + packed_row(i, n) : u + i * s.cols;
            float x = __shfl_sync(all_lanes, w[j], l), q = qb_grid_code(x, scale, zero, maxq);
            float e = (x - scale * (q - zero)) / u_row[i];
            if (lane == l) {
                code[j] = static_cast<uint8_t>(static_cast<int32_t>(q));
                error[j] = e;
            }
#pragma unroll
            for (int k = j; k < OWNED; k++) {
                int at = 32 * k + lane;
                if (at > i && at < n) w[k] -= e * u_row[at];
            }
        }
#pragma unroll
    for (int j = 0; j < OWNED; j++) {
        int at = 32 * j + lane;
        if (at >= n) continue;
        s.errors[row * s.block + at] = error[j];
        s.q.codes[row * s.cols + (s.h.perm ? s.h.perm[i1 + at] : i1 + at)] = code[j];
    }
}

/* The nearest of 11 bits, which is what tensor cores read of a float32: they cut the rest off, and a sum of
   what is cut off would lean to one side. What is not finite stays so. */
__device__ __forceinline__ float round_tf32(float v) {
    if (!isfinite(v)) return v;
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits = (bits + 0x1000u) & ~0x1fffu;
    memcpy(&v, &bits, sizeof v);
    return v;
}

__global__ void __launch_bounds__(256) round_all(float *x, int64_t n) {
    int64_t stride = static_cast<int64_t>(gridDim.x) * 256;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x; i < n; i += stride)
        x[i] = round_tf32(x[i]);
}

/* w - q in `w`, or the weight itself, dead columns 0: their inputs are, so they count nothing. */
__global__ void __launch_bounds__(256) difference(stack s, int64_t row0, int64_t rows, bool of_weight) {
    int64_t column = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
    if (column >= s.cols) return;
    int64_t group = s.g_idx[column];
    bool dead = s.h.dead[column];
    for (int64_t row = row0 + blockIdx.y; row < row0 + rows; row += gridDim.y) {
        int64_t i = row * s.cols + column, grid = row * s.q.n_groups + group;
        float value = s.source[i];
        value = of_weight ? round_tf32(value) : value - s.q.stored(i, grid);
        s.w[i] = dead ? 0.0F : value;
    }
}

/* out[row] (+)= product[row] . w[row, first column ..], in float64; n columns. */
__global__ void __launch_bounds__(32 * warps_a_block)
    dot_rows(stack s, const float *product, int64_t n, int64_t column, int64_t row0, int64_t rows,
             double *out) {
    int64_t row = warp_index();
    if (row >= rows) return;
    const float *a = product + row * n, *b = s.w + (row0 + row) * s.cols + column;
    double sum = 0;
    for (int64_t k = threadIdx.x % 32; k < n; k += 32)
        sum += static_cast<double>(a[k]) * static_cast<double>(b[k]);
    sum = qb::warp_sum(sum);
    if (threadIdx.x % 32 == 0) out[row0 + row] = column > 0 ? out[row0 + row] + sum : sum;
}

/* ---- the host's side ---- */

template <int OWNED, bool SHARED>
qb_status launch_columns(cuda_device *d, const stack &s, int64_t i1, int n) {
    size_t shared = SHARED ? sizeof(float) * static_cast<size_t>(packed_row(n, n) + n) : 0;
    QB_LAUNCH(d, "gptq", quantize_columns<OWNED, SHARED>, qb_blocks(s.rows, warps_a_block),
              32 * warps_a_block, shared, d->stream, s, i1, n);
    return QB_OK;
}

qb_status quantize_block(cuda_device *d, const stack &s, int64_t i1, int64_t n) {
    int width = static_cast<int>(n);
    if (n <= 32) return launch_columns<1, true>(d, s, i1, width);
    if (n <= 64) return launch_columns<2, true>(d, s, i1, width);
    if (n <= shared_columns) return launch_columns<4, true>(d, s, i1, width);
    if (n <= 256) return launch_columns<8, false>(d, s, i1, width);
    return launch_columns<16, false>(d, s, i1, width);
}

/* W[:, i2:] -= errors * U[i1:i2, i2:] in float32; row-major matrices are cuBLAS' transposed ones. */
qb_status compensate(cuda_device *d, const stack &s, int64_t i1, int64_t n) {
    int64_t rest = s.cols - i1 - n;
    if (rest == 0) return QB_OK;
    const float minus = -1, one = 1;
    return qb_cublas_status(
        d,
        cublasSgemm(d->blas, CUBLAS_OP_N, CUBLAS_OP_N, static_cast<int>(rest), static_cast<int>(s.rows),
                    static_cast<int>(n), &minus, s.h.u + i1 * s.cols + i1 + n, static_cast<int>(s.cols),
                    s.errors, static_cast<int>(s.block), &one, s.w + i1 + n, static_cast<int>(s.cols)),
        "gptq");
}

dim3 column_grid(const stack &s, int64_t rows) {
    return dim3(qb_blocks(s.cols, 256), static_cast<unsigned>(rows < 1024 ? rows : 1024));
}

qb_status run_columns(cuda_device *d, const stack &s) {
    QB_LAUNCH(d, "gptq", order_columns, column_grid(s, s.rows), 256, 0, d->stream, s);
    if (s.one_group || s.static_groups)
        QB_LAUNCH(d, "gptq", find_fixed_grids, qb_blocks(s.rows * s.q.n_groups, warps_a_block),
                  32 * warps_a_block, 0, d->stream, s);
    for (int64_t i1 = 0; i1 < s.cols; i1 += s.block) {
        int64_t n = s.cols - i1 < s.block ? s.cols - i1 : s.block;
        QB_STEP(quantize_block(d, s, i1, n));
        QB_STEP(compensate(d, s, i1, n));
    }
    return QB_OK;
}

/* product[rows, n] = alpha w[row0 .., k0 .. k0 + k) H[k0 .., column .. column + n) + beta product. */
qb_status form_product(cuda_device *d, const stack &s, bool of_weight, int64_t row0, int64_t rows, int64_t k0,
                       int64_t k, int64_t column, int64_t n, float alpha, float beta, float *product) {
    return qb_cublas_status(
        d,
        cublasGemmEx(d->blas, CUBLAS_OP_N, CUBLAS_OP_N, static_cast<int>(n), static_cast<int>(rows),
                     static_cast<int>(k), &alpha, s.h.h + k0 * s.cols + column, CUDA_R_32F,
                     static_cast<int>(s.cols), s.w + row0 * s.cols + k0, CUDA_R_32F, static_cast<int>(s.cols),
                     &beta, product, CUDA_R_32F, static_cast<int>(n),
                     of_weight ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "gptq");
}

/* The rows' quadratic forms d H d^T into out[rows]; overwrites s.w. H is symmetric: what lies below the
   blocks on its diagonal counts twice. Those of the weights, which only relate errors to something, are taken
   last and of factors rounded to 11 bits (the tensor cores'), H itself among them: a change of some 1e-4.
   Errors are what compensation leaves of larger terms, and need all bits. */
qb_status quadratic_forms(cuda_device *d, const stack &s, bool of_weight, float *product, double *out) {
    QB_LAUNCH(d, "gptq", difference, column_grid(s, s.rows), 256, 0, d->stream, s, 0, s.rows, of_weight);
    if (of_weight) QB_LAUNCH(d, "gptq", round_all, 1024, 256, 0, d->stream, s.h.h, s.cols * s.cols);
    for (int64_t row0 = 0; row0 < s.rows; row0 += form_rows)
        for (int64_t column = 0; column < s.cols; column += form_cols) {
            int64_t rows = s.rows - row0 < form_rows ? s.rows - row0 : form_rows;
            int64_t n = s.cols - column < form_cols ? s.cols - column : form_cols,
                    below = s.cols - column - n;
            QB_STEP(form_product(d, s, of_weight, row0, rows, column, n, column, n, 1, 0, product));
            if (below > 0)
                QB_STEP(
                    form_product(d, s, of_weight, row0, rows, column + n, below, column, n, 2, 1, product));
            QB_LAUNCH(d, "gptq", dot_rows, qb_blocks(rows, warps_a_block), 32 * warps_a_block, 0, d->stream,
                      s, product, n, column, row0, rows, out);
        }
    return QB_OK;
}

int64_t stacked_rows(const qb_gptq_problem *p) {
    int64_t rows = 0;
    for (int64_t i = 0; i < p->n_jobs; i++) rows += p->jobs[i].rows;
    return rows;
}

/* Brings the weights in, float32 and one below the other. *bad is set where one of them is not finite. */
qb_status load_weights(cuda_device *d, qb_gptq_problem *p, qb::device_memory *memory, const stack &s,
                       bool *bad) {
    int64_t largest = 0, row0 = 0;
    unsigned long long found[64];
    for (int64_t i = 0; i < p->n_jobs; i++) {
        int64_t bytes = p->jobs[i].rows * s.cols * static_cast<int64_t>(qb_dtype_bytes(p->jobs[i].dtype));
        if (bytes > largest) largest = bytes;
        found[i] = ULLONG_MAX;
    }
    int64_t facts = p->n_jobs * static_cast<int64_t>(sizeof *found);
    auto *raw = memory->take<uint8_t>(largest);
    auto *dev_found = memory->take<unsigned long long>(p->n_jobs);
    QB_STEP(memory->status());
    QB_STEP(qb_cuda_upload(&d->base, dev_found, found, facts));
    for (int64_t i = 0; i < p->n_jobs; i++) {
        const qb_code_job *job = &p->jobs[i];
        int64_t n = job->rows * s.cols;
        weight_view view = {raw, job->dtype};
        QB_STEP(
            qb_cuda_upload(&d->base, raw, job->dense, n * static_cast<int64_t>(qb_dtype_bytes(job->dtype))));
        QB_LAUNCH(d, "gptq", widen, 1024, 256, 0, d->stream, view, s.source + row0 * s.cols, n);
        QB_STEP(qb_cuda_find_bad(d, view, n, dev_found + i));
        row0 += job->rows;
    }
    QB_STEP(qb_cuda_download(&d->base, found, dev_found, facts));
    for (int64_t i = 0; i < p->n_jobs; i++) {
        p->jobs[i].bad = found[i] == ULLONG_MAX ? -1 : static_cast<int64_t>(found[i]);
        *bad = *bad || p->jobs[i].bad >= 0;
    }
    return QB_OK;
}

qb_status take_stack(const qb_gptq_problem *p, qb::device_memory *memory, stack *s) {
    int64_t cells = s->rows * s->cols, grids;
    s->q.rows = s->rows, s->q.cols = s->cols, s->q.group = s->group;
    s->q.n_groups = (s->cols + s->group - 1) / s->group;
    grids = s->rows * s->q.n_groups;
    s->source = memory->take<float>(cells);
    s->w = memory->take<float>(cells);
    s->errors = memory->take<float>(s->rows * s->block);
    s->g_idx = memory->take<int32_t>(s->cols);
    s->q.codes = memory->take<uint8_t>(cells);
    s->q.zeros = memory->take<uint8_t>(grids);
    s->q.scales = memory->take<float>(grids);
    (void)p;
    return memory->status();
}

/* Codes and grids of one weight's rows to the host. */
qb_status fetch(cuda_device *d, const stack &s, int64_t row0, qb_code_job *job) {
    qb_qweight *q = job->q;
    int64_t grids = job->rows * s.q.n_groups, at = row0 * s.q.n_groups;
    QB_STEP(qb_cuda_download(&d->base, q->codes, s.q.codes + row0 * s.cols, job->rows * s.cols));
    QB_STEP(qb_cuda_download(&d->base, q->zeros, s.q.zeros + at, grids));
    QB_STEP(
        qb_cuda_download(&d->base, q->scales, s.q.scales + at, grids * static_cast<int64_t>(sizeof(float))));
    if (!q->g_idx) return QB_OK;
    return qb_cuda_download(&d->base, q->g_idx, s.g_idx, s.cols * static_cast<int64_t>(sizeof(int32_t)));
}

/* Rounds rows [row0, row0 + rows) to nearest instead: groups in their natural order, weights as they came. */
qb_status round_rows(cuda_device *d, stack s, int64_t row0, int64_t rows) {
    weight_view view = {s.source + row0 * s.cols, QB_DTYPE_F32};
    affine_codes part = s.q;
    part.rows = rows;
    part.codes += row0 * s.cols;
    part.zeros += row0 * s.q.n_groups;
    part.scales += row0 * s.q.n_groups;
    return qb_cuda_round_affine(d, s.rule, view, &part);
}

struct forms {
    float *product;
    double *error, *norm; /* device, [rows] */
    double *host;         /* [rows] */
};

double sum_rows(const double *rows, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += rows[i];
    return sum;
}

qb_status read_forms(cuda_device *d, const stack &s, qb_gptq_problem *p, const forms &f, bool of_weight) {
    QB_STEP(quadratic_forms(d, s, of_weight, f.product, of_weight ? f.norm : f.error));
    QB_STEP(qb_cuda_download(&d->base, f.host, of_weight ? f.norm : f.error,
                             s.rows * static_cast<int64_t>(sizeof(double))));
    int64_t row0 = 0;
    for (int64_t i = 0; i < p->n_jobs; i++) {
        (of_weight ? p->jobs[i].norm : p->jobs[i].error) = sum_rows(f.host + row0, p->jobs[i].rows);
        row0 += p->jobs[i].rows;
    }
    return QB_OK;
}

/* Weights whose compensation overflowed are rounded to nearest; all of them where H has no factor. Their
   groups are natural ones, so the errors are taken again without the index. */
qb_status round_failures(cuda_device *d, stack s, qb_gptq_problem *p, const forms &f) {
    int64_t row0 = 0;
    bool any = false;
    double kept[64];
    for (int64_t i = 0; i < p->n_jobs; i++) {
        kept[i] = p->jobs[i].error;
        p->overflowed[i] = !p->not_positive && !isfinite(p->jobs[i].error);
        if (p->overflowed[i] || p->not_positive) {
            QB_STEP(round_rows(d, s, row0, p->jobs[i].rows));
            any = true;
        }
        row0 += p->jobs[i].rows;
    }
    if (!any) return QB_OK;
    stack natural = s;
    natural.h.perm = nullptr;
    QB_LAUNCH(d, "gptq", index_groups, qb_blocks(s.cols, 256), 256, 0, d->stream, natural);
    QB_STEP(read_forms(d, natural, p, f, false));
    for (int64_t i = 0; i < p->n_jobs; i++)
        if (!p->overflowed[i] && !p->not_positive) p->jobs[i].error = kept[i];
    QB_LAUNCH(d, "gptq", index_groups, qb_blocks(s.cols, 256), 256, 0, d->stream, s);
    return QB_OK;
}

qb_status solve(cuda_device *d, qb_gptq_problem *p, qb::device_memory *memory, stack s, double *host) {
    forms f = {};
    f.product = memory->take<float>((s.rows < form_rows ? s.rows : form_rows) *
                                    (s.cols < form_cols ? s.cols : form_cols));
    f.error = memory->take<double>(s.rows);
    f.norm = memory->take<double>(s.rows);
    f.host = host;
    QB_STEP(memory->status());
    QB_LAUNCH(d, "gptq", index_groups, qb_blocks(s.cols, 256), 256, 0, d->stream, s);
    if (!p->not_positive) {
        QB_STEP(run_columns(d, s));
        QB_STEP(read_forms(d, s, p, f, false));
    }
    QB_STEP(round_failures(d, s, p, f));
    QB_STEP(read_forms(d, s, p, f, true));
    int64_t row0 = 0;
    for (int64_t i = 0; i < p->n_jobs; i++) {
        QB_STEP(fetch(d, s, row0, &p->jobs[i]));
        row0 += p->jobs[i].rows;
    }
    return QB_OK;
}

} // namespace

extern "C" qb_status qb_cuda_gptq(qb_device *dev, qb_gptq_problem *p) {
    cuda_device *d = cuda_of(dev);
    if (p->block_columns > most_columns || p->cols > 65535 || p->n_jobs > 64)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "gptq: no kernel for blocks of %lld columns (%d at most) of %lld input columns",
                       static_cast<long long>(p->block_columns), static_cast<int>(most_columns),
                       static_cast<long long>(p->cols));
    qb::device_memory memory(d);
    stack s = {};
    s.rows = stacked_rows(p), s.cols = p->cols, s.group = p->group_size;
    s.block = p->block_columns < p->cols ? p->block_columns : p->cols;
    s.one_group = p->one_group, s.static_groups = p->static_groups && !p->one_group, s.rule = p->rule;
    p->bad_channel = -1;
    p->not_positive = false;
    p->retries = 0;
    bool bad = false;
    QB_STEP(take_stack(p, &memory, &s));
    QB_STEP(load_weights(d, p, &memory, s, &bad));
    if (bad) return QB_OK;
    QB_STEP(qb_cuda_gptq_factor(d, p, &memory, &s.h));
    if (p->bad_channel >= 0) return QB_OK;
    auto *host = static_cast<double *>(malloc(static_cast<size_t>(s.rows) * sizeof(double)));
    if (!host) return qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_status st = solve(d, p, &memory, s, host);
    free(host);
    return st;
}
