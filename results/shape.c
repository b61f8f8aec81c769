#include "results/shape.h"

#include "base/memory.h"
#include "base/str.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_place(const place *at, qb_str *out) {
    if (at->up) put_place(at->up, out);
    if (at->document)
        qb_str_printf(out, "%s: ", at->document);
    else if (at->key)
        qb_str_printf(out, "%s%s", at->up && !at->up->document ? "." : "", at->key);
    else
        qb_str_printf(out, "[%" PRId64 "]", at->index);
}

qb_status qb_shape_wrong(const place *at, const char *fmt, ...) {
    qb_str text = {0};
    put_place(at, &text);
    if (!at->document) qb_str_text(&text, " ");
    va_list args;
    va_start(args, fmt);
    qb_str_vprintf(&text, fmt, args);
    va_end(args);
    qb_status st = qb_fail(QB_ERR_FORMAT, "%s", qb_str_get(&text));
    qb_str_free(&text);
    return st;
}

static const char *found(const qb_json *v, char buffer[80]) {
    const char *text = qb_json_string(v);
    if (qb_json_is_object(v)) return "an object";
    if (qb_json_is_array(v)) return "an array";
    if (qb_json_is_null(v)) return "null";
    if (text)
        snprintf(buffer, 80, "\"%.60s%s\"", text, strlen(text) > 60 ? "..." : "");
    else if (qb_json_is_number(v))
        snprintf(buffer, 80, "%.17g", qb_json_number(v));
    else
        return qb_json_true(v) ? "true" : "false";
    return buffer;
}

static void put_kinds(unsigned kind, qb_str *out) {
    static const struct {
        unsigned bit;
        const char *text;
    } names[] = {{STRING, "a string"},       {NUMBER, "a number"},  {INTEGER, "an integer"},
                 {BOOLEAN, "true or false"}, {OBJECT, "an object"}, {ARRAY, "an array"},
                 {NULLABLE, "null"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (kind & names[i].bit) qb_str_printf(out, "%s%s", out->length ? " or " : "", names[i].text);
}

static bool digits(const char *text, const char *pattern) { /* '0' in the pattern stands for a digit */
    for (; *pattern; text++, pattern++)
        if (*pattern == '0' ? *text < '0' || *text > '9' : *text != *pattern) return false;
    return true;
}

static bool is_time(const char *t) { /* RFC 3339 in UTC */
    if (strlen(t) < 20 || !digits(t, "0000-00-00T00:00:00")) return false;
    int month = atoi(t + 5), day = atoi(t + 8), hour = atoi(t + 11), minute = atoi(t + 14),
        second = atoi(t + 17);
    if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59)
        return false;
    t += 19;
    if (*t == '.') {
        size_t n = strspn(t + 1, "0123456789");
        if (n == 0) return false;
        t += 1 + n;
    }
    return !strcmp(t, "Z");
}

static bool is_choice(const char *text, const char *choices) {
    size_t n = strlen(text);
    for (const char *p = choices; n > 0 && p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (!strncmp(p, text, n) && (p[n] == '|' || p[n] == 0) && !strchr(text, '|')) return true;
    return false;
}

static qb_status check_string(const char *text, const rule *r, const qb_json *v, const place *at) {
    char buffer[80];
    if ((r->kind & FILLED) && !*text) return qb_shape_wrong(at, "must not be empty");
    if (r->choices && !is_choice(text, r->choices))
        return qb_shape_wrong(at, "must be one of %s, found %s", r->choices, found(v, buffer));
    if ((r->kind & SHA256) && (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64))
        return qb_shape_wrong(at, "must be a SHA-256 of 64 lower-case hexadecimal digits, found %s",
                              found(v, buffer));
    if ((r->kind & TIME) && !is_time(text))
        return qb_shape_wrong(at,
                              "must be an RFC 3339 time in UTC such as \"2026-11-22T05:49:38Z\", found %s",
                              found(v, buffer));
    return QB_OK;
}

static qb_status check_number(double value, const rule *r, const place *at) {
    if (!isfinite(value)) return qb_shape_wrong(at, "must be a finite number, found %g", value);
    if ((r->kind & NON_NEGATIVE) && value < 0)
        return qb_shape_wrong(at, "must not be negative, found %.17g", value);
    if ((r->kind & POSITIVE) && value <= 0) return qb_shape_wrong(at, "must be above 0, found %.17g", value);
    if (r->max > 0 && value > r->max)
        return qb_shape_wrong(at, "must be at most %.17g, found %.17g", r->max, value);
    return QB_OK;
}

static unsigned kind_of(const qb_json *v) {
    if (qb_json_is_object(v)) return OBJECT;
    if (qb_json_is_array(v)) return ARRAY;
    if (qb_json_is_string(v)) return STRING;
    if (qb_json_is_null(v)) return NULLABLE;
    if (!qb_json_is_number(v)) return BOOLEAN;
    double x = qb_json_number(v);
    return x == floor(x) ? INTEGER | NUMBER : NUMBER;
}

static qb_status check_value(const qb_json *v, const rule *r, const place *at) {
    unsigned kind = kind_of(v);
    if (!(kind & r->kind)) {
        char buffer[80];
        qb_str expected = {0};
        put_kinds(r->kind, &expected);
        qb_status st = qb_shape_wrong(at, "must be %s, found %s", qb_str_get(&expected), found(v, buffer));
        qb_str_free(&expected);
        return st;
    }
    if (kind & STRING) return check_string(qb_json_string(v), r, v, at);
    if (kind & NUMBER) return check_number(qb_json_number(v), r, at);
    if ((kind & OBJECT) && r->object) return qb_shape_check(v, r->object, at);
    if ((kind & ARRAY) && r->items) {
        if (r->max > 0 && (double)qb_json_count(v) > r->max)
            return qb_shape_wrong(at, "has %" PRId64 " items, at most %.0f are allowed", qb_json_count(v),
                                  r->max);
        place item = {.up = at};
        for (const qb_json *c = qb_json_first(v); c; c = qb_json_next(c), item.index++) {
            qb_status st = check_value(c, r->items, &item);
            if (st != QB_OK) return st;
        }
    }
    return QB_OK;
}

static qb_status unknown_key(const char *key, const shape *s, const place *at) {
    const char *names[32];
    size_t n = 0;
    for (const rule *r = s->rules; r->key && n < 32; r++) names[n++] = r->key;
    char hint[QB_HINT_CHARS];
    return qb_shape_wrong(at, "has an unknown key \"%.60s\"%s", key, qb_did_you_mean(key, names, n, hint));
}

qb_status qb_shape_check(const qb_json *object, const shape *s, const place *at) {
    for (const rule *r = s->rules; r->key; r++) {
        const qb_json *v = qb_json_get(object, r->key);
        place child = {.up = at, .key = r->key};
        if (!v && (r->kind & REQUIRED)) return qb_shape_wrong(at, "lacks \"%s\"", r->key);
        qb_status st = v ? check_value(v, r, &child) : QB_OK;
        if (st != QB_OK) return st;
    }
    for (const qb_json *v = s->closed ? qb_json_first(object) : NULL; v; v = qb_json_next(v)) {
        const rule *r = s->rules;
        while (r->key && strcmp(r->key, qb_json_key(v)) != 0) r++;
        if (!r->key) return unknown_key(qb_json_key(v), s, at);
    }
    return s->also ? s->also(object, at) : QB_OK;
}
