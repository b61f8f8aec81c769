/* Scales and offsets of GGUF's K types are a small whole number times a scale of 256 columns. The neutral
   form holds their products; here the factors are found again, so that a group takes a byte and not four, and
   whole numbers can be added over super-blocks. */
#include "kernels/cpu/pack_k.h"

#include "kernels/cpu/pack_steps.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { MOST = QB_K_GROUPS_MAX };

/* The kind is a constant in each that is called with one, and with it counts and shifts. */
#define INLINE static inline __attribute__((always_inline))

/* ---- factors ---- */

/* value = odd * 2^exponent, or 0. */
static int32_t odd_part(float value, int *exponent) {
    uint32_t bits, biased;
    memcpy(&bits, &value, 4);
    biased = bits >> 23 & 255;
    int32_t m = (int32_t)((bits & 0x7fffff) | (biased ? 0x800000u : 0));
    if (!m) return 0;
    int zeros = __builtin_ctz((unsigned)m);
    *exponent = (biased ? (int)biased : 1) - 150 + zeros;
    return bits >> 31 ? -(m >> zeros) : m >> zeros;
}

typedef struct {
    int least, most, usual;
} whole_range;

static bool within(const int32_t *part, int n, int32_t whole, whole_range r, int8_t *inner) {
    for (int i = 0; i < n; i++) {
        int32_t k = part[i] / whole;
        if (k < r.least || k > r.most) return false;
        inner[i] = (int8_t)(uint8_t)(k & 255);
    }
    return true;
}

/* The largest factor of n values, of the sign that brings each value over it within the range; false where
   none does. */
static bool largest_factor(const float *values, int n, whole_range range, float *outer, int8_t *inner) {
    int32_t part[MOST]; /* of 24 bits, and 7 more */
    int exponent[MOST], least = 0;
    bool any = false;
    for (int i = 0; i < n; i++) {
        if (!isfinite(values[i])) return false;
        part[i] = odd_part(values[i], &exponent[i]);
        if (!part[i]) continue;
        least = !any || exponent[i] < least ? exponent[i] : least;
        any = true;
    }
    int32_t whole = 0;
    for (int i = 0; i < n; i++) {
        if (!part[i]) continue;
        if (exponent[i] - least > 7) return false;
        part[i] *= 1 << (exponent[i] - least);
        whole = (int32_t)qb_gcd(part[i] < 0 ? -part[i] : part[i], whole);
    }
    *outer = any ? ldexpf((float)whole, least) : 0.0f;
    if (!any) {
        memset(inner, 0, (size_t)n);
        return true;
    }
    if (!within(part, n, whole, range, inner)) {
        *outer = -*outer;
        if (!within(part, n, -whole, range, inner)) return false;
    }
    for (int i = 0; i < n; i++)
        if (*outer * (float)(range.most > 127 ? (uint8_t)inner[i] : inner[i]) != values[i]) return false;
    return true;
}

/* The factor of which the largest value is `usual`. Sums in place of ends, so that values are looked at
   together. */
INLINE bool usual_factor(const float *values, int n, whole_range range, float *outer, int8_t *inner) {
    const float to_whole = 0x1.8p23f; /* added, it rounds, and the lowest bits are the whole number's */
    const float low = (float)range.least, high = (float)range.most;
    int32_t above = 0, below = 0; /* bits of floats of no sign rise with them */
    int differ = 0;
    float raised[MOST];
    for (int i = 0; i < n; i++) {
        int32_t bits = (int32_t)qb_bits_of_f32(values[i]), turned = (int32_t)((uint32_t)bits ^ 0x80000000);
        above = bits > above ? bits : above;
        below = turned > below ? turned : below;
    }
    const float most = qb_f32_of_bits((uint32_t)(above >= below ? above : below));
    const float signed_most = above >= below ? most : -most, usual = (float)range.usual;
    const float unit = signed_most / usual, of_unit = usual / signed_most;
    if (!isfinite(unit) || !isfinite(of_unit)) return false;
    for (int i = 0; i < n; i++) {
        raised[i] = values[i] * of_unit + to_whole;
        const float k = raised[i] - to_whole;
        differ += (k * unit != values[i]) + (k < low) + (k > high);
    }
    if (differ) return false;
    for (int i = 0; i < n; i++) inner[i] = (int8_t)(uint8_t)(qb_bits_of_f32(raised[i]) & 255);
    *outer = unit;
    return true;
}

/* A factor of n values that brings each of them over it within the range, the usual one or the largest;
   false where there is none. */
INLINE bool factor(const float *values, int n, whole_range range, float *outer, int8_t *inner) {
    return usual_factor(values, n, range, outer, inner) || largest_factor(values, n, range, outer, inner);
}

