/* Quantized rows with many tokens in float32, by products of bfloat16 tiles as dense_tiles.c takes them: a
   code's value less its zero point is a whole number of eight bits, which is one part, and the group's scale
   is multiplied with sums. Other tables of values are three parts. Of GGUF's K types a value is a code times
   its group's whole number, one part (K2, K3) or two, and a super-block has the scale. Offsets are columns of
   their own, one a group, that meet the sums of the group's activations.

   The same in whole numbers (integer.h), 8-bit activations in one part, 16-bit ones in two, where groups are
   short: tiles of bytes would be filled in part by them, or left too soon. Sums are exact in float32 as long
   as they cannot pass 2^24, so results have the bits that integer.c's have; offsets are then added group by
   group, as there. */
#include "base/whole.h"
#include "kernels/cpu/k_layout.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/tile_sums.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* As dense rows: a task is so many, laid for a chunk of columns at a time, a part of one group's or several
   groups'. */
enum { PASS_TOKENS = 512, CHUNK = 4, PAIR = 2 * QB_BF16_TILE, COLS = QB_BF16_TILE_COLS };
enum { SUMS = QB_TILE_ROWS_MOST * PASS_TOKENS, PANEL = CHUNK * COLS * PAIR };
enum { LEFT_ELEMENTS = QB_TILE_ROWS_MOST * CHUNK * COLS * QB_BF16_PARTS };
enum { SCALES = QB_TILE_ROWS_MOST * CHUNK };
enum { WORKER_BYTES = LEFT_ELEMENTS * 2 + (SUMS + PANEL + 2 * SCALES) * 4 };

typedef struct {
    const qb_simd *simd;
    const qb_packed *p;
    const qb_integer *whole; /* NULL: float32 */
    bool eight;
    const float *x; /* of this pass */
    float *y;
    int64_t T, task_rows, depth; /* tiles of columns */
    int parts, right_parts;      /* of a value, of an activation */
    uint8_t *workers;            /* [WORKER_BYTES] each */
    uint16_t *laid;              /* [pair of tiles of tokens][depth][qb_bf16_pair(right_parts)] */
    float *gathered;             /* [T][padded_cols] numbers as they are laid, or NULL: x is */
    float *scales;               /* [pair of tiles of tokens][n_groups][32], in whole numbers */
    float *sums;                 /* as scales, of activations, or NULL: there are no offsets */
    qb_bf16_codes codes;         /* where they go to tiles as they are */
    uint16_t *laid_sums;         /* as `laid`, of groups for columns; float32 alone */
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

static qb_bf16_codes codes_of(const qb_packed *p, bool whole) {
    qb_bf16_codes c = {.p = p, .more = qb_packed_has_offsets(p) && !whole ? p->middle : 0.0f};
    for (int i = 0; i < QB_BF16_CODES; i++) {
        const float own = p->table[i & ((1 << p->bits) - 1) & 15] + c.more;
        c.values[i] = qb_bf16_of_f32(p->zeros ? (float)(i - QB_BF16_CODES / 2) : own); /* exact */
    }
    return c;
}

static float most_of(const qb_packed *p) {
    float most = (float)(1 << (p->zeros ? p->bits : p->bits - 1));
    for (int i = 0; p->kind == QB_PACK_CODEBOOK && i < 16; i++)
        most = i && fabsf(p->table[i]) < most ? most : fabsf(p->table[i]);
    return most;
}

/* Measured on an Intel Xeon, beside tiles of bytes (integer_amx.inc), 512 tokens: groups of 32 columns 1.6 to
   1.7 times as fast with 8-bit activations, of 64 1.3, of 128 1.1 to 1.25; with 16-bit ones 1.2 to 1.7.
   Longer groups would not be multiplied as a whole here. */
bool qb_cpu_packed_whole_tiles(const cpu_device *d, const qb_packed *p, bool eight) {
    enum { SHORT = CHUNK * COLS };
    int64_t widest = 0;
    if (!d->simd->bf16 || qb_cpu_packed_tiles_least(p) == INT64_MAX || qb_is_k(p->kind) || parts_of(p) > 1)
        return false;
    for (int64_t g = 0, from = 0; g < p->n_groups; from = p->group_end[g++])
        if (p->group_end[g] - from > widest) widest = p->group_end[g] - from;
    if (widest > SHORT) return false;
    /* sizes of both parts of 16 bits together */
    return (float)widest * most_of(p) * (eight ? 127.0f : 32512.0f + 128.0f) <= 0x1p24f;
}

/* Measured on an Intel Xeon, of Q4_0, Q8_0 and IQ4_NL: 1.05 to 1.1 times as fast with 128 tokens, 1.5 with
   512, for what is done once a group weighs more where products are of 16 bits. Longer groups are about as
   fast in whole numbers. */
int64_t qb_cpu_packed_float32_tokens(const cpu_device *d, const qb_packed *p) {
    enum { TOKENS = 128 };
    const bool short_groups = p->n_groups > 0 && p->kind <= QB_PACK_8 && p->group_end[0] <= COLS;
    const bool tiles = d->simd->bf16 && qb_cpu_packed_tiles_least(p) <= TOKENS;
    return tiles && short_groups && !qb_cpu_packed_whole_tiles(d, p, false) ? TOKENS : 0;
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
        sums[g * PAIR] = part[0];
    }
}

