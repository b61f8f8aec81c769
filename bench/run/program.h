/* Another program as a process of its own: what `bench ab` measures with. */
#pragma once

#include "base/status.h"

/* Starts argv[0] (found in PATH where it has no '/') with its words (NULL behind the last) and waits. Both
   its channels go to the file `log`, which is replaced. *exit_code: its own, or 128 + the signal that ended
   it. QB_ERR_NOT_FOUND when it cannot be started, QB_ERR_INTERRUPTED when this process was asked to end: the
   program is ended too. */
qb_status qb_program_run(const char *const *argv, const char *log, int *exit_code) QB_NODISCARD;
