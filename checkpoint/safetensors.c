#include "checkpoint/safetensors.h"

#include "base/json.h"
#include "checkpoint/names.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The file's numbers are little-endian and mapped as they are. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "checkpoints are read in place on little-endian machines");

/* Types of the format: those of qb_dtype, and those that are listed but that nothing here reads. */
typedef struct {
    const char *name;
    qb_dtype dtype;
    unsigned bits;
} dtype_row;
static const dtype_row dtype_rows[] = {
#define X(name, st, torch, bytes) {st, QB_DTYPE_##name, 8 * (bytes)},
    QB_DTYPES(X)
#undef X
        {"U16", QB_DTYPE_COUNT, 16},
    {"U32", QB_DTYPE_COUNT, 32},
    {"U64", QB_DTYPE_COUNT, 64},
    {"C64", QB_DTYPE_COUNT, 64},
    {"F8_E4M3", QB_DTYPE_COUNT, 8},
    {"F8_E5M2", QB_DTYPE_COUNT, 8},
    {"F8_E8M0", QB_DTYPE_COUNT, 8},
    {"F8_E4M3FNUZ", QB_DTYPE_COUNT, 8},
    {"F8_E5M2FNUZ", QB_DTYPE_COUNT, 8},
    {"F6_E2M3", QB_DTYPE_COUNT, 6},
    {"F6_E3M2", QB_DTYPE_COUNT, 6},
    {"F4", QB_DTYPE_COUNT, 4},
};

static const dtype_row *find_dtype(const char *name) {
    for (size_t i = 0; i < sizeof dtype_rows / sizeof dtype_rows[0]; i++)
        if (!strcmp(dtype_rows[i].name, name)) return &dtype_rows[i];
    return NULL;
}

const char *qb_shape_text(int n_dims, const int64_t *shape, char buffer[128]) {
    size_t used = 1;
    memcpy(buffer, "[", 2);
    for (int d = 0; d < n_dims && used < 128; d++) {
        int n = snprintf(buffer + used, 128 - used, d ? ", %" PRId64 : "%" PRId64, shape[d]);
        used += n < 0 ? 0 : (size_t)n;
    }
    if (used < 127) memcpy(buffer + used, "]", 2);
    return buffer;
}

bool qb_shape_bytes(int n_dims, const int64_t *shape, unsigned element_bits, int64_t *bytes) {
    int64_t bits = element_bits;
    for (int d = 0; d < n_dims; d++)
        if (shape[d] < 0 || __builtin_mul_overflow(bits, shape[d], &bits)) return false;
    *bytes = bits / 8;
    return bits % 8 == 0;
}

bool qb_tensor_name_ok(const char *name) {
    for (const unsigned char *p = (const unsigned char *)name; *p; p++)
        if (*p < 0x20 || *p == 0x7f) return false;
    return name[0] != 0;
}

/* A non-negative whole number that a double carries exactly. */
static bool whole_number(const qb_json *j, int64_t *out) {
    double v = qb_json_number(j);
    if (!qb_json_is_number(j) || !(v >= 0 && v <= 9007199254740992.0)) return false;
    *out = (int64_t)v;
    return (double)*out == v;
}

static qb_status read_shape(const qb_json *j, const char *file, qb_tensor *t) {
    if (!qb_json_is_array(j))
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: \"shape\" must be an array of sizes", file,
                       t->name);
    for (const qb_json *d = qb_json_first(j); d; d = qb_json_next(d)) {
        if (t->n_dims == QB_MAX_DIMS)
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s has more than %d dimensions", file, t->name,
                           QB_MAX_DIMS);
        if (!whole_number(d, &t->shape[t->n_dims++]))
            return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: dimension %d of \"shape\" is not a size", file,
                           t->name, t->n_dims - 1);
    }
    return QB_OK;
}

static qb_status read_offsets(const qb_json *j, const char *file, const char *name, int64_t offsets[2]) {
    const qb_json *first = qb_json_is_array(j) ? qb_json_first(j) : NULL;
    const qb_json *second = first ? qb_json_next(first) : NULL;
    if (!second || qb_json_next(second) || !whole_number(first, &offsets[0]) ||
        !whole_number(second, &offsets[1]))
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: \"data_offsets\" must be two byte positions", file,
                       name);
    return QB_OK;
}

