/* Where a model comes from: known shapes, and the word on the command line -> directory. */
#include "base/file.h"
#include "base/memory.h"
#include "hub/cache.h"
#include "model/model.h"

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

/* A word with a slash or a suffix that names a file means it; "llama-2-7b" in a folder of that name does not.
 */
static qb_status look_for_file(const char *word, bool *is_file) {
    size_t n = strlen(word);
    bool meant = strchr(word, '/') || (n > 5 && !strcmp(word + n - 5, ".gguf"));
    *is_file = false;
    return meant ? qb_path_look(word, is_file) : QB_OK;
}

/* The snapshot of `main` in the hub's cache; *out stays NULL where the word names none. */
static qb_status look_in_hub(const char *cache, const char *id, char **out) {
    qb_hub_repo repo = {QB_HUB_MODEL, id, NULL};
    char commit[QB_HUB_COMMIT];
    return qb_hub_is_id(id) ? qb_hub_snapshot(cache, &repo, out, commit) : QB_OK;
}

static qb_status not_found(const char *word, const qb_known_model *known, const char *cache) {
    if (known)
        return qb_fail(QB_ERR_NOT_FOUND,
                       "model %s (%s) is not in the Hugging Face cache %s: `bench fetch %s` gets it, "
                       "--model DIR names its directory, --synthetic measures its shape",
                       known->name, known->hub_id, cache, known->hub_id);
    if (strchr(word, '/') && qb_hub_is_id(word))
        return qb_fail(QB_ERR_NOT_FOUND,
                       "model '%s' is neither a directory or GGUF file, nor in the Hugging Face cache %s: "
                       "`bench fetch %s` gets it from the hub",
                       word, cache, word);
    return qb_fail(QB_ERR_NOT_FOUND,
                   "model '%s' is neither a directory or GGUF file, nor in the Hugging Face cache %s, nor a "
                   "known name; `bench list models` shows those",
                   word, cache);
}

qb_status qb_model_resolve(const char *word, char **out) {
    bool synthetic = !strncmp(word, "synthetic:", 10), is_file = false, is_dir = false;
    qb_status st = synthetic ? QB_OK : look_for_file(word, &is_file);
    *out = NULL;
    if (st == QB_OK && !synthetic) st = qb_path_look_dir(word, &is_dir);
    if (st != QB_OK) return st;
    if (synthetic || is_file || is_dir) {
        *out = qb_strdup(word);
        return *out ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
    }
    if (!strcmp(word, "demo")) {
        char *share = qb_share_dir();
        *out = share ? qb_path_join(share, "demo") : NULL;
        qb_free(share);
        return *out ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
    }
    const qb_known_model *known = qb_known_model_find(word);
    char *cache = qb_hub_cache_dir();
    st = cache ? look_in_hub(cache, known ? known->hub_id : word, out)
               : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK && !*out) st = not_found(word, known, cache);
    qb_free(cache);
    return st;
}
