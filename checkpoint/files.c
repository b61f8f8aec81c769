/* Which files of a directory hold the tensors, and their opening: safetensors, else files of torch.save; one
 * file, or shards with an index. */
#include "base/str.h"
#include "checkpoint/state.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INDEX_BYTES = 100 << 20, MAX_SHARDS = 10000 };

/* ---- which files hold the tensors ---- */

static bool is_plain_name(const char *name) {
    return qb_tensor_name_ok(name) && !strchr(name, '/') && name[0] != '.';
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static qb_status join(qb_arena *arena, const char *dir, const char *name, const char **out) {
    char *path = qb_path_join(dir, name);
    if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_status st = qb_arena_strdup(arena, path, out);
    qb_free(path);
    return st;
}

qb_status qb_checkpoint_add_shard(qb_checkpoint *ck, const char *path) {
    qb_status st = qb_grow(&ck->shards, &ck->shards_capacity, ck->n_shards + 1, sizeof *ck->shards);
    if (st != QB_OK) return st;
    qb_shard *s = &ck->shards[ck->n_shards];
    *s = (qb_shard){0};
    st = qb_arena_strdup(&ck->arena, path, &s->path);
    if (st == QB_OK) {
        s->file_name = qb_path_base(s->path);
        ck->n_shards++;
    }
    return st;
}

static qb_status add_shard(qb_checkpoint *ck, const char *name) {
    const char *path = NULL;
    qb_status st = join(&ck->arena, ck->dir, name, &path);
    return st == QB_OK ? qb_checkpoint_add_shard(ck, path) : st;
}

static int by_file_name(const void *a, const void *b) {
    return strcmp(((const qb_shard *)a)->file_name, ((const qb_shard *)b)->file_name);
}

/* The shards that an index names, each once, in the order of their names. */
static qb_status list_index_shards(qb_checkpoint *ck, const char *path, const qb_json *index) {
    const qb_json *map = qb_json_get(index, "weight_map");
    if (!qb_json_is_object(map) || !qb_json_first(map))
        return qb_fail(QB_ERR_FORMAT, "%s: \"weight_map\" must name the file of every tensor", path);
    qb_names seen = {0};
    qb_status st = QB_OK;
    for (const qb_json *j = qb_json_first(map); st == QB_OK && j; j = qb_json_next(j)) {
        const char *file = qb_json_string(j);
        uint32_t position = 0;
        if (!file || !is_plain_name(file))
            st = qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: \"%.100s\" is not a plain file name", path,
                         qb_json_key(j), file ? file : "(not a string)");
        else if (ck->n_shards >= MAX_SHARDS)
            st = qb_fail(QB_ERR_UNSUPPORTED, "%s: more than %d shards", path, MAX_SHARDS);
        else
            st = qb_names_add(&seen, file, (uint32_t)ck->n_shards, &position);
        if (st == QB_OK && position == ck->n_shards) st = add_shard(ck, file);
    }
    qb_names_free(&seen);
    if (st == QB_OK) qsort(ck->shards, ck->n_shards, sizeof *ck->shards, by_file_name);
    return st;
}

static bool is_torch_name(const char *name) {
    return ends_with(name, ".bin") || ends_with(name, ".pt") || ends_with(name, ".pth");
}

/* What training leaves beside the weights. */
static bool is_training_state(const char *name) {
    static const char *const starts[] = {"training_args", "optimizer", "scheduler",
                                         "scaler",        "rng_state", "random_states"};
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++)
        if (!strncmp(name, starts[i], strlen(starts[i]))) return true;
    return false;
}

typedef struct {
    int n;
    char name[256]; /* the last one found */
} found_files;

enum { SAFETENSORS, TORCH, SAFETENSORS_INDEX, TORCH_INDEX, N_KINDS };

/* The kind of a file of weights; N_KINDS for other files, and for those that other programs read: an
   adapter's, and the authors' own layout beside a converted one. */
static int kind_of(const char *name) {
    if (name[0] == '.' || is_training_state(name) || !strncmp(name, "consolidated", 12) ||
        !strncmp(name, "adapter_model", 13))
        return N_KINDS;
    return ends_with(name, ".safetensors")              ? SAFETENSORS
           : is_torch_name(name)                        ? TORCH
           : ends_with(name, ".safetensors.index.json") ? SAFETENSORS_INDEX
           : ends_with(name, ".bin.index.json")         ? TORCH_INDEX
                                                        : N_KINDS;
}

