#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TOKEN_MAX_BYTES = 4096, ID_MAX = 96, REVISION_MAX = 200, PATH_MAX_BYTES = 1024 };

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_set(const char *name) {
    static const char *const yes[] = {"1", "ON", "YES", "TRUE"};
    const char *value = variable(name);
    for (size_t i = 0; value && i < sizeof yes / sizeof yes[0]; i++)
        if (!strcasecmp(value, yes[i])) return true;
    return false;
}

bool qb_hub_is_offline(void) {
    return is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE");
}

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* "~" and "~/x" at the beginning, $NAME and ${NAME} anywhere, as os.path.expanduser and expandvars; what is
   not set stays as written. */
static char *expand(const char *path) {
    qb_str out = {0};
    const char *home = variable("HOME");
    if (path[0] == '~' && (!path[1] || path[1] == '/') && home) {
        qb_str_text(&out, home);
        path++;
    }
    while (*path) {
        bool braced = path[0] == '$' && path[1] == '{';
        const char *name = path + 1 + braced;
        size_t n = 0;
        while (path[0] == '$' && is_name(name[n])) n++;
        bool closed = n && (!braced || name[n] == '}');
        char word[128];
        const char *value = NULL;
        if (closed && n < sizeof word) {
            memcpy(word, name, n);
            word[n] = 0;
            value = getenv(word);
        }
        if (value) {
            qb_str_text(&out, value);
            path = name + n + braced;
        } else {
            qb_str_append(&out, path++, 1);
        }
    }
    if (qb_str_status(&out) != QB_OK) {
        qb_str_free(&out);
        return NULL;
    }
    return out.text ? out.text : qb_strdup("");
}

static char *home_dir(void) {
    const char *home = variable("HF_HOME"), *cache = variable("XDG_CACHE_HOME");
    if (home) return expand(home);
    char *base = expand(cache ? cache : variable("HOME") ? "~/.cache" : "/.cache");
    char *out = base ? qb_path_join(base, "huggingface") : NULL;
    qb_free(base);
    return out;
}

static char *below_home(const char *name) {
    char *home = home_dir();
    char *out = home ? qb_path_join(home, name) : NULL;
    qb_free(home);
    return out;
}

char *qb_hub_cache_dir(void) {
    const char *cache = variable("HF_HUB_CACHE");
    if (!cache) cache = variable("HUGGINGFACE_HUB_CACHE");
    return cache ? expand(cache) : below_home("hub");
}

/* A token goes into a header: what is no visible ASCII would end it or begin another. */
static qb_status take_token(const char *text, const char *where, char **out) {
    qb_str token = {0};
    for (const char *p = text; *p; p++) {
        if (*p == '\r' || *p == '\n' || *p == ' ') continue;
        if (*p < 0x21 || *p > 0x7e) {
            qb_str_free(&token);
            return qb_fail(QB_ERR_USAGE, "%s holds a character that no token has: paste the token again",
                           where);
        }
        qb_str_append(&token, p, 1);
    }
    *out = token.text;
    return qb_str_status(&token);
}

static qb_status find_token(char **out) {
    static const char *const names[] = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"};
    *out = NULL;
    if (is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return QB_OK;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        qb_status st = variable(names[i]) ? take_token(variable(names[i]), names[i], out) : QB_OK;
        if (st != QB_OK || *out) return st;
    }
    const char *named = variable("HF_TOKEN_PATH");
    char *path = named ? expand(named) : below_home("token"), *text = NULL;
    bool there = false;
    size_t n;
    qb_status st = path ? qb_path_look(path, &there) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK && there) st = qb_file_read(path, TOKEN_MAX_BYTES, &text, &n);
    if (st == QB_OK && text) st = take_token(text, path, out);
    qb_free(text);
    qb_free(path);
    return st;
}

