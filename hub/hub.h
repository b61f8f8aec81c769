/* The Hugging Face hub as this machine knows it: where its cache lies, which endpoint and token hold, what
   names a repository. The variables and their meaning are huggingface_hub's (2.4.0, constants.py and
   utils/_auth.py), whose cache this is. */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct qb_hub {
    char *endpoint;              /* "https://huggingface.co": no slash behind */
    char *cache;                 /* folder of repositories; it may not be there yet */
    char *token;                 /* NULL: none */
    bool offline;                /* HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE: no request is made */
    bool copies;                 /* HF_HUB_DISABLE_SYMLINKS: snapshots hold copies */
    int64_t answer_ms, stall_ms; /* to wait for an answer's head; between two bytes of a body */
} qb_hub;

/* HF_ENDPOINT; HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME; HF_TOKEN,
   HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH, HF_HUB_DISABLE_IMPLICIT_TOKEN; HF_HUB_ETAG_TIMEOUT,
   HF_HUB_DOWNLOAD_TIMEOUT. Free with qb_hub_free. */
qb_status qb_hub_open(qb_hub *out) QB_NODISCARD;
void qb_hub_free(qb_hub *hub); /* takes {0} */
/* The cache's folder alone, which needs no token to be read. Free with qb_free; NULL on exhaustion. */
char *qb_hub_cache_dir(void);
bool qb_hub_is_offline(void);

typedef enum { QB_HUB_MODEL, QB_HUB_DATASET } qb_hub_kind;
typedef struct qb_hub_repo {
    qb_hub_kind kind;
    const char *id;       /* "org/name", or a name alone */
    const char *revision; /* branch, tag, "refs/pr/1" or a commit; NULL: main */
} qb_hub_repo;

enum { QB_HUB_COMMIT = 41 }; /* 40 hex digits and a NUL */
bool qb_hub_is_commit(const char *text);
/* Whether the word can name a repository: "name" or "org/name" of letters, digits, - _ .
 * (utils/_validators.py) */
bool qb_hub_is_id(const char *word);
/* Fails with QB_ERR_USAGE unless id and revision can name a repository and its revision. */
qb_status qb_hub_check_repo(const qb_hub_repo *repo) QB_NODISCARD;
/* Whether a file's name out of an answer may become a path below a folder: no "..", nothing absolute, no
   characters that steer. */
bool qb_hub_is_path(const char *path);
/* Whether an entity tag names a content: SHA-256 (64 hex digits) or git's blob (40). */
bool qb_hub_is_etag(const char *etag);
