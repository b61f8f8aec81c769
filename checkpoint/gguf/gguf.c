#include "checkpoint/gguf/gguf.h"

#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The file's numbers are little-endian and read as they are. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is read in place on little-endian machines");

enum { MAX_NESTING = 4, MAX_NAME_BYTES = 255, MAX_TENSOR_DIMS = 4, DEFAULT_ALIGNMENT = 32 };
/* The fewest bytes that a metadata pair and a tensor info take: what bounds their counts. */
enum { MIN_PAIR_BYTES = 4 + 4 + 1, MIN_INFO_BYTES = 4 + 4 + 4 + 8 };

typedef struct {
    const uint8_t *begin, *at, *end;
    const char *file;
    int width; /* bytes of a length or count: 4 in version 1, else 8 */
    qb_arena *arena;
} reader;

static size_t left(const reader *r) {
    return (size_t)(r->end - r->at);
}

static qb_status cut_short(const reader *r, const char *what) {
    return qb_fail(QB_ERR_FORMAT, "%s: ends inside %s at byte %zu (is it cut short?)", r->file, what,
                   (size_t)(r->at - r->begin));
}

static qb_status take(reader *r, void *out, size_t n, const char *what) {
    if (left(r) < n) return cut_short(r, what);
    memcpy(out, r->at, n);
    r->at += n;
    return QB_OK;
}

/* A length or a count, in the version's width. */
static qb_status take_size(reader *r, uint64_t *out, const char *what) {
    *out = 0;
    return take(r, out, (size_t)r->width, what);
}

/* A string's bytes stay in the file. */
static qb_status take_string(reader *r, const char **text, size_t *n, const char *what) {
    uint64_t length = 0;
    qb_status st = take_size(r, &length, what);
    if (st != QB_OK) return st;
    if (length > left(r))
        return qb_fail(QB_ERR_FORMAT,
                       "%s: %s at byte %zu says that it has %" PRIu64 " bytes, the file ends after %zu",
                       r->file, what, (size_t)(r->at - r->begin), length, left(r));
    *text = (const char *)r->at;
    *n = (size_t)length;
    r->at += length;
    return QB_OK;
}

/* The same as a C string in the arena. */
static qb_status take_name(reader *r, const char **out, const char *what) {
    const char *text = NULL;
    size_t n = 0;
    qb_status st = take_string(r, &text, &n, what);
    if (st != QB_OK) return st;
    if (n > MAX_NAME_BYTES || memchr(text, 0, n))
        return qb_fail(QB_ERR_FORMAT, "%s: %s of %zu bytes at byte %zu is too long or holds a NUL", r->file,
                       what, n, (size_t)((const uint8_t *)text - r->begin));
    char *copy;
    if ((st = qb_arena_alloc(r->arena, n + 1, 1, &copy)) != QB_OK) return st;
    memcpy(copy, text, n);
    *out = copy;
    if (!qb_tensor_name_ok(copy))
        return qb_fail(QB_ERR_FORMAT, "%s: %s at byte %zu is empty or holds control characters", r->file,
                       what, (size_t)((const uint8_t *)text - r->begin));
    return QB_OK;
}

/* ---- header ---- */

bool qb_gguf_is(const uint8_t *bytes, size_t size) {
    return size >= 4 && !memcmp(bytes, "GGUF", 4);
}

static qb_status read_header(reader *r, qb_gguf *g, uint64_t *n_tensors, uint64_t *n_values) {
    if (!qb_gguf_is(r->at, left(r)))
        return qb_fail(
            QB_ERR_FORMAT,
            "%s: is no GGUF file (a model is a Hugging Face directory with config.json, or a GGUF file)",
            r->file);
    r->at += 4;
    qb_status st;
    QB_TRY(st, take(r, &g->version, sizeof g->version, "the version"));
    if (g->version && !(g->version & 0xffff))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: a big-endian GGUF file is not supported", r->file);
    if (g->version < 1 || g->version > 3)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: GGUF version %" PRIu32 " is not supported (1, 2 and 3 are)",
                       r->file, g->version);
    r->width = g->version == 1 ? 4 : 8;
    QB_TRY(st, take_size(r, n_tensors, "the number of tensors"));
    QB_TRY(st, take_size(r, n_values, "the number of metadata pairs"));
    if (*n_values > left(r) / MIN_PAIR_BYTES || *n_tensors > left(r) / MIN_INFO_BYTES)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: says that it has %" PRIu64 " metadata pairs and %" PRIu64
                       " tensors, more than its %zu bytes can hold",
                       r->file, *n_values, *n_tensors, (size_t)(r->end - r->begin));
