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

/* ---- what stands beside the modules ---- */

qb_status qb_modules_check_no_bias(const qb_model *m, const char *name, int64_t n) {
    const qb_tensor *t = qb_checkpoint_find(m->checkpoint, name);
    if (!t) return QB_OK;
    float *values;
    qb_status st = qb_checkpoint_read_f32(m->checkpoint, name, n, 0, &values);
    if (st != QB_OK) return st;
    for (int64_t i = 0; st == QB_OK && i < n; i++)
        if (values[i] != 0.0F)
            st = qb_fail(QB_ERR_FORMAT,
                         "%s: tensor %.200s is not zero, but the config says that there is no such bias "
                         "(attention_bias, mlp_bias)",
                         qb_checkpoint_dir(m->checkpoint), name);
    qb_free(values);
    return st;
}

static qb_status check_biases(const qb_model *m, int64_t layer, qb_linear linear) {
    const qb_config *c = &m->config;
    int64_t rows, cols;
    char name[136];
    if (!qb_config_has_linear(c, linear) || qb_config_linear_has_bias(c, linear)) return QB_OK;
    qb_config_linear_shape(c, linear, &rows, &cols);
    qb_config_layer_name(c->family->linear[linear], layer, ".bias", name);
    return qb_modules_check_no_bias(m, name, rows);
}

qb_status qb_modules_check_others(const qb_model *m, const qb_modules *modules,
                                  void (*failed)(void *ctx, const char *tensor), void *ctx) {
    const qb_config *c = &m->config;
    qb_tensor_spec *specs;
    size_t n = 0;
    qb_status st = qb_alloc_zero((size_t)c->n_layers * 18 + 8, sizeof *specs, &specs);
    if (st != QB_OK) return st;
    QB_TRY(st, qb_model_tensor_specs(c, specs, &n));
    for (size_t i = 0; i < n; i++) {
        if (qb_modules_own(modules, specs[i].name)) continue;
        st = qb_checkpoint_need_floats(m->checkpoint, specs[i].name, specs[i].shape[0],
                                       specs[i].n_dims > 1 ? specs[i].shape[1] : 0);
        if (st == QB_OK) continue;
        if (!failed) goto out;
        failed(ctx, specs[i].name);
    }
    for (int64_t layer = 0; layer < c->n_layers; layer++)
        for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
            st = check_biases(m, layer, l);
            if (st == QB_OK) continue;
            if (!failed) goto out;
            failed(ctx, NULL);
        }
    st = QB_OK;
out:
    qb_free(specs);
    return st;
}
