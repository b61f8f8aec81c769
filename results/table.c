#include "results/table.h"

#include "results/text.h"

#include <math.h>
#include <string.h>

enum { MAX_COLUMNS = 28, MAX_TEXTS = 10, HEADER_CHARS = 24 };

static qb_status keep(qb_table *t, qb_str *text, const char **out) {
    qb_status st = qb_str_status(text);
    if (st == QB_OK) st = qb_arena_strdup(&t->arena, qb_str_get(text), out);
    qb_str_free(text);
    return st;
}

static qb_status clean(qb_table *t, const char *text, int columns, const char **out) {
    qb_str s = {0};
    qb_text_clean(text, columns, &s);
    return keep(t, &s, out);
}

double qb_case_figure(const qb_row_case *c, const char *metric) {
    const struct {
        const char *name;
        double value;
    } fields[] = {{"bits_per_weight", c->bits_per_weight},   {"checkpoint_bytes", c->checkpoint_bytes},
                  {"peak_rss_bytes", c->peak_rss_bytes},     {"device_memory_bytes", c->device_bytes},
                  {"quantize_seconds", c->quantize_seconds}, {NULL, 0}};
    for (int i = 0; fields[i].name; i++)
        if (!strcmp(fields[i].name, metric)) return fields[i].value;
    return qb_rows_value(c, metric);
}

/* ---- columns ---- */

static qb_table_column *add_column(qb_table *t, qb_column_kind kind, const char *what) {
    if (t->n_columns == MAX_COLUMNS) return NULL;
    qb_table_column *c = &t->columns[t->n_columns++];
    *c = (qb_table_column){.kind = kind, .unit = 1, .header = {what, "", ""}};
    return c;
}

/* "bits per|weight" in two lines. */
static qb_status put_heading(qb_table *t, const qb_metric *m, qb_table_column *c) {
    const char *bar = strchr(m->heading, '|');
    qb_str first = {0};
    qb_str_append(&first, m->heading, bar ? (size_t)(bar - m->heading) : strlen(m->heading));
    c->header[1] = bar ? bar + 1 : "";
    return keep(t, &first, &c->header[0]);
}

static bool has_column(const qb_table *t, const qb_row *r) {
    for (int i = 0; i < t->n_columns; i++)
        if (t->columns[i].metric == r->metric && !strcmp(t->columns[i].protocol, r->protocol) &&
            !strcmp(t->columns[i].dataset, r->dataset))
            return true;
    return false;
}

/* One column for each pair of dataset and protocol, in the documents' order. */
static qb_status add_texts(qb_table *t, const qb_metric *m) {
    qb_status st = QB_OK;
    int n = 0;
    for (int i = 0; i < t->rows->n_rows && st == QB_OK; i++) {
        const qb_row *r = &t->rows->rows[i];
        if (r->metric != m || has_column(t, r)) continue;
        qb_table_column *c = n++ < MAX_TEXTS ? add_column(t, QB_COLUMN_METRIC, m->heading) : NULL;
        if (!c) break;
        c->metric = m;
        c->protocol = r->protocol;
        c->dataset = r->dataset;
        c->right = true;
        st = clean(t, r->dataset, HEADER_CHARS, &c->header[1]);
        if (st == QB_OK) st = clean(t, r->protocol, HEADER_CHARS, &c->header[2]);
    }
    return st;
}

static qb_status add_speed(qb_table *t, const qb_metric *m) {
    const char *protocol = qb_rows_headline(t->rows, m->name);
    qb_table_column *c = protocol ? add_column(t, QB_COLUMN_METRIC, m->heading) : NULL;
    if (!c) return QB_OK;
    c->metric = m;
    c->protocol = protocol;
    c->right = true;
    c->header[2] = "tok/s ± sd";
    return clean(t, protocol, HEADER_CHARS, &c->header[1]);
}

static qb_status add_figure(qb_table *t, const qb_metric *m) {
    double max = 0;
    for (int i = 0; i < t->rows->n_cases; i++) max = fmax(max, qb_case_figure(&t->rows->cases[i], m->name));
    qb_table_column *c = max > 0 ? add_column(t, QB_COLUMN_METRIC, m->heading) : NULL;
    if (!c) return QB_OK;
    c->metric = m;
    c->right = true;
    c->header[2] = m->unit;
    if (m->format == QB_FORMAT_BYTES) {
        c->unit = max >= 10e9 ? 1e9 : 1e6;
        c->header[2] = max >= 10e9 ? "GB" : "MB";
    }
    return put_heading(t, m, c);
}

