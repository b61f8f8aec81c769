#include "model/modules.h"

#include "base/memory.h"
#include "checkpoint/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qb_status add(qb_modules *to, const char *name, int64_t rows, int64_t cols, int64_t layer,
                     const qb_linear *linear) {
    qb_status st = qb_grow(&to->items, &to->capacity, to->count + 1, sizeof *to->items);
    if (st != QB_OK) return st;
    qb_module *m = &to->items[to->count++];
    *m = (qb_module){.rows = rows, .cols = cols, .layer = layer, .linear = linear};
    snprintf(m->name, sizeof m->name, "%s", name);
    return QB_OK;
}

/* Embedding and head are modules where the checkpoint has them packed. */
static bool is_packed(const qb_model *m, const char *name) {
    const qb_layout *layout = qb_layout_find(qb_checkpoint_quantization(m->checkpoint)->layout);
    return layout && layout->present(m->checkpoint, name);
}

static _Thread_local const qb_module *sorted_items;

static int compare(const void *a, const void *b) {
    return strcmp(sorted_items[*(const size_t *)a].name, sorted_items[*(const size_t *)b].name);
}

static qb_status sort(qb_modules *m) {
    qb_free(m->by_name);
    m->by_name = NULL;
    qb_status st = qb_alloc(m->count ? m->count : 1, sizeof *m->by_name, &m->by_name);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < m->count; i++) m->by_name[i] = i;
    sorted_items = m->items;
    qsort(m->by_name, m->count, sizeof *m->by_name, compare);
    return QB_OK;
}

qb_status qb_modules_list(const qb_model *m, qb_modules *out) {
    const qb_topology *t = &m->topology;
    const qb_linear *head = &t->leave.linears[t->head];
    char name[QB_NAME_BYTES];
    qb_status st = QB_OK;
    *out = (qb_modules){0};
    if (is_packed(m, t->embed)) QB_TRY(st, add(out, t->embed, t->vocab, t->embed_width, -1, NULL));
    for (int64_t layer = 0; layer < t->n_layers; layer++)
        for (size_t i = 0; i < t->layers[layer].n_linears; i++) {
            const qb_linear *l = &t->layers[layer].linears[i];
            if (!l->quantized) continue;
            qb_linear_name(l, layer, name);
            QB_TRY(st, add(out, name, l->rows, l->cols, layer, l));
        }
    qb_linear_name(head, t->n_layers, name);
    if (!t->tied_head && is_packed(m, name)) QB_TRY(st, add(out, name, head->rows, head->cols, -1, head));
    st = sort(out);
out:
    if (st != QB_OK) qb_modules_free(out);
    return st;
}

qb_status qb_modules_list_packed(const qb_model *m, qb_modules *out) {
    size_t kept = 0;
    qb_status st = qb_modules_list(m, out);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < out->count; i++)
        if (is_packed(m, out->items[i].name)) out->items[kept++] = out->items[i];
    out->count = kept;
    st = sort(out);
    if (st != QB_OK) qb_modules_free(out);
    return st;
}

qb_status qb_modules_join(qb_modules *to, const qb_modules *from) {
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < from->count; i++) {
        const qb_module *m = &from->items[i];
        char weight[QB_NAME_BYTES + 8];
        snprintf(weight, sizeof weight, "%s.weight", m->name);
        if (!qb_modules_own(to, weight)) st = add(to, m->name, m->rows, m->cols, m->layer, m->linear);
    }
    return st == QB_OK ? sort(to) : st;
}

void qb_modules_free(qb_modules *modules) {
    qb_free(modules->items);
    qb_free(modules->by_name);
    *modules = (qb_modules){0};
}

static const qb_module *find(const qb_modules *modules, const char *name) {
    for (size_t low = 0, high = modules->count; low < high;) {
        size_t middle = (low + high) / 2;
        const qb_module *m = &modules->items[modules->by_name[middle]];
        int order = strcmp(name, m->name);
        if (order == 0) return m;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool qb_modules_own(const qb_modules *modules, const char *tensor) {
    char name[256];
    size_t n = strlen(tensor);
    if (find(modules, tensor)) return true; /* stacked experts have no suffix */
    if (n >= sizeof name) return false;
    memcpy(name, tensor, n + 1);
    for (char *dot; (dot = strrchr(name, '.'));) {
        *dot = 0;
        if (find(modules, name)) return strcmp(tensor + (dot - name), ".bias") != 0;
    }
    return false;
}

qb_status qb_module_read(const qb_model *m, const qb_module *module, qb_weight *out) {
    if (module->linear && module->layer >= 0) return qb_linear_read(m, module->linear, module->layer, out);
    return qb_checkpoint_linear(m->checkpoint, module->name, module->rows, module->cols, out);
}

void qb_module_unread(const qb_model *m, const qb_module *module, qb_weight *w) {
    qb_checkpoint_free_linear(m->checkpoint, module->name, w);
    *w = (qb_weight){0};
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

static qb_status check_biases(const qb_model *m, const qb_list *l, int64_t layer,
                              void (*failed)(void *ctx, const char *tensor), void *ctx) {
    char name[QB_NAME_BYTES];
    for (size_t i = 0; i < l->n_linears; i++) {
        if (l->linears[i].bias) continue;
        qb_linear_bias_name(&l->linears[i], layer, name);
        qb_status st = qb_modules_check_no_bias(m, name, l->linears[i].rows);
        if (st != QB_OK && !failed) return st;
        if (st != QB_OK) failed(ctx, NULL);
    }
    return QB_OK;
}

qb_status qb_modules_check_others(const qb_model *m, const qb_modules *modules,
                                  void (*failed)(void *ctx, const char *tensor), void *ctx) {
    const qb_topology *t = &m->topology;
    qb_tensor_spec *specs = NULL;
    size_t n = 0;
    qb_status st;
    QB_TRY(st, qb_model_tensor_specs(t, &specs, &n));
    for (size_t i = 0; i < n; i++) {
        if (qb_modules_own(modules, specs[i].name)) continue;
        st = qb_checkpoint_need_floats(m->checkpoint, specs[i].name, specs[i].shape[0],
                                       specs[i].n_dims > 1 ? specs[i].shape[1] : 0);
        if (st == QB_OK) continue;
        if (!failed) goto out;
        failed(ctx, specs[i].name);
    }
    QB_TRY(st, check_biases(m, &t->enter, -1, failed, ctx));
    for (int64_t layer = 0; layer < t->n_layers; layer++)
        QB_TRY(st, check_biases(m, &t->layers[layer], layer, failed, ctx));
    st = check_biases(m, &t->leave, t->n_layers, failed, ctx);
out:
    qb_free(specs);
    return st;
}
