#include "base/json.h"

#include "base/file.h"
#include "base/json_memory.h"
#include "base/json_source.h"
#include "base/memory.h"
#include "base/text.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int line_of(const char *text, const char *at) {
    int line = 1;
    for (const char *p = text; p < at; p++) line += *p == '\n';
    return line;
}

/* Whether a string, an object or an array is still open where the text ends. */
static bool is_open_at_end(const char *text, size_t n) {
    bool quoted = false;
    int64_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted)
            depth += text[i] == '{' || text[i] == '[' ? 1 : text[i] == '}' || text[i] == ']' ? -1 : 0;
    }
    return quoted || depth > 0;
}

/* The value and where it ends, from `text` as cJSON can read it. */
static qb_status parse_value(const char *text, size_t n, const char *name, qb_json **out) {
    const char *end = NULL;
    unsigned long lost = qb_json_losses();
    *out = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    if (!*out && qb_json_losses() != lost) {
        qb_json_losses_reset(lost);
        return qb_fail(QB_ERR_MEMORY, "%s: out of memory while reading its JSON (%zu bytes)", name, n);
    }
    if (!*out) {
        size_t at = end && end >= text ? (size_t)(end - text) : 0;
        if (at > n) at = n;
        return qb_fail(
            QB_ERR_FORMAT, "%s: not valid JSON at line %d, byte %zu of %zu%s", name, line_of(text, text + at),
            at, n, is_open_at_end(text, n) ? ": it ends within the value, as a file that was cut short" : "");
    }
    for (const char *p = end; p < text + n && *p; p++)
        if (!strchr(" \t\r\n", *p))
            return qb_fail(QB_ERR_FORMAT, "%s: text after the end of the JSON value at line %d", name,
                           line_of(text, p));
    return QB_OK;
}

static qb_status parse(const char *text, size_t n, const char *name, bool every_key, qb_json **out) {
    char *replaced = NULL;
    *out = NULL;
    qb_status st = qb_json_replace_constants(text, n, &replaced);
    if (st == QB_OK) st = parse_value(replaced ? replaced : text, n, name, out);
    if (st == QB_OK) st = qb_json_keep_numbers(text, n, *out);
    if (st == QB_OK && !every_key) st = qb_json_merge_keys(*out, name);
    qb_free(replaced);
    if (st != QB_OK) {
        qb_json_free(*out);
        *out = NULL;
    }
    return st;
}

qb_status qb_json_parse(const char *text, size_t n, const char *name, qb_json **out) {
    return parse(text, n, name, false, out);
}
qb_status qb_json_parse_all(const char *text, size_t n, const char *name, qb_json **out) {
    return parse(text, n, name, true, out);
}

qb_status qb_json_read(const char *path, size_t max_bytes, qb_json **out) {
    char *text;
    size_t n;
    *out = NULL;
    qb_status st = qb_file_read(path, max_bytes, &text, &n);
    if (st != QB_OK) return st;
    st = qb_json_parse(text, n, path, out);
    qb_free(text);
    return st;
}

void qb_json_free(qb_json *json) {
    cJSON_Delete(json);
}

const qb_json *qb_json_get(const qb_json *object, const char *key) {
    return cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
}
const qb_json *qb_json_first(const qb_json *parent) {
    return parent ? parent->child : NULL;
}
const qb_json *qb_json_next(const qb_json *child) {
    return child->next;
}
int64_t qb_json_count(const qb_json *parent) {
    return parent ? cJSON_GetArraySize(parent) : 0;
}
const char *qb_json_key(const qb_json *child) {
    return child->string;
}
bool qb_json_is_object(const qb_json *json) {
    return cJSON_IsObject(json);
}
bool qb_json_is_array(const qb_json *json) {
    return cJSON_IsArray(json);
}
bool qb_json_is_string(const qb_json *json) {
    return cJSON_IsString(json);
}
bool qb_json_is_number(const qb_json *json) {
    return cJSON_IsNumber(json);
}
bool qb_json_is_null(const qb_json *json) {
    return !json || cJSON_IsNull(json);
}
const char *qb_json_string(const qb_json *json) {
    return cJSON_IsString(json) ? json->valuestring : NULL;
}
double qb_json_number(const qb_json *json) {
    return cJSON_IsNumber(json) ? json->valuedouble : (double)NAN;
}
bool qb_json_true(const qb_json *json) {
    return cJSON_IsTrue(json);
}

static const char *type_name(const qb_json *j) {
    if (cJSON_IsObject(j)) return "an object";
    if (cJSON_IsArray(j)) return "an array";
    if (cJSON_IsString(j)) return "a string";
    if (cJSON_IsNumber(j)) return "a number";
    if (cJSON_IsBool(j)) return "a boolean";
    return "null";
}

