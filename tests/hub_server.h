/* A hub on the loopback that misbehaves as it is told: one repository, "org/tiny" (a model or a dataset), and
   a second port as the other host that large files are redirected to. Requests are counted and kept. */
#pragma once

#include "base/hash.h"
#include "base/str.h"
#include "tests/support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define SERVED_COMMIT "0123456789abcdef0123456789abcdef01234567"

enum { FILES_SERVED = 12, STATUSES_MAX = 12, SEEN_MAX = 256 };

typedef struct {
    const char *path;
    const char *content; /* NULL ends the list */
    size_t n;
    bool large; /* SHA-256, and redirected to the other host */
    int cuts;   /* so many answers end after cut_at bytes of what was asked for */
    size_t cut_at;
    int stalls;                 /* so many stand still after 3 bytes */
    bool no_ranges;             /* answers 200 with everything to a Range */
    bool wrong_range;           /* answers 206 from another byte */
    int wrong_bytes;            /* so many answers have a flipped bit */
    int64_t listed_more;        /* the list says so many bytes more than there are */
    int64_t head_more;          /* the head does */
    bool overlong;              /* more bytes come than were announced, in chunks */
    bool wrong_hash;            /* the head says another hash than the list */
    bool no_hash;               /* the head says none */
    int statuses[STATUSES_MAX]; /* answered to its GETs first, one each; 0 ends */
    const char *status_header;  /* sent with these: "Retry-After: 1\r\n" */
    _Atomic int gets;
} served_file;

typedef struct {
    bool other; /* the other host */
    char line[300];
    char range[64];
    bool authorized;
} seen_request;

static struct {
    served_file files[FILES_SERVED + 1];
    const char *token;              /* required where not NULL */
    int api_statuses[STATUSES_MAX]; /* answered by the API first */
    const char *api_header;         /* with these */
    int page;                       /* files a page of the list; 0: all */
    const char *info;               /* instead of the answer about a revision */
    const char *tree;               /* instead of the list */
    const char *away;               /* the API leads there */
    int hub_fd, other_fd, hub_port, other_port;
    _Atomic int api_calls;
    pthread_mutex_t mutex;
    seen_request seen[SEEN_MAX];
    int n_seen;
} server = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- writing ---- */

static inline bool put_all(int fd, const char *bytes, size_t n) {
    while (n) {
        ssize_t put = send(fd, bytes, n, MSG_NOSIGNAL);
        if (put <= 0) return false;
        bytes += put;
        n -= (size_t)put;
    }
    return true;
}

static inline void reply(int fd, int status, const char *headers, const char *body, bool head) {
    qb_str out = {0};
    qb_str_printf(&out, "HTTP/1.1 %d x\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n%s", status,
                  strlen(body), headers ? headers : "", head ? "" : body);
    put_all(fd, out.text, out.length);
    qb_str_free(&out);
}

static inline void hash_of(const served_file *f, char hex[QB_SHA256_HEX]) {
    qb_hash *h;
    qb_status st = f->large ? qb_hash_begin(&h) : qb_hash_begin_blob((int64_t)f->n, &h);
    if (st != QB_OK) abort();
    qb_hash_add(h, f->content, f->n);
    qb_hash_end(h, hex);
}

/* ---- the API ---- */

static inline void put_entry(qb_str *out, const served_file *f) {
    char hex[QB_SHA256_HEX];
    long long bytes = (long long)f->n + f->listed_more;
    hash_of(f, hex);
    if (f->large)
        qb_str_printf(
            out,
            "{\"type\":\"file\",\"path\":\"%s\",\"size\":%lld,\"oid\":\"%.40s\",\"lfs\":{\"oid\":\"%s\","
            "\"size\":%lld,\"pointerSize\":130}}",
            f->path, bytes, SERVED_COMMIT, hex, bytes);
    else
        qb_str_printf(out, "{\"type\":\"file\",\"path\":\"%s\",\"size\":%lld,\"oid\":\"%s\"}", f->path, bytes,
                      hex);
}

static inline void answer_tree(int fd, const char *url) {
    const char *cursor = strstr(url, "&cursor=");
    int first = cursor ? atoi(cursor + 8) : 0, i = first;
    qb_str body = {0}, link = {0};
    qb_str_text(&body, "[{\"type\":\"directory\",\"path\":\"onnx\",\"oid\":\"x\",\"size\":0}");
    for (; server.files[i].content && (!server.page || i < first + server.page); i++) {
        qb_str_text(&body, ",");
        put_entry(&body, &server.files[i]);
    }
    qb_str_text(&body, "]");
    if (server.files[i].content)
        qb_str_printf(&link,
                      "Link: <http://127.0.0.1:%d/api/models/org/tiny/tree/%s?recursive=true&cursor=%d>; "
                      "rel=\"next\"\r\n",
                      server.hub_port, SERVED_COMMIT, i);
    reply(fd, 200, qb_str_get(&link), server.tree ? server.tree : body.text, false);
    qb_str_free(&body);
    qb_str_free(&link);
}

