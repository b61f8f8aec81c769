/* What a comparison found, row by row, and how it is told to people and to scripts. */
#pragma once

#include "results/paired.h"

typedef enum {
    QB_SAME, /* within tolerance, or equally absent */
    QB_BETTER,
    QB_WORSE,        /* a regression */
    QB_MISSING,      /* measured before, not there now: a regression */
    QB_CHANGED,      /* worth a line, neither better nor worse */
    QB_INCOMPARABLE, /* both are there, but a comparison would mean nothing */
} qb_verdict;

typedef struct qb_compare_row {
    const char *id;                          /* of the case; points into a document */
    qb_str metric, unit;                     /* "perplexity wikitext2 gptq-2048", "1"; clean text */
    double old_value, new_value, change_pct; /* NaN where there is none */
    double p;                                /* of the Mann-Whitney test, NaN without */
    qb_paired paired;                        /* of perplexities; windows 0 without */
    qb_verdict verdict;
    qb_str why; /* clean text, may be empty */
} qb_compare_row;

typedef struct qb_compare_rows {
    qb_compare_row *rows; /* owned */
    size_t count, capacity;
    int64_t unmeasured[2]; /* cases that the old and the new run planned and did not come to */
} qb_compare_rows;

qb_status qb_compare_rows_add(qb_compare_rows *rows, const char *id, qb_compare_row **row) QB_NODISCARD;
void qb_compare_rows_free(qb_compare_rows *rows);

/* Something is worse or missing, a document is incomplete, or nothing at all could be compared: a gate must
 * not pass because it saw nothing. */
bool qb_compare_rows_regressed(const qb_compare_rows *rows);
void qb_compare_rows_print(const qb_compare_rows *rows, const qb_results *old_doc, const qb_results *new_doc,
                           qb_str *out);
/* {"schema":"qb.compare/1","regressed":...,"counts":{...},"rows":[...]}; unchanged rows are only counted.
 * NULL on exhaustion. */
qb_json *qb_compare_rows_json(const qb_compare_rows *rows, const qb_compare_config *config);
