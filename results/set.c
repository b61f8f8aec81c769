#include "results/set.h"

qb_status qb_result_set_open(const char *const *paths, size_t n, qb_result_set *out) {
    const qb_results *documents[QB_SET_MAX];
    qb_status st = QB_OK;
    *out = (qb_result_set){0};
    if (n > QB_SET_MAX)
        return qb_fail(QB_ERR_USAGE, "%zu results at once are more than the limit of %d", n, QB_SET_MAX);
    for (size_t i = 0; i < n && st == QB_OK; i++) {
        st = qb_results_open(paths[i], &out->documents[i]);
        documents[i] = &out->documents[i];
        out->n += st == QB_OK;
    }
    return st == QB_OK ? qb_rows_read(documents, out->n, &out->rows) : st;
}

void qb_result_set_close(qb_result_set *set) {
    qb_rows_free(&set->rows);
    for (int i = 0; i < set->n; i++) qb_results_close(&set->documents[i]);
    set->n = 0;
}
