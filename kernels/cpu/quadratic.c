/* Sums of d H d^T over rows: panels of H's columns against all rows of a call, each panel's sum apart and
   added up in their order. H is symmetric, so that what lies below a panel's diagonal block counts twice.
   Tiles take two parts of each number, at most 2^-17 of a product away: over the thousands of products of a
   sum that averages out, to 1e-6 of it and less in the blocks measured. */
#include "kernels/cpu/gemm.h"

#include "base/memory.h"
#include "base/whole.h"
#include "kernels/cpu/tile_sums.h"

#include <cblas.h>

enum { PANEL = 128, PAIR = QB_TILE_PAIR }; /* columns; rows */

struct qb_quadratic {
    qb_threads *threads;
    int64_t n, most_rows, panels;
    qb_tile_right right; /* the rows of a call; without tiles: SGEMM */
    float *workers;      /* [worker]: products[most_rows][PANEL], what tiles take */
    int64_t share;       /* floats of a worker */
    double *of_panel;    /* [set][panels] */
    /* of a call */
    const float *d, *h;
    int64_t rows;
    int sets;
};

static int64_t share_of(bool tiles, int64_t most_rows) {
    return most_rows * PANEL + (tiles ? qb_tile_room_bytes(PANEL, most_rows) / 4 : 0);
}
static int64_t right_bytes(bool tiles, int64_t n, int64_t most_rows) {
    return tiles ? qb_tile_right_bytes(most_rows, n, QB_BF16_CUT) : 0;
}

int64_t qb_quadratic_bytes(int threads, int64_t n, int64_t most_rows, int sets) {
    const bool tiles = qb_simd_chosen()->bf16 != NULL;
    return threads * share_of(tiles, most_rows) * 4 + sets * qb_pieces(n, PANEL) * 8 +
           right_bytes(tiles, n, most_rows);
}

qb_status qb_quadratic_create(qb_threads *threads, int64_t n, int64_t most_rows, int sets,
                              qb_quadratic **out) {
    return qb_quadratic_create_by(qb_simd_chosen()->bf16, threads, n, most_rows, sets, out);
}

qb_status qb_quadratic_create_by(const qb_bf16_tiles *tiles, qb_threads *threads, int64_t n,
                                 int64_t most_rows, int sets, qb_quadratic **out) {
    const int64_t bytes = right_bytes(tiles, n, most_rows);
    qb_quadratic *q;
    qb_status st;
    *out = NULL;
    QB_TRY(st, qb_alloc_zero(1, sizeof *q, &q));
    qb_blas_single_thread();
    q->threads = threads, q->right.tiles = tiles;
    q->n = n, q->most_rows = most_rows, q->panels = qb_pieces(n, PANEL);
    q->share = share_of(tiles, most_rows);
    *out = q;
    QB_TRY(st, qb_alloc((size_t)(qb_threads_count(threads) * q->share), sizeof(float), &q->workers));
    QB_TRY(st, qb_alloc((size_t)(sets * q->panels), sizeof(double), &q->of_panel));
    if (bytes) {
        QB_TRY(st, qb_alloc((size_t)bytes, 1, &q->right.laid));
        qb_ask_huge_pages(q->right.laid, bytes);
    }
out:
    if (st != QB_OK) {
        qb_quadratic_free(*out);
        *out = NULL;
    }
    return st;
}

void qb_quadratic_free(qb_quadratic *q) {
    if (!q) return;
    qb_free(q->right.laid), qb_free(q->workers), qb_free(q->of_panel);
    qb_free(q);
}

/* product[row][column] = sum over k in [from, end) of d[row][k] h[k][column], columns first .. first + width.
 */
static void multiply_exactly(const qb_quadratic *q, int64_t row, int64_t rows, int64_t first, int64_t width,
                             int64_t from, int64_t end, float *product) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)width, (int)(end - from), 1.0f,
                q->d + row * q->n + from, (int)q->n, q->h + from * q->n + first, (int)q->n, 0.0f, product,
                PANEL);
}

static void multiply_tiles(const qb_quadratic *q, int64_t first, int64_t width, int64_t from, int64_t end,
                           float *product) {
    const int64_t lefts = qb_pieces(width, PAIR), rights = qb_pieces(q->rows, PAIR);
    const qb_bf16_source left = {.numbers = q->h + first * q->n,
                                 .dtype = QB_DTYPE_F32,
                                 .cut = true,
                                 .stride = q->n,
                                 .rows = width,
                                 .cols = q->n};
    const float *sums =
        qb_tile_sums(&q->right, 0, q->rows, &left, false, from, end, product + q->most_rows * PANEL);
    for (int64_t i = 0; i < lefts * rights; i++) {
        const int64_t r = i / lefts * PAIR, c = i % lefts * PAIR;
        const int64_t rows = qb_least(PAIR, q->rows - r), cols = qb_least(PAIR, width - c);
        float *to = product + r * PANEL + c;
        if (!q->right.tiles->take_sums(sums + i * PAIR * PAIR, cols, rows, to, PANEL))
            multiply_exactly(q, r, rows, first + c, cols, from, end, to);
    }
}

/* Eight partial sums by column, then a tree. */
static double dot(const float *a, const float *b, int64_t n) {
    double part[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) part[k] += (double)a[i + k] * (double)b[i + k];
    for (int k = 0; i < n; k++, i++) part[k] += (double)a[i] * (double)b[i];
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

static void take_panels(void *ctx, int64_t begin, int64_t end, int worker) {
    const qb_quadratic *q = ctx;
    float *product = q->workers + (int64_t)worker * q->share;
    const int64_t rows = q->rows / q->sets;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * PANEL, width = qb_least(PANEL, q->n - first), below = first + width;
        for (int set = 0; set < q->sets; set++) q->of_panel[set * q->panels + i] = 0;
        for (int part = 0; part < 2; part++) {
            const int64_t from = part ? below : first, to = part ? q->n : below;
            if (from == to) continue;
            if (q->right.tiles)
                multiply_tiles(q, first, width, from, to, product);
            else
                multiply_exactly(q, 0, q->rows, first, width, from, to, product);
            for (int64_t r = 0; r < q->rows; r++) {
                const float *d = q->d + r * q->n + first, *p = product + r * PANEL;
                const double sum = dot(p, d, width);
                q->of_panel[r / rows * q->panels + i] += part ? 2 * sum : sum;
            }
        }
    }
}

void qb_quadratic_forms(qb_quadratic *q, const float *d, int64_t rows, int sets, const float *h,
                        double *out) {
    q->d = d, q->h = h, q->rows = rows * sets, q->sets = sets;
    q->right.rows = (qb_bf16_source){
        .numbers = d, .dtype = QB_DTYPE_F32, .cut = true, .stride = q->n, .rows = q->rows, .cols = q->n};
    if (q->right.tiles)
        qb_parallel_for(q->threads, qb_pieces(q->rows, PAIR), 1, qb_tile_right_lay, &q->right);
    qb_parallel_for(q->threads, q->panels, 1, take_panels, q);
    for (int set = 0; set < sets; set++) {
        out[set] = 0;
        for (int64_t i = 0; i < q->panels; i++) out[set] += q->of_panel[set * q->panels + i];
    }
}
