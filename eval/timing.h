/* Samples of one row: how long each is, how many there are, what earlier rounds had. */
#pragma once

#include "eval/disturbance.h"
#include "eval/sampling.h"
#include "eval/speed_run.h"

/* What is timed: a prompt of n_tok tokens, or n_tok tokens one after another behind `depth`. The first four
   are the caller's. */
typedef struct qb_timing {
    qb_speed_run *r;
    bool prompt;
    int64_t n_tok, depth;
    int64_t runs;  /* within one sample */
    int64_t timed; /* runs in all samples */
    qb_stretch stretch;
} qb_timing;

/* The rule of a round; NULL: of the finished row. */
qb_sampling_rule qb_timing_rule(const qb_speed_config *config, const qb_speed_round *round);
/* What earlier rounds made of the row that is the last of `out`; NULL when there is none. */
const qb_json *qb_timing_earlier(const qb_speed_round *round, const qb_measures *out, const qb_measure *row);
/* What is timed, once. */
qb_status qb_timing_run(const qb_timing *t) QB_NODISCARD;
/* Warms up, samples, fills the row (the last of `out`, with its name and protocol). *sampling gets its
   samples, in tokens a second. */
qb_status qb_timing_row(qb_timing *t, const qb_speed_round *round, const qb_measures *out,
                        qb_sampling *sampling, qb_measure *row) QB_NODISCARD;
