#include "hub/http.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/str.h"
#include "hub/address.h"
#include "hub/curl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct qb_http {
    const qb_curl *curl;
    CURL *easy;
    CURLM *multi;
};

/* One request under way. */
typedef struct {
    const qb_http_request *request;
    qb_http_answer *answer;
    int64_t heard_ns; /* when the last byte came */
    bool any;         /* a byte of the head came */
    qb_status st;     /* of body() */
} asking;

qb_status qb_http_open(qb_http **out) {
    qb_http *h = NULL;
    qb_status st;
    *out = NULL;
    QB_TRY(st, qb_alloc_zero(1, sizeof *h, &h));
    QB_TRY(st, qb_curl_load(&h->curl));
    h->easy = h->curl->easy_init();
    h->multi = h->curl->multi_init();
    if (!h->easy || !h->multi) st = qb_fail(QB_ERR_MEMORY, "libcurl is out of memory");
out:
    if (st == QB_OK)
        *out = h;
    else
        qb_http_close(h);
    return st;
}

void qb_http_close(qb_http *h) {
    if (!h) return;
    if (h->multi) h->curl->multi_cleanup(h->multi);
    if (h->easy) h->curl->easy_cleanup(h->easy);
    qb_free(h);
}

/* ---- heads ---- */

static void copy(char *out, size_t room, const char *text, size_t n) {
    if (n >= room) n = room - 1;
    memcpy(out, text, n);
    out[n] = 0;
}

/* W/"abc" -> abc */
static void copy_tag(char out[200], const char *text, size_t n) {
    if (n > 2 && text[0] == 'W' && text[1] == '/') {
        text += 2;
        n -= 2;
    }
    if (n >= 2 && text[0] == '"' && text[n - 1] == '"') {
        text++;
        n -= 2;
    }
    copy(out, 200, text, n);
}

