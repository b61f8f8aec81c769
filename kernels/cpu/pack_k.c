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
#define INLINE static inline __attribute__((always_inline))

/* ---- super-blocks ---- */

typedef struct {
    const qb_packed *p;
    const qb_qweight *q;
    qb_pack_kind kind;
    uint8_t *rows; /* room of each worker for codes that are in the file */
    atomic_bool failed;
} k_job;

/* High bits of the codes of a word, each to the byte and the quad of its column. */
INLINE uint32_t high_word(const uint8_t *code, int low, int high) {
    const int quads = 8 / low, step = 32 / low;
    uint32_t word = 0;
    for (int c = 0; c < 32 / high; c += 8)
        word |= qb_pack_high(code + c, low, high, quads)
                << (8 * (c % step / quads) + high * (c / step * quads));
    return word;
}

INLINE void put_codes(qb_pack_kind kind, const uint8_t *code, int64_t lane, uint8_t *super) {
    const int low = qb_k_low_bits(kind), high = qb_k_high_bits(kind);
    uint8_t lower[QB_K_COLS];
    for (int c = 0; c < QB_K_COLS; c++) lower[c] = (uint8_t)(code[c] & ((1 << low) - 1));
    uint8_t *to = super + 4 * lane;
    for (int c = 0; c < QB_K_COLS; c += 32 / low, to += 64) {
        uint32_t word = low == 4 ? qb_pack_step_4(lower + c)
                                 : qb_pack_half_step_2(lower + c) | qb_pack_half_step_2(lower + c + 8) << 16;
        memcpy(to, &word, 4);
    }
    if (!high) return;
    to = super + qb_k_high_at(kind) + 4 * lane;
    for (int c = 0; c < QB_K_COLS; c += 32 / high, to += 64) {
        uint32_t word = high_word(code + c, low, high);
        memcpy(to, &word, 4);
    }
}

/* A row's scales or offsets of a super-block; with a shift, above what is there. False where one is beyond
   what the kind has: K2 four bits; K3 scales that, times a code less its middle, are a byte when 124 is
   added.
 */
INLINE bool put_factors(const qb_factors *f, int64_t group, qb_pack_kind kind, bool is_scale, int64_t lane,
                        uint8_t *to, uint8_t *outer) {
    const int n = qb_k_groups(kind), shift = kind == QB_PACK_K2 && !is_scale ? 4 : 0;
    const uint8_t *inner = f->inner + group, raised = kind == QB_PACK_K3 ? 32 : 0;
    const uint8_t limit = kind == QB_PACK_K2 ? 15 : kind == QB_PACK_K3 ? 63 : 255;
    uint8_t most = 0;
    for (int g = 0; g < n; g++)
        most = (uint8_t)(inner[g] + raised) > most ? (uint8_t)(inner[g] + raised) : most;
    for (int g = 0; g < n; g++) {
        uint8_t *byte = to + g / 4 * 64 + lane * 4 + g % 4;
        *byte = (uint8_t)(shift ? *byte | inner[g] << shift : inner[g]);
    }
    memcpy(outer + 4 * lane, f->outer + group / n, 4);
    return most <= limit;
}

INLINE bool put_row(const k_job *j, qb_pack_kind kind, const uint8_t *codes, int64_t row, int64_t super,
                    uint8_t *to) {
    const int groups = qb_k_groups(kind);
    const int64_t lane = row % QB_BLOCK_ROWS, g = row * j->q->n_groups + super * groups;
    uint8_t *outer = to + qb_k_outer_at(kind);
    if (j->q->codes && !qb_codes_below(codes, QB_K_COLS, 1 << j->q->bits)) return false;
    put_codes(kind, codes, lane, to);
    if (!put_factors(&j->q->scale_factors, g, kind, true, lane, to + qb_k_scales_at(kind), outer))
        return false;
    return !qb_k_has_offsets(kind) || put_factors(&j->q->offset_factors, g, kind, false, lane,
                                                  to + qb_k_offsets_at(kind), outer + 4 * QB_BLOCK_ROWS);
}

/* Along the rows, as the weight is read; a block's super-blocks stay in the cache meanwhile. */
INLINE void put_rows(k_job *j, qb_pack_kind kind, const uint8_t *codes, int64_t first, int64_t n) {
    const int64_t cols = j->q->cols, supers = cols / QB_K_COLS, bytes = qb_k_bytes(kind);
    for (int64_t r = first; r < first + n; r++, codes += cols) {
        uint8_t *to = j->p->codes + r / QB_BLOCK_ROWS * supers * bytes;
        for (int64_t s = 0; s < supers; s++)
            if (!put_row(j, kind, codes + s * QB_K_COLS, r, s, to + s * bytes)) {
                atomic_store(&j->failed, true);
                return;
            }
    }
}

static void put_blocks(void *ctx, int64_t begin, int64_t end, int worker) {
    k_job *j = ctx;
    const int64_t rows = j->q->rows, cols = j->q->cols;
    const int64_t block_bytes = cols / QB_K_COLS * qb_k_bytes(j->kind);
    uint8_t *room = j->rows ? j->rows + worker * QB_SOURCE_ROWS * cols : NULL;
    if (end * QB_BLOCK_ROWS > rows) /* lanes without a row */
        memset(j->p->codes + (end - 1) * block_bytes, 0, (size_t)block_bytes);
    for (int64_t r = begin * QB_BLOCK_ROWS, n; r < end * QB_BLOCK_ROWS && r < rows; r += n) {
        n = rows - r < QB_SOURCE_ROWS ? rows - r : QB_SOURCE_ROWS;
        if (n > end * QB_BLOCK_ROWS - r) n = end * QB_BLOCK_ROWS - r;
        const uint8_t *codes = qb_qweight_rows(j->q, NULL, r, n, room);
        switch (j->kind) {
#define OF(kind)                                                                                             \
    case kind:                                                                                               \
        put_rows(j, kind, codes, r, n);                                                                      \
        break;
            OF(QB_PACK_K2) OF(QB_PACK_K3) OF(QB_PACK_K4) OF(QB_PACK_K5) OF(QB_PACK_K6) default : break;
        }
        if (atomic_load(&j->failed)) return;
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