static bool equal_items(const qb_json *a, const qb_json *b) {
    const qb_json *x = a->child, *y = b->child;
    for (; x && y; x = x->next, y = y->next)
        if (!qb_json_equal(x, y)) return false;
    return !x && !y;
}

static bool equal_members(const qb_json *a, const qb_json *b) {
    for (const qb_json *x = a->child; x; x = x->next)
        if (!qb_json_equal(x, qb_json_get(b, x->string))) return false;
    for (const qb_json *y = b->child; y; y = y->next)
        if (!qb_json_is_null(y) && !qb_json_get(a, y->string)) return false;
    return true;
}

bool qb_json_equal(const qb_json *a, const qb_json *b) {
    if (qb_json_is_null(a) || qb_json_is_null(b)) return qb_json_is_null(a) && qb_json_is_null(b);
    if ((a->type & 0xFF) != (b->type & 0xFF)) return false;
    if (cJSON_IsNumber(a)) return a->valuedouble == b->valuedouble;
    if (cJSON_IsString(a) || cJSON_IsRaw(a)) return !strcmp(a->valuestring, b->valuestring);
    if (cJSON_IsArray(a)) return equal_items(a, b);
    if (cJSON_IsObject(a)) return equal_members(a, b);
    return true; /* of one type: both true, or both false */
}

/* Finds the member; *found stays NULL when it is absent and may be. */
static qb_status member(const qb_json *object, const char *key, const char *where, bool required,
                        const qb_json **found) {
    const qb_json *j = qb_json_get(object, key);
    *found = qb_json_is_null(j) ? NULL : j;
    if (!*found && required) return qb_fail(QB_ERR_FORMAT, "%s: \"%s\" is missing", where, key);
    return QB_OK;
}

static qb_status wrong_type(const char *where, const char *key, const char *expected, const qb_json *found) {
    return qb_fail(QB_ERR_FORMAT, "%s: \"%s\" must be %s, found %s", where, key, expected, type_name(found));
}

qb_status qb_json_int(const qb_json *object, const char *key, const char *where, bool required, int64_t min,
                      int64_t max, int64_t *out) {
    const qb_json *j;
    qb_status st = member(object, key, where, required, &j);
    if (st != QB_OK || !j) return st;
    if (!cJSON_IsNumber(j)) return wrong_type(where, key, "an integer", j);
    double v = j->valuedouble;
    const char *digits = qb_json_kept_number(j);
    if (digits && !strpbrk(digits, ".eENI")) { /* beyond what a double holds */
        errno = 0;
        long long exact = strtoll(digits, NULL, 10);
        if (errno || exact < min || exact > max)
            return qb_fail(QB_ERR_FORMAT,
                           "%s: \"%s\" must lie between %" PRId64 " and %" PRId64 ", found %.40s", where, key,
                           min, max, digits);
        *out = exact;
        return QB_OK;
    }
    if (!(fabs(v) <= 9007199254740992.0) || v != floor(v))
        return qb_fail(QB_ERR_FORMAT, "%s: \"%s\" must be an integer, found %.17g", where, key, v);
    if (v < (double)min || v > (double)max)
        return qb_fail(QB_ERR_FORMAT, "%s: \"%s\" must lie between %" PRId64 " and %" PRId64 ", found %.0f",
                       where, key, min, max, v);
    *out = (int64_t)v;
    return QB_OK;
}

qb_status qb_json_real(const qb_json *object, const char *key, const char *where, bool required, double min,
                       double max, double *out) {
    const qb_json *j;
    qb_status st = member(object, key, where, required, &j);
    if (st != QB_OK || !j) return st;
    if (!cJSON_IsNumber(j)) return wrong_type(where, key, "a number", j);
    if (!(j->valuedouble >= min && j->valuedouble <= max))
        return qb_fail(QB_ERR_FORMAT, "%s: \"%s\" must lie between %g and %g, found %g", where, key, min, max,
                       j->valuedouble);
    *out = j->valuedouble;
    return QB_OK;
}

qb_status qb_json_bool(const qb_json *object, const char *key, const char *where, bool required, bool *out) {
    const qb_json *j;
    qb_status st = member(object, key, where, required, &j);
    if (st != QB_OK || !j) return st;
    if (!cJSON_IsBool(j)) return wrong_type(where, key, "true or false", j);
    *out = cJSON_IsTrue(j);
    return QB_OK;
}

qb_status qb_json_text(const qb_json *object, const char *key, const char *where, bool required,
                       const char **out) {
    const qb_json *j;
    qb_status st = member(object, key, where, required, &j);
    if (st != QB_OK || !j) return st;
    if (!cJSON_IsString(j)) return wrong_type(where, key, "a string", j);
    *out = j->valuestring;
    return QB_OK;
}

