/* For papers: booktabs' rules, notes below in small type. */
#include "results/sink.h"
#include "results/text.h"

static void put_headers(const qb_table *t, qb_str *out) {
    for (int line = 0; line < QB_HEADER_LINES; line++) {
        bool any = false;
        for (int i = 0; i < t->n_columns; i++) any |= *t->columns[i].header[line] != 0;
        if (!any) continue;
        for (int i = 0; i < t->n_columns; i++) {
            qb_str_text(out, i ? " & " : "  ");
            qb_latex_text(t->columns[i].header[line], out);
        }
        qb_str_text(out, " \\\\\n");
    }
}

static qb_status write_latex(const qb_table *t, qb_str *out) {
    qb_str_text(out, "% needs \\usepackage{booktabs}\n\\begin{tabular}{");
    for (int i = 0; i < t->n_columns; i++) qb_str_text(out, t->columns[i].right ? "r" : "l");
    qb_str_text(out, "}\n  \\toprule\n");
    put_headers(t, out);
    qb_str_text(out, "  \\midrule\n");
    for (int row = 0; row < t->rows->n_cases; row++) {
        for (int i = 0; i < t->n_columns; i++) {
            qb_str_text(out, i ? " & " : "  ");
            qb_latex_text(qb_table_at(t, row, i)->text, out);
        }
        qb_str_text(out, " \\\\\n");
    }
    qb_str_text(out, "  \\bottomrule\n\\end{tabular}\n\n{\\footnotesize ");
    qb_latex_text(t->title, out);
    for (int row = 0; row < t->rows->n_cases; row++) {
        const qb_row_case *c = &t->rows->cases[row];
        qb_str reason = {0};
        if (c->status == QB_ROW_OK) continue;
        qb_text_clean(c->error, 150, &reason);
        qb_str_text(out, "\\\\\n");
        qb_latex_text(c->label, out);
        qb_str_text(out, c->status == QB_ROW_SKIPPED ? " skipped: " : " failed: ");
        qb_latex_text(qb_str_get(&reason), out);
        qb_str_free(&reason);
    }
    for (int i = 0; i < t->n_notes; i++) {
        qb_str_text(out, "\\\\\n");
        qb_latex_text(t->notes[i], out);
    }
    qb_str_text(out, "\\par}\n");
    return qb_str_status(out);
}

const qb_sink qb_sink_latex = {"latex", ".tex", "a tabular with booktabs' rules", write_latex};
