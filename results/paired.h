/* Two perplexities over the same windows, set against each other window by window: what all windows have in
   common cancels, so the difference is known far better than either value. */
#pragma once

#include "results/results.h"

typedef struct qb_paired {
    double difference;   /* nats a token, b less a: the logarithm of the perplexities' ratio */
    double stderr_value; /* over windows; NaN below QB_MIN_WINDOWS sums */
    int64_t windows;
} qb_paired;

/* False when one of the metric rows kept no sums over windows, or not of the same tokens. */
bool qb_rows_paired(const qb_json *a, const qb_json *b, qb_paired *out);
/* "-0.0290 ± 0.0040 nats a token, paired over 163 windows" */
void qb_paired_put(const qb_paired *p, qb_str *out);

/* A line for each case that has this perplexity, against the next worse of its model: "GPTQ 4b g128 against
   NF4 on ...". labels: one a case (qb_case_labels). `prefix` heads each line. */
void qb_paired_notes(const qb_results *r, const char *const *labels, const char *dataset,
                     const char *protocol, const char *prefix, qb_str *out);
