#include "model/difference.h"

#include "base/memory.h"
#include "model/modules.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const qb_model *a, *b;
    qb_json *modules, *tensors, *only_a, *only_b;
    int64_t modules_equal, modules_different, tensors_equal, tensors_different;
} difference;

/* ---- numbers ---- */

typedef struct {
    int64_t different;
    double squares, norm, largest;
} distance;

static void measure(const float *x, const float *y, int64_t n, distance *d) {
    for (int64_t i = 0; i < n; i++) {
        double e = (double)x[i] - (double)y[i];
        d->norm += (double)x[i] * (double)x[i];
        if (x[i] == y[i]) continue;
        d->different++;
        d->squares += e * e;
        if (!(fabs(e) <= d->largest)) d->largest = fabs(e); /* NaN shows */
    }
}

static void put_distance(qb_json *o, const distance *d) {
    qb_json_put_bool(o, "equal", d->different == 0);
    qb_json_put_int(o, "weights_different", d->different);
    qb_json_put_real(o, "relative_error", d->norm > 0 ? sqrt(d->squares / d->norm) : sqrt(d->squares));
    qb_json_put_real(o, "max_error", d->largest);
}

/* ---- modules ---- */

static bool same_grid(const qb_qweight *x, const qb_qweight *y) {
    return x && y && x->coding == y->coding && x->bits == y->bits &&
           (x->coding == QB_CODING_AFFINE ? !x->offsets == !y->offsets : x->codebook == y->codebook);
}

static bool same_groups(const qb_qweight *x, const qb_qweight *y) {
    return x->coding == QB_CODING_AFFINE ? x->n_groups == y->n_groups : x->n_blocks == y->n_blocks;
}

static void put_codes(qb_json *o, const qb_qweight *x, const qb_qweight *y) {
    int64_t equal = 0;
    for (int64_t i = 0; i < x->rows * x->cols; i++) equal += x->codes[i] == y->codes[i];
    qb_json_put_int(o, "codes_equal", equal);
}

static void put_scales(qb_json *o, const qb_qweight *x, const qb_qweight *y) {
    bool affine = x->coding == QB_CODING_AFFINE;
    const float *s = affine ? x->scales : x->absmax, *t = affine ? y->scales : y->absmax;
    int64_t n = affine ? x->rows * x->n_groups : x->n_blocks, zeros = 0;
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double size = fmax(fabs((double)s[i]), fabs((double)t[i])), e = fabs((double)s[i] - (double)t[i]);
        if (e > 0 && e / size > largest) largest = e / size;
        if (affine && x->zeros) zeros += x->zeros[i] != y->zeros[i];
    }
    qb_json_put_real(o, "scale_difference", largest);
    if (affine && x->zeros) qb_json_put_int(o, "zeros_different", zeros);
}

static const char *format_of(const qb_weight *w, char buffer[48]) {
    return w->packed ? qb_qweight_describe(w->packed, buffer) : qb_dtype_torch_name(w->dtype);
}

static qb_status widen(const qb_weight *w, float **out) {
    qb_status st = qb_alloc((size_t)(w->rows * w->cols), sizeof **out, out);
    if (st != QB_OK) return st;
    if (!w->packed) return qb_to_f32(w->dtype, w->dense, w->rows * w->cols, *out);
    qb_qweight_dequantize(w->packed, *out);
    return QB_OK;
}

static qb_status compare_weights(difference *d, const char *name, const qb_weight *x, const qb_weight *y) {
    float *p = NULL, *q = NULL;
    char text[48];
    distance far = {0};
    qb_json *o = qb_json_object();
    qb_status st;
    QB_TRY(st, widen(x, &p));
    QB_TRY(st, widen(y, &q));
    measure(p, q, x->rows * x->cols, &far);
    qb_json_put_text(o, "name", name);
    qb_json_put_text(o, "a", format_of(x, text));
    qb_json_put_text(o, "b", format_of(y, text));
    qb_json_put_int(o, "weights", x->rows * x->cols);
    put_distance(o, &far);
    if (same_grid(x->packed, y->packed)) {
        put_codes(o, x->packed, y->packed);
        if (same_groups(x->packed, y->packed)) put_scales(o, x->packed, y->packed);
    }
    *(far.different ? &d->modules_different : &d->modules_equal) += 1;
    qb_json_push(d->modules, o);
    o = NULL;
out:
    qb_json_free(o);
    qb_free(p);
    qb_free(q);
    return st;
}

