#include "checkpoint/checkpoint.h"

#include "base/str.h"
#include "checkpoint/gguf/gguf.h"
#include "checkpoint/state.h"
#include "checkpoint/torch/torch_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20 };

/* ---- open and close ---- */

static qb_status read_config(qb_checkpoint *ck, const char *name,
                             qb_status (*explain_absent)(const char *dir)) {
    char *path = qb_path_join(ck->dir, name);
    if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory");
    bool there = false;
    qb_status st = qb_path_look(path, &there);
    if (st == QB_OK && !there) st = explain_absent(ck->dir);
    if (st == QB_OK) st = qb_arena_strdup(&ck->arena, path, &ck->config_source);
    if (st == QB_OK) st = qb_json_read(path, MAX_CONFIG_BYTES, &ck->config);
    if (st == QB_OK && !qb_json_is_object(ck->config))
        st = qb_fail(QB_ERR_FORMAT, "%s: expected a JSON object", path);
    qb_free(path);
    return st;
}

static qb_status open_directory(qb_checkpoint *ck) {
    qb_status st;
    char *gguf = NULL;
    QB_TRY(st, qb_checkpoint_find_gguf(ck->dir, &gguf));
    if (gguf) {
        st = qb_checkpoint_open_gguf(ck, gguf);
        goto out;
    }
    QB_TRY(st, read_config(ck, "config.json", qb_checkpoint_explain));
    QB_TRY(st, qb_checkpoint_open_files(ck));
    QB_TRY(st, qb_quantization_read(ck));
    QB_TRY(st, qb_checkpoint_check_scales(ck));
out:
    qb_free(gguf);
    return st;
}

static qb_status open_adapter(qb_checkpoint *ck) {
    qb_status st;
    QB_TRY(st, read_config(ck, "adapter_config.json", qb_checkpoint_explain_no_adapter));
    QB_TRY(st, qb_checkpoint_open_adapter_files(ck));
out:
    return st;
}

static qb_status open_path(const char *path, qb_status (*open)(qb_checkpoint *ck), qb_checkpoint **out) {
    *out = NULL;
    bool there;
    qb_checkpoint *ck;
    char *resolved = NULL;
    qb_status st = qb_path_look(path, &there);
    if (st != QB_OK) return st;
    if (!there) return qb_fail(QB_ERR_NOT_FOUND, "%s does not exist", path);
    st = qb_alloc_zero(1, sizeof *ck, &ck);
    if (st != QB_OK) return st;
    pthread_mutex_init(&ck->lock, NULL);
    pthread_cond_init(&ck->filled, NULL);
    QB_TRY(st, qb_checkpoint_resolve(path, &resolved));
    QB_TRY(st, qb_arena_strdup(&ck->arena, resolved, &ck->dir));
    QB_TRY(st, open(ck));
out:
    qb_free(resolved);
    if (st != QB_OK)
        qb_checkpoint_close(ck);
    else
        *out = ck;
    return st;
}

qb_status qb_checkpoint_open(const char *path, qb_checkpoint **out) {
    return open_path(path, open_directory, out);
}

qb_status qb_checkpoint_open_adapter(const char *path, qb_checkpoint **out) {
    return open_path(path, open_adapter, out);
}

void qb_checkpoint_close(qb_checkpoint *ck) {
    if (!ck) return;
    for (size_t i = 0; i < ck->n_tensors; i++) qb_free(ck->tensors[i].owned);
    for (size_t i = 0; i < ck->n_shards; i++) {
        qb_torch_file_close(ck->shards[i].torch);
        qb_map_close(&ck->shards[i].map);
    }
    qb_free(ck->tensors);
    qb_free(ck->shards);
    qb_names_free(&ck->names);
    qb_names_free(&ck->absent);
    qb_module_rules_free(&ck->rules);
    qb_json_free(ck->config);
    qb_gguf_free(ck->gguf);
    pthread_cond_destroy(&ck->filled);
    pthread_mutex_destroy(&ck->lock);
    qb_arena_free(&ck->arena);
    qb_free(ck);
}

/* ---- look-ups ---- */

const qb_json *qb_checkpoint_config(const qb_checkpoint *ck) {
    return ck->config;
}
const char *qb_checkpoint_config_source(const qb_checkpoint *ck) {
    return ck->config_source;
}
const qb_gguf *qb_checkpoint_gguf(const qb_checkpoint *ck) {
    return ck->gguf;
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

static qb_status check_once(const qb_checkpoint *ck, const qb_tensor_state *t) {
    if (!t->also_in) return QB_OK;
    return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s is in %s and in %s: which one is meant?", ck->dir,
                   t->tensor.name, ck->shards[t->shard].file_name, t->also_in);
}

qb_status qb_checkpoint_need(const qb_checkpoint *ck, const char *name, const qb_tensor **out) {
    uint32_t shard;
    *out = qb_checkpoint_find(ck, name);
    if (*out) return check_once(ck, &ck->tensors[(*out)->index]);
    if (qb_names_find(&ck->absent, name, &shard))
        return qb_fail(QB_ERR_FORMAT, "%s: the index puts tensor %.200s into %.100s, which does not hold it",
                       ck->dir, name, ck->shards[shard].file_name);
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
    for (size_t i = 0; i < ck->n_tensors; i++) total += ck->tensors[i].stored_bytes;
    return total;
}

const char *qb_checkpoint_file(const qb_checkpoint *ck, size_t index, int64_t *bytes) {
    if (index >= ck->n_shards) return NULL;
    *bytes = (int64_t)ck->shards[index].map.size;
    return ck->shards[index].file_name;
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
