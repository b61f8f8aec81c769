/* Attention of many queries a sequence (prefill): tiles of queries, their scores with all keys that they see
   in a worker's room, softmax, and their products with the values. Both products are SGEMM's, or tiles of
   bfloat16 (simd.h) with three parts on both sides, which are float32's to its rounding (dense_tiles.c): keys
   and values are then laid once for all queries, of some heads at a time. What is no number there is made
   again by SGEMM. */
#include "base/whole.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tile_sums.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

enum { QUERY_TILE = 64, KEY_TILE = 512, PAIR = QB_TILE_PAIR, COLS = QB_BF16_TILE_COLS };
/* Tiles of keys that scores are laid of at a time, and about what is laid of heads together. */
enum { VALUE_CHUNK = 4, PAIR_SUMS = PAIR * PAIR, QUERY_PAIRS = QUERY_TILE / PAIR, LAID_BYTES = 8 << 20 };
/* Queries that share a key head from which on they are used. */
enum { LEAST_ROWS = 64 };

typedef struct {
    const attention_job *job;
    int64_t tiles; /* of queries */
    int64_t worker_bytes;
    uint8_t *workers;
    /* By tiles: keys and values of heads [first_unit, ..) of all sequences, from key `lowest` on. */
    const qb_bf16_tiles *products; /* NULL: SGEMM */
    int64_t first_unit, lowest, key_pairs, unit_elements;
    /* [unit]: keys [key pair][depth], values [pair of columns][key pair], qb_bf16_pair(3) elements each */
    uint16_t *laid;
} many_job;

static int64_t pair_elements(void) {
    return qb_bf16_pair(QB_BF16_PARTS);
}
static int64_t key_elements(const many_job *m) {
    return m->key_pairs * qb_pieces(m->job->kv->head_dim, COLS) * pair_elements();
}

/* A tile of queries of one head, with keys [begin, end). */
typedef struct {
    int64_t rows, begin, end, ld;
    const uint8_t *keys, *values;
    const float *q;
    float *out, *scores; /* scores[rows][ld] */
    float *room;         /* behind them */
    const uint16_t *laid;
} query_tile;

/* Keys or values [from, from + n) in float32: a view, or converted into `to`. */
static const float *cache_tile(const attention_job *j, const uint8_t *head, int64_t dim, int64_t from,
                               int64_t n, float *to) {
    if (j->kv->dtype == QB_DTYPE_F32) return (const float *)(const void *)head + from * dim;
    j->simd->f32_of_f16((const uint16_t *)(const void *)head + from * dim, n * dim, to);
    return to;
}

/* ---- by SGEMM ---- */

static void score_by_gemm(const attention_job *j, const query_tile *q) {
    const int64_t dim = j->kv->head_dim;
    for (int64_t k = q->begin; k < q->end; k += KEY_TILE) {
        int64_t n = qb_least(KEY_TILE, q->end - k);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)q->rows, (int)n, (int)dim, 1.0f, q->q,
                    (int)(j->a->attr->heads * dim), cache_tile(j, q->keys, dim, k, n, q->room), (int)dim,
                    0.0f, q->scores + k - q->begin, (int)q->ld);
    }
}

static void weigh_by_gemm(const attention_job *j, const query_tile *q) {
    const int64_t dim = j->kv->value_dim;
    for (int64_t k = q->begin; k < q->end; k += KEY_TILE) {
        int64_t n = qb_least(KEY_TILE, q->end - k);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)q->rows, (int)dim, (int)n, 1.0f,
                    q->scores + k - q->begin, (int)q->ld, cache_tile(j, q->values, dim, k, n, q->room),
                    (int)dim, k == q->begin ? 0.0f : 1.0f, q->out, (int)(j->a->attr->heads * dim));
    }
}

/* ---- by tiles of bfloat16 ---- */

