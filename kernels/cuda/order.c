#include "kernels/cuda/order.h"

#include "base/memory.h"

#include <string.h>

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

static qb_status check_groups(int64_t cols, int64_t n_groups, const int32_t *g_idx) {
    for (int64_t c = 0; g_idx && c < cols; c++)
        if (g_idx[c] < 0 || g_idx[c] >= n_groups)
            return qb_fail(QB_ERR_FORMAT, "group index %d of column %lld; expected 0 .. %lld", g_idx[c],
                           (long long)c, (long long)n_groups - 1);
    return QB_OK;
}

typedef struct {
    int64_t cols, group_cols, n_groups;
    const int32_t *g_idx;
    int64_t *count; /* [n_groups] columns, then the next free place */
} grouping;

static int64_t group_of(const grouping *j, int64_t col) {
    return j->g_idx ? j->g_idx[col] : col / j->group_cols;
}

/* Units up to the end of each group, in place of its columns; the shift that cuts none of them. */
static int64_t lay_groups(grouping *j, int *shift) {
    int64_t units = 0, ends = 0, last = 0;
    for (int64_t g = 0; g < j->n_groups; g++)
        if (j->count[g] > 0) last = g;
    for (int64_t g = 0; g < j->n_groups; g++) {
        int64_t own = (j->count[g] + QB_UNIT_COLS - 1) / QB_UNIT_COLS;
        j->count[g] = units * QB_UNIT_COLS;
        units += own;
        if (own > 0 && g != last) ends |= units;
    }
    for (*shift = 0; *shift < 26 && !(ends >> *shift & 1);) ++*shift; /* one group: as large as it gets */
    return units;
}

static uint64_t digest_of(const int32_t *source, int64_t n) {
    uint64_t h = 1469598103934665603u;
    for (int64_t i = 0; i < n; i++) h = (h ^ (uint32_t)source[i]) * 1099511628211u;
    return h ? h : 1;
}

static void place_columns(grouping *j, qb_column_order *out) {
    bool plain = true;
    for (int64_t k = 0; k < out->padded_cols; k++) out->source[k] = -1;
    for (int64_t c = 0; c < j->cols; c++) {
        int64_t k = j->count[group_of(j, c)]++;
        out->source[k] = (int32_t)c;
        out->group[k / QB_UNIT_COLS >> out->shift] = (int32_t)group_of(j, c);
        plain = plain && k == c;
    }
    if (plain) {
        qb_free(out->source);
        out->source = NULL;
    } else {
        out->digest = digest_of(out->source, out->padded_cols);
    }
}

qb_status qb_column_order_make(int64_t cols, int64_t group_cols, int64_t n_groups, const int32_t *g_idx,
                               qb_column_order *out) {
    *out = (qb_column_order){.cols = cols};
    grouping j = {cols, group_cols, n_groups, g_idx, NULL};
    qb_status st;
    QB_TRY(st, check_groups(cols, n_groups, g_idx));
    QB_TRY(st, qb_alloc_zero((size_t)n_groups, sizeof *j.count, &j.count));
    for (int64_t c = 0; c < cols; c++) j.count[group_of(&j, c)]++;
    int64_t units = lay_groups(&j, &out->shift);
    out->padded_cols = round_up(units * QB_UNIT_COLS, QB_TILE_COLS);
    out->n_parts = ((out->padded_cols / QB_UNIT_COLS - 1) >> out->shift) + 1;
    QB_TRY(st, qb_alloc_zero((size_t)out->n_parts, sizeof *out->group, &out->group));
    QB_TRY(st, qb_alloc((size_t)out->padded_cols, sizeof *out->source, &out->source));
    place_columns(&j, out);
out:
    qb_free(j.count);
    if (st != QB_OK) qb_column_order_free(out);
    return st;
}

void qb_column_order_free(qb_column_order *o) {
    qb_free(o->group);
    qb_free(o->source);
    *o = (qb_column_order){0};
}