/* One member of the header: {"dtype": .., "shape": [..], "data_offsets": [begin, end]}. */
static qb_status read_entry(const qb_json *member, const char *file, const uint8_t *data, int64_t data_bytes,
                            qb_safetensors_entry *e) {
    const char *name = e->tensor.name;
    const dtype_row *dtype = NULL;
    int64_t offsets[2] = {0, 0}, expected;
    unsigned seen = 0;
    if (!qb_json_is_object(member))
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s is not an object", file, name);
    for (const qb_json *j = qb_json_first(member); j; j = qb_json_next(j)) {
        const char *key = qb_json_key(j);
        unsigned bit = !strcmp(key, "dtype")          ? 1
                       : !strcmp(key, "shape")        ? 2
                       : !strcmp(key, "data_offsets") ? 4
                                                      : 0;
        qb_status st = QB_OK;
        if (bit == 0 || (seen & bit))
            return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: %s key \"%.60s\"", file, name,
                           bit ? "repeated" : "unknown", key);
        seen |= bit;
        if (bit == 1) {
            const char *text = qb_json_string(j);
            if (!text || !(dtype = find_dtype(text)))
                return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s has the unknown dtype \"%.40s\"", file, name,
                               text ? text : "(not a string)");
        } else {
            st = bit == 2 ? read_shape(j, file, &e->tensor) : read_offsets(j, file, name, offsets);
        }
        if (st != QB_OK) return st;
    }
    if (seen != 7)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s lacks \"%s\"", file, name,
                       !(seen & 1)   ? "dtype"
                       : !(seen & 2) ? "shape"
                                     : "data_offsets");
    char shape[128];
    qb_shape_text(e->tensor.n_dims, e->tensor.shape, shape);
    if (!qb_shape_bytes(e->tensor.n_dims, e->tensor.shape, dtype->bits, &expected))
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: the size of %s %s overflows", file, name,
                       dtype->name, shape);
    if (offsets[0] > offsets[1] || offsets[1] > data_bytes)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: tensor %.200s: offsets %" PRId64 "..%" PRId64 " do not lie in the %" PRId64
                       " data bytes (is the file cut short?)",
                       file, name, offsets[0], offsets[1], data_bytes);
    if (offsets[1] - offsets[0] != expected)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: tensor %.200s: %s %s takes %" PRId64 " bytes, its offsets span %" PRId64, file,
                       name, dtype->name, shape, expected, offsets[1] - offsets[0]);
    e->dtype_name = dtype->name;
    e->tensor.dtype = dtype->dtype;
    e->tensor.bytes = expected;
    e->tensor.data = data + offsets[0];
    return QB_OK;
}

static qb_status check_metadata(const qb_json *metadata, const char *file) {
    if (!qb_json_is_object(metadata))
        return qb_fail(QB_ERR_FORMAT, "%s: __metadata__ is not an object", file);
    for (const qb_json *j = qb_json_first(metadata); j; j = qb_json_next(j))
        if (!qb_json_is_string(j))
            return qb_fail(QB_ERR_FORMAT, "%s: __metadata__: \"%.60s\" is not a string", file,
                           qb_json_key(j));
    return QB_OK;
}

static qb_status read_entries(const qb_json *header, const char *file, const uint8_t *data,
                              int64_t data_bytes, qb_arena *arena, qb_safetensors *out) {
    qb_names names = {0};
    bool metadata_seen = false;
    qb_status st;
    QB_TRY(st, qb_arena_alloc(arena, (size_t)qb_json_count(header), sizeof *out->entries, &out->entries));
    for (const qb_json *j = qb_json_first(header); j; j = qb_json_next(j)) {
        const char *key = qb_json_key(j);
        uint32_t position;
        if (!strcmp(key, "__metadata__") && !metadata_seen) {
            metadata_seen = true;
            QB_TRY(st, check_metadata(j, file));
            continue;
        }
        if (!qb_tensor_name_ok(key)) {
            st = qb_fail(QB_ERR_FORMAT, "%s: a tensor name is empty or holds control characters", file);
            goto out;
        }
        qb_safetensors_entry *e = &out->entries[out->count];
        QB_TRY(st, qb_arena_strdup(arena, key, &e->tensor.name));
        QB_TRY(st, qb_names_add(&names, e->tensor.name, (uint32_t)out->count, &position));
        if (position != out->count) {
            st = qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s is listed twice", file, key);
            goto out;
        }
        QB_TRY(st, read_entry(j, file, data, data_bytes, e));
        out->count++;
    }
out:
    qb_names_free(&names);
    return st;
}

