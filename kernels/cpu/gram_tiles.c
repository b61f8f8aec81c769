/* Hessians of many tokens, by products of bfloat16 tiles as dense_tiles.c takes them: the lower triangle of h
   += X^T X, X[T, n]. Blocks of columns of h against all rows from there on. */
#include "base/whole.h"
#include "kernels/cpu/device.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/products.h"

#include <cblas.h>
#include <string.h>

/* All rows lie as tiles for PASS_TOKENS tokens at a time. A task lays its columns, CHUNK tiles of tokens at a
   time, for RIGHT_ROWS rows, of which it keeps the sums. */
enum { RIGHT_ROWS = 512, PASS_TOKENS = 2048, CHUNK = 4, PAIR = 2 * QB_BF16_TILE };
enum {
    LEFT_ELEMENTS = QB_TILE_ROWS_MOST * CHUNK * QB_BF16_TILE_COLS * QB_BF16_PARTS,
    SUMS = QB_TILE_ROWS_MOST * RIGHT_ROWS
};
enum { WORKER_BYTES = LEFT_ELEMENTS * 2 + SUMS * 4 };

typedef struct {
    const qb_bf16_tiles *tiles;
    const float *x;
    float *h;
    int64_t T, n, columns, depth; /* of a task; tiles of tokens */
    uint8_t *workers;             /* [WORKER_BYTES] each */
    uint16_t *right;              /* [pair of tiles of rows][depth][qb_bf16_pair(3)] */
} gram_job;

static qb_bf16_source features(const gram_job *j, int64_t first, int64_t token, int64_t tokens) {
    return (qb_bf16_source){.numbers = j->x + token * j->n + first,
                            .dtype = QB_DTYPE_F32,
                            .across = true,
                            .stride = j->n,
                            .rows = j->n - first,
                            .cols = tokens};
}

static void lay_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const gram_job *j = ctx;
    for (int64_t i = begin; i < end; i++) {
        const qb_bf16_source pair = features(j, i * PAIR, 0, j->T);
        j->tiles->lay_right(&pair, j->right + i * j->depth * qb_bf16_pair(QB_BF16_PARTS));
    }
}

/* The pair's part of the triangle, in float32 alone: where a sum of parts is no number. */
static void add_exactly(const gram_job *j, int64_t row, int64_t rows, int64_t col, int64_t cols) {
    float sums[PAIR * PAIR];
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)rows, (int)cols, (int)j->T, 1.0f, j->x + row,
                (int)j->n, j->x + col, (int)j->n, 0.0f, sums, PAIR);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols && col + c <= row + r; c++)
            j->h[(row + r) * j->n + col + c] += sums[r * PAIR + c];
}

/* Columns of h from `col` on, rows from `row` on. */
static void add_block(const gram_job *j, int64_t col, int64_t cols, int64_t row, int64_t rows,
                      uint8_t *room) {
    const int64_t pair = qb_bf16_pair(QB_BF16_PARTS), lefts = qb_pieces(cols, PAIR),
                  rights = qb_pieces(rows, PAIR);
    uint16_t *left = (uint16_t *)(void *)room;
    float *sums = (float *)(void *)(room + LEFT_ELEMENTS * 2);
    memset(sums, 0, (size_t)(lefts * rights * PAIR * PAIR) * sizeof *sums);
    for (int64_t k = 0; k < j->depth; k += CHUNK) {
        const int64_t count = qb_least(CHUNK, j->depth - k), token = k * QB_BF16_TILE_COLS;
        for (int64_t l = 0; l < lefts; l++) {
            const qb_bf16_source columns =
                features(j, col + l * PAIR, token, qb_least(count * QB_BF16_TILE_COLS, j->T - token));
            j->tiles->lay_left(&columns, left + l * count * pair);
        }
        j->tiles->multiply(QB_BF16_PARTS, QB_BF16_PARTS, count, left, lefts, NULL,
                           j->right + (row / PAIR * j->depth + k) * pair, rights, j->depth * pair, sums);
    }
    for (int64_t i = 0; i < lefts * rights; i++) {
        const int64_t r = row + i / lefts * PAIR, c = col + i % lefts * PAIR;
        const int64_t high = qb_least(PAIR, j->n - r), wide = qb_least(PAIR, j->n - c);
        if (c > r + high - 1) continue; /* above the diagonal */
        if (!j->tiles->add_sums(sums + i * PAIR * PAIR, wide, high, r - c, j->h + r * j->n + c, j->n))
            add_exactly(j, r, high, c, wide);
    }
}

static void take_columns(void *ctx, int64_t begin, int64_t end, int worker) {
    const gram_job *j = ctx;
    uint8_t *room = j->workers + (int64_t)worker * WORKER_BYTES;
    for (int64_t i = begin; i < end; i++) {
        const int64_t col = i * j->columns, cols = qb_least(j->columns, j->n - col);
        for (int64_t row = col; row < j->n; row += RIGHT_ROWS)
            add_block(j, col, cols, row, qb_least(RIGHT_ROWS, j->n - row), room);
    }
}

static int64_t workers_bytes(int threads) {
    return threads * (int64_t)WORKER_BYTES;
}
static int64_t laid_bytes(int64_t n, int64_t T) {
    const int64_t depth = qb_pieces(qb_least(T, PASS_TOKENS), QB_BF16_TILE_COLS);
    return qb_pieces(n, PAIR) * depth * qb_bf16_pair(QB_BF16_PARTS) * 2;
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
        gram_job j = {.tiles = d->simd->bf16,
                      .x = x + t * n,
                      .h = h,
                      .T = qb_least(PASS_TOKENS, T - t),
                      .n = n,
                      .columns = qb_cpu_tile_rows(d, n)};
        j.depth = qb_pieces(j.T, QB_BF16_TILE_COLS);
        j.workers = room, j.right = (uint16_t *)(void *)(room + workers);
        qb_parallel_for(d->base.threads, qb_pieces(n, PAIR), 1, lay_rows, &j);
        qb_parallel_for(d->base.threads, qb_pieces(n, j.columns), 1, take_columns, &j);
    }
    return QB_OK;
}
