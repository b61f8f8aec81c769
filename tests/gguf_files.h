/* GGUF files made by hand, for the tests of checkpoint/ and bench/. */
#pragma once

#include "tests/support.h"

#include "base/str.h"
#include "checkpoint/gguf/gguf.h"

typedef struct gguf_file {
    qb_str bytes;
    uint32_t version;
} gguf_file;

static inline void gguf_put(gguf_file *f, const void *bytes, size_t n) {
    qb_str_append(&f->bytes, bytes, n);
}
static inline void gguf_u32(gguf_file *f, uint32_t v) {
    gguf_put(f, &v, 4);
}
/* A length or count in the version's width. */
static inline void gguf_size(gguf_file *f, uint64_t v) {
    gguf_put(f, &v, f->version == 1 ? 4 : 8);
}
static inline void gguf_string(gguf_file *f, const char *text) {
    gguf_size(f, strlen(text));
    gguf_put(f, text, strlen(text));
}
static inline gguf_file gguf_begin(uint32_t version, uint64_t n_tensors, uint64_t n_values) {
    gguf_file f = {.version = version};
    gguf_put(&f, "GGUF", 4);
    gguf_u32(&f, version);
    gguf_size(&f, n_tensors);
    gguf_size(&f, n_values);
    return f;
}
static inline void gguf_key(gguf_file *f, const char *key, qb_gguf_kind kind) {
    gguf_string(f, key);
    gguf_u32(f, kind);
}
static inline void gguf_int(gguf_file *f, const char *key, uint32_t value) {
    gguf_key(f, key, QB_GGUF_U32);
    gguf_u32(f, value);
}
static inline void gguf_real(gguf_file *f, const char *key, float value) {
    gguf_key(f, key, QB_GGUF_F32);
    gguf_put(f, &value, 4);
}
static inline void gguf_text(gguf_file *f, const char *key, const char *value) {
    gguf_key(f, key, QB_GGUF_STRING);
    gguf_string(f, value);
}
static inline void gguf_array(gguf_file *f, const char *key, qb_gguf_kind kind, uint64_t count) {
    gguf_key(f, key, QB_GGUF_ARRAY);
    gguf_u32(f, kind);
    gguf_size(f, count);
}
/* ne: innermost first, as the file has it. */
static inline void gguf_info(gguf_file *f, const char *name, int n_dims, const uint64_t *ne, uint32_t type,
                             uint64_t offset) {
    gguf_string(f, name);
    gguf_u32(f, (uint32_t)n_dims);
    for (int d = 0; d < n_dims; d++) gguf_size(f, ne[d]);
    gguf_u32(f, type);
    gguf_put(f, &offset, 8);
}
/* Pads to the alignment; then n bytes counting 0, 1, 2, .. */
static inline void gguf_data(gguf_file *f, size_t alignment, size_t n) {
    while (f->bytes.length % alignment) gguf_put(f, "", 1);
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)i;
        gguf_put(f, &byte, 1);
    }
}
static inline void gguf_free(gguf_file *f) {
    qb_str_free(&f->bytes);
}
