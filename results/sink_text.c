/* Aligned columns for terminals. */
#include "results/sink.h"
#include "results/text.h"

#include <string.h>

enum { GAP = 3, MAX_COLUMNS = 64 };

typedef struct layout {
    const qb_table *t;
    int widths[MAX_COLUMNS], behind[MAX_COLUMNS]; /* characters from the widest "±" of a column on */
} layout;

static bool has_errors(const qb_table_column *c) {
    return c->metric && c->protocol;
}

/* "±" lines up when every cell of the column has as many characters behind it. */
static int padding(const layout *l, int column, const char *text) {
    const char *sign = strstr(text, "±");
    if (!has_errors(&l->t->columns[column]) || !l->behind[column]) return 0;
    /* A word, not a number, stays at the edge. */
    if (!sign && (*text < '0' || *text > '9') && *text != '~') return 0;
    return sign ? l->behind[column] - qb_text_columns(sign) : l->behind[column] + 1;
}

static void measure(layout *l) {
    const qb_table *t = l->t;
    for (int i = 0; i < t->n_columns; i++) {
        for (int row = 0; row < t->rows->n_cases; row++) {
            const char *sign = strstr(qb_table_at(t, row, i)->text, "±");
            int n = sign ? qb_text_columns(sign) : 0;
            if (n > l->behind[i]) l->behind[i] = n;
        }
        for (int line = 0; line < QB_HEADER_LINES; line++) {
            int n = qb_text_columns(t->columns[i].header[line]);
            if (n > l->widths[i]) l->widths[i] = n;
        }
        for (int row = 0; row < t->rows->n_cases; row++) {
            const char *text = qb_table_at(t, row, i)->text;
            int n = qb_text_columns(text) + padding(l, i, text);
            if (n > l->widths[i]) l->widths[i] = n;
        }
    }
}

/* Trailing blanks of a left-aligned last column are noise in files and diffs. */
static void end_line(qb_str *out) {
    while (!out->failed && out->length && out->text[out->length - 1] == ' ') out->length--;
    qb_str_text(out, "\n");
}

static void put_rule(const layout *l, qb_str *out) {
    for (int i = 0; i < l->t->n_columns; i++)
        for (int k = 0; k < l->widths[i] + (i ? GAP : 0); k++) qb_str_text(out, "─");
    qb_str_text(out, "\n");
}

static void put_header(const layout *l, qb_str *out) {
    for (int line = 0; line < QB_HEADER_LINES; line++) {
        for (int i = 0; i < l->t->n_columns; i++) {
            if (i) qb_text_pad("", GAP, false, out);
            qb_text_pad(l->t->columns[i].header[line], l->widths[i], l->t->columns[i].right, out);
        }
        end_line(out);
    }
}

static void put_row(const layout *l, int row, qb_str *out) {
    for (int i = 0; i < l->t->n_columns; i++) {
        const char *text = qb_table_at(l->t, row, i)->text;
        int behind = padding(l, i, text);
        if (i) qb_text_pad("", GAP, false, out);
        qb_text_pad(text, l->widths[i] - behind, l->t->columns[i].right, out);
        qb_text_pad("", behind, false, out);
    }
    end_line(out);
}

static qb_status write_text(const qb_table *t, qb_str *out) {
    layout l = {.t = t};
    measure(&l);
    qb_str_printf(out, "%s\n\n", t->title);
    put_header(&l, out);
    put_rule(&l, out);
    for (int row = 0; row < t->rows->n_cases; row++) {
        const qb_row_case *c = &t->rows->cases[row];
        put_row(&l, row, out);
        if (c->status == QB_ROW_OK) continue;
        qb_str_text(out, "  └ ");
        qb_text_clean(c->error, QB_REASON_COLUMNS, out);
        qb_str_text(out, "\n");
    }
    put_rule(&l, out);
    for (int i = 0; i < t->n_notes; i++) qb_str_printf(out, "%s\n", t->notes[i]);
    return qb_str_status(out);
}

const qb_sink qb_sink_text = {"text", ".txt", "aligned columns", write_text};