static int64_t number(const char *text, size_t n) {
    int64_t value = 0;
    if (n == 0 || n > 18) return -1;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

/* "bytes 5-9/10" */
static void take_range(const char *text, size_t n, qb_http_answer *a) {
    char line[80];
    copy(line, sizeof line, text, n);
    if (strncmp(line, "bytes ", 6) != 0) return;
    const char *begin = line + 6, *slash = strchr(begin, '/');
    a->range_begin = number(begin, strspn(begin, "0123456789"));
    if (slash) a->range_total = number(slash + 1, strlen(slash + 1));
}

/* <URL>; rel="next" */
static void take_link(const char *text, size_t n, qb_http_answer *a) {
    char line[sizeof a->next + 64];
    copy(line, sizeof line, text, n);
    for (char *p = line; (p = strchr(p, '<'));) {
        char *end = strchr(p, '>');
        if (!end) return;
        char *rest = end + 1, *stop = strchr(rest, '<');
        size_t span = stop ? (size_t)(stop - rest) : strlen(rest);
        char *rel = strstr(rest, "rel=\"next\"");
        if (rel && (size_t)(rel - rest) < span) {
            copy(a->next, sizeof a->next, p + 1, (size_t)(end - p - 1));
            return;
        }
        p = rest;
    }
}

/* "api";r=0;t=55 : t seconds until the window begins anew */
static void take_limit(const char *text, size_t n, qb_http_answer *a) {
    char line[200];
    copy(line, sizeof line, text, n);
    const char *t = strstr(line, ";t=");
    int64_t s = t ? number(t + 3, strspn(t + 3, "0123456789")) : -1;
    if (s >= 0) a->wait_s = s + 1;
}

static void clear(qb_http_answer *a) {
    *a =
        (qb_http_answer){.length = -1, .linked_size = -1, .range_begin = -1, .range_total = -1, .wait_s = -1};
}

void qb_http_take_header(const char *line, size_t n, qb_http_answer *a) {
    while (n && (line[n - 1] == '\r' || line[n - 1] == '\n' || line[n - 1] == ' ')) n--;
    if (n > 9 && !strncmp(line, "HTTP/", 5)) {
        const char *code = memchr(line, ' ', n);
        clear(a);
        if (code && n - (size_t)(code - line) >= 4) a->status = (long)number(code + 1, 3);
        return;
    }
    const char *colon = n ? memchr(line, ':', n) : NULL;
    if (!colon) return;
    size_t name = (size_t)(colon - line);
    const char *value = colon + 1, *end = line + n;
    while (value < end && (*value == ' ' || *value == '\t')) value++;
    size_t length = (size_t)(end - value);
#define IS(text) (name == sizeof text - 1 && !strncasecmp(line, text, name))
    if (IS("etag")) copy_tag(a->etag, value, length);
    if (IS("x-linked-etag")) copy_tag(a->linked_etag, value, length);
    if (IS("x-linked-size")) a->linked_size = number(value, length);
    if (IS("content-length")) a->length = number(value, length);
    if (IS("x-repo-commit")) copy(a->commit, sizeof a->commit, value, length);
    if (IS("location")) copy(a->location, sizeof a->location, value, length);
    if (IS("x-error-code")) copy(a->error_code, sizeof a->error_code, value, length);
    if (IS("x-error-message")) copy(a->error_message, sizeof a->error_message, value, length);
    if (IS("content-range")) take_range(value, length, a);
    if (IS("link")) take_link(value, length, a);
    if (IS("retry-after") && a->wait_s < 0) a->wait_s = number(value, length);
    if (IS("ratelimit")) take_limit(value, length, a);
#undef IS
}

static size_t on_header(char *line, size_t size, size_t n, void *user) {
    asking *a = user;
    a->heard_ns = qb_now_ns();
    a->any = true;
    qb_http_take_header(line, size * n, a->answer);
    return size * n;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *user) {
    asking *a = user;
    a->heard_ns = qb_now_ns();
    a->answer->received += (int64_t)(size * n);
    if (a->request->body && (a->st = a->request->body(a->request->user, a->answer, bytes, size * n)) != QB_OK)
        return 0; /* libcurl ends the transfer */
    return size * n;
}

/* ---- asking ---- */

static void limit_protocols(const qb_http *h) {
#if LIBCURL_VERSION_NUM >= 0x075500 /* 7.85 */
    h->curl->easy_setopt(h->easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    h->curl->easy_setopt(h->easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

static qb_status set_up(qb_http *h, asking *a, struct curl_slist **headers, char *why) {
    const qb_curl *c = h->curl;
    const qb_http_request *r = a->request;
    qb_str bearer = {0}, range = {0};
    c->easy_reset(h->easy);
    limit_protocols(h);
    CURLcode rc = c->easy_setopt(h->easy, CURLOPT_URL, r->url);
    c->easy_setopt(h->easy, CURLOPT_NOSIGNAL, 1L);
    c->easy_setopt(h->easy, CURLOPT_NOBODY, r->head ? 1L : 0L);
    c->easy_setopt(h->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)r->answer_ms);
    c->easy_setopt(h->easy, CURLOPT_USERAGENT, "quantbench/" QB_VERSION);
    c->easy_setopt(h->easy, CURLOPT_ERRORBUFFER, why);
    c->easy_setopt(h->easy, CURLOPT_HEADERFUNCTION, on_header);
    c->easy_setopt(h->easy, CURLOPT_HEADERDATA, a);
    c->easy_setopt(h->easy, CURLOPT_WRITEFUNCTION, on_body);
    c->easy_setopt(h->easy, CURLOPT_WRITEDATA, a);
    const char *roots = getenv("SSL_CERT_FILE"); /* as for the programs that link OpenSSL themselves */
    if (roots && *roots) c->easy_setopt(h->easy, CURLOPT_CAINFO, roots);
    *headers =
        c->slist_append(NULL, "Accept-Encoding: identity"); /* hashes and sizes are of the file itself */
    if (r->token) {
        qb_str_printf(&bearer, "Authorization: Bearer %s", r->token);
        struct curl_slist *more = *headers ? c->slist_append(*headers, qb_str_get(&bearer)) : NULL;
        if (!more) rc = CURLE_OUT_OF_MEMORY;
    }
    if (r->from > 0) {
        qb_str_printf(&range, "%lld-", (long long)r->from);
        c->easy_setopt(h->easy, CURLOPT_RANGE, qb_str_get(&range));
    }
    c->easy_setopt(h->easy, CURLOPT_HTTPHEADER, *headers);
    bool failed = rc != CURLE_OK || bearer.failed || range.failed || !*headers;
    qb_str_free(&bearer);
    qb_str_free(&range);
    return failed ? qb_fail(QB_ERR_MEMORY, "libcurl is out of memory") : QB_OK;
}

/* Runs until it ends, is stopped, or nothing came for too long; *rc is libcurl's verdict. */
static qb_status wait_for_end(qb_http *h, asking *a, CURLcode *rc, bool *late) {
    const qb_curl *c = h->curl;
    int running = 1;
    while (running) {
        if (c->multi_perform(h->multi, &running) != CURLM_OK)
            return qb_fail(QB_ERR_INTERNAL, "libcurl cannot go on");
        if (!running) break;
        if (a->request->stopped && a->request->stopped(a->request->stopped_ctx))
            return qb_fail(QB_ERR_INTERRUPTED, "interrupted");
        int64_t limit = a->any ? a->request->stall_ms : a->request->answer_ms;
        if (qb_now_ns() - a->heard_ns > limit * 1000000) {
            *late = true;
            return QB_OK;
        }
        int pause = limit < 400 ? (int)(limit / 4) + 1 : 100;
        if (c->multi_poll(h->multi, NULL, 0, pause, NULL) != CURLM_OK)
            return qb_fail(QB_ERR_INTERNAL, "libcurl cannot wait");
    }
    int left;
    for (CURLMsg *m; (m = c->multi_info_read(h->multi, &left));)
        if (m->msg == CURLMSG_DONE) *rc = m->data.result;
    return QB_OK;
}

static qb_status fail_late(const asking *a, const char *host) {
    a->answer->broken = true;
    return a->any ? qb_fail(QB_ERR_IO, "%s: nothing came for %.3g s, after %lld bytes", host,
                            (double)a->request->stall_ms / 1000, (long long)a->answer->received)
                  : qb_fail(QB_ERR_IO, "%s: no answer within %.3g s", host,
                            (double)a->request->answer_ms / 1000);
}

/* What another try cannot cure: a certificate that does not hold, an address that is none. */
static bool is_lasting(CURLcode rc) {
    return rc == CURLE_PEER_FAILED_VERIFICATION || rc == CURLE_SSL_CACERT_BADFILE ||
           rc == CURLE_UNSUPPORTED_PROTOCOL || rc == CURLE_URL_MALFORMAT || rc == CURLE_OUT_OF_MEMORY;
}

qb_status qb_http_ask(qb_http *h, const qb_http_request *request, qb_http_answer *out) {
    char why[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = NULL;
    qb_str host = {0};
    CURLcode rc = CURLE_OK;
    bool late = false, added = false;
    clear(out);
    asking a = {.request = request, .answer = out, .heard_ns = qb_now_ns()};
    qb_status st;
    qb_url_host(request->url, &host);
    QB_TRY(st, set_up(h, &a, &headers, why));
    added = h->curl->multi_add_handle(h->multi, h->easy) == CURLM_OK;
    st = added ? wait_for_end(h, &a, &rc, &late) : qb_fail(QB_ERR_INTERNAL, "libcurl takes no request");
    if (st != QB_OK) goto out;
    if (late) {
        st = fail_late(&a, qb_str_get(&host));
    } else if (a.st != QB_OK) {
        st = a.st;
    } else if (rc != CURLE_OK) {
        out->broken = !is_lasting(rc);
        st = qb_fail(QB_ERR_IO, "%s: %s", qb_str_get(&host), why[0] ? why : h->curl->easy_strerror(rc));
    }
out:
    if (added) h->curl->multi_remove_handle(h->multi, h->easy);
    h->curl->slist_free_all(headers);
    qb_str_free(&host);
    return st;
}
