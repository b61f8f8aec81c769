/* One safetensors file: 8 bytes little-endian header length, a JSON header, the tensors' bytes. Private to
   checkpoint/. Format: github.com/huggingface/safetensors, README "Format". */
#pragma once

#include "base/memory.h"
#include "checkpoint/checkpoint.h"

enum { QB_SAFETENSORS_MAX_HEADER = 100000000 }; /* the format's own limit, in bytes */

typedef struct qb_safetensors_entry {
    qb_tensor
        tensor; /* data points into the parsed bytes; dtype QB_DTYPE_COUNT for a type that we only list */
    const char *dtype_name; /* as the file spells it */
} qb_safetensors_entry;

typedef struct qb_safetensors {
    qb_safetensors_entry *entries; /* in the order of their bytes */
    size_t count;
} qb_safetensors;

/* Validates a whole file in memory and lists its tensors: every entry lies inside the data, no two overlap,
   no byte is left over, every dtype is one that the format names, every size follows from its shape, every
   name is unique. `file` heads errors. Everything is allocated from the arena; tensor.data points into
   `bytes`. */
qb_status qb_safetensors_parse(const uint8_t *bytes, size_t size, const char *file, qb_arena *arena,
                               qb_safetensors *out) QB_NODISCARD;

/* "[4096, 11008]" into and from buffer. */
const char *qb_shape_text(int n_dims, const int64_t *shape, char buffer[128]);
/* Elements of a shape times bits an element, in bytes; false on overflow or when it is no whole number of
 * bytes. */
bool qb_shape_bytes(int n_dims, const int64_t *shape, unsigned element_bits, int64_t *bytes);
/* Names that we neither accept nor write: empty, or with control characters, which would break lines of
 * output. */
bool qb_tensor_name_ok(const char *name);
