/* Protocol-buffer wire format, reading only. Source: protobuf.dev, "Encoding". */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct qb_proto {
    const uint8_t *p, *end;
    const char *name;     /* heads errors */
    const uint8_t *begin; /* of the whole file, for byte offsets in errors */
} qb_proto;

typedef struct qb_proto_field {
    uint32_t number;
    uint8_t wire;         /* 0 varint, 1 fixed64, 2 bytes, 5 fixed32 */
    uint64_t value;       /* of wires 0, 1, 5 */
    const uint8_t *bytes; /* of wire 2 */
    size_t length;
} qb_proto_field;

/* Reads the next field. At the end *more is false. Every length is checked against the message. */
qb_status qb_proto_next(qb_proto *m, qb_proto_field *field, bool *more) QB_NODISCARD;
/* The message inside a field of wire 2. */
qb_proto qb_proto_inside(const qb_proto *m, const qb_proto_field *field);
/* Fails unless the field has this wire type; `what` names it. */
qb_status qb_proto_expect(const qb_proto *m, const qb_proto_field *field, uint8_t wire,
                          const char *what) QB_NODISCARD;
float qb_proto_float(const qb_proto_field *field); /* wire 5 */
