/* Quantized rows with many tokens in float32, by products of bfloat16 tiles as dense_tiles.c takes them: a
   code's value less its zero point is a whole number of eight bits, which is one part, and the group's scale
   is multiplied with sums. Other tables of values are three parts. Of GGUF's K types a value is a code times
   its group's whole number, one part (K2, K3) or two, and a super-block has the scale. Offsets are columns of
   their own, one a group, that meet the sums of the group's activations. */
#include "base/whole.h"
#include "kernels/cpu/k_layout.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/tile_sums.h"

#include <cblas.h>
#include <string.h>

/* As dense rows: a task is so many, laid for a chunk of columns at a time, a part of one group's or several
   groups'. */
enum { PASS_TOKENS = 512, CHUNK = 4, PAIR = 2 * QB_BF16_TILE, COLS = QB_BF16_TILE_COLS };
enum { SUMS = QB_TILE_ROWS_MOST * PASS_TOKENS, PANEL = CHUNK * COLS * PAIR };
enum { LEFT_ELEMENTS = QB_TILE_ROWS_MOST * CHUNK * COLS * QB_BF16_PARTS };
enum { WORKER_BYTES = LEFT_ELEMENTS * 2 + (SUMS + PANEL + QB_TILE_ROWS_MOST * CHUNK) * 4 };

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
    float *sums;                 /* [T][n_groups] of activations, or NULL: there are no offsets */
    uint16_t *laid_sums;         /* as `laid`, of groups for columns */
} packed_job;

static int parts_of(const qb_packed *p) {
    if (qb_is_k(p->kind)) return p->kind == QB_PACK_K2 || p->kind == QB_PACK_K3 ? 1 : 2;
    for (int i = 0; p->kind == QB_PACK_CODEBOOK && i < 16; i++) {
        uint32_t bits;
        memcpy(&bits, &p->table[i], 4);
        if (bits & 0xffff) return QB_BF16_PARTS;
    }
    return 1;
}

/* Columns that have one scale: a group's, or a super-block's. */
static int64_t segment_end(const qb_packed *p, int64_t segment) {
    return qb_is_k(p->kind) ? (segment + 1) * QB_K_COLS : p->group_end[segment];
}
static int64_t segments_of(const qb_packed *p) {
    return qb_is_k(p->kind) ? p->cols / QB_K_COLS : p->n_groups;
}

/* Not where a group has no columns or ends within a tile. Measured on an Intel Xeon: with values of three
   parts the loops are the faster below. */
int64_t qb_cpu_packed_tiles_least(const qb_packed *p) {
    static const int64_t tokens[] = {INT64_MAX, 32, 64, 256}; /* by parts */
    if (p->by_row) return INT64_MAX;
    for (int64_t s = 0, from = 0; s < segments_of(p); from = segment_end(p, s++))
        if (from % COLS != 0 || segment_end(p, s) == from) return INT64_MAX;
    return tokens[parts_of(p)];
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

/* Sums of each group's activations of a token: sixteen partial sums by column, then a tree. */
static void sum_groups(const qb_packed *p, const float *x, float *sums) {
    for (int64_t g = 0, k = 0; g < p->n_groups; g++) {
        float part[16] = {0};
        for (; k + 16 <= p->group_end[g]; k += 16)
            for (int i = 0; i < 16; i++) part[i] += x[k + i];
        for (int i = 0; k < p->group_end[g]; i++, k++) part[i] += x[k];
        for (int width = 8; width > 0; width /= 2)
            for (int i = 0; i < width; i++) part[i] += part[i + width];
        sums[g] = part[0];
    }
}

static void lay_rows(const packed_job *j, const float *numbers, int64_t tokens, int64_t n, uint16_t *to) {
    const qb_bf16_source rows = {
        .numbers = numbers, .dtype = QB_DTYPE_F32, .stride = n, .rows = tokens, .cols = n};
    j->simd->bf16->lay_right(&rows, to);
}

static void lay_tokens(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const packed_job *j = ctx;
    const qb_packed *p = j->p;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * PAIR, tokens = qb_least(PAIR, j->T - first), n = p->padded_cols;
        if (j->gathered)
            for (int64_t t = first; t < first + tokens; t++)
                for (int64_t k = 0; k < n; k++)
                    j->gathered[t * n + k] = p->source[k] < 0 ? 0.0f : j->x[t * p->cols + p->source[k]];
        const float *x = j->gathered ? j->gathered : j->x;
        const int64_t pair = qb_bf16_pair(QB_BF16_PARTS);
        lay_rows(j, x + first * n, tokens, n, j->laid + i * j->depth * pair);
        if (!j->sums) continue;
        for (int64_t t = first; t < first + tokens; t++) sum_groups(p, x + t * n, j->sums + t * p->n_groups);
        lay_rows(j, j->sums + first * p->n_groups, tokens, p->n_groups,
                 j->laid_sums + i * qb_pieces(p->n_groups, COLS) * pair);
    }
}

