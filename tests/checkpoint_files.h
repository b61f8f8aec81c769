/* Checkpoint directories made by hand, for the tests of checkpoint/. */
#pragma once

#include "tests/support.h"

#include "base/str.h"

/* DIR/NAME with these bytes. */
static inline void write_bytes(const char *dir, const char *name, const void *bytes, size_t n) {
    char *path = qb_path_join(dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) fail_msg("cannot write %s", path);
    qb_free(path);
}
static inline void write_text(const char *dir, const char *name, const char *text) {
    write_bytes(dir, name, text, strlen(text));
}

/* A safetensors file of this header and n data bytes counting 0, 1, 2, .. */
static inline void write_safetensors(const char *dir, const char *name, const char *header, size_t n) {
    qb_str s = {0};
    uint64_t length = strlen(header);
    qb_str_append(&s, &length, 8);
    qb_str_append(&s, header, length);
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)i;
        qb_str_append(&s, &byte, 1);
    }
    write_bytes(dir, name, s.text, s.length);
    qb_str_free(&s);
}
