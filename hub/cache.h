/* The hub's cache on disk, shared with Python's tools (huggingface_hub 2.4.0, file_download.py):

     models--ORG--NAME/refs/REVISION              text: the commit
                       snapshots/COMMIT/PATH      link to ../../blobs/ETAG, one more ../ a folder
                       blobs/ETAG                 content; ETAG is its SHA-256, or git's hash of a plain file
                       .no_exist/COMMIT/PATH      empty: the hub said that there is no such file
     .locks/models--ORG--NAME/ETAG.lock           flock(2) while the blob is written */
#pragma once

#include "hub/hub.h"

/* CACHE/models--ORG--NAME. Free with qb_free; NULL on exhaustion. */
char *qb_hub_folder(const char *cache, const qb_hub_repo *repo);

/* What a revision is here, without a request: the folder of its snapshot, and its commit. *dir is NULL when
   the cache has none. Where no revision is named and refs/main is not there or leads nowhere, the last
   snapshot in order serves. Free *dir with qb_free. */
qb_status qb_hub_snapshot(const char *cache, const qb_hub_repo *repo, char **dir,
                          char commit[QB_HUB_COMMIT]) QB_NODISCARD;

/* "../models--ORG--NAME/snapshots/COMMIT" -> "NAME", cut to the room; false for any other path. */
bool qb_hub_name_of(const char *path, char *out, size_t room);

/* The revisions that lead to a snapshot's folder ("main, v1.0"), "" where none does: then it was the last in
   order. Any other path has none. */
qb_status qb_hub_revisions(const char *snapshot, char out[128]) QB_NODISCARD;

/* A snapshot that lies in the cache. */
typedef struct qb_hub_entry {
    char id[256];
    char commit[QB_HUB_COMMIT]; /* or what else the folder is called, cut */
    char refs[128];             /* "main", "main, v1.0", "" */
    char path[1024];
    int64_t files, bytes; /* what can be opened */
    int64_t lost;         /* links that lead nowhere */
} qb_hub_entry;
typedef qb_status (*qb_hub_visit)(void *user, const qb_hub_entry *entry);
/* Calls visit for every snapshot of every repository of the kind, in order of their names. A cache that is
   not there has none. */
qb_status qb_hub_walk(const char *cache, qb_hub_kind kind, qb_hub_visit visit, void *user) QB_NODISCARD;

/* ---- writing ---- */

/* Makes the cache and the folders of a repository. */
qb_status qb_hub_make_folders(const char *cache, const qb_hub_repo *repo) QB_NODISCARD;
/* The path of a blob; free with qb_free, NULL on exhaustion. */
char *qb_hub_blob(const char *cache, const qb_hub_repo *repo, const char *etag);
/* Whether the snapshot has the file, whole: a link to a blob that is there, or a copy. */
qb_status qb_hub_has(const char *cache, const qb_hub_repo *repo, const char *commit, const char *path,
                     bool *there) QB_NODISCARD;
/* Puts the blob into the snapshot as `path`: a relative link, or a copy where links are not wanted or not
   possible. */
qb_status qb_hub_link(const qb_hub *hub, const qb_hub_repo *repo, const char *commit, const char *path,
                      const char *etag) QB_NODISCARD;
/* refs/REVISION := commit; nothing for a revision that is a commit. */
qb_status qb_hub_set_ref(const char *cache, const qb_hub_repo *repo, const char *commit) QB_NODISCARD;
/* Remembers that the hub has no such file at this commit. */
qb_status qb_hub_set_absent(const char *cache, const qb_hub_repo *repo, const char *commit,
                            const char *path) QB_NODISCARD;

/* Waits for the lock of a blob, asking `stopped` (may be NULL) between tries; *fd is -1 where the filesystem
   locks nothing. Ends with qb_hub_unlock. */
qb_status qb_hub_lock(const char *cache, const qb_hub_repo *repo, const char *etag, bool (*stopped)(void),
                      int *fd) QB_NODISCARD;
void qb_hub_unlock(int fd);
