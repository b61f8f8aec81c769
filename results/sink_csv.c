/* The table's columns with whole numbers in base units, a column of its own for each standard error. */
#include "results/sink.h"

static void put_name(const qb_table_column *c, const char *what, qb_str *out) {
    qb_str name = {0};
    qb_str_text(&name, c->metric->name);
    if (c->dataset) qb_str_printf(&name, " %s", c->dataset);
    if (c->protocol) qb_str_printf(&name, " %s", c->protocol);
    qb_str_printf(&name, "%s (%s)", what, c->metric->unit);
    qb_csv_text(qb_str_get(&name), out);
    out->failed |= name.failed;
    qb_str_free(&name);
}

static void put_words(const qb_row_case *c, qb_str *out) {
    static const char *const status[] = {"ok", "skipped", "failed"};
    const char *words[] = {c->document->name,
                           c->id,
                           c->model,
                           c->name,
                           c->method,
                           c->device ? c->device->description : "",
                           c->projected_on ? c->projected_on : "",
                           status[c->status]};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        qb_csv_text(words[i], out);
        qb_str_text(out, ",");
    }
    qb_csv_text(c->error, out);
}

static qb_status write_csv(const qb_table *t, qb_str *out) {
    qb_str_text(out, "result,case,model,label,method,device,projected on,status,reason");
    for (int i = 0; i < t->n_columns; i++) {
        if (!t->columns[i].metric) continue;
        qb_str_text(out, ",");
        put_name(&t->columns[i], "", out);
        if (!t->columns[i].protocol) continue;
        qb_str_text(out, ",");
        put_name(&t->columns[i], " stderr", out);
    }
    qb_str_text(out, "\r\n");
    for (int row = 0; row < t->rows->n_cases; row++) {
        put_words(&t->rows->cases[row], out);
        for (int i = 0; i < t->n_columns; i++) {
            const qb_table_cell *cell = qb_table_at(t, row, i);
            if (!t->columns[i].metric) continue;
            qb_str_text(out, ",");
            qb_number_text(cell->value, out);
            if (!t->columns[i].protocol) continue;
            qb_str_text(out, ",");
            qb_number_text(cell->error, out);
        }
        qb_str_text(out, "\r\n");
    }
    return qb_str_status(out);
}

const qb_sink qb_sink_csv = {"csv", ".csv", "the table's columns with full numbers (RFC 4180)", write_csv};
