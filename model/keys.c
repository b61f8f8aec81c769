#include "model/keys.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/unread.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qb_inert_key computing[] = {
#define X(key, neutral) {key, neutral},
#include "model/keys_that_compute.def"
#undef X
};
static const qb_inert_key inert[] = {
/* patterns; neutral "*": any value */
#define X(key, neutral) {key, neutral},
#include "model/inert_keys.def"
#undef X
};

void qb_keys_fail(qb_keys *k, qb_status code, const char *fmt, ...) {
    if (k->st != QB_OK) return;
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    k->st = qb_fail(code, "%s: %s", k->where, text);
}

/* One spelling out of "a|b|c" into `name`; NULL behind the last. */
static const char *next_name(const char *names, char name[64], size_t *length) {
    size_t n = strcspn(names, "|");
    *length = n;
    snprintf(name, 64, "%.*s", (int)n, names);
    return names[n] ? names + n + 1 : NULL;
}

static void mark(qb_keys *k, const char *name) {
    if (k->n_read == QB_KEYS_READ_MAX) {
        qb_keys_fail(k, QB_ERR_INTERNAL, "more than %d keys are read", QB_KEYS_READ_MAX);
        return;
    }
    k->read[k->n_read++] = name;
}

bool qb_key_was_read(const qb_keys *k, const char *key) {
    size_t length = strlen(key);
    for (int i = 0; i < k->n_read; i++)
        if (strcspn(k->read[i], "|") == length && !strncmp(k->read[i], key, length)) return true;
    return false;
}

void qb_keys_mark(qb_keys *k, const char *names) {
    char name[64];
    size_t n;
    for (const char *at = names, *next; at; at = next) {
        next = next_name(at, name, &n);
        mark(k, at);
    }
}

/* The first spelling that is there; all are marked as read. *name is its text. */
static const qb_json *find(qb_keys *k, const char *names, char name[64]) {
    const qb_json *found = NULL;
    char other[64];
    size_t n;
    for (const char *at = names, *next; at; at = next) {
        next = next_name(at, other, &n);
        mark(k, at);
        const qb_json *j = qb_json_get(k->json, other);
        if (qb_json_is_null(j)) continue;
        if (!found) {
            found = j;
            snprintf(name, 64, "%s", other);
        } else if (!qb_json_equal(found, j)) {
            qb_warn("%s: \"%s\" and \"%s\" disagree; \"%s\" counts", k->where, name, other, name);
        }
    }
    if (!found) snprintf(name, 64, "%.*s", (int)strcspn(names, "|"), names);
    return found;
}

void qb_key_int(qb_keys *k, const char *names, bool required, int64_t min, int64_t max, int64_t *value) {
    char name[64];
    (void)find(k, names, name);
    if (k->st == QB_OK) k->st = qb_json_int(k->json, name, k->where, required, min, max, value);
}

void qb_key_real(qb_keys *k, const char *names, bool required, double min, double max, double *value) {
    char name[64];
    (void)find(k, names, name);
    if (k->st == QB_OK) k->st = qb_json_real(k->json, name, k->where, required, min, max, value);
}

void qb_key_float(qb_keys *k, const char *names, bool required, double min, double max, float *value) {
    double v = (double)*value;
    qb_key_real(k, names, required, min, max, &v);
    *value = (float)v;
}

void qb_key_bool(qb_keys *k, const char *names, bool *value) {
    char name[64];
    (void)find(k, names, name);
    if (k->st == QB_OK) k->st = qb_json_bool(k->json, name, k->where, false, value);
}

void qb_key_text(qb_keys *k, const char *names, bool required, const char **value) {
    char name[64];
    (void)find(k, names, name);
    if (k->st == QB_OK) k->st = qb_json_text(k->json, name, k->where, required, value);
}

void qb_key_only_text(qb_keys *k, const char *names, const char *only) {
    const char *value = only;
    qb_key_text(k, names, false, &value);
    if (k->st == QB_OK && strcmp(value, only) != 0)
        qb_keys_fail(k, QB_ERR_UNSUPPORTED, "%s is \"%.60s\", only \"%s\" is known", names, value, only);
}

void qb_key_only_bool(qb_keys *k, const char *names, bool only) {
    bool value = only;
    qb_key_bool(k, names, &value);
    if (k->st == QB_OK && value != only)
        qb_keys_fail(k, QB_ERR_UNSUPPORTED, "%s is %s, only %s is known", names, value ? "true" : "false",
                     only ? "true" : "false");
}

const qb_json *qb_key_any(qb_keys *k, const char *names) {
    char name[64];
    return find(k, names, name);
}

/* ---- what nobody read ---- */

static const qb_inert_key *computing_key(const char *key) {
    for (size_t i = 0; i < sizeof computing / sizeof computing[0]; i++)
        if (!strcmp(computing[i].pattern, key)) return &computing[i];
    return NULL;
}

static bool is_inert(const qb_json *j) {
    return qb_inert_among(inert, sizeof inert / sizeof inert[0], j);
}

static qb_status refuse(const qb_keys *k, const qb_json *j) {
    char *text = NULL;
    if (qb_json_print(j, false, &text) != QB_OK) qb_error_clear();
    qb_status st = qb_fail(QB_ERR_UNSUPPORTED,
                           "%s: \"%s\" is %.80s, which changes what a model computes, and this architecture "
                           "does not read it here: the model would be another one; take the key out of "
                           "the file if the model's own code does not read it either",
                           k->where, qb_json_key(j), text ? text : "set");
    qb_free(text);
    return st;
}

qb_status qb_keys_account(const qb_keys *k) {
    qb_unread unread = {0};
    qb_status st = QB_OK;
    for (const qb_json *j = qb_json_first(k->json); j && st == QB_OK; j = qb_json_next(j)) {
        const qb_inert_key *known = computing_key(qb_json_key(j));
        if (qb_key_was_read(k, qb_json_key(j))) continue;
        if (known)
            st = qb_json_is_neutral(j, known->values) ? QB_OK : refuse(k, j);
        else if (!is_inert(j))
            qb_unread_add_json(&unread, qb_json_key(j), j);
    }
    if (st != QB_OK) qb_str_free(&unread.list);
    if (st == QB_OK) qb_unread_warn(&unread, k->where);
    return st;
}

void qb_keys_account_wrapper(const qb_keys *k, const qb_json *text) {
    qb_unread unread = {0};
    for (const qb_json *j = qb_json_first(k->json); j; j = qb_json_next(j)) {
        const qb_inert_key *known = computing_key(qb_json_key(j));
        const qb_json *same = qb_json_get(text, qb_json_key(j));
        if (j == text || qb_key_was_read(k, qb_json_key(j)) || (same && qb_json_equal(same, j))) continue;
        if (!(known && qb_json_is_neutral(j, known->values)) && !is_inert(j))
            qb_unread_add_json(&unread, qb_json_key(j), j);
    }
    qb_unread_warn(&unread, k->where);
}
