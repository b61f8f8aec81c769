/* Half-written checkpoint directories: the writer fills TARGET.tmp.PID and renames it at the end. When a
   process was killed its directory stays, and is removed here once that process is gone. */
#pragma once

#include "base/status.h"

/* Removes `target`.tmp.PID of dead processes; of every target in the folder `dir` when target is NULL. What
   cannot be removed is told as a warning: it harms nothing but the disk. */
void qb_leftovers_remove(const char *dir, const char *target);
