/* Measuring one opened model: perplexities, speed, memory, determinism, as metric rows of the result. A
   measurement that fails or cannot be made becomes a row that says so; the others go on. */
#pragma once

#include "bench/measure/scoring.h"
#include "eval/eval.h"

typedef struct qb_measuring {
    const qb_scoring *scorings;
    size_t n_scorings;
    qb_model *base; /* opened, not loaded: the scorings are divergences from it, no perplexities; or NULL */
    int64_t memory_bytes;         /* budget of a perplexity; 0: what is free */
    const qb_speed_config *speed; /* NULL: none */
    const qb_speed_round *round;  /* of the speed rows; NULL: all at once */
    const qb_windows *prompts;    /* NULL: none */
    const qb_ceilings *ceilings;  /* of the machine; needed with speed */
    const char *activations;      /* of perplexities and of the logits hash; NULL: f32 (eval/activations.h) */
    bool memory, determinism;
    bool offload; /* weights that do not fit the device may lie in host memory */
} qb_measuring;

/* Loads m onto dev and pushes rows to the array `metrics`. QB_OK when all rows are ok or skipped; else the
   first failure's status and sentence, with the failed row in the array. */
qb_status qb_measure_model(qb_model *m, qb_device *dev, const qb_measuring *what,
                           qb_json *metrics) QB_NODISCARD;

/* A row that says why there is no value. */
void qb_measure_push_skipped(qb_json *metrics, const char *metric, const char *protocol, const char *dataset,
                             const char *reason);
/* One row as JSON; moves row->extra into it. */
qb_json *qb_measure_json(qb_measure *row);
