#include "results/text.h"

#include <stdint.h>
#include <string.h>

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
