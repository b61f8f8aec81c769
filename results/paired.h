/* Two perplexities over the same windows, set against each other window by window: what all windows have in
   common cancels, so the difference is known far better than either value. */
#pragma once

#include "results/rows.h"

typedef struct qb_paired {
    double difference;   /* nats a token, b less a: the logarithm of the perplexities' ratio */
    double stderr_value; /* over windows; NaN below QB_MIN_WINDOWS sums */
    int64_t windows;
} qb_paired;

/* False when one of the metric rows kept no sums over windows, or not of the same tokens. */
bool qb_rows_paired(const qb_row *a, const qb_row *b, qb_paired *out);
/* "-0.0290 ± 0.0040 nats a token, paired over 163 windows" */
void qb_paired_put(const qb_paired *p, qb_str *out);

/* Whether b is a's case of another document, from another machine say, with the same figure but for rounding.
 */
bool qb_rows_same_again(const qb_row *a, const qb_row *b);
/* Of the cases of the same model whose windows pair with this row's, the row with the next higher value;
   false when there is none. What is the same again is passed over. */
bool qb_paired_next(const qb_rows *rows, const qb_row *row, const qb_row **worse, qb_paired *out);
/* A line for each case that has this perplexity, against the next worse of its model: "GPTQ 4b g128 against
   NF4 on ...". `prefix` heads each line. */
void qb_paired_notes(const qb_rows *rows, const char *dataset, const char *protocol, const char *prefix,
                     qb_str *out);