static qb_status list_weight_files(const qb_checkpoint *ck, found_files found[N_KINDS]) {
    memset(found, 0, N_KINDS * sizeof *found);
    DIR *dir = opendir(ck->dir);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot list %s: %s", ck->dir, strerror(errno));
    qb_status st = QB_OK;
    for (struct dirent *e; (e = qb_dir_next(dir, ck->dir, &st));) {
        int kind = kind_of(e->d_name);
        if (kind == N_KINDS) continue;
        found[kind].n++;
        snprintf(found[kind].name, sizeof found[kind].name, "%s", e->d_name);
    }
    closedir(dir);
    return st;
}

/* Older GPTQ repositories name their one file freely ("gptq_model-4bit-128g.safetensors", "4bit.pt"). */
static qb_status find_lone_file(qb_checkpoint *ck, const found_files found[N_KINDS]) {
    bool safetensors = found[SAFETENSORS].n > 0;
    const found_files *files = &found[safetensors ? SAFETENSORS : TORCH];
    const char *usual = safetensors ? "model.safetensors" : "pytorch_model.bin";
    if (files->n == 1) return add_shard(ck, files->name);
    if (files->n > 1)
        return qb_fail(QB_ERR_FORMAT,
                       "%s holds %d %s files but neither %s nor one index such as %s.index.json to say which "
                       "belong together "
                       "(is the index "
                       "missing?)",
                       ck->dir, files->n, safetensors ? "safetensors" : ".bin or .pt", usual, usual);
    qb_status st = qb_checkpoint_explain(ck->dir);
    if (st != QB_OK) return st;
    return qb_fail(QB_ERR_NOT_FOUND,
                   "%s holds no weights: neither model.safetensors nor model.safetensors.index.json, nor "
                   "pytorch_model.bin or its index",
                   ck->dir);
}

static qb_status open_index(qb_checkpoint *ck, const char *name, qb_json **index) {
    const char *path = NULL;
    qb_status st = join(&ck->arena, ck->dir, name, &path);
    if (st == QB_OK) st = qb_json_read(path, MAX_INDEX_BYTES, index);
    return st == QB_OK ? list_index_shards(ck, path, *index) : st;
}

/* As transformers does: safetensors go before files of torch.save, the single file before an index; then the
   one index of another name. *index stays NULL without one. */
static qb_status find_files(qb_checkpoint *ck, qb_json **index) {
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "pytorch_model.bin", "pytorch_model.bin.index.json"};
    found_files found[N_KINDS];
    qb_status st = list_weight_files(ck, found);
    bool safetensors = found[SAFETENSORS].n > 0;
    for (size_t i = 0; st == QB_OK && i < (safetensors ? 2 : 4); i++) {
        const char *path = NULL;
        bool there = false;
        st = join(&ck->arena, ck->dir, names[i], &path);
        if (st == QB_OK) st = qb_path_look(path, &there);
        if (!there) continue;
        return ends_with(names[i], ".json") ? open_index(ck, names[i], index) : add_shard(ck, names[i]);
    }
    if (st != QB_OK) return st;
    const found_files *indices = &found[safetensors ? SAFETENSORS_INDEX : TORCH_INDEX];
    return indices->n == 1 ? open_index(ck, indices->name, index) : find_lone_file(ck, found);
}

/* ---- tensors ---- */

