/* Random quantized weights of every format, for the tests of matmuls. */
#pragma once

#include "tests/kernels_support.h"

typedef struct {
    const char *name;
    int bits; /* 0: codebook */
    qb_codebook codebook;
    int64_t group; /* group or block size; 0: the whole row */
    bool symmetric, act_order, double_quant, odd_scales;
    bool offsets, any_sign; /* as GGUF's blocks have them */
    bool factored;          /* scales and offsets have factors, as the K types, where columns are whole 256 */
    double packed_bits;     /* a weight takes in memory, where that is not what it takes in a file */
} format;

/* n values of factors that `groups` share; a sign or none of the inner ones. */
static inline void values_of_factors(const qb_factors *f, int64_t n, int groups, bool has_sign,
                                     float *values) {
    for (int64_t g = 0; g < n; g++)
        values[g] = f->outer[g / groups] * (float)(has_sign ? (int8_t)f->inner[g] : f->inner[g]);
}

/* The scales and offsets of a weight with factors. */
static inline void set_values_of_factors(qb_qweight *q) {
    const int64_t n = q->rows * q->n_groups;
    values_of_factors(&q->scale_factors, n, q->factor_groups, true, q->scales);
    if (q->offsets) values_of_factors(&q->offset_factors, n, q->factor_groups, false, q->offsets);
}

/* Of row `row`: float16 near `middle` / 32, and whole numbers from `least` on. */
static inline void random_factors(const qb_qweight *q, const qb_factors *f, int64_t row, float middle,
                                  int least, int most) {
    const int64_t n = q->n_groups, supers = n / q->factor_groups;
    for (int64_t s = 0; s < supers; s++)
        f->outer[row * supers + s] = qb_f32_of_f16(qb_f16_of_f32(middle / 32 * (1 + 0.3f * noise())));
    for (int64_t g = 0; g < n; g++)
        f->inner[row * n + g] = (uint8_t)(least + (int)((noise_u32() >> 8) % (uint32_t)(most - least + 1)));
}

/* Free with qb_qweight_free and qb_free, or as a qb_weight's `packed`. */
static inline qb_qweight *weight_new(const format *f, int64_t rows, int64_t cols) {
    qb_qweight *q;
    assert_ok(qb_alloc_zero(1, sizeof *q, &q));
    if (f->bits) {
        int64_t group = f->group && f->group < cols ? f->group : cols;
        if (f->offsets)
            assert_ok(qb_qweight_alloc_offsets(rows, cols, f->bits, group, q));
        else
            assert_ok(qb_qweight_alloc_affine(rows, cols, f->bits, group, f->act_order, q));
        q->symmetric = f->symmetric;
        for (int64_t i = 0; i < rows * q->n_groups; i++) {
            q->scales[i] = 0.01f + 0.001f * noise();
            if (f->any_sign && noise() < 0) q->scales[i] = -q->scales[i];
            if (f->offsets)
                q->offsets[i] = -q->scales[i] * (float)(1 << (f->bits - 1)) * (1 + 0.3f * noise());
            if (f->offsets && !f->odd_scales) q->offsets[i] = qb_f32_of_f16(qb_f16_of_f32(q->offsets[i]));
            if (!f->offsets)
                q->zeros[i] = (uint8_t)(f->symmetric ? 1 << (f->bits - 1)
                                                     : (int)(noise_u32() >> 8 & ((1u << f->bits) - 1)));
        }
        const bool factored = f->factored && cols % 256 == 0;
        if (factored) assert_ok(qb_qweight_alloc_factors(q, (int)(256 / group), q->offsets != NULL));
        for (int64_t r = 0; factored && r < rows; r++) {
            const bool flip = f->any_sign && r % 2;
            /* what the K types of so many bits have */
            const int least = f->bits == 3 ? -32 : f->bits == 6 ? -128 : 0;
            const int most = f->bits == 2 ? 15 : f->bits == 3 ? 31 : f->bits == 6 ? 127 : 63;
            random_factors(q, &q->scale_factors, r, flip ? -0.01f : 0.01f, least, most);
            if (f->offsets)
                random_factors(q, &q->offset_factors, r, -0.01f * (float)(1 << (f->bits - 1)), 0,
                               f->bits == 2 ? 15 : 63);
        }
        if (factored) set_values_of_factors(q);
        if (!f->odd_scales && !f->factored) assert_ok(qb_qweight_round_scales(q));
        /* A permutation cut into groups, as act-order gives. */
        for (int64_t c = 0; f->act_order && c < cols; c++) q->g_idx[c] = (int32_t)(c / group);
        for (int64_t c = cols - 1; f->act_order && c > 0; c--) {
            int64_t other = noise_u32() % (uint32_t)(c + 1);
            int32_t keep = q->g_idx[c];
            q->g_idx[c] = q->g_idx[other], q->g_idx[other] = keep;
        }
    } else {
        assert_ok(qb_qweight_alloc_codebook(rows, cols, f->codebook, f->group, f->double_quant, q));
        q->nested_offset = 0.02f;
        for (int64_t b = 0; b < q->n_blocks; b++) {
            q->absmax[b] = 0.03f + 0.02f * noise();
            if (!f->double_quant) continue;
            q->absmax_codes[b] = (uint8_t)(noise_u32() >> 24);
            if (b % QB_NESTED_BLOCK == 0) q->nested_absmax[b / QB_NESTED_BLOCK] = 0.01f + 0.005f * noise();
            q->absmax[b] = qb_dynamic_map()[q->absmax_codes[b]] * q->nested_absmax[b / QB_NESTED_BLOCK] +
                           q->nested_offset;
        }
    }
    unsigned mask = f->bits ? (1u << f->bits) - 1 : 15;
    for (int64_t i = 0; i < rows * cols; i++) q->codes[i] = (uint8_t)(noise_u32() >> 16 & mask);
    return q;
}

/* What a reader leaves of a weight: codes in a source, of factored values the factors alone. */
typedef struct {
    qb_code_source base;
    uint8_t *codes;
    int64_t cols;
} left_codes;

static inline void left_read(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes) {
    const left_codes *left = (const left_codes *)from;
    memcpy(codes, left->codes + first * left->cols, (size_t)(n * left->cols));
}

static inline void left_free(qb_code_source *from) {
    qb_free(((left_codes *)from)->codes);
    qb_free(from);
}

static inline void weight_leave(qb_qweight *q) {
    left_codes *left;
    assert_ok(qb_alloc(1, sizeof *left, &left));
    *left = (left_codes){{left_read, left_free}, q->codes, q->cols};
    q->codes = NULL;
    q->source = &left->base;
    if (!q->factor_groups) return;
    qb_free(q->scales), qb_free(q->offsets);
    q->scales = q->offsets = NULL;
}
