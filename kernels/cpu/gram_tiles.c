/* Hessians of many tokens, by products of bfloat16 tiles as dense_tiles.c takes them: the lower triangle of h
   += X^T X, X[T, n]. Blocks of columns of h against all rows from there on. */
#include "base/whole.h"
#include "kernels/cpu/device.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/tile_sums.h"

#include <cblas.h>

/* All rows lie as tiles for PASS_TOKENS tokens at a time. A task lays its columns for RIGHT_ROWS rows, of
   which it keeps the sums. */
enum { RIGHT_ROWS = 512, PASS_TOKENS = 2048, PAIR = QB_TILE_PAIR };

typedef struct {
    float *h;
    int64_t columns;    /* of a task */
    uint8_t *workers;   /* [worker_bytes()] each */
    qb_tile_right rows; /* features of the tokens of this pass: all of X^T */
} gram_job;

static int64_t worker_bytes(void) {
    return qb_tile_room_bytes(QB_TILE_ROWS_MOST, RIGHT_ROWS);
}

/* The pair's part of the triangle, in float32 alone: where a sum of parts is no number. */
static void add_exactly(const gram_job *j, int64_t row, int64_t rows, int64_t col, int64_t cols) {
    float sums[PAIR * PAIR];
    const float *x = j->rows.rows.numbers;
    const int64_t n = j->rows.rows.rows;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)rows, (int)cols, (int)j->rows.rows.cols, 1.0f,
                x + row, (int)n, x + col, (int)n, 0.0f, sums, PAIR);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols && col + c <= row + r; c++)
            j->h[(row + r) * n + col + c] += sums[r * PAIR + c];
}

/* Columns of h from `col` on, rows from `row` on. */
static void add_block(const gram_job *j, int64_t col, int64_t cols, int64_t row, int64_t rows, void *room) {
    const int64_t n = j->rows.rows.rows, lefts = qb_pieces(cols, PAIR), rights = qb_pieces(rows, PAIR);
    qb_bf16_source columns = qb_bf16_part(&j->rows.rows, col, 0);
    columns.rows = cols;
    const float *sums = qb_tile_sums(&j->rows, row, rows, &columns, false, 0, columns.cols, room);
    for (int64_t i = 0; i < lefts * rights; i++) {
        const int64_t r = row + i / lefts * PAIR, c = col + i % lefts * PAIR;
        const int64_t high = qb_least(PAIR, n - r), wide = qb_least(PAIR, n - c);
        if (c > r + high - 1) continue; /* above the diagonal */
        if (!j->rows.tiles->add_sums(sums + i * PAIR * PAIR, wide, high, r - c, j->h + r * n + c, n))
            add_exactly(j, r, high, c, wide);
    }
}

static void take_columns(void *ctx, int64_t begin, int64_t end, int worker) {
    const gram_job *j = ctx;
    const int64_t n = j->rows.rows.rows;
    for (int64_t i = begin; i < end; i++) {
        const int64_t col = i * j->columns, cols = qb_least(j->columns, n - col);
        for (int64_t row = col; row < n; row += RIGHT_ROWS)
            add_block(j, col, cols, row, qb_least(RIGHT_ROWS, n - row), j->workers + worker * worker_bytes());
    }
}

static int64_t workers_bytes(int threads) {
    return threads * worker_bytes();
}
static int64_t laid_bytes(int64_t n, int64_t T) {
    return qb_tile_right_bytes(n, qb_least(T, PASS_TOKENS), QB_BF16_PARTS);
}

int64_t qb_cpu_hessian_bytes(int threads, int64_t n, int64_t T) {
    return qb_simd_chosen()->bf16 ? workers_bytes(threads) + laid_bytes(n, T) : 0;
}

qb_status qb_gram_tiles(cpu_device *d, float *h, const float *x, int64_t T, int64_t n) {
    const int64_t workers = workers_bytes(qb_threads_count(d->base.threads));
    uint8_t *room;
    qb_status st = qb_cpu_workspace(d, workers + laid_bytes(n, T), &room);
    if (st != QB_OK) return st;
    for (int64_t t = 0; t < T; t += PASS_TOKENS) {
        const qb_bf16_source features = {.numbers = x + t * n,
                                         .dtype = QB_DTYPE_F32,
                                         .across = true,
                                         .stride = n,
                                         .rows = n,
                                         .cols = qb_least(PASS_TOKENS, T - t)};
        gram_job j = {.h = h,
                      .columns = qb_cpu_tile_rows(d, n),
                      .workers = room,
                      .rows = {d->simd->bf16, features, (uint16_t *)(void *)(room + workers)}};
        qb_parallel_for(d->base.threads, qb_pieces(n, PAIR), 1, qb_tile_right_lay, &j.rows);
        qb_parallel_for(d->base.threads, qb_pieces(n, j.columns), 1, take_columns, &j);
    }
    return QB_OK;
}
