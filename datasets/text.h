/* A text file opened for reading: mapped when it is stored
   plainly, decompressed into memory when it is not. */
#pragma once

#include "base/file.h"
#include "base/status.h"

/* A compressed file may claim to be anything; no dataset file is larger than this once decompressed, unless
   BENCH_MAX_TEXT_GB in the environment says otherwise (1 to 100; GB of 10^9 bytes). */
#define QB_TEXT_MAX_BYTES ((size_t)8000000000)

typedef struct qb_text {
    const char *bytes; /* n bytes, not NUL-terminated; never NULL */
    size_t n;
    char *name;     /* heads errors: the path, and the entry of an archive */
    bool documents; /* by its name, JSON lines */
    qb_map map;     /* bytes are here, */
    char *owned;    /* or here */
} qb_text;

/* How a row of a table stands in the text file that the table was made from. */
typedef struct qb_row_form {
    const char *before, *behind; /* the row's text */
    const char *empty;           /* what stands for a row of no text; NULL: as any other */
} qb_row_form;

/* Opens a file, decompressing by the suffix of its name. `entry` NULL: the
   only file in an archive; else the file of that name, in whatever folder
   of the archive. A Parquet file becomes the text that `rows` says, or, when that is NULL, JSON
   lines, a document a row. An error names the file, the entry and what is wrong. */
qb_status qb_text_open(const char *path, const char *entry, const qb_row_form *rows,
                       qb_text *out) QB_NODISCARD;
/* The same from memory, which must outlive the text (tests, fuzzing). */
qb_status qb_text_open_memory(const void *stored, size_t n, const char *name, const char *entry,
                              size_t max_bytes, qb_text *out) QB_NODISCARD;
void qb_text_close(qb_text *text); /* takes {0} */

/* Fails with line and byte unless all n bytes are UTF-8 (RFC 3629: no surrogates, no overlong forms). */
qb_status qb_utf8_check(const char *bytes, size_t n, const char *name) QB_NODISCARD;
