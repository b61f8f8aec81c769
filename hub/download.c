#include "hub/download.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "hub/address.h"
#include "hub/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 20, AGAIN_MAX = 3 };

/* A download under way. */
typedef struct {
    qb_asker *a;
    const char *revision, *path;
    qb_content *content;
    _Atomic int64_t *done;
    char *part; /* PATH.incomplete */
    int fd;
    int64_t at; /* bytes that the part has */
} download;

static qb_status fail_errno(const char *what, const char *path) {
    if (errno == ENOSPC || errno == EDQUOT)
        return qb_fail(
            QB_ERR_IO,
            "no room left on the disk for %s: make room and fetch again, which goes on where it stopped; "
            "or name another place in HF_HUB_CACHE",
            path);
    return qb_fail(QB_ERR_IO, "cannot %s %s: %s", what, path, strerror(errno));
}

/* ---- hashes ---- */

qb_status qb_content_verify(int fd, const char *etag, int64_t bytes, bool (*stopped)(void *), void *ctx,
                            bool *same) {
    char hex[QB_SHA256_HEX];
    qb_hash *hash = NULL;
    void *piece = NULL;
    struct stat info;
    bool blob = strlen(etag) == QB_BLOB_HEX - 1;
    *same = false;
    if (fstat(fd, &info) != 0) return qb_fail(QB_ERR_IO, "cannot look at a download: %s", strerror(errno));
    if (bytes >= 0 && info.st_size != bytes) return QB_OK;
    qb_status st = qb_alloc(PIECE, 1, &piece);
    if (st == QB_OK) st = blob ? qb_hash_begin_blob(info.st_size, &hash) : qb_hash_begin(&hash);
    for (off_t at = 0; st == QB_OK && at < info.st_size;) {
        ssize_t n = pread(fd, piece, PIECE, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            st = qb_fail(QB_ERR_IO, "cannot read a download back: %s", n ? strerror(errno) : "it was cut");
        if (n <= 0) break;
        qb_hash_add(hash, piece, (size_t)n);
        at += n;
        if (stopped && stopped(ctx)) st = qb_fail(QB_ERR_INTERRUPTED, "interrupted");
    }
    if (hash) qb_hash_end(hash, hex);
    if (st == QB_OK) *same = !strcmp(hex, etag);
    qb_free(piece);
    return st;
}

/* ---- receiving ---- */

static qb_status start_over(download *d) {
    if (ftruncate(d->fd, 0) != 0) return fail_errno("shorten", d->part);
    d->at = 0;
    return QB_OK;
}

/* Sees to it at the first piece that what comes is what was asked for. */
static qb_status accept_head(download *d, const qb_http_answer *head) {
    int64_t size = d->content->bytes;
    if (head->status == 200 && d->at > 0) { /* the server does not do ranges: from the start, then */
        qb_status st = start_over(d);
        if (st != QB_OK) return st;
    }
    if (head->status == 206 && (head->range_begin != d->at || (size >= 0 && head->range_total != size)))
        return qb_fail(QB_ERR_FORMAT,
                       "%s: asked for bytes from %lld of %lld, the server sends those from %lld of %lld",
                       d->path, (long long)d->at, (long long)size, (long long)head->range_begin,
                       (long long)head->range_total);
    if (size >= 0 && head->length >= 0 && d->at + head->length != size)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: the server announces %lld bytes where the hub said %lld: try again later",
                       d->path, (long long)d->at + (long long)head->length, (long long)size);
    return QB_OK;
}

