/* Asking the hub until it answers, and saying what its answer means. Inside hub/ only. */
#pragma once

#include "hub/fetch.h"
#include "hub/http.h"

/* One thread's connection and whom it asks about what. */
typedef struct qb_asker {
    const qb_hub *hub;
    const qb_hub_repo *repo;
    qb_http *http;
    int64_t second_ms;
    bool (*stopped)(void *ctx);
    void *ctx;
} qb_asker;

/* Where a file's content is, what it is called and how large it is. */
typedef struct qb_content {
    char commit[QB_HUB_COMMIT];
    char etag[65];
    int64_t bytes; /* -1: not said */
    char *url;     /* owned */
} qb_content;

/* HEAD of a file, following the hub's own redirects: the content may lie elsewhere. QB_ERR_NOT_FOUND with
 *no_entry when the hub knows the commit and has no such file; *commit then says which. */
qb_status qb_ask_content(qb_asker *a, const char *revision, const char *path, qb_content *out,
                         bool *no_entry) QB_NODISCARD;
void qb_content_free(qb_content *c);
/* GET of an answer of the API, at most max_bytes; *text ends with a NUL. *next: the following page, or NULL.
   Free both with qb_free. */
qb_status qb_ask_text(qb_asker *a, const char *url, size_t max_bytes, char **text, size_t *n,
                      char **next) QB_NODISCARD;

/* The sentence for a status that is no success: fails with it. `what` names what was asked for. */
qb_status qb_ask_refused(const qb_asker *a, const qb_http_answer *answer, const char *what) QB_NODISCARD;
/* Whether another try may succeed (408, 429, 500, 502, 503, 504, a broken connection). */
bool qb_ask_is_passing(const qb_http_answer *answer);
/* Waits before try number `tries` (from 1): as long as the server asked, or 1, 2, 4, 8, 8 s. Fails when that
   is too long or when stopped. */
qb_status qb_ask_pause(const qb_asker *a, const qb_http_answer *answer, int tries) QB_NODISCARD;
enum { QB_ASK_TRIES = 5, QB_ASK_HOPS = 10 };