out:
    return st;
}

/* ---- metadata ---- */

static size_t kind_bytes(qb_gguf_kind kind) {
    static const uint8_t bytes[QB_GGUF_KIND_COUNT] = {
        [QB_GGUF_U8] = 1,  [QB_GGUF_I8] = 1,  [QB_GGUF_U16] = 2, [QB_GGUF_I16] = 2,
        [QB_GGUF_U32] = 4, [QB_GGUF_I32] = 4, [QB_GGUF_F32] = 4, [QB_GGUF_BOOL] = 1,
        [QB_GGUF_U64] = 8, [QB_GGUF_I64] = 8, [QB_GGUF_F64] = 8,
    };
    return bytes[kind];
}

static qb_status take_kind(reader *r, const char *key, qb_gguf_kind *out) {
    uint32_t kind = 0;
    qb_status st = take(r, &kind, sizeof kind, "a value's type");
    if (st == QB_OK && kind >= QB_GGUF_KIND_COUNT)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: metadata %.200s: value type %" PRIu32 " is not one of the format's 0 .. %d",
                       r->file, key, kind, QB_GGUF_KIND_COUNT - 1);
    *out = (qb_gguf_kind)kind;
    return st;
}

/* Walks over `count` items of a kind. Arrays in arrays are checked and stepped over. */
static qb_status skip_items(reader *r, const char *key, qb_gguf_kind kind, uint64_t count, int nesting) {
    qb_status st = QB_OK;
    size_t size = kind_bytes(kind);
    /* Strings and arrays take at least their length. */
    if (count > left(r) / (size ? size : (size_t)r->width))
        return qb_fail(QB_ERR_FORMAT,
                       "%s: metadata %.200s: says that it has %" PRIu64
                       " items, the file ends after %zu bytes",
                       r->file, key, count, left(r));
    for (uint64_t i = 0; kind == QB_GGUF_BOOL && i < count; i++)
        if (r->at[i] > 1)
            return qb_fail(QB_ERR_FORMAT, "%s: metadata %.200s: a truth value is %d, expected 0 or 1",
                           r->file, key, r->at[i]);
    if (size) {
        r->at += count * size;
        return QB_OK;
    }
    if (kind == QB_GGUF_ARRAY && nesting == MAX_NESTING)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: metadata %.200s: arrays nest deeper than %d", r->file, key,
                       MAX_NESTING);
    for (uint64_t i = 0; st == QB_OK && i < count; i++) {
        const char *text = NULL;
        size_t n = 0;
        qb_gguf_kind inner = QB_GGUF_U8;
        uint64_t items = 0;
        if (kind == QB_GGUF_STRING) {
            st = take_string(r, &text, &n, "a string");
            continue;
        }
        st = take_kind(r, key, &inner);
        if (st == QB_OK) st = take_size(r, &items, "an array's length");
        if (st == QB_OK) st = skip_items(r, key, inner, items, nesting + 1);
    }
    return st;
}

static qb_status keep_text(reader *r, qb_gguf_value *v) {
    reader at = *r;
    const char *text = NULL;
    size_t n = 0;
    char *copy;
    at.at = v->bytes;
    qb_status st = take_string(&at, &text, &n, "a string");
    if (st == QB_OK) st = qb_arena_alloc(r->arena, n + 1, 1, &copy);
    if (st != QB_OK) return st;
    memcpy(copy, text, n);
    v->text = copy;
    return QB_OK;
}

static qb_status read_value(reader *r, qb_gguf_value *v) {
    uint64_t count = 1;
    qb_status st;
    QB_TRY(st, take_name(r, &v->key, "a metadata key"));
    QB_TRY(st, take_kind(r, v->key, &v->kind));
    v->is_array = v->kind == QB_GGUF_ARRAY;
    if (v->is_array) {
        QB_TRY(st, take_kind(r, v->key, &v->kind));
        QB_TRY(st, take_size(r, &count, "an array's length"));
    }
    v->bytes = r->at;
    QB_TRY(st, skip_items(r, v->key, v->kind, count, 1));
    v->count = (int64_t)count;
    if (v->kind == QB_GGUF_STRING && !v->is_array) st = keep_text(r, v);
out:
    return st;
}

