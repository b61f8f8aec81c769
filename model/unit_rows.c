#include "model/unit_rows.h"

#include "base/memory.h"
#include "kernels/dtype.h"
#include "kernels/qweight.h"

#include <math.h>

static void divide_by_length(float *row, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += (double)row[i] * (double)row[i];
    float length = fmaxf((float)sqrt(squares), 1e-12f);
    for (int64_t i = 0; i < n; i++) row[i] /= length;
}

static qb_status fill_packed(const qb_weight *w, float *out) {
    qb_qweight_dequantize(w->packed, out);
    for (int64_t r = 0; r < w->rows; r++) divide_by_length(out + r * w->cols, w->cols);
    return QB_OK;
}

static qb_status fill_dense(const qb_weight *w, uint8_t *out) {
    size_t row_bytes = (size_t)w->cols * qb_dtype_bytes(w->dtype);
    float *row;
    qb_status st = qb_alloc((size_t)w->cols, sizeof *row, &row);
    for (int64_t r = 0; st == QB_OK && r < w->rows; r++) {
        size_t at = (size_t)r * row_bytes;
        st = qb_to_f32(w->dtype, (const uint8_t *)w->dense + at, w->cols, row);
        if (st != QB_OK) break;
        divide_by_length(row, w->cols);
        st = qb_from_f32(w->dtype, row, w->cols, out + at);
    }
    qb_free(row);
    return st;
}

qb_status qb_weight_unit_rows(const qb_weight *w, qb_weight *out) {
    qb_dtype dtype = w->packed ? QB_DTYPE_F32 : w->dtype;
    *out = (qb_weight){.rows = w->rows, .cols = w->cols, .dtype = dtype};
    qb_status st = qb_alloc((size_t)w->rows * (size_t)w->cols * qb_dtype_bytes(dtype), 1, &out->copy);
    if (st != QB_OK) return st;
    out->dense = out->copy;
    st = w->packed ? fill_packed(w, out->copy) : fill_dense(w, out->copy);
    if (st != QB_OK) qb_weight_free(out);
    return st;
}
