/* The text column of a Parquet file (github.com/apache/parquet-format 2.12): as much of the format as the
   hub's text datasets and pyarrow's writer use. One BYTE_ARRAY column of the top level, required or optional;
   any number of row groups; data pages v1 and v2; PLAIN, PLAIN_DICTIONARY and RLE_DICTIONARY; not compressed,
   or with snappy, gzip or zstd. Anything else is refused by its name. No library in Debian 12 and 13 reads
   it. */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct qb_parquet qb_parquet;

/* Reads the footer of n bytes, which must outlive *out; `name` heads errors. column NULL: "text", else
   "sentence", else the only column of strings. */
qb_status qb_parquet_open(const void *bytes, size_t n, const char *name, const char *column,
                          qb_parquet **out) QB_NODISCARD;
void qb_parquet_close(qb_parquet *p); /* takes NULL */
int64_t qb_parquet_rows(const qb_parquet *p);
const char *qb_parquet_column(const qb_parquet *p);

/* One row: n bytes, not NUL-terminated, valid during the call. */
typedef qb_status (*qb_parquet_row)(void *user, const char *text, size_t n);
/* Calls `row` for every row in order. A row without a value fails. */
qb_status qb_parquet_read(const qb_parquet *p, qb_parquet_row row, void *user) QB_NODISCARD;
