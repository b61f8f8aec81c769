/* Element types that are kept as float32 here: float64, and E4M3 (fp8) with the scales beside it, as
   DeepSeek's files, transformers' fp8 and compressed-tensors' float-quantized have them. */
#include "checkpoint/state.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { USUAL_BLOCK = 128 };

void qb_tensor_prepare_widening(qb_tensor_state *t) {
    t->stored_bytes = t->tensor.bytes;
    if (t->tensor.dtype == QB_DTYPE_F64) {
        t->stored = QB_STORED_F64;
        t->tensor.bytes /= 2;
    } else if (!strcmp(t->dtype_name, "F8_E4M3") && t->tensor.bytes <= INT64_MAX / 4) {
        t->stored = QB_STORED_E4M3;
        t->tensor.bytes *= 4;
    } else {
        return;
    }
    t->tensor.dtype = QB_DTYPE_F32;
}

float qb_f32_of_e4m3(uint8_t b) {
    int exponent = b >> 3 & 15, mantissa = b & 7;
    float magnitude = exponent == 15 && mantissa == 7 ? (float)NAN
                      : exponent == 0                 ? (float)mantissa * 0x1p-9f
                                                      : ldexpf((float)(8 + mantissa), exponent - 10);
    return b & 0x80 ? -magnitude : magnitude;
}

static qb_status narrow_doubles(const qb_checkpoint *ck, const qb_tensor_state *t, const void *raw,
                                float *out) {
    for (int64_t i = 0; i < t->tensor.bytes / 4; i++) {
        double v;
        memcpy(&v, (const uint8_t *)raw + 8 * i, 8);
        out[i] = (float)v;
        if (isfinite(v) && !isfinite(out[i]))
            return qb_fail(QB_ERR_NUMERIC, "%s: tensor %.200s: element %" PRId64 ", %g, is beyond float32",
                           ck->dir, t->tensor.name, i, v);
    }
    return QB_OK;
}

/* ---- fp8 ---- */

/* Rows and columns of which one scale holds. */
typedef struct {
    const qb_tensor_state *tensor; /* NULL: none */
    int64_t block_rows, block_cols, across;
} scale_grid;

static void configured_block(const qb_checkpoint *ck, int64_t block[2]) {
    const qb_json *size = qb_json_get(qb_json_get(ck->config, "quantization_config"), "weight_block_size");
    const qb_json *first = qb_json_first(size), *second = first ? qb_json_next(first) : NULL;
    double rows = qb_json_number(first), cols = second ? qb_json_number(second) : 0;
    bool sane = rows >= 1 && rows <= INT32_MAX && cols >= 1 && cols <= INT32_MAX;
    block[0] = sane ? (int64_t)rows : USUAL_BLOCK;
    block[1] = sane ? (int64_t)cols : USUAL_BLOCK;
}

