#include "kernels/cpu/integer.h"

#include "base/whole.h"
#include "kernels/cpu/products.h"

#include <string.h>

/* From PANEL_LEAST tokens on codes are unpacked to panels: three tiles of four tokens then share the work.
   The number follows from that, and was not measured. */
enum { BLOCKS_A_TASK = QB_ROWS_A_TASK / QB_BLOCK_ROWS, PANEL_LEAST = 12 };

const qb_quad_order qb_quad_orders[QB_PACK_COUNT] = {
    [QB_PACK_2] = {4, {{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}}},
    [QB_PACK_3] = {8,
                   {{0, 1, 2, 3},
                    {4, 5, 6, 7},
                    {8, 9, 10, 11},
                    {12, 13, 14, 15},
                    {16, 17, 18, 19},
                    {20, 21, 22, 23},
                    {24, 25, 26, 27},
                    {28, 29, 30, 31}}},
    [QB_PACK_4] = {2, {{0, 2, 4, 6}, {1, 3, 5, 7}}},
    [QB_PACK_CODEBOOK] = {2, {{0, 2, 4, 6}, {1, 3, 5, 7}}},
    [QB_PACK_8] = {1, {{0, 1, 2, 3}}},
    [QB_PACK_K2] = {4, {{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}}},
    [QB_PACK_K3] = {4, {{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}}},
    [QB_PACK_K4] = {2, {{0, 2, 4, 6}, {1, 3, 5, 7}}},
    [QB_PACK_K5] = {2, {{0, 2, 4, 6}, {1, 3, 5, 7}}},
    [QB_PACK_K6] = {2, {{0, 2, 4, 6}, {1, 3, 5, 7}}},
};

unsigned qb_packed_integer(const qb_integer *set, const qb_packed *p) {
    const int form = qb_whole_form(p);
    if (p->by_row) return 0;
    return (set->shapes[0].i16[form] ? 1u << QB_ACTIVATIONS_I16 : 0) |
           (set->shapes[0].i8[form] ? 1u << QB_ACTIVATIONS_I8 : 0);
}

/* ---- activations ---- */

typedef struct {
    const qb_integer *set;
    const qb_packed *p;
    bool eight;
    int words, depth; /* the panel's, or 1 */
    const float *x;   /* of this pass */
    float *y;
    int64_t T, n_segments, n_quads, n_tiles;
    const qb_integer_panel *panel;        /* NULL: tiles of `shape` and `last` */
    const qb_integer_shape *shape, *last; /* of all tiles but the last of a pass, and of that */
    int64_t tile, last_tile;              /* their tokens */
    int32_t *quads, *sums, *starts;       /* tile i: at i * tile * n_quads * words (or n_segments) */
    int32_t *beside;                      /* tile i: at i * tile * n_segments * beside_words */
    int beside_words;
    bool group_starts; /* beside K types */
    float *scales;
    float *room; /* panels' totals, for each worker */
} integer_job;

/* What stands for zero, times the activations that meet it: what a segment's sum has to lose. */
static int32_t start_of(const integer_job *j, qb_whole_segment s) {
    const qb_packed *p = j->p;
    if (p->zeros) return j->panel && p->bits < 8 ? -s.sum * (1 << p->bits) : -s.sum;
    if (j->set->signed_bytes && (p->kind == QB_PACK_CODEBOOK || p->kind == QB_PACK_8)) return 0;
    if (p->kind != QB_PACK_CODEBOOK) return -s.sum * (1 << (p->bits - 1));
    if (!p->wide) return -128 * s.sum;
    if (j->eight) return -128 * 257 * s.sum; /* both bytes of a value, the higher 256 times */
    return -128 * (s.sum + s.high_sum);      /* higher bytes with q, lower ones with its higher part */
}

/* Quads of a step take its columns in the order of the codes' bits; a step divides 64 columns. */
static void order_of(const qb_packed *p, uint8_t order[64]) {
    const qb_quad_order *quads = &qb_quad_orders[p->kind];
    for (int i = 0; i < 64; i++) {
        int64_t in_step = i % p->step_cols;
        order[i] = (uint8_t)(i - in_step + quads->column[in_step / 4][in_step % 4]);
    }
}

