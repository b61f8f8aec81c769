/* Scales and offsets of GGUF's K types are a small whole number times a scale of 256 columns. They lie as
   these factors, so that a group takes a byte and not four, and whole numbers can be added over super-blocks.
 */
#include "kernels/cpu/pack_k.h"

#include "base/memory.h"
#include "kernels/cpu/pack_steps.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* The kind is a constant in each that is called with one, and with it counts and shifts. */
#define INLINE QB_PACK_INLINE

/* ---- super-blocks ---- */

typedef struct {
    const qb_packed *p;
    const qb_qweight *q;
    qb_pack_kind kind;
    uint8_t *rows; /* room of each worker for codes that are in the file */
    atomic_bool failed;
} k_job;

/* What sixteen codes hold above their low bits. */
INLINE qb_u8x16 high_bits(const uint8_t *codes, int low, int high) {
    return qb_cut_u8(qb_u8x16_at(codes), low, (uint8_t)((1 << high) - 1));
}

/* Four words of high bits: each where the byte and the quad of its column are (k_layout.h). Bytes of K3's
   words hold four neighbours of sixteen columns, then of the next; of the others' two of eight. */
INLINE qb_u32x4 high_words_3(const uint8_t *codes) {
    qb_u32x4 bytes[4];
    for (int i = 0; i < 4; i++) {
        const uint8_t *from = codes + 32 * i;
        bytes[i] = qb_join_16(qb_join_8(high_bits(from, 2, 1), 1), 2) |
                   qb_join_16(qb_join_8(high_bits(from + 16, 2, 1), 1), 2) << 4;
    }
    return (qb_u32x4)qb_narrow_16(qb_narrow_32(bytes[0], bytes[1]), qb_narrow_32(bytes[2], bytes[3]));
}

/* Of 32 codes a word of each eight. */
INLINE qb_u32x4 words_of_eights(const uint8_t *codes, int high) {
    return (qb_u32x4)qb_narrow_16(qb_join_8(high_bits(codes, 4, high), high),
                                  qb_join_8(high_bits(codes + 16, 4, high), high));
}
INLINE qb_u32x4 high_words_5(const uint8_t *codes) {
    qb_u32x4 x[4];
    for (int i = 0; i < 4; i++) x[i] = words_of_eights(codes + 32 * i, 1);
    qb_turn_4x4(x);
    return x[0] | x[1] << 2 | x[2] << 4 | x[3] << 6;
}
INLINE qb_u32x4 high_words_6(const uint8_t *codes) {
    const qb_u32x4 a = words_of_eights(codes, 2), b = words_of_eights(codes + 32, 2);
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) | __builtin_shufflevector(a, b, 1, 3, 5, 7) << 4;
}

INLINE void put_high(qb_pack_kind kind, const uint8_t *const rows[QB_BLOCK_ROWS], int64_t k, uint8_t *to) {
    qb_row_words w;
    for (int lane = 0; lane < QB_BLOCK_ROWS; lane++)
        w.row[lane] = kind == QB_PACK_K3   ? high_words_3(rows[lane] + k)
                      : kind == QB_PACK_K5 ? high_words_5(rows[lane] + k)
                                           : high_words_6(rows[lane] + k);
    qb_put_lines(&w, to);
}

INLINE void put_codes(qb_pack_kind kind, const uint8_t *const rows[QB_BLOCK_ROWS], uint8_t *to) {
    const int low = qb_k_low_bits(kind), high = qb_k_high_bits(kind);
    for (int c = 0; c < QB_K_COLS; c += 128 / low, to += 256) {
        if (low == 2)
            qb_put_unit_2(rows, c, to);
        else
            qb_put_unit_4(rows, c, to);
    }
    if (high)
        for (int c = 0; c < QB_K_COLS; c += 128 / high, to += 256) put_high(kind, rows, c, to);
}

/* A row's scales or offsets of a super-block, four groups at a time; with a shift, above what is there. False
   where one is beyond what the kind has: K2 four bits; K3 scales that, times a code less its middle, are a
   byte when 124 is added. */
INLINE bool put_factors(const qb_factors *f, int64_t group, qb_pack_kind kind, bool is_scale, int64_t lane,
                        uint8_t *to, uint8_t *outer) {
    const int n = qb_k_groups(kind), shift = kind == QB_PACK_K2 && !is_scale ? 4 : 0;
    const uint8_t *inner = f->inner + group, raised = kind == QB_PACK_K3 ? 32 : 0;
    const uint8_t limit = kind == QB_PACK_K2 ? 15 : kind == QB_PACK_K3 ? 63 : 255;
    uint8_t most = 0;
    for (int g = 0; g < n; g++)
        most = (uint8_t)(inner[g] + raised) > most ? (uint8_t)(inner[g] + raised) : most;
    for (int g = 0; g < n; g += 4) {
        uint8_t *four = to + g * QB_BLOCK_ROWS + lane * 4;
        uint32_t word, there = 0;
        memcpy(&word, inner + g, 4);
        if (shift) memcpy(&there, four, 4);
        there |= word << shift; /* what is in range stays in its byte */
        memcpy(four, &there, 4);
    }
    memcpy(outer + 4 * lane, f->outer + group / n, 4);
    return most <= limit;
}

