#include "kernels/qweight.h"

#include "base/memory.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* bitsandbytes' tables by code (docs/formats.md): NF4 holds the quantiles of a normal distribution scaled to
   [-1, 1]; FP4 is sign, two exponent bits and one mantissa bit, scaled so that its largest value is 1. */
static const float nf4_table[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};
static const float fp4_table[16] = {
    0.0f, 0.005208333333f,  0.66666667f,  1.0f,  0.33333333f,  0.5f,  0.16666667f,  0.25f,
    0.0f, -0.005208333333f, -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f,
};

/* ggml-common.h's kvalues_iq4nl, and twice the values of E2M1 (kvalues_mxfp4), whose scale is halved. */
static const float iq4_nl_table[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113};
static const float e2m1_table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static const struct {
    const char *name;
    const float *table;
} codebooks[QB_CODEBOOK_COUNT] = {[QB_CODEBOOK_NF4] = {"nf4", nf4_table},
                                  [QB_CODEBOOK_FP4] = {"fp4", fp4_table},
                                  [QB_CODEBOOK_IQ4_NL] = {"iq4_nl", iq4_nl_table},
                                  [QB_CODEBOOK_E2M1] = {"e2m1", e2m1_table}};

const float *qb_codebook_table(qb_codebook codebook) {
    return codebooks[codebook].table;
}
const char *qb_codebook_name(qb_codebook codebook) {
    return codebooks[codebook].name;
}

/* Boundary i of `steps` evenly spaced values from 0.1 to 1 in float32, as the original's array library
   computes them: counted from the nearer end, with a fused multiply-add. */