/* What scales and offsets can be, and what the largest of a super-block is by ggml's quantizers. K3: a code
   less its middle, times the scale, is to be a byte when 124 is added. */
static whole_range scale_range(qb_pack_kind kind) {
    switch (kind) {
    case QB_PACK_K2:
        return (whole_range){0, 15, 15};
    case QB_PACK_K3:
        return (whole_range){-32, 31, -32};
    case QB_PACK_K6:
        return (whole_range){-128, 127, -128};
    default:
        return (whole_range){-128, 127, 63};
    }
}
static whole_range offset_range(qb_pack_kind kind) {
    return kind == QB_PACK_K2 ? (whole_range){0, 15, 15} : (whole_range){0, 255, 63};
}

/* ---- super-blocks ---- */

typedef struct {
    const qb_packed *p;
    const qb_qweight *q;
    qb_pack_kind kind;
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

/* A row's scales or offsets of a super-block; with a shift, above what is there. */
INLINE bool put_factors(const float *values, int n, whole_range range, int shift, int64_t lane, uint8_t *to,
                        uint8_t *outer) {
    int8_t inner[MOST];
    float factor_of_all;
    if (!factor(values, n, range, &factor_of_all, inner)) return false;
    for (int g = 0; g < n; g++) {
        uint8_t *byte = to + g / 4 * 64 + lane * 4 + g % 4;
        *byte = (uint8_t)(shift ? *byte | (uint8_t)inner[g] << shift : inner[g]);
    }
    memcpy(outer + 4 * lane, &factor_of_all, 4);
    return true;
}

INLINE bool put_row(const k_job *j, qb_pack_kind kind, int64_t row, int64_t super, uint8_t *to) {
    const int groups = qb_k_groups(kind);
    const int64_t lane = row % QB_BLOCK_ROWS, g = row * j->q->n_groups + super * groups;
    uint8_t *outer = to + qb_k_outer_at(kind);
    const uint8_t *codes = j->q->codes + row * j->q->cols + super * QB_K_COLS;
    if (!qb_codes_below(codes, QB_K_COLS, 1 << j->q->bits)) return false;
    put_codes(kind, codes, lane, to);
    if (!put_factors(j->q->scales + g, groups, scale_range(kind), 0, lane, to + qb_k_scales_at(kind), outer))
        return false;
    return !qb_k_has_offsets(kind) ||
           put_factors(j->q->offsets + g, groups, offset_range(kind), kind == QB_PACK_K2 ? 4 : 0, lane,
                       to + qb_k_offsets_at(kind), outer + 4 * QB_BLOCK_ROWS);
}

/* Along the rows, as the weight is read; a block's super-blocks stay in the cache meanwhile. */
INLINE void put_rows(k_job *j, qb_pack_kind kind, int64_t begin, int64_t end) {
    const int64_t supers = j->q->cols / QB_K_COLS, bytes = qb_k_bytes(kind);
    const int64_t last = end * QB_BLOCK_ROWS < j->q->rows ? end * QB_BLOCK_ROWS : j->q->rows;
    uint8_t *to = j->p->codes + begin * supers * bytes;
    if (last < end * QB_BLOCK_ROWS) memset(to, 0, (size_t)((end - begin) * supers * bytes));
    for (int64_t r = begin * QB_BLOCK_ROWS; r < last && !atomic_load(&j->failed); r++)
        for (int64_t s = 0; s < supers; s++)
            if (!put_row(j, kind, r, s, to + ((r / QB_BLOCK_ROWS - begin) * supers + s) * bytes))
                atomic_store(&j->failed, true);
}

static void put_blocks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    k_job *j = ctx;
    switch (j->kind) {
#define OF(kind)                                                                                             \
    case kind:                                                                                               \
        put_rows(j, kind, begin, end);                                                                       \
        break;
        OF(QB_PACK_K2) OF(QB_PACK_K3) OF(QB_PACK_K4) OF(QB_PACK_K5) OF(QB_PACK_K6) default : break;
    }
}

/* The kind that q's shape has; QB_PACK_COUNT where it is of none. */
static qb_pack_kind kind_of(const qb_qweight *q) {
    if (q->coding != QB_CODING_AFFINE || q->g_idx || q->cols % QB_K_COLS) return QB_PACK_COUNT;
    for (qb_pack_kind k = QB_PACK_K2; k <= QB_PACK_K6; k++) {
        if (q->bits != qb_k_low_bits(k) + qb_k_high_bits(k) || q->group_size != qb_k_group_cols(k)) continue;
        if (!q->offsets != !qb_k_has_offsets(k)) continue;
        return q->offsets || qb_qweight_zeros_in_middle(q) ? k : QB_PACK_COUNT;
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
    qb_parallel_for(threads, p->blocks, 4, put_blocks, &j);
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
