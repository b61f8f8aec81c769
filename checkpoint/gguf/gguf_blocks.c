#include "checkpoint/gguf/gguf_blocks.h"

#include "base/memory.h"
#include "base/vectors.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* Each type's runs of blocks have code of their own. */
#define INLINE static inline __attribute__((always_inline))

/* Normal numbers, which scales are but for a few, without the call. */
INLINE float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    const uint32_t exponent = h & 0x7c00u;
    if (exponent == 0 || exponent == 0x7c00) return qb_f32_of_f16(h);
    return qb_f32_of_bits(((h & 0x8000u) << 16 | (h & 0x7fffu) << 13) + (112u << 23));
}

/* Of n bytes, a multiple of sixteen, the bits of `mask` from bit `from` on, as many codes. */
INLINE void cut_bits(const uint8_t *bytes, int n, int from, uint8_t mask, uint8_t *codes) {
    for (int i = 0; i < n; i += 16) qb_u8x16_put(qb_cut_u8(qb_u8x16_at(bytes + i), from, mask), codes + i);
}

/* The same to bit `to` of codes that have nothing there. */
INLINE void add_bits(const uint8_t *bytes, int n, int from, uint8_t mask, int to, uint8_t *codes) {
    for (int i = 0; i < n; i += 16)
        qb_u8x16_put(qb_u8x16_at(codes + i) |
                         (qb_u8x16)((qb_u16x8)qb_cut_u8(qb_u8x16_at(bytes + i), from, mask) << to),
                     codes + i);
}

/* ---- blocks of 32: float16 scale, float16 minimum in the _1 types, high bits of 5-bit codes, nibbles ----
 */

/* Low nibbles are the first half of the columns, high ones the second. */
INLINE void nibbles_32(const uint8_t *bytes, uint8_t *codes) {
    cut_bits(bytes, 16, 0, 15, codes);
    cut_bits(bytes, 16, 4, 15, codes + 16);
}

INLINE void fifth_bits_32(const uint8_t *bytes, uint8_t *codes) {
    for (int i = 0; i < 32; i++) codes[i] = (uint8_t)(codes[i] | (bytes[i / 8] >> (i % 8) & 1) << 4);
}

INLINE void block_codes_q4_0(const uint8_t *b, uint8_t *codes) {
    nibbles_32(b + 2, codes);
}

INLINE void block_codes_q4_1(const uint8_t *b, uint8_t *codes) {
    nibbles_32(b + 4, codes);
}

INLINE void block_codes_q5_0(const uint8_t *b, uint8_t *codes) {
    nibbles_32(b + 6, codes);
    fifth_bits_32(b + 2, codes);
}

INLINE void block_codes_q5_1(const uint8_t *b, uint8_t *codes) {
    nibbles_32(b + 8, codes);
    fifth_bits_32(b + 4, codes);
}

/* Signed to code - 128. */
INLINE void block_codes_q8_0(const uint8_t *b, uint8_t *codes) {
    for (int i = 0; i < 32; i += 16) qb_u8x16_put(qb_u8x16_at(b + 2 + i) ^ 0x80, codes + i);
}

/* ---- blocks of 256: groups of 16 or 32 with small integer scales of a float16 scale ---- */

/* Two bits a code: 32 bytes are four rows of 32 columns, lowest bits first. */
INLINE void pairs_256(const uint8_t *bytes, uint8_t *codes) {
    for (int row = 0; row < 8; row++) cut_bits(bytes + row / 4 * 32, 32, row % 4 * 2, 3, codes + 32 * row);
}
INLINE void add_pairs_256(const uint8_t *bytes, int to, uint8_t *codes) {
    for (int row = 0; row < 8; row++)
        add_bits(bytes + row / 4 * 32, 32, row % 4 * 2, 3, to, codes + 32 * row);
}

