#include "datasets/locate.h"

#include "base/memory.h"
#include "base/str.h"
#include "hub/cache.h"

#include <stdlib.h>
#include <string.h>

static const char *const suffixes[] = {"", ".gz", ".zst", ".xz", ".bz2", ".zip"};

/* Folders in order of search. */
enum { MAX_FOLDERS = 6 };
typedef struct folders {
    int n;
    char *paths[MAX_FOLDERS];
} folders;

static qb_status folders_add(folders *f, char *path) {
    if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory while looking for data");
    f->paths[f->n++] = path;
    return QB_OK;
}

static void folders_free(folders *f) {
    for (int i = 0; i < f->n; i++) qb_free(f->paths[i]);
    f->n = 0;
}

static qb_status folders_add_with_family(folders *f, const char *dir, const char *family) {
    qb_status st = folders_add(f, qb_strdup(dir));
    return st == QB_OK ? folders_add(f, qb_path_join(dir, family)) : st;
}

static qb_status folders_list(const qb_dataset *d, const char *data_dir, folders *f) {
    qb_status st = QB_OK;
    char *own = NULL, *cache = NULL;
    const char *environment = getenv("BENCH_DATA");
    *f = (folders){0};
    if (d->built_in) {
        own = qb_share_dir();
        st = own ? folders_add(f, qb_path_join(own, d->family)) : qb_fail(QB_ERR_MEMORY, "out of memory");
        goto out;
    }
    if (data_dir) {
        bool is_dir;
        QB_TRY(st, qb_path_look_dir(data_dir, &is_dir));
        if (!is_dir) QB_TRY(st, qb_fail(QB_ERR_NOT_FOUND, "%s: no such data folder", data_dir));
    }
    if (data_dir) QB_TRY(st, folders_add_with_family(f, data_dir, d->family));
    if (environment && *environment) QB_TRY(st, folders_add_with_family(f, environment, d->family));
    own = qb_cache_dir();
    cache = own ? qb_path_join(own, "data") : NULL;
    if (!cache) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
    QB_TRY(st, folders_add_with_family(f, cache, d->family));
out:
    qb_free(own);
    qb_free(cache);
    return st;
}

/* Tries folder/name with every suffix; `name` is length bytes, "archive!entry" has no suffix of its own. */
static qb_status try_name(const char *folder, const char *name, size_t length, qb_located *out) {
    const char *bang = memchr(name, '!', length);
    size_t file_length = bang ? (size_t)(bang - name) : length;
    size_t n_suffixes = bang ? 1 : sizeof suffixes / sizeof suffixes[0];
    for (size_t i = 0; i < n_suffixes; i++) {
        qb_str path = {0};
        qb_str_printf(&path, "%s/%.*s%s", folder, (int)file_length, name, suffixes[i]);
        bool there = false, is_dir = false;
        qb_status st = qb_str_status(&path);
        if (st == QB_OK) st = qb_path_look(path.text, &there);
        if (st == QB_OK) st = qb_path_look_dir(path.text, &is_dir);
        if (st != QB_OK || !there || is_dir) {
            qb_str_free(&path);
            if (st != QB_OK) return st;
            continue;
        }
        out->path = path.text;
        if (!bang) return QB_OK;
        qb_str entry = {0};
        qb_str_append(&entry, bang + 1, length - file_length - 1);
        out->entry = entry.text;
        return qb_str_status(&entry);
    }
    return QB_OK;
}

/* The first of the names found in either of two folders; out->path stays NULL when there is none. */
static qb_status try_names(char *const *pair, int n_pair, const char *names, qb_located *out) {
    for (const char *p = names; p && *p && !out->path;) {
        size_t length = strcspn(p, "|");
        for (int i = 0; i < n_pair && !out->path; i++) {
            qb_status st = try_name(pair[i], p, length, out);
            if (st != QB_OK) return st;
        }
        p += length;
        if (*p == '|') p++;
    }
    return QB_OK;
}

/* The split's file in the hub's cache, as fetched by this program or by Python's tools; out->path stays NULL
 * without. */
static qb_status look_in_hub(const qb_dataset *d, bool calibration, qb_located *out) {
    qb_hub_repo repo = {QB_HUB_DATASET, d->hub_repo, d->hub_revision};
    char commit[QB_HUB_COMMIT], *cache = qb_hub_cache_dir(), *dir = NULL, *path = NULL;
    bool there = false;
    qb_status st =
        cache ? qb_hub_snapshot(cache, &repo, &dir, commit) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK && dir) {
        path = qb_path_join(dir, calibration ? d->hub_calibration : d->hub_evaluation);
        st = path ? qb_path_look(path, &there) : qb_fail(QB_ERR_MEMORY, "out of memory");
    }
    if (st == QB_OK && there) {
        out->path = path;
        path = NULL;
    }
    qb_free(path);
    qb_free(dir);
    qb_free(cache);
    return st;
}

static void append_names(qb_str *s, const char *names) {
    for (const char *p = names; p && *p; p += *p == '|') {
        size_t length = strcspn(p, "|");
        if (s->length) qb_str_text(s, ", ");
        const char *bang = memchr(p, '!', length);
        qb_str_append(s, p, bang ? (size_t)(bang - p) : length);
        p += length;
    }
}

static qb_status fail_missing(const qb_dataset *d, const char *role, const char *names,
                              const char *substitutes, const folders *f) {
    qb_str list = {0}, where = {0};
    append_names(&list, names);
    append_names(&list, substitutes);
    int step = d->built_in ? 1 : 2;
    for (int i = 0; i < f->n; i += step) qb_str_printf(&where, "%s%s", i ? ", " : "", f->paths[i]);
    if (!d->built_in) qb_str_printf(&where, " or their folder %s", d->family);
    qb_status st =
        qb_fail(QB_ERR_NOT_FOUND,
                "%s: no %s file in %s: expected %s (or one of these with .gz .zst .xz .bz2 .zip): %s%s%s%s",
                d->name, role, qb_str_get(&where), qb_str_get(&list), d->hub_repo ? "`bench fetch " : "",
                d->hub_repo ? d->name : "", d->hub_repo ? "` gets it from the hub; or " : "", d->how_to_get);
    qb_str_free(&list);
    qb_str_free(&where);
    return st;
}

qb_status qb_dataset_locate(const qb_dataset *d, bool calibration, const char *data_dir, qb_located *out) {
    *out = (qb_located){0};
    const char *names = calibration ? d->calibration_files : d->evaluation_files;
    const char *substitutes = calibration ? d->calibration_substitutes : d->evaluation_substitutes;
    folders f;
    qb_status st = folders_list(d, data_dir, &f);
    int step = d->built_in ? 1 : 2;
    for (int i = 0; st == QB_OK && i < f.n && !out->path; i += step) {
        QB_TRY(st, try_names(f.paths + i, step, names, out));
        if (out->path) break;
        QB_TRY(st, try_names(f.paths + i, step, substitutes, out));
        out->substitute = out->path != NULL;
    }
    if (st == QB_OK && !out->path && d->hub_repo) QB_TRY(st, look_in_hub(d, calibration, out));
    if (st == QB_OK && !out->path)
        st = fail_missing(d, calibration ? d->calibration_role : d->evaluation_role, names, substitutes, &f);
out:
    folders_free(&f);
    if (st != QB_OK) qb_located_free(out);
    return st;
}

void qb_located_free(qb_located *l) {
    qb_free(l->path);
    qb_free(l->entry);
    *l = (qb_located){0};
}
