#include "eval/activations.h"

#include <string.h>

/* By whether they have products in whole numbers with such activations. */
typedef struct {
    int64_t whole_bytes, bytes, whole_weights, dense_weights, weights;
} sums;

static void add_list(const qb_step_weights *w, const qb_activation_use *use, int64_t tokens, sums *s) {
    for (int64_t i = 0; i < w->n_modules; i++) {
        const qb_matrix *m = &w->matrices[i];
        const bool float32 = use->fastest && qb_matrix_float32_is_faster(m, tokens);
        s->bytes += m->bytes, s->weights += m->rows * m->cols;
        if (!float32 && m->integer >> use->set & 1)
            s->whole_bytes += m->bytes, s->whole_weights += m->rows * m->cols;
        else if (m->dense || (m->dense_tokens && tokens >= m->dense_tokens))
            s->dense_weights += m->rows * m->cols;
    }
}

void qb_activations_count(const qb_model *m, int64_t tokens, qb_activation_use *use) {
    sums s = {0};
    if (!m->resident) return;
    for (int64_t l = 0; l < m->config.n_layers; l++) add_list(&m->blocks[l].w, use, tokens, &s);
    use->whole_share = s.weights ? (double)s.whole_weights / (double)s.weights : 0;
    use->dense_share = s.weights ? (double)s.dense_weights / (double)s.weights : 0;
    add_list(&m->enter.w, use, tokens, &s);
    add_list(&m->leave.w, use, tokens, &s);
    use->float32_bytes = s.bytes - s.whole_bytes;
    use->mode = s.whole_bytes ? use->set : QB_ACTIVATIONS_F32;
}

static qb_activations mode_of(const char *name) {
    for (int a = QB_ACTIVATIONS_I16; name && a <= QB_ACTIVATIONS_FASTEST; a++)
        if (!strcmp(name, qb_activations_name((qb_activations)a))) return (qb_activations)a;
    return QB_ACTIVATIONS_F32;
}

qb_status qb_activations_use(const qb_model *m, qb_device *dev, const char *wanted, bool alike,
                             qb_activation_use *out) {
    *out = (qb_activation_use){.mode = QB_ACTIVATIONS_F32, .float32_bytes = -1, .set = QB_ACTIVATIONS_F32};
    qb_activations mode = mode_of(wanted);
    if (!dev->backend->set_activations) {
        if (mode == QB_ACTIVATIONS_F32 || mode == QB_ACTIVATIONS_FASTEST) return QB_OK;
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "the backend %s has no products in whole numbers: --activations %s is for the cpu",
                       dev->backend->name, wanted);
    }
    out->fastest = mode == QB_ACTIVATIONS_FASTEST && !alike;
    qb_status st = dev->backend->set_activations(dev, mode, &out->set);
    if (st == QB_OK && alike) st = dev->backend->set_activations(dev, out->set, &out->set);
    out->mode = out->set;
    if (st != QB_OK) return st;
    qb_activations_count(m, 1, out);
    if (m->resident && out->mode != out->set)
        st = dev->backend->set_activations(dev, QB_ACTIVATIONS_F32, &out->set);
    return st;
}

void qb_activations_put(const qb_activation_use *use, qb_json *extra) {
    if (use->mode == QB_ACTIVATIONS_F32) return;
    qb_json_put_text(extra, "activations", qb_activations_name(use->mode));
    if (use->float32_bytes >= 0) qb_json_put_int(extra, "float32_activation_bytes", use->float32_bytes);
}