qb_status qb_checkpoint_add_tensor(qb_checkpoint *ck, const qb_shard *shard, const qb_tensor_state *tensor) {
    qb_status st = qb_grow(&ck->tensors, &ck->tensors_capacity, ck->n_tensors + 1, sizeof *ck->tensors);
    if (st != QB_OK) return st;
    qb_tensor_state *t = &ck->tensors[ck->n_tensors];
    bool ignored = false;
    *t = *tensor;
    if (!ck->gguf) st = qb_checkpoint_own_name(ck, &t->tensor, &ignored);
    if (st != QB_OK || ignored) return st;
    qb_tensor_prepare_widening(t);
    t->tensor.index = (uint32_t)ck->n_tensors;
    t->shard = (uint32_t)(shard - ck->shards);
    /* Bytes that are made, or not aligned for their dtype, are there when acquired. */
    bool aligned =
        t->tensor.dtype == QB_DTYPE_COUNT || (uintptr_t)t->mapped % qb_dtype_bytes(t->tensor.dtype) == 0;
    t->tensor.data = t->fill || t->stored != QB_STORED_AS_IS || !aligned ? NULL : t->mapped;
    uint32_t position;
    st = qb_names_add(&ck->names, t->tensor.name, t->tensor.index, &position);
    if (st != QB_OK) return st;
    if (position != t->tensor.index) /* an error of whoever needs it */
        ck->tensors[position].also_in = shard->file_name;
    else
        ck->n_tensors++;
    return QB_OK;
}

static qb_status add_safetensors(qb_checkpoint *ck, const qb_shard *shard) {
    qb_safetensors file;
    qb_status st = qb_safetensors_parse(shard->map.bytes, shard->map.size, shard->path, &ck->arena, &file);
    for (size_t i = 0; st == QB_OK && i < file.count; i++) {
        const qb_safetensors_entry *e = &file.entries[i];
        st = qb_checkpoint_add_tensor(
            ck, shard,
            &(qb_tensor_state){.tensor = e->tensor, .dtype_name = e->dtype_name, .mapped = e->tensor.data});
    }
    return st;
}

static qb_status open_shards(qb_checkpoint *ck) {
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < ck->n_shards; i++) {
        qb_shard *s = &ck->shards[i];
        st = qb_map_open(s->path, &s->map);
        if (st != QB_OK && ck->n_shards > 1)
            return qb_fail_prefix(st, "shard %zu of %zu", i + 1, ck->n_shards);
        if (st == QB_OK) st = qb_checkpoint_check_magic(s->path, s->map.bytes, s->map.size);
        if (st == QB_OK)
            st = is_torch_name(s->file_name) ? qb_checkpoint_add_torch(ck, s) : add_safetensors(ck, s);
    }
    return st;
}

/* The shard of that name; an index names no others. */
static uint32_t shard_named(const qb_checkpoint *ck, const char *file) {
    for (size_t i = 0; i < ck->n_shards; i++)
        if (!strcmp(ck->shards[i].file_name, file)) return (uint32_t)i;
    return 0;
}

/* Which file a tensor lies in, the files say best; what is listed and in none is remembered for whoever
   needs it. */
static qb_status note_absent(qb_checkpoint *ck, const qb_json *index) {
    const qb_json *map = qb_json_get(index, "weight_map");
    qb_status st = QB_OK;
    for (const qb_json *j = qb_json_first(map); st == QB_OK && j; j = qb_json_next(j)) {
        uint32_t position;
        const char *name;
        if (qb_names_find(&ck->names, qb_json_key(j), &position)) continue;
        st = qb_arena_strdup(&ck->arena, qb_json_key(j), &name);
        if (st == QB_OK) st = qb_names_add(&ck->absent, name, shard_named(ck, qb_json_string(j)), &position);
    }
    return st;
}

qb_status qb_checkpoint_open_files(qb_checkpoint *ck) {
    qb_json *index = NULL;
    qb_status st;
    QB_TRY(st, find_files(ck, &index));
    QB_TRY(st, open_shards(ck));
    if (index) QB_TRY(st, note_absent(ck, index));
out:
    qb_json_free(index);
    return st;
}

qb_status qb_checkpoint_open_adapter_files(qb_checkpoint *ck) {
    static const char *const names[] = {"adapter_model.safetensors", "adapter_model.bin"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *path = NULL;
        bool there = false;
        qb_status st = join(&ck->arena, ck->dir, names[i], &path);
        if (st == QB_OK) st = qb_path_look(path, &there);
        if (st == QB_OK && there) st = add_shard(ck, names[i]);
        if (st != QB_OK) return st;
        if (there) return open_shards(ck);
    }
    return qb_fail(QB_ERR_NOT_FOUND,
                   "%s holds no weights of an adapter: neither adapter_model.safetensors nor "
                   "adapter_model.bin (is the download complete?)",
                   ck->dir);
}
