/* Random quantized weights of the formats that the decode step's products read. */
#pragma once

#include "tests/kernels_support.h"

typedef struct {
    const char *name;
    int bits; /* 0: codebook */
    int64_t group;
    bool symmetric, act_order, offsets, double_quant;
} format;

/* Random codes and scales of about the size that a layer of `cols` inputs has. */
static inline qb_qweight *random_weight(const format *f, int64_t rows, int64_t cols, uint32_t seed) {
    qb_qweight *q;
    noise_state = seed;
    assert_ok(qb_alloc_zero(1, sizeof *q, &q));
    float size = 1.0f / sqrtf((float)cols);
    if (f->bits == 0) {
        assert_ok(qb_qweight_alloc_codebook(rows, cols, QB_CODEBOOK_NF4, f->group, f->double_quant, q));
        for (int64_t i = 0; i < q->n_blocks; i++) q->absmax[i] = size * (2.0f + noise());
        if (f->double_quant) {
            q->nested_offset = 2.0f * size;
            for (int64_t i = 0; i * QB_NESTED_BLOCK < q->n_blocks; i++) q->nested_absmax[i] = 0.5f * size;
            for (int64_t i = 0; i < q->n_blocks; i++) {
                q->absmax_codes[i] = (uint8_t)(noise_u32() >> 24);
                q->absmax[i] = qb_dynamic_map()[q->absmax_codes[i]] * q->nested_absmax[i / QB_NESTED_BLOCK] +
                               q->nested_offset;
            }
        }
    } else {
        assert_ok(f->offsets ? qb_qweight_alloc_offsets(rows, cols, f->bits, f->group, q)
                             : qb_qweight_alloc_affine(rows, cols, f->bits, f->group, f->act_order, q));
        float step = size * 4.0f / (float)(1 << f->bits);
        for (int64_t i = 0; i < rows * q->n_groups; i++) {
            q->scales[i] = step * (1.0f + 0.5f * noise());
            if (f->offsets)
                q->offsets[i] = -2.0f * size * (1.0f + 0.2f * noise());
            else
                q->zeros[i] = (uint8_t)(f->symmetric ? 1u << (f->bits - 1) : noise_u32() >> (32 - f->bits));
        }
        q->symmetric = f->symmetric;
        if (f->offsets) q->scale_dtype = QB_DTYPE_F32;
        if (f->act_order)
            for (int64_t i = 0; i < cols; i++) q->g_idx[i] = (int32_t)(i * 7 % cols / f->group);
        if (!f->offsets) assert_ok(qb_qweight_round_scales(q));
    }
    for (int64_t i = 0; i < rows * cols; i++)
        q->codes[i] = (uint8_t)(noise_u32() >> (32 - (f->bits ? f->bits : 4)));
    return q;
}

static const format formats[] = {
    {"int4 g32 sym", 4, 32, true, false, false, false},
    {"int4 g64", 4, 64, false, false, false, false},
    {"int3 g128", 3, 128, false, false, false, false},
    {"int2 g16", 2, 16, false, false, false, false},
    {"int8 g128 sym", 8, 128, true, false, false, false},
    {"int4 act-order", 4, 32, false, true, false, false},
    {"int5 offsets", 5, 32, false, false, true, false},
    {"nf4 b64", 0, 64, false, false, false, false},
    {"nf4 b64 dq", 0, 64, false, false, false, true},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };
