#include "hub/ask.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "hub/address.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LONGEST_WAIT_S = 300 };

static bool is_success(long status) {
    return status >= 200 && status < 300;
}

bool qb_ask_is_passing(const qb_http_answer *a) {
    static const long passing[] = {408, 429, 500, 502, 503, 504};
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++)
        if (a->status == passing[i]) return true;
    return a->broken;
}

qb_status qb_ask_pause(const qb_asker *a, const qb_http_answer *answer, int tries) {
    static const int64_t waits[] = {1, 2, 4, 8, 8};
    bool asked = !is_success(answer->status) && answer->wait_s >= 0;
    int64_t s = asked ? answer->wait_s : waits[tries < 5 ? tries - 1 : 4];
    if (s > LONGEST_WAIT_S)
        return qb_fail(QB_ERR_IO, "the hub answered %ld and asks to wait for %lld s: try again then",
                       answer->status, (long long)s);
    if (s >= 10) qb_info("the hub asks to wait for %lld s", (long long)s);
    int64_t end = qb_now_ns() + s * a->second_ms * 1000000;
    while (qb_now_ns() < end) {
        static const struct timespec moment = {.tv_nsec = 2000000};
        if (a->stopped && a->stopped(a->ctx)) return qb_fail(QB_ERR_INTERRUPTED, "interrupted");
        nanosleep(&moment, NULL);
    }
    return QB_OK;
}

/* ---- what a refusal means ---- */

static bool says(const qb_http_answer *a, const char *code) {
    return !strcmp(a->error_code, code);
}

static const char *kind_of(const qb_hub_repo *repo) {
    return repo->kind == QB_HUB_MODEL ? "model" : "dataset";
}

static qb_status refuse_access(const qb_asker *a, const qb_http_answer *answer, const char *page) {
    const qb_hub_repo *repo = a->repo;
    bool token = a->hub->token != NULL;
    if (strstr(answer->error_message, "Invalid credentials") ||
        strstr(answer->error_message, "Invalid username"))
        return qb_fail(
            QB_ERR_IO,
            "the hub does not take the token for %s (401, %s): mend HF_TOKEN or the token file, or unset "
            "it for public repositories",
            repo->id, answer->error_message);
    if (says(answer, "GatedRepo"))
        return qb_fail(
            QB_ERR_IO,
            token ? "%s is gated and this token has no access (%ld): accept its licence at %s with the "
                    "account of the token"
                  : "%s is gated (%ld): accept its licence at %s and set HF_TOKEN",
            repo->id, answer->status, page);
    if (answer->status == 401)
        return qb_fail(QB_ERR_IO,
                       "the hub shows no %s %s (401): check the name at %s; a private or gated one needs %s",
                       kind_of(repo), repo->id, page,
                       token ? "a token that has access" : "HF_TOKEN, or the token file of `hf auth login`");
    return qb_fail(QB_ERR_IO, "the hub refuses %s (%ld%s%s): see %s", repo->id, answer->status,
                   answer->error_message[0] ? ", " : "", answer->error_message, page);
}

qb_status qb_ask_refused(const qb_asker *a, const qb_http_answer *answer, const char *what) {
    qb_str page = {0};
    qb_hub_page_url(a->hub->endpoint, a->repo, &page);
    const char *at = qb_str_get(&page), *revision = a->repo->revision ? a->repo->revision : "main";
    qb_status st;
    if (answer->status == 401 || answer->status == 403)
        st = refuse_access(a, answer, at);
    else if (answer->status == 404 && says(answer, "RevisionNotFound"))
        st = qb_fail(QB_ERR_NOT_FOUND, "%s has no revision '%s': see the branches and tags at %s",
                     a->repo->id, revision, at);
    else if (answer->status == 404 && says(answer, "EntryNotFound"))
        st = qb_fail(QB_ERR_NOT_FOUND, "%s has no file %s at revision %s: see %s", a->repo->id, what,
                     revision, at);
    else if (answer->status == 404)
        st = qb_fail(QB_ERR_NOT_FOUND, "the hub has no %s %s (404): check the name at %s", kind_of(a->repo),
                     a->repo->id, at);
    else if (answer->status == 429)
        st = qb_fail(QB_ERR_IO,
                     "the hub limits how often it is asked (429) and went on doing so: try again later, "
                     "or with HF_TOKEN, which has a limit of its own");
    else
        st = qb_fail(QB_ERR_IO, "%s: the hub answered %ld%s%s for %s", a->repo->id, answer->status,
                     answer->error_message[0] ? ", " : "", answer->error_message, what);
    qb_str_free(&page);
    return st;
}