static float boundary(int i, int steps) {
    float step = (1.0f - 0.1f) / (float)(steps - 1);
    return i < steps / 2 ? fmaf(step, (float)i, 0.1f) : fmaf(-step, (float)(steps - 1 - i), 1.0f);
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float dynamic_map[256];
static pthread_once_t dynamic_map_once = PTHREAD_ONCE_INIT;

/* For each decade 10^(i-6), i = 0..6, the midpoints of 2^i equal parts of [0.1, 1], both signs; then 0 and 1.
 */
static void make_dynamic_map(void) {
    static const double decades[7] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
    int n = 0;
    for (int i = 0; i < 7; i++) {
        int parts = 1 << i;
        float decade = (float)decades[i];
        for (int j = 0; j < parts; j++) {
            float middle = (boundary(j, parts + 1) + boundary(j + 1, parts + 1)) / 2.0f;
            dynamic_map[n++] = decade * middle;
            dynamic_map[n++] = -decade * middle;
        }
    }
    dynamic_map[n++] = 0.0f;
    dynamic_map[n++] = 1.0f;
    qsort(dynamic_map, (size_t)n, sizeof dynamic_map[0], ascending);
}

const float *qb_dynamic_map(void) {
    pthread_once(&dynamic_map_once, make_dynamic_map);
    return dynamic_map;
}

static qb_status check_shape(int64_t rows, int64_t cols) {
    if (rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "quantized weight of shape [%lld, %lld]: both must be 1 .. 2147483647",
                       (long long)rows, (long long)cols);
    return QB_OK;
}

/* Where they are many, small pages take the system as long as what is written there takes us. */
static qb_status alloc_many(size_t count, size_t size, void *out_pointer) {
    void **out = out_pointer;
    qb_status st = qb_alloc(count, size, out);
    if (st == QB_OK) qb_ask_huge_pages(*out, (int64_t)(count * size));
    return st;
}

/* ---- form and arrays ---- */

qb_status qb_qweight_form_affine(int64_t rows, int64_t cols, int bits, int64_t group_size, qb_qweight *out) {
    *out = (qb_qweight){0};
    qb_status st = check_shape(rows, cols);
    if (st != QB_OK) return st;
    if (bits < 2 || bits > 8 || bits == 7)
        return qb_fail(QB_ERR_UNSUPPORTED, "%d bits a weight; 2, 3, 4, 5, 6 and 8 are supported", bits);
    if (group_size < 1 || group_size > cols)
        return qb_fail(QB_ERR_UNSUPPORTED, "group size %lld for rows of %lld columns; expected 1 .. %lld",
                       (long long)group_size, (long long)cols, (long long)cols);
    *out = (qb_qweight){.coding = QB_CODING_AFFINE,
                        .rows = rows,
                        .cols = cols,
                        .bits = bits,
                        .group_size = group_size,
                        .n_groups = (cols + group_size - 1) / group_size,
                        .scale_dtype = QB_DTYPE_F16};
    return QB_OK;
}

qb_status qb_qweight_form_codebook(int64_t rows, int64_t cols, qb_codebook codebook, int64_t block_size,
                                   bool double_quant, qb_qweight *out) {
    *out = (qb_qweight){0};
    qb_status st = check_shape(rows, cols);
    if (st != QB_OK) return st;
    if (block_size < 32 || block_size > 4096 || (block_size & (block_size - 1)))
        return qb_fail(QB_ERR_UNSUPPORTED, "block size %lld; expected a power of two, 32 .. 4096",
                       (long long)block_size);
    *out = (qb_qweight){.coding = QB_CODING_CODEBOOK,
                        .rows = rows,
                        .cols = cols,
                        .bits = 4,
                        .codebook = codebook,
                        .block_size = block_size,
                        .n_blocks = (rows * cols + block_size - 1) / block_size,
                        .double_quant = double_quant,
                        .source_dtype = QB_DTYPE_F16};
    return QB_OK;
}

static int64_t nested_of(const qb_qweight *q) {
    return (q->n_blocks + QB_NESTED_BLOCK - 1) / QB_NESTED_BLOCK;
}

qb_status qb_qweight_alloc_values(qb_qweight *q, bool with_offsets) {
    qb_status st;
    if (q->coding == QB_CODING_AFFINE) {
        size_t groups = (size_t)q->rows * (size_t)q->n_groups;
        QB_TRY(st, alloc_many(groups, sizeof *q->scales, &q->scales));
        if (with_offsets)
            QB_TRY(st, alloc_many(groups, sizeof *q->offsets, &q->offsets));
        else if (!q->symmetric)
            QB_TRY(st, alloc_many(groups, 1, &q->zeros));
        return QB_OK;
    }
    QB_TRY(st, alloc_many((size_t)q->n_blocks, sizeof *q->absmax, &q->absmax));
    if (!q->double_quant) return QB_OK;
    QB_TRY(st, alloc_many((size_t)q->n_blocks, 1, &q->absmax_codes));
    st = qb_alloc((size_t)nested_of(q), sizeof *q->nested_absmax, &q->nested_absmax);
out:
    return st;
}

static void clear(void *array, int64_t n, size_t size) {
    if (array) memset(array, 0, (size_t)n * size);
}

/* A weight of q's form with codes to be filled and the rest cleared; freed on an error. */
static qb_status alloc_whole(qb_qweight *q, bool with_offsets, bool with_g_idx) {
    qb_status st;
    QB_TRY(st, alloc_many((size_t)q->rows * (size_t)q->cols, 1, &q->codes));
    QB_TRY(st, qb_qweight_alloc_values(q, with_offsets));
    if (with_g_idx) QB_TRY(st, qb_alloc_zero((size_t)q->cols, sizeof *q->g_idx, &q->g_idx));
    clear(q->scales, q->rows * q->n_groups, sizeof *q->scales);
    clear(q->offsets, q->rows * q->n_groups, sizeof *q->offsets);
    clear(q->zeros, q->rows * q->n_groups, 1);
    clear(q->absmax, q->n_blocks, sizeof *q->absmax);
    clear(q->absmax_codes, q->n_blocks, 1);
    clear(q->nested_absmax, nested_of(q), sizeof *q->nested_absmax);
    return QB_OK;
out:
    qb_qweight_free(q);
    return st;
}

static qb_status alloc_affine(int64_t rows, int64_t cols, int bits, int64_t group_size, bool with_offsets,
                              bool with_g_idx, qb_qweight *out) {
    qb_status st = qb_qweight_form_affine(rows, cols, bits, group_size, out);
    return st == QB_OK ? alloc_whole(out, with_offsets, with_g_idx) : st;
}

qb_status qb_qweight_alloc_affine(int64_t rows, int64_t cols, int bits, int64_t group_size, bool with_g_idx,
                                  qb_qweight *out) {
    return alloc_affine(rows, cols, bits, group_size, false, with_g_idx, out);
}

qb_status qb_qweight_alloc_offsets(int64_t rows, int64_t cols, int bits, int64_t group_size,
                                   qb_qweight *out) {
    return alloc_affine(rows, cols, bits, group_size, true, false, out);
}

qb_status qb_qweight_alloc_codebook(int64_t rows, int64_t cols, qb_codebook codebook, int64_t block_size,
                                    bool double_quant, qb_qweight *out) {
    qb_status st = qb_qweight_form_codebook(rows, cols, codebook, block_size, double_quant, out);
    return st == QB_OK ? alloc_whole(out, false, false) : st;
}

static qb_status alloc_factors_of(const qb_qweight *q, int groups, qb_factors *out) {
    size_t rows = (size_t)q->rows, n = (size_t)q->n_groups;
    qb_status st = alloc_many(rows * n, 1, &out->inner);
    return st == QB_OK ? alloc_many(rows * (n / (size_t)groups), sizeof *out->outer, &out->outer) : st;
}

qb_status qb_qweight_alloc_factors(qb_qweight *q, int groups, bool with_offsets) {
    if (q->coding != QB_CODING_AFFINE || groups < 1 || q->n_groups % groups)
        return qb_fail(QB_ERR_INTERNAL, "factors of %d groups each for %lld groups", groups,
                       (long long)q->n_groups);
    q->factor_groups = groups;
    qb_status st = alloc_factors_of(q, groups, &q->scale_factors);
    return st == QB_OK && with_offsets ? alloc_factors_of(q, groups, &q->offset_factors) : st;
}

void qb_qweight_free(qb_qweight *q) {
    if (!q) return;
    qb_free(q->codes);
    if (q->source) q->source->free(q->source);
    qb_free(q->scales);
    qb_free(q->zeros);
    qb_free(q->offsets);
    qb_free(q->scale_factors.inner);
    qb_free(q->scale_factors.outer);
    qb_free(q->offset_factors.inner);
    qb_free(q->offset_factors.outer);
    qb_free(q->g_idx);
    qb_free(q->absmax);
    qb_free(q->absmax_codes);
    qb_free(q->nested_absmax);
    *q = (qb_qweight){0};
}

void qb_weight_free(qb_weight *w) {
    if (!w) return;
    qb_qweight_free(w->packed);
    qb_free(w->packed);
    qb_free(w->copy);
    *w = (qb_weight){0};
}

/* ---- what a reader left out ---- */

typedef struct {
    const qb_code_source *source;
    int64_t first, cols;
    uint8_t *codes;
} read_job;

static void read_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const read_job *j = ctx;
    j->source->read(j->source, j->first + begin, end - begin, j->codes + begin * j->cols);
}