/* Keys or values of one head to its tiles, 32 keys. */
static void lay_keys(void *ctx, int64_t begin, int64_t end, int worker) {
    const many_job *m = ctx;
    const attention_job *j = m->job;
    const qb_kv *kv = j->kv;
    const int64_t depth = qb_pieces(kv->head_dim, COLS), total = j->a->first + j->a->n_tok;
    float *converted = (float *)(void *)(m->workers + worker * m->worker_bytes);
    for (int64_t i = begin; i < end; i++) {
        const int64_t unit = m->first_unit + i / m->key_pairs, pair = i % m->key_pairs;
        const int64_t head = unit % kv->n_kv_heads, seq = unit / kv->n_kv_heads;
        const int64_t from = m->lowest + pair * PAIR, n = qb_least(PAIR, total - from);
        uint16_t *to = m->laid + i / m->key_pairs * m->unit_elements;
        const uint8_t *keys = cache_head(kv, kv->k, kv->head_dim, j->a->layer, seq, head);
        const uint8_t *values = cache_head(kv, kv->v, kv->value_dim, j->a->layer, seq, head);
        const qb_bf16_source rows = {.numbers = cache_tile(j, keys, kv->head_dim, from, n, converted),
                                     .dtype = QB_DTYPE_F32,
                                     .stride = kv->head_dim,
                                     .rows = n,
                                     .cols = kv->head_dim};
        m->products->lay_right(&rows, to + pair * depth * pair_elements());
        const float *v = cache_tile(j, values, kv->value_dim, from, n, converted);
        to += key_elements(m);
        for (int64_t d = 0; d < kv->value_dim; d += PAIR) {
            const qb_bf16_source columns = {.numbers = v + d,
                                            .dtype = QB_DTYPE_F32,
                                            .across = true,
                                            .stride = kv->value_dim,
                                            .rows = kv->value_dim - d,
                                            .cols = n};
            m->products->lay_right(&columns, to + (d / PAIR * m->key_pairs + pair) * pair_elements());
        }
    }
}

static bool score_by_tiles(const many_job *m, const query_tile *q) {
    const attention_job *j = m->job;
    const int64_t dim = j->kv->head_dim, depth = qb_pieces(dim, COLS), pairs = qb_pieces(q->rows, PAIR);
    const int64_t first = (q->begin - m->lowest) / PAIR;
    float *sums = q->room;
    uint16_t *laid = (uint16_t *)(void *)(sums + QUERY_PAIRS * (KEY_TILE / PAIR) * PAIR_SUMS);
    bool numbers = true;
    for (int64_t p = 0; p < pairs; p++) {
        const qb_bf16_source rows = {.numbers = q->q + p * PAIR * j->a->attr->heads * dim,
                                     .dtype = QB_DTYPE_F32,
                                     .stride = j->a->attr->heads * dim,
                                     .rows = q->rows - p * PAIR,
                                     .cols = dim};
        m->products->lay_left(&rows, laid + p * depth * pair_elements());
    }
    for (int64_t k = q->begin; k < q->end; k += KEY_TILE) {
        const int64_t n = qb_least(KEY_TILE, q->end - k), lefts = qb_pieces(n, PAIR);
        m->products->multiply_turned(QB_BF16_PARTS, QB_BF16_PARTS, depth,
                                     q->laid + (first + (k - q->begin) / PAIR) * depth * pair_elements(),
                                     lefts, NULL, laid, pairs, depth * pair_elements(), true, sums);
        for (int64_t i = 0; i < pairs * lefts; i++) {
            const int64_t row = i / lefts * PAIR, key = i % lefts * PAIR;
            numbers &= m->products->take_turned(sums + i * PAIR_SUMS, qb_least(PAIR, n - key),
                                                qb_least(PAIR, q->rows - row),
                                                q->scores + row * q->ld + k - q->begin + key, q->ld);
        }
    }
    return numbers;
}

