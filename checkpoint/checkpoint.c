#include "checkpoint/checkpoint.h"

#include "base/str.h"
#include "checkpoint/state.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_INDEX_BYTES = 100 << 20, MAX_SHARDS = 10000 };

static qb_status no_memory(void) {
    return qb_fail(QB_ERR_MEMORY, "out of memory");
}

static qb_status join(qb_arena *arena, const char *dir, const char *name, const char **out) {
    char *path = qb_path_join(dir, name);
    if (!path) return no_memory();
    qb_status st = qb_arena_strdup(arena, path, out);
    qb_free(path);
    return st;
}

/* ---- which files hold the tensors ---- */

static bool is_plain_name(const char *name) {
    return qb_tensor_name_ok(name) && !strchr(name, '/') && name[0] != '.';
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static qb_status add_shard(qb_checkpoint *ck, size_t *capacity, const char *name) {
    qb_status st = qb_grow(&ck->shards, capacity, ck->n_shards + 1, sizeof *ck->shards);
    if (st != QB_OK) return st;
    qb_shard *s = &ck->shards[ck->n_shards];
    *s = (qb_shard){0};
    st = qb_arena_strdup(&ck->arena, name, &s->file_name);
    if (st == QB_OK) st = join(&ck->arena, ck->dir, name, &s->path);
    if (st == QB_OK) ck->n_shards++;
    return st;
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
    size_t capacity = 0;
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
        if (st == QB_OK && position == ck->n_shards) st = add_shard(ck, &capacity, file);
    }
    qb_names_free(&seen);
    if (st == QB_OK) qsort(ck->shards, ck->n_shards, sizeof *ck->shards, by_file_name);
    return st;
}

static qb_status no_weights(const qb_checkpoint *ck, const char *other) {
    if (other)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s holds %.100s but no safetensors file; convert it first (transformers: "
                       "model.save_pretrained(dir, safe_serialization=True))",
                       ck->dir, other);
    return qb_fail(QB_ERR_NOT_FOUND, "%s holds neither model.safetensors nor model.safetensors.index.json",
                   ck->dir);
}

/* Older GPTQ repositories name their one file freely ("gptq_model-4bit-128g.safetensors"). */
static qb_status find_lone_file(qb_checkpoint *ck) {
    DIR *dir = opendir(ck->dir);
    if (!dir) return qb_fail(QB_ERR_NOT_FOUND, "cannot list %s", ck->dir);
    char found[256] = "", other[256] = "";
    int n = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        if (ends_with(e->d_name, ".safetensors")) {
            n++;
            snprintf(found, sizeof found, "%s", e->d_name);
        } else if (ends_with(e->d_name, ".bin") || ends_with(e->d_name, ".pt") ||
                   ends_with(e->d_name, ".pth") || ends_with(e->d_name, ".gguf")) {
            snprintf(other, sizeof other, "%s", e->d_name);
        }
    }
    closedir(dir);
    size_t capacity = 0;
    if (n == 1) return add_shard(ck, &capacity, found);
    if (n > 1)
        return qb_fail(
            QB_ERR_FORMAT,
            "%s holds %d safetensors files but neither model.safetensors nor model.safetensors.index.json to "
            "say which belong together (is the index missing?)",
            ck->dir, n);
    return no_weights(ck, other[0] ? other : NULL);
}

/* As transformers does: the single file goes before an index. *index stays NULL without one. */
static qb_status find_files(qb_checkpoint *ck, qb_json **index) {
    const char *single = NULL, *path = NULL;
    size_t capacity = 0;
    qb_status st = join(&ck->arena, ck->dir, "model.safetensors", &single);
    if (st == QB_OK) st = join(&ck->arena, ck->dir, "model.safetensors.index.json", &path);
    if (st != QB_OK) return st;
    if (qb_path_exists(single)) return add_shard(ck, &capacity, "model.safetensors");
    if (!qb_path_exists(path)) return find_lone_file(ck);
    st = qb_json_read(path, MAX_INDEX_BYTES, index);
    return st == QB_OK ? list_index_shards(ck, path, *index) : st;
}

/* ---- tensors ---- */

static qb_status add_tensors(qb_checkpoint *ck, size_t *capacity, const qb_shard *shard,
                             const qb_safetensors *file) {
    qb_status st = qb_grow(&ck->tensors, capacity, ck->n_tensors + file->count, sizeof *ck->tensors);
    for (size_t i = 0; st == QB_OK && i < file->count; i++) {
        const qb_safetensors_entry *e = &file->entries[i];
        qb_tensor_state *t = &ck->tensors[ck->n_tensors];
        *t = (qb_tensor_state){.tensor = e->tensor, .dtype_name = e->dtype_name, .mapped = e->tensor.data};
        t->tensor.index = (uint32_t)ck->n_tensors;
        uint32_t position;
        st = qb_names_add(&ck->names, t->tensor.name, t->tensor.index, &position);
        if (st == QB_OK && position != t->tensor.index)
            return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s is in an earlier shard too", shard->path,
                           e->tensor.name);
        ck->n_tensors++;
    }
    return st;
}

