/* Scoring in two halves: one pass over windows gives their sums, and consumers (perplexity.c) make rows of
   them. Whoever scores the same windows with two models can set them against each other window by window. */
#pragma once

#include "eval/eval.h"

typedef struct qb_window_sums {
    int64_t tokens; /* scored; 0 where the window names none */
    double nll;     /* nats, over those */
} qb_window_sums;

typedef struct qb_scores {
    qb_window_sums *windows; /* [count], owned */
    int64_t count;
    double nll, nll_squares; /* over all scored tokens, added in their order */
    bool layer_major;
} qb_scores;

/* Plans and memory as for qb_perplexity (eval/eval.h). The same bits for any thread count and any plan. */
qb_status qb_score(qb_model *m, qb_device *dev, const qb_windows *w, int64_t memory_bytes,
                   qb_scores *out) QB_NODISCARD;
void qb_scores_free(qb_scores *s); /* clears */