static bool weigh_by_tiles(const many_job *m, const query_tile *q) {
    const attention_job *j = m->job;
    const int64_t dim = j->kv->value_dim, pairs = qb_pieces(q->rows, PAIR), rights = qb_pieces(dim, PAIR);
    const int64_t tiles = qb_pieces(q->end - q->begin, COLS), first = (q->begin - m->lowest) / PAIR;
    const int64_t out_ld = j->a->attr->heads * dim;
    float *sums = q->room;
    uint16_t *laid = (uint16_t *)(void *)(sums + QUERY_PAIRS * rights * PAIR_SUMS);
    for (int64_t k = 0; k < tiles; k += VALUE_CHUNK) {
        const int64_t n = qb_least(VALUE_CHUNK, tiles - k);
        for (int64_t p = 0; p < pairs; p++) {
            const qb_bf16_source weights = {.numbers = q->scores + p * PAIR * q->ld + k * COLS,
                                            .dtype = QB_DTYPE_F32,
                                            .stride = q->ld,
                                            .rows = q->rows - p * PAIR,
                                            .cols = qb_least(n * COLS, q->end - q->begin - k * COLS)};
            m->products->lay_left(&weights, laid + p * n * pair_elements());
        }
        m->products->multiply(QB_BF16_PARTS, QB_BF16_PARTS, n, laid, pairs,
                              q->laid + key_elements(m) + (first + k) * pair_elements(), rights,
                              m->key_pairs * pair_elements(), k == 0, sums);
    }
    bool numbers = true;
    for (int64_t t = 0; t < q->rows; t++) memset(q->out + t * out_ld, 0, (size_t)dim * sizeof(float));
    for (int64_t i = 0; i < pairs * rights; i++) {
        const int64_t row = i % pairs * PAIR, col = i / pairs * PAIR;
        numbers &= m->products->add_rows(sums + i * PAIR_SUMS, qb_least(PAIR, q->rows - row),
                                         qb_least(PAIR, dim - col), q->out + row * out_ld + col, out_ld);
    }
    return numbers;
}

/* ---- both ---- */

/* Scores of one row of the tile, keys [begin, end): softmax over what the row sees (not yet divided), zeros
   around it. */
static void softmax_row(const attention_job *j, int64_t head, int64_t position, int64_t begin, int64_t end,
                        float *scores, float *sum) {
    int64_t from = first_key(j->a->attr, position) - begin, to = position + 1 - begin, n = to - from;
    qb_score_rule rule = rule_of(j, head, position, begin + from);
    float scale = rule.scale;
    if (!qb_score_scaled_only(&rule)) j->simd->shape_scores(scores + from, n, &rule, 0), scale = 1.0f;
    float shift = j->simd->largest(scores + from, n) * scale;
    if (j->a->sinks) shift = fmaxf(shift, j->a->sinks[head]);
    *sum = j->simd->exp_row(scores + from, n, scale, shift);
    if (j->a->sinks) *sum += expf(j->a->sinks[head] - shift);
    for (int64_t k = 0; k < from; k++) scores[k] = 0.0f;
    for (int64_t k = to; k < end - begin; k++) scores[k] = 0.0f;
}

static void attend_tile(const many_job *m, int64_t unit, int64_t head, int64_t tile, float *scores) {
    const attention_job *j = m->job;
    const qb_attention *a = j->a;
    const qb_kv *kv = j->kv;
    const int64_t seq = unit / kv->n_kv_heads, kv_head = unit % kv->n_kv_heads, t0 = tile * QUERY_TILE;
    const int64_t rows = qb_least(QUERY_TILE, a->n_tok - t0), end = a->first + t0 + rows;
    const int64_t begin = first_key(a->attr, a->first + t0) / KEY_TILE * KEY_TILE, ld = end - begin;
    const query_tile q = {.rows = rows,
                          .begin = begin,
                          .end = end,
                          .ld = ld,
                          .keys = cache_head(kv, kv->k, kv->head_dim, a->layer, seq, kv_head),
                          .values = cache_head(kv, kv->v, kv->value_dim, a->layer, seq, kv_head),
                          .q = query(j, seq * a->n_tok + t0, head),
                          .out = result(j, seq * a->n_tok + t0, head),
                          .scores = scores,
                          .room = scores + (QUERY_TILE * ld + 15) / 16 * 16,
                          .laid = m->products ? m->laid + (unit - m->first_unit) * m->unit_elements : NULL};
    float sums[QUERY_TILE] = {0};
    if (!m->products || !score_by_tiles(m, &q)) score_by_gemm(j, &q);
    for (int64_t t = 0; t < rows; t++)
        softmax_row(j, head, a->first + t0 + t, begin, end, scores + t * ld, &sums[t]);
    if (!m->products || !weigh_by_tiles(m, &q)) weigh_by_gemm(j, &q);
    for (int64_t t = 0; t < rows; t++)
        for (int64_t d = 0; d < kv->value_dim; d++) q.out[t * a->attr->heads * kv->value_dim + d] /= sums[t];
}

