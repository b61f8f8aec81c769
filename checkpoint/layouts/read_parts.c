#include "checkpoint/layouts/read_parts.h"

#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/state.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { ROWS_A_TASK = 256 };

typedef struct {
    qb_dtype dtype;
    const uint8_t *bytes;
    bool by_row;
    qb_qweight *q;
    atomic_bool damaged;
} scales_job;

/* n values of the tensor from `at` on. Its type is one of those that can be read. */
static void read_floats(const scales_job *j, int64_t at, int64_t n, float *out) {
    if (qb_to_f32(j->dtype, j->bytes + (size_t)at * qb_dtype_bytes(j->dtype), n, out) != QB_OK)
        qb_error_clear();
}

static void put_scales(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    scales_job *j = ctx;
    const int64_t rows = j->q->rows, groups = j->q->n_groups;
    float *scales = j->q->scales, some[ROWS_A_TASK];
    if (j->by_row) read_floats(j, begin * groups, (end - begin) * groups, scales + begin * groups);
    for (int64_t g = 0; !j->by_row && g < groups; g++)
        for (int64_t r = begin, n; r < end; r += n) {
            n = end - r < ROWS_A_TASK ? end - r : ROWS_A_TASK;
            read_floats(j, g * rows + r, n, some);
            for (int64_t i = 0; i < n; i++) scales[(r + i) * groups + g] = some[i];
        }
    if (!qb_all_finite(scales + begin * groups, (end - begin) * groups)) atomic_store(&j->damaged, true);
}

/* Of a scale that is not finite. */
static qb_status refuse_scales(const qb_checkpoint *ck, const qb_tensor *t, const qb_qweight *q) {
    int64_t i = 0;
    while (isfinite(q->scales[i])) i++;
    return qb_fail(QB_ERR_NUMERIC,
                   "%s: tensor %.200s: the scale of group %" PRId64 ", row %" PRId64
                   " is %g: expected finite numbers; the checkpoint is damaged",
                   ck->dir, t->name, i % q->n_groups, i / q->n_groups, (double)q->scales[i]);
}

qb_status qb_read_scales(qb_checkpoint *ck, const qb_tensor *t, qb_scale_order order, qb_qweight *q) {
    bool by_row = order == QB_SCALES_BY_ROW;
    qb_dtype dtype = t->dtype == QB_DTYPE_F32 || t->dtype == QB_DTYPE_BF16 ? t->dtype : QB_DTYPE_F16;
    const void *bytes;
    qb_status st;
    QB_TRY(st, qb_tensor_expect(ck, t, dtype, 2,
                                (int64_t[]){by_row ? q->rows : q->n_groups, by_row ? q->n_groups : q->rows}));
    QB_TRY(st, qb_checkpoint_acquire(ck, t, &bytes));
    q->scale_dtype = dtype;
    scales_job j = {.dtype = dtype, .bytes = bytes, .by_row = by_row, .q = q};
    qb_parallel_for(ck->threads, q->rows, ROWS_A_TASK, put_scales, &j);
    qb_checkpoint_release(ck, t);
    if (atomic_load(&j.damaged)) st = refuse_scales(ck, t, q);
out:
    return st;
}

static int64_t group_at(const qb_tensor *t, const void *bytes, int64_t column) {
    return t->dtype == QB_DTYPE_I64 ? ((const int64_t *)bytes)[column] : ((const int32_t *)bytes)[column];
}

static qb_status check_groups(const qb_checkpoint *ck, const qb_tensor *t, const void *bytes,
                              const qb_qweight *q, bool *natural, bool *zeros) {
    *natural = *zeros = true;
    for (int64_t c = 0; c < q->cols; c++) {
        int64_t group = group_at(t, bytes, c);
        if (group < 0 || group >= q->n_groups)
            return qb_fail(QB_ERR_FORMAT,
                           "%s: tensor %.200s: column %" PRId64 " is in group %" PRId64
                           ", outside [0, %" PRId64 ")",
                           ck->dir, t->name, c, group, q->n_groups);
        *natural = *natural && group == c / q->group_size;
        *zeros = *zeros && group == 0;
    }
    return QB_OK;
}

qb_status qb_read_groups(qb_checkpoint *ck, const qb_tensor *t, qb_qweight *q) {
    const void *bytes;
    bool natural, zeros;
    qb_dtype dtype = t->dtype == QB_DTYPE_I64 ? QB_DTYPE_I64 : QB_DTYPE_I32;
    qb_status st = qb_tensor_expect(ck, t, dtype, 1, &q->cols);
    if (st == QB_OK) st = qb_checkpoint_acquire(ck, t, &bytes);
    if (st != QB_OK) return st;
    QB_TRY(st, check_groups(ck, t, bytes, q, &natural, &zeros));
    if (zeros && !natural && qb_checkpoint_first_warning(ck, QB_WARNING_ZERO_GROUPS))
        qb_warn("%s: %.200s puts every column into group 0 although there are %" PRId64
                " groups: taken as not filled in, columns in their natural order",
                ck->dir, t->name, q->n_groups);
    if (natural || zeros) goto out;
    QB_TRY(st, qb_alloc((size_t)q->cols, sizeof *q->g_idx, &q->g_idx));
    for (int64_t c = 0; c < q->cols; c++) q->g_idx[c] = (int32_t)group_at(t, bytes, c);
out:
    qb_checkpoint_release(ck, t);
    return st;
}

static void free_codes(qb_code_source *from) {
    qb_tensor_codes *c = (qb_tensor_codes *)from;
    qb_checkpoint_release(c->ck, c->tensor);
    qb_free(c->made);
    qb_free(c);
}

qb_status qb_leave_codes(qb_checkpoint *ck, const qb_tensor *t, qb_read_codes *read, qb_qweight *q,
                         qb_tensor_codes **out) {
    const void *bytes;
    qb_tensor_codes *c;
    qb_status st;
    QB_TRY(st, qb_alloc(1, sizeof *c, &c));
    if ((st = qb_checkpoint_acquire(ck, t, &bytes)) != QB_OK) {
        qb_free(c);
        return st;
    }
    *c = (qb_tensor_codes){.base = {read, free_codes},
                           .ck = ck,
                           .tensor = t,
                           .bytes = bytes,
                           .rows = q->rows,
                           .cols = q->cols,
                           .bits = q->bits};
    q->source = &c->base;
    *out = c;
out:
    return st;
}
