#include "model/inspect.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "model/modules.h"
#include "model/oddities.h"
#include "model/owners.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    qb_json *report, *oddities;
    qb_checkpoint *ck;
    qb_model *m; /* NULL when config.json cannot be understood */
    qb_modules modules;
    bool damaged;
    bool convention_doubtful;          /* a reader said so */
    double bits, weights;              /* of the blocks' modules that could be read */
    int64_t zeros_at_zero, asymmetric; /* asymmetric: modules */
    bool any_index;
} inspection;

static void note(inspection *in, bool damage, const char *where, const char *text) {
    qb_json *o = qb_json_object();
    qb_json_put_text(o, "where", where);
    qb_json_put_bool(o, "damage", damage);
    qb_json_put_text(o, "text", text);
    qb_json_push(in->oddities, o);
    in->damaged |= damage;
}

static void take_warning(void *ctx, const char *text) {
    inspection *in = ctx;
    if (strstr(text, "is labelled")) in->convention_doubtful = true;
    note(in, false, NULL, text);
}

static void note_failure(inspection *in, const char *where) {
    note(in, true, where, qb_error_text());
    qb_error_clear();
}

/* ---- opening ---- */

/* A model if it is one; else its tensors, with what config.json lacks as an oddity. */
static bool open_any(inspection *in, const char *path) {
    if (qb_model_open(path, &in->m) == QB_OK) {
        in->ck = in->m->checkpoint;
        return true;
    }
    qb_str why = {0};
    qb_str_text(&why, qb_error_text());
    bool opened = qb_checkpoint_open(path, &in->ck) == QB_OK;
    if (!opened) qb_json_put_text(in->report, "error", qb_error_text());
    note(in, true, NULL, opened ? qb_str_get(&why) : qb_error_text());
    qb_str_free(&why);
    qb_error_clear();
    return opened;
}

/* ---- the whole ---- */

static void put_files(inspection *in) {
    qb_json *files = qb_json_array();
    int64_t bytes;
    const char *name;
    for (size_t i = 0; (name = qb_checkpoint_file(in->ck, i, &bytes)); i++) {
        qb_json *o = qb_json_object();
        qb_json_put_text(o, "name", name);
        qb_json_put_int(o, "bytes", bytes);
        qb_json_push(files, o);
    }
    qb_json_put(in->report, "files", files);
}

static void put_dtypes(inspection *in) {
    struct {
        const char *name;
        int64_t tensors, bytes;
    } found[64];
    size_t n = 0;
    for (size_t i = 0; i < qb_checkpoint_count(in->ck); i++) {
        const qb_tensor *t = qb_checkpoint_at(in->ck, i);
        const char *name = qb_checkpoint_dtype_name(in->ck, t);
        size_t at = 0;
        while (at < n && strcmp(found[at].name, name) != 0) at++;
        if (at == sizeof found / sizeof found[0]) continue;
        if (at == n) {
            found[n].name = name;
            found[n].tensors = found[n].bytes = 0;
            n++;
        }
        found[at].tensors++;
        found[at].bytes += t->bytes;
    }
    qb_json *dtypes = qb_json_array();
    for (size_t i = 0; i < n; i++) {
        qb_json *o = qb_json_object();
        qb_json_put_text(o, "name", found[i].name);
        qb_json_put_int(o, "tensors", found[i].tensors);
        qb_json_put_int(o, "bytes", found[i].bytes);
        qb_json_push(dtypes, o);
    }
    qb_json_put(in->report, "dtypes", dtypes);
}

static void put_head(inspection *in) {
    const qb_quantization *q = qb_checkpoint_quantization(in->ck);
    bool quantized = q->layout[0] != 0, codebook = q->codebook[0] != 0;
    qb_json *r = in->report;
    qb_json_put_text(r, "architecture", in->m ? in->m->config.architecture : NULL);
    qb_json_put_text(r, "family", in->m ? in->m->config.family->name : NULL);
    if (in->m) qb_json_put_int(r, "parameters", qb_topology_params(&in->m->topology));
    qb_json_put_text(r, "layout", quantized ? q->layout : "dense");
    qb_json_put_text(r, "method", quantized ? q->method : NULL);
    if (quantized) qb_json_put_int(r, "bits", q->bits);
    if (quantized && !codebook) {
        qb_json_put_int(r, "group_size", q->group_size);
        qb_json_put_bool(r, "symmetric", q->symmetric);
        qb_json_put_bool(r, "act_order", q->desc_act);
    } else if (quantized) {
        qb_json_put_text(r, "codebook", q->codebook);
        qb_json_put_bool(r, "double_quant", q->double_quant);
    }
    qb_json_put_int(r, "tensor_bytes", qb_checkpoint_tensor_bytes(in->ck));
    qb_json_put_int(r, "tensors", (int64_t)qb_checkpoint_count(in->ck));
    put_files(in);
    put_dtypes(in);
}