static const float *in_order(const packed_job *j, int64_t t) {
    const qb_packed *p = j->p;
    const float *x = j->x + t * p->cols;
    if (!p->source) return x;
    float *to = j->gathered + t * p->padded_cols;
    for (int64_t k = 0; k < p->padded_cols; k++) to[k] = p->source[k] < 0 ? 0.0f : x[p->source[k]];
    return to;
}

/* A token's numbers, which may be those of x, with their scales and sums. */
static void round_groups(const packed_job *j, const float *x, float *q, float *scales, float *sums) {
    const qb_packed *p = j->p;
    const float factor = p->kind == QB_PACK_CODEBOOK ? p->unit : 1.0f;
    for (int64_t g = 0, k = 0; g < p->n_groups; k = p->group_end[g++]) {
        int32_t sum;
        const float scale =
            factor * j->whole->round(x + k, p->group_end[g] - k, j->eight, q + k, sums ? &sum : NULL);
        scales[g * PAIR] = scale;
        if (sums) sums[g * PAIR] = scale * (float)sum;
    }
}

static void lay_tokens(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const packed_job *j = ctx;
    const qb_packed *p = j->p;
    const int64_t n = p->padded_cols, numbers = p->n_groups * PAIR;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * PAIR, tokens = qb_least(PAIR, j->T - first);
        float *scales = j->scales ? j->scales + i * numbers : NULL,
              *sums = j->sums ? j->sums + i * numbers : NULL;
        if (tokens < PAIR && scales) memset(scales, 0, (size_t)numbers * sizeof *scales);
        if (tokens < PAIR && sums) memset(sums, 0, (size_t)numbers * sizeof *sums);
        for (int64_t t = 0; t < tokens; t++) {
            const float *x = in_order(j, first + t);
            if (j->whole)
                round_groups(j, x, j->gathered + (first + t) * n, scales + t, sums ? sums + t : NULL);
            else if (sums)
                sum_groups(p, x, sums + t);
        }
        const qb_bf16_source rows = {.numbers = (j->gathered ? j->gathered : j->x) + first * n,
                                     .dtype = QB_DTYPE_F32,
                                     .parts = j->right_parts,
                                     .stride = n,
                                     .rows = tokens,
                                     .cols = n};
        j->simd->bf16->lay_left(&rows, j->laid + i * j->depth * qb_bf16_pair(j->right_parts));
        if (!j->laid_sums) continue;
        const qb_bf16_source groups = {.numbers = sums,
                                       .dtype = QB_DTYPE_F32,
                                       .across = true,
                                       .stride = PAIR,
                                       .rows = tokens,
                                       .cols = p->n_groups};
        j->simd->bf16->lay_left(&groups, j->laid_sums +
                                             i * qb_pieces(p->n_groups, COLS) * qb_bf16_pair(QB_BF16_PARTS));
    }
}

/* Values of columns [begin, end) of a segment of a pair of blocks, panel[column][PAIR], their scales, and in
   whole numbers their offsets. */
