#include "eval/activations.h"

#include <string.h>

/* Bytes of the list's weights, by whether they have products in whole numbers. */
static void sum_bytes(const qb_step_weights *w, int64_t *whole, int64_t *all) {
    for (int64_t i = 0; i < w->n_modules; i++) {
        *all += w->matrices[i].bytes;
        if (w->matrices[i].integer) *whole += w->matrices[i].bytes;
    }
}

static qb_activations mode_of(const char *name) {
    for (int a = QB_ACTIVATIONS_I16; name && a <= QB_ACTIVATIONS_FASTEST; a++)
        if (!strcmp(name, qb_activations_name((qb_activations)a))) return (qb_activations)a;
    return QB_ACTIVATIONS_F32;
}

qb_status qb_activations_use(const qb_model *m, qb_device *dev, const char *wanted, qb_activation_use *out) {
    *out = (qb_activation_use){QB_ACTIVATIONS_F32, -1};
    qb_activations mode = mode_of(wanted);
    if (!dev->backend->set_activations) {
        if (mode == QB_ACTIVATIONS_F32 || mode == QB_ACTIVATIONS_FASTEST) return QB_OK;
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "the backend %s has no products in whole numbers: --activations %s is for the cpu",
                       dev->backend->name, wanted);
    }
    int64_t whole = 0, all = 0;
    for (int64_t l = 0; m->resident && l < m->config.n_layers; l++) sum_bytes(&m->blocks[l].w, &whole, &all);
    sum_bytes(&m->enter.w, &whole, &all);
    sum_bytes(&m->leave.w, &whole, &all);
    if (m->resident && !whole) mode = QB_ACTIVATIONS_F32;
    if (m->resident) out->float32_bytes = all - whole;
    return dev->backend->set_activations(dev, mode, &out->mode);
}

void qb_activations_put(const qb_activation_use *use, qb_json *extra) {
    if (use->mode == QB_ACTIVATIONS_F32) return;
    qb_json_put_text(extra, "activations", qb_activations_name(use->mode));
    if (use->float32_bytes >= 0) qb_json_put_int(extra, "float32_activation_bytes", use->float32_bytes);
}