/* One bit a code: bit i / 32 of byte i % 32. */
INLINE void bits_256(const uint8_t *bytes, int to, uint8_t *codes) {
    for (int row = 0; row < 8; row++) add_bits(bytes, 32, row, 1, to, codes + 32 * row);
}

INLINE void block_values_q2_k(const uint8_t *b, const qb_block_values *v) {
    *v->scales = half_at(b + 80);
    *v->offsets = -half_at(b + 82);
    cut_bits(b, 16, 0, 15, v->inner_scales);
    cut_bits(b, 16, 4, 15, v->inner_offsets);
}

INLINE void block_codes_q2_k(const uint8_t *b, uint8_t *codes) {
    pairs_256(b + 16, codes);
}

/* Six bits a scale, less 32: the low four of 16 in eight bytes, the high two in four, by quarters. */
INLINE void block_values_q3_k(const uint8_t *b, const qb_block_values *v) {
    uint64_t low;
    uint32_t high;
    memcpy(&low, b + 96, 8);
    memcpy(&high, b + 104, 4);
    *v->scales = half_at(b + 108);
    for (int half = 0; half < 2; half++, low >>= 4, high >>= 4) {
        const uint64_t top = (high & 0x03030303u) | (uint64_t)(high >> 2 & 0x03030303u) << 32;
        uint64_t scales = (low & 0x0f0f0f0f0f0f0f0f) | top << 4;
        scales = (scales + 0x6060606060606060) ^ 0x8080808080808080;
        memcpy(v->inner_scales + 8 * half, &scales, 8);
    }
}

INLINE void block_codes_q3_k(const uint8_t *b, uint8_t *codes) {
    pairs_256(b + 32, codes);
    bits_256(b, 2, codes);
}

/* Eight 6-bit scales and minimums in twelve bytes: the first four of each whole in the low six bits of bytes
   0 .. 7, the others as nibbles in bytes 8 .. 11 with their top two bits above the first ones. */
INLINE void block_values_two_of_256(const uint8_t *b, const qb_block_values *v) {
    const uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, two = 0x03030303;
    uint32_t p[3];
    memcpy(p, b + 4, 12);
    const uint32_t scales[2] = {p[0] & six, (p[2] & four) | (p[0] >> 6 & two) << 4};
    const uint32_t offsets[2] = {p[1] & six, (p[2] >> 4 & four) | (p[1] >> 6 & two) << 4};
    *v->scales = half_at(b);
    *v->offsets = -half_at(b + 2);
    memcpy(v->inner_scales, scales, 8);
    memcpy(v->inner_offsets, offsets, 8);
}

/* `width` bytes are two rows of as many columns. */
INLINE void nibbles_256(const uint8_t *bytes, int width, uint8_t *codes) {
    for (int i = 0; i < 256; i += width)
        cut_bits(bytes + i / (2 * width) * width, width, i / width % 2 * 4, 15, codes + i);
}

INLINE void block_codes_q4_k(const uint8_t *b, uint8_t *codes) {
    nibbles_256(b + 16, 32, codes);
}

INLINE void block_codes_q5_k(const uint8_t *b, uint8_t *codes) {
    nibbles_256(b + 48, 32, codes);
    bits_256(b + 16, 4, codes);
}

INLINE void block_values_q6_k(const uint8_t *b, const qb_block_values *v) {
    *v->scales = half_at(b + 208);
    memcpy(v->inner_scales, b + 192, 16);
}

INLINE void block_codes_q6_k(const uint8_t *b, uint8_t *codes) {
    nibbles_256(b, 64, codes);
    add_pairs_256(b + 128, 4, codes);
}

/* ---- blocks of codes of a table ---- */

/* Six bits a scale: the low four in nibbles, the high two in a 16-bit word. */
INLINE void block_values_iq4_xs(const uint8_t *b, const qb_block_values *v) {
    float d = half_at(b);
    for (int g = 0; g < 8; g++) {
        int low = b[4 + g / 2] >> (g % 2 * 4) & 15, high = b[2 + g / 4] >> (g % 4 * 2) & 3;
        v->scales[g] = d * (float)((low | high << 4) - 32);
    }
}

