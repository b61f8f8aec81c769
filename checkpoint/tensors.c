/* The bytes of tensors: views into the mapping where possible, counted copies where not; checked look-ups and
 * vectors. */
#include "base/log.h"
#include "base/str.h"
#include "checkpoint/state.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- acquire and release ---- */

/* The file's bytes in new memory: filled, or copied from the mapping. */
static qb_status copy_stored(const qb_checkpoint *ck, const qb_tensor_state *t, void **out) {
    void *bytes;
    qb_status st = qb_alloc((size_t)t->stored_bytes, 1, &bytes);
    if (st != QB_OK) return st;
    if (t->fill)
        st = t->fill(ck, t, bytes);
    else
        memcpy(bytes, t->mapped, (size_t)t->stored_bytes);
    if (st == QB_OK)
        *out = bytes;
    else
        qb_free(bytes);
    return st;
}

/* Makes t->owned: the stored bytes, or float32 from them. Called without the lock held. */
static qb_status make_owned(const qb_checkpoint *ck, const qb_tensor_state *t, void **out) {
    void *raw = NULL;
    float *values = NULL;
    qb_status st = QB_OK;
    if (t->stored == QB_STORED_AS_IS) {
        st = copy_stored(ck, t, out);
    } else {
        if (t->fill) st = copy_stored(ck, t, &raw);
        if (st == QB_OK) st = qb_alloc((size_t)t->tensor.bytes, 1, &values);
        if (st == QB_OK) st = qb_tensor_widen(ck, t, raw ? raw : t->mapped, values);
        if (st == QB_OK)
            *out = values;
        else
            qb_free(values);
        qb_free(raw);
    }
    return st == QB_ERR_MEMORY ? qb_fail_prefix(st, "tensor %.200s", t->tensor.name) : st;
}

/* Whether the bytes can only be had as a copy: they are made, or not aligned for the dtype. */
static bool needs_copy(const qb_tensor_state *t) {
    return t->tensor.bytes > 0 && (t->fill || t->stored != QB_STORED_AS_IS ||
                                   (uintptr_t)t->mapped % qb_dtype_bytes(t->tensor.dtype) != 0);
}

bool qb_checkpoint_is_mapped(const qb_checkpoint *ck, const qb_tensor *t) {
    return !needs_copy(&ck->tensors[t->index]);
}

qb_status qb_checkpoint_acquire(qb_checkpoint *ck, const qb_tensor *tensor, const void **out) {
    qb_tensor_state *t = &ck->tensors[tensor->index];
    *out = NULL;
    if (t->also_in) return qb_checkpoint_need(ck, t->tensor.name, &tensor);
    if (t->tensor.dtype == QB_DTYPE_COUNT)
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "%s: tensor %.200s has dtype %s, which is not supported yet (convert it to BF16 or F16)", ck->dir,
            t->tensor.name, t->dtype_name);
    if (t->stored != QB_STORED_AS_IS && qb_checkpoint_first_warning(ck, QB_WARNING_WIDENED))
        qb_warn("%s: tensors of %s are %s float32, which takes %s memory", ck->dir, t->dtype_name,
                t->stored == QB_STORED_F64 ? "rounded to" : "widened to",
                t->stored == QB_STORED_F64 ? "half the" : "four times the");
    qb_status st = QB_OK;
    pthread_mutex_lock(&ck->lock);
    while (t->filling) pthread_cond_wait(&ck->filled, &ck->lock);
    if (!needs_copy(t)) {
        *out = t->mapped;
    } else if (t->owned) {
        *out = t->owned;
    } else {
        void *made = NULL;
        t->filling = true;
        pthread_mutex_unlock(&ck->lock);
        st = make_owned(ck, t, &made);
        pthread_mutex_lock(&ck->lock);
        t->filling = false;
        pthread_cond_broadcast(&ck->filled);
        t->owned = made;
        t->tensor.data = made;
        *out = made;
    }
    if (st == QB_OK) t->holders++;
    pthread_mutex_unlock(&ck->lock);
    return st;
}