/* By position; tensors without bytes go before the one that starts where they do. */
static int by_position(const void *a, const void *b) {
    const qb_tensor *x = &((const qb_safetensors_entry *)a)->tensor,
                    *y = &((const qb_safetensors_entry *)b)->tensor;
    if (x->data != y->data) return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The format allows neither overlaps nor holes: the tensors tile the data. */
static qb_status check_tiling(const qb_safetensors *s, const char *file, const uint8_t *data,
                              int64_t data_bytes) {
    int64_t at = 0;
    for (size_t i = 0; i < s->count; i++) {
        const qb_tensor *t = &s->entries[i].tensor;
        int64_t begin = (const uint8_t *)t->data - data;
        if (begin < at)
            return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s overlaps tensor %.200s", file, t->name,
                           s->entries[i - 1].tensor.name);
        if (begin > at)
            return qb_fail(QB_ERR_FORMAT, "%s: %" PRId64 " bytes before tensor %.200s belong to no tensor",
                           file, begin - at, t->name);
        at += t->bytes;
    }
    if (at != data_bytes)
        return qb_fail(QB_ERR_FORMAT, "%s: %" PRId64 " bytes at the end belong to no tensor", file,
                       data_bytes - at);
    return QB_OK;
}

/* cJSON ends a string at a NUL, raw or escaped, so two names could become one: no name of the field holds it.
 */
static bool has_nul(const char *text, size_t n) {
    if (memchr(text, 0, n)) return true;
    const char *end = text + n;
    for (const char *p = text; (p = memchr(p, '\\', (size_t)(end - p))); p++)
        if (end - p >= 6 && !memcmp(p, "\\u0000", 6)) return true;
    return false;
}

qb_status qb_safetensors_parse(const uint8_t *bytes, size_t size, const char *file, qb_arena *arena,
                               qb_safetensors *out) {
    *out = (qb_safetensors){0};
    if (size < 8)
        return qb_fail(QB_ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file", file, size);
    uint64_t header_bytes;
    if (!memcmp(bytes, "version ", 8) && size < 1024)
        return qb_fail(
            QB_ERR_FORMAT,
            "%s: is a Git LFS pointer of %zu bytes that stands for the file; fetch it (git lfs pull)", file,
            size);
    memcpy(&header_bytes, bytes, 8);
    if (header_bytes > QB_SAFETENSORS_MAX_HEADER)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: a header of %" PRIu64 " bytes is above the format's limit of %d (is it a "
                       "safetensors file?)",
                       file, header_bytes, QB_SAFETENSORS_MAX_HEADER);
    if (header_bytes > size - 8)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: the header should take %" PRIu64 " bytes, the file ends after %zu (is it "
                       "cut short?)",
                       file, header_bytes, size - 8);
    const char *text = (const char *)bytes + 8;
    const uint8_t *data = bytes + 8 + header_bytes;
    int64_t data_bytes = (int64_t)(size - 8 - header_bytes);
    if (header_bytes == 0 || text[0] != '{' || has_nul(text, header_bytes))
        return qb_fail(QB_ERR_FORMAT, "%s: the header is not a JSON object of tensors", file);
    qb_json *header = NULL;
    qb_status st;
    QB_TRY(st, qb_json_parse_all(text, header_bytes, file, &header));
    QB_TRY(st, read_entries(header, file, data, data_bytes, arena, out));
    if (out->count > 1) qsort(out->entries, out->count, sizeof *out->entries, by_position);
    QB_TRY(st, check_tiling(out, file, data, data_bytes));
out:
    qb_json_free(header);
    if (st != QB_OK) *out = (qb_safetensors){0};
    return st;
}