const uint8_t *qb_qweight_rows(const qb_qweight *q, qb_threads *threads, int64_t first, int64_t n,
                               uint8_t *room) {
    if (q->codes) return q->codes + first * q->cols;
    read_job j = {q->source, first, q->cols, room};
    qb_parallel_for(threads, n, QB_SOURCE_ROWS, read_rows, &j);
    return room;
}

typedef struct {
    const qb_factors *factors;
    bool has_sign;
    int64_t groups; /* that share an outer factor */
    float *values;
} product_job;

/* Of outer factors begin .. end. */
static void multiply(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const product_job *j = ctx;
    const qb_factors *f = j->factors;
    for (int64_t i = begin; i < end; i++)
        for (int64_t g = i * j->groups; g < (i + 1) * j->groups; g++)
            j->values[g] = f->outer[i] * (float)(j->has_sign ? (int8_t)f->inner[g] : f->inner[g]);
}

static qb_status make_products(const qb_qweight *q, const qb_factors *f, bool has_sign, qb_threads *threads,
                               float **out) {
    enum { A_TASK = 2048 };
    const int64_t n = q->rows * q->n_groups;
    qb_status st = alloc_many((size_t)n, sizeof **out, out);
    if (st != QB_OK) return st;
    product_job j = {f, has_sign, q->factor_groups, *out};
    qb_parallel_for(threads, n / q->factor_groups, A_TASK, multiply, &j);
    return QB_OK;
}

qb_status qb_qweight_fill_values(qb_qweight *q, qb_threads *threads) {
    const size_t n = (size_t)(q->rows * q->n_groups);
    qb_status st = QB_OK;
    if (q->coding != QB_CODING_AFFINE) return QB_OK;
    if (!q->scales) QB_TRY(st, make_products(q, &q->scale_factors, true, threads, &q->scales));
    if (!q->offsets && q->offset_factors.inner)
        QB_TRY(st, make_products(q, &q->offset_factors, false, threads, &q->offsets));
    if (!q->offsets && !q->zeros) {
        QB_TRY(st, alloc_many(n, 1, &q->zeros));
        memset(q->zeros, 1 << (q->bits - 1), n);
    }
out:
    return st;
}

qb_status qb_qweight_complete(qb_qweight *q, qb_threads *threads) {
    uint8_t *codes;
    qb_status st = qb_qweight_fill_values(q, threads);
    if (st == QB_OK && !q->codes) {
        QB_TRY(st, alloc_many((size_t)q->rows * (size_t)q->cols, 1, &codes));
        qb_qweight_rows(q, threads, 0, q->rows, codes);
        q->codes = codes;
        q->source->free(q->source);
        q->source = NULL;
    }
out:
    return st;
}

