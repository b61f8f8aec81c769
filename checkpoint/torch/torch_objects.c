#include "checkpoint/torch/torch_objects.h"

#include "checkpoint/state.h"

#include <inttypes.h>
#include <string.h>

typedef enum {
    CALL_DICT,      /* OrderedDict(), OrderedDict(pairs) */
    CALL_TENSOR,    /* rebuild(storage, offset, size, stride, ..) */
    CALL_TENSOR_V3, /* rebuild(storage, offset, size, stride, grad, hooks, dtype, ..) */
    CALL_FIRST,     /* of no interest but for the first argument */
    CALL_OPAQUE,
    IS_STORAGE, /* names an element type; not called */
    IS_UNTYPED,
    IS_DTYPE,
} meaning;

typedef struct {
    const char *module, *name;
    meaning means;
    qb_dtype dtype;
} global_row;

static const global_row globals[] = {
    {"collections", "OrderedDict", CALL_DICT, QB_DTYPE_COUNT},
    {"torch._utils", "_rebuild_tensor_v2", CALL_TENSOR, QB_DTYPE_COUNT},
    {"torch._utils", "_rebuild_tensor", CALL_TENSOR, QB_DTYPE_COUNT},
    {"torch._utils", "_rebuild_tensor_v3", CALL_TENSOR_V3, QB_DTYPE_COUNT},
    {"torch._utils", "_rebuild_parameter", CALL_FIRST, QB_DTYPE_COUNT},
    {"torch._utils", "_rebuild_parameter_with_state", CALL_FIRST, QB_DTYPE_COUNT},
    {"torch", "Size", CALL_FIRST, QB_DTYPE_COUNT},
    {"torch", "device", CALL_OPAQUE, QB_DTYPE_COUNT},
    {"torch", "FloatStorage", IS_STORAGE, QB_DTYPE_F32},
    {"torch", "HalfStorage", IS_STORAGE, QB_DTYPE_F16},
    {"torch", "BFloat16Storage", IS_STORAGE, QB_DTYPE_BF16},
    {"torch", "DoubleStorage", IS_STORAGE, QB_DTYPE_F64},
    {"torch", "LongStorage", IS_STORAGE, QB_DTYPE_I64},
    {"torch", "IntStorage", IS_STORAGE, QB_DTYPE_I32},
    {"torch", "ShortStorage", IS_STORAGE, QB_DTYPE_I16},
    {"torch", "CharStorage", IS_STORAGE, QB_DTYPE_I8},
    {"torch", "ByteStorage", IS_STORAGE, QB_DTYPE_U8},
    {"torch", "BoolStorage", IS_STORAGE, QB_DTYPE_BOOL},
    {"torch", "UntypedStorage", IS_UNTYPED, QB_DTYPE_U8},
    {"torch.storage", "UntypedStorage", IS_UNTYPED, QB_DTYPE_U8},
    {"torch.storage", "_UntypedStorage", IS_UNTYPED, QB_DTYPE_U8},
    {"torch", "float32", IS_DTYPE, QB_DTYPE_F32},
    {"torch", "float16", IS_DTYPE, QB_DTYPE_F16},
    {"torch", "bfloat16", IS_DTYPE, QB_DTYPE_BF16},
    {"torch", "float64", IS_DTYPE, QB_DTYPE_F64},
    {"torch", "int64", IS_DTYPE, QB_DTYPE_I64},
    {"torch", "int32", IS_DTYPE, QB_DTYPE_I32},
    {"torch", "int16", IS_DTYPE, QB_DTYPE_I16},
    {"torch", "int8", IS_DTYPE, QB_DTYPE_I8},
    {"torch", "uint8", IS_DTYPE, QB_DTYPE_U8},
    {"torch", "bool", IS_DTYPE, QB_DTYPE_BOOL},
};

int qb_torch_global(const char *module, const char *name) {
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (!strcmp(globals[i].module, module) && !strcmp(globals[i].name, name)) return (int)i;
    return -1;
}

static const global_row *row_of(const qb_pickle_value *v) {
    return v->kind == QB_PICKLE_GLOBAL ? &globals[v->integer] : NULL;
}

/* ---- storages ---- */

