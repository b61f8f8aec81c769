#include "kernels/cpu/pack.h"

#include "base/memory.h"
#include "base/whole.h"
#include "kernels/cpu/pack_k.h"
#include "kernels/cpu/pack_scales.h"
#include "kernels/cpu/pack_steps.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

static const struct {
    int64_t step_cols, step_bytes;
} steps[QB_PACK_COUNT] = {
    [QB_PACK_2] = {16, 64}, [QB_PACK_3] = {32, 192}, [QB_PACK_4] = {8, 64},   [QB_PACK_CODEBOOK] = {8, 64},
    [QB_PACK_8] = {4, 64},  [QB_PACK_K2] = {16, 64}, [QB_PACK_K3] = {16, 64}, [QB_PACK_K4] = {8, 64},
    [QB_PACK_K5] = {8, 64}, [QB_PACK_K6] = {8, 64}};

typedef struct {
    qb_qweight *q;
    qb_packed *p;
    uint8_t *rows;      /* room of each worker: a block's codes in packed order */
    uint8_t *read;      /* and for codes that are in the file */
    int64_t group_cols; /* codebook: columns that share an absmax in every row */
    atomic_bool above;  /* a code is out of its range */
} pack_job;

/* ---- checks: the neutral form may have been read from a file ---- */

/* The first value that is not below `limit`. */
static qb_status refuse_above(const uint8_t *values, int64_t n, int limit, const char *what) {
    for (int64_t i = 0; i < n; i++)
        if (values[i] >= limit)
            return qb_fail(QB_ERR_FORMAT, "%s %d at element %lld of a quantized weight; expected below %d",
                           what, values[i], (long long)i, limit);
    return QB_OK;
}

/* All but the codes, which are looked at where they are packed. */
static qb_status check_affine(const qb_qweight *q) {
    const int64_t n = q->rows * q->n_groups;
    if (q->bits < 8 && q->zeros && !qb_codes_below(q->zeros, n, 1 << q->bits))
        return refuse_above(q->zeros, n, 1 << q->bits, "zero point");
    for (int64_t c = 0; q->g_idx && c < q->cols; c++)
        if (q->g_idx[c] < 0 || q->g_idx[c] >= q->n_groups)
            return qb_fail(QB_ERR_FORMAT, "group index %d of column %lld; expected 0 .. %lld", q->g_idx[c],
                           (long long)c, (long long)q->n_groups - 1);
    return QB_OK;
}

static int code_limit(const qb_qweight *q) {
    return 1 << (q->coding == QB_CODING_CODEBOOK ? 4 : q->bits);
}

/* ---- columns: which packed column holds which column of the matrix ---- */

static int64_t group_of(const qb_qweight *q, int64_t group_cols, int64_t c) {
    return q->g_idx ? q->g_idx[c] : c / group_cols;
}

static qb_status lay_columns(pack_job *j, const qb_pack_memory *memory) {
    const qb_qweight *q = j->q;
    qb_packed *p = j->p;
    qb_status st = QB_OK;
    QB_TRY(st, memory->alloc(memory->owner, p->n_groups * (int64_t)sizeof *p->group_end, &p->group_end));
    memset(p->group_end, 0, (size_t)p->n_groups * sizeof *p->group_end);
    for (int64_t c = 0; c < q->cols; c++) p->group_end[group_of(q, j->group_cols, c)]++;
    int64_t end = 0;
    bool plain = !q->g_idx;
    for (int64_t g = 0; g < p->n_groups; g++) {
        int64_t cols = p->group_end[g];
        end += (cols + p->step_cols - 1) / p->step_cols * p->step_cols;
        p->group_end[g] = (int32_t)end;
        plain = plain && cols % p->step_cols == 0;
    }
    p->padded_cols = end;
    if (plain) return QB_OK;
    QB_TRY(st, memory->alloc(memory->owner, end * (int64_t)sizeof *p->source, &p->source));
    for (int64_t k = 0; k < end; k++) p->source[k] = -1;
    int32_t *next;
    QB_TRY(st, qb_alloc_zero((size_t)p->n_groups, sizeof *next, &next));
    for (int64_t c = 0; c < q->cols; c++) {
        int64_t g = group_of(q, j->group_cols, c);
        p->source[(g ? p->group_end[g - 1] : 0) + next[g]++] = (int32_t)c;
    }
    qb_free(next);
out:
    return st;
}

