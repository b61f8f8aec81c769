/* The product with packed codes: activations are laid out once a call, then blocks of sixteen rows go to the
 * threads. */
#include "base/whole.h"
#include "kernels/cpu/k_layout.h"
#include "kernels/cpu/products.h"

#include <cblas.h>
#include <string.h>

/* Tokens a pass: bounds the laid-out activations; codes are read again only every so many tokens. */
enum { PASS_TOKENS = 240, LAY_COLUMNS = 512, PANEL_BLOCKS = 16 };
enum { BLOCKS_A_TASK = QB_ROWS_A_TASK / QB_BLOCK_ROWS };

typedef struct {
    const qb_simd *simd;
    const qb_packed *p;
    const float *x; /* of this pass */
    float *y;
    int64_t T;
    const qb_packed_tile *tile; /* all but the last tile of a pass are `tile`; the last is `last` */
    const qb_packed_tile *last;
    int64_t n_tiles;
    float *room;       /* where activations are laid out */
    const float *laid; /* there, or x as it came */
    float *sums;       /* tile i: at i * tile->tokens * padded_cols (or n_groups) */
    float *scratch;    /* panels or rows, for each worker */
} packed_job;

static const qb_packed_tile *tile_for(const qb_simd *simd, int64_t tokens) {
    for (int i = 0; i < simd->n_tiles; i++)
        if (simd->tiles[i].tokens >= tokens) return &simd->tiles[i];
    return &simd->tiles[simd->n_tiles - 1];
}

/* Column k of token t, or 0 for padding. */
static float activation_at(const packed_job *j, int64_t t, int64_t k) {
    int64_t c = j->p->source ? j->p->source[k] : k;
    return c < 0 ? 0.0f : j->x[t * j->p->cols + c];
}

static void lay_tile(const packed_job *j, int64_t tile, int64_t from, int64_t to) {
    const qb_packed_tile *shape = tile == j->n_tiles - 1 ? j->last : j->tile;
    int64_t t0 = tile * j->tile->tokens, stored = qb_least(shape->tokens, j->T - t0), TT = shape->tokens;
    float *laid = j->room + t0 * j->p->padded_cols;
    if (!j->p->source &&
        stored == TT) { /* the common case, sixteen columns at a time: one cache line of each token */
        for (int64_t k = from; k < to; k += 16)
            for (int64_t t = 0; t < TT; t++) {
                const float *x = j->x + (t0 + t) * j->p->cols;
                for (int64_t i = k; i < qb_least(k + 16, to); i++) laid[i * TT + t] = x[i];
            }
        return;
    }
    for (int64_t t = 0; t < TT; t++)
        for (int64_t k = from; k < to; k++)
            laid[k * TT + t] = t < stored ? activation_at(j, t0 + t, k) : 0.0f;
}

static void lay_chunks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const packed_job *j = ctx;
    int64_t chunks = (j->p->padded_cols + LAY_COLUMNS - 1) / LAY_COLUMNS;
    for (int64_t i = begin; i < end; i++) {
        int64_t from = i % chunks * LAY_COLUMNS;
        lay_tile(j, i / chunks, from, qb_least(from + LAY_COLUMNS, j->p->padded_cols));
    }
}

/* Sums of each group's activations, needed where zero points or offsets are. Sixteen partial sums by column,
   then a tree: one order whatever the tile. */
static void sum_groups(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const packed_job *j = ctx;
    const qb_packed *p = j->p;
    for (int64_t t = begin; t < end; t++) {
        int64_t tile = t / j->tile->tokens, t0 = tile * j->tile->tokens;
        int64_t TT = tile == j->n_tiles - 1 ? j->last->tokens : j->tile->tokens;
        int64_t k = 0;
        for (int64_t g = 0; g < p->n_groups; g++) {
            float part[16] = {0};
            for (; k < p->group_end[g]; k++) part[k & 15] += t < j->T ? activation_at(j, t, k) : 0.0f;
            for (int width = 8; width > 0; width /= 2)
                for (int i = 0; i < width; i++) part[i] += part[i + width];
            j->sums[t0 * p->n_groups + g * TT + (t - t0)] = part[0];
        }
    }
}

static void multiply_blocks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const packed_job *j = ctx;
    const qb_packed *p = j->p;
    for (int64_t i = 0; i < j->n_tiles; i++) {
        const qb_packed_tile *shape = i == j->n_tiles - 1 ? j->last : j->tile;
        int64_t t0 = i * j->tile->tokens;
        shape->fn[p->kind](p, begin, end, j->laid + t0 * p->padded_cols, j->sums + t0 * p->n_groups,
                           qb_least(shape->tokens, j->T - t0), j->y + t0 * p->rows, p->rows);
    }
}

static bool needs_sums(const qb_packed *p) {
    return p->zeros || qb_packed_has_offsets(p);
}

static void shape_tiles(const qb_simd *simd, packed_job *j) {
    j->tile = tile_for(simd, j->T);
    j->n_tiles = (j->T + j->tile->tokens - 1) / j->tile->tokens;
    j->last = tile_for(simd, j->T - (j->n_tiles - 1) * j->tile->tokens);
}
static int64_t slots_of(const packed_job *j) {
    return (j->n_tiles - 1) * j->tile->tokens + j->last->tokens;
}
/* One token in its own order: nothing to lay out. */
static bool as_given(const packed_job *j) {
    return j->T == 1 && !j->p->source;
}
static int64_t laid_floats(const packed_job *j) {
    return as_given(j) ? 0 : slots_of(j) * j->p->padded_cols;
}

