/* Cholesky factor and triangular inverse of large matrices, blocked over the tiles of gemm.c: each block
   column or tile is one single-threaded OpenBLAS or LAPACK call, and their order is fixed. Where there are
   tiles of bfloat16, they make the products of large blocks. */
#include "base/memory.h"
#include "base/whole.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/tile_sums.h"

#include <cblas.h>
#include <f77blas.h>
#include <math.h>

enum { PANEL = 256, TILE = 256, RIGHT_ROWS = 512, TILES_LEAST = 1024 };

struct qb_factor {
    qb_threads *threads;
    const qb_bf16_tiles *tiles; /* NULL: OpenBLAS alone */
    int64_t least_rows;         /* of a block that goes by tiles */
    void *room;                 /* of qb_gram_tiles_bytes, or for blocks: each worker's, then what is laid */
};

static int64_t worker_bytes(void) {
    return qb_tile_room_bytes(QB_TILE_ROWS_MOST, RIGHT_ROWS);
}
static int64_t room_bytes(int threads, int64_t n) {
    const int64_t gram = qb_gram_tiles_bytes(threads, n, PANEL);
    const int64_t blocks = threads * worker_bytes() + qb_tile_right_bytes(RIGHT_ROWS, n, QB_BF16_PARTS);
    return gram > blocks ? gram : blocks;
}

int64_t qb_factor_bytes(int threads, int64_t n) {
    return qb_simd_chosen()->bf16 && n > TILES_LEAST ? room_bytes(threads, n) : 0;
}

qb_status qb_factor_create_by(const qb_bf16_tiles *tiles, int64_t least_rows, qb_threads *threads, int64_t n,
                              qb_factor **out) {
    const bool large = tiles && n > least_rows;
    qb_factor *f;
    qb_status st;
    *out = NULL;
    qb_blas_single_thread();
    QB_TRY(st, qb_alloc_zero(1, sizeof *f, &f));
    *out = f;
    f->threads = threads, f->least_rows = least_rows, f->tiles = large ? tiles : NULL;
    if (large) QB_TRY(st, qb_alloc((size_t)room_bytes(qb_threads_count(threads), n), 1, &f->room));
out:
    if (st != QB_OK) {
        qb_factor_free(*out);
        *out = NULL;
    }
    return st;
}

qb_status qb_factor_create(qb_threads *threads, int64_t n, qb_factor **out) {
    return qb_factor_create_by(qb_simd_chosen()->bf16, TILES_LEAST, threads, n, out);
}

void qb_factor_free(qb_factor *f) {
    if (!f) return;
    qb_free(f->room);
    qb_free(f);
}

/* ---- the factor ---- */

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

/* A22 -= L21 L21^T. */
static void subtract_gram(const qb_factor *f, const panel_job *p) {
    float *rest = p->a + p->cols;
    if (!f->tiles || p->rows < f->least_rows) {
        qb_gram_lower(f->threads, false, p->rows, p->cols, -1.0f, p->a, p->lda, rest, p->lda);
        return;
    }
    const qb_bf16_source rows = {
        .numbers = p->a, .dtype = QB_DTYPE_F32, .stride = p->lda, .rows = p->rows, .cols = p->cols};
    qb_gram_by_tiles(f->tiles, f->threads, &rows, true, rest, p->lda, f->room);
}

void qb_cholesky_lower(qb_factor *f, int64_t n, float *a, int64_t lda, bool *ok) {
    *ok = true;
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
        qb_parallel_for(f->threads, below, TILE, panel_rows, &p);
        subtract_gram(f, &p);
    }
}

/* ---- the inverse ---- */

/* inv [A 0; B C] = [inv A, 0; -inv(C) B inv(A), inv C]. The diagonal blocks are inverted first, then B level
   by level from the smallest blocks up, so that both triangles beside it are inverses already: B inv(A), then
   -inv(C) times that. */
typedef struct {
    const qb_factor *f;
    int64_t n, half, lda;
    bool left; /* inv(C) is what B meets, not inv(A) */
    float *a;
} inverse_job;

/* One B of a level. */
typedef struct {
    int64_t rows, cols, lda;
    const float *inverse_a, *inverse_c;
    float *b;
} inverse_block;

static inverse_block block_at(const inverse_job *v, int64_t pair) {
    const int64_t top = pair * 2 * v->half, middle = top + v->half;
    return (inverse_block){.rows = qb_least(v->half, v->n - middle),
                           .cols = v->half,
                           .lda = v->lda,
                           .inverse_a = v->a + top * v->lda + top,
                           .inverse_c = v->a + middle * v->lda + middle,
                           .b = v->a + middle * v->lda + top};
}
/* How many pairs of blocks a level has. */
static int64_t pairs_of(const inverse_job *v) {
    return qb_pieces(v->n - v->half, 2 * v->half);
}