/* ---- modules ---- */

static void take_oddity(void *ctx, qb_oddity kind, const char *where, const char *text) {
    inspection *in = ctx;
    /* these two are said of the whole model */
    if (kind == QB_ODD_ZERO_AT_ZERO || kind == QB_ODD_NOT_SYMMETRIC) return;
    note(in, false, where, text);
}

static void count_affine(inspection *in, const qb_qweight *q) {
    for (int64_t i = 0; q->zeros && i < q->rows * q->n_groups; i++) in->zeros_at_zero += q->zeros[i] == 0;
    in->any_index |= q->g_idx != NULL;
    in->asymmetric += !q->symmetric;
}

static bool is_stacked(const qb_linear *l) {
    return l && (l->stored == QB_STORED_STACKED_ROWS || l->stored == QB_STORED_STACKED_COLUMNS);
}

/* The tensors that hold all experts of a linear: one, or MXFP4's two. */
static bool holds_experts(const inspection *in, const char *tensor, int64_t layer, const char *name) {
    const qb_owner *o = qb_owners_find(in->m->owners, tensor);
    return o && o->kind == QB_OWNER_LINEAR && is_stacked(o->linear) &&
           (!name || (o->layer == layer && !strcmp(o->linear->name, name)));
}

/* An expert's share where all lie in one tensor. */
static int64_t bytes_of_stacked(const inspection *in, const qb_module *module) {
    int64_t bytes = 0;
    for (size_t i = 0; i < qb_checkpoint_count(in->ck); i++) {
        const qb_tensor *t = qb_checkpoint_at(in->ck, i);
        if (holds_experts(in, t->name, module->layer, module->linear->name)) bytes += t->bytes;
    }
    return bytes / in->m->topology.experts;
}

static int64_t bytes_of(const inspection *in, const qb_module *module) {
    if (is_stacked(module->linear)) return bytes_of_stacked(in, module);
    size_t first = 0;
    qb_modules one = {.items = (qb_module *)(uintptr_t)module, .count = 1, .by_name = &first};
    int64_t bytes = 0;
    for (size_t i = 0; i < qb_checkpoint_count(in->ck); i++) {
        const qb_tensor *t = qb_checkpoint_at(in->ck, i);
        if (qb_modules_own(&one, t->name)) bytes += t->bytes;
    }
    return bytes;
}

static void look_at_dense(inspection *in, const char *name) {
    char tensor[QB_NAME_BYTES + 8];
    const void *bytes;
    snprintf(tensor, sizeof tensor, "%.140s", name);
    const qb_tensor *t = qb_checkpoint_find(in->ck, tensor);
    if (!t || t->dtype > QB_DTYPE_BF16) return;
    if (qb_checkpoint_check_finite(in->ck, t) != QB_OK) {
        note_failure(in, name);
        return;
    }
    if (qb_checkpoint_acquire(in->ck, t, &bytes) != QB_OK) {
        note_failure(in, name);
        return;
    }
    qb_oddities_of_dense(tensor, t->dtype, bytes, t->bytes / (int64_t)qb_dtype_bytes(t->dtype), take_oddity,
                         in);
    qb_checkpoint_release(in->ck, t);
}

static qb_json *module_json(inspection *in, const qb_module *module) {
    qb_weight w = {0};
    char what[48];
    qb_json *o = qb_json_object();
    qb_json_put_text(o, "name", module->name);
    qb_json_put_int(o, "rows", module->rows);
    qb_json_put_int(o, "cols", module->cols);
    qb_json_put_int(o, "bytes", bytes_of(in, module));
    if (qb_module_read(in->m, module, &w) != QB_OK) {
        note_failure(in, module->name);
        qb_json_put_null(o, "format");
        return o;
    }
    double weights = (double)module->rows * (double)module->cols;
    double bits = 8.0 * (double)(is_stacked(module->linear) ? bytes_of_stacked(in, module)
                                                            : qb_model_module_bytes(in->m, module->name));
    if (w.packed) {
        qb_json_put_text(o, "format", qb_qweight_describe(w.packed, what));
        qb_json_put_bool(o, "act_order", w.packed->g_idx != NULL);
        if (w.packed->coding == QB_CODING_AFFINE) {
            qb_json_put_text(o, "scales", qb_dtype_torch_name(w.packed->scale_dtype));
            count_affine(in, w.packed);
        }
        qb_oddities_of_packed(in->ck, module->name, w.packed, take_oddity, in);
    } else {
        char tensor[QB_NAME_BYTES + 8];
        qb_json_put_text(o, "format", qb_dtype_torch_name(w.dtype));
        snprintf(tensor, sizeof tensor, "%s.weight", module->name);
        look_at_dense(in, tensor);
    }
    qb_json_put_real(o, "bits_per_weight", bits / weights);
    if (module->layer >= 0) {
        in->bits += bits;
        in->weights += weights;
    }
    qb_module_unread(in->m, module, &w);
    return o;
}

