/* One case of a run: its config, its quantized checkpoint, its measurements, each in a process of its own. */
#pragma once

#include "bench/run/runner.h"

/* Everything that decides the case's result: equal configs need no second run. Caller frees. */
qb_json *qb_case_config(const qb_run *run, const qb_case *c);
const qb_subject *qb_case_subject(const qb_run *run, const qb_case *c);
/* Whether its quantized checkpoint seems to be in the cache; false where the cache is not to be read. */
qb_status qb_case_is_cached(const qb_run *run, const qb_case *c, bool *cached) QB_NODISCARD;
/* What is measured of a case at a time. */
typedef struct qb_case_part {
    bool quality;          /* everything but the speed rows */
    bool speed;            /* the speed rows, in this round */
    qb_speed_round round;  /* count 0: the suite measures no speed */
    const qb_json *before; /* the record that earlier parts made, or NULL */
} qb_case_part;
/* Runs a part and returns the case's record (caller frees) with what earlier parts measured, also for a
   failed case. NULL with QB_ERR_INTERRUPTED in *status when the run was asked to end: an unfinished part
   leaves no record. */
qb_json *qb_case_run(const qb_run *run, const qb_case *c, const qb_case_part *part, qb_status *status);
