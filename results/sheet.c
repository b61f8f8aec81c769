#include "results/sheet.h"

#include "base/memory.h"
#include "base/text.h"

#include <string.h>

enum { MAX_COLUMNS = 64 };

typedef struct {
    const char *keys[MAX_COLUMNS];
    bool numbers[MAX_COLUMNS]; /* every cell that is there is one */
    int n;
} columns;

/* How a format writes what it is made of. */
typedef struct {
    const char *name, *begin, *end;
    const char *before, *between, *after;                /* of a row */
    const char *head_before, *head_between, *head_after; /* of the row of names */
    void (*escape)(const char *text, qb_str *out);
} form;

static const form forms[] = {
    {"markdown", "", "", "| ", " | ", " |\n", "| ", " | ", " |\n", qb_markdown_text},
    {"csv", "", "", "", ",", "\r\n", "", ",", "\r\n", qb_csv_text},
    {"latex", "% needs \\usepackage{booktabs}\n\\begin{tabular}{", "  \\bottomrule\n\\end{tabular}\n", "  ",
     " & ", " \\\\\n", "  \\toprule\n  ", " & ", " \\\\\n  \\midrule\n", qb_latex_text},
    {"html", "<table class=\"qb\">\n", "</tbody>\n</table>\n", "<tr><td>", "</td><td>", "</td></tr>\n",
     "<thead><tr><th scope=\"col\">", "</th><th scope=\"col\">", "</th></tr></thead>\n<tbody>\n",
     qb_html_text},
};

static const form *form_of(const char *format) {
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (!strcmp(forms[i].name, format)) return &forms[i];
    return NULL;
}

static int find(columns *c, const char *key) {
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->keys[i], key)) return i;
    if (c->n == MAX_COLUMNS) return -1;
    c->keys[c->n] = key;
    c->numbers[c->n] = true;
    return c->n++;
}

static qb_status find_all(const qb_json *array, columns *c) {
    *c = (columns){.n = 0};
    for (const qb_json *row = qb_json_first(array); row; row = qb_json_next(row))
        for (const qb_json *cell = qb_json_first(row); cell; cell = qb_json_next(cell)) {
            if (qb_json_is_array(cell) || qb_json_is_object(cell)) continue;
            int i = find(c, qb_json_key(cell));
            if (i < 0) return qb_fail(QB_ERR_INTERNAL, "a table of more than %d columns", MAX_COLUMNS);
            if (!qb_json_is_number(cell) && !qb_json_is_null(cell)) c->numbers[i] = false;
        }
    return QB_OK;
}

static void put_cell(const form *f, const qb_json *cell, qb_str *out) {
    qb_str text = {0};
    if (qb_json_is_string(cell))
        qb_text_clean(qb_json_string(cell), 0, &text);
    else if (qb_json_is_number(cell))
        qb_number_text(qb_json_number(cell), &text);
    else if (!qb_json_is_null(cell))
        qb_str_text(&text, qb_json_true(cell) ? "true" : "false");
    if (qb_json_is_number(cell)) /* as it is: a minus sign is no formula */
        qb_str_text(out, qb_str_get(&text));
    else
        f->escape(qb_str_get(&text), out);
    out->failed |= text.failed;
    qb_str_free(&text);
}

static void put_name(const form *f, const char *key, qb_str *out) {
    qb_str name = {0};
    for (const char *p = key; *p; p++) qb_str_append(&name, *p == '_' ? " " : p, 1);
    f->escape(qb_str_get(&name), out);
    out->failed |= name.failed;
    qb_str_free(&name);
}

static void put_head(const form *f, const columns *c, qb_str *out) {
    qb_str_text(out, f->begin);
    if (!strcmp(f->name, "latex")) {
        for (int i = 0; i < c->n; i++) qb_str_text(out, c->numbers[i] ? "r" : "l");
        qb_str_text(out, "}\n");
    }
    qb_str_text(out, f->head_before);
    for (int i = 0; i < c->n; i++) {
        if (i) qb_str_text(out, f->head_between);
        put_name(f, c->keys[i], out);
    }
    qb_str_text(out, f->head_after);
    if (strcmp(f->name, "markdown") != 0) return;
    qb_str_text(out, "|");
    for (int i = 0; i < c->n; i++) qb_str_text(out, c->numbers[i] ? "---:|" : "---|");
    qb_str_text(out, "\n");
}

qb_status qb_sheet_print(const qb_json *array, const char *format, qb_str *out) {
    const form *f = form_of(format);
    columns c;
    char *text = NULL;
    if (!strcmp(format, "json")) {
        qb_status st = qb_json_print(array, true, &text);
        if (st == QB_OK) qb_str_text(out, text);
        qb_free(text);
        return st == QB_OK ? qb_str_status(out) : st;
    }
    if (!f) return qb_fail(QB_ERR_USAGE, "no format '%.40s'; there are " QB_SINK_CHOICES, format);
    qb_status st = find_all(array, &c);
    if (st != QB_OK) return st;
    put_head(f, &c, out);
    for (const qb_json *row = qb_json_first(array); row; row = qb_json_next(row)) {
        qb_str_text(out, f->before);
        for (int i = 0; i < c.n; i++) {
            if (i) qb_str_text(out, f->between);
            put_cell(f, qb_json_get(row, c.keys[i]), out);
        }
        qb_str_text(out, f->after);
    }
    qb_str_text(out, f->end);
    return qb_str_status(out);
}