/* The lists grow as they are read: a count that lies ends with the file, not with the memory. */
static qb_status read_values(reader *r, uint64_t n, qb_gguf *g) {
    qb_status st = QB_OK;
    for (; g->n_values < n; g->n_values++) {
        uint32_t position;
        QB_TRY(st, qb_grow(&g->values, &g->values_capacity, g->n_values + 1, sizeof *g->values));
        qb_gguf_value *v = &g->values[g->n_values];
        *v = (qb_gguf_value){0};
        QB_TRY(st, read_value(r, v));
        QB_TRY(st, qb_names_add(&g->keys, v->key, (uint32_t)g->n_values, &position));
        if (position != g->n_values)
            return qb_fail(QB_ERR_FORMAT, "%s: metadata %.200s is there twice", r->file, v->key);
    }
out:
    return st;
}

/* ---- tensors ---- */

/* Bytes of a tensor from its dimensions, innermost first in the file. */
static qb_status size_tensor(const reader *r, qb_gguf_tensor *t) {
    char shape[128];
    const qb_ggml_type *type = t->type;
    int64_t columns = t->n_dims ? t->shape[t->n_dims - 1] : 1, rows = 1;
    if (columns % type->block_columns)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: tensor %.200s: rows of %" PRId64
                       " elements are no whole number of %s blocks of %d",
                       r->file, t->name, columns, type->name, type->block_columns);
    bool fits = !__builtin_mul_overflow(columns / type->block_columns, (int64_t)type->block_bytes, &t->bytes);
    for (int d = 0; d + 1 < t->n_dims; d++) fits = fits && !__builtin_mul_overflow(rows, t->shape[d], &rows);
    if (!fits || __builtin_mul_overflow(t->bytes, rows, &t->bytes) ||
        __builtin_mul_overflow(rows, columns, &rows))
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: shape %s is beyond 64 bits", r->file, t->name,
                       qb_shape_text(t->n_dims, t->shape, shape));
    return QB_OK;
}

static qb_status read_info(reader *r, qb_gguf_tensor *t) {
    uint32_t n_dims = 0, type = 0;
    qb_status st;
    QB_TRY(st, take_name(r, &t->name, "a tensor name"));
    QB_TRY(st, take(r, &n_dims, sizeof n_dims, "a tensor info"));
    if (n_dims > MAX_TENSOR_DIMS)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s has %" PRIu32 " dimensions; the format allows %d",
                       r->file, t->name, n_dims, MAX_TENSOR_DIMS);
    t->n_dims = (int)n_dims;
    for (int d = t->n_dims - 1; d >= 0; d--) {
        uint64_t size = 0;
        QB_TRY(st, take_size(r, &size, "a tensor info"));
        if (size > INT64_MAX)
            return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: a dimension of %" PRIu64 " is beyond 63 bits",
                           r->file, t->name, size);
        t->shape[d] = (int64_t)size;
    }
    QB_TRY(st, take(r, &type, sizeof type, "a tensor info"));
    t->type = qb_ggml_type_find(type);
    if (!t->type || !t->type->block_bytes)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s has type %" PRIu32 "%s%s, which %s", r->file,
                       t->name, type, t->type ? ", " : "", t->type ? t->type->name : "",
                       t->type ? "left the format; requantize the model" : "is not known");
    QB_TRY(st, take(r, &t->offset, sizeof t->offset, "a tensor info"));
    st = size_tensor(r, t);
out:
    return st;
}

static qb_status read_infos(reader *r, uint64_t n, qb_gguf *g) {
    qb_names names = {0};
    qb_status st = QB_OK;
    for (; g->n_tensors < n; g->n_tensors++) {
        uint32_t position;
        QB_TRY(st, qb_grow(&g->tensors, &g->tensors_capacity, g->n_tensors + 1, sizeof *g->tensors));
        qb_gguf_tensor *t = &g->tensors[g->n_tensors];
        *t = (qb_gguf_tensor){0};
        QB_TRY(st, read_info(r, t));
        QB_TRY(st, qb_names_add(&names, t->name, (uint32_t)g->n_tensors, &position));
        if (position != g->n_tensors) {
            st = qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s is there twice", r->file, t->name);
            goto out;
        }
    }
out:
    qb_names_free(&names);
    return st;
}

