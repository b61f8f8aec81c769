#include "hub/listing.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

/* More files than any repository has that anybody measures; a page holds 1000. */
enum { FILES_MAX = 200000 };
static const int64_t bytes_max = (int64_t)1 << 50;

void qb_hub_listing_free(qb_hub_listing *l) {
    for (size_t i = 0; i < l->n; i++) qb_free(l->files[i].path);
    qb_free(l->files);
    *l = (qb_hub_listing){0};
}

qb_status qb_hub_listing_add(qb_hub_listing *l, const char *path, int64_t bytes, const char *etag) {
    if (l->n == FILES_MAX) return qb_fail(QB_ERR_FORMAT, "the hub lists more than %d files", FILES_MAX);
    qb_status st = qb_grow(&l->files, &l->capacity, l->n + 1, sizeof *l->files);
    if (st != QB_OK) return st;
    qb_hub_file *f = &l->files[l->n];
    *f = (qb_hub_file){.path = qb_strdup(path), .bytes = bytes};
    if (!f->path) return qb_fail(QB_ERR_MEMORY, "out of memory");
    snprintf(f->etag, sizeof f->etag, "%s", etag);
    l->n++;
    return QB_OK;
}

int64_t qb_hub_listing_bytes(const qb_hub_listing *l) {
    int64_t bytes = 0;
    for (size_t i = 0; i < l->n; i++)
        if (l->files[i].bytes > 0 && bytes < bytes_max * 8) bytes += l->files[i].bytes;
    return bytes;
}

/* ---- answers ---- */

qb_status qb_hub_read_info(const char *text, size_t n, const char *where, char commit[QB_HUB_COMMIT]) {
    qb_json *json = NULL;
    const char *sha = NULL;
    qb_status st;
    QB_TRY(st, qb_json_parse(text, n, where, &json));
    if (!qb_json_is_object(json)) QB_TRY(st, qb_fail(QB_ERR_FORMAT, "%s: expected an object", where));
    QB_TRY(st, qb_json_text(json, "sha", where, true, &sha));
    if (!qb_hub_is_commit(sha))
        QB_TRY(st, qb_fail(QB_ERR_FORMAT, "%s: \"sha\" is \"%.60s\", no commit of 40 digits", where, sha));
    memcpy(commit, sha, QB_HUB_COMMIT);
out:
    qb_json_free(json);
    return st;
}

static qb_status read_entry(const qb_json *e, const char *where, qb_hub_listing *out) {
    const char *type = NULL, *path = NULL, *etag = NULL;
    int64_t bytes = 0;
    qb_status st;
    if (!qb_json_is_object(e)) return qb_fail(QB_ERR_FORMAT, "%s: expected a list of objects", where);
    QB_TRY(st, qb_json_text(e, "type", where, true, &type));
    if (strcmp(type, "file") != 0) return QB_OK;
    QB_TRY(st, qb_json_text(e, "path", where, true, &path));
    if (!qb_hub_is_path(path))
        return qb_fail(QB_ERR_FORMAT, "%s: a file is called \"%.100s\", which is no path below a folder",
                       where, path);
    const qb_json *lfs = qb_json_get(e, "lfs"), *of = qb_json_is_object(lfs) ? lfs : e;
    QB_TRY(st, qb_json_int(of, "size", where, true, 0, bytes_max, &bytes));
    QB_TRY(st, qb_json_text(of, "oid", where, true, &etag));
    if (!qb_hub_is_etag(etag))
        return qb_fail(QB_ERR_FORMAT, "%s: %s has the hash \"%.80s\": expected SHA-256, or git's", where,
                       path, etag);
    st = qb_hub_listing_add(out, path, bytes, etag);
out:
    return st;
}

qb_status qb_hub_read_tree(const char *text, size_t n, const char *where, qb_hub_listing *out) {
    qb_json *json;
    qb_status st = qb_json_parse(text, n, where, &json);
    if (st != QB_OK) return st;
    if (!qb_json_is_array(json)) st = qb_fail(QB_ERR_FORMAT, "%s: expected a list of files", where);
    for (const qb_json *e = qb_json_first(json); e && st == QB_OK; e = qb_json_next(e))
        st = read_entry(e, where, out);
    qb_json_free(json);
    return st;
}

