#include "base/log.h"

#include "base/clock.h"
#include "base/colour.h"
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static qb_log_level level = QB_LOG_NORMAL;
static bool line_open; /* a progress line without its newline stands on the terminal */

void qb_log_set_level(qb_log_level new_level) {
    level = new_level;
}

void qb_log_error(const char *text) {
    qb_str clean = {0};
    qb_log_end_line();
    qb_text_clean(text, 0, &clean);
    bool colour = qb_colour_wanted(STDERR_FILENO);
    fprintf(stderr, "%sbench:%s %s\n", qb_colour_begin(QB_RED, colour), qb_colour_end(colour),
            clean.failed ? "out of memory" : qb_str_get(&clean));
    qb_str_free(&clean);
}

void qb_log_end_line(void) {
    if (line_open) fputs("\r\033[K", stderr);
    line_open = false;
}

static void say(const char *head, const char *fmt, va_list args) {
    char text[2048];
    vsnprintf(text, sizeof text, fmt, args);
    qb_log_end_line();
    qb_str clean = {0};
    qb_text_clean_lines(text, strlen(text), &clean);
    fprintf(stderr, "%s%s\n", head, clean.failed ? "out of memory for a message" : qb_str_get(&clean));
    qb_str_free(&clean);
}

#define SAY(head, fmt)                                                                                       \
    do {                                                                                                     \
        va_list args;                                                                                        \
        va_start(args, fmt);                                                                                 \
        say(head, fmt, args);                                                                                \
        va_end(args);                                                                                        \
    } while (0)

void qb_info(const char *fmt, ...) {
    if (level >= QB_LOG_NORMAL) SAY("", fmt);
}
void qb_debug(const char *fmt, ...) {
    if (level >= QB_LOG_VERBOSE) SAY("debug: ", fmt);
}
static qb_warning_sink warning_sink, warning_copy;
static void *warning_ctx, *copy_ctx;

void qb_log_capture(qb_warning_sink sink, void *ctx) {
    warning_sink = sink;
    warning_ctx = ctx;
}

void qb_log_copy(qb_warning_sink sink, void *ctx) {
    warning_copy = sink;
    copy_ctx = ctx;
}

/* Warnings quote names out of files, as errors do. */
void qb_warn(const char *fmt, ...) {
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    qb_clean_line(text);
    if (warning_copy) warning_copy(copy_ctx, text);
    if (warning_sink) {
        warning_sink(warning_ctx, text);
        return;
    }
    qb_log_end_line();
    bool colour = qb_colour_wanted(STDERR_FILENO);
    fprintf(stderr, "%swarning:%s %s\n", qb_colour_begin(QB_YELLOW, colour), qb_colour_end(colour), text);
}

static void draw(qb_progress *p, bool last) {
    static int terminal = -1;
    if (terminal < 0) terminal = isatty(STDERR_FILENO);
    long long now = qb_now_ns();
    if (!last && p->drawn_ns && now - p->drawn_ns < (terminal ? 100000000LL : 10000000000LL)) return;
    p->drawn_ns = now;
    double elapsed = (double)(now - p->started_ns) * 1e-9;
    double share = p->total > 0 ? p->done / p->total : 0;
    char spent[32], left[32];
    qb_format_seconds(elapsed, spent);
    if (last) {
        qb_log_end_line();
        fprintf(stderr, "%s: %s\n", p->label, spent);
        return;
    }
    if (terminal) {
        int width = 24, filled = (int)(share * width);
        fprintf(stderr, "\r\033[K%s [%.*s%*s] %3.0f%%", p->label, filled, "########################",
                width - filled, "", share * 100);
        if (share > 0.01 && elapsed > 0.5)
            fprintf(stderr, ", %s left", qb_format_seconds(elapsed / share - elapsed, left));
        fflush(stderr);
        line_open = true;
    } else if (share > 0 && elapsed > 1) {
        fprintf(stderr, "%s: %.0f%%, %s left\n", p->label, share * 100,
                qb_format_seconds(elapsed / share - elapsed, left));
    }
}

void qb_progress_begin(qb_progress *p, double total, const char *fmt, ...) {
    *p = (qb_progress){.total = total, .started_ns = qb_now_ns(), .active = level >= QB_LOG_NORMAL};
    va_list args;
    va_start(args, fmt);
    char text[sizeof p->label];
    qb_str clean = {0};
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    qb_text_clean(text, 0, &clean);
    snprintf(p->label, sizeof p->label, "%s", qb_str_get(&clean));
    qb_str_free(&clean);
    if (p->active) draw(p, false);
}

void qb_progress_update(qb_progress *p, double done) {
    p->done = done < p->total ? done : p->total;
    if (p->active) draw(p, false);
}

void qb_progress_end(qb_progress *p) {
    p->done = p->total;
    if (p->active) draw(p, true);
    p->active = false;
}
