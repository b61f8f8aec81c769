/* Dense rows with many tokens, by products of bfloat16 tiles that add up in float32 (AMX).

   Each number is a sum of bfloat16 ones, its parts (simd.h): a float32 number's 24 bits are three of them, so
   that nothing is rounded before the sum: y = sum over tiles of 32 columns of the products of parts. Of n =
   ceil(cols / 32) tiles each of the p products (3 of bfloat16 weights, 5 of float16's, 6 of float32's) adds
   up even and odd columns apart, 16 rounded sums each, then both, then to y. Products of parts that are
   together below 2^-26 of the numbers' own are left out. So

       |y - exact| <= (18 + p n) 2^-24 sum of |w x|, and what is below 2^-126 counts as zero,

   cols / 10 to cols / 5 rounded sums where one after the other would be cols. What does not fit float32 on
   its way comes out as no number, as do zeros times infinity of a part: those are made again by float32
   loops. */
#include "base/whole.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/tile_sums.h"

#include <string.h>

/* A task is so many rows, which meet all tokens of the pass. */
enum { PASS_TOKENS = 512, PAIR = QB_TILE_PAIR };

typedef struct {
    const qb_simd *simd;
    const qb_matrix *w;
    const float *x;
    float *y;
    int64_t T, task_rows;
    uint8_t *workers; /* [worker_bytes()] each */
    qb_tile_right tokens;
} tiles_job;

static int64_t worker_bytes(void) {
    return qb_tile_room_bytes(QB_TILE_ROWS_MOST, PASS_TOKENS);
}

static const uint8_t *elements_at(const qb_matrix *w, int64_t row, int64_t col) {
    return (const uint8_t *)w->dense + (row * w->cols + col) * (int64_t)qb_dtype_bytes(w->dtype);
}

static void make_again(const tiles_job *j, int64_t row, int64_t rows, int64_t token, int64_t tokens,
                       float *y) {
    const qb_matrix *w = j->w;
    const qb_dense_fn loops = qb_cpu_dense_loops(j->simd, w->dtype);
    for (int64_t t = 0; t < tokens; t++)
        loops(elements_at(w, row, 0), w->cols, rows, j->x + (token + t) * w->cols, 1, y + t * w->rows,
              w->rows);
}

static void multiply_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const tiles_job *j = ctx;
    const qb_matrix *w = j->w;
    uint8_t *room = j->workers + worker * worker_bytes();
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * j->task_rows, rows = qb_least(j->task_rows, w->rows - first);
        const int64_t row_pairs = qb_pieces(rows, PAIR), token_pairs = qb_pieces(j->T, PAIR);
        const qb_bf16_source left = {.numbers = elements_at(w, first, 0),
                                     .dtype = w->dtype,
                                     .stride = w->cols,
                                     .rows = rows,
                                     .cols = w->cols};
        const float *sums = qb_tile_sums(&j->tokens, 0, j->T, &left, false, 0, w->cols, room);
        for (int64_t p = 0; p < token_pairs * row_pairs; p++) {
            const int64_t t = p / row_pairs * PAIR, r = p % row_pairs * PAIR;
            const int64_t tokens = qb_least(PAIR, j->T - t), some = qb_least(PAIR, rows - r);
            float *y = j->y + t * w->rows + first + r;
            if (!j->tokens.tiles->take_sums(sums + p * PAIR * PAIR, some, tokens, y, w->rows))
                make_again(j, first + r, some, t, tokens, y);
        }
    }
}

/* ---- as loops ---- */

static bool tiles_same_room(const qb_matrix *a, const qb_matrix *b) {
    return a->cols == b->cols;
}

static int64_t workers_bytes(const cpu_device *d) {
    return qb_threads_count(d->base.threads) * worker_bytes();
}
static int64_t laid_bytes(int64_t cols, int64_t T) {
    return qb_tile_right_bytes(T, cols, QB_BF16_PARTS);
}

static int64_t tiles_room(const cpu_device *d, const qb_cpu_part *part) {
    return workers_bytes(d) + laid_bytes(part->w->cols, part->T);
}

/* Quantized rows' tiles take no more, but that columns in another order are gathered. */
int64_t qb_cpu_product_bytes(int threads, int64_t cols, int64_t T) {
    const int64_t now = qb_least(T, PASS_TOKENS);
    return qb_simd_chosen()->bf16 ? threads * worker_bytes() + laid_bytes(cols, now) + now * cols * 4 : 0;
}

static void tiles_plan(const cpu_device *d, void *job, void *room, const qb_cpu_part *part,
                       qb_cpu_loops *out) {
    const qb_matrix *w = part->w;
    tiles_job *j = job;
    *j = (tiles_job){.simd = d->simd,
                     .w = w,
                     .x = part->x,
                     .y = part->y,
                     .T = part->T,
                     .task_rows = qb_cpu_tile_rows(d->base.threads, w->rows),
                     .workers = room};
    j->tokens = (qb_tile_right){.tiles = d->simd->bf16,
                                .rows = {.numbers = part->x,
                                         .dtype = QB_DTYPE_F32,
                                         .stride = w->cols,
                                         .rows = part->T,
                                         .cols = w->cols},
                                .laid = (uint16_t *)(void *)(j->workers + workers_bytes(d))};
    out->before[0] =
        (qb_cpu_loop){{qb_pieces(part->T, PAIR), 1, qb_tile_right_lay, &j->tokens}, PAIR * w->cols * 4};
    out->multiply =
        (qb_cpu_loop){{qb_pieces(w->rows, j->task_rows), 1, multiply_rows, j}, j->task_rows * w->cols * 2};
}

const qb_cpu_form qb_cpu_tiles_form = {
    .most_tokens = PASS_TOKENS,
    .job_bytes = sizeof(tiles_job),
    .same_room = tiles_same_room,
    .room_bytes = tiles_room,
    .plan = tiles_plan,
};
