#include "model/modules.h"

#include "base/memory.h"
#include "checkpoint/layout.h"

#include <stdio.h>
#include <string.h>

static void add(qb_modules *to, const char *name, int64_t rows, int64_t cols, int64_t layer) {
    qb_module *m = &to->items[to->count++];
    *m = (qb_module){.rows = rows, .cols = cols, .layer = layer};
    snprintf(m->name, sizeof m->name, "%s", name);
}

static void add_outside(const qb_model *m, const char *pattern, qb_modules *out) {
    const qb_config *c = &m->config;
    const qb_layout *layout = qb_layout_find(qb_checkpoint_quantization(m->checkpoint)->layout);
    char name[128];
    if (!layout || !pattern) return;
    qb_config_layer_name(pattern, 0, "", name);
    if (layout->present(m->checkpoint, name)) add(out, name, c->vocab, c->hidden, -1);
}

qb_status qb_modules_list(const qb_model *m, qb_modules *out) {
    const qb_config *c = &m->config;
    *out = (qb_modules){0};
    qb_status st =
        qb_alloc((size_t)c->n_layers * QB_LINEAR_COUNT + QB_MODULES_OUTSIDE, sizeof *out->items, &out->items);
    if (st != QB_OK) return st;
    add_outside(m, c->family->embed, out);
    for (int64_t layer = 0; layer < c->n_layers; layer++)
        for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
            int64_t rows, cols;
            char name[128];
            if (!qb_config_has_linear(c, l)) continue;
            qb_config_linear_shape(c, l, &rows, &cols);
            qb_config_linear_name(c, layer, l, name);
            add(out, name, rows, cols, layer);
        }
    if (!c->tied_head) add_outside(m, c->family->head, out);
    return QB_OK;
}

void qb_modules_free(qb_modules *modules) {
    qb_free(modules->items);
    *modules = (qb_modules){0};
}

bool qb_modules_own(const qb_modules *modules, const char *tensor) {
    for (size_t i = 0; i < modules->count; i++) {
        const char *name = modules->items[i].name;
        size_t n = strlen(name);
        if (!strncmp(name, tensor, n) && tensor[n] == '.') return strcmp(tensor + n, ".bias") != 0;
    }
    return false;
}
