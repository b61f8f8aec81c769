/* Where a model comes from: known shapes, and the word on the command line -> directory. */
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "model/model.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qb_known_model known_models[] = {
#define X(name, hub_id, summary, config) {name, hub_id, summary, config},
#include "model/known_models.def"
#undef X
};
enum { N_KNOWN = sizeof known_models / sizeof known_models[0] };

const qb_known_model *qb_known_model_at(size_t index) {
    return index < N_KNOWN ? &known_models[index] : NULL;
}

const qb_known_model *qb_known_model_find(const char *name) {
    for (size_t i = 0; i < N_KNOWN; i++)
        if (!strcmp(known_models[i].name, name) ||
            (known_models[i].hub_id && !strcmp(known_models[i].hub_id, name)))
            return &known_models[i];
    return NULL;
}

/* The last name in order below `snapshots`; *out stays NULL without one. */
static qb_status last_snapshot(const char *snapshots, char **out) {
    char best[256] = "";
    bool there;
    qb_status st = qb_path_look(snapshots, &there);
    if (st != QB_OK || !there) return st;
    DIR *dir = opendir(snapshots);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot list %s: %s", snapshots, strerror(errno));
    for (struct dirent *e; (e = qb_dir_next(dir, snapshots, &st));)
        if (e->d_name[0] != '.' && strcmp(e->d_name, best) > 0) snprintf(best, sizeof best, "%s", e->d_name);
    closedir(dir);
    if (st == QB_OK && *best && !(*out = qb_path_join(snapshots, best)))
        st = qb_fail(QB_ERR_MEMORY, "out of memory");
    return st;
}

/* <hub>/models--ORG--NAME: the revision that refs/main names, else the newest snapshot directory's name in
 * order. *out stays NULL where the hub's cache has none. */
static qb_status hub_snapshot(const char *hub, const char *id, char **out) {
    qb_str folder = {0};
    qb_str_printf(&folder, "%s/models--", hub);
    for (const char *p = id; *p; p++) qb_str_append(&folder, *p == '/' ? "--" : p, *p == '/' ? 2 : 1);
    char *refs = NULL, *snapshots = NULL, *revision = NULL, *result = NULL;
    bool there, complete = false;
    size_t n;
    qb_status st;
    QB_TRY(st, qb_str_status(&folder));
    refs = qb_path_join(folder.text, "refs/main");
    snapshots = qb_path_join(folder.text, "snapshots");
    if (!refs || !snapshots) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
    QB_TRY(st, qb_path_look(refs, &there));
    if (there) {
        QB_TRY(st, qb_file_read(refs, 256, &revision, &n));
        revision[strcspn(revision, "\r\n ")] = 0;
        if (*revision && !strchr(revision, '/')) result = qb_path_join(snapshots, revision);
    }
    if (result) QB_TRY(st, qb_path_look_dir(result, &complete));
    if (!complete) {
        qb_free(result);
        result = NULL;
        QB_TRY(st, last_snapshot(snapshots, &result));
    }
out:
    qb_free(refs);
    qb_free(snapshots);
    qb_free(revision);
    qb_str_free(&folder);
    *out = result;
    return st;
}

static char *hub_dir(void) {
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME"), *user = getenv("HOME");
    if (hub && *hub) return qb_strdup(hub);
    if (home && *home) return qb_path_join(home, "hub");
    return qb_path_join(user && *user ? user : "/", ".cache/huggingface/hub");
}

/* A word with a slash or a suffix that names a file means it; "llama-2-7b" in a folder of that name does not.
 */
static qb_status look_for_file(const char *word, bool *is_file) {
    size_t n = strlen(word);
    bool meant = strchr(word, '/') || (n > 5 && !strcmp(word + n - 5, ".gguf"));
    *is_file = false;
    return meant ? qb_path_look(word, is_file) : QB_OK;
}

qb_status qb_model_resolve(const char *word, char **out) {
    bool synthetic = !strncmp(word, "synthetic:", 10), is_file = false, is_dir = false;
    qb_status st = synthetic ? QB_OK : look_for_file(word, &is_file);
    *out = NULL;
    if (st == QB_OK && !synthetic) st = qb_path_look_dir(word, &is_dir);
    if (st != QB_OK) return st;
    if (synthetic || is_file || is_dir) {
        *out = qb_strdup(word);
    } else if (!strcmp(word, "demo")) {
        char *share = qb_share_dir();
        *out = share ? qb_path_join(share, "demo") : NULL;
        qb_free(share);
    } else {
        const qb_known_model *known = qb_known_model_find(word);
        const char *id = known ? known->hub_id : word;
        char *hub = hub_dir();
        if (hub && strchr(id, '/')) st = hub_snapshot(hub, id, out);
        if (st == QB_OK && *out) st = qb_path_look_dir(*out, &is_dir);
        if (st != QB_OK) {
            qb_free(*out);
            qb_free(hub);
            *out = NULL;
            return st;
        }
        if (!is_dir) {
            qb_free(*out);
            *out = NULL;
            st =
                known
                    ? qb_fail(QB_ERR_NOT_FOUND,
                              "model %s (%s) is not in the Hugging Face cache %s; give its "
                              "directory with --model DIR, or "
                              "measure its shape with --synthetic",
                              known->name, id, hub ? hub : "")
                    : qb_fail(QB_ERR_NOT_FOUND,
                              "model '%s' is neither a directory or GGUF file, nor in the Hugging Face cache "
                              "%s, nor a known name; "
                              "`bench list models` shows those",
                              word, hub ? hub : "");
            qb_free(hub);
            return st;
        }
        qb_free(hub);
    }
    return *out ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
}
