#include "base/str.h"

#include "base/memory.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

void qb_str_append(qb_str *s, const void *bytes, size_t n) {
    if (s->failed) return;
    if (n > SIZE_MAX / 4 || qb_grow(&s->text, &s->capacity, s->length + n + 1, 1) != QB_OK) {
        s->failed = true;
        return;
    }
    if (n) memcpy(s->text + s->length, bytes, n);
    s->length += n;
    s->text[s->length] = 0;
}

void qb_str_text(qb_str *s, const char *text) {
    qb_str_append(s, text, strlen(text));
}

void qb_str_vprintf(qb_str *s, const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0 || s->failed || qb_grow(&s->text, &s->capacity, s->length + (size_t)n + 1, 1) != QB_OK) {
        s->failed = true;
    } else {
        vsnprintf(s->text + s->length, (size_t)n + 1, fmt, again);
        s->length += (size_t)n;
    }
    va_end(again);
}

void qb_str_printf(qb_str *s, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    qb_str_vprintf(s, fmt, args);
    va_end(args);
}

qb_status qb_str_status(const qb_str *s) {
    return s->failed ? qb_fail(QB_ERR_MEMORY, "out of memory while building a text of %zu bytes", s->length)
                     : QB_OK;
}

const char *qb_str_get(const qb_str *s) {
    return s->text ? s->text : "";
}

void qb_str_free(qb_str *s) {
    if (!s) return;
    qb_free(s->text);
    *s = (qb_str){0};
}

static size_t edit_distance(const char *a, const char *b) {
    enum { MAX = 64 };
    size_t na = strlen(a), nb = strlen(b);
    if (na >= MAX || nb >= MAX) return SIZE_MAX;
    size_t row[MAX];
    for (size_t j = 0; j <= nb; j++) row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[nb];
}

const char *qb_nearest(const char *word, const char *const *candidates, size_t n) {
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = edit_distance(word, candidates[i]);
        if (d <= best_distance && (!best || d < best_distance)) {
            best = candidates[i];
            best_distance = d;
        }
    }
    return best;
}

const char *qb_hint(const char *prefix, const char *near, char buffer[QB_HINT_CHARS]) {
    buffer[0] = 0;
    if (near) snprintf(buffer, QB_HINT_CHARS, "; did you mean %s%s?", prefix, near);
    return buffer;
}
const char *qb_did_you_mean(const char *word, const char *const *candidates, size_t n,
                            char buffer[QB_HINT_CHARS]) {
    return qb_hint("", qb_nearest(word, candidates, n), buffer);
}

const char *qb_format_bytes(double bytes, char buffer[32]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t u = 0;
    while (fabs(bytes) >= 999.5 && u + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1000;
        u++;
    }
    snprintf(buffer, 32,
             u == 0 || bytes >= 99.95 ? "%.0f %s"
             : bytes >= 9.995         ? "%.1f %s"
                                      : "%.2f %s",
             bytes, units[u]);
    return buffer;
}

const char *qb_format_seconds(double seconds, char buffer[32]) {
    if (seconds < 1)
        snprintf(buffer, 32, "%.0f ms", seconds * 1e3);
    else if (seconds < 60)
        snprintf(buffer, 32, "%.1f s", seconds);
    else if (seconds < 3600)
        snprintf(buffer, 32, "%dm %02ds", (int)(seconds / 60), (int)fmod(seconds, 60));
    else
        snprintf(buffer, 32, "%dh %02dm", (int)(seconds / 3600), (int)(fmod(seconds, 3600) / 60));
    return buffer;
}

/* ---- what a line may show ---- */

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
    if (n == 2) return (p[0] == 0xC2 && p[1] < 0xA0) || (p[0] == 0xD8 && p[1] == 0x9C);
    if (n == 3 && p[0] == 0xE2 && p[1] == 0x80)
        return (p[2] >= 0x8B && p[2] <= 0x8F) || (p[2] >= 0xA8 && p[2] <= 0xAE);
    if (n == 3 && p[0] == 0xE2 && p[1] == 0x81) return p[2] >= 0xA6 && p[2] <= 0xA9;
    return n == 3 && p[0] == 0xEF && p[1] == 0xBB && p[2] == 0xBF;
}

size_t qb_char_length(const char *text, bool *shown) {
    const uint8_t *p = (const uint8_t *)text;
    int n = sequence_length(p);
    *shown = n > 0 && !is_control(p, n);
    return n ? (size_t)n : 1;
}

void qb_clean_line(char *text) {
    bool shown;
    for (size_t n; *text; text += n) {
        n = qb_char_length(text, &shown);
        if (!shown) memset(text, '?', n);
    }
}
