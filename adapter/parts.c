#include "adapter/parts.h"

#include "checkpoint/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 512 };

/* Longest first where one ends with another. */
static const struct {
    const char *end;
    qb_part_kind kind;
} ends[] = {
    {".lora_A.weight", QB_PART_A},
    {".lora_B.weight", QB_PART_B},
    {".lora_B.bias", QB_PART_B_BIAS},
    {".lora_embedding_A", QB_PART_EMBED_A},
    {".lora_embedding_B", QB_PART_EMBED_B},
    {".lora_magnitude_vector", QB_PART_MAGNITUDE},
    {".lora_magnitude_vector.weight", QB_PART_MAGNITUDE}, /* before peft 0.12 */
    {".token_adapter.trainable_tokens_delta", QB_PART_TOKENS},
};

/* Takes `end` off the name. */
static bool take_end(char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    if (n <= m || strcmp(name + n - m, end) != 0) return false;
    name[n - m] = 0;
    return true;
}

/* Wrappers of multimodal models around the language model, which stands without them here (checkpoint/). */
static const char *without_wrapper(char *path) {
    static const char inner[] = "model.language_model.", outer[] = "language_model.";
    if (!strncmp(path, outer, sizeof outer - 1)) return path + sizeof outer - 1;
    if (strncmp(path, inner, sizeof inner - 1) != 0) return path;
    memmove(path + 6, path + sizeof inner - 1, strlen(path + sizeof inner - 1) + 1);
    return path;
}

static qb_status unknown_name(const qb_adapter *a, const char *name) {
    return qb_fail(
        QB_ERR_UNSUPPORTED,
        "%s: tensor %.200s is not one that a LoRA adapter is merged from: it would be left out, and the "
        "result would be another model",
        qb_checkpoint_dir(a->checkpoint), name);
}

/* With a resized table PEFT also saves what its wrapper of a saved module holds: the trained weight a second
   time, and the base's, which nothing computes with. */
static bool take_wrapper(char *name, qb_part *part) {
    static const char copy[] = ".modules_to_save.";
    char *at = strstr(name, copy);
    if (at) memmove(at, at + sizeof copy - 2, strlen(at + sizeof copy - 2) + 1);
    part->copy = at != NULL;
    return !strstr(name, ".original_module.");
}

/* WHOLE: the base layer's own tensor is the module's. */
static void take_base_layer(char *name, qb_part *part) {
    char *at = strstr(name, ".base_layer.");
    for (; at; at = strstr(name, ".base_layer.")) {
        memmove(at, at + 11, strlen(at + 11) + 1);
        part->wrapped = true;
    }
}

/* *wanted: false for a tensor that is of no use. */
static qb_status read_name(qb_adapter *a, const qb_tensor *t, qb_part *part, bool *wanted) {
    static const char begin[] = "base_model.model.";
    char name[NAME_BYTES];
    *part = (qb_part){.tensor = t};
    *wanted = true;
    if (strncmp(t->name, begin, sizeof begin - 1) != 0 || strlen(t->name) >= sizeof name)
        return unknown_name(a, t->name);
    snprintf(name, sizeof name, "%s", t->name + sizeof begin - 1);
    for (size_t i = 0; i < sizeof ends / sizeof *ends && part->kind == QB_PART_WHOLE; i++)
        if (take_end(name, ends[i].end)) part->kind = ends[i].kind;
    if (part->kind == QB_PART_WHOLE) {
        if (strstr(name, "lora_") || strstr(name, "_adapter.")) return unknown_name(a, t->name);
        take_base_layer(name, part);
        *wanted = take_wrapper(name, part);
    } else {
        while (take_end(name, ".base_layer")) part->depth++;
    }
    return qb_arena_strdup(&a->names, without_wrapper(name), &part->path);
}

static int compare(const void *x, const void *y) {
    const qb_part *a = x, *b = y;
    int order = strcmp(a->path, b->path);
    if (order == 0) order = a->depth - b->depth;
    if (order == 0) order = (int)a->kind - (int)b->kind;
    if (order == 0) order = (int)a->copy - (int)b->copy;
    return order ? order : strcmp(a->tensor->name, b->tensor->name);
}

static qb_status check_twins(qb_adapter *a) {
    size_t kept = 0;
    for (size_t i = 0; i < a->count; i++) {
        const qb_part *p = &a->parts[i], *before = kept ? &a->parts[kept - 1] : NULL;
        bool again = before && p->copy && !strcmp(p->path, before->path) && p->kind == before->kind;
        if (!again) a->parts[kept++] = *p;
    }
    a->count = kept;
    for (size_t i = 1; i < a->count; i++) {
        const qb_part *p = &a->parts[i - 1], *q = &a->parts[i];
        if (!strcmp(p->path, q->path) && p->depth == q->depth && p->kind == q->kind)
            return qb_fail(QB_ERR_FORMAT, "%s: tensors %.150s and %.150s are for the same thing",
                           qb_checkpoint_dir(a->checkpoint), p->tensor->name, q->tensor->name);
    }
    return QB_OK;
}

static qb_status read_tensors(qb_adapter *a) {
    size_t n = qb_checkpoint_count(a->checkpoint);
    const qb_tensor *t;
    qb_status st;
    if (n == 0)
        return qb_fail(QB_ERR_FORMAT, "%s: the adapter holds no tensors", qb_checkpoint_dir(a->checkpoint));
    QB_TRY(st, qb_alloc(n, sizeof *a->parts, &a->parts));
    for (size_t i = 0; i < n; i++) {
        QB_TRY(st, qb_checkpoint_need(a->checkpoint, qb_checkpoint_at(a->checkpoint, i)->name, &t));
        if (t->dtype != QB_DTYPE_F32 && t->dtype != QB_DTYPE_F16 && t->dtype != QB_DTYPE_BF16)
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s is %.20s; adapters are of F32, F16 or BF16",
                           qb_checkpoint_dir(a->checkpoint), t->name,
                           qb_checkpoint_dtype_name(a->checkpoint, t));
        bool wanted;
        QB_TRY(st, read_name(a, t, &a->parts[a->count], &wanted));
        a->count += wanted;
    }
    qsort(a->parts, a->count, sizeof *a->parts, compare);
    st = check_twins(a);
out:
    return st;
}

qb_status qb_adapter_open(const char *path, bool residual_base, qb_adapter *out) {
    qb_status st;
    *out = (qb_adapter){0};
    QB_TRY(st, qb_checkpoint_open_adapter(path, &out->checkpoint));
    QB_TRY(st, qb_adapter_config_parse(qb_checkpoint_config(out->checkpoint),
                                       qb_checkpoint_config_source(out->checkpoint), residual_base,
                                       &out->config));
    st = read_tensors(out);
out:
    return st;
}

void qb_adapter_close(qb_adapter *a) {
    qb_free(a->parts);
    qb_arena_free(&a->names);
    qb_checkpoint_close(a->checkpoint);
    *a = (qb_adapter){0};
}

const char *qb_part_shape(const qb_part *part, char buffer[128]) {
    return qb_shape_text(part->tensor->n_dims, part->tensor->shape, buffer);
}