static inline void answer_api(int fd, const char *url) {
    int call = atomic_fetch_add(&server.api_calls, 1);
    int status = call < STATUSES_MAX ? server.api_statuses[call] : 0;
    char headers[200];
    if (status) {
        reply(fd, status, server.api_header, "{}", false);
    } else if (server.away) {
        snprintf(headers, sizeof headers, "Location: %s\r\n", server.away);
        reply(fd, 307, headers, "", false);
    } else if (!strncmp(url, "/api/models/old", 15)) {
        reply(fd, 307, "Location: /api/models/org/tiny/revision/main\r\n", "", false);
    } else if (strstr(url, "/tree/")) {
        answer_tree(fd, url);
    } else if (strstr(url, "/revision/none")) {
        reply(fd, 404, "X-Error-Code: RevisionNotFound\r\n", "{}", false);
    } else if (strstr(url, "/org/tiny/revision/")) {
        reply(fd, 200, NULL, server.info ? server.info : "{\"sha\":\"" SERVED_COMMIT "\",\"gated\":false}",
              false);
    } else {
        reply(fd, 401, "X-Error-Code: RepoNotFound\r\nX-Error-Message: Repository not found\r\n", "{}",
              false);
    }
}

/* ---- files ---- */

static inline void answer_head(int fd, const served_file *f) {
    char hex[QB_SHA256_HEX];
    qb_str head = {0};
    hash_of(f, hex);
    if (f->wrong_hash) hex[0] = hex[0] == '0' ? '1' : '0';
    qb_str_printf(&head, "HTTP/1.1 %d x\r\nConnection: close\r\nX-Repo-Commit: %s\r\n", f->large ? 302 : 200,
                  SERVED_COMMIT);
    if (f->large)
        qb_str_printf(
            &head,
            "Location: http://127.0.0.1:%d/content/%s?signed=1\r\nContent-Length: 7\r\nX-Linked-Size: "
            "%lld\r\n",
            server.other_port, f->path, (long long)f->n + f->head_more);
    else
        qb_str_printf(&head, "Content-Length: %lld\r\n", (long long)f->n + f->head_more);
    if (!f->no_hash) qb_str_printf(&head, "%s: \"%s\"\r\n", f->large ? "X-Linked-ETag" : "ETag", hex);
    qb_str_text(&head, "\r\n");
    put_all(fd, head.text, head.length);
    qb_str_free(&head);
}

static inline void stand_still(int fd) {
    char byte;
    (void)!recv(fd, &byte, 1, 0); /* until the client gives up */
}

static inline void answer_get(int fd, served_file *f, const char *range) {
    int get = atomic_fetch_add(&f->gets, 1), bad = 0;
    while (bad < STATUSES_MAX && f->statuses[bad]) bad++;
    if (get < bad) {
        reply(fd, f->statuses[get], f->status_header, "", false);
        return;
    }
    get -= bad;
    size_t from = *range && !f->no_ranges ? (size_t)strtoull(range + 6, NULL, 10) : 0, n = f->n - from;
    if (from > f->n || (from == f->n && *range)) {
        reply(fd, 416, NULL, "", false);
        return;
    }
    if (f->wrong_range && *range) from = 0;
    qb_str out = {0};
    qb_str_printf(&out, "HTTP/1.1 %d x\r\nConnection: close\r\n", *range && !f->no_ranges ? 206 : 200);
    if (*range && !f->no_ranges)
        qb_str_printf(&out, "Content-Range: bytes %zu-%zu/%zu\r\n", from, f->n - 1, f->n);
    if (f->overlong)
        qb_str_printf(&out, "Transfer-Encoding: chunked\r\n\r\n%zx\r\n%s+more\r\n0\r\n\r\n", f->n + 5,
                      f->content);
    else
        qb_str_printf(&out, "Content-Length: %zu\r\n\r\n", n);
    size_t head = out.length;
    if (!f->overlong) qb_str_append(&out, f->content + from, n);
    if (get < f->wrong_bytes) out.text[out.length - 1] ^= 1;
    size_t sent = get < f->stalls ? head + 3 : get < f->cuts ? head + f->cut_at : out.length;
    put_all(fd, out.text, sent < out.length ? sent : out.length);
    if (get < f->stalls) stand_still(fd);
    qb_str_free(&out);
}

static inline served_file *find_file(const char *url) {
    for (served_file *f = server.files; f->content; f++) {
        const char *at = strstr(url, f->path);
        if (at && at > url && at[-1] == '/' && (!at[strlen(f->path)] || at[strlen(f->path)] == '?')) return f;
    }
    return NULL;
}