static qb_status compare_module(difference *d, const qb_module *module) {
    qb_weight x = {0}, y = {0};
    qb_status st = qb_module_read(d->a, module, &x);
    if (st == QB_OK) st = qb_module_read(d->b, module, &y);
    if (st == QB_OK) st = compare_weights(d, module->name, &x, &y);
    qb_module_unread(d->a, module, &x);
    qb_module_unread(d->b, module, &y);
    return st;
}

/* ---- other tensors ---- */

static bool same_shape(const qb_tensor *t, const qb_tensor *u) {
    bool same = t->n_dims == u->n_dims;
    for (int i = 0; same && i < t->n_dims; i++) same = t->shape[i] == u->shape[i];
    return same;
}

static void describe(const qb_checkpoint *ck, const qb_tensor *t, char out[160]) {
    int n = snprintf(out, 160, "%s [", qb_checkpoint_dtype_name(ck, t));
    for (int i = 0; i < t->n_dims && n < 140; i++)
        n += snprintf(out + n, 160 - (size_t)n, i ? ", %" PRId64 : "%" PRId64, t->shape[i]);
    snprintf(out + n, 160 - (size_t)n, "]");
}

/* Bytes of types that are no floats are compared as they are. */
static qb_status measure_tensors(const qb_tensor *t, const void *x, const qb_tensor *u, const void *y,
                                 distance *far) {
    enum { CHUNK = 4096 };
    float p[CHUNK], q[CHUNK];
    if (t->dtype > QB_DTYPE_BF16 || u->dtype > QB_DTYPE_BF16) {
        far->different = t->dtype != u->dtype || t->bytes != u->bytes || memcmp(x, y, (size_t)t->bytes) != 0;
        return QB_OK;
    }
    int64_t wide = (int64_t)qb_dtype_bytes(t->dtype), width = (int64_t)qb_dtype_bytes(u->dtype);
    int64_t n = t->bytes / wide;
    qb_status st = QB_OK;
    for (int64_t at = 0; st == QB_OK && at < n; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;
        st = qb_to_f32(t->dtype, (const uint8_t *)x + at * wide, part, p);
        if (st == QB_OK) st = qb_to_f32(u->dtype, (const uint8_t *)y + at * width, part, q);
        if (st == QB_OK) measure(p, q, part, far);
    }
    return st;
}

static qb_status compare_tensor(difference *d, const qb_tensor *t, const qb_tensor *u, const char *name) {
    qb_checkpoint *a = d->a->checkpoint, *b = d->b->checkpoint;
    const void *x = NULL, *y = NULL;
    char text[160];
    distance far = {0};
    qb_status st = QB_OK;
    qb_json *o = qb_json_object();
    qb_json_put_text(o, "name", name);
    describe(a, t, text);
    qb_json_put_text(o, "a", text);
    describe(b, u, text);
    qb_json_put_text(o, "b", text);
    if (!same_shape(t, u)) {
        far.different = 1;
    } else {
        st = qb_checkpoint_acquire(a, t, &x);
        if (st == QB_OK) st = qb_checkpoint_acquire(b, u, &y);
        if (st == QB_OK) st = measure_tensors(t, x, u, y, &far);
        if (x) qb_checkpoint_release(a, t);
        if (y) qb_checkpoint_release(b, u);
    }
    put_distance(o, &far);
    *(far.different ? &d->tensors_different : &d->tensors_equal) += 1;
    qb_json_push(d->tensors, o);
    return st;
}

/* The tensor of that name; for the head of a model that ties it to its embedding, the embedding. */
static const qb_tensor *find(const qb_model *m, const char *name) {
    const qb_tensor *t = qb_checkpoint_find(m->checkpoint, name);
    const qb_topology *topology = &m->topology;
    char head[QB_NAME_BYTES], embed[QB_NAME_BYTES];
    if (t || !topology->tied_head) return t;
    qb_linear_name(&topology->leave.linears[topology->head], topology->n_layers, head);
    strcat(head, ".weight");
    snprintf(embed, sizeof embed, "%s.weight", topology->embed);
    return strcmp(head, name) == 0 ? qb_checkpoint_find(m->checkpoint, embed) : NULL;
}