qb_status qb_torch_persistent(const qb_pickle_value *id, const char *file, qb_arena *arena,
                              qb_pickle_value *out) {
    qb_pickle_value *const *part = id->items;
    const global_row *type = NULL;
    qb_torch_storage *s;
    if (id->kind != QB_PICKLE_TUPLE || id->count < 5 || part[0]->kind != QB_PICKLE_TEXT ||
        strcmp(part[0]->text, "storage") != 0 || !(type = row_of(part[1])) || type->means < IS_STORAGE ||
        type->means == IS_DTYPE || part[2]->kind != QB_PICKLE_TEXT || part[4]->kind != QB_PICKLE_INT)
        return qb_fail(QB_ERR_FORMAT, "%s: damaged pickle: a persistent id that is no storage", file);
    if (id->count > 5 && part[5]->kind != QB_PICKLE_NONE)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: storage %.40s is a view of another, which is not supported",
                       file, part[2]->text);
    int64_t bytes, n = part[4]->integer;
    if (!qb_shape_bytes(1, &n, (unsigned)(8 * qb_dtype_bytes(type->dtype)), &bytes))
        return qb_fail(QB_ERR_FORMAT, "%s: storage %.40s: %" PRId64 " elements are not possible", file,
                       part[2]->text, n);
    qb_status st = qb_arena_alloc(arena, 1, sizeof *s, &s);
    if (st != QB_OK) return st;
    *s = (qb_torch_storage){part[2]->text, type->dtype, type->means == IS_UNTYPED, n};
    *out = (qb_pickle_value){.kind = QB_PICKLE_STORAGE, .storage = s};
    return QB_OK;
}

/* ---- tensors ---- */

static qb_status bad_tensor(const char *file, const char *what) {
    return qb_fail(QB_ERR_FORMAT, "%s: damaged pickle: a tensor %s", file, what);
}

static qb_status read_sizes(const qb_pickle_value *from, const char *file, int *n, int64_t *sizes) {
    if (from->kind != QB_PICKLE_TUPLE) return bad_tensor(file, "without a shape and strides");
    if (from->count > QB_MAX_DIMS)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: a tensor of %zu dimensions (at most %d)", file, from->count,
                       QB_MAX_DIMS);
    for (size_t d = 0; d < from->count; d++) {
        if (from->items[d]->kind != QB_PICKLE_INT || from->items[d]->integer < 0)
            return bad_tensor(file, "whose sizes are no whole numbers");
        sizes[d] = from->items[d]->integer;
    }
    *n = (int)from->count;
    return QB_OK;
}

/* Whether the strides are those of elements one after another, dimensions of size 1 aside. */
static bool is_contiguous(int n_dims, const int64_t *shape, const int64_t *stride) {
    int64_t expected = 1;
    for (int d = n_dims - 1; d >= 0; d--) {
        if (shape[d] != 1 && stride[d] != expected) return false;
        expected *= shape[d];
    }
    return true;
}

static qb_status check_view(const qb_torch_tensor *t, const int64_t *stride, const char *file,
                            bool *transposed) {
    bool empty = t->bytes == 0;
    int64_t swapped_shape[2] = {t->shape[1], t->shape[0]}, swapped_stride[2] = {stride[1], stride[0]};
    *transposed = false;
    if (empty || is_contiguous(t->n_dims, t->shape, stride)) return QB_OK;
    *transposed = t->n_dims == 2 && is_contiguous(2, swapped_shape, swapped_stride);
    if (*transposed) return QB_OK;
    char shape[128], strides[128];
    return qb_fail(QB_ERR_UNSUPPORTED,
                   "%s: a tensor of shape %s with strides %s is neither contiguous nor transposed, which is "
                   "not supported",
                   file, qb_shape_text(t->n_dims, t->shape, shape),
                   qb_shape_text(t->n_dims, stride, strides));
}

