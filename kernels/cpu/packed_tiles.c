/* Quantized rows with many tokens in float32, by products of bfloat16 tiles as dense_tiles.c takes them: a
   code's value less its zero point is a whole number of eight bits, which is one part, and the group's scale
   is multiplied with sums. Other tables of values are three parts. */
#include "kernels/cpu/products.h"

#include <cblas.h>
#include <string.h>

/* As dense rows: a task is so many, laid for a chunk of one group's columns at a time. */
enum { PASS_TOKENS = 512, CHUNK = 4, PAIR = 2 * QB_BF16_TILE, COLS = QB_BF16_TILE_COLS };
enum { SUMS = QB_TILE_ROWS_MOST * PASS_TOKENS, PANEL = CHUNK * COLS * PAIR };
enum { LEFT_ELEMENTS = QB_TILE_ROWS_MOST * CHUNK * COLS * QB_BF16_PARTS };
enum { WORKER_BYTES = LEFT_ELEMENTS * 2 + (SUMS + PANEL + QB_TILE_ROWS_MOST) * 4 };

typedef struct {
    const qb_simd *simd;
    const qb_packed *p;
    const float *x; /* of this pass */
    float *y;
    int64_t T, task_rows, depth; /* tiles of columns */
    int parts;                   /* of a value */
    uint8_t *workers;            /* [WORKER_BYTES] each */
    uint16_t *laid;              /* [pair of tiles of tokens][depth][qb_bf16_pair(3)] */
    float *gathered;             /* [T][padded_cols], or NULL: x lies in packed order */
} packed_job;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t pieces(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}

/* Whether each of the table's values is one part. */
static bool is_exact(const qb_packed *p) {
    if (p->kind != QB_PACK_CODEBOOK) return true;
    for (int i = 0; i < 16; i++) {
        uint32_t bits;
        memcpy(&bits, &p->table[i], 4);
        if (bits & 0xffff) return false;
    }
    return true;
}

/* Measured on an Intel Xeon: with values of three parts the loops are the faster below. */
int64_t qb_cpu_packed_tiles_least(const qb_packed *p) {
    enum { EXACT = 32, OTHERS = 256 };
    if (p->by_row || p->offsets || p->kind > QB_PACK_8) return INT64_MAX;
    for (int64_t g = 0; g + 1 < p->n_groups; g++)
        if (p->group_end[g] % COLS != 0) return INT64_MAX;
    return is_exact(p) ? EXACT : OTHERS;
}

/* Measured on an Intel Xeon, of Q4_0, Q8_0 and IQ4_NL: 1.05 to 1.1 times as fast with 128 tokens, 1.5 with
   512, for what is done once a group weighs more where products are of 16 bits. Groups of 128 columns are the
   faster in whole numbers. */
int64_t qb_cpu_packed_float32_tokens(const cpu_device *d, const qb_packed *p) {
    enum { TOKENS = 128 };
    const bool short_groups = p->n_groups > 0 && p->kind <= QB_PACK_8 && p->group_end[0] <= COLS;
    const bool tiles = d->simd->bf16 && qb_cpu_packed_tiles_least(p) <= TOKENS;
    return tiles && short_groups ? TOKENS : 0;
}

static void lay_tokens(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const packed_job *j = ctx;
    const qb_packed *p = j->p;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * PAIR, tokens = least(PAIR, j->T - first), n = p->padded_cols;
        if (j->gathered)
            for (int64_t t = first; t < first + tokens; t++)
                for (int64_t k = 0; k < n; k++)
                    j->gathered[t * n + k] = p->source[k] < 0 ? 0.0f : j->x[t * p->cols + p->source[k]];
        const qb_bf16_source rows = {.numbers = (j->gathered ? j->gathered : j->x) + first * n,
                                     .dtype = QB_DTYPE_F32,
                                     .stride = n,
                                     .rows = tokens,
                                     .cols = n};
        j->simd->bf16->lay_right(&rows, j->laid + i * j->depth * qb_bf16_pair(QB_BF16_PARTS));
    }
}

/* Values of columns [begin, end) of group g of a pair of blocks, panel[column][PAIR], and their scales. */
static int64_t unpack_pair(const packed_job *j, int64_t block, int64_t g, int64_t begin, int64_t end,
                           float *panel, float scales[PAIR]) {
    const int64_t blocks = least(2, j->p->blocks - block);
    memset(scales, 0, PAIR * sizeof *scales);
    for (int64_t b = 0; b < blocks; b++)
        j->simd->unpack_values(j->p, block + b, g, begin, end, panel + b * QB_BLOCK_ROWS, PAIR,
                               scales + b * QB_BLOCK_ROWS);
    return blocks * QB_BLOCK_ROWS;
}

