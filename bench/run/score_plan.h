/* What scoring a model will take, said before it is loaded: windows, peak memory, time. */
#pragma once

#include "bench/command.h"
#include "bench/measure/scoring.h"

typedef struct qb_score_plan {
    qb_model *model, *base; /* base: NULL for perplexities alone; their `dev` says what memory there is */
    const qb_scoring *scorings;
    size_t n;
    double memory_gb; /* to use at most; 0: what is free */
} qb_score_plan;

/* A note a scoring. */
qb_status qb_score_plan_announce(const qb_score_plan *plan) QB_NODISCARD;
/* With the estimated time on that device, which it opens and closes: a line each on standard output, or an
   object each in `array`. */
qb_status qb_score_plan_print(const qb_score_plan *plan, const qb_compute *compute,
                              qb_json *array) QB_NODISCARD;
