/* A case on both sides of a comparison, and how two of its figures that mean the same are set against each
   other. Private to results/. */
#pragma once

#include "results/compare.h"

typedef struct qb_pairing {
    qb_comparison *out;
    const qb_rows *before, *after;
    const char *id,
        *new_id; /* of the case, on either side: two only where an option that is asked for names it */
} qb_pairing;

/* The row of another case that `a` is compared with. Where a case measured the same thing several times (a
   list that names a length twice), the first meets the first, the second the second. */
const qb_row *qb_pairing_counterpart(const qb_row *a, const qb_row_case *other);
/* First step (results/judge.h) of two rows that were both measured: by pairs or by all runs of a side, by
   windows, by size, or as not comparable. `row` holds their names and values. */
qb_status qb_pairing_judge(const qb_pairing *c, const qb_row *a, const qb_row *b,
                           qb_compare_row *row) QB_NODISCARD;
