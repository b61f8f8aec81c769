/* What a view of a quantized linear leaves in its tensor, beside the whole. */
#pragma once

#include "checkpoint/checkpoint.h"
#include "tests/support.h"

/* Rows of codes, of whatever first and number, and scales are those of `whole`. */
static inline void assert_view_is(qb_checkpoint *ck, const char *module, const qb_qweight *whole) {
    const int64_t rows = whole->rows, cols = whole->cols;
    qb_weight view;
    uint8_t *room;
    assert_ok(qb_checkpoint_linear_view(ck, module, NULL, rows, cols, &view));
    const qb_qweight *q = view.packed;
    assert_non_null(q);
    assert_true(!q->codes != !q->source);
    assert_ok(qb_alloc((size_t)(rows * cols), 1, &room));
    for (int64_t first = 0, n; first < rows; first += n) {
        n = first % 5 + 1 < rows - first ? first % 5 + 1 : rows - first;
        const uint8_t *codes = qb_qweight_rows(q, NULL, first, n, room);
        assert_memory_equal(codes, whole->codes + first * cols, (size_t)(n * cols));
    }
    assert_memory_equal(qb_qweight_rows(q, NULL, 0, rows, room), whole->codes, (size_t)(rows * cols));
    qb_free(room);
    if (whole->coding == QB_CODING_AFFINE) {
        assert_int_equal(qb_qweight_has_offsets(q), whole->offsets != NULL);
        assert_ok(qb_qweight_fill_values(view.packed, NULL));
        assert_memory_equal(q->scales, whole->scales, (size_t)(rows * q->n_groups) * sizeof *q->scales);
    }
    qb_checkpoint_free_linear(ck, module, &view);
}
