/* Float32 GEMM and Gram matrices over fixed tiles. Each tile of C is one single-threaded OpenBLAS call over
   the full k, so that the thread count cannot change a bit. */
#include "kernels/cpu/gemm.h"

#include "base/whole.h"

#include <cblas.h>
#include <pthread.h>

/* A tile's share of packing work falls with its side (at 2048^3: 256 x 512 runs at 88 % of one undivided
   call, 512 x 512 at 91 %, 1024 x 1024 at 97 %), while many threads want many tiles. The side depends on the
   shape alone. */
static int64_t tile_side(int64_t m, int64_t n) {
    double area = (double)m * (double)n;
    if (area >= 64.0 * 1024 * 1024) return 1024;
    return area >= 16.0 * 512 * 512 ? 512 : 256;
}

static void make_single(void) {
    openblas_set_num_threads(1);
}
void qb_blas_single_thread(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_single);
}

typedef struct {
    bool trans_a, trans_b;
    int64_t m, n, k, lda, ldb, ldc, side, col_tiles;
    float alpha, beta;
    const float *a, *b;
    float *c;
} gemm_job;

static void scale_rows(float beta, int64_t m, int64_t n, float *c, int64_t ldc) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
}

static void gemm_tiles(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const gemm_job *g = ctx;
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t i = tile / g->col_tiles * g->side, j = tile % g->col_tiles * g->side;
        const float *a = g->trans_a ? g->a + i : g->a + i * g->lda;
        const float *b = g->trans_b ? g->b + j * g->ldb : g->b + j;
        cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans,
                    g->trans_b ? CblasTrans : CblasNoTrans, (int)qb_least(g->side, g->m - i),
                    (int)qb_least(g->side, g->n - j), (int)g->k, g->alpha, a, (int)g->lda, b, (int)g->ldb,
                    g->beta, g->c + i * g->ldc + j, (int)g->ldc);
    }
}

void qb_gemm(qb_threads *threads, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
             const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
    if (m <= 0 || n <= 0) return;
    qb_blas_single_thread();
    if (k <= 0) {
        if (beta != 1.0f) scale_rows(beta, m, n, c, ldc);
        return;
    }
    int64_t side = tile_side(m, n);
    gemm_job g = {trans_a, trans_b, m, n, k, lda, ldb, ldc, side, (n + side - 1) / side,
                  alpha,   beta,    a, b, c};
    int64_t tiles = (m + side - 1) / side * g.col_tiles;
    qb_parallel_for(threads, tiles, 1, gemm_tiles, &g);
}

typedef struct {
    int64_t n, k, ldx, ldc, side, tiles;
    float alpha;
    const float *x;
    bool trans_x;
    float *c;
} gram_job;

/* Tile number to (row, column) of the lower triangle, row by row. */
static void triangle_tile(int64_t index, int64_t *row, int64_t *col) {
    int64_t r = 0;
    while (index > r) index -= ++r;
    *row = r;
    *col = index;
}

static void gram_tiles(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const gram_job *g = ctx;
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t row, col;
        triangle_tile(tile, &row, &col);
        int64_t i = row * g->side, j = col * g->side;
        int64_t m = qb_least(g->side, g->n - i), n = qb_least(g->side, g->n - j);
        const float *xi = g->trans_x ? g->x + i : g->x + i * g->ldx;
        const float *xj = g->trans_x ? g->x + j : g->x + j * g->ldx;
        float *c = g->c + i * g->ldc + j;
        if (i == j)
            cblas_ssyrk(CblasRowMajor, CblasLower, g->trans_x ? CblasTrans : CblasNoTrans, (int)m, (int)g->k,
                        g->alpha, xi, (int)g->ldx, 1.0f, c, (int)g->ldc);
        else
            cblas_sgemm(CblasRowMajor, g->trans_x ? CblasTrans : CblasNoTrans,
                        g->trans_x ? CblasNoTrans : CblasTrans, (int)m, (int)n, (int)g->k, g->alpha, xi,
                        (int)g->ldx, xj, (int)g->ldx, 1.0f, c, (int)g->ldc);
    }
}

void qb_gram_lower(qb_threads *threads, bool trans_x, int64_t n, int64_t k, float alpha, const float *x,
                   int64_t ldx, float *c, int64_t ldc) {
    if (n <= 0 || k <= 0) return;
    qb_blas_single_thread();
    int64_t side = tile_side(n, n);
    gram_job g = {n, k, ldx, ldc, side, (n + side - 1) / side, alpha, x, trans_x, c};
    qb_parallel_for(threads, g.tiles * (g.tiles + 1) / 2, 1, gram_tiles, &g);
}
