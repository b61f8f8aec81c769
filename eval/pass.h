/* One model's forward over token windows: what every metric of a window's logits is made of. A pass holds the
   residual stream of some windows and takes every block over all of them, so that each block is loaded once a
   pass; with resident weights a pass is one batch. */
#pragma once

#include "eval/eval.h"

#include "base/log.h"

typedef struct qb_pass {
    qb_model *m;
    const qb_windows *w;
    qb_perplexity_plan plan;
    qb_workspace ws;
    qb_kv kv;
    int64_t begin;        /* the first window whose residual stream is held */
    float *x;             /* device [windows_per_pass * max_length, D] */
    float *logits;        /* device [plan.head_rows, V] */
    double blocks_done;   /* windows times blocks so far, */
    double blocks_before; /* on top of what the progress counted before */
} qb_pass;

/* What a pass may take: memory_bytes, or 80 % of what is free where it is 0. */
qb_status qb_pass_budget(const qb_model *m, int64_t memory_bytes, int64_t *out) QB_NODISCARD;
/* As qb_perplexity_plan_make (eval/eval.h); layer_major: block by block even where the weights fit. */
qb_status qb_pass_plan(const qb_model *m, const qb_windows *w, int64_t memory_bytes, bool layer_major,
                       qb_perplexity_plan *out) QB_NODISCARD;
/* The model must be loaded. Fails with QB_ERR_FORMAT where no window scores anything. Close in any case. */
qb_status qb_pass_open(qb_model *m, const qb_windows *w, int64_t memory_bytes, qb_pass *out) QB_NODISCARD;
/* Windows [begin, end), at most plan.windows_per_pass of them, through all blocks. */
qb_status qb_pass_forward(qb_pass *p, int64_t begin, int64_t end, qb_progress *progress) QB_NODISCARD;
/* How many logit rows one call gives for the targets of a window from `at` on. */
int32_t qb_pass_rows(const qb_pass *p, int64_t window, int32_t at);
/* p->logits [rows, V] are of what predicts the targets [at, at + rows) of a window of the last forward. */
qb_status qb_pass_head(qb_pass *p, int64_t window, int32_t at, int32_t rows) QB_NODISCARD;
void qb_pass_close(qb_pass *p);
/* What a row says of its windows: protocol, data set, counts, special tokens, hash of the ids. out->n is set.
 */
void qb_windows_describe(const qb_windows *w, bool layer_major, qb_measure *out);