/* ---- rows ---- */

static qb_status alloc_like(const qb_qweight *q, int64_t rows, qb_qweight *out) {
    if (q->coding == QB_CODING_AFFINE)
        return alloc_affine(rows, q->cols, q->bits, q->group_size, q->offsets != NULL, q->g_idx != NULL, out);
    if (q->cols % q->block_size || q->double_quant)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "rows of a fused weight cannot be parted: %s (%lld columns, blocks of %lld)",
                       q->double_quant ? "its block scales are quantized across rows"
                                       : "its blocks do not end with the rows",
                       (long long)q->cols, (long long)q->block_size);
    return qb_qweight_alloc_codebook(rows, q->cols, q->codebook, q->block_size, false, out);
}

/* Row `from` of an array of `width` elements of `bytes` each, where both weights have it. */
static void copy_row(void *out, int64_t row, const void *in, int64_t from, int64_t width, size_t bytes) {
    size_t n = (size_t)width * bytes;
    if (in) memcpy((uint8_t *)out + (size_t)row * n, (const uint8_t *)in + (size_t)from * n, n);
}

static void copy_factors(const qb_qweight *q, const qb_factors *out, int64_t row, const qb_factors *in,
                         int64_t from) {
    copy_row(out->inner, row, in->inner, from, q->n_groups, 1);
    if (in->outer)
        copy_row(out->outer, row, in->outer, from, q->n_groups / q->factor_groups, sizeof *in->outer);
}

qb_status qb_qweight_take_rows(const qb_qweight *q, int64_t rows,
                               int64_t (*row_of)(const void *ctx, int64_t row), const void *ctx,
                               qb_qweight *out) {
    qb_status st = alloc_like(q, rows, out);
    if (st != QB_OK) return st;
    bool affine = q->coding == QB_CODING_AFFINE;
    int64_t blocks = affine ? 0 : q->cols / q->block_size, magnitudes = affine ? 1 : blocks;
    out->scale_dtype = q->scale_dtype;
    out->source_dtype = q->source_dtype;
    out->symmetric = q->symmetric;
    out->int8_rows = q->int8_rows;
    if (affine && q->absmax) st = qb_alloc((size_t)rows, sizeof *out->absmax, &out->absmax);
    if (st == QB_OK && q->factor_groups)
        st = qb_qweight_alloc_factors(out, q->factor_groups, q->offsets != NULL);
    if (st != QB_OK) {
        qb_qweight_free(out);
        return st;
    }
    if (q->g_idx) memcpy(out->g_idx, q->g_idx, (size_t)q->cols * sizeof *q->g_idx);
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = row_of(ctx, r);
        copy_row(out->codes, r, q->codes, from, q->cols, 1);
        copy_row(out->scales, r, q->scales, from, q->n_groups, sizeof *q->scales);
        copy_row(out->zeros, r, q->zeros, from, q->n_groups, 1);
        copy_row(out->offsets, r, q->offsets, from, q->n_groups, sizeof *q->offsets);
        copy_row(out->absmax, r, q->absmax, from, magnitudes, sizeof *q->absmax);
        copy_factors(out, &out->scale_factors, r, &q->scale_factors, from);
        copy_factors(out, &out->offset_factors, r, &q->offset_factors, from);
    }
    return QB_OK;
}

/* ---- scales ---- */

float qb_scale_as_stored(float scale) {
    float rounded = qb_f32_of_f16(qb_f16_of_f32(scale));
    return rounded != 0.0f || scale == 0.0f ? rounded : copysignf(QB_LEAST_SCALE, scale);
}

void qb_scales_as_stored(const float *scales, int64_t n, float *out) {
    enum { PIECE = 256 };
    uint16_t halves[PIECE];
    float rounded[PIECE];
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t count = n - at < PIECE ? n - at : PIECE;
        qb_f16_of_f32_many(scales + at, count, halves);
        qb_f32_of_f16_many(halves, count, rounded);
        for (int64_t i = 0; i < count; i++)
            out[at + i] = rounded[i] != 0.0f ? rounded[i] : qb_scale_as_stored(scales[at + i]);
    }
}

qb_status qb_qweight_round_scales(qb_qweight *q) {
    if (!qb_qweight_has_half_scales(q)) return QB_OK;
    for (int64_t r = 0; r < q->rows; r++) {
        float *scales = q->scales + r * q->n_groups;
        int64_t g = 0;
        while (g < q->n_groups && fabsf(scales[g]) < QB_LEAST_OVERFLOW) g++;
        if (g < q->n_groups)
            return qb_fail(QB_ERR_NUMERIC,
                           "scale %g of row %lld, group %lld does not fit float16 (largest 65504)",
                           (double)scales[g], (long long)r, (long long)g);
        qb_scales_as_stored(scales, q->n_groups, scales);
    }
    return QB_OK;
}