static qb_status seconds_of(const char *name, int64_t initial, int64_t *ms) {
    const char *value = variable(name);
    char *end;
    *ms = initial;
    if (!value) return QB_OK;
    long s = strtol(value, &end, 10);
    if (*end || s < 1 || s > 86400)
        return qb_fail(QB_ERR_USAGE, "%s is \"%.40s\": expected seconds from 1 to 86400", name, value);
    *ms = s * 1000;
    return QB_OK;
}

static qb_status find_endpoint(char **out) {
    const char *named = variable("HF_ENDPOINT");
    if (!named) named = "https://huggingface.co";
    if (strncmp(named, "https://", 8) != 0 && strncmp(named, "http://", 7) != 0)
        return qb_fail(QB_ERR_USAGE,
                       "HF_ENDPOINT is \"%.80s\": expected an address that begins with https://", named);
    if (!(*out = qb_strdup(named))) return qb_fail(QB_ERR_MEMORY, "out of memory");
    for (size_t n = strlen(*out); n && (*out)[n - 1] == '/'; n--) (*out)[n - 1] = 0;
    return QB_OK;
}

qb_status qb_hub_open(qb_hub *out) {
    enum { USUAL_MS = 10000 };
    qb_status st;
    *out = (qb_hub){.offline = qb_hub_is_offline(), .copies = is_set("HF_HUB_DISABLE_SYMLINKS")};
    QB_TRY(st, seconds_of("HF_HUB_ETAG_TIMEOUT", USUAL_MS, &out->answer_ms));
    QB_TRY(st, seconds_of("HF_HUB_DOWNLOAD_TIMEOUT", USUAL_MS, &out->stall_ms));
    QB_TRY(st, find_endpoint(&out->endpoint));
    if (!(out->cache = qb_hub_cache_dir())) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
    QB_TRY(st, find_token(&out->token));
out:
    if (st != QB_OK) qb_hub_free(out);
    return st;
}

void qb_hub_free(qb_hub *hub) {
    qb_free(hub->endpoint);
    qb_free(hub->cache);
    qb_free(hub->token);
    *hub = (qb_hub){0};
}

/* ---- names ---- */

static bool is_hex(const char *text, size_t n) {
    return strlen(text) == n && strspn(text, "0123456789abcdef") == n;
}

bool qb_hub_is_commit(const char *text) {
    return is_hex(text, QB_HUB_COMMIT - 1);
}

bool qb_hub_is_etag(const char *etag) {
    return is_hex(etag, 40) || is_hex(etag, 64);
}

static bool is_part(const char *p, size_t n) {
    if (n == 0 || p[0] == '-' || p[0] == '.' || p[n - 1] == '-' || p[n - 1] == '.') return false;
    for (size_t i = 0; i < n; i++)
        if (!is_name(p[i]) && p[i] != '-' && p[i] != '.') return false;
    return true;
}

bool qb_hub_is_id(const char *word) {
    size_t n = strlen(word), first = strcspn(word, "/");
    if (n > ID_MAX || strstr(word, "--") || strstr(word, "..")) return false;
    if (n > 4 && !strcmp(word + n - 4, ".git")) return false;
    return is_part(word, first) && (first == n || is_part(word + first + 1, n - first - 1));
}

bool qb_hub_is_path(const char *path) {
    size_t length = strlen(path);
    if (length == 0 || length > PATH_MAX_BYTES || strchr(path, '\\')) return false;
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.')) return false;
        p += n;
        if (*p == '/' && !*++p) return false;
    }
    for (const char *p = path; *p;) {
        bool shown;
        p += qb_char_length(p, &shown);
        if (!shown) return false;
    }
    return true;
}

qb_status qb_hub_check_repo(const qb_hub_repo *repo) {
    if (!qb_hub_is_id(repo->id))
        return qb_fail(QB_ERR_USAGE,
                       "'%.120s' names no repository: expected ORG/NAME of letters, digits, - _ and .",
                       repo->id);
    if (repo->revision && (strlen(repo->revision) > REVISION_MAX || !qb_hub_is_path(repo->revision)))
        return qb_fail(QB_ERR_USAGE, "'%.120s' is no revision: expected a branch, a tag or a commit",
                       repo->revision);
    return QB_OK;
}
