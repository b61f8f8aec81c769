#include "model/owners.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qb_status add(qb_owners *o, qb_owner_kind kind, const char *name, int64_t layer,
                     const qb_linear *linear) {
    const char *copy = NULL;
    qb_status st = qb_grow(&o->items, &o->capacity, o->count + 1, sizeof *o->items);
    if (st == QB_OK) st = qb_arena_strdup(&o->names, name, &copy);
    if (st != QB_OK) return st;
    o->items[o->count++] = (qb_owner){(char *)(uintptr_t)copy, kind, layer, linear};
    return QB_OK;
}

static qb_status add_list(qb_owners *o, const qb_list *l, int64_t layer, int skip) {
    char name[QB_NAME_BYTES];
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < l->n_linears; i++) {
        const qb_linear *w = &l->linears[i];
        qb_linear_name(w, layer, name);
        bool first =
            w->expert <= 0 || (w->stored != QB_STORED_STACKED_ROWS && w->stored != QB_STORED_STACKED_COLUMNS);
        if (first && (int)i != skip) st = add(o, QB_OWNER_LINEAR, name, layer, w);
        qb_linear_bias_name(w, layer, name);
        if (st == QB_OK && w->bias && first) st = add(o, QB_OWNER_BIAS, name, layer, w);
    }
    for (size_t i = 0; st == QB_OK && i < l->n_vectors; i++)
        for (int64_t part = 0;
             st == QB_OK && l->vectors[i].source == QB_VECTOR_TENSOR && part < l->vectors[i].parts; part++) {
            qb_vector_name(&l->vectors[i], layer, part, name);
            st = add(o, QB_OWNER_VECTOR, name, layer, NULL);
        }
    return st;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const qb_owner *)a)->name, ((const qb_owner *)b)->name);
}

qb_status qb_owners_build(const qb_topology *t, qb_owners **out) {
    *out = NULL;
    qb_owners *o;
    qb_status st;
    QB_TRY(st, qb_alloc_zero(1, sizeof *o, &o));
    *out = o;
    QB_TRY(st, add(o, QB_OWNER_EMBED, t->embed, -1, NULL));
    QB_TRY(st, add_list(o, &t->enter, -1, -1));
    for (int64_t l = 0; l < t->n_layers; l++) QB_TRY(st, add_list(o, &t->layers[l], l, -1));
    QB_TRY(st, add_list(o, &t->leave, t->n_layers, -1));
    qsort(o->items, o->count, sizeof *o->items, by_name);
out:
    if (st != QB_OK) {
        qb_owners_free(*out);
        *out = NULL;
    }
    return st;
}

void qb_owners_free(qb_owners *o) {
    if (!o) return;
    qb_free(o->items);
    qb_arena_free(&o->names);
    qb_free(o);
}

static const qb_owner *lookup(const qb_owners *o, const char *name) {
    qb_owner key = {.name = (char *)(uintptr_t)name};
    return bsearch(&key, o->items, o->count, sizeof *o->items, by_name);
}

const qb_owner *qb_owners_find(const qb_owners *o, const char *tensor) {
    char name[256];
    const qb_owner *found = lookup(o, tensor);
    if (found) return found;
    size_t n = strlen(tensor);
    if (n >= sizeof name) return NULL;
    memcpy(name, tensor, n + 1);
    static const char *const parts[] = {"_blocks", "_scales"}; /* of stacked MXFP4 experts */
    for (int i = 0; i < 2; i++)
        if (n > 7 && !strcmp(name + n - 7, parts[i])) {
            name[n - 7] = 0;
            if ((found = lookup(o, name))) return found;
            name[n - 7] = '_';
        }
    /* MODULE.weight.quant_state.bitsandbytes__nf4: each dot may end the module's name */
    for (char *dot; (dot = strrchr(name, '.'));) {
        *dot = 0;
        found = lookup(o, name);
        if (found && (found->kind == QB_OWNER_LINEAR || found->kind == QB_OWNER_EMBED))
            return strcmp(tensor + (dot - name), ".bias") ? found : NULL;
    }
    return NULL;
}

/* What stands before the layer's number in the first block's names: "model.layers." */
static size_t layer_prefix(const qb_topology *t, char out[QB_NAME_BYTES]) {
    const qb_list *l = &t->layers[0];
    const char *pattern = l->n_linears ? l->linears[0].prefix : "", *hole = strstr(pattern, "%d");
    size_t n = hole ? (size_t)(hole - pattern) : 0;
    snprintf(out, QB_NAME_BYTES, "%.*s", (int)n, pattern);
    return n;
}