static int64_t unpack_pair(const packed_job *j, int64_t block, int64_t segment, int64_t begin, int64_t end,
                           float *panel, float scales[PAIR], float shifts[PAIR]) {
    const int64_t blocks = qb_least(2, j->p->blocks - block);
    memset(scales, 0, PAIR * sizeof *scales);
    memset(shifts, 0, PAIR * sizeof *shifts);
    for (int64_t b = 0; b < blocks; b++) {
        float *to = panel + b * QB_BLOCK_ROWS, *scale = scales + b * QB_BLOCK_ROWS;
        float *shift = shifts + b * QB_BLOCK_ROWS;
        if (j->whole) {
            j->simd->unpack_whole(j->p, block + b, segment, begin, end, to, PAIR, scale, shift);
            continue;
        }
        j->simd->unpack_values(j->p, block + b, segment, begin, end, to, PAIR, scale);
    }
    return blocks * QB_BLOCK_ROWS;
}
/* The same as lay_right lays them. */
static void lay_pair(const packed_job *j, int64_t block, int64_t segment, int64_t begin, int64_t end,
                     float *panel, float scales[PAIR], float shifts[PAIR], uint16_t *to) {
    const qb_bf16_tiles *tiles = j->simd->bf16;
    if (j->parts > 1 || qb_is_k(j->p->kind) || (end - begin) % COLS) {
        const qb_bf16_source values = {.numbers = panel,
                                       .dtype = QB_DTYPE_F32,
                                       .across = true,
                                       .parts = j->parts,
                                       .stride = PAIR,
                                       .rows =
                                           unpack_pair(j, block, segment, begin, end, panel, scales, shifts),
                                       .cols = end - begin};
        tiles->lay_right(&values, to);
        return;
    }
    const int64_t blocks =
        unpack_pair(j, block, segment, begin, begin, panel, scales, shifts) / QB_BLOCK_ROWS;
    const int64_t tile = QB_BF16_TILE * COLS;
    for (int64_t b = 0; b < blocks; b++)
        tiles->lay_codes(&j->codes, block + b, segment, begin, end, to + b * tile);
    for (int64_t i = 0; blocks < 2 && i < end - begin; i += COLS)
        memset(to + i / COLS * 2 * tile + tile, 0, (size_t)tile * sizeof *to);
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
    float scales[PAIR], shifts[PAIR];
    for (int64_t s = 0, from = 0; s < segments_of(p); from = segment_end(p, s++))
        for (int64_t k = from; k < segment_end(p, s); k += CHUNK * COLS) {
            const int64_t end = qb_least(k + CHUNK * COLS, segment_end(p, s));
            (void)unpack_pair(j, block, s, k, end, panel, scales, shifts);
            for (int64_t i = 0; i < (end - k) * PAIR; i++) panel[i] *= scales[i % PAIR];
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)tokens, (int)rows, (int)(end - k),
                        1.0f, x + k, (int)p->padded_cols, panel, PAIR, k == 0 ? 0.0f : 1.0f, y, (int)p->rows);
        }
    for (int64_t g = 0; j->sums && g < p->n_groups; g += CHUNK * COLS) {
        const int64_t end = qb_least(g + CHUNK * COLS, p->n_groups);
        (void)unpack_offsets(j, block, g, end, panel);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)tokens, (int)rows, (int)(end - g), 1.0f,
                    j->sums + (token / PAIR * p->n_groups + g) * PAIR, PAIR, panel, PAIR, 1.0f, y,
                    (int)p->rows);
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
            j->simd->bf16->lay_right(&offsets, left + r * n * pair);
        }
        j->simd->bf16->multiply_turned(QB_BF16_PARTS, QB_BF16_PARTS, n, left, row_pairs, NULL,
                                       j->laid_sums + g / COLS * pair, qb_pieces(j->T, PAIR), depth * pair,
                                       false, sums);
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
    const int64_t token_pairs = qb_pieces(j->T, PAIR), pair = qb_bf16_pair(j->right_parts);
    uint16_t *left = (uint16_t *)(void *)(j->workers + (int64_t)worker * WORKER_BYTES);
    float *sums = (float *)(void *)(left + LEFT_ELEMENTS), *panel = sums + SUMS;
    float *scales = panel + PANEL, *shifts = scales + SCALES;
    const bool shifted = j->whole && j->sums;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * j->task_rows, rows = qb_least(j->task_rows, p->rows - first);
        const int64_t row_pairs = qb_pieces(rows, PAIR), block = first / QB_BLOCK_ROWS;
        column_chunk c;
        for (int64_t s = 0, k = 0; s < segments_of(p);
             k = c.end, s += k == segment_end(p, c.segment + c.count - 1) ? c.count : 0) {
            c = chunk_at(p, s, k);
            for (int64_t at = 0; at < row_pairs * c.count; at++) {
                const int64_t r = at / c.count, segment = s + at % c.count;
                const int64_t from = segment > s ? segment_end(p, segment - 1) : k;
                const int64_t to = qb_least(segment_end(p, segment), c.end);
                lay_pair(j, block + 2 * r, segment, from, to, panel, scales + at * PAIR, shifts + at * PAIR,
                         left + at * c.tiles * qb_bf16_pair(j->parts));
            }
            const qb_bf16_scales how = {.tiles = c.tiles,
                                        .left = scales,
                                        .right = j->scales ? j->scales + s * PAIR : NULL,
                                        .shifts = shifted ? shifts : NULL,
                                        .right_sums = shifted ? j->sums + s * PAIR : NULL,
                                        .right_stride = p->n_groups * PAIR};
            tiles->multiply_turned(j->parts, j->right_parts, c.count * c.tiles, left, row_pairs, &how,
                                   j->laid + k / COLS * pair, token_pairs, j->depth * pair, k == 0, sums);
        }
        if (j->laid_sums) add_offsets(j, block, row_pairs, left, panel, sums);
        for (int64_t s = 0; s < token_pairs * row_pairs; s++) {
            const int64_t t = s / row_pairs * PAIR, r = s % row_pairs;
            const int64_t tokens = qb_least(PAIR, j->T - t), some = qb_least(PAIR, rows - r * PAIR);
            float *y = j->y + t * p->rows + first + r * PAIR;
            if (!tiles->take_turned(sums + s * PAIR * PAIR, some, tokens, y, p->rows) && !j->whole)
                make_again(j, block + 2 * r, t, tokens, panel, y);
        }
    }
}

