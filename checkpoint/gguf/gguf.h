/* One GGUF file: magic, version, counts, metadata, tensor infos, aligned tensor data. Versions 1 (32-bit
   lengths), 2 and 3, little-endian. Source: ggml's docs/gguf.md. */
#pragma once

#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf/gguf_blocks.h"
#include "checkpoint/names.h"

typedef enum { /* the file's own numbers */
               QB_GGUF_U8 = 0,
               QB_GGUF_I8,
               QB_GGUF_U16,
               QB_GGUF_I16,
               QB_GGUF_U32,
               QB_GGUF_I32,
               QB_GGUF_F32,
               QB_GGUF_BOOL,
               QB_GGUF_STRING,
               QB_GGUF_ARRAY,
               QB_GGUF_U64,
               QB_GGUF_I64,
               QB_GGUF_F64,
               QB_GGUF_KIND_COUNT
} qb_gguf_kind;

typedef struct qb_gguf_value {
    const char *key;
    qb_gguf_kind kind; /* of the value, or of an array's items */
    bool is_array;
    int64_t count;        /* items; 1 unless an array */
    const uint8_t *bytes; /* the first item, in the file */
    const char *text;     /* a lone string with a NUL behind it, else NULL */
    bool asked;           /* somebody looked for it */
} qb_gguf_value;

typedef struct qb_gguf_tensor {
    const char *name;
    const qb_ggml_type *type;
    int n_dims;
    int64_t shape[QB_MAX_DIMS]; /* outermost first: the file's dimensions reversed */
    uint64_t offset;            /* from the start of the tensor data */
    const uint8_t *data;        /* in the file */
    int64_t bytes;
} qb_gguf_tensor;

typedef struct qb_gguf {
    uint32_t version;
    qb_gguf_value *values;
    size_t n_values, values_capacity;
    qb_gguf_tensor *tensors; /* in the order of the file */
    size_t n_tensors, tensors_capacity;
    qb_names keys; /* to positions in values */
    const char *file;
} qb_gguf;

/* Whether these bytes begin like a GGUF file. */
bool qb_gguf_is(const uint8_t *bytes, size_t size);
/* Validates a whole file in memory and lists what it holds: every length and count is checked against the
   file before anything is allocated for it; keys and names are unique; tensors have a known type, lie
   aligned inside the file and do not overlap. `file` heads errors and must outlive the result, as must
   `bytes`. Names and texts are allocated from the arena, the rest is freed by qb_gguf_free. */
qb_status qb_gguf_parse(const uint8_t *bytes, size_t size, const char *file, qb_arena *arena,
                        qb_gguf *out) QB_NODISCARD;
void qb_gguf_free(qb_gguf *g); /* takes NULL */

/* ---- metadata ---- */

const qb_gguf_value *qb_gguf_find(const qb_gguf *g, const char *key); /* NULL when absent */
/* Typed values; a missing key keeps *out unless `required`; a wrong kind or a value outside [min, max] fails.
   Whole numbers may be of any width. */
qb_status qb_gguf_int(const qb_gguf *g, const char *key, bool required, int64_t min, int64_t max,
                      int64_t *out) QB_NODISCARD;
qb_status qb_gguf_real(const qb_gguf *g, const char *key, bool required, double min, double max,
                       double *out) QB_NODISCARD;
qb_status qb_gguf_bool(const qb_gguf *g, const char *key, bool required, bool *out) QB_NODISCARD;
qb_status qb_gguf_text(const qb_gguf *g, const char *key, bool required, const char **out) QB_NODISCARD;
/* An array of numbers of this width, as it lies in the file (not aligned). */
qb_status qb_gguf_numbers(const qb_gguf *g, const char *key, bool required, qb_gguf_kind kind,
                          const qb_gguf_value **out) QB_NODISCARD;

/* Warns of what stands under this prefix, nobody has looked for, and none of the patterns (fnmatch, behind
   the prefix; NULL behind the last) matches. */
void qb_gguf_warn_unasked(const qb_gguf *g, const char *prefix, const char *const *inert);

typedef struct qb_gguf_string {
    const char *bytes; /* in the file; may hold NUL, and none follows */
    size_t n;
} qb_gguf_string;
/* The strings of an array into new memory (qb_free), NULL for an absent key unless `required`. */
qb_status qb_gguf_strings(const qb_gguf *g, const char *key, bool required, qb_gguf_string **out,
                          size_t *count) QB_NODISCARD;
