#include "bench/session.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/gguf_tokenizer.h"
#include "checkpoint/writer.h"
#include "hub/cache.h"

#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 32 };
static const char synthetic_prefix[] = "synthetic:";

qb_status qb_session_backend(const char *name, const qb_backend **out) {
    *out = qb_backend_find(name);
    if (*out) return QB_OK;
    const char *names[NAMES_MAX];
    size_t n = 0;
    for (; n < NAMES_MAX && qb_backend_at(n); n++) names[n] = qb_backend_at(n)->name;
    if (!strcmp(name, "cuda"))
        return qb_fail(QB_ERR_USAGE,
                       "this build has no backend 'cuda': build it with `cmake --preset cuda && "
                       "cmake --build --preset cuda`, and run build-cuda/bin/bench");
    char hint[QB_HINT_CHARS];
    return qb_fail(QB_ERR_USAGE, "no backend '%s': `bench list backends` shows them%s", name,
                   qb_did_you_mean(name, names, n, hint));
}

qb_status qb_session_device(const qb_compute *compute, qb_device **out) {
    const qb_backend *backend;
    *out = NULL;
    qb_status st = qb_session_backend(compute->backend, &backend);
    if (st != QB_OK) return st;
    qb_numa numa;
    if ((st = qb_numa_parse(compute->numa, &numa)) != QB_OK) return st;
    qb_device_options options = {.threads = (int)compute->threads,
                                 .numa = numa,
                                 .index = (int)compute->device,
                                 .memory_bytes = (int64_t)(compute->device_gb * 1e9)};
    return backend->open(&options, out);
}

void qb_session_close(qb_device *dev) {
    if (dev) dev->backend->close(dev);
}

bool qb_spec_is_synthetic(const char *spec) {
    return !strncmp(spec, synthetic_prefix, sizeof synthetic_prefix - 1);
}

qb_status qb_session_find(const char *word, char **path) {
    char revisions[128];
    qb_status st = qb_model_resolve(word, path);
    if (st != QB_OK || !strcmp(word, *path) || !strcmp(word, "demo")) return st;
    st = qb_hub_revisions(*path, revisions);
    if (st == QB_OK)
        qb_info("%s is taken from the hub's cache: %s (%s%s)", word, *path,
                *revisions ? "revision " : "no revision leads to it: the last of its snapshots", revisions);
    return st;
}

qb_status qb_session_spec(const char *word, bool synthetic, char **spec) {
    *spec = NULL;
    if (!synthetic || qb_spec_is_synthetic(word)) return qb_session_find(word, spec);
    /* A known shape needs no directory; any other word must lead to a config.json. */
    char *dir = NULL;
    if (!qb_known_model_find(word)) {
        qb_status st = qb_session_find(word, &dir);
        if (st != QB_OK) return st;
    }
    qb_str text = {0};
    qb_str_printf(&text, "%s%s", synthetic_prefix, dir ? dir : word);
    qb_status st = qb_str_status(&text);
    if (st == QB_OK && !(*spec = qb_strdup(qb_str_get(&text)))) st = qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_str_free(&text);
    qb_free(dir);
    return st;
}

qb_status qb_session_model(const char *word, bool synthetic, qb_model **out) {
    char *spec;
    *out = NULL;
    qb_status st = qb_session_spec(word, synthetic, &spec);
    if (st == QB_OK) st = qb_model_open(spec, out);
    if (st == QB_OK && (st = qb_model_check_whole(*out)) != QB_OK) {
        qb_model_close(*out);
        *out = NULL;
    }
    qb_free(spec);
    return st;
}

/* Whether `path` lies in the directory `dir` or is it, links followed. */
static bool lies_in(const char *path, const char *dir) {
    char *inner = realpath(path, NULL), *outer = realpath(dir, NULL);
    size_t n = outer ? strlen(outer) : 0;
    bool found = inner && outer && !strncmp(inner, outer, n) && (inner[n] == '/' || !inner[n] || n == 1);
    free(inner);
    free(outer);
    return found;
}

