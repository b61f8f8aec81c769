/* Keys of a file that nobody read and nobody knows: gathered, and told in one warning. */
#pragma once

#include "base/str.h"

typedef struct qb_unread { /* zero-initialise */
    qb_str list;
    int n;
} qb_unread;

/* value: as it stands in the file; a long one is cut, NULL is left out. */
void qb_unread_add(qb_unread *u, const char *key, const char *value);
/* Warns, if there are any: "WHERE: KEYS are neither read nor known to be without effect: ...". Frees. */
void qb_unread_warn(qb_unread *u, const char *where);