static void plan_tiles(packed_job *j, float *room, qb_cpu_loops *out) {
    const qb_packed *p = j->p;
    j->room = room;
    j->laid = as_given(j) ? j->x : room;
    j->sums = room + laid_floats(j);
    int64_t chunks = (p->padded_cols + LAY_COLUMNS - 1) / LAY_COLUMNS;
    if (!as_given(j))
        out->before[0] = (qb_cpu_loop){{j->n_tiles * chunks, 4, lay_chunks, j}, LAY_COLUMNS * 16};
    if (needs_sums(p)) out->before[1] = (qb_cpu_loop){{slots_of(j), 1, sum_groups, j}, p->padded_cols * 4};
    /* bytes as if in 8 bits: small codes take no less time */
    out->multiply =
        (qb_cpu_loop){{p->blocks, BLOCKS_A_TASK, multiply_blocks, j}, j->T * p->cols * QB_BLOCK_ROWS};
}

/* ---- many tokens where GEMM wins: panels of sixteen blocks, [packed column][row] ---- */

static void multiply_panels(void *ctx, int64_t begin, int64_t end, int worker) {
    const packed_job *j = ctx;
    const qb_packed *p = j->p;
    const int64_t ld = PANEL_BLOCKS * QB_BLOCK_ROWS;
    float *panel = j->scratch + worker * p->padded_cols * ld;
    for (int64_t b = begin; b < end; b++)
        j->simd->unpack_block(p, b, panel + (b - begin) * QB_BLOCK_ROWS, ld);
    int64_t row = begin * QB_BLOCK_ROWS;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)j->T,
                (int)(qb_least(end * QB_BLOCK_ROWS, p->rows) - row), (int)p->padded_cols, 1.0f, j->laid,
                (int)p->padded_cols, panel, (int)ld, 0.0f, j->y + row, (int)p->rows);
}

static void gather_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const packed_job *j = ctx;
    for (int64_t t = begin; t < end; t++)
        for (int64_t k = 0; k < j->p->padded_cols; k++)
            j->room[t * j->p->padded_cols + k] = activation_at(j, t, k);
}

static int64_t gathered_floats(const packed_job *j) {
    return j->p->source ? j->T * j->p->padded_cols : 0;
}

static void plan_gemm(packed_job *j, float *room, qb_cpu_loops *out) {
    const qb_packed *p = j->p;
    j->room = room;
    j->laid = p->source ? room : j->x;
    j->scratch = room + gathered_floats(j);
    if (p->source) out->before[0] = (qb_cpu_loop){{j->T, 4, gather_rows, j}, QB_ALONE_BYTES};
    out->multiply = (qb_cpu_loop){{p->blocks, PANEL_BLOCKS, multiply_panels, j}, QB_ALONE_BYTES};
}

/* ---- codes that lie by row: each row is decoded to float32 ---- */

void qb_packed_row(const qb_packed *p, int64_t row, float *to) {
    int64_t first = row * p->cols;
    for (int64_t c = 0; c < p->cols;) {
        int64_t element = first + c, block = element >> p->block_shift;
        int64_t end = qb_least(p->cols, ((block + 1) << p->block_shift) - first);
        float absmax = qb_packed_absmax(p, block);
        for (; c < end; c++)
            to[c] = p->table[p->codes[(first + c) / 2] >> ((first + c) % 2 * 4) & 15] * absmax;
    }
}

static void multiply_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const packed_job *j = ctx;
    const qb_packed *p = j->p;
    float *row = j->scratch + worker * p->cols;
    for (int64_t r = begin; r < end; r++) {
        qb_packed_row(p, r, row);
        j->simd->dense_f32(row, p->cols, 1, j->x, j->T, j->y + r, p->rows);
    }
}

/* ---- as loops ---- */

static packed_job job_of(const cpu_device *d, const qb_cpu_part *part) {
    packed_job j = {.simd = d->simd, .p = part->w->packed, .x = part->x, .y = part->y, .T = part->T};
    shape_tiles(d->simd, &j);
    return j;
}
static bool by_gemm(const cpu_device *d, const qb_cpu_part *part) {
    return part->whole >= d->simd->packed_gemm_tokens;
}

static int64_t packed_room(const cpu_device *d, const qb_cpu_part *part) {
    packed_job j = job_of(d, part);
    int64_t workers = qb_threads_count(d->base.threads), floats;
    if (j.p->by_row)
        floats = workers * j.p->cols;
    else if (by_gemm(d, part))
        floats = gathered_floats(&j) + workers * j.p->padded_cols * PANEL_BLOCKS * QB_BLOCK_ROWS;
    else
        floats = laid_floats(&j) + (needs_sums(j.p) ? slots_of(&j) * j.p->n_groups : 0) + 16;
    return floats * 4;
}

static void packed_plan(const cpu_device *d, void *job, void *room, const qb_cpu_part *part,
                        qb_cpu_loops *out) {
    packed_job *j = job;
    *j = job_of(d, part);
    if (j->p->by_row) {
        j->scratch = room;
        out->multiply = (qb_cpu_loop){{j->p->rows, QB_ROWS_A_TASK, multiply_rows, j}, QB_ALONE_BYTES};
    } else if (by_gemm(d, part))
        plan_gemm(j, room, out);
    else
        plan_tiles(j, room, out);
}

const qb_cpu_form qb_cpu_packed_form = {
    .most_tokens = PASS_TOKENS,
    .job_bytes = sizeof(packed_job),
    .same_room = qb_packed_same_room,
    .room_bytes = packed_room,
    .plan = packed_plan,
};