static qb_status open_shards(qb_checkpoint *ck) {
    size_t capacity = 0;
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < ck->n_shards; i++) {
        qb_shard *s = &ck->shards[i];
        qb_safetensors file;
        st = qb_map_open(s->path, &s->map);
        if (st != QB_OK && ck->n_shards > 1)
            return qb_fail_prefix(st, "shard %zu of %zu", i + 1, ck->n_shards);
        if (st == QB_OK) st = qb_safetensors_parse(s->map.bytes, s->map.size, s->path, &ck->arena, &file);
        if (st == QB_OK) st = add_tensors(ck, &capacity, s, &file);
    }
    return st;
}

static const qb_shard *shard_of(const qb_checkpoint *ck, const qb_tensor_state *t) {
    for (size_t i = 0; i < ck->n_shards; i++) {
        const qb_map *m = &ck->shards[i].map;
        const uint8_t *p = t->mapped;
        if (m->bytes && p >= m->bytes && p <= m->bytes + m->size) return &ck->shards[i];
    }
    return NULL;
}

/* Index and shards must agree: each named tensor lies in the shard said, and no tensor is left unnamed. */
static qb_status check_index(const qb_checkpoint *ck, const qb_json *index) {
    const qb_json *map = qb_json_get(index, "weight_map");
    qb_names listed = {0};
    qb_status st = QB_OK;
    for (const qb_json *j = qb_json_first(map); st == QB_OK && j; j = qb_json_next(j)) {
        const char *name = qb_json_key(j), *file = qb_json_string(j);
        uint32_t position, first;
        const qb_shard *s =
            qb_names_find(&ck->names, name, &position) ? shard_of(ck, &ck->tensors[position]) : NULL;
        if (!s || strcmp(s->file_name, file) != 0)
            st = qb_fail(QB_ERR_FORMAT,
                         "%s: the index puts tensor %.200s into %.100s, which does not hold it%s%s", ck->dir,
                         name, file, s ? "; it is in " : "", s ? s->file_name : "");
        else
            st = qb_names_add(&listed, name, 0, &first);
    }
    for (size_t i = 0; st == QB_OK && listed.count != ck->n_tensors && i < ck->n_tensors; i++) {
        uint32_t position;
        const char *name = ck->tensors[i].tensor.name;
        if (!qb_names_find(&listed, name, &position))
            st =
                qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s is in a shard but not in the index", ck->dir, name);
    }
    qb_names_free(&listed);
    return st;
}

/* ---- open and close ---- */

static qb_status read_config(qb_checkpoint *ck) {
    const char *path = NULL;
    qb_status st = join(&ck->arena, ck->dir, "config.json", &path);
    if (st == QB_OK) st = qb_json_read(path, MAX_CONFIG_BYTES, &ck->config);
    if (st == QB_OK && !qb_json_is_object(ck->config))
        st = qb_fail(QB_ERR_FORMAT, "%s: expected a JSON object", path);
    return st;
}

qb_status qb_checkpoint_open(const char *dir, qb_checkpoint **out) {
    *out = NULL;
    if (!qb_path_exists(dir)) return qb_fail(QB_ERR_NOT_FOUND, "%s does not exist", dir);
    if (!qb_path_is_dir(dir))
        return qb_fail(QB_ERR_NOT_FOUND,
                       "%s is not a directory (a model is a Hugging Face directory with config.json)", dir);
    qb_checkpoint *ck;
    qb_json *index = NULL;
    qb_status st = qb_alloc_zero(1, sizeof *ck, &ck);
    if (st != QB_OK) return st;
    pthread_mutex_init(&ck->lock, NULL);
    pthread_cond_init(&ck->filled, NULL);
    QB_TRY(st, qb_arena_strdup(&ck->arena, dir, &ck->dir));
    QB_TRY(st, read_config(ck));
    QB_TRY(st, find_files(ck, &index));
    QB_TRY(st, open_shards(ck));
    if (index) QB_TRY(st, check_index(ck, index));
    /* A mapping that is not aligned for its dtype is copied when asked for. */
    for (size_t i = 0; i < ck->n_tensors; i++) {
        qb_tensor *t = &ck->tensors[i].tensor;
        if (t->dtype != QB_DTYPE_COUNT && (uintptr_t)t->data % qb_dtype_bytes(t->dtype) != 0) t->data = NULL;
    }
    QB_TRY(st, qb_quantization_read(ck));
out:
    qb_json_free(index);
    if (st != QB_OK)
        qb_checkpoint_close(ck);
    else
        *out = ck;
    return st;
}