static qb_status compare_others(difference *d, const qb_modules *modules) {
    const qb_checkpoint *a = d->a->checkpoint, *b = d->b->checkpoint;
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < qb_checkpoint_count(a); i++) {
        const qb_tensor *t = qb_checkpoint_at(a, i), *u = find(d->b, t->name);
        if (qb_modules_own(modules, t->name)) continue;
        if (u)
            st = compare_tensor(d, t, u, t->name);
        else
            qb_json_push_text(d->only_a, t->name);
    }
    for (size_t i = 0; st == QB_OK && i < qb_checkpoint_count(b); i++) {
        const qb_tensor *u = qb_checkpoint_at(b, i), *t = find(d->a, u->name);
        if (qb_modules_own(modules, u->name) || qb_checkpoint_find(a, u->name)) continue;
        if (t)
            st = compare_tensor(d, t, u, u->name);
        else
            qb_json_push_text(d->only_b, u->name);
    }
    return st;
}

/* ---- the whole ---- */

/* The modules of both: an embedding may be quantized in one of them only. */
static qb_status list_both(const qb_model *a, const qb_model *b, qb_modules *out) {
    qb_modules other = {0};
    qb_status st;
    QB_TRY(st, qb_modules_list(a, out));
    QB_TRY(st, qb_modules_list(b, &other));
    st = qb_modules_join(out, &other);
out:
    qb_modules_free(&other);
    return st;
}

static qb_status check_shapes(const qb_model *a, const qb_model *b) {
    const qb_config *x = &a->config, *y = &b->config;
    if (x->family == y->family && x->n_layers == y->n_layers && x->hidden == y->hidden && x->ffn == y->ffn &&
        x->n_heads == y->n_heads && x->n_kv_heads == y->n_kv_heads && x->head_dim == y->head_dim &&
        x->vocab == y->vocab)
        return QB_OK;
    return qb_fail(QB_ERR_USAGE,
                   "%s and %s are different models: %s, %" PRId64 " layers of %" PRId64
                   ", vocabulary %" PRId64 " against %s, %" PRId64 " layers of %" PRId64
                   ", vocabulary %" PRId64,
                   a->name, b->name, x->family->name, x->n_layers, x->hidden, x->vocab, y->family->name,
                   y->n_layers, y->hidden, y->vocab);
}

static qb_json *report(const difference *d, bool *equal) {
    qb_json *o = qb_json_object();
    *equal = !d->modules_different && !d->tensors_different && !qb_json_first(d->only_a) &&
             !qb_json_first(d->only_b);
    qb_json_put_text(o, "a", d->a->path);
    qb_json_put_text(o, "b", d->b->path);
    qb_json_put_bool(o, "equal", *equal);
    qb_json_put_int(o, "modules_equal", d->modules_equal);
    qb_json_put_int(o, "modules_different", d->modules_different);
    qb_json_put_int(o, "tensors_equal", d->tensors_equal);
    qb_json_put_int(o, "tensors_different", d->tensors_different);
    qb_json_put(o, "only_a", d->only_a);
    qb_json_put(o, "only_b", d->only_b);
    qb_json_put(o, "modules", d->modules);
    qb_json_put(o, "tensors", d->tensors);
    return o;
}

qb_status qb_difference(const qb_model *a, const qb_model *b, qb_json **out) {
    difference d = {.a = a, .b = b};
    qb_modules modules = {0};
    bool equal;
    qb_status st;
    *out = NULL;
    d.modules = qb_json_array();
    d.tensors = qb_json_array();
    d.only_a = qb_json_array();
    d.only_b = qb_json_array();
    QB_TRY(st, check_shapes(a, b));
    QB_TRY(st, list_both(a, b, &modules));
    for (size_t i = 0; i < modules.count; i++) QB_TRY(st, compare_module(&d, &modules.items[i]));
    st = compare_others(&d, &modules);
out:
    qb_modules_free(&modules);
    *out = report(&d, &equal);
    if (st == QB_OK) return st;
    qb_json_free(*out);
    *out = NULL;
    return st;
}
