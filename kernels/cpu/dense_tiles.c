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

#include <string.h>

/* A task is so many rows. They lie as tiles for `chunk` tiles of columns at a time, in a worker's room, and
   meet all tokens of the pass there, a pair of tiles of which fits the first cache with a pair of rows'. */
enum { PASS_TOKENS = 512, CHUNK_MOST = 6 };
enum { PAIR = 2 * QB_BF16_TILE, SUMS = QB_TILE_ROWS_MOST * PASS_TOKENS };
enum { LEFT_ELEMENTS = QB_TILE_ROWS_MOST * CHUNK_MOST * QB_BF16_TILE_COLS * QB_BF16_PARTS };
enum { WORKER_BYTES = LEFT_ELEMENTS * 2 + SUMS * 4 };

typedef struct {
    const qb_simd *simd;
    const qb_matrix *w;
    const float *x;
    float *y;
    int64_t T, task_rows, depth; /* tiles of columns */
    uint8_t *workers;            /* [WORKER_BYTES] each */
    uint16_t *laid;              /* [pair of tiles of tokens][depth][qb_bf16_pair(3)] */
} tiles_job;

static void lay_tokens(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const tiles_job *j = ctx;
    const int64_t cols = j->w->cols;
    for (int64_t i = begin; i < end; i++) {
        const qb_bf16_source tokens = {.numbers = j->x + i * PAIR * cols,
                                       .dtype = QB_DTYPE_F32,
                                       .stride = cols,
                                       .rows = j->T - i * PAIR,
                                       .cols = cols};
        j->simd->bf16->lay_right(&tokens, j->laid + i * j->depth * qb_bf16_pair(QB_BF16_PARTS));
    }
}

static const uint8_t *elements_at(const qb_matrix *w, int64_t row, int64_t col) {
    return (const uint8_t *)w->dense + (row * w->cols + col) * (int64_t)qb_dtype_bytes(w->dtype);
}

/* Tiles of columns first .. first + n of the rows, pair by pair. The next columns are asked for, of which the
   processor foresees nothing: rows of a chunk lie far apart. */
static void lay_weights(const tiles_job *j, int64_t row, int64_t rows, int64_t first, int64_t n,
                        uint16_t *to) {
    enum { LINE = 64 };
    const qb_matrix *w = j->w;
    const int64_t col = first * QB_BF16_TILE_COLS, next = qb_least((first + n) * QB_BF16_TILE_COLS, w->cols),
                  end = qb_least((first + 2 * n) * QB_BF16_TILE_COLS, w->cols);
    for (int64_t r = 0; r < rows; r++)
        for (const uint8_t *p = elements_at(w, row + r, next), *e = elements_at(w, row + r, end); p < e;
             p += LINE)
            __builtin_prefetch(p, 0, 2);
    for (int64_t r = 0; r < rows; r += PAIR, to += n * qb_bf16_pair(qb_bf16_parts(w->dtype))) {
        const qb_bf16_source pair = {.numbers = elements_at(w, row + r, col),
                                     .dtype = w->dtype,
                                     .stride = w->cols,
                                     .rows = rows - r,
                                     .cols = qb_least(n * QB_BF16_TILE_COLS, w->cols - col)};
        j->simd->bf16->lay_left(&pair, to);
    }
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
    const qb_bf16_tiles *tiles = j->simd->bf16;
    const int parts = qb_bf16_parts(j->w->dtype);
    const int64_t chunk = CHUNK_MOST - parts + 1, token_pairs = qb_pieces(j->T, PAIR);
    uint8_t *room = j->workers + (int64_t)worker * WORKER_BYTES;
    uint16_t *left = (uint16_t *)(void *)room;
    float *sums = (float *)(void *)(room + LEFT_ELEMENTS * 2);
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * j->task_rows, rows = qb_least(j->task_rows, j->w->rows - first);
        const int64_t row_pairs = qb_pieces(rows, PAIR);
        memset(sums, 0, (size_t)(row_pairs * token_pairs * PAIR * PAIR) * sizeof *sums);
        for (int64_t k = 0; k < j->depth; k += chunk) {
            const int64_t n = qb_least(chunk, j->depth - k);
            lay_weights(j, first, rows, k, n, left);
            tiles->multiply(parts, QB_BF16_PARTS, n, left, row_pairs, NULL,
                            j->laid + k * qb_bf16_pair(QB_BF16_PARTS), token_pairs,
                            j->depth * qb_bf16_pair(QB_BF16_PARTS), sums);
        }
        for (int64_t p = 0; p < token_pairs * row_pairs; p++) {
            const int64_t t = p / row_pairs * PAIR, r = p % row_pairs * PAIR;
            const int64_t tokens = qb_least(PAIR, j->T - t), some = qb_least(PAIR, rows - r);
            float *y = j->y + t * j->w->rows + first + r;
            if (!tiles->take_sums(sums + p * PAIR * PAIR, some, tokens, y, j->w->rows))
                make_again(j, first + r, some, t, tokens, y);
        }
    }
}

/* ---- as loops ---- */

static bool tiles_same_room(const qb_matrix *a, const qb_matrix *b) {
    return a->cols == b->cols;
}

static int64_t workers_bytes(const cpu_device *d) {
    return qb_threads_count(d->base.threads) * (int64_t)WORKER_BYTES;
}
static int64_t laid_bytes(int64_t cols, int64_t T) {
    return qb_pieces(T, PAIR) * qb_pieces(cols, QB_BF16_TILE_COLS) * qb_bf16_pair(QB_BF16_PARTS) * 2;
}

static int64_t tiles_room(const cpu_device *d, const qb_cpu_part *part) {
    return workers_bytes(d) + laid_bytes(part->w->cols, part->T);
}

/* Quantized rows' tiles take no more, but that columns in another order are gathered. */
int64_t qb_cpu_product_bytes(int threads, int64_t cols, int64_t T) {
    const int64_t now = qb_least(T, PASS_TOKENS);
    return qb_simd_chosen()->bf16 ? threads * (int64_t)WORKER_BYTES + laid_bytes(cols, now) + now * cols * 4
                                  : 0;
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
                     .task_rows = qb_cpu_tile_rows(d, w->rows),
                     .depth = qb_pieces(w->cols, QB_BF16_TILE_COLS),
                     .workers = room};
    j->laid = (uint16_t *)(void *)(j->workers + workers_bytes(d));
    out->before[0] = (qb_cpu_loop){{qb_pieces(part->T, PAIR), 1, lay_tokens, j}, PAIR * w->cols * 4};
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
