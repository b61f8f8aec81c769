/* Tensor names of one model under several spellings: wrappers of multimodal models, files without the base
   model's prefix, buffers that older programs saved, a tied head that stands for the embedding. */
#include "base/log.h"
#include "checkpoint/state.h"

#include <stdio.h>
#include <string.h>

static bool starts_with(const char *text, const char *begin) {
    return !strncmp(text, begin, strlen(begin));
}

/* ---- while files are opened ---- */

/* Buffers that follow from the config; transformers ignores them by the same list
   (_keys_to_ignore_on_load_unexpected). A bias of the weights is 1-D; these are masks and frequencies. */
static bool is_stale(const qb_tensor *t) {
    static const char *const ends[] = {"rotary_emb.inv_freq", ".attn.masked_bias", ".attention.masked_bias"};
    static const char *const masks[] = {".attn.bias", ".attention.bias"};
    size_t n = strlen(t->name);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (n >= strlen(ends[i]) && !strcmp(t->name + n - strlen(ends[i]), ends[i])) return true;
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++)
        if (t->n_dims == 4 && n >= strlen(masks[i]) && !strcmp(t->name + n - strlen(masks[i]), masks[i]))
            return true;
    return false;
}

/* What a multimodal model has beside its language model. */
static bool is_other_tower(const char *name) {
    static const char *const towers[] = {"vision_tower.", "vision_model.", "multi_modal_projector.",
                                         "visual.",       "audio_tower.",  "embed_vision.",
                                         "embed_audio."};
    if (starts_with(name, "model.")) name += 6;
    for (size_t i = 0; i < sizeof towers / sizeof towers[0]; i++)
        if (starts_with(name, towers[i])) return true;
    return false;
}

qb_status qb_checkpoint_own_name(qb_checkpoint *ck, qb_tensor *t, bool *ignored) {
    static const char inner[] = "model.language_model.", outer[] = "language_model.";
    bool wrapper = qb_json_is_object(qb_json_get(ck->config, "text_config"));
    *ignored = is_stale(t) || (wrapper && is_other_tower(t->name));
    if (*ignored) {
        qb_debug("%s: tensor %.200s is left out: nothing reads it", ck->dir, t->name);
        return QB_OK;
    }
    if (wrapper && starts_with(t->name, outer)) {
        t->name += sizeof outer - 1;
    } else if (wrapper && starts_with(t->name, inner)) {
        char name[QB_TENSOR_NAME_MAX];
        snprintf(name, sizeof name, "model.%s", t->name + sizeof inner - 1);
        return qb_arena_strdup(&ck->arena, name, &t->name);
    }
    return QB_OK;
}

/* ---- once the family is known ---- */

static bool any_starts_with(const qb_checkpoint *ck, const char *base, const char *rest) {
    char begin[QB_TENSOR_NAME_MAX];
    snprintf(begin, sizeof begin, "%s%s", base, rest);
    for (size_t i = 0; i < ck->n_tensors; i++)
        if (starts_with(ck->tensors[i].tensor.name, begin)) return true;
    return false;
}

/* The table of names anew, after some have changed. */
qb_status qb_checkpoint_index_names(qb_checkpoint *ck) {
    qb_status st = QB_OK;
    uint32_t position;
    qb_names_free(&ck->names);
    for (size_t i = 0; st == QB_OK && i < ck->n_tensors; i++) {
        st = qb_names_add(&ck->names, ck->tensors[i].tensor.name, (uint32_t)i, &position);
        if (st == QB_OK && position != i)
            st = qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s is there with the model's prefix and without it",
                         ck->dir, ck->tensors[i].tensor.name);
    }
    return st;
}

/* Puts the first `missing` characters of `base` before the names that begin with the rest of it. */
static qb_status add_prefix(qb_checkpoint *ck, const char *base, size_t missing, const char *head) {
    qb_status st = QB_OK;
    char name[QB_TENSOR_NAME_MAX];
    size_t n_head = strlen(head);
    for (size_t i = 0; st == QB_OK && i < ck->n_tensors; i++) {
        qb_tensor *t = &ck->tensors[i].tensor;
        bool of_head = !strncmp(t->name, head, n_head) && t->name[n_head] == '.';
        if (of_head || !starts_with(t->name, base + missing)) continue;
        int n = snprintf(name, sizeof name, "%.*s%s", (int)missing, base, t->name);
        if (n >= (int)sizeof name)
            return qb_fail(QB_ERR_FORMAT, "%s: tensor name %.60s... is too long", ck->dir, t->name);
        st = qb_arena_strdup(&ck->arena, name, &t->name);
    }
    return st == QB_OK ? qb_checkpoint_index_names(ck) : st;
}

static qb_status head_as_embedding(qb_checkpoint *ck, const char *embed, const char *head) {
    const qb_tensor *t = qb_module_tensor_find(ck, head, "weight");
    char name[QB_TENSOR_NAME_MAX];
    if (!t || qb_module_tensor_find(ck, embed, "weight")) return QB_OK;
    qb_status st = qb_module_tensor_name(embed, "weight", name);
    if (st == QB_OK) st = qb_arena_strdup(&ck->arena, name, &ck->tensors[t->index].tensor.name);
    qb_debug("%s: the file holds %s.weight, to which %s is tied", ck->dir, head, embed);
    return st == QB_OK ? qb_checkpoint_index_names(ck) : st;
}

qb_status qb_checkpoint_adopt_names(qb_checkpoint *ck, const char *embed, const char *layer, const char *head,
                                    bool tied) {
    char base[QB_TENSOR_NAME_MAX], rest[QB_TENSOR_NAME_MAX];
    const char *dot = strrchr(embed, '.'), *number = strchr(layer, '%');
    if (ck->gguf || ck->synthetic) return QB_OK;
    snprintf(base, sizeof base, "%.*s", dot ? (int)(dot - embed) + 1 : 0, embed);
    size_t n = strlen(base);
    qb_status st = QB_OK;
    if (n && number && !strncmp(layer, base, n)) {
        snprintf(rest, sizeof rest, "%.*s", (int)(number - layer - (ptrdiff_t)n), layer + n);
        /* "model.decoder.", "decoder.", "" */
        const char *found = base;
        while (*found && !any_starts_with(ck, found, rest)) found = strchr(found, '.') + 1;
        if (found != base && any_starts_with(ck, found, rest)) {
            qb_debug("%s: names lack the prefix %.*s", ck->dir, (int)(found - base), base);
            st = add_prefix(ck, base, (size_t)(found - base), head);
        }
    }
    return st == QB_OK && tied ? head_as_embedding(ck, embed, head) : st;
}
