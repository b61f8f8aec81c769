#include "checkpoint/layout.h"

#include "base/str.h"
#include "checkpoint/layouts/layout_rows.h"
#include "checkpoint/state.h"

#include <string.h>

static const qb_layout *const layouts[] = {
#define X(name) &qb_layout_##name,
#include "checkpoint/layouts/layouts.def"
#undef X
};

const qb_layout *qb_layout_at(size_t index) {
    return index < sizeof layouts / sizeof layouts[0] ? layouts[index] : NULL;
}

const qb_layout *qb_layout_find(const char *name) {
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (!strcmp(layouts[i]->name, name)) return layouts[i];
    return NULL;
}

bool qb_layout_is_writable(const qb_layout *layout) {
    return layout->put != NULL;
}

qb_status qb_layout_need_writer(const qb_layout *layout) {
    if (qb_layout_is_writable(layout)) return QB_OK;
    qb_str known = {0};
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (qb_layout_is_writable(layouts[i]))
            qb_str_printf(&known, "%s%s", known.length ? ", " : "", layouts[i]->name);
    qb_status st = qb_fail(QB_ERR_UNSUPPORTED, "the layout %s is only read; these are written: %s",
                           layout->name, qb_str_get(&known));
    qb_str_free(&known);
    return st;
}

const qb_layout *qb_layout_for(const qb_qweight *q) {
    if (q->coding == QB_CODING_CODEBOOK) return qb_layout_find("bnb4");
    if (q->int8_rows) return qb_layout_find("bnb8");
    return qb_layout_find(q->symmetric ? "gptq" : "gptq_v2");
}

qb_status qb_layout_plan(qb_writer *w, const char *module, const char *suffix, qb_dtype dtype, int n_dims,
                         int64_t size0, int64_t size1) {
    char name[QB_TENSOR_NAME_MAX];
    int64_t shape[2] = {size0, size1};
    qb_status st = qb_module_tensor_name(module, suffix, name);
    return st == QB_OK ? qb_writer_plan(w, name, dtype, n_dims, shape) : st;
}

qb_status qb_layout_put(qb_writer *w, const char *module, const char *suffix, const void *data,
                        int64_t bytes) {
    char name[QB_TENSOR_NAME_MAX];
    qb_status st = qb_module_tensor_name(module, suffix, name);
    return st == QB_OK ? qb_writer_put(w, name, data, bytes) : st;
}