/* ---- codes ---- */

/* Codes of one row in packed order, zero where there is padding (of columns: its activation is zero; of rows:
   its result is not read). */
static void order_row(const pack_job *j, int64_t row, const uint8_t *from, uint8_t *to) {
    const qb_packed *p = j->p;
    if (row >= p->rows)
        memset(to, 0, (size_t)p->padded_cols);
    else if (!p->source)
        memcpy(to, from, (size_t)p->padded_cols);
    else
        for (int64_t k = 0; k < p->padded_cols; k++) to[k] = p->source[k] < 0 ? 0 : from[p->source[k]];
    for (int64_t k = 0; p->lift && k < p->padded_cols; k++) to[k] = (uint8_t)(to[k] + p->lift);
}

static int64_t unit_cols(qb_pack_kind kind) {
    return kind == QB_PACK_2   ? QB_UNIT_COLS_2
           : kind == QB_PACK_3 ? QB_UNIT_COLS_3
           : kind == QB_PACK_8 ? QB_UNIT_COLS_8
                               : QB_UNIT_COLS_4;
}

/* Whole units of columns k .. end; where the next begins. */
static int64_t put_units(qb_pack_kind kind, const uint8_t *const rows[QB_BLOCK_ROWS], int64_t k, int64_t end,
                         uint8_t *to) {
    switch (kind) {
    case QB_PACK_2:
        for (; k + QB_UNIT_COLS_2 <= end; k += QB_UNIT_COLS_2, to += 256) qb_put_unit_2(rows, k, to);
        return k;
    case QB_PACK_3:
        for (; k + QB_UNIT_COLS_3 <= end; k += QB_UNIT_COLS_3, to += 192) qb_put_unit_3(rows, k, to);
        return k;
    case QB_PACK_8:
        for (; k + QB_UNIT_COLS_8 <= end; k += QB_UNIT_COLS_8, to += 256) qb_put_unit_8(rows, k, to);
        return k;
    default:
        for (; k + QB_UNIT_COLS_4 <= end; k += QB_UNIT_COLS_4, to += 256) qb_put_unit_4(rows, k, to);
        return k;
    }
}

/* The steps that fill no unit. */
static void put_rest(const qb_packed *p, const uint8_t *const rows[QB_BLOCK_ROWS], int64_t k, uint8_t *to) {
    enum { MOST = QB_UNIT_COLS_2 };
    uint8_t codes[QB_BLOCK_ROWS][MOST] = {0}, lines[256];
    const uint8_t *padded[QB_BLOCK_ROWS];
    for (int lane = 0; lane < QB_BLOCK_ROWS; lane++) {
        memcpy(codes[lane], rows[lane] + k, (size_t)(p->padded_cols - k));
        padded[lane] = codes[lane];
    }
    put_units(p->kind, padded, 0, unit_cols(p->kind), lines);
    memcpy(to, lines, (size_t)((p->padded_cols - k) / p->step_cols * p->step_bytes));
}

/* Sixteen rows are read side by side, so that a block is written in the order that it lies in. */
static void pack_block(pack_job *j, int64_t block, const uint8_t *codes, uint8_t *ordered) {
    const qb_packed *p = j->p;
    uint8_t *to = p->codes + block * (p->padded_cols / p->step_cols) * p->step_bytes;
    const uint8_t *rows[QB_BLOCK_ROWS];
    for (int lane = 0; lane < QB_BLOCK_ROWS; lane++) {
        int64_t row = block * QB_BLOCK_ROWS + lane;
        rows[lane] = codes + lane * p->cols;
        if (row < p->rows && !p->source && !p->lift) continue;
        order_row(j, row, rows[lane], ordered + lane * p->padded_cols);
        rows[lane] = ordered + lane * p->padded_cols;
    }
    const int64_t k = put_units(p->kind, rows, 0, p->padded_cols, to);
    if (k < p->padded_cols) put_rest(p, rows, k, to + k / p->step_cols * p->step_bytes);
}