/* ---- requests ---- */

static inline void handle(int fd, bool other) {
    char text[8192], method[8] = "", url[1024] = "";
    size_t n = 0;
    ssize_t got;
    while (n + 1 < sizeof text && (got = recv(fd, text + n, sizeof text - 1 - n, 0)) > 0) {
        n += (size_t)got;
        text[n] = 0;
        if (strstr(text, "\r\n\r\n")) break;
    }
    text[n] = 0;
    if (sscanf(text, "%7s %1023s", method, url) != 2) return;
    const char *range = strstr(text, "\r\nRange: "), *token = strstr(text, "\r\nAuthorization: Bearer ");
    char asked[64] = "", given[64] = "";
    if (range) sscanf(range + 9, "%63[^\r]", asked);
    if (token) sscanf(token + 24, "%63[^\r]", given);
    pthread_mutex_lock(&server.mutex);
    if (server.n_seen < SEEN_MAX) {
        seen_request *s = &server.seen[server.n_seen++];
        s->other = other;
        s->authorized = token != NULL;
        snprintf(s->line, sizeof s->line, "%s %.280s", method, url);
        snprintf(s->range, sizeof s->range, "%s", asked);
    }
    pthread_mutex_unlock(&server.mutex);
    bool head = !strcmp(method, "HEAD");
    served_file *f = find_file(url);
    if (server.token && !other && strcmp(given, server.token) != 0)
        reply(fd, *given ? 401 : 403,
              *given ? "X-Error-Message: Invalid credentials in Authorization header\r\n"
                     : "X-Error-Code: GatedRepo\r\nX-Error-Message: Access is restricted\r\n",
              "{}", head);
    else if (!other && !strncmp(url, "/api/", 5))
        answer_api(fd, url);
    else if (!f)
        reply(fd, 404, "X-Error-Code: EntryNotFound\r\nX-Repo-Commit: " SERVED_COMMIT "\r\n", "", head);
    else if (head)
        answer_head(fd, f);
    else
        answer_get(fd, f, asked);
}

static inline void *handle_one(void *ctx) {
    int fd = (int)(intptr_t)ctx;
    bool other = fd & 1;
    handle(fd >> 1, other);
    shutdown(fd >> 1, SHUT_WR);
    close(fd >> 1);
    return NULL;
}

static inline void *serve(void *ctx) {
    bool other = ctx != NULL;
    for (;;) {
        int fd = accept(other ? server.other_fd : server.hub_fd, NULL, NULL);
        pthread_t thread;
        if (fd < 0 && errno == EINTR) continue;
        if (fd < 0) return NULL;
        if (pthread_create(&thread, NULL, handle_one, (void *)(intptr_t)(fd * 2 + other)) == 0)
            pthread_detach(thread);
        else
            close(fd);
    }
}

static inline int listen_at(int *fd) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    if (*fd < 0 || bind(*fd, (struct sockaddr *)&address, n) != 0 || listen(*fd, 64) != 0 ||
        getsockname(*fd, (struct sockaddr *)&address, &n) != 0)
        fail_msg("no server on the loopback: %s", strerror(errno));
    return ntohs(address.sin_port);
}

static inline void server_start(void) {
    pthread_t threads[2];
    server.hub_port = listen_at(&server.hub_fd);
    server.other_port = listen_at(&server.other_fd);
    static int mark;
    assert_int_equal(pthread_create(&threads[0], NULL, serve, NULL), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, serve, &mark), 0);
    pthread_detach(threads[0]);
    pthread_detach(threads[1]);
}

/* A well-behaved repository, before each test. */
static inline void server_reset(void) {
    for (int i = 0; i <= FILES_SERVED; i++) server.files[i] = (served_file){0};
    for (int i = 0; i < STATUSES_MAX; i++) server.api_statuses[i] = 0;
    server.token = server.api_header = server.info = server.tree = server.away = NULL;
    server.page = server.n_seen = 0;
    atomic_store(&server.api_calls, 0);
}

static inline served_file *server_add(const char *path, const char *content, bool large) {
    served_file *f = server.files;
    while (f->content) f++;
    f->path = path;
    f->content = content;
    f->n = strlen(content);
    f->large = large;
    return f;
}

/* Requests whose line holds `text`; those with a token counted into *authorized. */
static inline int server_saw(const char *text, bool other, int *authorized) {
    int n = 0;
    if (authorized) *authorized = 0;
    for (int i = 0; i < server.n_seen; i++) {
        if (server.seen[i].other != other || !strstr(server.seen[i].line, text)) continue;
        n++;
        if (authorized) *authorized += server.seen[i].authorized;
    }
    return n;
}