/* Values of columns [begin, end) of a segment of a pair of blocks, panel[column][PAIR], and their scales. */
static int64_t unpack_pair(const packed_job *j, int64_t block, int64_t segment, int64_t begin, int64_t end,
                           float *panel, float scales[PAIR]) {
    const int64_t blocks = qb_least(2, j->p->blocks - block);
    memset(scales, 0, PAIR * sizeof *scales);
    for (int64_t b = 0; b < blocks; b++)
        j->simd->unpack_values(j->p, block + b, segment, begin, end, panel + b * QB_BLOCK_ROWS, PAIR,
                               scales + b * QB_BLOCK_ROWS);
    return blocks * QB_BLOCK_ROWS;
}
/* Offsets of groups [begin, end), panel[group][PAIR]. */
static int64_t unpack_offsets(const packed_job *j, int64_t block, int64_t begin, int64_t end, float *panel) {
    const int64_t blocks = qb_least(2, j->p->blocks - block);
    for (int64_t g = begin; g < end; g++)
        for (int64_t b = 0; b < blocks; b++)
            j->simd->unpack_offsets(j->p, block + b, g, panel + (g - begin) * PAIR + b * QB_BLOCK_ROWS);
    return blocks * QB_BLOCK_ROWS;
}

/* A pair of blocks with some tokens, in float32 alone: where a sum of parts is no number. */
static void make_again(const packed_job *j, int64_t block, int64_t token, int64_t tokens, float *panel,
                       float *y) {
    const qb_packed *p = j->p;
    const float *x = (j->gathered ? j->gathered : j->x) + token * p->padded_cols;
    const int64_t rows = qb_least(PAIR, p->rows - block * QB_BLOCK_ROWS);
    float scales[PAIR];
    for (int64_t s = 0, from = 0; s < segments_of(p); from = segment_end(p, s++))
        for (int64_t k = from; k < segment_end(p, s); k += CHUNK * COLS) {
            const int64_t end = qb_least(k + CHUNK * COLS, segment_end(p, s));
            (void)unpack_pair(j, block, s, k, end, panel, scales);
            for (int64_t i = 0; i < (end - k) * PAIR; i++) panel[i] *= scales[i % PAIR];
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)tokens, (int)rows, (int)(end - k),
                        1.0f, x + k, (int)p->padded_cols, panel, PAIR, k == 0 ? 0.0f : 1.0f, y, (int)p->rows);
        }
    for (int64_t g = 0; j->sums && g < p->n_groups; g += CHUNK * COLS) {
        const int64_t end = qb_least(g + CHUNK * COLS, p->n_groups);
        (void)unpack_offsets(j, block, g, end, panel);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)tokens, (int)rows, (int)(end - g), 1.0f,
                    j->sums + token * p->n_groups + g, (int)p->n_groups, panel, PAIR, 1.0f, y, (int)p->rows);
    }
}

/* A task's offsets to its sums. */
static void add_offsets(const packed_job *j, int64_t block, int64_t row_pairs, uint16_t *left, float *panel,
                        float *sums) {
    const int64_t pair = qb_bf16_pair(QB_BF16_PARTS), depth = qb_pieces(j->p->n_groups, COLS);
    for (int64_t g = 0; g < j->p->n_groups; g += CHUNK * COLS) {
        const int64_t end = qb_least(g + CHUNK * COLS, j->p->n_groups), n = qb_pieces(end - g, COLS);
        for (int64_t r = 0; r < row_pairs; r++) {
            const qb_bf16_source offsets = {.numbers = panel,
                                            .dtype = QB_DTYPE_F32,
                                            .across = true,
                                            .stride = PAIR,
                                            .rows = unpack_offsets(j, block + 2 * r, g, end, panel),
                                            .cols = end - g};
            j->simd->bf16->lay_left(&offsets, left + r * n * pair);
        }
        j->simd->bf16->multiply(QB_BF16_PARTS, QB_BF16_PARTS, n, left, row_pairs, NULL,
                                j->laid_sums + g / COLS * pair, qb_pieces(j->T, PAIR), depth * pair, sums);
    }
}

/* Columns that are multiplied at a time: `count` segments from `segment` on of so many tiles of columns each,
   or a part of one. */
typedef struct {
    int64_t segment, count, begin, end, tiles;
} column_chunk;