/* ---- choosing ---- */

static bool ends(const char *name, const char *suffix) {
    size_t n = strlen(name), s = strlen(suffix);
    return n > s && !strcmp(name + n - s, suffix);
}

static bool begins(const char *name, const char *head) {
    return !strncmp(name, head, strlen(head));
}

static bool is_safetensors(const char *path) {
    return !strchr(path, '/') && ends(path, ".safetensors") && !begins(path, "consolidated");
}

static bool is_bin(const char *path) {
    return !strchr(path, '/') && ends(path, ".bin") &&
           (begins(path, "pytorch_model") || begins(path, "adapter_model"));
}

/* Configuration, tokenizer and indices: small files of the top folder. An index of a form that is not taken
   stays behind with it. */
static bool is_beside(const char *path, bool safetensors) {
    static const char *const suffixes[] = {".json", ".txt", ".model", ".jinja", ".tiktoken"};
    if (strchr(path, '/') || begins(path, "consolidated") || begins(path, "flax_") ||
        begins(path, "tf_model"))
        return false;
    if (safetensors && ends(path, ".bin.index.json")) return false;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (ends(path, suffixes[i])) return true;
    return false;
}

static bool matches(const char *globs, const char *path) {
    for (const char *p = globs; *p;) {
        size_t n = strcspn(p, ",");
        qb_str glob = {0};
        qb_str_append(&glob, p, n);
        bool hit = qb_str_status(&glob) == QB_OK && !fnmatch(qb_str_get(&glob), path, 0);
        qb_str_free(&glob);
        if (hit) return true;
        p += n + (p[n] == ',');
    }
    return false;
}

static qb_status nothing_left(const qb_hub_listing *l, const char *globs, const char *id) {
    qb_str names = {0};
    size_t shown = 0;
    for (size_t i = 0; i < l->n && shown < 6; i++)
        if (globs || ends(l->files[i].path, ".gguf") || ends(l->files[i].path, ".onnx") ||
            ends(l->files[i].path, ".h5"))
            qb_str_printf(&names, "%s%s", shown++ ? ", " : "", l->files[i].path);
    qb_status st =
        globs ? qb_fail(QB_ERR_NOT_FOUND, "%s: no file matches '%s'; there are %s%s", id, globs,
                        shown ? qb_str_get(&names) : "none", l->n > shown ? ", .." : "")
              : qb_fail(QB_ERR_NOT_FOUND, "%s holds no weights as safetensors or pytorch_model.bin%s%s%s", id,
                        shown ? "; there are " : "", qb_str_get(&names),
                        shown ? ": choose with --include GLOB" : "");
    qb_str_free(&names);
    return st;
}

qb_status qb_hub_choose(qb_hub_listing *l, const char *globs, const char *id, int64_t *skipped_bytes) {
    bool safetensors = false, bin = false;
    size_t kept = 0;
    *skipped_bytes = 0;
    for (size_t i = 0; i < l->n; i++) {
        safetensors = safetensors || is_safetensors(l->files[i].path);
        bin = bin || is_bin(l->files[i].path);
    }
    if (!globs && !safetensors && !bin) return nothing_left(l, NULL, id);
    bool any = false;
    for (size_t i = 0; i < l->n; i++) any = any || (globs && matches(globs, l->files[i].path));
    if (globs && !any) return nothing_left(l, globs, id);
    for (size_t i = 0; i < l->n; i++) {
        const char *path = l->files[i].path;
        bool wanted =
            globs ? matches(globs, path)
                  : is_beside(path, safetensors) || (safetensors ? is_safetensors(path) : is_bin(path));
        if (wanted) {
            l->files[kept++] = l->files[i];
        } else {
            *skipped_bytes += l->files[i].bytes > 0 ? l->files[i].bytes : 0;
            qb_free(l->files[i].path);
        }
    }
    l->n = kept;
    return QB_OK;
}
