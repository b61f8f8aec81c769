#include "adapter/places.h"

#include "model/owners.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t qb_merge_layer_of(const qb_model *m, const char *path) {
    const qb_list *l = &m->topology.layers[0];
    const char *pattern = l->n_linears ? l->linears[0].prefix : "", *hole = strstr(pattern, "%d");
    size_t n = hole ? (size_t)(hole - pattern) : 0;
    if (n == 0 || strncmp(path, pattern, n) != 0 || path[n] < '0' || path[n] > '9') return -1;
    long long layer = strtoll(path + n, NULL, 10);
    return layer < m->topology.n_layers ? (int64_t)layer : -1;
}

/* A router's module has other names in some files than in transformers' memory since its fifth version
   ("mlp.gate", "router"): a layer has one. */
static const qb_linear *router_of(const qb_model *m, const char *path, int64_t *layer) {
    const char *last = strrchr(path, '.');
    *layer = qb_merge_layer_of(m, path);
    if (*layer < 0 || !last || (strcmp(last, ".gate") != 0 && strcmp(last, ".router") != 0)) return NULL;
    const qb_list *l = &m->topology.layers[*layer];
    for (size_t i = 0; i < l->n_linears; i++)
        if (!l->linears[i].quantized && l->linears[i].rows == m->topology.experts) return &l->linears[i];
    return NULL;
}

static void of_linear(const qb_linear *l, int64_t layer, qb_merge_place *out) {
    out->linear = l;
    out->turned = l->stored == QB_STORED_COLUMNS;
    out->rows = out->turned ? l->cols : l->rows;
    out->cols = out->turned ? l->rows : l->cols;
    qb_linear_name(l, layer, out->tensor);
    strcat(out->tensor, ".weight");
}

bool qb_merge_place_of(const qb_merge_plan *p, const char *path, qb_merge_place *out) {
    const qb_model *m = p->model;
    int64_t layer;
    *out = (qb_merge_place){0};
    if (strlen(path) >= QB_NAME_BYTES) return false;
    snprintf(out->tensor, sizeof out->tensor, "%s.weight", path);
    const qb_owner *o = qb_owners_find(m->owners, out->tensor);
    const qb_tensor *t = qb_checkpoint_find(m->checkpoint, out->tensor);
    if (o && o->kind == QB_OWNER_LINEAR && o->linear) {
        of_linear(o->linear, o->layer, out);
        return true;
    }
    if (o && o->kind == QB_OWNER_EMBED) {
        out->rows = m->topology.vocab;
        out->cols = m->topology.embed_width;
        return true;
    }
    if (t && t->n_dims <= 2) {
        out->rows = t->shape[0];
        out->cols = t->n_dims == 2 ? t->shape[1] : 0;
        return true;
    }
    const qb_linear *router = router_of(m, path, &layer);
    if (router) of_linear(router, layer, out);
    return router != NULL;
}

bool qb_merge_tensor_of(const qb_merge_plan *p, const char *name, qb_merge_place *out) {
    size_t n = strlen(name);
    char module[QB_NAME_BYTES];
    if (n > 7 && n - 7 < sizeof module && !strcmp(name + n - 7, ".weight")) {
        snprintf(module, sizeof module, "%.*s", (int)(n - 7), name);
        return qb_merge_place_of(p, module, out);
    }
    const qb_tensor *t = qb_checkpoint_find(p->model->checkpoint, name);
    if (!t || n >= sizeof out->tensor || t->n_dims > 2) return false;
    *out = (qb_merge_place){.rows = t->shape[0], .cols = t->n_dims == 2 ? t->shape[1] : 0};
    snprintf(out->tensor, sizeof out->tensor, "%s", name);
    return true;
}
