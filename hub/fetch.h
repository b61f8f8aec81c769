/* Bringing files of a repository into the cache. A snapshot's file is there whole, with its hash verified, or
   not at all; what a cut left of a blob (blobs/ETAG.incomplete) is gone on with by the next try.
   refs/REVISION is written last, so that a revision never leads to a snapshot of which a file is missing. */
#pragma once

#include "hub/listing.h"

typedef struct qb_fetch_options {
    int jobs;              /* files at a time; 0: 4 */
    bool (*stopped)(void); /* asked often; may be NULL */
    int64_t second_ms;     /* what a second of a pause between tries lasts; 0: 1000. Tests are in a hurry */
    int64_t free_bytes;    /* what the disk is said to have free; 0: what it has */
} qb_fetch_options;

typedef struct qb_fetched {
    char *dir;                /* of the snapshot; owned */
    int64_t n_new, new_bytes; /* that were fetched now; the others were there */
} qb_fetched;
void qb_fetched_free(qb_fetched *f);

/* Asks for the commit of repo->revision, and for the commit's files with sizes and hashes. Fails at once when
   hub->offline. Errors say what the hub said and what to do: a name that is wrong, a licence to be accepted,
   a token that is not taken, no network. */
qb_status qb_hub_list(const qb_hub *hub, const qb_hub_repo *repo, const qb_fetch_options *o,
                      qb_hub_listing *out) QB_NODISCARD;
/* The same for files that are known by name, of a repository too large to be listed: sizes and hashes by one
   request each. What the hub does not have is remembered in .no_exist and fails. */
qb_status qb_hub_list_named(const qb_hub *hub, const qb_hub_repo *repo, const char *const *paths, size_t n,
                            const qb_fetch_options *o, qb_hub_listing *out) QB_NODISCARD;
/* Fetches what of the listing is not in the cache yet: checks the free disk, downloads several files at a
   time, verifies each, links it into the snapshot; then sets the ref. Says its progress on stderr. */
qb_status qb_hub_fetch(const qb_hub *hub, const qb_hub_repo *repo, const qb_hub_listing *listing,
                       const qb_fetch_options *o, qb_fetched *out) QB_NODISCARD;