/* The token's columns in packed order, zero for padding and behind the last token. */
static const float *in_order(const integer_job *j, int64_t t, int64_t k, int64_t n, float *room) {
    static const float zeros[QB_SEGMENT_COLS];
    if (t >= j->T) return zeros;
    const float *x = j->x + t * j->p->cols;
    if (!j->p->source) return x + k;
    for (int64_t i = 0; i < n; i++) {
        int64_t c = j->p->source[k + i];
        room[i] = c < 0 ? 0.0f : x[c];
    }
    return room;
}

/* What K types have beside a segment's sums, for token t of a tile of TT; to: the tile's of this segment. */
static void lay_beside(const integer_job *j, const qb_whole_part *parts, int64_t t, int64_t TT, int32_t *to) {
    const qb_pack_kind kind = j->p->kind;
    const int groups = qb_k_groups(kind), each = qb_k_group_cols(kind) / 16;
    if (j->group_starts) {
        const int32_t middle = 1 << (j->p->bits - 1);
        for (int g = 0; g < groups; g++) {
            const int32_t start[QB_K_START_WORDS] = {
                -middle * (j->eight ? parts[g].sum : parts[g].sum - 256 * parts[g].high_sum),
                j->eight ? 0 : -middle * parts[g].high_sum};
            memcpy(to + (g * TT + t) * QB_K_START_WORDS, start, sizeof start);
        }
    } else {
        for (int g = 0; g < groups; g += 4) {
            int32_t sums[4] = {0};
            for (int i = 0; i < 4 * each; i++) sums[i / each] += parts[g * each + i].sum;
            j->set->lay_sums(sums, to + (g / 4 * TT + t) * QB_K_SUM_WORDS);
        }
    }
}

/* A segment's n columns of token t of a tile of TT; to: the tile's words of the segment. */
static qb_whole_segment lay(const integer_job *j, const float *x, int64_t n, const uint8_t *order, int64_t t,
                            int64_t TT, int32_t *to, qb_whole_part *parts) {
    const int64_t depth = j->depth, words = j->words;
    if (depth == 1)
        return j->set->lay_segment(x, n, j->eight, j->words, order, to + t * words, TT * words, parts);
    int32_t room[QB_SEGMENT_COLS / 4 * QB_WORDS_MAX];
    qb_whole_segment s = j->set->lay_segment(x, n, j->eight, j->words, order, room, words, parts);
    for (int64_t i = 0; i < qb_whole_quads(n / 4, depth); i++)
        for (int64_t w = 0; w < words; w++)
            to[((i / depth * words + w) * TT + t) * depth + i % depth] = i < n / 4 ? room[i * words + w] : 0;
    return s;
}

static void quantize_k(const integer_job *j, int64_t t, const uint8_t *order) {
    static const float zeros[QB_K_COLS];
    const qb_packed *p = j->p;
    int64_t tile = t / j->tile, t0 = tile * j->tile;
    int64_t TT = tile == j->n_tiles - 1 ? j->last_tile : j->tile;
    int32_t *quads = j->quads + t0 * j->n_quads * j->words;
    const int32_t byte_bias = j->set->signed_bytes ? QB_K3_BIAS - 128 : QB_K3_BIAS;
    const int32_t bias = p->kind == QB_PACK_K3 ? byte_bias : QB_K_PAIR_BIAS / 256;
    qb_whole_part parts[QB_K_COLS / 16];
    for (int64_t s = 0; s < j->n_segments;
         s++, quads += qb_whole_quads(QB_K_COLS / 4, j->depth) * TT * j->words) {
        const float *x = t < j->T ? j->x + t * p->cols + s * QB_K_COLS : zeros;
        int64_t at = t0 * j->n_segments + s * TT;
        qb_whole_segment segment = lay(j, x, QB_K_COLS, order, t - t0, TT, quads, parts);
        j->scales[at + t - t0] = segment.scale;
        j->starts[at + t - t0] = -bias * segment.sum;
        lay_beside(j, parts, t - t0, TT, j->beside + at * j->beside_words);
    }
}