void qb_checkpoint_release(qb_checkpoint *ck, const qb_tensor *tensor) {
    if (!tensor) return;
    qb_tensor_state *t = &ck->tensors[tensor->index];
    pthread_mutex_lock(&ck->lock);
    if (t->holders > 0 && --t->holders == 0) {
        if (t->mapped) qb_map_release(t->mapped, (size_t)t->stored_bytes);
        if (t->owned) {
            qb_free(t->owned);
            t->owned = NULL;
            t->tensor.data = NULL;
        }
    }
    pthread_mutex_unlock(&ck->lock);
}

void qb_checkpoint_pass(qb_checkpoint *ck, const qb_tensor *tensor, int64_t at, int64_t n) {
    const qb_tensor_state *t = &ck->tensors[tensor->index];
    pthread_mutex_lock(&ck->lock);
    if (t->mapped && !t->owned && t->holders == 1) qb_map_release((const uint8_t *)t->mapped + at, (size_t)n);
    pthread_mutex_unlock(&ck->lock);
}

void qb_checkpoint_use_threads(qb_checkpoint *ck, qb_threads *threads) {
    ck->threads = threads;
}

void qb_checkpoint_prefetch(qb_checkpoint *ck, const qb_tensor *tensor) {
    const qb_tensor_state *t = tensor ? &ck->tensors[tensor->index] : NULL;
    if (t && t->mapped) qb_map_prefetch(t->mapped, (size_t)t->stored_bytes);
}

bool qb_checkpoint_first_warning(qb_checkpoint *ck, qb_checkpoint_warning which) {
    pthread_mutex_lock(&ck->lock);
    bool first = !(ck->warned & (unsigned)which);
    ck->warned |= (unsigned)which;
    pthread_mutex_unlock(&ck->lock);
    return first;
}

/* ---- checked look-ups ---- */

const char *qb_checkpoint_dtype_name(const qb_checkpoint *ck, const qb_tensor *t) {
    return ck->tensors[t->index].dtype_name;
}

const char *qb_tensor_describe(const qb_checkpoint *ck, const qb_tensor *t, char buffer[160]) {
    char shape[128];
    snprintf(buffer, 160, "%s %s", ck->tensors[t->index].dtype_name,
             qb_shape_text(t->n_dims, t->shape, shape));
    return buffer;
}

qb_status qb_tensor_expect(const qb_checkpoint *ck, const qb_tensor *t, qb_dtype dtype, int n_dims,
                           const int64_t *shape) {
    bool same = t->dtype == dtype && t->n_dims == n_dims;
    for (int d = 0; same && d < n_dims; d++) same = t->shape[d] == shape[d];
    if (same) return QB_OK;
    char expected[128], found[160];
    return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: expected %s %s, found %s", ck->dir, t->name,
                   qb_dtype_name(dtype), qb_shape_text(n_dims, shape, expected),
                   qb_tensor_describe(ck, t, found));
}

qb_status qb_module_tensor_name(const char *module, const char *suffix, char name[QB_TENSOR_NAME_MAX]) {
    int n = snprintf(name, QB_TENSOR_NAME_MAX, "%s.%s", module, suffix);
    if (n < 0 || n >= QB_TENSOR_NAME_MAX)
        return qb_fail(QB_ERR_FORMAT, "module name %.60s... is too long", module);
    return QB_OK;
}

const qb_tensor *qb_module_tensor_find(const qb_checkpoint *ck, const char *module, const char *suffix) {
    char name[QB_TENSOR_NAME_MAX];
    return qb_module_tensor_name(module, suffix, name) == QB_OK ? qb_checkpoint_find(ck, name) : NULL;
}

qb_status qb_module_tensor(const qb_checkpoint *ck, const char *module, const char *suffix,
                           const qb_tensor **out) {
    char name[QB_TENSOR_NAME_MAX];
    qb_status st = qb_module_tensor_name(module, suffix, name);
    return st == QB_OK ? qb_checkpoint_need(ck, name, out) : st;
}

/* ---- float tensors ---- */

