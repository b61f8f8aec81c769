#include "base/unread.h"

#include "base/log.h"

#include <string.h>

enum { KEYS_TOLD = 8 };

void qb_unread_add(qb_unread *u, const char *key, const char *value) {
    if (u->n++ >= KEYS_TOLD) return;
    qb_str_printf(&u->list, "%s\"%.80s\"", u->n > 1 ? ", " : "", key);
    if (value) qb_str_printf(&u->list, " (%.40s%s)", value, strlen(value) > 40 ? "..." : "");
}

void qb_unread_warn(qb_unread *u, const char *where) {
    if (u->n > KEYS_TOLD) qb_str_printf(&u->list, " and %d more", u->n - KEYS_TOLD);
    bool one = u->n == 1;
    if (u->n)
        qb_warn("%s: %s %s neither read nor known to be without effect: if the model's own code computes "
                "with %s, another model is measured here",
                where, qb_str_get(&u->list), one ? "is" : "are", one ? "it" : "them");
    qb_str_free(&u->list);
    *u = (qb_unread){0};
}
