/* Ceilings are measured before a run and again behind it: a machine that became slower meanwhile has measured
   some of its rows against a ceiling that did not hold. */
#pragma once

#include "bench/run/runner.h"

/* Measures the devices again when speeds were measured, puts "read_bytes_per_s_after" and
   "gemm_flop_per_s_after" beside the first values of the document and warns where they differ by more than
   QB_CEILING_DRIFT. */
qb_status qb_run_ceilings_again(qb_run *run) QB_NODISCARD;
