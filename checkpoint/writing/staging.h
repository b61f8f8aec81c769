/* A directory that is filled under another name beside its target and appears under its own name only when
   it is complete. Private to checkpoint/. */
#pragma once

#include "base/temporary.h"

typedef struct qb_staging {
    char *target;           /* without trailing slashes, links resolved */
    qb_temporary_dir outer; /* TARGET.partial, which outlives its process, or a temporary directory */
    char *path;             /* OUTER/checkpoint; NULL when published or discarded */
    bool replace;
} qb_staging;

/* Removes what processes that are gone left for this target: temporary directories, and what is left of
   TARGET.partial when its checkpoint has become the target. qb_staging_open does so first. */
qb_status qb_staging_sweep(const char *target) QB_NODISCARD;
/* Makes the temporary directory, parents included. Refuses a target that is a file, or a directory with
   content unless `replace`; a directory that does not look like a checkpoint is never replaced.
   qb_staging_close in any case. */
qb_status qb_staging_open(const char *target, bool replace, qb_staging *out) QB_NODISCARD;
/* The same in TARGET.partial/checkpoint, which stays when the process ends before it published or discarded
   it, and is found again by the next call. Another process that works in it is an error. */
qb_status qb_staging_open_kept(const char *target, bool replace, qb_staging *out) QB_NODISCARD;
/* Removes what a kept directory holds: begins anew. */
qb_status qb_staging_clear(qb_staging *s) QB_NODISCARD;
/* Which directory s->path is: another one bears the name once it was exchanged for an older target. Free *out
   with qb_free. */
qb_status qb_staging_identity(const qb_staging *s, char **out) QB_NODISCARD;
/* Whether there is a target with content, for which the directory may have been exchanged. */
qb_status qb_staging_has_target(const qb_staging *s, bool *out) QB_NODISCARD;
/* Syncs the directory and renames it to its target; an older target is exchanged atomically and then removed.
 */
qb_status qb_staging_publish(qb_staging *s) QB_NODISCARD;
void qb_staging_discard(qb_staging *s); /* removes the temporary directory if there is one */
void qb_staging_close(qb_staging *s);
