#include "results/text.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

int qb_text_columns(const char *text) {
    int n = 0;
    for (const uint8_t *p = (const uint8_t *)text; *p; p++) n += (*p & 0xC0) != 0x80;
    return n;
}

void qb_text_figure(double value, int digits, qb_str *out) {
    if (fabs(value) >= pow(10, digits) - 0.5 && fabs(value) < 1e7)
        qb_str_printf(out, "%.0f", value);
    else
        qb_str_printf(out, "%.*g", digits, value);
}

void qb_text_pad(const char *text, int columns, bool right, qb_str *out) {
    int spaces = columns - qb_text_columns(text);
    if (!right) qb_str_text(out, text);
    for (int i = 0; i < spaces; i++) qb_str_append(out, " ", 1);
    if (right) qb_str_text(out, text);
}