qb_status qb_tensor_expect_float(const qb_checkpoint *ck, const qb_tensor *t, int n_dims,
                                 const int64_t *shape) {
    if (t->dtype == QB_DTYPE_F32 || t->dtype == QB_DTYPE_F16 || t->dtype == QB_DTYPE_BF16)
        return qb_tensor_expect(ck, t, t->dtype, n_dims, shape);
    char expected[128], found[160];
    return qb_fail(t->dtype == QB_DTYPE_COUNT ? QB_ERR_UNSUPPORTED : QB_ERR_FORMAT,
                   "%s: tensor %.200s: expected F32, F16 or BF16 %s, found %s", ck->dir, t->name,
                   qb_shape_text(n_dims, shape, expected), qb_tensor_describe(ck, t, found));
}

static qb_status check_values(const qb_checkpoint *ck, const qb_tensor *t, const float *values, int64_t n,
                              int64_t first) {
    int64_t i = 0;
    while (i < n && isfinite(values[i])) i++;
    if (i == n) return QB_OK;
    return qb_fail(QB_ERR_NUMERIC,
                   "%s: tensor %.200s: element %" PRId64
                   " is %s: expected finite numbers; the checkpoint is damaged",
                   ck->dir, t->name, first + i, isnan(values[i]) ? "NaN" : "infinite");
}

qb_status qb_checkpoint_check_finite(qb_checkpoint *ck, const qb_tensor *t) {
    enum { CHUNK = 4096, PASSED = 1 << 20 };
    float values[CHUNK];
    const void *bytes;
    if (t->dtype != QB_DTYPE_F32 && t->dtype != QB_DTYPE_F16 && t->dtype != QB_DTYPE_BF16) return QB_OK;
    qb_status st = qb_checkpoint_acquire(ck, t, &bytes);
    if (st != QB_OK) return st;
    int64_t width = (int64_t)qb_dtype_bytes(t->dtype), n = t->bytes / width;
    for (int64_t at = 0; st == QB_OK && at < n; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;
        st = qb_to_f32(t->dtype, (const uint8_t *)bytes + at * width, part, values);
        if (st == QB_OK) st = check_values(ck, t, values, part, at);
        int64_t read = (at + part) * width;
        if (read % PASSED == 0) qb_checkpoint_pass(ck, t, read - PASSED, PASSED);
    }
    qb_checkpoint_release(ck, t);
    return st;
}

static qb_status need_floats(const qb_checkpoint *ck, const char *name, int64_t shape0, int64_t shape1,
                             const qb_tensor **out) {
    int64_t shape[3] = {shape0, shape1};
    int n_dims = shape1 ? 2 : 1;
    qb_status st = qb_checkpoint_need(ck, name, out);
    if (st == QB_OK && shape0 == 1 && n_dims == 1 && (*out)->n_dims == 0) n_dims = 0; /* a scalar */
    if (st == QB_OK && n_dims == 2 && (*out)->n_dims == 3) /* a convolution's, over single elements */
        shape[1] = 1, shape[2] = shape1, n_dims = 3;
    return st == QB_OK ? qb_tensor_expect_float(ck, *out, n_dims, shape) : st;
}

qb_status qb_checkpoint_need_floats(const qb_checkpoint *ck, const char *name, int64_t shape0,
                                    int64_t shape1) {
    const qb_tensor *t;
    return need_floats(ck, name, shape0, shape1, &t);
}

qb_status qb_checkpoint_read_f32(qb_checkpoint *ck, const char *name, int64_t shape0, int64_t shape1,
                                 float **out) {
    const qb_tensor *t, *held = NULL;
    const void *bytes;
    float *values = NULL;
    qb_status st;
    *out = NULL;
    QB_TRY(st, need_floats(ck, name, shape0, shape1, &t));
    QB_TRY(st, qb_checkpoint_acquire(ck, t, &bytes));
    held = t;
    int64_t n = t->bytes / (int64_t)qb_dtype_bytes(t->dtype);
    QB_TRY(st, qb_alloc((size_t)n, sizeof *values, &values));
    QB_TRY(st, qb_to_f32(t->dtype, bytes, n, values));
    *out = values;
    values = NULL;
out:
    qb_checkpoint_release(ck, held);
    qb_free(values);
    return st;
}
