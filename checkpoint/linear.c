/* The weights of linear modules: dense views and copies, quantized weights in whatever layout, whole tensors
   and parts of fused and stacked ones. */
#include "base/memory.h"
#include "checkpoint/layout.h"
#include "checkpoint/state.h"

#include <inttypes.h>
#include <string.h>

/* ---- slices ---- */

int64_t qb_slice_row(const qb_slice *s, int64_t row) {
    return s->run ? s->first_row + row / s->run * s->stride + row % s->run : s->first_row + row;
}

static int64_t slice_row(const void *slice, int64_t row) {
    return qb_slice_row(slice, row);
}

static bool is_contiguous(const qb_slice *s) {
    return s->run == 0 || s->run == s->stride;
}

/* tensor_rows filled in; every row of the module must lie in the tensor. */
static qb_status complete_slice(const qb_checkpoint *ck, const char *name, const qb_slice *slice,
                                int64_t rows, qb_slice *out) {
    *out = slice ? *slice : (qb_slice){0};
    if (!out->tensor_rows) out->tensor_rows = rows;
    int64_t last = 0;
    bool fits = rows > 0 && out->first_row >= 0 && out->run >= 0 && out->stride >= out->run &&
                out->matrices >= 0 && out->index >= 0 &&
                (out->matrices ? out->index < out->matrices : !out->index);
    if (fits) last = qb_slice_row(out, rows - 1);
    if (fits && last < out->tensor_rows) return QB_OK;
    return qb_fail(QB_ERR_FORMAT,
                   "%s: %.200s: %" PRId64 " rows from %" PRId64 " of matrix %" PRId64
                   " do not lie in %" PRId64 " matrices of %" PRId64 " rows",
                   ck->dir, name, rows, out->first_row, out->index, out->matrices ? out->matrices : 1,
                   out->tensor_rows);
}

/* MODULE.weight, or the tensor of just that name; absence is told of the former. */
static const qb_tensor *find_weight(const qb_checkpoint *ck, const char *module) {
    const qb_tensor *t = qb_module_tensor_find(ck, module, "weight");
    return t ? t : qb_checkpoint_find(ck, module);
}

static qb_status need_weight(const qb_checkpoint *ck, const char *module, const qb_tensor **out) {
    *out = find_weight(ck, module);
    return *out ? QB_OK : qb_module_tensor(ck, module, "weight", out);
}

/* ---- dense ---- */

/* out[rows, cols] from a matrix of [cols, tensor_rows], element by element of `width` bytes. Tiles keep both
   sides in the cache. */
static void transpose(const uint8_t *in, const qb_slice *s, int64_t rows, int64_t cols, size_t width,
                      uint8_t *out) {
    enum { TILE = 32 };
    for (int64_t r0 = 0; r0 < rows; r0 += TILE)
        for (int64_t c0 = 0; c0 < cols; c0 += TILE)
            for (int64_t r = r0; r < rows && r < r0 + TILE; r++) {
                int64_t from = qb_slice_row(s, r);
                for (int64_t c = c0; c < cols && c < c0 + TILE; c++)
                    memcpy(out + (size_t)(r * cols + c) * width,
                           in + (size_t)(c * s->tensor_rows + from) * width, width);
            }
}

static void gather_rows(const uint8_t *in, const qb_slice *s, int64_t rows, size_t row_bytes, uint8_t *out) {
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + (size_t)r * row_bytes, in + (size_t)qb_slice_row(s, r) * row_bytes, row_bytes);
}

static qb_status dense_linear(qb_checkpoint *ck, const qb_tensor *t, const qb_slice *s, qb_weight *out) {
    int64_t rows = out->rows, cols = out->cols;
    int64_t shape[3] = {s->matrices, s->transposed ? cols : s->tensor_rows,
                        s->transposed ? s->tensor_rows : cols};
    const void *bytes;
    qb_status st = qb_tensor_expect_float(ck, t, s->matrices ? 3 : 2, s->matrices ? shape : shape + 1);
    if (st == QB_OK) st = qb_checkpoint_acquire(ck, t, &bytes);
    if (st != QB_OK) return st;
    size_t width = qb_dtype_bytes(t->dtype), row_bytes = (size_t)cols * width;
    const uint8_t *matrix = (const uint8_t *)bytes + (size_t)(s->index * s->tensor_rows) * row_bytes;
    out->dtype = t->dtype;
    if (is_contiguous(s) && !s->transposed) { /* held until qb_checkpoint_free_linear */
        out->dense = matrix + (size_t)s->first_row * row_bytes;
        return QB_OK;
    }
    st = qb_alloc((size_t)rows * row_bytes, 1, &out->copy);
    if (st == QB_OK && s->transposed)
        transpose(matrix, s, rows, cols, width, out->copy);
    else if (st == QB_OK)
        gather_rows(matrix, s, rows, row_bytes, out->copy);
    out->dense = out->copy;
    qb_checkpoint_release(ck, t);
    return st;
}

/* ---- quantized ---- */

