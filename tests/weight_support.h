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
    bool factored;          /* scales and offsets are small whole numbers times a float16 of 256 columns */
    double packed_bits;     /* a weight takes in memory, where that is not what it takes in a file */
} format;

/* Group values of one float16 of either sign times whole numbers from `least` on, a row of `groups`,
 * 256 / group_size a float16. */
static inline void factored_values(float *values, int64_t groups, int64_t group_size, float middle, int least,
                                   int most) {
    float outer = 0;
    for (int64_t g = 0; g < groups; g++) {
        if (g % (256 / group_size) == 0)
            outer = qb_f32_of_f16(qb_f16_of_f32(middle / 32 * (1 + 0.3f * noise())));
        values[g] = outer * (float)(least + (int)((noise_u32() >> 8) % (uint32_t)(most - least + 1)));
    }
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
        for (int64_t r = 0; f->factored && r < rows; r++) {
            const bool flip = f->any_sign && r % 2;
            /* what the K types of so many bits have */
            const int least = f->bits == 3 ? -32 : f->bits == 6 ? -128 : 0;
            const int most = f->bits == 2 ? 15 : f->bits == 3 ? 31 : f->bits == 6 ? 127 : 63;
            factored_values(q->scales + r * q->n_groups, q->n_groups, group, flip ? -0.01f : 0.01f, least,
                            flip && f->bits == 6 ? 126 : most);
            if (f->offsets)
                factored_values(q->offsets + r * q->n_groups, q->n_groups, group,
                                -0.01f * (float)(1 << (f->bits - 1)), 0, f->bits == 2 ? 15 : 63);
        }
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
