/* Where a command keeps what it makes on the way: a directory that the user named, or a temporary one. */
#pragma once

#include "base/temporary.h"

typedef struct qb_work_dir {
    char *path; /* NULL when not open */
    qb_temporary_dir own;
} qb_work_dir;

/* `keep` (made where it is not), or when it is NULL a directory of its own in $TMPDIR, named after `name`,
   which goes when it is closed. Close in any case; {0} is closed. */
qb_status qb_work_dir_open(const char *keep, const char *name, qb_work_dir *out) QB_NODISCARD;
void qb_work_dir_close(qb_work_dir *dir);