static qb_status make_columns(qb_table *t) {
    const qb_rows *rows = t->rows;
    bool several = false, all_ok = true;
    qb_status st;
    QB_TRY(st, qb_arena_alloc(&t->arena, MAX_COLUMNS, sizeof *t->columns, &t->columns));
    for (int i = 0; i < rows->n_cases; i++) {
        several |= strcmp(rows->cases[0].model, rows->cases[i].model) != 0;
        all_ok &= rows->cases[i].status == QB_ROW_OK;
    }
    if (rows->n_documents > 1) add_column(t, QB_COLUMN_RESULT, "result");
    if (several) add_column(t, QB_COLUMN_MODEL, "model");
    add_column(t, QB_COLUMN_LABEL, "method");
    for (size_t i = 0; qb_metric_at(i); i++) {
        const qb_metric *m = qb_metric_at(i);
        if (!m->heading) continue;
        QB_TRY(st, m->needs & QB_METRIC_WINDOWS   ? add_texts(t, m)
                   : m->format == QB_FORMAT_SPEED ? add_speed(t, m)
                                                  : add_figure(t, m));
    }
    if (!all_ok) add_column(t, QB_COLUMN_STATUS, "status");
out:
    return st;
}

/* ---- cells ---- */

int qb_decimals_of(double value) {
    double size = fabs(value);
    return size >= 1e4 ? 0 : size >= 1000 ? 1 : size >= 100 ? 2 : size >= 10 ? 3 : 4;
}

/* No cell is wider than some letters, whatever the document says. */
static void put_fixed(double value, int decimals, int significant, qb_str *out) {
    if (fabs(value) >= 1e7)
        qb_str_printf(out, "%.*e", significant - 1, value);
    else
        qb_str_printf(out, "%.*f", decimals, value);
}

/* A value with its standard error, in as many digits. */
static void put_estimate(double value, double error, int decimals, qb_str *out) {
    put_fixed(value, decimals, 3, out);
    if (isnan(error)) return;
    qb_str_text(out, " ± ");
    put_fixed(error, decimals > 2 ? decimals - 1 : decimals, 1, out);
}

/* "605.5 ± 3 %", the samples' deviation; "!" where it is too wide to compare with. */
static void put_speed(const qb_row *r, qb_str *out) {
    double spread = qb_row_spread(r);
    put_fixed(r->value, r->value >= 1000 ? 0 : r->value >= 100 ? 1 : 2, 4, out);
    if (!isfinite(spread)) return;
    qb_str_text(out, " ± ");
    put_fixed(100 * spread, spread < 0.01 ? 1 : 0, 1, out);
    qb_str_text(out, qb_row_is_noisy(r) ? " %!" : " %");
}

static void put_amount(double value, qb_str *out) {
    if (value > 0 && value < 0.01)
        qb_str_printf(out, "%.1g", value);
    else if (!isnan(value))
        put_fixed(value, value >= 100 ? 0 : value >= 10 ? 1 : 2, 3, out);
}

void qb_figure_put(const qb_row *r, qb_str *out) {
    qb_metric_format format = r->metric ? r->metric->format : QB_FORMAT_PLAIN;
    if (format == QB_FORMAT_PERPLEXITY) /* Divergences are small: their digits are those of their size. */
        put_estimate(r->value, r->stderr_value, r->value > 0 && r->value < 0.1 ? 5 : qb_decimals_of(r->value),
                     out);
    else if (format == QB_FORMAT_SPEED)
        put_speed(r, out);
    else if (format == QB_FORMAT_BITS)
        put_fixed(r->value, 2, 3, out);
    else {
        qb_text_figure(r->value, 4, out);
        qb_str_printf(out, " %s", r->unit);
    }
}

static void put_row_cell(const qb_table_column *col, const qb_row_case *c, qb_table_cell *cell, qb_str *out) {
    const qb_row *r = qb_rows_find(c, col->metric->name, col->protocol, col->dataset);
    bool speed = col->metric->format == QB_FORMAT_SPEED;
    if (!r) return;
    if (r->status != QB_ROW_OK || isnan(r->value)) {
        if (!speed) qb_str_text(out, r->status == QB_ROW_SKIPPED ? "skipped" : "failed");
        return;
    }
    cell->value = r->value;
    cell->error = r->stderr_value;
    cell->noisy = speed && qb_row_is_noisy(r);
    cell->projected = speed && c->projected_on;
    if (cell->projected) qb_str_text(out, "~"); /* no measurement: it must not look like one */
    qb_figure_put(r, out);
}

static void put_figure_cell(const qb_table_column *col, const qb_row_case *c, qb_table_cell *cell,
                            qb_str *out) {
    /* Sizes and the memory of the host are measured ones, whatever the device. */
    static const char *const of_device[] = {"device_memory_bytes", "quantize_seconds"};
    cell->value = qb_case_figure(c, col->metric->name);
    if (isnan(cell->value)) return;
    for (int i = 0; i < 2; i++)
        cell->projected |= c->projected_on && !strcmp(col->metric->name, of_device[i]);
    if (cell->projected) qb_str_text(out, "~");
    if (col->metric->format == QB_FORMAT_BITS)
        put_fixed(cell->value, 2, 3, out);
    else
        put_amount(cell->value / col->unit, out);
}