static void put_modules(inspection *in) {
    qb_json *modules = qb_json_array();
    for (size_t i = 0; i < in->modules.count; i++)
        qb_json_push(modules, module_json(in, &in->modules.items[i]));
    if (in->weights > 0) qb_json_put_real(in->report, "bits_per_weight", in->bits / in->weights);
    qb_json_put(in->report, "modules", modules);
}

/* How stored zero points are to be understood, and what says so. */
static void put_zero_points(inspection *in) {
    const qb_quantization *q = qb_checkpoint_quantization(in->ck);
    bool v1 = !strcmp(q->layout, "gptq"), v2 = !strcmp(q->layout, "gptq_v2");
    if ((!v1 && !v2) || in->weights == 0) return;
    char text[256];
    bool minus_one = v1 != in->convention_doubtful;
    snprintf(text, sizeof text, "stored %s, %s", minus_one ? "minus one (v1)" : "as they are (v2)",
             in->convention_doubtful ? "unlike the label: the stored value of symmetric zero points shows it"
             : !in->asymmetric       ? "as labelled; the stored value of symmetric zero points confirms it"
                                     : "as labelled; asymmetric zero points cannot confirm it");
    qb_json_put_text(in->report, "zero_points", text);
    if (v1 && in->zeros_at_zero) {
        snprintf(text, sizeof text,
                 "%" PRId64 " zero points are 0, which zero points minus one hold only by wrapping: readers "
                 "differ in what they make of it",
                 in->zeros_at_zero);
        note(in, false, NULL, text);
    }
    if (q->symmetric && in->asymmetric) {
        snprintf(text, sizeof text,
                 "labelled symmetric, but %" PRId64 " of %zu modules %s other zero points than the middle: "
                 "programs that trust the label compute other weights",
                 in->asymmetric, in->modules.count, in->asymmetric == 1 ? "has" : "have");
        note(in, false, NULL, text);
    }
    if (q->desc_act && !q->static_groups && !in->any_index)
        note(in, false, NULL, "desc_act is true, but every column lies in its natural group");
}

/* ---- what is no module ---- */

static bool is_expected(const qb_tensor_spec *specs, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(specs[i].name, name)) return true;
    return false;
}

static void take_failure(void *ctx, const char *tensor) {
    note_failure(ctx, tensor);
}

static void look_at_others(inspection *in, const qb_tensor_spec *specs, size_t n) {
    const qb_topology *topology = &in->m->topology;
    char head[QB_NAME_BYTES];
    qb_linear_name(&topology->leave.linears[topology->head], topology->n_layers, head);
    strcat(head, ".weight");
    if (qb_modules_check_others(in->m, &in->modules, take_failure, in) != QB_OK) note_failure(in, NULL);
    for (size_t i = 0; i < qb_checkpoint_count(in->ck); i++) {
        const qb_tensor *t = qb_checkpoint_at(in->ck, i);
        if (qb_modules_own(&in->modules, t->name)) continue;
        look_at_dense(in, t->name);
        if (is_expected(specs, n, t->name) || holds_experts(in, t->name, -1, NULL)) continue;
        bool spare = topology->tied_head && !strcmp(t->name, head);
        note(in, false, t->name,
             spare ? "is not read: the head is tied to the embedding"
                   : "is not read: the model has no use for it");
    }
}

static void look_at_model(inspection *in) {
    qb_tensor_spec *specs = NULL;
    size_t n = 0;
    qb_status st;
    QB_TRY(st, qb_modules_list(in->m, &in->modules));
    QB_TRY(st, qb_model_tensor_specs(&in->m->topology, &specs, &n));
    put_modules(in);
    put_zero_points(in);
    look_at_others(in, specs, n);
out:
    if (st != QB_OK) note_failure(in, NULL);
    qb_free(specs);
}

/* Without a config only the tensors are known. */
static void look_at_tensors(inspection *in) {
    for (size_t i = 0; i < qb_checkpoint_count(in->ck); i++)
        look_at_dense(in, qb_checkpoint_at(in->ck, i)->name);
}

qb_json *qb_inspect(const char *path) {
    inspection in = {.report = qb_json_object(), .oddities = qb_json_array()};
    qb_json_put_text(in.report, "path", path);
    qb_json_put_bool(in.report, "sound", false);
    qb_log_capture(take_warning, &in);
    if (open_any(&in, path)) {
        put_head(&in);
        if (in.m)
            look_at_model(&in);
        else
            look_at_tensors(&in);
    }
    qb_log_capture(NULL, NULL);
    qb_json_put(in.report, "oddities", in.oddities);
    qb_json_put_bool(in.report, "sound", !in.damaged);
    qb_modules_free(&in.modules);
    if (in.m)
        qb_model_close(in.m);
    else
        qb_checkpoint_close(in.ck);
    return in.report;
}
