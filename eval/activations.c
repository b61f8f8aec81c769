#include "eval/activations.h"

#include <string.h>

/* By whether they have products in whole numbers with such activations. */
typedef struct {
    int64_t whole_bytes, bytes, whole_weights, dense_weights, weights;
} sums;

static void add_list(const qb_step_weights *w, qb_activations mode, sums *s) {
    for (int64_t i = 0; i < w->n_modules; i++) {
        const qb_matrix *m = &w->matrices[i];
        s->bytes += m->bytes, s->weights += m->rows * m->cols;
        if (m->dense) s->dense_weights += m->rows * m->cols;
        if (m->integer >> mode & 1) s->whole_bytes += m->bytes, s->whole_weights += m->rows * m->cols;
    }
}

static qb_activations mode_of(const char *name) {
    for (int a = QB_ACTIVATIONS_I16; name && a <= QB_ACTIVATIONS_FASTEST; a++)
        if (!strcmp(name, qb_activations_name((qb_activations)a))) return (qb_activations)a;
    return QB_ACTIVATIONS_F32;
}

qb_status qb_activations_use(const qb_model *m, qb_device *dev, const char *wanted, qb_activation_use *out) {
    *out = (qb_activation_use){QB_ACTIVATIONS_F32, -1, 0, 0};
    qb_activations mode = mode_of(wanted);
    if (!dev->backend->set_activations) {
        if (mode == QB_ACTIVATIONS_F32 || mode == QB_ACTIVATIONS_FASTEST) return QB_OK;
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "the backend %s has no products in whole numbers: --activations %s is for the cpu",
                       dev->backend->name, wanted);
    }
    qb_status st = dev->backend->set_activations(dev, mode, &out->mode);
    if (st != QB_OK || !m->resident) return st;
    sums s = {0};
    for (int64_t l = 0; l < m->config.n_layers; l++) add_list(&m->blocks[l].w, out->mode, &s);
    double share = s.weights ? (double)s.whole_weights / (double)s.weights : 0;
    out->dense_share = s.weights ? (double)s.dense_weights / (double)s.weights : 0;
    add_list(&m->enter.w, out->mode, &s);
    add_list(&m->leave.w, out->mode, &s);
    out->float32_bytes = s.bytes - s.whole_bytes;
    if (s.whole_bytes)
        out->whole_share = share;
    else if (out->mode != QB_ACTIVATIONS_F32)
        st = dev->backend->set_activations(dev, QB_ACTIVATIONS_F32, &out->mode);
    return st;
}

void qb_activations_put(const qb_activation_use *use, qb_json *extra) {
    if (use->mode == QB_ACTIVATIONS_F32) return;
    qb_json_put_text(extra, "activations", qb_activations_name(use->mode));
    if (use->float32_bytes >= 0) qb_json_put_int(extra, "float32_activation_bytes", use->float32_bytes);
}