static qb_status find_scales(const qb_checkpoint *ck, const qb_tensor_state *t, scale_grid *out) {
    static const char *const ends[] = {"_scale_inv", "_scale"};
    char name[QB_TENSOR_NAME_MAX], found[160], shape[128];
    const qb_tensor *s = NULL;
    for (int i = 0; i < 2 && !s; i++) {
        int n = snprintf(name, sizeof name, "%s%s", t->tensor.name, ends[i]);
        if (n < (int)sizeof name) s = qb_checkpoint_find(ck, name);
    }
    *out = (scale_grid){.block_rows = INT64_MAX, .block_cols = INT64_MAX, .across = 1};
    if (!s) return QB_OK;
    out->tensor = &ck->tensors[s->index];
    int64_t rows = t->tensor.shape[0], cols = t->tensor.n_dims == 2 ? t->tensor.shape[1] : 1, block[2];
    int64_t n =
        s->dtype == QB_DTYPE_COUNT ? 0 : out->tensor->stored_bytes / (int64_t)qb_dtype_bytes(s->dtype);
    configured_block(ck, block);
    bool floats = (s->dtype == QB_DTYPE_F32 || s->dtype == QB_DTYPE_F16 || s->dtype == QB_DTYPE_BF16) &&
                  out->tensor->stored == QB_STORED_AS_IS && !out->tensor->fill;
    bool column =
        s->n_dims >= 1 && s->shape[0] == rows && (s->n_dims == 1 || (s->n_dims == 2 && s->shape[1] == 1));
    bool blocks = s->n_dims == 2 && s->shape[0] == (rows + block[0] - 1) / block[0] &&
                  s->shape[1] == (cols + block[1] - 1) / block[1];
    if (floats && n == 1) return QB_OK;
    if (floats && t->tensor.n_dims == 2 && column) {
        out->block_rows = 1;
        return QB_OK;
    }
    if (floats && t->tensor.n_dims == 2 && blocks) {
        *out = (scale_grid){out->tensor, block[0], block[1], s->shape[1]};
        return QB_OK;
    }
    return qb_fail(
        QB_ERR_UNSUPPORTED,
        "%s: tensor %.200s: scales %s for %s %s are not understood (expected one float, one a row, "
        "or one a block of %" PRId64 " by %" PRId64 ")",
        ck->dir, s->name, qb_tensor_describe(ck, s, found), t->dtype_name,
        qb_shape_text(t->tensor.n_dims, t->tensor.shape, shape), block[0], block[1]);
}

/* Codes without their scales are other weights. A file that names no method holds them as values of their
 * own. */
qb_status qb_checkpoint_check_scales(const qb_checkpoint *ck) {
    if (!qb_json_is_object(qb_json_get(ck->config, "quantization_config"))) return QB_OK;
    for (size_t i = 0; i < ck->n_tensors; i++) {
        const qb_tensor_state *t = &ck->tensors[i];
        scale_grid grid;
        if (t->stored != QB_STORED_E4M3 || t->tensor.n_dims != 2) continue;
        qb_status st = find_scales(ck, t, &grid);
        if (st != QB_OK) return st;
        if (!grid.tensor)
            return qb_fail(
                QB_ERR_FORMAT,
                "%s: tensor %.200s is %s, and neither %.200s_scale_inv nor %.200s_scale is there: its "
                "codes are no weights without (is a shard missing?)",
                ck->dir, t->tensor.name, t->dtype_name, t->tensor.name, t->tensor.name);
    }
    return QB_OK;
}

static qb_status widen_e4m3(const qb_checkpoint *ck, const qb_tensor_state *t, const void *raw, float *out) {
    float table[256];
    scale_grid grid;
    qb_status st = find_scales(ck, t, &grid);
    if (st != QB_OK) return st;
    for (int i = 0; i < 256; i++) table[i] = qb_f32_of_e4m3((uint8_t)i);
    int64_t cols = t->tensor.n_dims ? t->tensor.shape[t->tensor.n_dims - 1] : 1;
    const uint8_t *codes = raw, *scales = grid.tensor ? grid.tensor->mapped : NULL;
    qb_dtype dtype = grid.tensor ? grid.tensor->tensor.dtype : QB_DTYPE_F32;
    for (int64_t i = 0; st == QB_OK && i < t->tensor.bytes / 4; i++) {
        float scale = 1.0f;
        if (scales) {
            int64_t at = i / cols / grid.block_rows * grid.across + i % cols / grid.block_cols;
            st = qb_to_f32(dtype, scales + at * (int64_t)qb_dtype_bytes(dtype), 1, &scale);
        }
        out[i] = table[codes[i]] * scale;
    }
    return st;
}

qb_status qb_tensor_widen(const qb_checkpoint *ck, const qb_tensor_state *t, const void *raw, float *out) {
    return t->stored == QB_STORED_F64 ? narrow_doubles(ck, t, raw, out) : widen_e4m3(ck, t, raw, out);
}