INLINE void block_codes_iq4_xs(const uint8_t *b, uint8_t *codes) {
    for (int g = 0; g < 8; g++) nibbles_32(b + 8 + 16 * g, codes + 32 * g);
}

float qb_e8m0_half(uint8_t e) {
    if (e == 255) return (float)NAN;
    return qb_f32_of_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

INLINE void block_values_mxfp4(const uint8_t *b, const qb_block_values *v) {
    v->scales[0] = qb_e8m0_half(b[0]);
}

INLINE void block_codes_mxfp4(const uint8_t *b, uint8_t *codes) {
    nibbles_32(b + 1, codes);
}

/* ---- runs of blocks ---- */

INLINE qb_block_values values_of(const qb_block_values *v, int64_t block, int64_t groups, bool has_factors) {
    const int64_t at = block * groups, outer = has_factors ? block : at;
    return (qb_block_values){.scales = v->scales + outer,
                             .offsets = v->offsets ? v->offsets + outer : NULL,
                             .inner_scales = v->inner_scales ? v->inner_scales + at : NULL,
                             .inner_offsets = v->inner_offsets ? v->inner_offsets + at : NULL};
}

/* Columns and bytes of a block. */
#define BLOCKS(X)                                                                                            \
    X(q4_0, 32, 18)                                                                                          \
    X(q4_1, 32, 20)                                                                                          \
    X(q5_0, 32, 22)                                                                                          \
    X(q5_1, 32, 24)                                                                                          \
    X(q8_0, 32, 34)                                                                                          \
    X(q2_k, 256, 84)                                                                                         \
    X(q3_k, 256, 110)                                                                                        \
    X(q4_k, 256, 144)                                                                                        \
    X(q5_k, 256, 176)                                                                                        \
    X(q6_k, 256, 210)                                                                                        \
    X(iq4_xs, 256, 136)                                                                                      \
    X(mxfp4, 32, 17)

#define CODES(type, columns, bytes)                                                                          \
    enum { COLUMNS_##type = columns, BYTES_##type = bytes };                                                 \
    static void codes_##type(const uint8_t *blocks, int64_t n, uint8_t *codes) {                             \
        for (int64_t i = 0; i < n; i++) block_codes_##type(blocks + i * bytes, codes + i * columns);         \
    }
BLOCKS(CODES)

#define VALUES(type, how, groups, has_factors)                                                               \
    static void values_##type(const uint8_t *blocks, int64_t n, const qb_block_values *v) {                  \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            const qb_block_values of = values_of(v, i, groups, has_factors);                                 \
            block_values_##how(blocks + i * BYTES_##type, &of);                                              \
        }                                                                                                    \
    }
VALUES(q2_k, q2_k, 16, true)
VALUES(q3_k, q3_k, 16, true)
VALUES(q4_k, two_of_256, 8, true)
VALUES(q5_k, two_of_256, 8, true)
VALUES(q6_k, q6_k, 16, true)
VALUES(iq4_xs, iq4_xs, 8, false)
VALUES(mxfp4, mxfp4, 1, false)

/* Float16 at one place of each block. */
INLINE void halves_of(const uint8_t *at, int64_t n, int bytes, float *out) {
    enum { PIECE = 64 };
    uint16_t halves[PIECE];
    for (int64_t i = 0, count; i < n; i += count) {
        count = n - i < PIECE ? n - i : PIECE;
        for (int64_t k = 0; k < count; k++) memcpy(halves + k, at + (i + k) * bytes, 2);
        qb_f32_of_f16_many(halves, count, out + i);
    }
}

/* A scale, or a scale and a minimum, at the start of a block. */
#define HALVES(type, has_minimum)                                                                            \
    static void values_##type(const uint8_t *blocks, int64_t n, const qb_block_values *v) {                  \
        halves_of(blocks, n, BYTES_##type, v->scales);                                                       \
        if (has_minimum) halves_of(blocks + 2, n, BYTES_##type, v->offsets);                                 \
    }
HALVES(q4_0, false)
HALVES(q4_1, true)
HALVES(q5_0, false)
HALVES(q5_1, true)
HALVES(q8_0, false)

/* ---- the types ---- */

#define PLAIN(name, id, bytes, dtype)                                                                        \
    { name, id, 1, bytes, dtype, 0, 0, false, false, false, 0, NULL, NULL, QB_DTYPE_COUNT }
#define LISTED(name, id, columns, bytes)                                                                     \
    { name, id, columns, bytes, QB_DTYPE_COUNT, 0, 0, false, false, false, 0, NULL, NULL, QB_DTYPE_COUNT }
/* Scales that are float32 are products. */
#define ZEROS(name, id, bits, group, type, scale)                                                            \
    {                                                                                                        \
        name, id, COLUMNS_##type, BYTES_##type, QB_DTYPE_COUNT, bits, group, false, false,                   \
            QB_DTYPE_##scale == QB_DTYPE_F32, 0, codes_##type, values_##type, QB_DTYPE_##scale               \
    }
#define OFFSETS(name, id, bits, group, type, scale)                                                          \
    {                                                                                                        \
        name, id, COLUMNS_##type, BYTES_##type, QB_DTYPE_COUNT, bits, group, true, false,                    \
            QB_DTYPE_##scale == QB_DTYPE_F32, 0, codes_##type, values_##type, QB_DTYPE_##scale               \
    }
#define BOOK(name, id, book, type)                                                                           \
    {                                                                                                        \
        name, id, COLUMNS_##type, BYTES_##type, QB_DTYPE_COUNT, 4, 32, false, true, false,                   \
            QB_CODEBOOK_##book, codes_##type, values_##type, QB_DTYPE_F32                                    \
    }

static const qb_ggml_type types[] = {
    PLAIN("F32", 0, 4, QB_DTYPE_F32),
    PLAIN("F16", 1, 2, QB_DTYPE_F16),
    ZEROS("Q4_0", 2, 4, 32, q4_0, F16),
    OFFSETS("Q4_1", 3, 4, 32, q4_1, F16),
    LISTED("Q4_2", 4, 1, 0),
    LISTED("Q4_3", 5, 1, 0),
    ZEROS("Q5_0", 6, 5, 32, q5_0, F16),
    OFFSETS("Q5_1", 7, 5, 32, q5_1, F16),
    ZEROS("Q8_0", 8, 8, 32, q8_0, F16),
    LISTED("Q8_1", 9, 32, 36),
    OFFSETS("Q2_K", 10, 2, 16, q2_k, F32),
    ZEROS("Q3_K", 11, 3, 16, q3_k, F32),
    OFFSETS("Q4_K", 12, 4, 32, q4_k, F32),
    OFFSETS("Q5_K", 13, 5, 32, q5_k, F32),
    ZEROS("Q6_K", 14, 6, 16, q6_k, F32),
    LISTED("Q8_K", 15, 256, 292),
    LISTED("IQ2_XXS", 16, 256, 66),
    LISTED("IQ2_XS", 17, 256, 74),
    LISTED("IQ3_XXS", 18, 256, 98),
    LISTED("IQ1_S", 19, 256, 50),
    BOOK("IQ4_NL", 20, IQ4_NL, q4_0),
    LISTED("IQ3_S", 21, 256, 110),
    LISTED("IQ2_S", 22, 256, 82),
    BOOK("IQ4_XS", 23, IQ4_NL, iq4_xs),
    PLAIN("I8", 24, 1, QB_DTYPE_I8),
    PLAIN("I16", 25, 2, QB_DTYPE_I16),
    PLAIN("I32", 26, 4, QB_DTYPE_I32),
    PLAIN("I64", 27, 8, QB_DTYPE_I64),
    PLAIN("F64", 28, 8, QB_DTYPE_F64),
    LISTED("IQ1_M", 29, 256, 56),
    PLAIN("BF16", 30, 2, QB_DTYPE_BF16),
    LISTED("Q4_0_4_4", 31, 1, 0),
    LISTED("Q4_0_4_8", 32, 1, 0),
    LISTED("Q4_0_8_8", 33, 1, 0),
    LISTED("TQ1_0", 34, 256, 54),
    LISTED("TQ2_0", 35, 256, 66),
    LISTED("IQ4_NL_4_4", 36, 1, 0),
    LISTED("IQ4_NL_4_8", 37, 1, 0),
    LISTED("IQ4_NL_8_8", 38, 1, 0),
    BOOK("MXFP4", 39, E2M1, mxfp4),
    LISTED("NVFP4", 40, 64, 36),
    LISTED("Q1_0", 41, 128, 18),
};
enum { N_TYPES = sizeof types / sizeof types[0], TASK_BYTES = 128 * 1024, AHEAD_BYTES = 12288 };

const qb_ggml_type *qb_ggml_type_at(size_t index) {
    return index < N_TYPES ? &types[index] : NULL;
}

const qb_ggml_type *qb_ggml_type_find(uint32_t id) {
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

bool qb_ggml_type_is_packed(const qb_ggml_type *t) {
    return t->bits > 0;
}

bool qb_ggml_type_is_blocks(const qb_ggml_type *t) {
    return t->dtype == QB_DTYPE_COUNT;
}

const char *qb_ggml_packed_names(char buffer[160]) {
    size_t used = 0;
    buffer[0] = 0;
    for (size_t i = 0; i < N_TYPES && used < 160; i++)
        if (qb_ggml_type_is_packed(&types[i]))
            used += (size_t)snprintf(buffer + used, 160 - used, "%s%s", used ? ", " : "", types[i].name);
    return buffer;
}

/* ---- reading ---- */

static qb_status check_finite(const qb_ggml_type *t, const float *values, int64_t n, const char *what) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return qb_fail(QB_ERR_NUMERIC, "%s %" PRId64 " of the %s blocks is %s: the file is damaged", what,
                           i, t->name, isnan(values[i]) ? "NaN" : "infinite");
    return QB_OK;
}

typedef struct {
    const qb_ggml_matrix *m;
    qb_qweight *q;
    float *scales;
    atomic_bool damaged;
} values_job;

static const uint8_t *row_at(const qb_ggml_matrix *m, int64_t row) {
    return m->blocks + (m->row_of ? m->row_of(m->ctx, row) : row) * (m->cols / m->type->block_columns) *
                           m->type->block_bytes;
}

/* Where block `block` of all rows' puts its values. */
static qb_block_values values_at(const values_job *j, int64_t block) {
    const qb_ggml_type *t = j->m->type;
    const qb_qweight *q = j->q;
    const int64_t at = block * (t->block_columns / t->group_size);
    if (!t->has_factors)
        return (qb_block_values){.scales = j->scales + at,
                                 .offsets = t->has_offsets ? q->offsets + at : NULL};
    return (qb_block_values){.scales = q->scale_factors.outer + block,
                             .inner_scales = q->scale_factors.inner + at,
                             .offsets = t->has_offsets ? q->offset_factors.outer + block : NULL,
                             .inner_offsets = t->has_offsets ? q->offset_factors.inner + at : NULL};
}

/* Blocks are read by a few bytes of each cache line for the first time here, and no machine looks ahead
   across pages by itself. */
static void ask_for(const uint8_t *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
}

/* Products with a byte are finite where what is times it is. */
static void read_values(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    values_job *j = ctx;
    const qb_ggml_type *t = j->m->type;
    const int64_t blocks = j->m->cols / t->block_columns;
    const int64_t n = t->has_factors ? blocks : j->m->cols / t->group_size;
    const int64_t row_bytes = blocks * t->block_bytes, ahead = 1 + AHEAD_BYTES / row_bytes;
    for (int64_t r = begin; r < end; r++) {
        const uint8_t *from = row_at(j->m, r);
        if (r + ahead < j->m->rows) ask_for(row_at(j->m, r + ahead), row_bytes);
        const qb_block_values first = values_at(j, r * blocks);
        t->values(from, blocks, &first);
        if (!qb_all_finite(first.scales, n) || (first.offsets && !qb_all_finite(first.offsets, n)))
            atomic_store(&j->damaged, true);
    }
}

static qb_status alloc_form(const qb_ggml_matrix *m, qb_qweight *out) {
    const qb_ggml_type *t = m->type;
    char known[160];
    *out = (qb_qweight){0};
    if (!qb_ggml_type_is_packed(t))
        return qb_fail(QB_ERR_UNSUPPORTED, "type %s is not supported (supported: F32, F16, BF16, %s)",
                       t->name, qb_ggml_packed_names(known));
    if (m->cols % t->block_columns)
        return qb_fail(QB_ERR_FORMAT, "%" PRId64 " columns are no whole number of %s blocks of %d", m->cols,
                       t->name, t->block_columns);
    qb_status st;
    if (t->has_book)
        QB_TRY(st, qb_qweight_form_codebook(m->rows, m->cols, t->book, t->group_size, false, out));
    else
        QB_TRY(st, qb_qweight_form_affine(m->rows, m->cols, t->bits, t->group_size, out));
    out->scale_dtype = t->scale_dtype;
    out->symmetric = !t->has_offsets && !t->has_book;
    if (t->has_factors)
        return qb_qweight_alloc_factors(out, t->block_columns / t->group_size, t->has_offsets);
    st = qb_qweight_alloc_values(out, t->has_offsets);
out:
    return st;
}

qb_status qb_ggml_values(qb_threads *threads, const qb_ggml_matrix *m, qb_qweight *out) {
    const qb_ggml_type *t = m->type;
    values_job j = {.m = m, .q = out};
    qb_status st;
    QB_TRY(st, alloc_form(m, out));
    j.scales = t->has_book ? out->absmax : out->scales;
    /* Two that read within one piece that the system maps at once would both wait for it. */
    const int64_t row_bytes = m->cols / t->block_columns * t->block_bytes;
    qb_parallel_for(threads, m->rows, 1 + TASK_BYTES / row_bytes, read_values, &j);
    if (!atomic_load(&j.damaged)) return QB_OK;
    const qb_block_values all = values_at(&j, 0);
    const int64_t n = m->rows * (m->cols / (t->has_factors ? t->block_columns : t->group_size));
    st = check_finite(t, all.scales, n, "scale");
    if (st == QB_OK && all.offsets) st = check_finite(t, all.offsets, n, "minimum");
out:
    qb_qweight_free(out);
    return st;
}

void qb_ggml_codes(const qb_ggml_matrix *m, int64_t first, int64_t n, uint8_t *codes) {
    const int64_t blocks = m->cols / m->type->block_columns;
    for (int64_t r = 0; r < n; r++) m->type->codes(row_at(m, first + r), blocks, codes + r * m->cols);
}

/* A matrix that lies as long as what is read from it. */
typedef struct {
    qb_code_source base;
    const qb_ggml_matrix *m;
} matrix_source;

static void read_source(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes) {
    qb_ggml_codes(((const matrix_source *)from)->m, first, n, codes);
}

static void free_source(qb_code_source *from) {
    qb_free(from);
}

qb_status qb_ggml_read(qb_threads *threads, const qb_ggml_matrix *m, qb_qweight *out) {
    matrix_source *source;
    qb_status st = qb_ggml_values(threads, m, out);
    if (st != QB_OK) return st;
    QB_TRY(st, qb_alloc(1, sizeof *source, &source));
    *source = (matrix_source){{read_source, free_source}, m};
    out->source = &source->base;
    st = qb_qweight_complete(out, threads);
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}
