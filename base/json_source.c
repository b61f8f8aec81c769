#include "base/json_source.h"

#include "base/log.h"
#include "base/memory.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- numbers as they stand in the text ---- */

typedef struct {
    const char *at, *end;
} scanner;

static const char *behind_string(const char *quote, const char *end) {
    const char *p = quote + 1;
    while (p < end && *p != '"') p += *p == '\\' && p + 1 < end ? 2 : 1;
    return p < end ? p + 1 : end;
}

/* The next number outside of strings: digits, a sign, or the N and I of Python's constants, which begin
   nothing else in a document. */
static bool next_number(scanner *s, const char **number, size_t *n) {
    while (s->at < s->end) {
        char c = *s->at;
        if (c == '"') {
            s->at = behind_string(s->at, s->end);
        } else if (isdigit((unsigned char)c) || c == '-' || c == 'N' || c == 'I') {
            *number = s->at;
            while (s->at < s->end && (isalnum((unsigned char)*s->at) || strchr("+-.", *s->at)) && *s->at)
                s->at++;
            *n = (size_t)(s->at - *number);
            return true;
        } else {
            s->at++;
        }
    }
    return false;
}

static bool is_constant(const char *number, size_t n, bool *nan) {
    *nan = n == 3 && !memcmp(number, "NaN", 3);
    return *nan || (n == 8 && !memcmp(number, "Infinity", 8)) || (n == 9 && !memcmp(number, "-Infinity", 9));
}

qb_status qb_json_replace_constants(const char *text, size_t n, char **copy) {
    scanner s = {text, text + n};
    const char *number;
    size_t length;
    bool nan;
    *copy = NULL;
    if (!n || (!memchr(text, 'N', n) && !memchr(text, 'I', n))) return QB_OK; /* an empty text may be NULL */
    while (next_number(&s, &number, &length)) {
        if (!is_constant(number, length, &nan)) continue;
        if (!*copy) {
            qb_status st = qb_alloc(n + 1, 1, copy);
            if (st != QB_OK) return st;
            memcpy(*copy, text, n);
            (*copy)[n] = 0;
        }
        char *to = *copy + (number - text);
        memset(to, ' ', length);
        memcpy(to, nan ? "0" : *number == '-' ? "-1e999" : "1e999", nan ? 1 : *number == '-' ? 6 : 5);
    }
    return QB_OK;
}

/* Plain integers that a double holds print as they were written. */
static bool prints_alike(const char *number, size_t n) {
    size_t at = number[0] == '-' && n > 1 && number[1] != '0';
    while (at < n && number[at] >= '0' && number[at] <= '9') at++; /* nothing need follow the number */
    return at == n && n <= 15;
}

/* Numbers of the tree and of the text come in the same order. */
static qb_status keep_numbers(scanner *s, cJSON *json) {
    const char *number;
    size_t n;
    bool nan;
    for (cJSON *j = json; j; j = j->next) {
        qb_status st = QB_OK;
        if (cJSON_IsNumber(j)) {
            if (!next_number(s, &number, &n)) return qb_fail(QB_ERR_INTERNAL, "a number has no text");
            if (is_constant(number, n, &nan) && nan) j->valuedouble = (double)NAN;
            if (prints_alike(number, n)) continue;
            j->valuestring = cJSON_malloc(n + 1);
            if (!j->valuestring) return qb_fail(QB_ERR_MEMORY, "out of memory");
            memcpy(j->valuestring, number, n);
            j->valuestring[n] = 0;
        } else if (j->child) {
            st = keep_numbers(s, j->child);
        }
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

qb_status qb_json_keep_numbers(const char *text, size_t n, qb_json *json) {
    return keep_numbers(&(scanner){text, text + n}, json);
}

const char *qb_json_kept_number(const qb_json *json) {
    return cJSON_IsNumber(json) ? json->valuestring : NULL;
}

static bool any_kept(const cJSON *json) {
    for (; json; json = json->next)
        if (qb_json_kept_number(json) || any_kept(json->child)) return true;
    return false;
}

/* cJSON prints the text of a raw value as it is. */
static void make_raw(cJSON *json) {
    for (; json; json = json->next) {
        if (qb_json_kept_number(json)) json->type = cJSON_Raw | (json->type & cJSON_StringIsConst);
        make_raw(json->child);
    }
}

qb_json *qb_json_with_kept_numbers(const qb_json *json, bool *needed) {
    *needed = qb_json_kept_number(json) || any_kept(json->child);
    cJSON *copy = *needed ? cJSON_Duplicate(json, 1) : NULL;
    if (copy) make_raw(copy);
    return copy;
}

/* ---- equal keys ---- */

enum { FEW = 8 };

typedef struct {
    cJSON **slots; /* of an object with many keys, else NULL */
    size_t capacity;
} key_table;

static size_t hash_of(const char *key) {
    uint64_t h = 0xcbf29ce484222325u;
    for (const unsigned char *p = (const unsigned char *)key; *p; p++) h = (h ^ *p) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

/* The child of the same key before `child`, which takes its place in the table; NULL when it is the first. */
static cJSON *earlier(const key_table *t, const cJSON *object, cJSON *child) {
    if (!t->slots) {
        for (cJSON *j = object->child; j != child; j = j->next)
            if (!strcmp(j->string, child->string)) return j;
        return NULL;
    }
    size_t i = hash_of(child->string) & (t->capacity - 1);
    while (t->slots[i] && strcmp(t->slots[i]->string, child->string) != 0) i = (i + 1) & (t->capacity - 1);
    cJSON *found = t->slots[i];
    t->slots[i] = child;
    return found;
}

static qb_status merge_object(cJSON *object, const char *name) {
    key_table t = {0};
    qb_status st = QB_OK;
    int n = cJSON_GetArraySize(object);
    if (n > FEW) {
        for (t.capacity = 64; t.capacity < 2 * (size_t)n;) t.capacity *= 2;
        st = qb_alloc_zero(t.capacity, sizeof(cJSON *), &t.slots);
    }
    for (cJSON *j = object->child; st == QB_OK && j; j = j->next) {
        cJSON *first = earlier(&t, object, j);
        if (!first) continue;
        if (!cJSON_Compare(first, j, 1))
            qb_warn("%s: the key \"%.200s\" stands twice with different values: the last one counts", name,
                    j->string);
        cJSON_Delete(cJSON_DetachItemViaPointer(object, first));
    }
    qb_free(t.slots);
    return st;
}

qb_status qb_json_merge_keys(qb_json *json, const char *name) {
    qb_status st = QB_OK;
    for (cJSON *j = json; st == QB_OK && j; j = j->next) {
        if (cJSON_IsObject(j)) st = merge_object(j, name);
        if (st == QB_OK && j->child) st = qb_json_merge_keys(j->child, name);
    }
    return st;
}