static void pack_codes(void *ctx, int64_t begin, int64_t end, int worker) {
    pack_job *j = ctx;
    const qb_packed *p = j->p;
    const qb_qweight *q = j->q;
    uint8_t *ordered = j->rows + worker * p->padded_cols * QB_BLOCK_ROWS;
    uint8_t *room = j->read ? j->read + worker * QB_SOURCE_ROWS * q->cols : NULL;
    for (int64_t block = begin, n; block < end; block += n) {
        const int64_t first = block * QB_BLOCK_ROWS;
        n = qb_least(end - block, QB_SOURCE_ROWS / QB_BLOCK_ROWS);
        const int64_t rows = qb_least(n * QB_BLOCK_ROWS, q->rows - first);
        const uint8_t *codes = qb_qweight_rows(q, NULL, first, rows, room);
        if (q->codes && !qb_codes_below(codes, rows * q->cols, code_limit(q))) atomic_store(&j->above, true);
        for (int64_t i = 0; i < n; i++)
            pack_block(j, block + i, codes + i * QB_BLOCK_ROWS * q->cols, ordered);
    }
}

/* ---- assembly ---- */

/* What the largest value of a codebook becomes, of at most 32512 that two signed bytes hold: where the others
   come closest to whole numbers. FP4's are multiples of 1 / 192 and are met exactly, all but the least in the
   higher byte alone; NF4's within 8e-6. */
static float whole_limit(qb_codebook codebook) {
    return codebook == QB_CODEBOOK_FP4 ? 30720.0f : codebook == QB_CODEBOOK_NF4 ? 31908.0f : 32512.0f;
}

static void fill_whole(qb_packed *p, qb_codebook codebook) {
    float largest = 0;
    for (int i = 0; i < 16; i++) {
        largest = fmaxf(largest, fabsf(p->table[i]));
        p->wide = p->wide || p->table[i] != rintf(p->table[i]);
    }
    p->wide = p->wide || largest > 127;
    p->unit = p->wide ? largest / whole_limit(codebook) : 1.0f;
    for (int i = 0; i < 16; i++) {
        int t = (int)lrintf(p->table[i] / p->unit), low = ((t + 128) & 255) - 128;
        p->low[i] = (uint8_t)(low + 128);
        p->high[i] = (uint8_t)((t - low) / 256 + 128);
    }
}

static void fill_table(qb_packed *p, const qb_qweight *q) {
    const float *codebook = q->coding == QB_CODING_CODEBOOK ? qb_codebook_table(q->codebook) : NULL;
    int count = p->bits < 4 ? 1 << p->bits : 16;
    for (int i = 0; i < 16; i++) {
        int centred = i % count - count / 2;
        p->table[i] = codebook ? codebook[i] : (float)centred;
    }
    if (codebook) fill_whole(p, q->codebook);
}

static qb_status pack_by_row(pack_job *j, qb_threads *threads, const qb_pack_memory *memory) {
    const qb_qweight *q = j->q;
    qb_packed *p = j->p;
    int64_t n = q->rows * q->cols, bytes = (n + 1) / 2;
    if (!qb_codes_below(q->codes, n, code_limit(q))) return refuse_above(q->codes, n, code_limit(q), "code");
    p->by_row = true;
    p->padded_cols = q->cols;
    qb_status st = memory->alloc(memory->owner, bytes, &p->codes);
    if (st != QB_OK) return st;
    memset(p->codes, 0, (size_t)bytes);
    p->bytes += bytes;
    for (int64_t i = 0; i < n; i++) p->codes[i / 2] = (uint8_t)(p->codes[i / 2] | q->codes[i] << (i % 2 * 4));
    return qb_pack_absmax(p, q, threads, memory);
}

/* Bits that codes lie in: as few as there is a form for, unless padding eats what that saves. */
static int packed_bits(const qb_qweight *q) {
    if (q->coding == QB_CODING_CODEBOOK) return 4;
    int64_t padded_3 = (q->group_size + 31) / 32 * 32, padded_4 = (q->group_size + 7) / 8 * 8;
    bool short_groups = q->bits == 3 && !q->g_idx && padded_3 * 3 > padded_4 * 4;
    return short_groups ? 4 : q->bits > 4 ? 8 : q->bits;
}

