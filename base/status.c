#include "base/status.h"

#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 1024, WHOLE_MAX = 16384 };

static _Thread_local char error_text[TEXT_MAX];

static const struct {
    const char *name;
    const char *text;
    int exit_code;
} rows[] = {
#define X(name, exit_code, text) {#name, text, exit_code},
#include "base/status.def"
#undef X
};

/* A sentence that is too long (paths may take 4096 bytes) loses its middle: what failed stands at its begin,
 * why at its end. */
static void keep(const char *text) {
    static const char gap[] = " ... ";
    size_t n = strlen(text), head = TEXT_MAX / 3, tail = TEXT_MAX - 1 - head - (sizeof gap - 1);
    if (n < TEXT_MAX) {
        memcpy(error_text, text, n + 1);
    } else {
        memcpy(error_text, text, head);
        memcpy(error_text + head, gap, sizeof gap - 1);
        memcpy(error_text + head + sizeof gap - 1, text + n - tail, tail + 1);
    }
    qb_clean_line(error_text); /* sentences quote names out of files */
}

qb_status qb_fail(qb_status code, const char *fmt, ...) {
    /* Arguments may point into error_text itself, so format aside first. */
    char text[WHOLE_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    keep(text);
    return code;
}

qb_status qb_fail_prefix(qb_status code, const char *fmt, ...) {
    char text[WHOLE_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    /* What does not fit is cut at the end. */
    const char *parts[] = {": ", error_text};
    for (size_t i = 0; i < 2; i++) {
        size_t length = strlen(parts[i]), room = sizeof text - 1 - used;
        if (length > room) length = room;
        memcpy(text + used, parts[i], length);
        used += length;
    }
    text[used] = 0;
    keep(text);
    return code;
}

const char *qb_error_text(void) {
    return error_text;
}
void qb_error_clear(void) {
    error_text[0] = 0;
}

static size_t row_of(qb_status status) {
    size_t i = (size_t)status;
    return i < sizeof rows / sizeof rows[0] ? i : sizeof rows / sizeof rows[0] - 1;
}

const char *qb_status_name(qb_status status) {
    return rows[row_of(status)].name;
}
const char *qb_status_text(qb_status status) {
    return rows[row_of(status)].text;
}
int qb_status_exit_code(qb_status status) {
    return rows[row_of(status)].exit_code;
}
