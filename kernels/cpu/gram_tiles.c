/* Gram matrices by products of bfloat16 tiles as dense_tiles.c takes them: Hessians of many tokens, and what
   is left of a matrix behind some columns of its factor. Blocks of columns against all rows from there on. */
#include "base/whole.h"
#include "kernels/cpu/device.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/tile_sums.h"

#include <cblas.h>

/* A task lays its columns for RIGHT_ROWS rows, of which it keeps the sums. Of a Hessian all features lie as
   tiles for PASS_TOKENS tokens at a time. */
enum { RIGHT_ROWS = 512, PASS_TOKENS = 2048, PAIR = QB_TILE_PAIR };

typedef struct {
    float *c;
    int64_t ldc;
    bool negative;
    int64_t columns;  /* of a task */
    uint8_t *workers; /* [worker_bytes()] each */
    qb_tile_right x;
} gram_job;

static int64_t worker_bytes(void) {
    return qb_tile_room_bytes(QB_TILE_ROWS_MOST, RIGHT_ROWS);
}

/* The pair's part of the triangle, in float32 alone: where a sum of parts is no number. */
static void add_exactly(const gram_job *j, int64_t row, int64_t rows, int64_t col, int64_t cols) {
    float sums[PAIR * PAIR];
    const qb_bf16_source r_x = qb_bf16_part(&j->x.rows, row, 0), c_x = qb_bf16_part(&j->x.rows, col, 0);
    cblas_sgemm(CblasRowMajor, r_x.across ? CblasTrans : CblasNoTrans, r_x.across ? CblasNoTrans : CblasTrans,
                (int)rows, (int)cols, (int)r_x.cols, j->negative ? -1.0f : 1.0f, r_x.numbers, (int)r_x.stride,
                c_x.numbers, (int)c_x.stride, 0.0f, sums, PAIR);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols && col + c <= row + r; c++)
            j->c[(row + r) * j->ldc + col + c] += sums[r * PAIR + c];
}

static void add_block(const gram_job *j, int64_t col, int64_t cols, int64_t row, int64_t rows, void *room) {
    const int64_t n = j->x.rows.rows, lefts = qb_pieces(cols, PAIR), rights = qb_pieces(rows, PAIR);
    qb_bf16_source columns = qb_bf16_part(&j->x.rows, col, 0);
    columns.rows = cols;
    const float *sums = qb_tile_sums(&j->x, row, rows, &columns, j->negative, 0, columns.cols, room);
    for (int64_t i = 0; i < lefts * rights; i++) {
        const int64_t r = row + i / lefts * PAIR, c = col + i % lefts * PAIR;
        const int64_t high = qb_least(PAIR, n - r), wide = qb_least(PAIR, n - c);
        if (c > r + high - 1) continue; /* above the diagonal */
        float *to = j->c + r * j->ldc + c;
        if (!j->x.tiles->add_sums(sums + i * PAIR * PAIR, wide, high, r - c, to, j->ldc))
            add_exactly(j, r, high, c, wide);
    }
}

static void take_columns(void *ctx, int64_t begin, int64_t end, int worker) {
    const gram_job *j = ctx;
    const int64_t n = j->x.rows.rows;
    for (int64_t i = begin; i < end; i++) {
        const int64_t col = i * j->columns, cols = qb_least(j->columns, n - col);
        for (int64_t row = col; row < n; row += RIGHT_ROWS)
            add_block(j, col, cols, row, qb_least(RIGHT_ROWS, n - row), j->workers + worker * worker_bytes());
    }
}

int64_t qb_gram_tiles_bytes(int threads, int64_t n, int64_t k) {
    return threads * worker_bytes() + qb_tile_right_bytes(n, k, QB_BF16_PARTS);
}

void qb_gram_by_tiles(const qb_bf16_tiles *tiles, qb_threads *threads, const qb_bf16_source *x, bool negative,
                      float *c, int64_t ldc, void *room) {
    uint8_t *laid = (uint8_t *)room + qb_threads_count(threads) * worker_bytes();
    gram_job j = {.c = c,
                  .ldc = ldc,
                  .negative = negative,
                  .columns = qb_cpu_tile_rows(threads, x->rows),
                  .workers = room,
                  .x = {tiles, *x, (uint16_t *)(void *)laid}};
    qb_parallel_for(threads, qb_pieces(x->rows, PAIR), 1, qb_tile_right_lay, &j.x);
    qb_parallel_for(threads, qb_pieces(x->rows, j.columns), 1, take_columns, &j);
}

int64_t qb_cpu_hessian_bytes(int threads, int64_t n, int64_t T) {
    return qb_simd_chosen()->bf16 ? qb_gram_tiles_bytes(threads, n, qb_least(T, PASS_TOKENS)) : 0;
}

qb_status qb_hessian_by_tiles(cpu_device *d, float *h, const float *x, int64_t T, int64_t n) {
    const int64_t bytes = qb_gram_tiles_bytes(qb_threads_count(d->base.threads), n, qb_least(T, PASS_TOKENS));
    void *room;
    qb_status st = qb_cpu_workspace(d, bytes, &room);
    if (st != QB_OK) return st;
    for (int64_t t = 0; t < T; t += PASS_TOKENS) {
        const qb_bf16_source features = {.numbers = x + t * n,
                                         .dtype = QB_DTYPE_F32,
                                         .across = true,
                                         .stride = n,
                                         .rows = n,
                                         .cols = qb_least(PASS_TOKENS, T - t)};
        qb_gram_by_tiles(d->simd->bf16, d->base.threads, &features, false, h, n, room);
    }
    return QB_OK;
}
