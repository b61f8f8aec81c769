/* What a repository holds at a commit, as the hub's answers say: untrusted JSON. */
#pragma once

#include "hub/hub.h"

typedef struct qb_hub_file {
    char *path;    /* owned */
    int64_t bytes; /* -1: not known */
    char etag[65]; /* SHA-256 of a large file, git's hash of a plain one; "" not known */
} qb_hub_file;

typedef struct qb_hub_listing {
    char commit[QB_HUB_COMMIT];
    qb_hub_file *files; /* owned; in the order of the answer */
    size_t n, capacity;
} qb_hub_listing;
void qb_hub_listing_free(qb_hub_listing *l); /* takes {0} */
qb_status qb_hub_listing_add(qb_hub_listing *l, const char *path, int64_t bytes,
                             const char *etag) QB_NODISCARD;
/* All sizes together; those not known count as 0. */
int64_t qb_hub_listing_bytes(const qb_hub_listing *l);

/* The answer about a revision: {"sha": commit, ..}. */
qb_status qb_hub_read_info(const char *text, size_t n, const char *where,
                           char commit[QB_HUB_COMMIT]) QB_NODISCARD;
/* A page of the tree: [{"type": "file", "path", "size", "oid", "lfs": {"oid", "size"}}, ..]. Appends its
 * files. */
qb_status qb_hub_read_tree(const char *text, size_t n, const char *where, qb_hub_listing *out) QB_NODISCARD;

/* Keeps those files that a model needs: config and tokenizer, the weights as safetensors or else as PyTorch's
   .bin; or, with `globs` (comma-separated), those whose path matches one. *skipped_bytes is of the others.
   Fails where none is left, saying what there is. */
qb_status qb_hub_choose(qb_hub_listing *l, const char *globs, const char *id,
                        int64_t *skipped_bytes) QB_NODISCARD;
