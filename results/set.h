/* Result files opened together and read as one set of rows. */
#pragma once

#include "results/rows.h"

enum { QB_SET_MAX = 64 };

typedef struct qb_result_set {
    qb_results documents[QB_SET_MAX];
    int n;
    qb_rows rows;
} qb_result_set;

/* Free in any case. */
qb_status qb_result_set_open(const char *const *paths, size_t n, qb_result_set *out) QB_NODISCARD;
void qb_result_set_close(qb_result_set *set);
