#include "hub/address.h"

#include "base/memory.h"
#include "hub/curl.h"

#include <string.h>

/* RFC 3986, 2.3: what stays as it is; `also` may name one more. */
static void encode(const char *text, char also, qb_str *out) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (const char *p = text; *p; p++) {
        if (strchr(plain, *p) || (also && *p == also))
            qb_str_append(out, p, 1);
        else
            qb_str_printf(out, "%%%02X", (unsigned char)*p);
    }
}

static const char *revision_of(const qb_hub_repo *repo) {
    return repo->revision ? repo->revision : "main";
}

qb_status qb_hub_file_url(const char *endpoint, const qb_hub_repo *repo, const char *revision,
                          const char *path, qb_str *out) {
    qb_hub_page_url(endpoint, repo, out);
    qb_str_text(out, "/resolve/");
    encode(revision, 0, out);
    qb_str_text(out, "/");
    encode(path, '/', out);
    return qb_str_status(out);
}

static void api_url(const char *endpoint, const qb_hub_repo *repo, qb_str *out) {
    qb_str_printf(out, "%s/api/%s/%s", endpoint, repo->kind == QB_HUB_MODEL ? "models" : "datasets",
                  repo->id);
}

qb_status qb_hub_info_url(const char *endpoint, const qb_hub_repo *repo, qb_str *out) {
    api_url(endpoint, repo, out);
    qb_str_text(out, "/revision/");
    encode(revision_of(repo), 0, out);
    return qb_str_status(out);
}

qb_status qb_hub_tree_url(const char *endpoint, const qb_hub_repo *repo, const char *commit, qb_str *out) {
    api_url(endpoint, repo, out);
    qb_str_printf(out, "/tree/%s?recursive=true&expand=false", commit);
    return qb_str_status(out);
}

void qb_hub_page_url(const char *endpoint, const qb_hub_repo *repo, qb_str *out) {
    qb_str_printf(out, "%s/%s%s", endpoint, repo->kind == QB_HUB_MODEL ? "" : "datasets/", repo->id);
}

/* ---- URLs, by libcurl's parser: the one that the requests go by ---- */

bool qb_url_is_relative(const char *location) {
    size_t scheme = strspn(location, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-.");
    return !(scheme && location[scheme] == ':') && strncmp(location, "//", 2) != 0;
}

static CURLU *parse(const qb_curl *c, const char *text) {
    CURLU *url = c->url();
    if (url && c->url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK) return url;
    c->url_cleanup(url);
    return NULL;
}

static bool same_part(const qb_curl *c, const CURLU *a, const CURLU *b, CURLUPart part) {
    char *x = NULL, *y = NULL;
    bool got = c->url_get(a, part, &x, CURLU_DEFAULT_PORT) == CURLUE_OK &&
               c->url_get(b, part, &y, CURLU_DEFAULT_PORT) == CURLUE_OK;
    bool same = got && !strcmp(x, y); /* libcurl gives scheme and host in lower case */
    c->free(x);
    c->free(y);
    return same;
}

bool qb_url_same_host(const char *a, const char *b) {
    const qb_curl *c;
    if (qb_curl_load(&c) != QB_OK) return false;
    CURLU *x = parse(c, a), *y = parse(c, b);
    bool same = x && y && same_part(c, x, y, CURLUPART_SCHEME) && same_part(c, x, y, CURLUPART_HOST) &&
                same_part(c, x, y, CURLUPART_PORT);
    c->url_cleanup(x);
    c->url_cleanup(y);
    return same;
}

static bool begins(const char *text, const char *head) {
    return !strncmp(text, head, strlen(head));
}

qb_status qb_url_join(const char *base, const char *location, char **out) {
    const qb_curl *c;
    char *text = NULL;
    *out = NULL;
    qb_status st = qb_curl_load(&c);
    if (st != QB_OK) return st;
    CURLU *url = parse(c, base);
    bool joined = url && c->url_set(url, CURLUPART_URL, location, 0) == CURLUE_OK &&
                  c->url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK;
    if (!joined)
        st = qb_fail(QB_ERR_FORMAT, "the server leads to \"%.200s\", which is no address", location);
    else if (!begins(text, "https://") && !begins(text, "http://"))
        st = qb_fail(QB_ERR_FORMAT, "the server leads to \"%.200s\": only http and https are followed",
                     location);
    else if (begins(base, "https://") && !begins(text, "https://"))
        st = qb_fail(QB_ERR_FORMAT,
                     "the server leads from https to \"%.200s\", where anybody could listen in", location);
    else if (!(*out = qb_strdup(text)))
        st = qb_fail(QB_ERR_MEMORY, "out of memory");
    c->free(text);
    c->url_cleanup(url);
    return st;
}

void qb_url_host(const char *url, qb_str *out) {
    const char *host = strstr(url, "://");
    size_t n = host ? (size_t)(host - url) + 3 : 0;
    qb_str_append(out, url, n + strcspn(url + n, "/?#"));
}
