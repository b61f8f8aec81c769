/* A table element whose cells carry their numbers (data-value), for pages that sort it, and its notes. */
#include "results/sink.h"
#include "results/text.h"

static void put_head(const qb_table *t, qb_str *out) {
    qb_str_text(out, "<thead><tr>");
    for (int i = 0; i < t->n_columns; i++) {
        const qb_table_column *c = &t->columns[i];
        qb_str_printf(out, "<th scope=\"col\"%s>", c->right ? " class=\"n\"" : "");
        for (int line = 0, put = 0; line < QB_HEADER_LINES; line++) {
            if (!*c->header[line]) continue;
            if (put++) qb_str_text(out, "<br>");
            qb_html_text(c->header[line], out);
        }
        qb_str_text(out, "</th>");
    }
    qb_str_text(out, "</tr></thead>\n");
}

static void put_cell(const qb_table_column *c, const qb_table_cell *cell, qb_str *out) {
    bool head = c->kind == QB_COLUMN_LABEL;
    qb_str_text(out, head ? "<th scope=\"row\"" : "<td");
    if (c->right) qb_str_printf(out, " class=\"n%s\"", cell->noisy ? " noisy" : "");
    if (c->metric) {
        qb_str_text(out, " data-value=\"");
        qb_number_text(cell->value, out);
        qb_str_text(out, "\"");
    }
    qb_str_text(out, ">");
    qb_html_text(cell->text, out);
    qb_str_text(out, head ? "</th>" : "</td>");
}

static qb_status write_html(const qb_table *t, qb_str *out) {
    static const char *const status[] = {"ok", "skipped", "failed"};
    qb_str_text(out, "<table class=\"qb\">\n<caption>");
    qb_html_text(t->title, out);
    qb_str_text(out, "</caption>\n");
    put_head(t, out);
    qb_str_text(out, "<tbody>\n");
    for (int row = 0; row < t->rows->n_cases; row++) {
        const qb_row_case *c = &t->rows->cases[row];
        qb_str_printf(out, "<tr class=\"%s\" data-case=\"", status[c->status]);
        qb_html_text(c->label, out);
        qb_str_text(out, "\" data-series=\"");
        qb_html_text(c->series, out);
        qb_str_text(out, "\"");
        if (c->status != QB_ROW_OK) {
            qb_str_text(out, " title=\"");
            qb_html_text(c->error, out);
            qb_str_text(out, "\"");
        }
        qb_str_text(out, ">");
        for (int i = 0; i < t->n_columns; i++) put_cell(&t->columns[i], qb_table_at(t, row, i), out);
        qb_str_text(out, "</tr>\n");
    }
    qb_str_text(out, "</tbody>\n</table>\n");
    bool list = t->n_notes > 0;
    for (int row = 0; row < t->rows->n_cases; row++) list |= t->rows->cases[row].status != QB_ROW_OK;
    if (!list) return qb_str_status(out);
    qb_str_text(out, "<ul class=\"notes\">\n");
    for (int row = 0; row < t->rows->n_cases; row++) {
        const qb_row_case *c = &t->rows->cases[row];
        if (c->status == QB_ROW_OK) continue;
        qb_str_text(out, "<li>");
        qb_html_text(c->label, out);
        qb_str_printf(out, " %s: ", status[c->status]);
        qb_html_text(c->error, out);
        qb_str_text(out, "</li>\n");
    }
    for (int i = 0; i < t->n_notes; i++) {
        qb_str_text(out, "<li>");
        qb_html_text(t->notes[i], out);
        qb_str_text(out, "</li>\n");
    }
    qb_str_text(out, "</ul>\n");
    return qb_str_status(out);
}

const qb_sink qb_sink_html = {"html", ".html", "a table element with its notes, to stand in a page",
                              write_html};