/* ---- one request, asked again while that may help ---- */

static qb_status no_network(const qb_asker *a, qb_status st) {
    if (st != QB_ERR_IO) return st;
    char text[600];
    snprintf(text, sizeof text, "%.500s", qb_error_text());
    return qb_fail(
        st,
        "%s (%d tries): is there a network? HF_ENDPOINT names another hub; HF_HUB_OFFLINE=1 keeps to what "
        "lies in the cache, %s",
        text, QB_ASK_TRIES, a->hub->cache);
}

typedef struct {
    qb_str text;
    size_t max_bytes;
} gathering;

static qb_status gather(void *user, const qb_http_answer *head, const void *bytes, size_t n) {
    gathering *g = user;
    if (head->status != 200) return QB_OK;
    if (g->text.length + n > g->max_bytes)
        return qb_fail(QB_ERR_FORMAT, "the hub's answer is larger than %zu bytes", g->max_bytes);
    qb_str_append(&g->text, bytes, n);
    return qb_str_status(&g->text);
}

/* The token goes to the endpoint and to nobody else. */
static const char *token_for(const qb_asker *a, const char *url) {
    return a->hub->token && qb_url_same_host(url, a->hub->endpoint) ? a->hub->token : NULL;
}

static qb_status ask_once(qb_asker *a, const char *url, bool head, gathering *g, qb_http_answer *out) {
    qb_http_request r = {.url = url,
                         .head = head,
                         .token = token_for(a, url),
                         .answer_ms = a->hub->answer_ms,
                         .stall_ms = a->hub->stall_ms,
                         .stopped = a->stopped,
                         .stopped_ctx = a->ctx,
                         .body = g ? gather : NULL,
                         .user = g};
    if (g) g->text.length = 0;
    return qb_http_ask(a->http, &r, out);
}

static qb_status ask(qb_asker *a, const char *url, bool head, gathering *g, qb_http_answer *out) {
    for (int tries = 1;; tries++) {
        qb_status st = ask_once(a, url, head, g, out);
        if (st != QB_OK && !out->broken) return st;
        if (st == QB_OK && !qb_ask_is_passing(out)) return QB_OK;
        if (tries == QB_ASK_TRIES) return st == QB_OK ? QB_OK : no_network(a, st);
        if (tries == 1 && st != QB_OK) qb_info("%s: asking again", qb_error_text());
        if ((st = qb_ask_pause(a, out, tries)) != QB_OK) return st;
    }
}

static bool is_redirect(const qb_http_answer *a) {
    return a->status >= 300 && a->status < 400 && a->location[0];
}

/* Follows redirects on the endpoint's host; *url is replaced by where the last answer came from. `everywhere`
   false stops at the first absolute one, which a file's content may have. */
static qb_status ask_along(qb_asker *a, char **url, bool head, gathering *g, qb_http_answer *out) {
    for (int hops = 0;; hops++) {
        qb_status st = ask(a, *url, head, g, out);
        if (st != QB_OK || !is_redirect(out)) return st;
        if (head && !qb_url_is_relative(out->location)) return QB_OK;
        char *next;
        if ((st = qb_url_join(*url, out->location, &next)) != QB_OK) return st;
        if (hops == QB_ASK_HOPS || !qb_url_same_host(next, a->hub->endpoint)) {
            st = hops == QB_ASK_HOPS
                     ? qb_fail(QB_ERR_IO, "%s: redirected more than %d times", *url, QB_ASK_HOPS)
                     : qb_fail(QB_ERR_IO,
                               "%s leads to another host, \"%.200s\", which is not asked: if that is the "
                               "hub, name it in HF_ENDPOINT",
                               a->hub->endpoint, next);
            qb_free(next);
            return st;
        }
        qb_free(*url);
        *url = next;
    }
}

