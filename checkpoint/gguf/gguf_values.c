/* GGUF metadata by key. */
#include "base/unread.h"
#include "checkpoint/gguf/gguf.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[QB_GGUF_KIND_COUNT] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                                           "int32",  "float32", "bool",   "string", "array",
                                                           "uint64", "int64",   "float64"};

const qb_gguf_value *qb_gguf_find(const qb_gguf *g, const char *key) {
    uint32_t position;
    if (!qb_names_find(&g->keys, key, &position)) return NULL;
    g->values[position].asked = true;
    return &g->values[position];
}

static qb_status missing(const qb_gguf *g, const char *key, bool required) {
    if (!required) return QB_OK;
    return qb_fail(QB_ERR_FORMAT, "%s: metadata %s is missing", g->file, key);
}

static qb_status wrong_kind(const qb_gguf *g, const qb_gguf_value *v, const char *expected) {
    return qb_fail(QB_ERR_FORMAT, "%s: metadata %.200s: expected %s, found %s%s", g->file, v->key, expected,
                   v->is_array ? "an array of " : "", kind_names[v->kind]);
}

/* A whole number of any width; false for other kinds and above INT64_MAX. */
static bool whole(const qb_gguf_value *v, int64_t *out) {
    union {
        uint8_t u8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } n;
    if (v->is_array) return false;
    switch (v->kind) {
    case QB_GGUF_U8:
        memcpy(&n.u8, v->bytes, 1);
        *out = n.u8;
        return true;
    case QB_GGUF_I8:
        memcpy(&n.u8, v->bytes, 1);
        *out = (n.u8 ^ 0x80) - 0x80;
        return true;
    case QB_GGUF_U16:
        memcpy(&n.u16, v->bytes, 2);
        *out = n.u16;
        return true;
    case QB_GGUF_I16:
        memcpy(&n.i16, v->bytes, 2);
        *out = n.i16;
        return true;
    case QB_GGUF_U32:
        memcpy(&n.u32, v->bytes, 4);
        *out = n.u32;
        return true;
    case QB_GGUF_I32:
        memcpy(&n.i32, v->bytes, 4);
        *out = n.i32;
        return true;
    case QB_GGUF_U64:
        memcpy(&n.u64, v->bytes, 8);
        *out = (int64_t)n.u64;
        return n.u64 <= INT64_MAX;
    case QB_GGUF_I64:
        memcpy(&n.i64, v->bytes, 8);
        *out = n.i64;
        return true;
    default:
        return false;
    }
}

qb_status qb_gguf_int(const qb_gguf *g, const char *key, bool required, int64_t min, int64_t max,
                      int64_t *out) {
    const qb_gguf_value *v = qb_gguf_find(g, key);
    int64_t n;
    if (!v) return missing(g, key, required);
    if (!whole(v, &n)) return wrong_kind(g, v, "a whole number");
    if (n < min || n > max)
        return qb_fail(QB_ERR_FORMAT, "%s: metadata %s is %" PRId64 ", expected %" PRId64 " .. %" PRId64,
                       g->file, key, n, min, max);
    *out = n;
    return QB_OK;
}

qb_status qb_gguf_real(const qb_gguf *g, const char *key, bool required, double min, double max,
                       double *out) {
    const qb_gguf_value *v = qb_gguf_find(g, key);
    double n;
    float f;
    int64_t i;
    if (!v) return missing(g, key, required);
    if (!v->is_array && v->kind == QB_GGUF_F32)
        memcpy(&f, v->bytes, 4), n = (double)f;
    else if (!v->is_array && v->kind == QB_GGUF_F64)
        memcpy(&n, v->bytes, 8);
    else if (whole(v, &i))
        n = (double)i;
    else
        return wrong_kind(g, v, "a number");
    if (!(n >= min && n <= max))
        return qb_fail(QB_ERR_FORMAT, "%s: metadata %s is %g, expected %g .. %g", g->file, key, n, min, max);
    *out = n;
    return QB_OK;
}

qb_status qb_gguf_bool(const qb_gguf *g, const char *key, bool required, bool *out) {
    const qb_gguf_value *v = qb_gguf_find(g, key);
    if (!v) return missing(g, key, required);
    if (v->is_array || v->kind != QB_GGUF_BOOL) return wrong_kind(g, v, "bool");
    *out = *v->bytes != 0;
    return QB_OK;
}

qb_status qb_gguf_text(const qb_gguf *g, const char *key, bool required, const char **out) {
    const qb_gguf_value *v = qb_gguf_find(g, key);
    if (!v) return missing(g, key, required);
    if (!v->text) return wrong_kind(g, v, "string");
    *out = v->text;
    return QB_OK;
}

qb_status qb_gguf_numbers(const qb_gguf *g, const char *key, bool required, qb_gguf_kind kind,
                          const qb_gguf_value **out) {
    char expected[48] = "an array of ";
    *out = qb_gguf_find(g, key);
    if (!*out) return missing(g, key, required);
    strcat(expected, kind_names[kind]);
    return (*out)->is_array && (*out)->kind == kind ? QB_OK : wrong_kind(g, *out, expected);
}

qb_status qb_gguf_strings(const qb_gguf *g, const char *key, bool required, qb_gguf_string **out,
                          size_t *count) {
    const qb_gguf_value *v;
    *out = NULL;
    *count = 0;
    qb_status st = qb_gguf_numbers(g, key, required, QB_GGUF_STRING, &v);
    if (st != QB_OK || !v) return st;
    size_t width = g->version == 1 ? 4 : 8;
    if ((st = qb_alloc((size_t)v->count, sizeof **out, out)) != QB_OK) return st;
    const uint8_t *at = v->bytes;
    for (; *count < (size_t)v->count; ++*count) { /* every length was checked when the file was parsed */
        uint64_t n = 0;
        memcpy(&n, at, width);
        (*out)[*count] = (qb_gguf_string){(const char *)at + width, (size_t)n};
        at += width + n;
    }
    return QB_OK;
}

/* ---- what nobody looked for ---- */

static bool matches(const char *const *patterns, const char *key) {
    for (; *patterns; patterns++)
        if (fnmatch(*patterns, key, 0) == 0) return true;
    return false;
}

static void value_text(const qb_gguf *g, const qb_gguf_value *v, char out[64]) {
    double number = 0;
    bool is_text = !v->is_array && v->kind == QB_GGUF_STRING, is_bool = v->kind == QB_GGUF_BOOL;
    if (v->is_array)
        snprintf(out, 64, "%" PRId64 " of kind %s", v->count, kind_names[v->kind]);
    else if (is_text || is_bool)
        snprintf(out, 64, "%s", is_text ? v->text : *v->bytes ? "true" : "false");
    else if (qb_gguf_real(g, v->key, false, -INFINITY, INFINITY, &number) == QB_OK)
        snprintf(out, 64, "%g", number);
    else
        snprintf(out, 64, "no number"); /* NaN */
}

void qb_gguf_warn_unasked(const qb_gguf *g, const char *prefix, const char *const *inert) {
    qb_unread unread = {0};
    size_t n = strlen(prefix);
    for (size_t i = 0; i < g->n_values; i++) {
        const qb_gguf_value *v = &g->values[i];
        char text[64];
        if (v->asked || strncmp(v->key, prefix, n) != 0 || matches(inert, v->key + n)) continue;
        value_text(g, v, text);
        qb_unread_add(&unread, v->key, text);
    }
    qb_error_clear();
    qb_unread_warn(&unread, g->file);
}