static void attend_tiles(void *ctx, int64_t begin, int64_t end, int worker) {
    const many_job *m = ctx;
    const int64_t group = m->job->group;
    for (int64_t i = begin; i < end; i++) {
        int64_t tile = m->tiles - 1 - i % m->tiles; /* the longest first, so that threads end together */
        int64_t unit = m->first_unit + i / m->tiles / group;
        attend_tile(m, unit, unit % m->job->kv->n_kv_heads * group + i / m->tiles % group, tile,
                    (float *)(void *)(m->workers + worker * m->worker_bytes));
    }
}

/* Keys that the scores of one tile of queries may span. */
static int64_t widest_tile(const qb_attention *a) {
    int64_t all = a->first + a->n_tok, seen = all;
    if (a->attr->window > 0) seen = qb_least(seen, a->attr->window);
    if (a->attr->chunk > 0) seen = qb_least(seen, a->attr->chunk);
    return qb_least(all, seen + QUERY_TILE + KEY_TILE);
}

/* A worker's room: scores over so many keys and what is behind them. */
static int64_t worker_bytes(int64_t keys, int64_t key_dim, int64_t value_dim, bool tiles) {
    const int64_t most = key_dim > value_dim ? key_dim : value_dim;
    const int64_t gemm = KEY_TILE * most, pair = pair_elements() / 2; /* in floats */
    const int64_t score = QUERY_PAIRS * (KEY_TILE / PAIR * PAIR_SUMS + qb_pieces(key_dim, COLS) * pair);
    const int64_t weigh = QUERY_PAIRS * (qb_pieces(value_dim, PAIR) * PAIR_SUMS + VALUE_CHUNK * pair);
    const int64_t by_tiles = score > weigh ? score : weigh;
    const int64_t floats = QUERY_TILE * keys + 16 + (tiles && by_tiles > gemm ? by_tiles : gemm);
    return (floats * 4 + 63) / 64 * 64;
}

/* What is laid of one head. */
static int64_t unit_elements(int64_t key_pairs, int64_t key_dim, int64_t value_dim) {
    return key_pairs * pair_elements() * (qb_pieces(key_dim, COLS) + qb_pieces(value_dim, PAIR));
}

int64_t qb_cpu_attention_bytes(int threads, int64_t keys, int64_t key_dim, int64_t value_dim) {
    const bool tiles = qb_simd_chosen()->bf16;
    const int64_t laid = LAID_BYTES + unit_elements(qb_pieces(keys, PAIR), key_dim, value_dim) * 2;
    return threads * worker_bytes(keys, key_dim, value_dim, tiles) + (tiles ? laid : 0);
}

qb_status qb_cpu_attend_many(cpu_device *d, const attention_job *j) {
    const qb_attention *a = j->a;
    const int64_t units = a->n_seq * j->kv->n_kv_heads;
    many_job m = {.job = j, .tiles = qb_pieces(a->n_tok, QUERY_TILE)};
    if (a->n_tok * j->group >= LEAST_ROWS) m.products = d->simd->bf16;
    m.worker_bytes = worker_bytes(widest_tile(a), j->kv->head_dim, j->kv->value_dim, m.products);
    m.lowest = first_key(a->attr, a->first) / KEY_TILE * KEY_TILE;
    m.key_pairs = qb_pieces(a->first + a->n_tok - m.lowest, PAIR);
    m.unit_elements = unit_elements(m.key_pairs, j->kv->head_dim, j->kv->value_dim);
    int64_t at_once = units;
    if (m.products) at_once = qb_least(units, LAID_BYTES / (m.unit_elements * 2) + 1);
    const int64_t workers = m.worker_bytes * qb_threads_count(d->base.threads);
    qb_status st =
        qb_cpu_workspace(d, workers + (m.products ? at_once * m.unit_elements * 2 : 0), &m.workers);
    if (st != QB_OK) return st;
    m.laid = (uint16_t *)(void *)(m.workers + workers);
    for (; m.first_unit < units; m.first_unit += at_once) {
        const int64_t now = qb_least(at_once, units - m.first_unit);
        if (m.products) qb_parallel_for(d->base.threads, now * m.key_pairs, 1, lay_keys, &m);
        qb_parallel_for(d->base.threads, now * j->group * m.tiles, 1, attend_tiles, &m);
    }
    return QB_OK;
}
