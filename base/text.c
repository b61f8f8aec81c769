#include "base/text.h"

#include <stdint.h>
#include <string.h>

void qb_text_clean(const char *text, int max_columns, qb_str *out) {
    const uint8_t *p = (const uint8_t *)(text ? text : "");
    int columns = 0;
    size_t before_last = out->length;
    while (*p) {
        if (max_columns > 0 && columns == max_columns) {
            /* The last character gives its place to the ellipsis. */
            if (!out->failed) {
                out->length = before_last;
                qb_str_text(out, "…");
            }
            return;
        }
        before_last = out->length;
        bool shown;
        size_t n = qb_char_length((const char *)p, &shown);
        if (shown)
            qb_str_append(out, p, n);
        else
            qb_str_text(out, *p == '\n' || *p == '\t' ? " " : "?");
        p += n;
        columns++;
    }
}

/* The next character of a text of which n bytes are left: a sequence that its end cuts is broken. */
static size_t next_char(const uint8_t *p, size_t n, bool *shown) {
    uint8_t last[8] = {0};
    memcpy(last, p, n < 4 ? n : 4); /* no more than that are looked at, and none behind the end */
    return qb_char_length((const char *)last, shown);
}

void qb_text_clean_lines(const char *text, size_t n, qb_str *out) {
    const uint8_t *p = (const uint8_t *)text, *end = p + n;
    while (p < end) {
        bool shown, layout = *p == '\n' || *p == '\t';
        size_t length = next_char(p, (size_t)(end - p), &shown);
        if (shown || layout)
            qb_str_append(out, p, length);
        else
            qb_str_text(out, "?");
        p += length;
    }
}

static unsigned code_point(const uint8_t *p, size_t n) {
    if (n == 1) return p[0] < 0x80 ? p[0] : 0xFFFD; /* a single byte above is no character */
    if (n == 2) return (unsigned)(p[0] & 0x1F) << 6 | (p[1] & 0x3F);
    return (unsigned)(p[0] & 0x0F) << 12 | (unsigned)(p[1] & 0x3F) << 6 |
           (p[2] & 0x3F); /* controls have no more */
}

bool qb_text_escape_json(const char *json, size_t n, qb_str *out) {
    const uint8_t *p = (const uint8_t *)json, *end = p + n, *kept = p;
    bool found = false;
    while (p < end) {
        if (*p < 0x7F) {
            p++;
            continue;
        }
        bool shown;
        size_t length = next_char(p, (size_t)(end - p), &shown);
        if (!shown) {
            qb_str_append(out, kept, (size_t)(p - kept));
            qb_str_printf(out, "\\u%04x", code_point(p, length));
            kept = p + length;
            found = true;
        }
        p += length;
    }
    if (found) qb_str_append(out, kept, (size_t)(end - kept));
    return found;
}

/* Characters, each taken for one column. */
static int columns_of(const char *text, size_t n) {
    int columns = 0;
    for (size_t i = 0; i < n; i++) columns += ((uint8_t)text[i] & 0xC0) != 0x80;
    return columns;
}

void qb_text_wrap_from(const char *text, int first, int indent, int columns, qb_str *out) {
    int column = first;
    bool begun = false;
    while (*text == ' ') text++;
    while (*text) {
        size_t n = strcspn(text, " ");
        int width = columns_of(text, n);
        if (begun && column + 1 + width > columns) {
            qb_str_printf(out, "\n%*s", indent, "");
            column = indent;
        } else if (begun) {
            qb_str_text(out, " ");
            column++;
        }
        qb_str_append(out, text, n);
        column += width;
        begun = true;
        text += n;
        while (*text == ' ') text++;
    }
    qb_str_text(out, "\n");
}

void qb_text_wrap(const char *text, int indent, int columns, qb_str *out) {
    qb_text_wrap_from(text, indent, indent, columns, out);
}
