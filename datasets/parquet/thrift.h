/* Thrift's compact protocol, read: what Parquet writes its footer and the heads of its pages in
   (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md). Untrusted bytes: a reader that met
   something impossible stays bad and gives zeros. */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct qb_thrift {
    const uint8_t *p, *end;
    bool bad;
} qb_thrift;

typedef enum {
    QB_THRIFT_STOP,
    QB_THRIFT_TRUE,
    QB_THRIFT_FALSE,
    QB_THRIFT_BYTE,
    QB_THRIFT_I16,
    QB_THRIFT_I32,
    QB_THRIFT_I64,
    QB_THRIFT_DOUBLE,
    QB_THRIFT_BINARY,
    QB_THRIFT_LIST,
    QB_THRIFT_SET,
    QB_THRIFT_MAP,
    QB_THRIFT_STRUCT,
} qb_thrift_type;

/* The next field of a struct: its type and, in *id, its number, which is the one before of this struct when
   called (0 at first). QB_THRIFT_STOP at the struct's end and on bad input. */
qb_thrift_type qb_thrift_field(qb_thrift *t, int *id);
/* Each fails (bad) unless the field has a fitting type. A boolean is its type. */
int64_t qb_thrift_int(qb_thrift *t, qb_thrift_type type);
/* Points into the bytes. */
void qb_thrift_binary(qb_thrift *t, qb_thrift_type type, const char **text, size_t *n);
/* The number of elements, each of *element; bad when there cannot be so many. */
int64_t qb_thrift_list(qb_thrift *t, qb_thrift_type type, qb_thrift_type *element);
void qb_thrift_skip(qb_thrift *t, qb_thrift_type type);
