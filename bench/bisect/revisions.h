/* The revisions of a Git repository: which lie between two, and their trees to build in. Asks the program
   `git`; the user's repository is read and never written. */
#pragma once

#include "base/status.h"

enum { QB_COMMIT_CHARS = 65 };

typedef struct qb_commit {
    char id[QB_COMMIT_CHARS];
    char *subject, *author, *date; /* owned; clean; date YYYY-MM-DD */
} qb_commit;
void qb_commit_free(qb_commit *c);

typedef struct qb_repository {
    char *path; /* of its Git directory */
    char *log;  /* the file that git's words go to */
} qb_repository;

/* `dir`: the repository or any folder in it; `scratch`: a folder for git's words. QB_ERR_USAGE when there is
   none. Close in any case. */
qb_status qb_repository_open(const char *dir, const char *scratch, qb_repository *out) QB_NODISCARD;
void qb_repository_close(qb_repository *r);

/* The commit that a revision names. QB_ERR_USAGE when none is. */
qb_status qb_repository_commit(const qb_repository *r, const char *revision, qb_commit *out) QB_NODISCARD;
qb_status qb_repository_is_ancestor(const qb_repository *r, const char *old, const char *new_id,
                                    bool *yes) QB_NODISCARD;
/* Ids of the commits that `bad` reaches and none of `good` does, `bad` among them: those first that part the
   others most evenly. Owned array. */
qb_status qb_repository_between(const qb_repository *r, const char *bad, const char *const *good,
                                size_t n_good, char (**ids)[QB_COMMIT_CHARS], size_t *n) QB_NODISCARD;
/* `tree` becomes a checkout of that commit, a clone that borrows the repository's objects; files that an
   earlier one's build made stay, so that a build can go on from them. */
qb_status qb_repository_checkout(const qb_repository *r, const char *commit, const char *tree) QB_NODISCARD;
