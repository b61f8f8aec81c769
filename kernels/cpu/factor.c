/* Cholesky factor and triangular inverse of large matrices, blocked over the tiles of gemm.c: each block
   column or tile is one single-threaded OpenBLAS or LAPACK call, and their order is fixed. */
#include "base/whole.h"
#include "kernels/cpu/gemm.h"

#include <cblas.h>
#include <f77blas.h>
#include <math.h>

enum { PANEL = 256, SOLVE_TILE = 256 };

typedef struct {
    int64_t rows, cols, lda;
    const float *triangle;
    float *a;
} panel_job;

/* Rows of A21 become rows of L21 = A21 L11^-T. */
static void panel_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const panel_job *p = ctx;
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, (int)(end - begin),
                (int)p->cols, 1.0f, p->triangle, (int)p->lda, p->a + begin * p->lda, (int)p->lda);
}

/* OpenBLAS' factorization compares a pivot with zero only, which lets NaN through. */
static bool pivots_good(int64_t n, const float *l, int64_t lda) {
    for (int64_t i = 0; i < n; i++)
        if (!(l[i * lda + i] > 0.0f) || !isfinite(l[i * lda + i])) return false;
    return true;
}

/* Of a matrix by columns. */
static bool factor_upper(int64_t n, float *a, int64_t lda) {
    blasint order = (blasint)n, stride = (blasint)lda, info = 0;
    char upper = 'U';
    spotrf_(&upper, &order, a, &stride, &info);
    return info == 0;
}

void qb_cholesky_lower(qb_threads *threads, int64_t n, float *a, int64_t lda, bool *ok) {
    *ok = true;
    qb_blas_single_thread();
    for (int64_t k = 0; k < n; k += PANEL) {
        int64_t width = qb_least(PANEL, n - k), below = n - k - width;
        float *diagonal = a + k * lda + k;
        /* Row-major lower is column-major upper: the factor comes out as its transpose, in place. */
        if (!factor_upper(width, diagonal, lda) || !pivots_good(width, diagonal, lda)) {
            *ok = false;
            return;
        }
        if (below == 0) return;
        panel_job p = {below, width, lda, diagonal, diagonal + width * lda};
        qb_parallel_for(threads, below, SOLVE_TILE, panel_rows, &p);
        qb_gram_lower(threads, false, below, width, -1.0f, p.a, lda, p.a + width, lda);
    }
}

/* inv [A 0; B C] = [inv A, 0; -inv(C) B inv(A), inv C]. B is solved from both sides with the triangles as
   they stand, level by level from the largest blocks down; the diagonal blocks are inverted last. All pairs
   of a level run side by side. */
typedef struct {
    int64_t n, half, lda, tiles; /* tiles of one pair */
    bool left;
    float *a;
} inverse_job;

static void inverse_tiles(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const inverse_job *v = ctx;
    for (int64_t i = begin; i < end; i++) {
        int64_t top = i / v->tiles * 2 * v->half, at = i % v->tiles * SOLVE_TILE;
        int64_t middle = top + v->half;
        if (middle >= v->n) continue;
        int64_t rows = qb_least(v->half, v->n - middle);
        float *b = v->a + middle * v->lda + top;
        if (v->left) /* columns at .. of B: B = -inv(C) B */
            cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, (int)rows,
                        (int)qb_least(SOLVE_TILE, v->half - at), -1.0f, v->a + middle * v->lda + middle,
                        (int)v->lda, b + at, (int)v->lda);
        else if (at < rows) /* rows at .. of B: B = B inv(A) */
            cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit,
                        (int)qb_least(SOLVE_TILE, rows - at), (int)v->half, 1.0f, v->a + top * v->lda + top,
                        (int)v->lda, b + at * v->lda, (int)v->lda);
    }
}

static void inverse_leaves(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const inverse_job *v = ctx;
    for (int64_t i = begin; i < end; i++) {
        int64_t at = i * PANEL;
        blasint n = (blasint)qb_least(PANEL, v->n - at), lda = (blasint)v->lda, info;
        char upper = 'U', not_unit = 'N';
        strtri_(&upper, &not_unit, &n, v->a + at * v->lda + at, &lda, &info); /* no pivot is zero */
    }
}

void qb_invert_lower(qb_threads *threads, int64_t n, float *a, int64_t lda) {
    qb_blas_single_thread();
    int64_t half = PANEL;
    while (half * 2 < n) half *= 2;
    for (; half >= PANEL; half /= 2) {
        int64_t pairs = (n + 2 * half - 1) / (2 * half);
        inverse_job v = {n, half, lda, (half + SOLVE_TILE - 1) / SOLVE_TILE, true, a};
        qb_parallel_for(threads, pairs * v.tiles, 1, inverse_tiles, &v);
        v.left = false;
        qb_parallel_for(threads, pairs * v.tiles, 1, inverse_tiles, &v);
    }
    inverse_job v = {n, PANEL, lda, 0, false, a};
    qb_parallel_for(threads, (n + PANEL - 1) / PANEL, 1, inverse_leaves, &v);
}
