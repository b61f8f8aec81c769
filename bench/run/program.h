/* Another program as a process of its own: what `bench ab` and `bench bisect` measure and build with. */
#pragma once

#include "base/status.h"

/* Starts argv[0] (found in PATH where it has no '/') with its words (NULL behind the last) and waits. Both
   its channels go to the file `log`, which is replaced. *exit_code: its own, or 128 + the signal that ended
   it. QB_ERR_NOT_FOUND when it cannot be started, QB_ERR_INTERRUPTED when this process was asked to end: the
   program is ended too, and what it started (they are a process group of their own). */
qb_status qb_program_run(const char *const *argv, const char *log, int *exit_code) QB_NODISCARD;

/* The end of what a program said, for a message. */
enum { QB_LAST_LINE_CHARS = 200 };
void qb_program_last_line(const char *log, char out[QB_LAST_LINE_CHARS]);