/* ---- as loops ---- */

static int64_t workers_bytes(const cpu_device *d) {
    return qb_threads_count(d->base.threads) * (int64_t)WORKER_BYTES;
}
/* What the loop before makes. */
typedef struct {
    int64_t laid, laid_sums, gathered, scales, sums;
} room_bytes;

static room_bytes bytes_of(const qb_packed *p, int64_t T, int right_parts) {
    const bool whole = right_parts < QB_BF16_PARTS, offsets = qb_packed_has_offsets(p);
    const int64_t numbers = qb_pieces(T, PAIR) * PAIR * p->n_groups * 4;
    return (room_bytes){
        .laid = qb_tile_right_bytes(T, p->padded_cols, right_parts),
        .laid_sums = offsets && !whole ? qb_tile_right_bytes(T, p->n_groups, QB_BF16_PARTS) : 0,
        .gathered = whole || p->source ? qb_pieces(T, PAIR) * PAIR * p->padded_cols * 4 : 0,
        .scales = whole ? numbers : 0,
        .sums = offsets ? numbers : 0,
    };
}

static int64_t room_for(const cpu_device *d, const qb_cpu_part *part, int right_parts) {
    const room_bytes b = bytes_of(part->w->packed, part->T, right_parts);
    return workers_bytes(d) + b.laid + b.laid_sums + b.gathered + b.scales + b.sums;
}

static void *take(uint8_t **room, int64_t bytes) {
    void *its = bytes ? *room : NULL;
    *room += bytes;
    return its;
}

static void plan_for(const cpu_device *d, packed_job *j, void *room, const qb_cpu_part *part, int right_parts,
                     qb_cpu_loops *out) {
    const qb_packed *p = part->w->packed;
    const room_bytes b = bytes_of(p, part->T, right_parts);
    uint8_t *at = room;
    *j = (packed_job){.simd = d->simd,
                      .p = p,
                      .whole = right_parts < QB_BF16_PARTS ? d->integer : NULL,
                      .eight = right_parts == 1,
                      .x = part->x,
                      .y = part->y,
                      .T = part->T,
                      .task_rows = qb_cpu_tile_rows(d->base.threads, p->rows),
                      .depth = qb_pieces(p->padded_cols, COLS),
                      .parts = parts_of(p),
                      .right_parts = right_parts,
                      .codes = codes_of(p, right_parts < QB_BF16_PARTS)};
    j->workers = take(&at, workers_bytes(d));
    j->laid = take(&at, b.laid);
    j->laid_sums = take(&at, b.laid_sums);
    j->gathered = take(&at, b.gathered);
    j->scales = take(&at, b.scales);
    j->sums = take(&at, b.sums);
    out->before[0] = (qb_cpu_loop){{qb_pieces(part->T, PAIR), 1, lay_tokens, j}, PAIR * p->cols * 4};
    out->multiply =
        (qb_cpu_loop){{qb_pieces(p->rows, j->task_rows), 1, multiply_rows, j}, j->task_rows * p->cols * 2};
}

static int64_t packed_room(const cpu_device *d, const qb_cpu_part *part) {
    return room_for(d, part, QB_BF16_PARTS);
}
static void packed_plan(const cpu_device *d, void *job, void *room, const qb_cpu_part *part,
                        qb_cpu_loops *out) {
    plan_for(d, job, room, part, QB_BF16_PARTS, out);
}

/* Parts of an activation in whole numbers, a byte each. */
static int whole_parts(const cpu_device *d) {
    return d->activations == QB_ACTIVATIONS_I8 ? 1 : 2;
}
static int64_t whole_room(const cpu_device *d, const qb_cpu_part *part) {
    return room_for(d, part, whole_parts(d));
}
static void whole_plan(const cpu_device *d, void *job, void *room, const qb_cpu_part *part,
                       qb_cpu_loops *out) {
    plan_for(d, job, room, part, whole_parts(d), out);
}

const qb_cpu_form qb_cpu_packed_tiles_form = {
    .most_tokens = PASS_TOKENS,
    .job_bytes = sizeof(packed_job),
    .same_room = qb_packed_same_room,
    .room_bytes = packed_room,
    .plan = packed_plan,
};
const qb_cpu_form qb_cpu_whole_tiles_form = {
    .most_tokens = PASS_TOKENS,
    .job_bytes = sizeof(packed_job),
    .same_room = qb_packed_same_room,
    .room_bytes = whole_room,
    .plan = whole_plan,
};