static qb_status pack_into(pack_job *j, qb_threads *threads, const qb_pack_memory *memory) {
    const qb_qweight *q = j->q;
    qb_packed *p = j->p;
    bool codebook = q->coding == QB_CODING_CODEBOOK;
    qb_status st = QB_OK;
    if (codebook && q->n_blocks > INT32_MAX / 2) /* lanes hold 32-bit block numbers */
        return qb_fail(QB_ERR_UNSUPPORTED, "%lld blocks in one matrix; at most %d are supported",
                       (long long)q->n_blocks, INT32_MAX / 2);
    p->rows = q->rows, p->cols = q->cols;
    p->blocks = (q->rows + QB_BLOCK_ROWS - 1) / QB_BLOCK_ROWS;
    if (!codebook) QB_TRY(st, check_affine(q));
    QB_TRY(st, qb_pack_k(p, q, threads, memory));
    if (qb_is_k(p->kind)) {
        p->step_cols = steps[p->kind].step_cols, p->step_bytes = steps[p->kind].step_bytes;
        fill_table(p, q);
        return QB_OK;
    }
    if (!codebook && !q->scales) QB_TRY(st, qb_qweight_fill_values(j->q, threads));
    p->bits = packed_bits(q);
    p->lift = (1 << (p->bits - 1)) - (1 << (q->bits - 1));
    p->middle = (float)(1 << (q->bits - 1));
    p->kind = codebook       ? QB_PACK_CODEBOOK
              : p->bits == 2 ? QB_PACK_2
              : p->bits == 3 ? QB_PACK_3
              : p->bits == 4 ? QB_PACK_4
                             : QB_PACK_8;
    p->step_cols = steps[p->kind].step_cols, p->step_bytes = steps[p->kind].step_bytes;
    fill_table(p, q);
    j->group_cols = qb_qweight_scale_cols(q);
    if (codebook && j->group_cols % p->step_cols != 0) {
        QB_TRY(st, qb_qweight_complete(j->q, threads));
        return pack_by_row(j, threads, memory);
    }
    p->n_groups = codebook ? q->cols / j->group_cols : q->n_groups;
    QB_TRY(st, lay_columns(j, memory));
    int64_t code_bytes = p->blocks * (p->padded_cols / p->step_cols) * p->step_bytes;
    QB_TRY(st, memory->alloc(memory->owner, code_bytes, &p->codes));
    p->bytes += code_bytes + (p->source ? p->padded_cols * 4 : 0);
    const size_t workers = (size_t)qb_threads_count(threads);
    if (!q->codes) QB_TRY(st, qb_alloc((size_t)q->cols * QB_SOURCE_ROWS * workers, 1, &j->read));
    QB_TRY(st, qb_alloc((size_t)p->padded_cols * QB_BLOCK_ROWS * workers, 1, &j->rows));
    qb_parallel_for(threads, p->blocks, QB_SOURCE_ROWS / QB_BLOCK_ROWS, pack_codes, j);
    if (atomic_load(&j->above)) return refuse_above(q->codes, q->rows * q->cols, code_limit(q), "code");
    QB_TRY(st,
           codebook ? qb_pack_absmax(p, q, threads, memory) : qb_pack_affine_scales(p, q, threads, memory));
out:
    return st;
}

qb_status qb_pack(qb_qweight *q, qb_threads *threads, const qb_pack_memory *memory, qb_packed **out) {
    *out = NULL;
    pack_job j = {.q = q};
    qb_status st = qb_alloc_zero(1, sizeof *j.p, &j.p);
    if (st != QB_OK) return st;
    st = pack_into(&j, threads, memory);
    qb_free(j.rows);
    qb_free(j.read);
    if (st != QB_OK) {
        qb_pack_free(j.p, memory);
        return st;
    }
    *out = j.p;
    return QB_OK;
}

void qb_pack_free(qb_packed *p, const qb_pack_memory *memory) {
    if (!p) return;
    void *const arrays[] = {p->group_end, p->source, p->codes, p->scales, p->zeros, p->offsets, p->nested};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) memory->free(memory->owner, arrays[i]);
    qb_free(p);
}