qb_status qb_ask_text(qb_asker *a, const char *url, size_t max_bytes, char **text, size_t *n, char **next) {
    qb_http_answer *answer = NULL;
    gathering g = {.max_bytes = max_bytes};
    char *at = qb_strdup(url);
    qb_status st;
    *text = *next = NULL;
    if (!at) return qb_fail(QB_ERR_MEMORY, "out of memory");
    QB_TRY(st, qb_alloc(1, sizeof *answer, &answer));
    QB_TRY(st, ask_along(a, &at, false, &g, answer));
    if (answer->status != 200) QB_TRY(st, qb_ask_refused(a, answer, "its files"));
    if (answer->next[0]) {
        QB_TRY(st, qb_url_join(at, answer->next, next));
        if (!qb_url_same_host(*next, a->hub->endpoint))
            QB_TRY(st, qb_fail(QB_ERR_IO, "%s: its list of files goes on at another host, \"%.200s\"",
                               a->repo->id, *next));
    }
    qb_str_append(&g.text, "", 0);
    QB_TRY(st, qb_str_status(&g.text));
    *text = g.text.text ? g.text.text : qb_strdup("");
    *n = g.text.length;
    g.text = (qb_str){0};
    if (!*text) st = qb_fail(QB_ERR_MEMORY, "out of memory");
out:
    if (st != QB_OK) {
        qb_free(*next);
        *next = NULL;
    }
    qb_str_free(&g.text);
    qb_free(answer);
    qb_free(at);
    return st;
}

/* ---- a file's head ---- */

static qb_status take_content(const qb_asker *a, const qb_http_answer *answer, const char *path,
                              const char *from, qb_content *out) {
    const char *etag = answer->linked_etag[0] ? answer->linked_etag : answer->etag;
    if (!qb_hub_is_commit(answer->commit))
        return qb_fail(QB_ERR_FORMAT, "%s: the answer for %s names no commit: is %s a hub?", a->repo->id,
                       path, a->hub->endpoint);
    if (!qb_hub_is_etag(etag))
        return qb_fail(
            QB_ERR_FORMAT,
            "%s: the hub says no hash of %s that could be verified (found \"%.80s\"): nothing is fetched",
            a->repo->id, path, etag);
    memcpy(out->commit, answer->commit, QB_HUB_COMMIT);
    memcpy(out->etag, etag, strlen(etag) + 1); /* 40 or 64 digits */
    bool elsewhere = is_redirect(answer);      /* whose length is that of the redirect's own page */
    out->bytes = answer->linked_size >= 0 ? answer->linked_size : elsewhere ? -1 : answer->length;
    if (elsewhere) return qb_url_join(from, answer->location, &out->url);
    out->url = qb_strdup(from);
    return out->url ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
}

qb_status qb_ask_content(qb_asker *a, const char *revision, const char *path, qb_content *out,
                         bool *no_entry) {
    qb_http_answer *answer = NULL;
    qb_str url = {0};
    char *at = NULL;
    qb_status st;
    *out = (qb_content){.bytes = -1};
    *no_entry = false;
    QB_TRY(st, qb_hub_file_url(a->hub->endpoint, a->repo, revision, path, &url));
    at = url.text;
    url = (qb_str){0};
    QB_TRY(st, qb_alloc(1, sizeof *answer, &answer));
    QB_TRY(st, ask_along(a, &at, true, NULL, answer));
    if (is_success(answer->status) || is_redirect(answer)) {
        st = take_content(a, answer, path, at, out);
    } else {
        *no_entry = answer->status == 404 && says(answer, "EntryNotFound");
        if (*no_entry && qb_hub_is_commit(answer->commit)) memcpy(out->commit, answer->commit, QB_HUB_COMMIT);
        st = qb_ask_refused(a, answer, path);
    }
out:
    qb_str_free(&url);
    qb_free(answer);
    qb_free(at);
    return st;
}

void qb_content_free(qb_content *c) {
    qb_free(c->url);
    *c = (qb_content){0};
}