/* Without an end at each, so that many are looked at together. */
bool qb_qweight_zeros_in_middle(const qb_qweight *q) {
    const uint8_t middle = (uint8_t)(1 << (q->bits - 1));
    const int64_t n = q->rows * q->n_groups;
    uint8_t other = 0;
    if (!q->zeros) return q->symmetric;
    for (int64_t i = 0; i < n; i++) other |= q->zeros[i] ^ middle;
    return !other;
}

void qb_qweight_as_read(qb_qweight *q) {
    if (q->coding != QB_CODING_AFFINE || !q->zeros) return;
    bool natural = true;
    for (int64_t c = 0; q->g_idx && c < q->cols; c++) natural &= q->g_idx[c] == c / q->group_size;
    if (natural) {
        qb_free(q->g_idx);
        q->g_idx = NULL;
    }
    q->symmetric = qb_qweight_zeros_in_middle(q);
}

/* n columns of one group; the row's offset, where there is one. */
static void dequantize_group(const uint8_t *codes, int64_t n, float scale, int32_t zero, const float *offset,
                             float *out) {
    for (int64_t c = 0; c < n; c++) out[c] = scale * (float)((int32_t)codes[c] - zero);
    if (!offset) return;
    for (int64_t c = 0; c < n; c++) out[c] += *offset;
}

static void dequantize_affine(const qb_qweight *q, float *out) {
    for (int64_t r = 0; r < q->rows; r++) {
        for (int64_t c = 0, n; c < q->cols; c += n) {
            int64_t g = q->g_idx ? q->g_idx[c] : c / q->group_size, at = r * q->n_groups + g;
            n = q->g_idx ? 1 : q->cols - c < q->group_size ? q->cols - c : q->group_size;
            dequantize_group(q->codes + r * q->cols + c, n, q->scales[at], q->offsets ? 0 : q->zeros[at],
                             q->offsets ? &q->offsets[at] : NULL, out + r * q->cols + c);
        }
    }
}

void qb_qweight_dequantize(const qb_qweight *q, float *out) {
    if (q->coding == QB_CODING_AFFINE) {
        dequantize_affine(q, out);
        return;
    }
    const float *table = qb_codebook_table(q->codebook);
    const int64_t all = q->rows * q->cols;
    for (int64_t i = 0, b = 0; i < all; b++) {
        const int64_t end = all - i < q->block_size ? all : i + q->block_size;
        for (; i < end; i++) out[i] = table[q->codes[i] & 15] * q->absmax[b];
    }
}

/* Of 0 and b it is b. Neither below 0. */
static int64_t greatest_divisor(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int64_t qb_qweight_scale_cols(const qb_qweight *q) {
    return q->coding == QB_CODING_CODEBOOK ? greatest_divisor(q->cols, q->block_size) : q->group_size;
}

double qb_qweight_bits_per_weight(const qb_qweight *q) {
    double weights = (double)q->rows * (double)q->cols;
    double bits = weights * q->bits;
    if (q->coding == QB_CODING_AFFINE) {
        bits += (double)q->rows * (double)q->n_groups * (q->offsets || q->int8_rows ? 32 : 16 + q->bits);
        if (q->g_idx) bits += 32.0 * (double)q->cols;
    } else if (q->double_quant) {
        bits += 8.0 * (double)q->n_blocks;
        int64_t nested = (q->n_blocks + QB_NESTED_BLOCK - 1) / QB_NESTED_BLOCK;
        bits += 32.0 * (double)nested;
    } else {
        bits += 32.0 * (double)q->n_blocks;
    }
    return bits / weights;
}

const char *qb_qweight_describe(const qb_qweight *q, char buffer[48]) {
    if (q->coding == QB_CODING_CODEBOOK)
        snprintf(buffer, 48, "%s b%lld%s", qb_codebook_name(q->codebook), (long long)q->block_size,
                 q->double_quant ? " dq" : "");
    else if (q->int8_rows)
        snprintf(buffer, 48, "int8 rows");
    else if (q->group_size >= q->cols)
        snprintf(buffer, 48, "int%d per-channel %s%s", q->bits, q->symmetric ? "sym" : "asym",
                 q->g_idx ? " act-order" : "");
    else
        snprintf(buffer, 48, "int%d g%lld %s%s", q->bits, (long long)q->group_size,
                 q->symmetric ? "sym" : "asym", q->g_idx ? " act-order" : "");
    return buffer;
}
