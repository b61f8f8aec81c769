/* `bench run --fetch`. */
#pragma once

#include "bench/run/runner.h"

/* Gets from the hub what the run's cases name and this machine does not have: models that no folder and no
   cache holds, files of datasets that no data folder holds. */
qb_status qb_run_fetch(const qb_run *run) QB_NODISCARD;
