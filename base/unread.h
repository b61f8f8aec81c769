/* Keys of a file that nobody read and nobody knows: gathered, and told in one warning. */
#pragma once

#include "base/json.h"
#include "base/str.h"

/* Keys without effect: a pattern (fnmatch), and the values, '|' between, for which it has none: JSON text,
   "*" for any. */
typedef struct qb_inert_key {
    const char *pattern, *values;
} qb_inert_key;

/* null, what is empty, one of the values, or made of these alone: an array of one neutral value over and over
   says that value. */
bool qb_json_is_neutral(const qb_json *j, const char *values);
/* Whether the member is neutral by one of the rows, or says nothing. */
bool qb_inert_among(const qb_inert_key *rows, size_t n, const qb_json *member);

typedef struct qb_unread { /* zero-initialise */
    qb_str list;
    int n;
} qb_unread;

/* value: as it stands in the file; a long one is cut, NULL is left out. */
void qb_unread_add(qb_unread *u, const char *key, const char *value);
void qb_unread_add_json(qb_unread *u, const char *name, const qb_json *member);
/* Warns, if there are any: "WHERE: KEYS are neither read nor known to be without effect: ...". Frees. */
void qb_unread_warn(qb_unread *u, const char *where);
