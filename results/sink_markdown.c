#include "results/sink.h"
#include "results/text.h"

#include <string.h>

static void put_escaped_clean(const char *text, qb_str *out) {
    qb_str s = {0};
    qb_text_clean(text, QB_REASON_COLUMNS, &s);
    qb_markdown_text(qb_str_get(&s), out);
    qb_str_free(&s);
}

static void put_header(const qb_table_column *c, qb_str *out) {
    for (int line = 0, put = 0; line < QB_HEADER_LINES; line++) {
        if (!*c->header[line]) continue;
        if (put++) qb_str_text(out, line == 1 && !c->protocol ? " " : "<br>");
        qb_markdown_text(c->header[line], out);
    }
}

static qb_status write_markdown(const qb_table *t, qb_str *out) {
    for (int i = 0; i < t->n_columns; i++) {
        qb_str_text(out, i ? " " : "| ");
        put_header(&t->columns[i], out);
        qb_str_text(out, " |");
    }
    qb_str_text(out, "\n|");
    for (int i = 0; i < t->n_columns; i++) qb_str_text(out, t->columns[i].right ? "---:|" : "---|");
    qb_str_text(out, "\n");
    for (int row = 0; row < t->rows->n_cases; row++) {
        for (int i = 0; i < t->n_columns; i++) {
            qb_str_text(out, i ? " " : "| ");
            qb_markdown_text(qb_table_at(t, row, i)->text, out);
            qb_str_text(out, " |");
        }
        qb_str_text(out, "\n");
    }
    qb_str_printf(out, "\n%s\n", t->title);
    bool below = false;
    for (int row = 0; row < t->rows->n_cases; row++) {
        const qb_row_case *c = &t->rows->cases[row];
        if (c->status == QB_ROW_OK) continue;
        qb_str_text(out, below ? "- " : "\n- ");
        below = true;
        qb_markdown_text(c->label, out);
        qb_str_text(out, c->status == QB_ROW_SKIPPED ? " skipped: " : " failed: ");
        put_escaped_clean(c->error, out);
        qb_str_text(out, "\n");
    }
    for (int i = 0; i < t->n_notes; i++) qb_str_printf(out, below || i ? "- %s\n" : "\n- %s\n", t->notes[i]);
    return qb_str_status(out);
}

const qb_sink qb_sink_markdown = {"markdown", ".md", "a table for GitHub and model cards", write_markdown};
