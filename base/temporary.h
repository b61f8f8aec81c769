/* What is not finished yet bears a name of its own beside its target, TARGET.tmp.PLACE.PID.N, and is renamed
   to it when it is whole. PLACE says which machine, boot and space of process ids the PID belongs to; a lock
   that its maker holds says that it lives. What a killed process left is removed by the next one that writes
   there. */
#pragma once

#include "base/status.h"

/* Makes and opens an empty file for writing beside `path`, exclusively; locked while *fd is open. Free *name
   with qb_free. `mode` as for open. */
qb_status qb_temporary_file(const char *path, unsigned mode, char **name, int *fd) QB_NODISCARD;

typedef struct qb_temporary_dir {
    char *path;  /* of the outer directory, which holds a file "lock"; NULL when there is none */
    int lock_fd; /* -1 when not open */
} qb_temporary_dir;

/* Makes TARGET.tmp.PLACE.PID.N and locks it. What is to be renamed to the target is made inside. */
qb_status qb_temporary_dir_make(const char *target, qb_temporary_dir *out) QB_NODISCARD;
/* Takes the existing directory out->path for this process alone, through its file "lock": a warning where the
   filesystem cannot lock, QB_ERR_IO when another process holds it. */
qb_status qb_temporary_dir_lock(qb_temporary_dir *dir, const char *target) QB_NODISCARD;
/* Removes it with all that is in it. */
qb_status qb_temporary_dir_remove(qb_temporary_dir *dir) QB_NODISCARD;
void qb_temporary_dir_close(qb_temporary_dir *dir); /* lets go; what is there stays */

/* Removes what processes that are gone left in `dir` for the target named `base`, or for every target when
   base is NULL. A process of this place is gone when its lock is free and its id too; one of another place
   when its lock is free and nothing changed for a day, because some mounts lock on one machine only. What
   cannot be removed is told as a warning: it harms nothing but the disk. */
void qb_temporary_sweep(const char *dir, const char *base);