qb_status qb_session_check_output(const qb_model *m, const char *dir, bool replace) {
    bool there;
    qb_status st = qb_path_look(dir, &there);
    if (st != QB_OK || !there) return st;
    if (!qb_checkpoint_is_synthetic(m->checkpoint) && lies_in(m->path, dir))
        return qb_fail(QB_ERR_USAGE,
                       "%s holds the model that is read (%s), which would be lost: choose another "
                       "output directory",
                       dir, m->path);
    st = qb_writer_sweep(dir);
    if (st != QB_OK) return st;
    if (!replace) return qb_fail(QB_ERR_USAGE, "%s exists already; --force replaces it", dir);
    return QB_OK;
}

qb_status qb_session_tokenizer(const qb_model *m, qb_tokenizer **out) {
    *out = NULL;
    if (qb_checkpoint_is_synthetic(m->checkpoint))
        return qb_fail(QB_ERR_USAGE,
                       "%s has random weights and no tokenizer; this needs a real model directory", m->name);
    const qb_gguf *gguf = qb_checkpoint_gguf(m->checkpoint);
    qb_status st = gguf ? qb_gguf_tokenizer(gguf, out) : qb_tokenizer_open(m->path, out);
    if (st == QB_OK && qb_tokenizer_conflict(*out))
        qb_warn("%s: %s: gptq-N, strided-N, calibration and generate follow the template (transformers 5), "
                "llamacpp-N follows the key (llama.cpp)",
                m->name, qb_tokenizer_conflict(*out));
    return st;
}

qb_status qb_session_tokenizer_files(const qb_model *m, qb_tokenizer_files *out) {
    const qb_gguf *gguf = qb_checkpoint_gguf(m->checkpoint);
    if (!gguf) return QB_OK;
    qb_status st = qb_gguf_tokenizer_json(gguf, &out->json, &out->config);
    if (st == QB_ERR_UNSUPPORTED) {
        qb_warn("%s: the new directory has no tokenizer; copy the original model's tokenizer.json or "
                "tokenizer.model into it",
                qb_error_text());
        return QB_OK;
    }
    if (st != QB_OK) return st;
    out->files[0] = (qb_side_file){"tokenizer.json", qb_str_get(&out->json)};
    out->files[1] = (qb_side_file){"tokenizer_config.json", qb_str_get(&out->config)};
    out->n = 2;
    return QB_OK;
}

void qb_tokenizer_files_free(qb_tokenizer_files *f) {
    qb_str_free(&f->json);
    qb_str_free(&f->config);
    *f = (qb_tokenizer_files){0};
}

/* The tokenizer of a directory or a GGUF file whose weights are of no concern. */
static qb_status tokenizer_at(const char *path, qb_tokenizer **out) {
    char *gguf = NULL;
    qb_map map = {0};
    qb_arena arena = {0};
    qb_gguf file = {0};
    qb_status st;
    QB_TRY(st, qb_checkpoint_find_gguf(path, &gguf));
    if (!gguf) return qb_tokenizer_open(path, out);
    QB_TRY(st, qb_map_open(gguf, &map));
    QB_TRY(st, qb_gguf_parse(map.bytes, map.size, gguf, &arena, &file));
    st = qb_gguf_tokenizer(&file, out);
out:
    qb_gguf_free(&file);
    qb_arena_free(&arena);
    qb_map_close(&map);
    qb_free(gguf);
    return st;
}

qb_status qb_session_tokenizer_of(const char *word, qb_tokenizer **out) {
    char *spec;
    *out = NULL;
    qb_status st = qb_session_spec(word, false, &spec);
    if (st != QB_OK) return st;
    const char *dir = qb_spec_is_synthetic(spec) ? spec + sizeof synthetic_prefix - 1 : spec;
    bool there = false;
    st = qb_path_look(dir, &there);
    if (there)
        st = tokenizer_at(dir, out);
    else if (st == QB_OK)
        st = qb_fail(QB_ERR_USAGE, "%s is a shape without files and has no tokenizer", word);
    qb_free(spec);
    return st;
}