static qb_status take(void *user, const qb_http_answer *head, const void *bytes, size_t n) {
    download *d = user;
    if (head->status != 200 && head->status != 206) return QB_OK;
    if (head->received == (int64_t)n) {
        qb_status st = accept_head(d, head);
        if (st != QB_OK) return st;
    }
    int64_t size = d->content->bytes;
    if (size >= 0 && d->at + (int64_t)n > size)
        return qb_fail(QB_ERR_FORMAT, "%s: the server sends more than the %lld bytes that the hub said",
                       d->path, (long long)size);
    for (const char *p = bytes; n;) {
        ssize_t put = pwrite(d->fd, p, n, d->at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail_errno("write", d->part);
        p += put;
        n -= (size_t)put;
        d->at += put;
        atomic_fetch_add(d->done, put);
    }
    return QB_OK;
}

/* GET along redirects, wherever they lead: what comes is verified, and the token stays with the hub. */
static qb_status get(download *d, qb_http_answer *answer) {
    qb_asker *a = d->a;
    char *url = qb_strdup(d->content->url);
    qb_status st = url ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
    for (int hops = 0; st == QB_OK; hops++) {
        bool own = a->hub->token && qb_url_same_host(url, a->hub->endpoint);
        qb_http_request r = {.url = url,
                             .token = own ? a->hub->token : NULL,
                             .from = d->at,
                             .answer_ms = a->hub->answer_ms,
                             .stall_ms = a->hub->stall_ms,
                             .stopped = a->stopped,
                             .stopped_ctx = a->ctx,
                             .body = take,
                             .user = d};
        st = qb_http_ask(a->http, &r, answer);
        if (st != QB_OK || answer->status < 300 || answer->status >= 400 || !answer->location[0]) break;
        char *next = NULL;
        if (hops == QB_ASK_HOPS)
            st = qb_fail(QB_ERR_IO, "%s: redirected more than %d times", d->path, QB_ASK_HOPS);
        else
            st = qb_url_join(url, answer->location, &next);
        qb_free(url);
        url = next;
    }
    qb_free(url);
    return st;
}

/* A signed address lasts about an hour: the hub is asked for another. */
static qb_status renew(download *d) {
    qb_content fresh;
    bool no_entry;
    qb_status st = qb_ask_content(d->a, d->revision, d->path, &fresh, &no_entry);
    if (st == QB_OK && strcmp(fresh.etag, d->content->etag) != 0)
        st = qb_fail(QB_ERR_FORMAT, "%s changed at the hub while it was fetched: fetch again", d->path);
    if (st == QB_OK) {
        qb_free(d->content->url);
        d->content->url = fresh.url;
        fresh.url = NULL;
    }
    qb_content_free(&fresh);
    return st;
}

static bool is_done(const download *d, const qb_http_answer *answer) {
    bool came = answer->status == 200 || answer->status == 206;
    return d->content->bytes >= 0 ? d->at == d->content->bytes : came && !answer->broken;
}

/* Until the part is whole: a cut is gone on with where it was, five times in a row without a byte at most. */
static qb_status receive(download *d) {
    qb_http_answer *answer;
    qb_status st = qb_alloc(1, sizeof *answer, &answer);
    int tries = 0, renewed = 0, reset = 0;
    if (st == QB_OK && d->content->bytes == 0) goto out;
    while (st == QB_OK && !(d->at > 0 && d->at == d->content->bytes)) {
        int64_t before = d->at;
        st = get(d, answer);
        if (st != QB_OK && !answer->broken) break;
        if (st == QB_OK && is_done(d, answer)) break;
        if (d->at > before) tries = 0;
        bool foreign = !qb_url_same_host(d->content->url, d->a->hub->endpoint);
        if (st == QB_OK && foreign && (answer->status == 401 || answer->status == 403) &&
            renewed < AGAIN_MAX) {
            renewed++;
            st = renew(d);
        } else if (st == QB_OK && answer->status == 416 && reset < AGAIN_MAX) {
            reset++; /* what is here is longer than what is there */
            st = start_over(d);
        } else if (st == QB_OK && answer->status >= 300 && !qb_ask_is_passing(answer)) {
            st = qb_ask_refused(d->a, answer, d->path);
        } else if (++tries == QB_ASK_TRIES) {
            char why[400];
            snprintf(why, sizeof why, "%.380s", st == QB_OK ? "the answer ended too early" : qb_error_text());
            st = st == QB_OK && answer->status >= 300
                     ? qb_ask_refused(d->a, answer, d->path)
                     : qb_fail(QB_ERR_IO,
                               "%s stopped at %lld of %lld bytes (%s): fetch again, which goes on from there",
                               d->path, (long long)d->at, (long long)d->content->bytes, why);
        } else {
            st = qb_ask_pause(d->a, answer, tries);
        }
    }
out:
    qb_free(answer);
    return st;
}

/* ---- the whole ---- */

static qb_status open_part(download *d) {
    struct stat info;
    d->fd = open(d->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (d->fd < 0) return fail_errno("write", d->part);
    if (fstat(d->fd, &info) != 0 || !S_ISREG(info.st_mode))
        return qb_fail(QB_ERR_IO, "%s is no regular file: remove it", d->part);
    d->at = info.st_size;
    if (d->content->bytes < 0 || d->at > d->content->bytes) return start_over(d);
    return QB_OK;
}

static qb_status drop_part(download *d, qb_status st) {
    unlink(d->part);
    return st;
}

static qb_status receive_and_verify(download *d) {
    bool same = false;
    for (int round = 0; round < 2 && !same; round++) {
        bool resumed = d->at > 0;
        qb_status st = receive(d);
        if (st != QB_OK) return st == QB_ERR_FORMAT ? drop_part(d, st) : st;
        st = qb_content_verify(d->fd, d->content->etag, d->content->bytes, d->a->stopped, d->a->ctx, &same);
        if (st != QB_OK || same) return st;
        /* What another process began may not be the beginning of this. */
        if (!resumed) break;
        qb_debug("%s: what was there of it does not fit: from the start", d->path);
        if ((st = start_over(d)) != QB_OK) return st;
    }
    return drop_part(
        d, qb_fail(QB_ERR_FORMAT,
                   "%s: what came does not have the hash that the hub says (%s): nothing of it is kept; "
                   "try again, and if it stays so, the hub or a proxy on the way is at fault",
                   d->path, d->content->etag));
}

/* On disk for good before it bears its name. */
static qb_status put_in_place(download *d, const char *blob) {
    if (fsync(d->fd) != 0) return fail_errno("write", d->part);
    if (rename(d->part, blob) != 0) return fail_errno("rename", d->part);
    return QB_OK;
}

qb_status qb_download(qb_asker *a, const char *revision, const char *path, qb_content *content,
                      _Atomic int64_t *done) {
    download d = {.a = a, .revision = revision, .path = path, .content = content, .done = done, .fd = -1};
    char *blob = qb_hub_blob(a->hub->cache, a->repo, content->etag);
    qb_str part = {0};
    qb_status st;
    qb_str_printf(&part, "%s.incomplete", blob ? blob : "");
    if (!blob) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
    QB_TRY(st, qb_str_status(&part));
    d.part = part.text;
    QB_TRY(st, open_part(&d));
    QB_TRY(st, receive_and_verify(&d));
    st = put_in_place(&d, blob);
out:
    if (st != QB_OK && d.fd >= 0 && d.at == 0) unlink(d.part); /* nothing to go on with */
    if (d.fd >= 0) close(d.fd);
    qb_str_free(&part);
    qb_free(blob);
    return st;
}
