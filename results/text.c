#include "results/text.h"

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
        if (!shown)
            qb_str_text(out, *p == '\n' || *p == '\t' ? " " : "?");
        else
            qb_str_append(out, p, n);
        p += n;
        columns++;
    }
}

int qb_text_columns(const char *text) {
    int n = 0;
    for (const uint8_t *p = (const uint8_t *)text; *p; p++) n += (*p & 0xC0) != 0x80;
    return n;
}

void qb_text_pad(const char *text, int columns, bool right, qb_str *out) {
    int spaces = columns - qb_text_columns(text);
    if (!right) qb_str_text(out, text);
    for (int i = 0; i < spaces; i++) qb_str_append(out, " ", 1);
    if (right) qb_str_text(out, text);
}