static void quantize_tokens(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const integer_job *j = ctx;
    const qb_packed *p = j->p;
    const float factor = p->kind != QB_PACK_CODEBOOK ? 1.0f : p->wide && !j->eight ? 256 * p->unit : p->unit;
    float room[QB_SEGMENT_COLS];
    uint8_t order[64];
    order_of(p, order);
    for (int64_t t = begin; t < end; t++) {
        if (qb_is_k(p->kind)) {
            quantize_k(j, t, order);
            continue;
        }
        int64_t tile = t / j->tile, t0 = tile * j->tile, segment = 0, k = 0;
        int64_t TT = tile == j->n_tiles - 1 ? j->last_tile : j->tile;
        int32_t *quads = j->quads + t0 * j->n_quads * j->words;
        for (int64_t g = 0; g < p->n_groups; g++)
            for (int64_t stop; k < p->group_end[g]; k = stop, segment++) {
                stop = qb_least(k + QB_SEGMENT_COLS, p->group_end[g]);
                int64_t n = stop - k, at = t0 * j->n_segments + segment * TT + (t - t0);
                qb_whole_segment s = lay(j, in_order(j, t, k, n, room), n, order, t - t0, TT, quads, NULL);
                j->scales[at] = s.scale * factor;
                j->sums[at] = s.sum;
                j->starts[at] = start_of(j, s);
                quads += qb_whole_quads(n / 4, j->depth) * TT * j->words;
            }
    }
}

/* ---- the product ---- */

static void multiply_tiles(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const integer_job *j = ctx;
    const qb_packed *p = j->p;
    for (int64_t i = 0; i < j->n_tiles; i++) {
        const qb_integer_shape *shape = i == j->n_tiles - 1 ? j->last : j->shape;
        int64_t t0 = i * j->tile;
        const qb_whole_tile x = {j->quads + t0 * j->n_quads * j->words, j->scales + t0 * j->n_segments,
                                 j->sums + t0 * j->n_segments, j->starts + t0 * j->n_segments,
                                 j->beside + t0 * j->n_segments * j->beside_words};
        (j->eight ? shape->i8 : shape->i16)[qb_whole_form(p)](
            p, begin, end, &x, qb_least(shape->tokens, j->T - t0), j->y + t0 * p->rows, p->rows);
    }
}

static int64_t room_of(const integer_job *j) {
    return j->panel ? (int64_t)j->panel->blocks * QB_BLOCK_ROWS * QB_PASS_TOKENS : 0;
}

static void multiply_panels(void *ctx, int64_t begin, int64_t end, int worker) {
    const integer_job *j = ctx;
    const qb_whole_tile x = {j->quads, j->scales, j->sums, j->starts, j->beside};
    j->panel->fn(j->p, begin, end, &x, j->T, j->room + worker * room_of(j), j->y, j->p->rows);
}

static const qb_integer_shape *shape_for(const qb_integer *set, int64_t tokens) {
    for (int i = 0; i < set->n_shapes; i++)
        if (set->shapes[i].tokens >= tokens) return &set->shapes[i];
    return &set->shapes[set->n_shapes - 1];
}

/* NULL: tiles serve them better. */
static const qb_integer_panel *panel_for(const integer_job *j) {
    const int64_t cols = qb_is_k(j->p->kind) ? QB_K_COLS : j->p->group_end[0];
    for (const qb_integer *set = j->set; set && j->T >= PANEL_LEAST; set = set->few) {
        const qb_integer_panel *panel = (j->eight ? set->panel_i8 : set->panel_i16) + qb_whole_form(j->p);
        if (panel->fn && j->T >= panel->least_tokens && cols >= panel->least_cols) return panel;
    }
    return NULL;
}