qb_json *qb_json_object(void) {
    return cJSON_CreateObject();
}
qb_json *qb_json_array(void) {
    return cJSON_CreateArray();
}

void qb_json_put(qb_json *object, const char *key, qb_json *value) {
    if (!object || !value) {
        cJSON_Delete(value);
        return;
    }
    if (cJSON_GetObjectItemCaseSensitive(object, key))
        cJSON_ReplaceItemInObjectCaseSensitive(object, key, value);
    else
        cJSON_AddItemToObject(object, key, value);
}

void qb_json_push(qb_json *array, qb_json *value) {
    if (!array || !value)
        cJSON_Delete(value);
    else
        cJSON_AddItemToArray(array, value);
}

/* cJSON keeps doubles; an integer beyond 2^53 is carried as its literal digits instead. */
static qb_json *integer(int64_t value) {
    char digits[32];
    snprintf(digits, sizeof digits, "%" PRId64, value);
    return llabs(value) <= ((int64_t)1 << 53) ? cJSON_CreateNumber((double)value) : cJSON_CreateRaw(digits);
}
static qb_json *real(double value) {
    return isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull();
}
static qb_json *text_or_null(const char *text) {
    return text ? cJSON_CreateString(text) : cJSON_CreateNull();
}

void qb_json_put_text(qb_json *o, const char *key, const char *text) {
    qb_json_put(o, key, text_or_null(text));
}
void qb_json_put_int(qb_json *o, const char *key, int64_t value) {
    qb_json_put(o, key, integer(value));
}
void qb_json_put_real(qb_json *o, const char *key, double value) {
    qb_json_put(o, key, real(value));
}
void qb_json_put_decimal(qb_json *o, const char *key, double value) {
    char text[32];
    bool whole = isfinite(value) && fabs(value) < 1e15 && value == rint(value);
    if (whole) snprintf(text, sizeof text, "%.1f", value);
    qb_json_put(o, key, whole ? cJSON_CreateRaw(text) : real(value));
}
void qb_json_put_bool(qb_json *o, const char *key, bool value) {
    qb_json_put(o, key, cJSON_CreateBool(value));
}
void qb_json_put_null(qb_json *o, const char *key) {
    qb_json_put(o, key, cJSON_CreateNull());
}
void qb_json_push_real(qb_json *a, double value) {
    qb_json_push(a, real(value));
}
void qb_json_push_int(qb_json *a, int64_t value) {
    qb_json_push(a, integer(value));
}
void qb_json_push_text(qb_json *a, const char *text) {
    qb_json_push(a, text_or_null(text));
}
qb_json *qb_json_copy(const qb_json *json) {
    return json ? cJSON_Duplicate(json, 1) : NULL;
}

qb_json *qb_json_take(qb_json *object, const char *key) {
    return cJSON_IsObject(object) ? cJSON_DetachItemFromObjectCaseSensitive(object, key) : NULL;
}

qb_status qb_json_print(const qb_json *json, bool pretty, char **out) {
    *out = NULL;
    if (qb_json_losses())
        return qb_fail(QB_ERR_MEMORY, "out of memory while building JSON: parts of it would be missing");
    bool kept = false;
    qb_json *raw = json ? qb_json_with_kept_numbers(json, &kept) : NULL;
    if (kept) json = raw;
    char *printed = qb_json_losses() || !json ? NULL
                    : pretty                  ? cJSON_Print(json)
                                              : cJSON_PrintUnformatted(json);
    qb_json_free(raw);
    if (!printed) {
        qb_json_losses_reset(0); /* the value itself is whole */
        return qb_fail(QB_ERR_MEMORY, "out of memory while writing JSON");
    }
    qb_str escaped = {0};
    size_t n = strlen(printed);
    bool found = qb_text_escape_json(printed, n, &escaped);
    const char *text = found ? qb_str_get(&escaped) : printed;
    if (found) n = escaped.length;
    char *copy;
    qb_status st = qb_str_status(&escaped);
    if (st == QB_OK) st = qb_alloc(n + 2, 1, &copy);
    if (st == QB_OK) {
        memcpy(copy, text, n);
        if (pretty) copy[n++] = '\n';
        copy[n] = 0;
        *out = copy;
    }
    qb_str_free(&escaped);
    cJSON_free(printed);
    return st;
}

qb_status qb_json_write_atomic(const qb_json *json, const char *path) {
    char *text;
    qb_status st = qb_json_print(json, true, &text);
    if (st != QB_OK) return st;
    st = qb_file_write_atomic(path, text, strlen(text));
    qb_free(text);
    return st;
}
