/* Speed rows are sampled round after round over all cases, A B C A B C, so that what drifts in the machine
   falls on all alike. */
#pragma once

#include "bench/run/runner.h"

/* The rounds that a run has: the suite's, or 1 where they would mix nothing (one case, a suite without speed)
   or where a checkpoint does not outlive its case (--no-cache). */
int qb_rounds_of(const qb_run *run);

/* A case's rows with those of a later part: its speed rows hold the earlier samples already and take their
   place, peaks of memory are the larger of both. Both may be NULL. Caller frees. */
qb_json *qb_rounds_merge(const qb_json *earlier, const qb_json *later);