static const char *status_word(qb_row_status status) {
    return status == QB_ROW_OK ? "ok" : status == QB_ROW_SKIPPED ? "skipped" : "failed";
}

static void put_cell(const qb_table *t, const qb_table_column *col, const qb_row_case *c, qb_table_cell *cell,
                     qb_str *out) {
    *cell = (qb_table_cell){.value = (double)NAN, .error = (double)NAN};
    switch (col->kind) {
    case QB_COLUMN_RESULT:
        qb_str_text(out, c->document->name);
        break;
    case QB_COLUMN_MODEL:
        qb_text_clean(c->model, 32, out);
        break;
    case QB_COLUMN_LABEL:
        qb_str_text(out, t->rows->n_documents > 1 ? c->name : c->label);
        break;
    case QB_COLUMN_METRIC:
        if (col->protocol)
            put_row_cell(col, c, cell, out);
        else
            put_figure_cell(col, c, cell, out);
        break;
    case QB_COLUMN_STATUS:
        qb_str_text(out, status_word(c->status));
        break;
    }
    if (out->length == 0) qb_str_text(out, "–");
}

static qb_status make_cells(qb_table *t) {
    int n = t->rows->n_cases;
    qb_status st = qb_arena_alloc(&t->arena, (size_t)n * (size_t)t->n_columns, sizeof *t->cells, &t->cells);
    for (int row = 0; row < n && st == QB_OK; row++)
        for (int i = 0; i < t->n_columns && st == QB_OK; i++) {
            qb_table_cell *cell = &t->cells[row * t->n_columns + i];
            qb_str text = {0};
            put_cell(t, &t->columns[i], &t->rows->cases[row], cell, &text);
            st = keep(t, &text, &cell->text);
        }
    return st;
}

const qb_table_cell *qb_table_at(const qb_table *t, int row, int column) {
    return &t->cells[row * t->n_columns + column];
}

/* ---- the title ---- */

static void put_separated(qb_str *out, const char *text) {
    if (!text || !*text) return;
    if (out->length) qb_str_text(out, " · ");
    qb_text_clean(text, 240, out);
}

/* The devices that cases name, each description once; all that there are when none is named. */
static void put_devices(const qb_rows *rows, qb_str *out) {
    bool any = false;
    for (int i = 0; i < rows->n_cases; i++) any |= rows->cases[i].device != NULL;
    for (int d = 0; d < rows->n_devices; d++) {
        bool named = !any, seen = false;
        for (int i = 0; i < rows->n_cases && !named; i++) named = rows->cases[i].device == &rows->devices[d];
        for (int k = 0; k < d && !seen; k++)
            seen = !strcmp(rows->devices[k].description, rows->devices[d].description);
        if (named && !seen) put_separated(out, rows->devices[d].description);
    }
}

/* "wikimini-hf, 5.8 M parameters · AMD EPYC, 2 threads, avx512 · 2026-11-22T05:49:38Z" */
static qb_status make_title(qb_table *t) {
    const qb_rows *rows = t->rows;
    qb_str line = {0}, part = {0};
    bool models = false;
    for (int i = 0; i < t->n_columns; i++) models |= t->columns[i].kind == QB_COLUMN_MODEL;
    if (!models && rows->n_cases) {
        const qb_row_case *c = rows->cases;
        for (int i = 0; i + 1 < rows->n_cases && !*c->model; i++) c++;
        qb_str_text(&part, c->model);
        if (c->n_params >= 1e9)
            qb_str_printf(&part, ", %.2f G parameters", c->n_params / 1e9);
        else if (c->n_params > 0)
            qb_str_printf(&part, ", %.1f M parameters", c->n_params / 1e6);
        put_separated(&line, qb_str_get(&part));
        qb_str_free(&part);
    }
    put_devices(rows, &line);
    bool projection = false;
    for (int i = 0; i < rows->n_documents; i++) projection |= rows->documents[i].projection;
    if (projection) put_separated(&line, "projected");
    if (rows->n_documents == 1) put_separated(&line, rows->documents[0].created);
    return keep(t, &line, &t->title);
}

qb_status qb_table_make(const qb_rows *rows, qb_table *out) {
    qb_status st;
    *out = (qb_table){.rows = rows};
    QB_TRY(st, make_columns(out));
    QB_TRY(st, make_cells(out));
    QB_TRY(st, make_title(out));
    st = qb_table_take_notes(out);
out:
    return st;
}

void qb_table_free(qb_table *t) {
    qb_arena_free(&t->arena);
    *t = (qb_table){0};
}
