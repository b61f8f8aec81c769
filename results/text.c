#include "results/text.h"

#include <stdint.h>
#include <string.h>

/* Length of the valid UTF-8 sequence at p (Unicode 15, table 3-7: no overlong forms, no surrogates); 0 when
 * it is none. */
static int sequence_length(const uint8_t *p) {
    if (p[0] < 0x80) return 1;
    int n = p[0] >= 0xC2 && p[0] <= 0xDF   ? 2
            : p[0] >= 0xE0 && p[0] <= 0xEF ? 3
            : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4
                                           : 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F)) return 0;
    if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F)) return 0;
    return n;
}

/* C0, DEL, C1, and the characters that reorder or hide text (bidirectional controls, zero width). */
static bool is_control(const uint8_t *p, int n) {
    if (n == 1) return p[0] < 0x20 || p[0] == 0x7F;
    if (n == 2) return p[0] == 0xC2 && p[1] < 0xA0;
    if (n == 3 && p[0] == 0xE2 && p[1] == 0x80)
        return (p[2] >= 0x8B && p[2] <= 0x8F) || (p[2] >= 0xA8 && p[2] <= 0xAE);
    if (n == 3 && p[0] == 0xE2 && p[1] == 0x81) return p[2] >= 0xA6 && p[2] <= 0xA9;
    return n == 3 && p[0] == 0xEF && p[1] == 0xBB && p[2] == 0xBF;
}

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
        int n = sequence_length(p);
        if (n == 0 || is_control(p, n))
            qb_str_text(out, n == 1 && (*p == '\n' || *p == '\t') ? " " : "?");
        else
            qb_str_append(out, p, (size_t)n);
        p += n ? n : 1;
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
