/* Locks that hold between processes and, over NFS, between machines. They belong to an open file description
   (F_OFD_SETLK) and go with it, however its process ends; a child that is forked holds them too. */
#pragma once

#include "base/status.h"

typedef enum { QB_LOCK_SHARED, QB_LOCK_EXCLUSIVE } qb_lock_kind;
/* UNSURE: the filesystem locks nothing, or could not say. It is never to be read as "free". */
typedef enum { QB_LOCK_TAKEN, QB_LOCK_BUSY, QB_LOCK_UNSURE } qb_lock_answer;

/* Tries to lock the file behind fd, which is open for reading (shared) or for writing (exclusive); does not
   wait. errno says why it is UNSURE. */
qb_lock_answer qb_lock_try(int fd, qb_lock_kind kind);
/* Whether fd is still the file of that name: the last holder of a lock file removes it. */
bool qb_lock_is_linked(int fd, const char *path);

/* A lock on `path` through the file PATH.lock beside it. Zero-initialise; qb_file_unlock takes {0}. */
typedef struct qb_file_lock {
    char *path; /* of the lock file; NULL when not held */
    int fd;
} qb_file_lock;

/* Several may share it; one alone holds it exclusively. out->path stays NULL when the answer is BUSY. When it
   is UNSURE the lock file is there and open, but nothing is locked. Fails when the file cannot be made. */
qb_status qb_file_lock_try(const char *path, qb_lock_kind kind, qb_file_lock *out,
                           qb_lock_answer *answer) QB_NODISCARD;
/* Exclusively, so that one process at a time writes `path`: QB_ERR_USAGE when another holds it; a warning
   where the filesystem cannot lock. */
qb_status qb_file_lock_take(const char *path, qb_file_lock *out) QB_NODISCARD;
void qb_file_unlock(qb_file_lock *lock);