static qb_status read_rows(qb_checkpoint *ck, const qb_layout *layout, const char *module, const qb_slice *s,
                           int64_t rows, int64_t cols, qb_qweight *out) {
    qb_qweight whole = {0};
    if (layout->read_slice) return layout->read_slice(ck, module, s, rows, cols, out);
    if (s->matrices)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: %.200s: stacked matrices in the layout %s are not supported",
                       ck->dir, module, layout->name);
    if (s->tensor_rows == rows && is_contiguous(s)) return layout->read(ck, module, rows, cols, out);
    qb_status st = layout->read(ck, module, s->tensor_rows, cols, &whole);
    if (st == QB_OK) st = qb_qweight_complete(&whole, ck->threads);
    if (st == QB_OK) st = qb_qweight_take_rows(&whole, rows, slice_row, s, out);
    qb_qweight_free(&whole);
    return st == QB_OK ? st : qb_fail_prefix(st, "%s: %.200s", ck->dir, module);
}

static qb_status packed_linear(qb_checkpoint *ck, const qb_layout *layout, const char *module,
                               const qb_slice *s, qb_weight *out) {
    qb_status st = qb_alloc_zero(1, sizeof *out->packed, &out->packed);
    if (st == QB_OK) st = read_rows(ck, layout, module, s, out->rows, out->cols, out->packed);
    if (st != QB_OK) qb_weight_free(out);
    return st;
}

/* A module that is packed although nothing in the directory says how. */
static qb_status check_undeclared(const qb_checkpoint *ck, const char *module) {
    const char *sign = qb_module_tensor_find(ck, module, "qweight")         ? "qweight"
                       : qb_module_tensor_find(ck, module, "weight.absmax") ? "weight.absmax"
                                                                            : NULL;
    if (!sign) return QB_OK;
    return qb_fail(QB_ERR_FORMAT,
                   "%s: %.200s.%s is there but %s does not say how it is quantized (expected "
                   "quantization_config in config.json "
                   "or a quantize_config.json)",
                   ck->dir, module, sign,
                   ck->quantization.layout[0] ? ck->quantization_source : "config.json");
}

/* ---- modules ---- */

qb_status qb_checkpoint_linear_view(qb_checkpoint *ck, const char *module, const qb_slice *slice,
                                    int64_t rows, int64_t cols, qb_weight *out) {
    qb_slice s;
    *out = (qb_weight){.rows = rows, .cols = cols};
    qb_status st = complete_slice(ck, module, slice, rows, &s);
    if (st != QB_OK) return st;
    const qb_layout *layout = ck->quantization.layout[0] ? qb_layout_find(ck->quantization.layout) : NULL;
    /* Modules that the quantizer skipped (lm_head) are dense in a quantized checkpoint. */
    if (layout && layout->present(ck, module)) return packed_linear(ck, layout, module, &s, out);
    const qb_tensor *t;
    st = check_undeclared(ck, module);
    if (st == QB_OK) st = need_weight(ck, module, &t);
    return st == QB_OK ? dense_linear(ck, t, &s, out) : st;
}

qb_status qb_checkpoint_complete(qb_checkpoint *ck, qb_weight *w) {
    return w->packed ? qb_qweight_complete(w->packed, ck->threads) : QB_OK;
}

qb_status qb_checkpoint_linear_slice(qb_checkpoint *ck, const char *module, const qb_slice *slice,
                                     int64_t rows, int64_t cols, qb_weight *out) {
    qb_status st = qb_checkpoint_linear_view(ck, module, slice, rows, cols, out);
    if (st == QB_OK) st = qb_checkpoint_complete(ck, out);
    if (st != QB_OK) qb_checkpoint_free_linear(ck, module, out);
    return st;
}

qb_status qb_checkpoint_linear(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                               qb_weight *out) {
    return qb_checkpoint_linear_slice(ck, module, NULL, rows, cols, out);
}

void qb_checkpoint_free_linear(qb_checkpoint *ck, const char *module, qb_weight *w) {
    if (!w) return;
    if (w->dense && !w->copy) qb_checkpoint_release(ck, find_weight(ck, module));
    qb_weight_free(w);
    *w = (qb_weight){0};
}

qb_status qb_checkpoint_read_f32_slice(qb_checkpoint *ck, const char *name, const qb_slice *slice,
                                       int64_t rows, float **out) {
    qb_slice s;
    float *whole = NULL, *part = NULL;
    qb_status st;
    *out = NULL;
    QB_TRY(st, complete_slice(ck, name, slice, rows, &s));
    if (s.matrices)
        st = qb_checkpoint_read_f32(ck, name, s.matrices, s.tensor_rows, &whole);
    else
        st = qb_checkpoint_read_f32(ck, name, s.tensor_rows, 0, &whole);
    if (st == QB_OK) st = qb_alloc((size_t)rows, sizeof *part, &part);
    for (int64_t r = 0; st == QB_OK && r < rows; r++)
        part[r] = whole[s.index * s.tensor_rows + qb_slice_row(&s, r)];
    *out = part;
out:
    qb_free(whole);
    return st;
}
