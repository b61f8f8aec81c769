/* Where a model comes from: known shapes, and the word on the command line -> directory. */
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "model/model.h"

#include <dirent.h>
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

/* <hub>/models--ORG--NAME: the revision that refs/main names, else the newest snapshot directory's name in
 * order. */
static char *hub_snapshot(const char *hub, const char *id) {
    qb_str folder = {0};
    qb_str_printf(&folder, "%s/models--", hub);
    for (const char *p = id; *p; p++) qb_str_append(&folder, *p == '/' ? "--" : p, *p == '/' ? 2 : 1);
    char *refs = NULL, *snapshots = NULL, *revision = NULL, *result = NULL;
    if (qb_str_status(&folder) != QB_OK) goto out;
    refs = qb_path_join(folder.text, "refs/main");
    snapshots = qb_path_join(folder.text, "snapshots");
    if (!refs || !snapshots) goto out;
    size_t n;
    if (qb_path_exists(refs) && qb_file_read(refs, 256, &revision, &n) == QB_OK) {
        revision[strcspn(revision, "\r\n ")] = 0;
        if (*revision && !strchr(revision, '/')) result = qb_path_join(snapshots, revision);
    }
    if (!result || !qb_path_is_dir(result)) {
        qb_free(result);
        result = NULL;
        DIR *dir = opendir(snapshots);
        char best[256] = "";
        for (struct dirent *e; dir && (e = readdir(dir));)
            if (e->d_name[0] != '.' && strcmp(e->d_name, best) > 0)
                snprintf(best, sizeof best, "%s", e->d_name);
        if (dir) closedir(dir);
        if (*best) result = qb_path_join(snapshots, best);
    }
out:
    qb_free(refs);
    qb_free(snapshots);
    qb_free(revision);
    qb_str_free(&folder);
    return result;
}

static char *hub_dir(void) {
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME"), *user = getenv("HOME");
    if (hub && *hub) return qb_strdup(hub);
    if (home && *home) return qb_path_join(home, "hub");
    return qb_path_join(user && *user ? user : "/", ".cache/huggingface/hub");
}

/* A word with a slash or a suffix that names a file means it; "llama-2-7b" in a folder of that name does not.
 */
static bool is_file(const char *word) {
    size_t n = strlen(word);
    bool meant = strchr(word, '/') || (n > 5 && !strcmp(word + n - 5, ".gguf"));
    return meant && qb_path_exists(word);
}

qb_status qb_model_resolve(const char *word, char **out) {
    *out = NULL;
    if (!strncmp(word, "synthetic:", 10) || qb_path_is_dir(word) || is_file(word)) {
        *out = qb_strdup(word);
    } else if (!strcmp(word, "demo")) {
        char *share = qb_share_dir();
        *out = share ? qb_path_join(share, "demo") : NULL;
        qb_free(share);
    } else {
        const qb_known_model *known = qb_known_model_find(word);
        const char *id = known ? known->hub_id : word;
        char *hub = hub_dir();
        if (hub && strchr(id, '/')) *out = hub_snapshot(hub, id);
        if (!*out || !qb_path_is_dir(*out)) {
            qb_free(*out);
            *out = NULL;
            qb_status st =
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
