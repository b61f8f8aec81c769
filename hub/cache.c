#include "hub/cache.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *prefix_of(qb_hub_kind kind) {
    return kind == QB_HUB_MODEL ? "models--" : "datasets--";
}

char *qb_hub_folder(const char *cache, const qb_hub_repo *repo) {
    qb_str out = {0};
    qb_str_printf(&out, "%s/%s", cache, prefix_of(repo->kind));
    for (const char *p = repo->id; *p; p++) qb_str_append(&out, *p == '/' ? "--" : p, *p == '/' ? 2 : 1);
    if (qb_str_status(&out) == QB_OK) return out.text;
    qb_str_free(&out);
    return NULL;
}

/* ---- names in a folder, sorted ---- */

typedef struct {
    char **names;
    size_t n, capacity;
} name_list;

static void names_free(name_list *list) {
    for (size_t i = 0; i < list->n; i++) qb_free(list->names[i]);
    qb_free(list->names);
    *list = (name_list){0};
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The entries that begin with `prefix` and not with a dot; none where the folder is not there. */
static qb_status names_read(const char *path, const char *prefix, name_list *out) {
    bool there;
    qb_status st = qb_path_look_dir(path, &there);
    *out = (name_list){0};
    if (st != QB_OK || !there) return st;
    DIR *dir = opendir(path);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot list %s: %s", path, strerror(errno));
    for (struct dirent *e; st == QB_OK && (e = qb_dir_next(dir, path, &st));) {
        if (e->d_name[0] == '.' || strncmp(e->d_name, prefix, strlen(prefix)) != 0) continue;
        st = qb_grow(&out->names, &out->capacity, out->n + 1, sizeof *out->names);
        if (st != QB_OK) break;
        if ((out->names[out->n] = qb_strdup(e->d_name)))
            out->n++;
        else
            st = qb_fail(QB_ERR_MEMORY, "out of memory");
    }
    closedir(dir);
    if (st != QB_OK)
        names_free(out);
    else if (out->n)
        qsort(out->names, out->n, sizeof *out->names, by_name);
    return st;
}

/* ---- a revision -> its snapshot ---- */

static qb_status read_ref(const char *folder, const char *revision, char out[QB_HUB_COMMIT]) {
    char *refs = qb_path_join(folder, "refs"), *path = refs ? qb_path_join(refs, revision) : NULL,
         *text = NULL;
    size_t n;
    bool there = false;
    qb_status st = path ? qb_path_look(path, &there) : qb_fail(QB_ERR_MEMORY, "out of memory");
    out[0] = 0;
    if (st == QB_OK && there) st = qb_file_read(path, 256, &text, &n);
    if (st == QB_OK && text) {
        text[strcspn(text, "\r\n ")] = 0;
        /* What older tools and tests wrote there need not be a commit, but must be a folder's name. */
        if (!strchr(text, '/') && text[0] != '.') snprintf(out, QB_HUB_COMMIT, "%s", text);
    }
    qb_free(text);
    qb_free(path);
    qb_free(refs);
    return st;
}

static qb_status find_snapshot(const char *folder, const char *commit, char **dir) {
    char *snapshots = qb_path_join(folder, "snapshots"),
         *path = snapshots ? qb_path_join(snapshots, commit) : NULL;
    bool there = false;
    qb_status st = path ? qb_path_look_dir(path, &there) : qb_fail(QB_ERR_MEMORY, "out of memory");
    *dir = st == QB_OK && there ? path : NULL;
    if (!*dir) qb_free(path);
    qb_free(snapshots);
    return st;
}

static qb_status last_snapshot(const char *folder, char **dir, char commit[QB_HUB_COMMIT]) {
    char *snapshots = qb_path_join(folder, "snapshots");
    name_list names = {0};
    qb_status st = snapshots ? names_read(snapshots, "", &names) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK && names.n) {
        snprintf(commit, QB_HUB_COMMIT, "%s", names.names[names.n - 1]);
        *dir = qb_path_join(snapshots, names.names[names.n - 1]);
        if (!*dir) st = qb_fail(QB_ERR_MEMORY, "out of memory");
    }
    names_free(&names);
    qb_free(snapshots);
    return st;
}

qb_status qb_hub_snapshot(const char *cache, const qb_hub_repo *repo, char **dir,
                          char commit[QB_HUB_COMMIT]) {
    const char *revision = repo->revision ? repo->revision : "main";
    char *folder = qb_hub_folder(cache, repo);
    qb_status st;
    *dir = NULL;
    commit[0] = 0;
    if (!folder) return qb_fail(QB_ERR_MEMORY, "out of memory");
    if (qb_hub_is_commit(revision))
        snprintf(commit, QB_HUB_COMMIT, "%s", revision);
    else
        QB_TRY(st, read_ref(folder, revision, commit));
    if (commit[0]) QB_TRY(st, find_snapshot(folder, commit, dir));
    st = *dir || repo->revision ? QB_OK : last_snapshot(folder, dir, commit);
    if (!*dir) commit[0] = 0;
out:
    qb_free(folder);
    return st;
}

bool qb_hub_name_of(const char *path, char *out, size_t room) {
    const char *commit = qb_path_base(path), *inner = "/snapshots/";
    size_t n = strlen(inner), before = (size_t)(commit - path);
    if (before < n || strncmp(commit - n, inner, n) != 0) return false;
    const char *end = commit - n, *folder = end;
    while (folder > path && folder[-1] != '/') folder--;
    size_t head = strlen(prefix_of(QB_HUB_MODEL)), length = (size_t)(end - folder);
    if (length <= head || strncmp(folder, prefix_of(QB_HUB_MODEL), head) != 0) return false;
    const char *name = folder + head;
    for (const char *p = name; p + 2 < end; p++)
        if (p[0] == '-' && p[1] == '-') {
            name = p + 2;
            break;
        }
    snprintf(out, room, "%.*s", (int)(end - name), name);
    return true;
}