INLINE bool put_super(const k_job *j, qb_pack_kind kind, const uint8_t *const rows[QB_BLOCK_ROWS],
                      int64_t first, int64_t super, uint8_t *to) {
    const qb_qweight *q = j->q;
    const int groups = qb_k_groups(kind);
    uint8_t *scales = to + qb_k_scales_at(kind), *offsets = to + qb_k_offsets_at(kind);
    uint8_t *outer = to + qb_k_outer_at(kind);
    bool fits = true;
    put_codes(kind, rows, to);
    for (int64_t lane = 0; lane < QB_BLOCK_ROWS && first + lane < q->rows; lane++) {
        const int64_t g = (first + lane) * q->n_groups + super * groups;
        fits &= put_factors(&q->scale_factors, g, kind, true, lane, scales, outer);
        if (qb_k_has_offsets(kind))
            fits &= put_factors(&q->offset_factors, g, kind, false, lane, offsets, outer + 4 * QB_BLOCK_ROWS);
    }
    return fits;
}

/* The rows of a block, `first` on; those beyond the last are zero. */
INLINE bool put_block(const k_job *j, qb_pack_kind kind, const uint8_t *codes, int64_t first) {
    static const uint8_t none[QB_K_COLS];
    const int64_t cols = j->q->cols, supers = cols / QB_K_COLS, bytes = qb_k_bytes(kind);
    const int64_t n = j->q->rows - first < QB_BLOCK_ROWS ? j->q->rows - first : QB_BLOCK_ROWS;
    uint8_t *to = j->p->codes + first / QB_BLOCK_ROWS * supers * bytes;
    const uint8_t *rows[QB_BLOCK_ROWS];
    if (n < QB_BLOCK_ROWS) memset(to, 0, (size_t)(supers * bytes));
    if (j->q->codes && !qb_codes_below(codes, n * cols, 1 << j->q->bits)) return false;
    for (int64_t s = 0; s < supers; s++, to += bytes) {
        for (int64_t lane = 0; lane < QB_BLOCK_ROWS; lane++)
            rows[lane] = lane < n ? codes + lane * cols + s * QB_K_COLS : none;
        if (!put_super(j, kind, rows, first, s, to)) return false;
    }
    return true;
}

static void put_blocks(void *ctx, int64_t begin, int64_t end, int worker) {
    k_job *j = ctx;
    const int64_t rows = j->q->rows, cols = j->q->cols;
    uint8_t *room = j->rows ? j->rows + worker * QB_SOURCE_ROWS * cols : NULL;
    for (int64_t r = begin * QB_BLOCK_ROWS, n; r < end * QB_BLOCK_ROWS && r < rows; r += n) {
        n = rows - r < QB_SOURCE_ROWS ? rows - r : QB_SOURCE_ROWS;
        if (n > end * QB_BLOCK_ROWS - r) n = end * QB_BLOCK_ROWS - r;
        const uint8_t *codes = qb_qweight_rows(j->q, NULL, r, n, room);
        for (int64_t i = 0; i < n; i += QB_BLOCK_ROWS) {
            bool fits = false;
            switch (j->kind) {
#define OF(kind)                                                                                             \
    case kind:                                                                                               \
        fits = put_block(j, kind, codes + i * cols, r + i);                                                  \
        break;
                OF(QB_PACK_K2) OF(QB_PACK_K3) OF(QB_PACK_K4) OF(QB_PACK_K5) OF(QB_PACK_K6) default : break;
            }
            if (!fits) atomic_store(&j->failed, true);
            if (atomic_load(&j->failed)) return;
        }
    }
}

/* The kind that q's shape has; QB_PACK_COUNT where it is of none. */
static qb_pack_kind kind_of(const qb_qweight *q) {
    if (q->coding != QB_CODING_AFFINE || q->g_idx || q->cols % QB_K_COLS) return QB_PACK_COUNT;
    for (qb_pack_kind k = QB_PACK_K2; k <= QB_PACK_K6; k++) {
        if (q->bits != qb_k_low_bits(k) + qb_k_high_bits(k) || q->group_size != qb_k_group_cols(k)) continue;
        if (qb_qweight_has_offsets(q) != qb_k_has_offsets(k) || q->factor_groups != qb_k_groups(k)) continue;
        return qb_qweight_has_offsets(q) || qb_qweight_zeros_in_middle(q) ? k : QB_PACK_COUNT;
    }
    return QB_PACK_COUNT;
}

qb_status qb_pack_k(qb_packed *p, const qb_qweight *q, qb_threads *threads, const qb_pack_memory *memory) {
    const qb_pack_kind kind = kind_of(q);
    if (kind == QB_PACK_COUNT) return QB_OK;
    const int64_t bytes = p->blocks * (q->cols / QB_K_COLS) * qb_k_bytes(kind);
    qb_status st = memory->alloc(memory->owner, bytes, &p->codes);
    if (st != QB_OK) return st;
    k_job j = {.p = p, .q = q, .kind = kind};
    const int64_t room = QB_SOURCE_ROWS * q->cols * qb_threads_count(threads);
    if (!q->codes && (st = qb_alloc((size_t)room, 1, &j.rows)) != QB_OK) return st;
    qb_parallel_for(threads, p->blocks, 4, put_blocks, &j);
    qb_free(j.rows);
    if (atomic_load(&j.failed)) {
        memory->free(memory->owner, p->codes);
        p->codes = NULL;
        return QB_OK;
    }
    p->kind = kind, p->scale_kind = QB_SCALES_FACTORED, p->bits = q->bits;
    p->middle = (float)(1 << (q->bits - 1));
    p->padded_cols = q->cols, p->n_groups = q->n_groups, p->bytes = bytes;
    st = memory->alloc(memory->owner, p->n_groups * (int64_t)sizeof *p->group_end, &p->group_end);
    for (int64_t g = 0; st == QB_OK && g < p->n_groups; g++)
        p->group_end[g] = (int32_t)((g + 1) * q->group_size);
    return st;
}