/* Rows of the blocks of a level times inv(A), or -inv(C) times columns of them, side by side. */
static void times_inverse(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const inverse_job *v = ctx;
    const int64_t tiles = qb_pieces(v->half, TILE);
    for (int64_t i = begin; i < end; i++) {
        const inverse_block k = block_at(v, i / tiles);
        const int64_t at = i % tiles * TILE;
        if (v->left)
            cblas_strmm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, (int)k.rows,
                        (int)qb_least(TILE, k.cols - at), -1.0f, k.inverse_c, (int)k.lda, k.b + at,
                        (int)k.lda);
        else if (at < k.rows)
            cblas_strmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit,
                        (int)qb_least(TILE, k.rows - at), (int)k.cols, 1.0f, k.inverse_a, (int)k.lda,
                        k.b + at * k.lda, (int)k.lda);
    }
}

/* Some rows of B by tiles: the right side is theirs, laid before they are written, and a task makes columns
   of them all. */
typedef struct {
    const qb_factor *f;
    qb_tile_right right;
    qb_bf16_source columns; /* of the other side: a row for each column of B */
    bool negative;
    bool below;    /* what is above the columns' own number is zero */
    int64_t width; /* of a task */
    float *out;
    int64_t ld;
} rows_job;

static void take_columns(void *ctx, int64_t begin, int64_t end, int worker) {
    const rows_job *j = ctx;
    const int64_t rows = j->right.rows.rows, rights = qb_pieces(rows, QB_TILE_PAIR);
    uint8_t *room = (uint8_t *)j->f->room + worker * worker_bytes();
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * j->width, cols = qb_least(j->width, j->columns.rows - first);
        const int64_t lefts = qb_pieces(cols, QB_TILE_PAIR);
        qb_bf16_source left = qb_bf16_part(&j->columns, first, 0);
        left.rows = cols;
        const float *sums = qb_tile_sums(&j->right, 0, rows, &left, j->negative, j->below ? first : 0,
                                         j->right.rows.cols, room);
        for (int64_t p = 0; p < lefts * rights; p++) {
            const int64_t r = p / lefts * QB_TILE_PAIR, c = p % lefts * QB_TILE_PAIR;
            /* What is no number stays, and so will errors be: gptq.c then rounds to nearest. */
            (void)j->right.tiles->take_sums(
                sums + p * QB_TILE_PAIR * QB_TILE_PAIR, qb_least(QB_TILE_PAIR, cols - c),
                qb_least(QB_TILE_PAIR, rows - r), j->out + r * j->ld + first + c, j->ld);
        }
    }
}

static void make_rows(const qb_factor *f, const float *right, int64_t rows, int64_t depth, const float *other,
                      bool triangle, float *out, int64_t cols, int64_t ld) {
    const int threads = qb_threads_count(f->threads);
    rows_job j = {
        .f = f,
        .right = {f->tiles,
                  {.numbers = right, .dtype = QB_DTYPE_F32, .stride = ld, .rows = rows, .cols = depth},
                  (uint16_t *)(void *)((uint8_t *)f->room + threads * worker_bytes())},
        .columns = {.numbers = other,
                    .dtype = QB_DTYPE_F32,
                    .across = true,
                    .stride = ld,
                    .rows = cols,
                    .cols = depth},
        .negative = !triangle,
        .below = triangle,
        .width = qb_cpu_tile_rows(f->threads, cols),
        .out = out,
        .ld = ld};
    qb_parallel_for(f->threads, qb_pieces(rows, QB_TILE_PAIR), 1, qb_tile_right_lay, &j.right);
    qb_parallel_for(f->threads, qb_pieces(cols, j.width), 1, take_columns, &j);
}

/* B inv(A) row by row of B; then from its last rows up, for a row of inv(C) takes those above and its own. */
static void block_by_tiles(const qb_factor *f, const inverse_block *k) {
    const int64_t last = (k->rows - 1) / RIGHT_ROWS * RIGHT_ROWS;
    for (int64_t r = 0; r < k->rows; r += RIGHT_ROWS)
        make_rows(f, k->b + r * k->lda, qb_least(RIGHT_ROWS, k->rows - r), k->cols, k->inverse_a, true,
                  k->b + r * k->lda, k->cols, k->lda);
    for (int64_t r = last; r >= 0; r -= RIGHT_ROWS) {
        const int64_t rows = qb_least(RIGHT_ROWS, k->rows - r);
        make_rows(f, k->inverse_c + r * k->lda, rows, r + rows, k->b, false, k->b + r * k->lda, k->cols,
                  k->lda);
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

void qb_invert_lower(qb_factor *f, int64_t n, float *a, int64_t lda) {
    inverse_job v = {f, n, PANEL, lda, false, a};
    qb_parallel_for(f->threads, qb_pieces(n, PANEL), 1, inverse_leaves, &v);
    for (; v.half < n; v.half *= 2) {
        const int64_t pairs = pairs_of(&v), tasks = pairs * qb_pieces(v.half, TILE);
        if (f->tiles && v.half >= f->least_rows) {
            for (int64_t i = 0; i < pairs; i++) {
                const inverse_block k = block_at(&v, i);
                block_by_tiles(f, &k);
            }
            continue;
        }
        for (int side = 0; side < 2; side++) {
            v.left = side == 1;
            qb_parallel_for(f->threads, tasks, 1, times_inverse, &v);
        }
    }
}
