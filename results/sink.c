#include "results/sink.h"

#include "results/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define X(name) extern const qb_sink qb_sink_##name;
#include "results/sinks.def"
#undef X
static const qb_sink *const sinks[] = {
#define X(name) &qb_sink_##name,
#include "results/sinks.def"
#undef X
};
enum { N_SINKS = sizeof sinks / sizeof sinks[0] };

const qb_sink *qb_sink_at(size_t index) {
    return index < N_SINKS ? sinks[index] : NULL;
}

const qb_sink *qb_sink_find(const char *name) {
    for (size_t i = 0; i < N_SINKS; i++)
        if (!strcmp(sinks[i]->name, name)) return sinks[i];
    return NULL;
}

qb_status qb_rows_print(const qb_rows *rows, const char *format, qb_str *out) {
    const qb_sink *sink = qb_sink_find(format);
    qb_table t = {0};
    if (!sink) return qb_fail(QB_ERR_USAGE, "no format '%.40s'; there are " QB_SINK_CHOICES, format);
    qb_status st = qb_table_make(rows, &t);
    if (st == QB_OK) st = sink->write(&t, out);
    qb_table_free(&t);
    return st == QB_OK ? qb_str_status(out) : st;
}

qb_status qb_results_print(const qb_results *r, const char *format, qb_str *out) {
    qb_rows rows;
    qb_status st = qb_rows_read(&r, 1, &rows);
    if (st == QB_OK) st = qb_rows_print(&rows, format, out);
    qb_rows_free(&rows);
    return st;
}

/* ---- what several sinks share ---- */

/* The character at `p` of valid UTF-8, and its bytes. */
static unsigned decode(const unsigned char *p, size_t *n) {
    unsigned c = *p;
    *n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (*n == 1) return c;
    c &= 0xffu >> (*n + 1);
    for (size_t i = 1; i < *n && (p[i] & 0xc0) == 0x80; i++) c = c << 6 | (p[i] & 0x3fu);
    return c;
}

void qb_html_text(const char *text, qb_str *out) {
    qb_str clean = {0};
    qb_text_clean(text, 0, &clean); /* what follows takes it for valid UTF-8 */
    const unsigned char *p = (const unsigned char *)qb_str_get(&clean);
    for (size_t n; *p; p += n) {
        unsigned c = decode(p, &n);
        const char *entity = c == '&'    ? "&amp;"
                             : c == '<'  ? "&lt;"
                             : c == '>'  ? "&gt;"
                             : c == '"'  ? "&quot;"
                             : c == '\'' ? "&#39;"
                                         : NULL;
        if (entity)
            qb_str_text(out, entity);
        else if (c >= 0x80)
            qb_str_printf(out, "&#%u;", c);
        else
            qb_str_append(out, p, 1);
    }
    out->failed |= clean.failed;
    qb_str_free(&clean);
}

void qb_latex_text(const char *text, qb_str *out) {
    static const struct {
        const char *from, *to;
    } rows[] = {{"\\", "\\textbackslash{}"},
                {"{", "\\{"},
                {"}", "\\}"},
                {"&", "\\&"},
                {"%", "\\%"},
                {"$", "\\$"},
                {"#", "\\#"},
                {"_", "\\_"},
                {"~", "\\textasciitilde{}"},
                {"^", "\\textasciicircum{}"},
                {"±", "$\\pm$"},
                {"–", "--"},
                {"…", "\\ldots{}"},
                {"·", "$\\cdot$"}};
    while (*text) {
        size_t i = 0, n = sizeof rows / sizeof rows[0];
        while (i < n && strncmp(text, rows[i].from, strlen(rows[i].from)) != 0) i++;
        qb_str_append(out, i < n ? rows[i].to : text, i < n ? strlen(rows[i].to) : 1);
        text += i < n ? strlen(rows[i].from) : 1;
    }
}

void qb_markdown_text(const char *text, qb_str *out) {
    for (; *text; text++) {
        if (strchr("|\\`*_<>[]", *text)) qb_str_text(out, "\\");
        qb_str_append(out, text, 1);
    }
}

void qb_csv_text(const char *text, qb_str *out) {
    qb_str clean = {0};
    qb_text_clean(text, 0, &clean); /* a terminal may be what shows it */
    const char *p = qb_str_get(&clean);
    /* A spreadsheet takes what begins like this for a formula. */
    bool formula = *p && strchr("=+-@", *p), quoted = formula || p[strcspn(p, ",\"")];
    if (quoted) qb_str_text(out, formula ? "\"'" : "\"");
    for (; *p; p++) {
        if (*p == '"') qb_str_text(out, "\"");
        qb_str_append(out, p, 1);
    }
    if (quoted) qb_str_text(out, "\"");
    out->failed |= clean.failed;
    qb_str_free(&clean);
}

void qb_number_text(double value, qb_str *out) {
    char text[40];
    if (isnan(value)) return;
    if (fabs(value) < 1e15 && value == floor(value)) {
        qb_str_printf(out, "%.0f", value);
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    qb_str_text(out, text);
}