void qb_checkpoint_close(qb_checkpoint *ck) {
    if (!ck) return;
    for (size_t i = 0; i < ck->n_tensors; i++) qb_free(ck->tensors[i].owned);
    for (size_t i = 0; i < ck->n_shards; i++) qb_map_close(&ck->shards[i].map);
    qb_free(ck->tensors);
    qb_free(ck->shards);
    qb_names_free(&ck->names);
    qb_json_free(ck->config);
    pthread_cond_destroy(&ck->filled);
    pthread_mutex_destroy(&ck->lock);
    qb_arena_free(&ck->arena);
    qb_free(ck);
}

/* ---- look-ups ---- */

const qb_json *qb_checkpoint_config(const qb_checkpoint *ck) {
    return ck->config;
}
const char *qb_checkpoint_dir(const qb_checkpoint *ck) {
    return ck->dir;
}
bool qb_checkpoint_is_synthetic(const qb_checkpoint *ck) {
    return ck->synthetic;
}
size_t qb_checkpoint_count(const qb_checkpoint *ck) {
    return ck->n_tensors;
}
const qb_tensor *qb_checkpoint_at(const qb_checkpoint *ck, size_t index) {
    return &ck->tensors[index].tensor;
}
const qb_quantization *qb_checkpoint_quantization(const qb_checkpoint *ck) {
    return &ck->quantization;
}

const qb_tensor *qb_checkpoint_find(const qb_checkpoint *ck, const char *name) {
    uint32_t position;
    return qb_names_find(&ck->names, name, &position) ? &ck->tensors[position].tensor : NULL;
}

qb_status qb_checkpoint_need(const qb_checkpoint *ck, const char *name, const qb_tensor **out) {
    *out = qb_checkpoint_find(ck, name);
    if (*out) return QB_OK;
    if (ck->n_tensors == 0)
        return qb_fail(QB_ERR_FORMAT, "%s holds no tensors at all; %.200s is needed", ck->dir, name);
    const char **names;
    qb_status st = qb_alloc(ck->n_tensors, sizeof *names, &names);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < ck->n_tensors; i++) names[i] = ck->tensors[i].tensor.name;
    const char *nearest = qb_nearest(name, names, ck->n_tensors);
    st = qb_fail(QB_ERR_FORMAT, "%s holds no tensor %.200s%s%.200s", ck->dir, name,
                 nearest ? "; the nearest name is " : "", nearest ? nearest : "");
    qb_free(names);
    return st;
}

int64_t qb_checkpoint_tensor_bytes(const qb_checkpoint *ck) {
    int64_t total = 0;
    for (size_t i = 0; i < ck->n_tensors; i++) total += ck->tensors[i].tensor.bytes;
    return total;
}

/* ---- identity ---- */

static void identify_synthetic(const qb_checkpoint *ck, qb_hash *hash) {
    char line[512];
    int n = snprintf(line, sizeof line, "synthetic %" PRIu64 "\n", ck->seed);
    qb_hash_add(hash, line, (size_t)n);
    for (size_t i = 0; i < ck->n_tensors; i++) {
        const qb_tensor_state *t = &ck->tensors[i];
        char shape[128];
        n = snprintf(line, sizeof line, "%s %s %s %a\n", t->tensor.name, t->dtype_name,
                     qb_shape_text(t->tensor.n_dims, t->tensor.shape, shape), (double)t->stddev);
        qb_hash_add(hash, line, (size_t)n);
    }
}

qb_status qb_checkpoint_sha256(const qb_checkpoint *ck, char hex[QB_SHA256_HEX]) {
    qb_hash *hash;
    qb_status st = qb_hash_begin(&hash);
    if (st != QB_OK) return st;
    if (ck->synthetic) identify_synthetic(ck, hash);
    for (size_t i = 0; st == QB_OK && i < ck->n_shards; i++) {
        char file_hex[QB_SHA256_HEX];
        st = qb_hash_bytes(ck->shards[i].map.bytes, ck->shards[i].map.size, file_hex);
        if (st != QB_OK) break;
        qb_hash_add(hash, ck->shards[i].file_name, strlen(ck->shards[i].file_name) + 1);
        qb_hash_add(hash, file_hex, QB_SHA256_HEX);
        qb_map_release(ck->shards[i].map.bytes, ck->shards[i].map.size);
    }
    qb_hash_end(hash, hex);
    return st;
}
