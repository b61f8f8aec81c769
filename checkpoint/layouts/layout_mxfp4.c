/* gpt-oss: experts in OCP microscaling blocks. NAME_blocks U8 [E, rows, cols / 32, 16], a byte the codes of
   two neighbouring columns, lower nibble first; NAME_scales U8 [E, rows, cols / 32], powers of two (e8m0).
   Source: transformers integrations/mxfp4.py, convert_moe_packed_tensors. */
#include "checkpoint/gguf/gguf_blocks.h"
#include "checkpoint/layouts/layout_rows.h"
#include "checkpoint/layouts/read_parts.h"
#include "checkpoint/state.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK_COLUMNS = 32, BLOCK_BYTES = 16 };

static const qb_tensor *find(const qb_checkpoint *ck, const char *module, const char *end) {
    char name[QB_TENSOR_NAME_MAX];
    int n = snprintf(name, sizeof name, "%s%s", module, end);
    return n < (int)sizeof name ? qb_checkpoint_find(ck, name) : NULL;
}

static bool present(const qb_checkpoint *ck, const char *module) {
    return find(ck, module, "_blocks") != NULL;
}

static int64_t first_block(const qb_slice *s, int64_t row, int64_t across) {
    return (s->index * s->tensor_rows + qb_slice_row(s, row)) * across;
}

/* Two codes to a byte, the even one in the low nibble. */
static void nibble_codes(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes) {
    const qb_tensor_codes *c = (const qb_tensor_codes *)from;
    for (int64_t r = first; r < first + n; r++) {
        const uint8_t *bytes =
            (const uint8_t *)c->bytes + first_block(&c->slice, r, c->cols / BLOCK_COLUMNS) * BLOCK_BYTES;
        for (int64_t i = 0; i < c->cols / 2; i++, codes += 2) {
            codes[0] = bytes[i] & 15;
            codes[1] = bytes[i] >> 4;
        }
    }
}

static qb_status read_scales(const qb_checkpoint *ck, const qb_tensor *t, const qb_slice *s,
                             const uint8_t *scales, qb_qweight *out) {
    int64_t across = out->cols / BLOCK_COLUMNS;
    for (int64_t r = 0; r < out->rows; r++)
        for (int64_t b = 0; b < across; b++) {
            float scale = qb_e8m0_half(scales[first_block(s, r, across) + b]);
            if (!isfinite(scale))
                return qb_fail(QB_ERR_NUMERIC,
                               "%s: tensor %.200s: the scale of row %" PRId64 ", block %" PRId64
                               " is NaN: the checkpoint is damaged",
                               ck->dir, t->name, r, b);
            out->absmax[r * across + b] = scale;
        }
    return QB_OK;
}

static qb_status read_slice(qb_checkpoint *ck, const char *module, const qb_slice *s, int64_t rows,
                            int64_t cols, qb_qweight *out) {
    const qb_tensor *t = find(ck, module, "_blocks"), *scales = find(ck, module, "_scales");
    qb_tensor_codes *codes;
    const void *bytes;
    int64_t shape[4] = {s->matrices, s->tensor_rows, cols / BLOCK_COLUMNS, BLOCK_BYTES};
    int outer = s->matrices ? 0 : 1;
    *out = (qb_qweight){0};
    qb_status st;
    if (!t || !scales)
        return qb_fail(QB_ERR_FORMAT, "%s: %.200s%s is missing", ck->dir, module, t ? "_scales" : "_blocks");
    if (cols % BLOCK_COLUMNS)
        return qb_fail(QB_ERR_FORMAT, "%s: %.200s: %" PRId64 " columns are no whole number of blocks of %d",
                       ck->dir, module, cols, BLOCK_COLUMNS);
    QB_TRY(st, qb_tensor_expect(ck, t, QB_DTYPE_U8, 4 - outer, shape + outer));
    QB_TRY(st, qb_tensor_expect(ck, scales, QB_DTYPE_U8, 3 - outer, shape + outer));
    QB_TRY(st, qb_qweight_form_codebook(rows, cols, QB_CODEBOOK_E2M1, BLOCK_COLUMNS, false, out));
    QB_TRY(st, qb_qweight_alloc_values(out, false));
    out->scale_dtype = QB_DTYPE_F32;
    QB_TRY(st, qb_checkpoint_acquire(ck, scales, &bytes));
    st = read_scales(ck, scales, s, bytes, out);
    qb_checkpoint_release(ck, scales);
    if (st == QB_OK) st = qb_leave_codes(ck, t, nibble_codes, out, &codes);
    if (st == QB_OK) codes->slice = *s;
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

static qb_status read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    return read_slice(ck, module, &(qb_slice){.tensor_rows = rows}, rows, cols, out);
}

const qb_layout qb_layout_mxfp4 = {
    .name = "mxfp4",
    .summary = "MXFP4 experts of gpt-oss; read only",
    .source = "transformers integrations/mxfp4.py",
    .present = present,
    .read = read,
    .read_slice = read_slice,
};
