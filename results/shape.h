/* The shape of a JSON value as a table: one row a key. Private to results/. */
#pragma once

#include "base/json.h"

enum {
    STRING = 1,
    NUMBER = 2,
    INTEGER = 4,
    BOOLEAN = 8,
    OBJECT = 16,
    ARRAY = 32,
    NULLABLE = 64, /* null stands for "not known" */
    REQUIRED = 128,
    FILLED = 256, /* a string of at least one character */
    SHA256 = 512,
    TIME = 1024,
    NON_NEGATIVE = 2048,
    POSITIVE = 4096,
};

typedef struct rule rule;
typedef struct shape shape;
/* Where the checker stands in the document; printed only when something is wrong. */
typedef struct place {
    const struct place *up;
    const char *key; /* NULL: array item */
    int64_t index;
    const char *document; /* at the root */
} place;

struct rule {
    const char *key; /* NULL for the items of an array, and ends a table */
    unsigned kind;
    const char *choices; /* "a|b|c", or NULL */
    const shape *object; /* of an OBJECT */
    const rule *items;   /* of an ARRAY */
    double max;          /* 0: none */
};
struct shape {
    const rule *rules;
    bool closed; /* other keys are refused */
    qb_status (*also)(const qb_json *object, const place *at);
};

/* QB_ERR_FORMAT with the place and what is wrong there. */
qb_status qb_shape_wrong(const place *at, const char *fmt, ...) QB_PRINTF(2, 3);
qb_status qb_shape_check(const qb_json *object, const shape *s, const place *at) QB_NODISCARD;