/* ---- what lies in the cache ---- */

/* Counts the files below, links followed to their blobs; folders are never linked. */
static qb_status measure(const char *path, int depth, qb_hub_entry *e) {
    enum { DEEPEST = 32 };
    name_list names;
    qb_status st = depth < DEEPEST ? names_read(path, "", &names)
                                   : qb_fail(QB_ERR_FORMAT, "%s: folders in folders without end", path);
    if (st != QB_OK) return st;
    for (size_t i = 0; st == QB_OK && i < names.n; i++) {
        char *child = qb_path_join(path, names.names[i]);
        struct stat own, info;
        if (!child) {
            st = qb_fail(QB_ERR_MEMORY, "out of memory");
        } else if (lstat(child, &own) != 0 || stat(child, &info) != 0) {
            e->lost++;
        } else if (S_ISDIR(own.st_mode)) {
            st = measure(child, depth + 1, e);
        } else if (S_ISREG(info.st_mode)) {
            e->files++;
            e->bytes += info.st_size;
        }
        qb_free(child);
    }
    names_free(&names);
    return st;
}

static void add_ref(qb_hub_entry *e, const char *name) {
    size_t n = strlen(e->refs);
    snprintf(e->refs + n, sizeof e->refs - n, "%s%s", n ? ", " : "", name);
}

/* refs/ may hold folders (refs/pr/1). */
static qb_status collect_refs(const char *folder, const char *below, int depth, qb_hub_entry *e) {
    char *refs = qb_path_join(folder, "refs"), *path = refs && *below ? qb_path_join(refs, below) : refs;
    name_list names = {0};
    qb_status st = path ? names_read(path, "", &names) : qb_fail(QB_ERR_MEMORY, "out of memory");
    for (size_t i = 0; st == QB_OK && i < names.n; i++) {
        char commit[QB_HUB_COMMIT];
        qb_str name = {0};
        qb_str_printf(&name, "%s%s%s", below, *below ? "/" : "", names.names[i]);
        char *file = qb_path_join(path, names.names[i]);
        bool is_dir = false;
        st = file ? qb_str_status(&name) : qb_fail(QB_ERR_MEMORY, "out of memory");
        if (st == QB_OK) st = qb_path_look_dir(file, &is_dir);
        if (st == QB_OK && is_dir && depth < 4) {
            st = collect_refs(folder, name.text, depth + 1, e);
        } else if (st == QB_OK && !is_dir) {
            st = read_ref(folder, name.text, commit);
            if (st == QB_OK && !strcmp(commit, e->commit)) add_ref(e, name.text);
        }
        qb_free(file);
        qb_str_free(&name);
    }
    names_free(&names);
    if (path != refs) qb_free(path);
    qb_free(refs);
    return st;
}

qb_status qb_hub_revisions(const char *snapshot, char out[128]) {
    qb_hub_entry e = {0};
    char *snapshots = qb_path_dir(snapshot), *folder = snapshots ? qb_path_dir(snapshots) : NULL;
    snprintf(e.commit, sizeof e.commit, "%s", qb_path_base(snapshot));
    qb_status st = folder ? collect_refs(folder, "", 0, &e) : qb_fail(QB_ERR_MEMORY, "out of memory");
    memcpy(out, e.refs, sizeof e.refs);
    qb_free(folder);
    qb_free(snapshots);
    return st;
}

/* "models--org--name" -> "org/name"; a "--" behind the first belongs to a name of an older day. */
static void id_of(const char *folder, const char *prefix, char out[256]) {
    const char *p = folder + strlen(prefix), *cut = strstr(p, "--");
    if (cut)
        snprintf(out, 256, "%.*s/%s", (int)(cut - p), p, cut + 2);
    else
        snprintf(out, 256, "%s", p);
}

static qb_status visit_repo(const char *folder, const char *id, qb_hub_visit visit, void *user) {
    char *snapshots = qb_path_join(folder, "snapshots");
    name_list names = {0};
    qb_status st = snapshots ? names_read(snapshots, "", &names) : qb_fail(QB_ERR_MEMORY, "out of memory");
    for (size_t i = 0; st == QB_OK && i < names.n; i++) {
        qb_hub_entry e = {0};
        snprintf(e.id, sizeof e.id, "%s", id);
        snprintf(e.commit, sizeof e.commit, "%s", names.names[i]);
        snprintf(e.path, sizeof e.path, "%s/%s", snapshots, names.names[i]);
        st = measure(e.path, 0, &e);
        if (st == QB_OK) st = collect_refs(folder, "", 0, &e);
        if (st == QB_OK) st = visit(user, &e);
    }
    names_free(&names);
    qb_free(snapshots);
    return st;
}

qb_status qb_hub_walk(const char *cache, qb_hub_kind kind, qb_hub_visit visit, void *user) {
    const char *prefix = prefix_of(kind);
    name_list names;
    qb_status st = names_read(cache, prefix, &names);
    for (size_t i = 0; st == QB_OK && i < names.n; i++) {
        char id[256], *folder = qb_path_join(cache, names.names[i]);
        id_of(names.names[i], prefix, id);
        st = folder ? visit_repo(folder, id, visit, user) : qb_fail(QB_ERR_MEMORY, "out of memory");
        qb_free(folder);
    }
    names_free(&names);
    return st;
}
