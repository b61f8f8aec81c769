/* Directories that people give for a model and that are none: an adapter, Meta's own files, the hub's cache,
   a folder of models. */
#include "base/str.h"
#include "checkpoint/state.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_REF_BYTES = 4096 };

/* For hints: as far as it can be seen. */
static bool has(const char *dir, const char *name) {
    char *path = qb_path_join(dir, name);
    bool exists = path && qb_path_exists(path);
    qb_free(path);
    return exists;
}

static qb_status look_below(const char *dir, const char *name, bool *there) {
    char *path = qb_path_join(dir, name);
    qb_status st = path ? qb_path_look(path, there) : qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_free(path);
    return st;
}

/* ---- the hub's cache: models--ORG--NAME holds refs/main, which names a folder of snapshots/ ---- */

static qb_status lone_snapshot(const char *snapshots, char name[256]) {
    int n = 0;
    DIR *dir = opendir(snapshots);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot list %s: %s", snapshots, strerror(errno));
    qb_status st = QB_OK;
    for (struct dirent *e; (e = qb_dir_next(dir, snapshots, &st));)
        if (e->d_name[0] != '.' && ++n) snprintf(name, 256, "%s", e->d_name);
    closedir(dir);
    if (st != QB_OK) return st;
    if (n == 1) return QB_OK;
    return qb_fail(
        QB_ERR_NOT_FOUND,
        "%s holds %d snapshots and there is no refs/main beside it to say which is meant: give the "
        "path of one",
        snapshots, n);
}

qb_status qb_checkpoint_resolve(const char *path, char **out) {
    char *snapshots = qb_path_join(path, "snapshots"), *ref = qb_path_join(path, "refs/main"), *text = NULL;
    char name[256] = "";
    size_t n;
    bool there = false, hub = false;
    qb_status st = snapshots && ref ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
    *out = NULL;
    if (st != QB_OK) goto out;
    QB_TRY(st, look_below(path, "config.json", &there));
    QB_TRY(st, qb_path_look_dir(snapshots, &hub));
    if (there || !hub) {
        *out = qb_strdup(path);
    } else {
        QB_TRY(st, qb_path_look(ref, &there));
        if (there) {
            QB_TRY(st, qb_file_read(ref, MAX_REF_BYTES, &text, &n));
            snprintf(name, sizeof name, "%.*s", (int)strcspn(text, " \r\n"), text);
        } else {
            QB_TRY(st, lone_snapshot(snapshots, name));
        }
        there = *name && !strchr(name, '/') && *name != '.';
        if (there) QB_TRY(st, look_below(snapshots, name, &there));
        if (!there) {
            st = qb_fail(QB_ERR_NOT_FOUND,
                         "%s names the snapshot \"%.80s\", which is not in %s: the download is not complete",
                         ref, name, snapshots);
            goto out;
        }
        *out = qb_path_join(snapshots, name);
    }
    if (!*out) st = qb_fail(QB_ERR_MEMORY, "out of memory");
out:
    qb_free(text);
    qb_free(snapshots);
    qb_free(ref);
    return st;
}

/* ---- what a directory is that holds no model ---- */

static qb_status name_adapter(const char *dir) {
    char *path = qb_path_join(dir, "adapter_config.json");
    const char *base = NULL, *type = NULL;
    qb_json *json = NULL;
    qb_status st =
        path ? qb_json_read(path, MAX_CONFIG_BYTES, &json) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) {
        base = qb_json_string(qb_json_get(json, "base_model_name_or_path"));
        type = qb_json_string(qb_json_get(json, "peft_type"));
        st = qb_fail(QB_ERR_UNSUPPORTED,
                     "%s is a PEFT adapter (%.40s) for the base model %.200s, not a model: merge the two "
                     "(`bench merge BASE ADAPTER -o DIR`) and give the merged directory",
                     dir, type ? type : "of no named type", base ? base : "that it does not name");
    }
    qb_json_free(json);
    qb_free(path);
    return st;
}

/* Sub-folders that look like models, as far as they can be seen: a hint. */
static int count_models(const char *path, char example[256]) {
    int n = 0;
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char *below = e->d_name[0] == '.' ? NULL : qb_path_join(path, e->d_name);
        bool model = below && (has(below, "config.json") || (has(below, "snapshots") && has(below, "refs")));
        if (model && (!n++ || strcmp(e->d_name, example) < 0)) snprintf(example, 256, "%s", e->d_name);
        qb_free(below);
    }
    if (dir) closedir(dir);
    return n;
}

qb_status qb_checkpoint_explain(const char *dir) {
    char example[256] = "";
    if (has(dir, "adapter_config.json")) return name_adapter(dir);
    if (has(dir, "params.json") || has(dir, "consolidated.00.pth"))
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s holds the authors' own layout (params.json, consolidated.*), not a Hugging Face "
                       "directory: convert it (for Llama: transformers' convert_llama_weights_to_hf.py) or "
                       "get the converted model",
                       dir);
    int n = count_models(dir, example);
    if (n > 0)
        return qb_fail(QB_ERR_USAGE,
                       "%s is a folder of %d models, not a model: give the path of one, such as %s/%s", dir,
                       n, dir, example);
    return QB_OK;
}

qb_status qb_checkpoint_explain_no_adapter(const char *dir) {
    if (has(dir, "config.json"))
        return qb_fail(QB_ERR_USAGE,
                       "%s is a model (it has a config.json and no adapter_config.json), not an adapter: the "
                       "order is BASE, then ADAPTER",
                       dir);
    return qb_fail(QB_ERR_NOT_FOUND, "%s holds no adapter_config.json: it is no PEFT adapter", dir);
}

qb_status qb_checkpoint_check_magic(const char *path, const uint8_t *bytes, size_t size) {
    static const struct {
        const char *magic, *name, *undo;
        size_t n;
    } kinds[] = {{"\x1f\x8b\x08", "gzip", "gunzip", 3},
                 {"\xfd"
                  "7zXZ",
                  "xz", "unxz", 5},
                 {"\x28\xb5\x2f\xfd", "zstandard", "zstd -d", 4},
                 {"BZh", "bzip2", "bunzip2", 3}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        /* The length of a safetensors header may begin so, but '{' follows it. */
        if (size > 8 && bytes[8] != '{' && !memcmp(bytes, kinds[i].magic, kinds[i].n))
            return qb_fail(QB_ERR_FORMAT, "%s: is compressed with %s: decompress it first (%s)", path,
                           kinds[i].name, kinds[i].undo);
    return QB_OK;
}
