/* JSON: a thin typed layer over cJSON. Readers fail with the document's name, the key, what was expected and
   found; writers keep key order, write integers as integers and turn NaN and infinity into null. */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct cJSON qb_json;

/* Parses n bytes; `name` heads error sentences. Refuses nesting beyond cJSON's limit. Numbers keep their
   source text and are printed with it (2.0 stays 2.0); NaN and Infinity are read as Python writes them; of
   equal keys in one object the last counts, as in Python, with a warning where values differ. Free with
   qb_json_free. */
qb_status qb_json_parse(const char *text, size_t n, const char *name, qb_json **out) QB_NODISCARD;
/* The same, but every key stays, for readers that judge equal ones themselves. */
qb_status qb_json_parse_all(const char *text, size_t n, const char *name, qb_json **out) QB_NODISCARD;
qb_status qb_json_read(const char *path, size_t max_bytes, qb_json **out) QB_NODISCARD;
void qb_json_free(qb_json *json);

/* Walk: the child of an object (NULL when absent), first child and next sibling of an object or array. */
const qb_json *qb_json_get(const qb_json *object, const char *key);
const qb_json *qb_json_first(const qb_json *parent);
const qb_json *qb_json_next(const qb_json *child);
int64_t qb_json_count(const qb_json *parent);
const char *qb_json_key(const qb_json *child); /* NULL for array items */
bool qb_json_is_object(const qb_json *json);   /* these four take NULL */
bool qb_json_is_array(const qb_json *json);
bool qb_json_is_string(const qb_json *json);
bool qb_json_is_number(const qb_json *json);
bool qb_json_is_null(const qb_json *json);       /* absent or null */
const char *qb_json_string(const qb_json *json); /* NULL unless a string */
double qb_json_number(const qb_json *json);      /* NaN unless a number */
bool qb_json_true(const qb_json *json);
/* The same value: members in any order, numbers by value; absent and null are one. */
bool qb_json_equal(const qb_json *a, const qb_json *b);

/* Typed members. `where` heads the error. A missing or null key keeps *out unless `required`. A wrong type, a
   fraction where an integer is asked or a value outside [min, max] fails. */
qb_status qb_json_int(const qb_json *object, const char *key, const char *where, bool required, int64_t min,
                      int64_t max, int64_t *out) QB_NODISCARD;
qb_status qb_json_real(const qb_json *object, const char *key, const char *where, bool required, double min,
                       double max, double *out) QB_NODISCARD;
qb_status qb_json_bool(const qb_json *object, const char *key, const char *where, bool required,
                       bool *out) QB_NODISCARD;
/* *out points into the document. */
qb_status qb_json_text(const qb_json *object, const char *key, const char *where, bool required,
                       const char **out) QB_NODISCARD;

/* Builders. On exhaustion they return NULL or do nothing; qb_json_print then fails. Adding to NULL is
   allowed. qb_json_put moves `value` into the object (replacing an equal key in place); qb_json_push into the
   array. */
qb_json *qb_json_object(void);
qb_json *qb_json_array(void);
void qb_json_put(qb_json *object, const char *key, qb_json *value);
void qb_json_push(qb_json *array, qb_json *value);
void qb_json_put_text(qb_json *object, const char *key, const char *text); /* NULL text -> null */
void qb_json_put_int(qb_json *object, const char *key, int64_t value);
void qb_json_put_real(qb_json *object, const char *key, double value);
/* A whole number with its ".0", for readers that take 6.0 and refuse 6; not for reading back from the tree.
 */
void qb_json_put_decimal(qb_json *object, const char *key, double value);
void qb_json_put_bool(qb_json *object, const char *key, bool value);
void qb_json_put_null(qb_json *object, const char *key);
void qb_json_push_real(qb_json *array, double value);
void qb_json_push_int(qb_json *array, int64_t value);
void qb_json_push_text(qb_json *array, const char *text);
qb_json *qb_json_copy(const qb_json *json);
/* Takes a member out of its object; NULL when it has none of that name. */
qb_json *qb_json_take(qb_json *object, const char *key);

/* Text of the document, free with qb_free. Pretty form ends with a newline. */
qb_status qb_json_print(const qb_json *json, bool pretty, char **out) QB_NODISCARD;
qb_status qb_json_write_atomic(const qb_json *json, const char *path) QB_NODISCARD;
