/* One request and its answer. Redirects are not followed here: who asked decides where they may lead. */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct qb_http qb_http; /* a connection that lives on; of one thread */
qb_status qb_http_open(qb_http **out) QB_NODISCARD;
void qb_http_close(qb_http *http); /* takes NULL */

/* The head of an answer, as far as the hub's protocol knows it. Texts are cut to their room; "" where absent.
 */
typedef struct qb_http_answer {
    long status;
    char etag[200], linked_etag[200]; /* without W/ and quotes */
    char commit[80];                  /* X-Repo-Commit */
    char location[8192], next[4096];  /* next: of Link with rel="next" */
    char error_code[80], error_message[400];
    int64_t length, linked_size;      /* Content-Length, X-Linked-Size; -1: not said */
    int64_t range_begin, range_total; /* Content-Range; -1 */
    int64_t wait_s;                   /* until it may be asked again (ratelimit, Retry-After); -1 */
    int64_t received;                 /* bytes of the body that were handed over */
    bool broken; /* the connection failed, was cut or stood still: another try may do better */
} qb_http_answer;

/* Takes a piece of a body; what it returns other than QB_OK ends the request with it. The head is whole. */
typedef qb_status (*qb_http_body)(void *user, const qb_http_answer *head, const void *bytes, size_t n);

typedef struct qb_http_request {
    const char *url;
    bool head;         /* HEAD; else GET */
    const char *token; /* NULL: none is sent */
    int64_t from;      /* of a GET: the first byte wanted; 0: no Range */
    int64_t answer_ms, stall_ms;
    bool (*stopped)(void *ctx); /* asked several times a second; may be NULL */
    void *stopped_ctx;
    qb_http_body body; /* NULL: bodies are thrown away */
    void *user;
} qb_http_request;

/* QB_OK when an answer came whole, whatever its status says. */
qb_status qb_http_ask(qb_http *http, const qb_http_request *request, qb_http_answer *out) QB_NODISCARD;
/* One line of a head, for tests and fuzzing; a status line clears what came before. */
void qb_http_take_header(const char *line, size_t n, qb_http_answer *out);
