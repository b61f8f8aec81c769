#include "quant/steps.h"

#include "base/log.h"
#include "base/memory.h"
#include "kernels/grid_math.h"

#include <inttypes.h>

/* Share of a module's sum of squares in groups that float16 has no step for. Dead channels of real models
   hold next to nothing; 8 bits themselves lose some 1e-4. */
static const double tolerable_share = 1e-3;

typedef struct {
    const qb_qweight *q;
    int64_t groups, first; /* lost ones, the first's place among the scales */
    float first_step, first_largest;
    double squares, all;
} losses;

typedef struct {
    float lo, hi;
    double squares;
} extent;

static void widen_extent(extent *e, float x) {
    e->lo = x < e->lo ? x : e->lo;
    e->hi = x > e->hi ? x : e->hi;
    e->squares += (double)x * (double)x;
}

static extent extent_of(const qb_qweight *q, const float *row, int64_t group) {
    extent e = {0};
    int64_t begin = q->g_idx ? 0 : group * q->group_size, end = q->g_idx ? q->cols : begin + q->group_size;
    for (int64_t c = begin; c < end && c < q->cols; c++)
        if (!q->g_idx || q->g_idx[c] == group) widen_extent(&e, row[c]);
    return e;
}

/* The step that the method would have taken; bitsandbytes' int8 has one of float32, but rounds the weight to
   float16 before. */
static float step_of(const qb_qweight *q, extent e, float largest) {
    float maxq = (float)((1 << q->bits) - 1);
    if (q->int8_rows) return largest / 127.0F;
    if (e.hi - e.lo >= FLT_MIN * maxq) qb_grid_settle_range(q->symmetric, maxq, &e.lo, &e.hi);
    return (e.hi - e.lo) / maxq;
}

static bool is_suspect(const qb_qweight *q, int64_t at) {
    return q->int8_rows ? q->scales[at] < QB_LEAST_SCALE : q->scales[at] == QB_LEAST_SCALE;
}

static void look_at_group(losses *l, const float *row, int64_t at) {
    const qb_qweight *q = l->q;
    extent e = extent_of(q, row, at % q->n_groups);
    float largest = -e.lo > e.hi ? -e.lo : e.hi, step = step_of(q, e, largest);
    if (largest == 0.0F || step >= QB_LEAST_SCALE / 2) return;
    if (l->groups++ == 0) {
        l->first = at;
        l->first_step = step;
        l->first_largest = largest;
    }
    l->squares += e.squares;
}

static qb_status look_at_rows(const qb_weight *from, losses *l) {
    const qb_qweight *q = l->q;
    size_t row_bytes = (size_t)q->cols * qb_dtype_bytes(from->dtype);
    float *row;
    qb_status st = qb_alloc((size_t)q->cols, sizeof *row, &row);
    for (int64_t r = 0; st == QB_OK && r < q->rows; r++) {
        st = qb_to_f32(from->dtype, (const char *)from->dense + (size_t)r * row_bytes, q->cols, row);
        for (int64_t c = 0; st == QB_OK && c < q->cols; c++) l->all += (double)row[c] * (double)row[c];
        for (int64_t at = r * q->n_groups; st == QB_OK && at < (r + 1) * q->n_groups; at++)
            if (is_suspect(q, at)) look_at_group(l, row, at);
    }
    qb_free(row);
    return st;
}

static bool any_suspect(const qb_qweight *q) {
    for (int64_t i = 0; i < q->rows * q->n_groups; i++)
        if (is_suspect(q, i)) return true;
    return false;
}

qb_status qb_steps_check(const char *module, const qb_weight *from, const qb_qweight *q) {
    bool halves = qb_qweight_has_half_scales(q) || (q->int8_rows && from->dtype != QB_DTYPE_F16);
    if (!halves || !any_suspect(q)) return QB_OK;
    losses l = {.q = q};
    qb_status st = look_at_rows(from, &l);
    if (st != QB_OK || l.groups == 0) return st;
    int64_t row = l.first / q->n_groups, group = l.first % q->n_groups;
    if (l.squares > tolerable_share * l.all)
        return qb_fail(QB_ERR_NUMERIC,
                       "%s: row %" PRId64 ", group %" PRId64
                       ": weights of at most %.3g need a step of %.3g at %d "
                       "bits, and the least that float16 holds is %.3g; %" PRId64 " of %" PRId64
                       " groups would be rounded away. Fewer bits take larger steps, and nf4 and fp4 store "
                       "float32 scales",
                       module, row, group, (double)l.first_largest, (double)l.first_step, q->bits,
                       (double)QB_LEAST_SCALE, l.groups, q->rows * q->n_groups);
    qb_warn("%s: %" PRId64 " of %" PRId64 " groups, the first of row %" PRId64 ", group %" PRId64
            ", hold weights of at most %.3g, too small for a scale of float16: rounded to multiples of %.3g",
            module, l.groups, q->rows * q->n_groups, row, group, (double)l.first_largest,
            (double)QB_LEAST_SCALE);
    return QB_OK;
}