static qb_status place_tensors(const reader *r, int64_t alignment, qb_gguf *g) {
    uint64_t head = (uint64_t)(r->at - r->begin), size = (uint64_t)(r->end - r->begin);
    uint64_t start = (head + (uint64_t)alignment - 1) / (uint64_t)alignment * (uint64_t)alignment;
    for (size_t i = 0; i < g->n_tensors; i++) {
        qb_gguf_tensor *t = &g->tensors[i];
        if (t->offset % (uint64_t)alignment)
            return qb_fail(QB_ERR_FORMAT,
                           "%s: tensor %.200s: offset %" PRIu64 " is no multiple of the alignment %" PRId64,
                           r->file, t->name, t->offset, alignment);
        if (start > size || t->offset > size - start || (uint64_t)t->bytes > size - start - t->offset)
            return qb_fail(QB_ERR_FORMAT,
                           "%s: tensor %.200s: %" PRId64 " bytes at offset %" PRIu64
                           " reach beyond the end of the file (is it cut short?)",
                           r->file, t->name, t->bytes, t->offset);
        t->data = r->begin + start + t->offset;
    }
    return QB_OK;
}

static int by_position(const void *a, const void *b) {
    const qb_gguf_tensor *x = *(const qb_gguf_tensor *const *)a, *y = *(const qb_gguf_tensor *const *)b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->bytes != y->bytes ? (x->bytes < y->bytes ? -1 : 1) : strcmp(x->name, y->name);
}

static qb_status check_overlaps(const qb_gguf *g) {
    const qb_gguf_tensor **order;
    qb_status st = qb_alloc(g->n_tensors, sizeof *order, &order);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < g->n_tensors; i++) order[i] = &g->tensors[i];
    if (g->n_tensors > 1) qsort(order, g->n_tensors, sizeof *order, by_position);
    for (size_t i = 1; st == QB_OK && i < g->n_tensors; i++)
        if (order[i - 1]->data + order[i - 1]->bytes > order[i]->data)
            st = qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s overlaps tensor %.200s", g->file, order[i]->name,
                         order[i - 1]->name);
    qb_free(order);
    return st;
}

static qb_status read_tensors(reader *r, uint64_t n, qb_gguf *g) {
    int64_t alignment = DEFAULT_ALIGNMENT;
    qb_status st;
    QB_TRY(st, qb_gguf_int(g, "general.alignment", false, 1, 1 << 24, &alignment));
    if (alignment & (alignment - 1))
        return qb_fail(QB_ERR_FORMAT, "%s: general.alignment is %" PRId64 ", expected a power of two",
                       r->file, alignment);
    if (n > left(r) / MIN_INFO_BYTES)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: says that it has %" PRIu64 " tensors, the file ends after %zu bytes", r->file, n,
                       left(r));
    QB_TRY(st, read_infos(r, n, g));
    QB_TRY(st, place_tensors(r, alignment, g));
    st = check_overlaps(g);
out:
    return st;
}

qb_status qb_gguf_parse(const uint8_t *bytes, size_t size, const char *file, qb_arena *arena, qb_gguf *out) {
    *out = (qb_gguf){.file = file};
    reader r = {.begin = bytes, .at = bytes, .end = bytes + size, .file = file, .width = 8, .arena = arena};
    uint64_t n_tensors = 0, n_values = 0;
    qb_status st;
    QB_TRY(st, read_header(&r, out, &n_tensors, &n_values));
    QB_TRY(st, read_values(&r, n_values, out));
    QB_TRY(st, read_tensors(&r, n_tensors, out));
out:
    if (st != QB_OK) qb_gguf_free(out);
    return st;
}

void qb_gguf_free(qb_gguf *g) {
    if (!g) return;
    qb_names_free(&g->keys);
    qb_free(g->values);
    qb_free(g->tensors);
    *g = (qb_gguf){0};
}
