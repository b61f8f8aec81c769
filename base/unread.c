#include "base/unread.h"

#include "base/log.h"
#include "base/memory.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_TOLD = 8 };

bool qb_json_is_neutral(const qb_json *j, const char *values) {
    if (qb_json_is_null(j) || !strcmp(values, "*")) return true;
    if (qb_json_is_array(j) || qb_json_is_object(j)) {
        for (const qb_json *e = qb_json_first(j); e; e = qb_json_next(e))
            if (!qb_json_is_neutral(e, values)) return false;
        return true;
    }
    char *text = NULL, value[64];
    size_t n;
    bool found = false;
    if (qb_json_print(j, false, &text) != QB_OK) return false;
    for (const char *at = values, *next; at && *at && !found; at = next) {
        n = strcspn(at, "|");
        next = at[n] ? at + n + 1 : NULL;
        snprintf(value, sizeof value, "%.*s", (int)n, at);
        char *end;
        double number = strtod(value, &end);
        found = (*end == 0 && qb_json_is_number(j)) ? qb_json_number(j) == number : !strcmp(text, value);
    }
    qb_free(text);
    return found;
}

bool qb_inert_among(const qb_inert_key *rows, size_t n, const qb_json *member) {
    for (size_t i = 0; i < n; i++)
        if (fnmatch(rows[i].pattern, qb_json_key(member), 0) == 0 &&
            qb_json_is_neutral(member, rows[i].values))
            return true;
    return qb_json_is_neutral(member, "");
}

void qb_unread_add(qb_unread *u, const char *key, const char *value) {
    if (u->n++ >= KEYS_TOLD) return;
    qb_str_printf(&u->list, "%s\"%.80s\"", u->n > 1 ? ", " : "", key);
    if (value) qb_str_printf(&u->list, " (%.40s%s)", value, strlen(value) > 40 ? "..." : "");
}

void qb_unread_add_json(qb_unread *u, const char *name, const qb_json *member) {
    char *text = NULL;
    if (qb_json_print(member, false, &text) != QB_OK) qb_error_clear();
    qb_unread_add(u, name, text);
    qb_free(text);
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