static qb_status rebuild(const qb_pickle_value *args, qb_dtype dtype, const char *file, qb_arena *arena,
                         qb_pickle_value *out) {
    int64_t stride[QB_MAX_DIMS] = {0}, first = 0, held = 0;
    int n_strides = 0;
    qb_torch_tensor *t;
    if (args->count < 4 || args->items[0]->kind != QB_PICKLE_STORAGE ||
        args->items[1]->kind != QB_PICKLE_INT || args->items[1]->integer < 0)
        return bad_tensor(file, "without a storage and an offset");
    qb_status st;
    QB_TRY(st, qb_arena_alloc(arena, 1, sizeof *t, &t));
    t->storage = args->items[0]->storage;
    t->dtype = dtype == QB_DTYPE_COUNT ? t->storage->dtype : dtype;
    QB_TRY(st, read_sizes(args->items[2], file, &t->n_dims, t->shape));
    QB_TRY(st, read_sizes(args->items[3], file, &n_strides, stride));
    if (n_strides != t->n_dims) return bad_tensor(file, "with more strides than dimensions, or fewer");
    unsigned bits = (unsigned)(8 * qb_dtype_bytes(t->dtype));
    unsigned held_bits = (unsigned)(8 * qb_dtype_bytes(t->storage->dtype));
    if (!qb_shape_bytes(t->n_dims, t->shape, bits, &t->bytes) ||
        !qb_shape_bytes(1, &args->items[1]->integer, bits, &first) ||
        !qb_shape_bytes(1, &t->storage->n_elements, held_bits, &held) || first > held ||
        t->bytes > held - first)
        return bad_tensor(file, "that reaches beyond its storage");
    t->offset_bytes = first;
    QB_TRY(st, check_view(t, stride, file, &t->transposed));
    *out = (qb_pickle_value){.kind = QB_PICKLE_TENSOR, .tensor = t};
out:
    return st;
}

/* ---- calls ---- */

/* A list of (key, value) pairs, as OrderedDict is made by old versions of Python. */
static qb_status dict_of_pairs(const qb_pickle_value *pairs, const char *file, qb_arena *arena,
                               qb_pickle_value *out) {
    if (pairs->kind != QB_PICKLE_LIST)
        return qb_fail(QB_ERR_FORMAT, "%s: damaged pickle: an OrderedDict of what is no list", file);
    qb_status st = qb_arena_alloc(arena, 2 * pairs->count, sizeof *out->items, &out->items);
    if (st != QB_OK) return st;
    out->capacity = 2 * pairs->count;
    for (size_t i = 0; i < pairs->count; i++) {
        const qb_pickle_value *pair = pairs->items[i];
        if ((pair->kind != QB_PICKLE_LIST && pair->kind != QB_PICKLE_TUPLE) || pair->count != 2)
            return qb_fail(QB_ERR_FORMAT, "%s: damaged pickle: an OrderedDict of what are no pairs", file);
        out->items[out->count++] = pair->items[0];
        out->items[out->count++] = pair->items[1];
    }
    return QB_OK;
}

qb_status qb_torch_reduce(int64_t global, qb_pickle_value *args, const char *file, qb_arena *arena,
                          qb_pickle_value *out) {
    const global_row *g = &globals[global], *dtype;
    switch (g->means) {
    case CALL_DICT:
        *out = (qb_pickle_value){.kind = QB_PICKLE_DICT};
        return args->count ? dict_of_pairs(args->items[0], file, arena, out) : QB_OK;
    case CALL_TENSOR:
        return rebuild(args, QB_DTYPE_COUNT, file, arena, out);
    case CALL_TENSOR_V3:
        dtype = args->count > 6 ? row_of(args->items[6]) : NULL;
        if (!dtype || dtype->means != IS_DTYPE) return bad_tensor(file, "without a dtype");
        return rebuild(args, dtype->dtype, file, arena, out);
    case CALL_FIRST:
        if (args->count < 1)
            return qb_fail(QB_ERR_FORMAT, "%s: damaged pickle: %s() without arguments", file, g->name);
        *out = *args->items[0];
        return QB_OK;
    case CALL_OPAQUE:
        *out = (qb_pickle_value){.kind = QB_PICKLE_OPAQUE};
        return QB_OK;
    case IS_STORAGE:
    case IS_UNTYPED:
    case IS_DTYPE:
        break;
    }
    return qb_fail(QB_ERR_FORMAT, "%s: damaged pickle: %s.%s is called", file, g->module, g->name);
}
