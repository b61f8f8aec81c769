/* Dense bfloat16 rows with many tokens, by products of bfloat16 tiles that add up in float32 (AMX).

   A float32 activation is three bfloat16 numbers, its 24 bits in eights, so that nothing is rounded before
   the sum: y = sum over tiles of 32 columns of (w high, then w mid, then w low). Each such product adds up
   even and odd columns apart, 16 rounded sums each, then both, then to y: with n = ceil(cols / 32) tiles

       |y - exact| <= (17 + 3 n) 2^-24 sum of |w x|, and what is below 2^-126 counts as zero,

   cols / 10 rounded sums where one after the other would be cols. Zeros of a split meet an infinite weight as
   no number, which they are not in float32: what comes out as no number is made again by float32 loops. */
#include "kernels/cpu/products.h"

#include <math.h>
#include <string.h>

/* A task is so many rows. They lie as tiles for CHUNK tiles of columns at a time, in a worker's room, and
   meet all tokens of the pass there. Nothing of this has been measured. */
enum { ROWS_A_TASK = 128, CHUNK = 16, PASS_TOKENS = 512 };
enum { TILE = QB_BF16_TILE, COLS = QB_BF16_TILE_COLS, PARTS = QB_BF16_PARTS, PAIR = 2 * TILE };
enum { WEIGHT_ELEMENTS = ROWS_A_TASK * CHUNK * COLS, SUMS = ROWS_A_TASK * PASS_TOKENS };
enum { WORKER_BYTES = WEIGHT_ELEMENTS * 2 + SUMS * 4 };

typedef struct {
    const qb_simd *simd;
    const qb_matrix *w;
    const float *x;
    float *y;
    int64_t T, depth; /* tiles of columns */
    uint8_t *workers; /* [WORKER_BYTES] each */
    uint16_t *laid;   /* [tile of tokens][depth][PARTS][TILE pairs of columns][TILE tokens][2] */
} tiles_job;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t pieces(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}

/* x as a sum of bfloat16 numbers; all of one that is not finite is in the first. */
static void split(float x, uint16_t part[PARTS]) {
    for (int i = 0; i < PARTS; i++) {
        uint32_t bits, high;
        float taken;
        memcpy(&bits, &x, 4);
        high = bits & 0xffff0000;
        if (isnan(x)) high |= 0x00400000; /* its bits may all be lower ones */
        part[i] = (uint16_t)(high >> 16);
        memcpy(&taken, &high, 4);
        x = isfinite(x) ? x - taken : 0.0f;
    }
}

static void lay_tokens(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const tiles_job *j = ctx;
    const int64_t cols = j->w->cols;
    for (int64_t i = begin; i < end; i++)
        for (int64_t t = 0; t < TILE; t++)
            for (int64_t c = 0; c < j->depth * COLS; c++) {
                const int64_t token = i * TILE + t;
                uint16_t part[PARTS];
                split(token < j->T && c < cols ? j->x[token * cols + c] : 0.0f, part);
                uint16_t *to = j->laid + (i * j->depth + c / COLS) * PARTS * TILE * COLS;
                for (int k = 0; k < PARTS; k++)
                    to[(k * TILE + c % COLS / 2) * COLS + t * 2 + c % 2] = part[k];
            }
}

/* Rows and columns of a chunk as tiles, zeros behind the last: to[pair of row tiles][k][2][TILE][COLS]. */
static void lay_weights(const qb_matrix *w, int64_t row, int64_t rows, int64_t first, int64_t n,
                        uint16_t *to) {
    for (int64_t r = 0; r < pieces(rows, PAIR) * PAIR; r++)
        for (int64_t k = 0; k < n; k++) {
            const int64_t col = (first + k) * COLS, count = r < rows ? least(COLS, w->cols - col) : 0;
            uint16_t *at = to + (((r / PAIR * n + k) * 2 + r % PAIR / TILE) * TILE + r % TILE) * COLS;
            if (count > 0)
                memcpy(at, (const uint8_t *)w->dense + ((row + r) * w->cols + col) * 2, (size_t)count * 2);
            memset(at + count, 0, (size_t)(COLS - count) * 2);
        }
}

/* sums[pair of token tiles][pair of row tiles][row tile][token tile][row][token] */
static void store_sums(const tiles_job *j, int64_t row, int64_t rows, const float *sums) {
    const qb_matrix *w = j->w;
    const int64_t row_pairs = pieces(rows, PAIR);
    for (int64_t t = 0; t < j->T; t++) {
        float *y = j->y + t * w->rows + row;
        bool numbers = true;
        for (int64_t r = 0; r < rows; r++) {
            const int64_t pair = t / PAIR * row_pairs + r / PAIR,
                          tile = r % PAIR / TILE * 2 + t % PAIR / TILE;
            y[r] = sums[((pair * 4 + tile) * TILE + r % TILE) * TILE + t % TILE];
            numbers = numbers && !isnan(y[r]);
        }
        if (!numbers)
            j->simd->dense_bf16((const uint8_t *)w->dense + row * w->cols * 2, w->cols, rows,
                                j->x + t * w->cols, 1, y, w->rows);
    }
}

static void multiply_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const tiles_job *j = ctx;
    uint8_t *room = j->workers + (int64_t)worker * WORKER_BYTES;
    uint16_t *weights = (uint16_t *)(void *)room;
    float *sums = (float *)(void *)(room + WEIGHT_ELEMENTS * 2);
    for (int64_t i = begin; i < end; i++) {
        const int64_t row = i * ROWS_A_TASK, rows = least(ROWS_A_TASK, j->w->rows - row);
        const int64_t row_pairs = pieces(rows, PAIR), token_pairs = pieces(j->T, PAIR);
        memset(sums, 0, (size_t)(row_pairs * token_pairs * PAIR * PAIR) * sizeof *sums);
        for (int64_t k = 0; k < j->depth; k += CHUNK) {
            const int64_t n = least(CHUNK, j->depth - k);
            lay_weights(j->w, row, rows, k, n, weights);
            j->simd->bf16_tiles(n, weights, row_pairs, j->laid + k * PARTS * TILE * COLS,
                                j->depth * PARTS * TILE * COLS, token_pairs, sums);
        }
        store_sums(j, row, rows, sums);
    }
}

/* ---- as loops ---- */

static bool tiles_same_room(const qb_matrix *a, const qb_matrix *b) {
    return a->cols == b->cols;
}

static int64_t tiles_room(const cpu_device *d, const qb_cpu_part *part) {
    const int64_t tiles = 2 * pieces(part->T, PAIR) * pieces(part->w->cols, COLS);
    return qb_threads_count(d->base.threads) * (int64_t)WORKER_BYTES + tiles * PARTS * TILE * COLS * 2;
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
                     .depth = pieces(w->cols, COLS),
                     .workers = room};
    j->laid = (uint16_t *)(void *)(j->workers + qb_threads_count(d->base.threads) * (int64_t)WORKER_BYTES);
    out->before[0] = (qb_cpu_loop){{2 * pieces(part->T, PAIR), 1, lay_tokens, j}, TILE * w->cols * 4};
    out->multiply =
        (qb_cpu_loop){{pieces(w->rows, ROWS_A_TASK), 1, multiply_rows, j}, ROWS_A_TASK * w->cols * 2};
}

const qb_cpu_form qb_cpu_tiles_form = {
    .most_tokens = PASS_TOKENS,
    .job_bytes = sizeof(tiles_job),
    .same_room = tiles_same_room,
    .room_bytes = tiles_room,
    .plan = tiles_plan,
};
