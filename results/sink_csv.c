/* The table's columns with whole numbers in base units, a column of its own for each standard error, and for
   each speed one that says whether it stayed noisy. */
#include "results/sink.h"

#include <math.h>

static bool is_speed(const qb_table_column *c) {
    return c->metric->format == QB_FORMAT_SPEED;
}

static void put_name(const qb_table_column *c, const char *what, const char *unit, qb_str *out) {
    qb_str name = {0};
    qb_str_text(&name, c->metric->name);
    if (c->dataset) qb_str_printf(&name, " %s", c->dataset);
    if (c->protocol) qb_str_printf(&name, " %s", c->protocol);
    qb_str_printf(&name, "%s (%s)", what, unit);
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
        const char *unit = t->columns[i].metric->unit;
        put_name(&t->columns[i], "", unit, out);
        if (!t->columns[i].protocol) continue;
        qb_str_text(out, ",");
        put_name(&t->columns[i], " stderr", unit, out);
        if (!is_speed(&t->columns[i])) continue;
        qb_str_text(out, ",");
        put_name(&t->columns[i], " noisy", "0 or 1", out);
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
            if (!is_speed(&t->columns[i])) continue;
            qb_str_text(out, ",");
            if (!isnan(cell->value)) qb_str_text(out, cell->noisy ? "1" : "0");
        }
        qb_str_text(out, "\r\n");
    }
    return qb_str_status(out);
}

const qb_sink qb_sink_csv = {"csv", ".csv", "the table's columns with full numbers (RFC 4180)", write_csv};