/* A bias of zeros beside a linear that has none is what some writers give every linear. */
static bool is_bias_of_linear(const qb_owners *o, const char *tensor) {
    char name[256];
    size_t n = strlen(tensor);
    if (n < 6 || n >= sizeof name || strcmp(tensor + n - 5, ".bias") != 0) return false;
    memcpy(name, tensor, n - 5);
    name[n - 5] = 0;
    const qb_owner *found = lookup(o, name);
    return found && found->kind == QB_OWNER_LINEAR;
}

/* Of MODULE.part what some layout reads (checkpoint/layouts/, checkpoint/widen.c). */
static bool is_part_of_linear(const char *part) {
    static const char *const parts[] = {"weight",
                                        "bias",
                                        "weight_scale",
                                        "weight_scale_inv",
                                        "qweight",
                                        "qzeros",
                                        "scales",
                                        "g_idx",
                                        "SCB",
                                        "weight_format",
                                        "weight_packed",
                                        "weight_shape",
                                        "weight_zero_point",
                                        "weight_g_idx"};
    size_t n = strcspn(part, ".");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strlen(parts[i]) == n && !strncmp(part, parts[i], n)) return true;
    return false;
}

/* How other programs round activations and their cache, which are floats here: MODULE.input_scale,
   self_attn.k_scale. */
static bool is_scale_of_activations(const char *tensor) {
    static const char *const ends[] = {"input_scale",      "input_zero_point", "input_global_scale",
                                       "activation_scale", "output_scale",     "k_scale",
                                       "v_scale",          "q_scale"};
    const char *dot = strrchr(tensor, '.');
    for (size_t i = 0; dot && i < sizeof ends / sizeof *ends; i++)
        if (!strcmp(dot + 1, ends[i])) return true;
    return false;
}

/* Whether something reads it; `owner` is the module that its name begins with. */
static bool is_read(const qb_owner *owner, const char *tensor) {
    if (!owner) return false;
    size_t n = strlen(owner->name);
    bool matrix = owner->kind == QB_OWNER_LINEAR || owner->kind == QB_OWNER_EMBED;
    return !matrix || tensor[n] != '.' || is_part_of_linear(tensor + n + 1);
}

/* The head of a tied model is looked at by qb_head_resolve. */
static bool is_head(const qb_topology *t, const char *tensor) {
    const char *name = t->leave.linears[t->head].name;
    size_t n = strlen(name);
    return !strncmp(tensor, name, n) && tensor[n] == '.';
}

qb_status qb_owners_check(const qb_model *m, const char *where) {
    char prefix[QB_NAME_BYTES];
    const char *unread = NULL, *scale = NULL;
    int64_t n_unread = 0, n_scales = 0;
    size_t n = layer_prefix(&m->topology, prefix);
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const char *name = qb_checkpoint_at(m->checkpoint, i)->name;
        bool in_layer = n > 0 && !strncmp(name, prefix, n) && name[n] >= '0' && name[n] <= '9';
        if (in_layer && strtoll(name + n, NULL, 10) >= m->config.n_layers)
            return qb_fail(QB_ERR_FORMAT, "%s: num_hidden_layers is %lld, but the checkpoint holds %.200s",
                           where, (long long)m->config.n_layers, name);
        if (is_read(qb_owners_find(m->owners, name), name) || is_bias_of_linear(m->owners, name)) continue;
        if (in_layer && is_scale_of_activations(name)) {
            if (n_scales++ == 0) scale = name;
            continue;
        }
        if (in_layer)
            return qb_fail(
                QB_ERR_UNSUPPORTED,
                "%s: the checkpoint holds %.200s, which nothing in a model of the family %s reads: it would "
                "be another model without it; save it without the tensor if it is of no use, or "
                "measure it with the code that it came with",
                where, name, m->config.family->name);
        if (is_head(&m->topology, name)) continue;
        if (n_unread++ == 0) unread = name;
    }
    if (n_scales > 0)
        qb_warn("%s: tensor %.200s%s is not applied: activations, keys and values are floats here", where,
                scale, n_scales > 1 ? " (and others)" : "");
    if (n_unread > 0)
        qb_warn("%s: tensor %.200s%s is not read: the model has no use for it", where, unread,
                n_unread > 1 ? " (and others)" : "");
    return QB_OK;
}
