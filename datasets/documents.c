#include "datasets/documents.h"

#include "base/json.h"
#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

static bool is_blank(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r') return false;
    return true;
}

static size_t line_length(const char *p, size_t left) {
    const char *end = left ? memchr(p, '\n', left) : NULL;
    return end ? (size_t)(end - p) : left;
}

/* What was walked over is not kept: a mapped shard would count into the peak memory of the process, a
 * gigabyte of it for C4. */
static void leave(const qb_text *text, size_t from, size_t to) {
    if (text->map.bytes) qb_map_release(text->bytes + from, (to < text->n ? to : text->n) - from);
}

qb_status qb_documents_index(const qb_text *text, qb_documents *out) {
    enum { PIECE = 1 << 20 };
    *out = (qb_documents){.text = text};
    size_t capacity = 0, left = 0;
    for (size_t at = 0; at < text->n;) {
        if (at - left >= PIECE) {
            leave(text, left, at);
            left = at;
        }
        size_t n = line_length(text->bytes + at, text->n - at);
        if (!is_blank(text->bytes + at, n)) {
            qb_status st = qb_grow(&out->starts, &capacity, (size_t)out->count + 1, sizeof *out->starts);
            if (st != QB_OK) {
                qb_documents_free(out);
                return st;
            }
            out->starts[out->count++] = at;
        }
        at += n + 1;
    }
    leave(text, left, text->n);
    if (out->count == 0)
        return qb_fail(QB_ERR_FORMAT, "%s: no documents: expected one JSON object with \"text\" a line",
                       text->name);
    return QB_OK;
}

void qb_documents_free(qb_documents *d) {
    qb_free(d->starts);
    *d = (qb_documents){0};
}

/* Line numbers are asked for in errors alone, so they are counted then. */
static int64_t line_of(const qb_documents *d, int64_t i) {
    int64_t line = 1;
    for (size_t j = 0; j < d->starts[i]; j++) line += d->text->bytes[j] == '\n';
    return line;
}

/* The JSON library ends strings at NUL: such a document would be cut off silently. */
static bool holds_nul(const char *p, size_t n) {
    if (memchr(p, 0, n)) return true;
    for (size_t i = 0; i + 1 < n; i++) {
        if (p[i] != '\\') continue;
        if (n - i >= 6 && memcmp(p + i, "\\u0000", 6) == 0) return true;
        i++; /* the escaped character, which may be a backslash */
    }
    return false;
}

static int hex4(const char *p) {
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'                     ? c - '0'
                    : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                             : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Where an escape \\ud800 .. \\udfff stands that is half of no pair; NULL: nowhere. Half a pair is no
   character: no UTF-8 text can hold it, and the reference's tokenizers fail on it. */
static const char *lone_surrogate(const char *p, size_t n) {
    for (size_t i = 0; i + 1 < n; i++) {
        if (p[i] != '\\') continue;
        int code = n - i >= 6 && p[i + 1] == 'u' ? hex4(p + i + 2) : -1;
        bool high = code >= 0xd800 && code < 0xdc00, low = code >= 0xdc00 && code < 0xe000;
        int next = high && n - i >= 12 && p[i + 6] == '\\' && p[i + 7] == 'u' ? hex4(p + i + 8) : -1;
        bool paired = next >= 0xdc00 && next < 0xe000;
        if (low || (high && !paired)) return p + i;
        i += paired ? 11 : 1;
    }
    return NULL;
}

static qb_status parse_line(const char *line, size_t n, const char *where, qb_str *out) {
    qb_json *json = NULL;
    qb_status st;
    const char *text = NULL;
    if (holds_nul(line, n)) return qb_fail(QB_ERR_UNSUPPORTED, "%s: the line holds the character NUL", where);
    const char *lone = lone_surrogate(line, n);
    if (lone)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: byte %zu: %.6s is half of a surrogate pair, which is no character: mend or drop "
                       "the line",
                       where, (size_t)(lone - line), lone);
    QB_TRY(st, qb_json_parse(line, n, where, &json));
    if (!qb_json_is_object(json))
        QB_TRY(st, qb_fail(QB_ERR_FORMAT,
                           "%s: expected one JSON object with \"text\" a line, found another value", where));
    QB_TRY(st, qb_json_text(json, "text", where, true, &text));
    QB_TRY(st, qb_utf8_check(text, strlen(text), where));
    qb_str_text(out, text);
    st = qb_str_status(out);
out:
    qb_json_free(json);
    return st;
}

qb_status qb_documents_get(const qb_documents *d, int64_t i, qb_str *out) {
    const char *line = d->text->bytes + d->starts[i];
    size_t n = line_length(line, d->text->n - d->starts[i]);
    size_t length = out->length;
    qb_status st = parse_line(line, n, "document", out);
    leave(d->text, d->starts[i], d->starts[i] + n);
    if (st == QB_OK || st == QB_ERR_MEMORY) return st;
    /* Only now is the line's number worth counting; parsing again says it with its name. */
    out->length = length;
    qb_str where = {0};
    qb_str_printf(&where, "%s, line %" PRId64, d->text->name, line_of(d, i));
    st = parse_line(line, n, qb_str_get(&where), out);
    qb_str_free(&where);
    return st;
}

qb_status qb_documents_join(const qb_documents *d, int64_t limit, const char *separator, qb_str *out) {
    int64_t n = limit > 0 && limit < d->count ? limit : d->count;
    for (int64_t i = 0; i < n; i++) {
        if (i > 0) qb_str_text(out, separator);
        qb_status st = qb_documents_get(d, i, out);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}