/* Tiles of tokens: panels take all of one size. */
static void choose_tiles(integer_job *j) {
    const int words = (j->eight ? j->set->words_i8 : j->set->words_i16)[qb_whole_form(j->p)];
    j->panel = panel_for(j);
    j->depth = j->panel ? j->panel->depth : 1;
    j->words = j->panel ? j->panel->words : words;
    j->shape = shape_for(j->set, j->T);
    j->tile = j->panel ? j->panel->tokens : j->shape->tokens;
    j->n_tiles = (j->T + j->tile - 1) / j->tile;
    j->last = shape_for(j->set, j->T - (j->n_tiles - 1) * j->tile);
    j->last_tile = j->panel ? j->panel->tokens : j->last->tokens;
}

/* ---- as loops ---- */

static integer_job job_of(const cpu_device *d, const qb_cpu_part *part) {
    const qb_packed *p = part->w->packed;
    bool eight = d->activations == QB_ACTIVATIONS_I8;
    integer_job j = {.set = d->integer,
                     .p = p,
                     .eight = eight,
                     .x = part->x,
                     .y = part->y,
                     .T = part->T,
                     .group_starts = qb_is_k(p->kind) && !qb_k_has_offsets(p->kind) &&
                                     !(eight && d->integer->short_groups_i8)};
    j.beside_words = qb_k_beside_words(p->kind, j.group_starts);
    choose_tiles(&j);
    qb_whole_size size = qb_whole_size_of(p, j.depth);
    j.n_segments = size.segments, j.n_quads = size.quads;
    return j;
}
static int64_t slots_of(const integer_job *j) {
    return (j->n_tiles - 1) * j->tile + j->last_tile;
}

static int64_t integer_room(const cpu_device *d, const qb_cpu_part *part) {
    integer_job j = job_of(d, part);
    int64_t totals = room_of(&j) * qb_threads_count(d->base.threads);
    return (totals + slots_of(&j) * (j.n_quads * j.words + (3 + j.beside_words) * j.n_segments) + 80) * 4;
}

static void integer_plan(const cpu_device *d, void *job, void *room, const qb_cpu_part *part,
                         qb_cpu_loops *out) {
    integer_job *j = job;
    *j = job_of(d, part);
    const qb_packed *p = j->p;
    int64_t slots = slots_of(j), words = slots * j->n_quads * j->words, per_segment = slots * j->n_segments;
    j->room = room;
    j->quads = (int32_t *)room + room_of(j) * qb_threads_count(d->base.threads);
    j->sums = j->quads + (words + 15) / 16 * 16;
    j->starts = j->sums + (per_segment + 15) / 16 * 16;
    j->beside = j->starts + (per_segment + 15) / 16 * 16;
    j->scales = (float *)(void *)(j->beside + (per_segment * j->beside_words + 15) / 16 * 16);
    out->before[0] = (qb_cpu_loop){{slots, 1, quantize_tokens, j}, p->padded_cols * 4};
    /* a quarter of the time of float32 products */
    out->multiply = (qb_cpu_loop){{p->blocks, BLOCKS_A_TASK, j->panel ? multiply_panels : multiply_tiles, j},
                                  j->T * p->cols * QB_BLOCK_ROWS / 4};
}

const qb_cpu_form qb_cpu_integer_form = {
    .most_tokens = QB_PASS_TOKENS,
    .job_bytes = sizeof(integer_job),
    .same_room = qb_packed_same_room,
    .room_bytes = integer_room,
    .plan = integer_plan,
};

qb_status qb_cpu_set_activations(qb_device *dev, qb_activations wanted, qb_activations *got) {
    cpu_device *d = cpu_of(dev);
    d->fastest = wanted == QB_ACTIVATIONS_FASTEST;
    if (d->fastest) wanted = d->integer->fast ? QB_ACTIVATIONS_I16 : QB_ACTIVATIONS_F32;
    d->activations = wanted;
    *got = wanted;
    return QB_OK;
}