/* A pair of blocks with some tokens, in float32 alone: where a sum of parts is no number. */
static void make_again(const packed_job *j, int64_t block, int64_t token, int64_t tokens, float *panel,
                       float *y) {
    const qb_packed *p = j->p;
    const float *x = (j->gathered ? j->gathered : j->x) + token * p->padded_cols;
    const int64_t rows = least(PAIR, p->rows - block * QB_BLOCK_ROWS);
    float scales[PAIR];
    for (int64_t g = 0, from = 0; g < p->n_groups; from = p->group_end[g++])
        for (int64_t k = from; k < p->group_end[g]; k += CHUNK * COLS) {
            const int64_t end = least(k + CHUNK * COLS, p->group_end[g]);
            (void)unpack_pair(j, block, g, k, end, panel, scales);
            for (int64_t i = 0; i < (end - k) * PAIR; i++) panel[i] *= scales[i % PAIR];
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)tokens, (int)rows, (int)(end - k),
                        1.0f, x + k, (int)p->padded_cols, panel, PAIR, k == 0 ? 0.0f : 1.0f, y, (int)p->rows);
        }
}

static void multiply_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const packed_job *j = ctx;
    const qb_packed *p = j->p;
    const qb_bf16_tiles *tiles = j->simd->bf16;
    const int64_t token_pairs = pieces(j->T, PAIR), pair = qb_bf16_pair(QB_BF16_PARTS);
    uint16_t *left = (uint16_t *)(void *)(j->workers + (int64_t)worker * WORKER_BYTES);
    float *sums = (float *)(void *)(left + LEFT_ELEMENTS), *panel = sums + SUMS, *scales = panel + PANEL;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * j->task_rows, rows = least(j->task_rows, p->rows - first);
        const int64_t row_pairs = pieces(rows, PAIR), block = first / QB_BLOCK_ROWS;
        memset(sums, 0, (size_t)(row_pairs * token_pairs * PAIR * PAIR) * sizeof *sums);
        for (int64_t g = 0, from = 0; g < p->n_groups; from = p->group_end[g++])
            for (int64_t k = from; k < p->group_end[g]; k += CHUNK * COLS) {
                const int64_t to = least(k + CHUNK * COLS, p->group_end[g]), n = pieces(to - k, COLS);
                for (int64_t r = 0; r < row_pairs; r++) {
                    const qb_bf16_source values = {
                        .numbers = panel,
                        .dtype = QB_DTYPE_F32,
                        .across = true,
                        .exact = j->parts == 1,
                        .stride = PAIR,
                        .rows = unpack_pair(j, block + 2 * r, g, k, to, panel, scales + r * PAIR),
                        .cols = to - k};
                    tiles->lay_left(&values, left + r * n * qb_bf16_pair(j->parts));
                }
                tiles->multiply(j->parts, n, left, row_pairs, scales, j->laid + k / COLS * pair, token_pairs,
                                j->depth * pair, sums);
            }
        for (int64_t s = 0; s < token_pairs * row_pairs; s++) {
            const int64_t t = s / row_pairs * PAIR, r = s % row_pairs;
            const int64_t tokens = least(PAIR, j->T - t), some = least(PAIR, rows - r * PAIR);
            float *y = j->y + t * p->rows + first + r * PAIR;
            if (!tiles->take_sums(sums + s * PAIR * PAIR, some, tokens, y, p->rows))
                make_again(j, block + 2 * r, t, tokens, panel, y);
        }
    }
}

/* ---- as loops ---- */

static int64_t workers_bytes(const cpu_device *d) {
    return qb_threads_count(d->base.threads) * (int64_t)WORKER_BYTES;
}
static int64_t laid_bytes(const qb_cpu_part *part) {
    const qb_packed *p = part->w->packed;
    return pieces(part->T, PAIR) * pieces(p->padded_cols, COLS) * qb_bf16_pair(QB_BF16_PARTS) * 2;
}

static int64_t packed_room(const cpu_device *d, const qb_cpu_part *part) {
    const qb_packed *p = part->w->packed;
    return workers_bytes(d) + laid_bytes(part) + (p->source ? part->T * p->padded_cols * 4 : 0);
}

static void packed_plan(const cpu_device *d, void *job, void *room, const qb_cpu_part *part,
                        qb_cpu_loops *out) {
    const qb_packed *p = part->w->packed;
    packed_job *j = job;
    *j = (packed_job){.simd = d->simd,
                      .p = p,
                      .x = part->x,
                      .y = part->y,
                      .T = part->T,
                      .task_rows = qb_cpu_tile_rows(d, p->rows),
                      .depth = pieces(p->padded_cols, COLS),
                      .parts = is_exact(p) ? 1 : QB_BF16_PARTS,
                      .workers = room};
    j->laid = (uint16_t *)(void *)(j->workers + workers_bytes(d));
    if (p->source) j->gathered = (float *)(void *)((uint8_t *)j->laid + laid_bytes(part));
    out->before[0] = (qb_cpu_loop){{pieces(part->T, PAIR), 1, lay_tokens, j}, PAIR * p->cols * 4};
    out->multiply =
        (qb_cpu_loop){{pieces(p->rows, j->task_rows), 1, multiply_rows, j}, j->task_rows * p->cols * 2};
}

const qb_cpu_form qb_cpu_packed_tiles_form = {
    .most_tokens = PASS_TOKENS,
    .job_bytes = sizeof(packed_job),
    .same_room = qb_packed_same_room,
    .room_bytes = packed_room,
    .plan = packed_plan,
};
