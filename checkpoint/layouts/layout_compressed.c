/* compressed-tensors checkpoints in the format pack-quantized: weight_packed [out, in*bits/32] along the
   inputs, weight_scale [out, groups], weight_zero_point packed along the outputs, weight_shape, weight_g_idx.
   Codes are signed and stored with 2^(bits-1) added, as zeros are, so that both read as unsigned. Format:
   compressed-tensors compressors/pack_quantized; docs/formats.md. */
#include "base/memory.h"
#include "checkpoint/layouts/bitpack.h"
#include "checkpoint/layouts/layout_rows.h"
#include "checkpoint/layouts/read_parts.h"
#include "checkpoint/state.h"

#include <inttypes.h>
#include <string.h>

static bool present(const qb_checkpoint *ck, const char *module) {
    return qb_module_tensor_find(ck, module, "weight_packed") != NULL;
}

static int64_t words_of(int64_t n, int bits) {
    return (n * bits + 31) / 32;
}

/* weight_shape says what the padding of the last word hides; it must be what the config wants. */
static qb_status check_shape(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols) {
    const qb_tensor *t;
    const void *bytes;
    qb_status st;
    QB_TRY(st, qb_module_tensor(ck, module, "weight_shape", &t));
    qb_dtype dtype = t->dtype == QB_DTYPE_I32 ? QB_DTYPE_I32 : QB_DTYPE_I64;
    QB_TRY(st, qb_tensor_expect(ck, t, dtype, 1, (int64_t[]){2}));
    QB_TRY(st, qb_checkpoint_acquire(ck, t, &bytes));
    int64_t found[2];
    for (int d = 0; d < 2; d++)
        found[d] = dtype == QB_DTYPE_I32 ? ((const int32_t *)bytes)[d] : ((const int64_t *)bytes)[d];
    qb_checkpoint_release(ck, t);
    if (found[0] != rows || found[1] != cols)
        st = qb_fail(QB_ERR_FORMAT,
                     "%s: tensor %.200s says [%" PRId64 ", %" PRId64 "], expected [%" PRId64 ", %" PRId64
                     "] from the model's config",
                     ck->dir, t->name, found[0], found[1], rows, cols);
out:
    return st;
}

static void word_codes(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes) {
    const qb_tensor_codes *c = (const qb_tensor_codes *)from;
    const uint32_t *words = c->bytes;
    const int64_t row_words = words_of(c->cols, c->bits);
    for (int64_t r = 0; r < n; r++)
        qb_bits_unpack(words + (first + r) * row_words, c->cols, c->bits, codes + r * c->cols);
}

/* words [ceil(rows * bits / 32), groups], each group's stream running down its column. */
static qb_status unpack_zeros(const uint32_t *words, qb_qweight *q) {
    int64_t n_words = words_of(q->rows, q->bits);
    uint32_t *column = NULL;
    uint8_t *line = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)n_words, sizeof *column, &column));
    QB_TRY(st, qb_alloc((size_t)q->rows, 1, &line));
    for (int64_t g = 0; g < q->n_groups; g++) {
        for (int64_t w = 0; w < n_words; w++) column[w] = words[w * q->n_groups + g];
        qb_bits_unpack(column, q->rows, q->bits, line);
        for (int64_t r = 0; r < q->rows; r++) q->zeros[r * q->n_groups + g] = line[r];
    }
out:
    qb_free(column);
    qb_free(line);
    return st;
}

static qb_status plain_zeros(const qb_checkpoint *ck, const qb_tensor *t, const int8_t *values,
                             qb_qweight *q) {
    int middle = 1 << (q->bits - 1);
    for (int64_t i = 0; i < q->rows * q->n_groups; i++) {
        if (values[i] < -middle || values[i] >= middle)
            return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: %d is no %d-bit zero point", ck->dir, t->name,
                           values[i], q->bits);
        q->zeros[i] = (uint8_t)(values[i] + middle);
    }
    return QB_OK;
}

/* Older versions of the library left the zeros unpacked: int8 [out, groups]. */
static qb_status read_zeros(qb_checkpoint *ck, const char *module, qb_qweight *q) {
    const qb_tensor *t;
    const void *bytes;
    qb_status st = QB_OK;
    if (qb_checkpoint_quantization(ck)->symmetric) {
        memset(q->zeros, 1 << (q->bits - 1), (size_t)(q->rows * q->n_groups));
        return QB_OK;
    }
    QB_TRY(st, qb_module_tensor(ck, module, "weight_zero_point", &t));
    bool plain = t->dtype == QB_DTYPE_I8;
    QB_TRY(st, qb_tensor_expect(ck, t, plain ? QB_DTYPE_I8 : QB_DTYPE_I32, 2,
                                (int64_t[]){plain ? q->rows : words_of(q->rows, q->bits), q->n_groups}));
    QB_TRY(st, qb_checkpoint_acquire(ck, t, &bytes));
    st = plain ? plain_zeros(ck, t, bytes, q) : unpack_zeros(bytes, q);
    qb_checkpoint_release(ck, t);
out:
    return st;
}

static qb_status read_order(qb_checkpoint *ck, const char *module, qb_qweight *q) {
    const qb_tensor *t = qb_module_tensor_find(ck, module, "weight_g_idx");
    if (!t && qb_checkpoint_quantization(ck)->desc_act && q->n_groups > 1)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %s.weight_g_idx is missing, and actorder is group", ck->dir,
                       module);
    return t ? qb_read_groups(ck, t, q) : QB_OK;
}

static qb_status read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    const qb_quantization *how = qb_checkpoint_quantization(ck);
    const qb_tensor *packed, *scale;
    qb_tensor_codes *codes;
    int64_t group = how->group_size < 0 || how->group_size > cols ? cols : how->group_size;
    *out = (qb_qweight){0};
    if (rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: %s: shape [%" PRId64 ", %" PRId64 "] is not possible", ck->dir,
                       module, rows, cols);
    qb_status st;
    QB_TRY(st, check_shape(ck, module, rows, cols));
    QB_TRY(st, qb_module_tensor(ck, module, "weight_packed", &packed));
    QB_TRY(st, qb_module_tensor(ck, module, "weight_scale", &scale));
    QB_TRY(st, qb_tensor_expect(ck, packed, QB_DTYPE_I32, 2, (int64_t[]){rows, words_of(cols, how->bits)}));
    QB_TRY(st, qb_qweight_form_affine(rows, cols, how->bits, group, out));
    QB_TRY(st, qb_qweight_alloc_values(out, false));
    QB_TRY(st, qb_read_scales(ck, scale, QB_SCALES_BY_ROW, out));
    QB_TRY(st, read_zeros(ck, module, out));
    QB_TRY(st, read_order(ck, module, out));
    QB_TRY(st, qb_leave_codes(ck, packed, word_codes, out, &codes));
    out->symmetric = qb_qweight_zeros_in_middle(out);
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

const qb_layout qb_layout_compressed_tensors = {
    .name = "compressed-tensors",
    .summary = "compressed-tensors safetensors, format pack-quantized (llm-compressor, vLLM); read only",
    .source = "compressed-tensors compressors/pack_quantized",
    .present = present,
    .read = read,
};