static column_chunk chunk_at(const qb_packed *p, int64_t segment, int64_t begin) {
    const int64_t end = qb_least(begin + CHUNK * COLS, segment_end(p, segment));
    column_chunk c = {segment, 1, begin, end, qb_pieces(end - begin, COLS)};
    for (; end == segment_end(p, segment) && segment + c.count < segments_of(p); c.count++) {
        const int64_t next = segment_end(p, segment + c.count);
        if (qb_pieces(next - c.end, COLS) != c.tiles || (c.count + 1) * c.tiles > CHUNK) break;
        c.end = next;
    }
    return c;
}

static void multiply_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const packed_job *j = ctx;
    const qb_packed *p = j->p;
    const qb_bf16_tiles *tiles = j->simd->bf16;
    const int64_t token_pairs = qb_pieces(j->T, PAIR), pair = qb_bf16_pair(QB_BF16_PARTS);
    uint16_t *left = (uint16_t *)(void *)(j->workers + (int64_t)worker * WORKER_BYTES);
    float *sums = (float *)(void *)(left + LEFT_ELEMENTS), *panel = sums + SUMS, *scales = panel + PANEL;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * j->task_rows, rows = qb_least(j->task_rows, p->rows - first);
        const int64_t row_pairs = qb_pieces(rows, PAIR), block = first / QB_BLOCK_ROWS;
        memset(sums, 0, (size_t)(row_pairs * token_pairs * PAIR * PAIR) * sizeof *sums);
        column_chunk c;
        for (int64_t s = 0, k = 0; s < segments_of(p);
             k = c.end, s += k == segment_end(p, c.segment + c.count - 1) ? c.count : 0) {
            c = chunk_at(p, s, k);
            for (int64_t at = 0; at < row_pairs * c.count; at++) {
                const int64_t r = at / c.count, segment = s + at % c.count;
                const int64_t from = segment > s ? segment_end(p, segment - 1) : k;
                const int64_t to = qb_least(segment_end(p, segment), c.end);
                const qb_bf16_source values = {
                    .numbers = panel,
                    .dtype = QB_DTYPE_F32,
                    .across = true,
                    .parts = j->parts,
                    .stride = PAIR,
                    .rows = unpack_pair(j, block + 2 * r, segment, from, to, panel, scales + at * PAIR),
                    .cols = to - from};
                tiles->lay_left(&values, left + at * c.tiles * qb_bf16_pair(j->parts));
            }
            tiles->multiply(j->parts, QB_BF16_PARTS, c.count * c.tiles, left, row_pairs,
                            &(qb_bf16_scales){scales, c.tiles}, j->laid + k / COLS * pair, token_pairs,
                            j->depth * pair, sums);
        }
        if (j->sums) add_offsets(j, block, row_pairs, left, panel, sums);
        for (int64_t s = 0; s < token_pairs * row_pairs; s++) {
            const int64_t t = s / row_pairs * PAIR, r = s % row_pairs;
            const int64_t tokens = qb_least(PAIR, j->T - t), some = qb_least(PAIR, rows - r * PAIR);
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
static int64_t laid_bytes(int64_t T, int64_t cols) {
    return qb_tile_right_bytes(T, cols, QB_BF16_PARTS);
}

static int64_t packed_room(const cpu_device *d, const qb_cpu_part *part) {
    const qb_packed *p = part->w->packed;
    const int64_t gathered = p->source ? part->T * p->padded_cols * 4 : 0;
    const int64_t sums =
        qb_packed_has_offsets(p) ? part->T * p->n_groups * 4 + laid_bytes(part->T, p->n_groups) : 0;
    return workers_bytes(d) + laid_bytes(part->T, p->padded_cols) + gathered + sums;
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
                      .task_rows = qb_cpu_tile_rows(d->base.threads, p->rows),
                      .depth = qb_pieces(p->padded_cols, COLS),
                      .parts = parts_of(p),
                      .workers = room};
    j->laid = (uint16_t *)(void *)(j->workers + workers_bytes(d));
    uint8_t *behind = (uint8_t *)j->laid + laid_bytes(part->T, p->padded_cols);
    if (qb_packed_has_offsets(p)) {
        j->laid_sums = (uint16_t *)(void *)behind;
        j->sums = (float *)(void *)(behind + laid_bytes(part->T, p->n_groups));
        behind = (uint8_t *)(j->sums + part->T * p->n_groups);
    }
    if (p->source) j->gathered = (float *)(void *)behind;
    out->before[0] = (qb_cpu_loop){{qb_pieces(part->T, PAIR), 1, lay_tokens, j}, PAIR * p->cols * 4};
    out->multiply =
        (qb_cpu_loop){{qb_pieces(p->rows, j->task_rows), 1, multiply_rows, j}, j->task_rows * p->cols * 2};
}

const qb_cpu_form qb_cpu_packed_tiles_form = {
    .most_tokens = PASS_TOKENS,
    .job_bytes = sizeof(packed_job),
    .same_room = qb_packed_same_room,
    .room_bytes = packed_room,
    .plan = packed_plan,
};
