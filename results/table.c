/* The table that people read: one row a case, every unit in the header, the same cells for the terminal and
 * for Markdown. */
#include "base/memory.h"
#include "results/case.h"
#include "results/device.h"
#include "results/paired.h"
#include "results/published.h"
#include "results/text.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MAX_COLUMNS = 24, MAX_PERPLEXITIES = 10, HEADER_LINES = 3, MAX_REASON_COLUMNS = 150, GAP = 3 };

typedef enum { MODEL, LABEL, BITS, SIZE, PERPLEXITY, SPEED, PEAK, DEVICE, SECONDS, STATUS } column_kind;

typedef struct column {
    column_kind kind;
    const char *metric, *protocol, *dataset; /* PERPLEXITY and SPEED; point into the document */
    double unit;                             /* cells are divided by it */
    const char *header[HEADER_LINES];        /* what, of what, unit */
    bool right;
} column;

typedef struct table {
    const qb_results *r;
    qb_rows rows;
    qb_arena arena;
    column columns[MAX_COLUMNS];
    int n_columns;
    int64_t n_rows;
    const char **labels;
    const char **cells; /* [n_rows][n_columns] */
} table;

static qb_status keep(table *t, qb_str *text, const char **out) {
    qb_status st = qb_str_status(text);
    if (st == QB_OK) st = qb_arena_strdup(&t->arena, qb_str_get(text), out);
    qb_str_free(text);
    return st;
}

static const qb_json *first_case(const table *t) {
    return qb_json_first(qb_json_get(t->r->doc, "cases"));
}

static double largest(const table *t, double (*figure)(const qb_json *)) {
    double max = 0;
    for (const qb_json *c = first_case(t); c; c = qb_json_next(c)) max = fmax(max, figure(c));
    return max;
}

/* ---- columns ---- */

static column *add_column(table *t, column_kind kind, const char *what, const char *of,
                          const char *unit_name) {
    if (t->n_columns == MAX_COLUMNS) return NULL;
    column *c = &t->columns[t->n_columns++];
    *c = (column){.kind = kind, .unit = 1, .header = {what, of, unit_name}, .right = true};
    return c;
}

static void add_bytes_column(table *t, column_kind kind, const char *what, const char *of, double max) {
    if (!(max > 0)) return;
    bool giga = max >= 10e9;
    column *c = add_column(t, kind, what, of, giga ? "GB" : "MB");
    if (c) c->unit = giga ? 1e9 : 1e6;
}

static bool has_column(const table *t, const char *protocol, const char *dataset) {
    for (int i = 0; i < t->n_columns; i++)
        if (t->columns[i].kind == PERPLEXITY && !strcmp(t->columns[i].protocol, protocol) &&
            !strcmp(t->columns[i].dataset, dataset))
            return true;
    return false;
}

static const char *text_of(const qb_json *object, const char *key) {
    const char *text = qb_json_string(qb_json_get(object, key));
    return text ? text : "";
}

static qb_status clean(table *t, const char *text, int columns, const char **out) {
    qb_str s = {0};
    qb_text_clean(text, columns, &s);
    return keep(t, &s, out);
}

/* One column for each pair of dataset and protocol, in the document's order. */
static qb_status add_perplexities(table *t) {
    int n = 0;
    for (const qb_json *c = first_case(t); c; c = qb_json_next(c))
        for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m; m = qb_json_next(m)) {
            const char *protocol = text_of(m, "protocol"), *dataset = text_of(m, "dataset");
            if (strcmp(text_of(m, "name"), "perplexity") != 0 || has_column(t, protocol, dataset)) continue;
            column *col = n++ < MAX_PERPLEXITIES ? add_column(t, PERPLEXITY, "perplexity", NULL, NULL) : NULL;
            if (!col) return QB_OK;
            col->protocol = protocol;
            col->dataset = dataset;
            qb_status st = clean(t, dataset, 24, &col->header[1]);
            if (st == QB_OK) st = clean(t, protocol, 24, &col->header[2]);
            if (st != QB_OK) return st;
        }
    return QB_OK;
}

static qb_status add_speed(table *t, const char *metric) {
    const char *protocol = qb_results_headline(t->r, metric);
    column *c = protocol ? add_column(t, SPEED, metric, NULL, "tok/s ± sd") : NULL;
    if (!c) return QB_OK;
    c->metric = metric;
    c->protocol = protocol;
    return clean(t, protocol, 24, &c->header[1]);
}

static qb_status make_columns(table *t) {
    qb_status st;
    const char *model = NULL;
    bool several = false, all_ok = true;
    for (const qb_json *c = first_case(t); c; c = qb_json_next(c)) {
        several |= model && strcmp(model, qb_case_model(c)) != 0;
        model = qb_case_model(c);
        all_ok &= qb_case_is_ok(c);
    }
    if (several) add_column(t, MODEL, "model", "", "")->right = false;
    add_column(t, LABEL, "method", "", "")->right = false;
    add_column(t, BITS, "bits per", "weight", "bit");
    add_bytes_column(t, SIZE, "model", "size", largest(t, qb_case_checkpoint_bytes));
    QB_TRY(st, add_perplexities(t));
    QB_TRY(st, add_speed(t, "decode"));
    QB_TRY(st, add_speed(t, "prefill"));
    add_bytes_column(t, PEAK, "peak", "memory", largest(t, qb_case_peak_rss_bytes));
    add_bytes_column(t, DEVICE, "device", "memory", largest(t, qb_case_device_bytes));
    if (largest(t, qb_case_quantize_seconds) > 0) add_column(t, SECONDS, "quantize", "time", "s");
    column *status = all_ok ? NULL : add_column(t, STATUS, "status", "", "");
    if (status) status->right = false;
out:
    return st;
}

/* ---- cells ---- */

/* Four or five significant digits, without an exponent as long as the number stays short. */
static int decimals_of(double value) {
    double size = fabs(value);
    return size >= 1e4 ? 0 : size >= 1000 ? 1 : size >= 100 ? 2 : size >= 10 ? 3 : 4;
}

static void put_perplexity(const qb_json *m, qb_str *out) {
    double value = qb_json_number(qb_json_get(m, "value")), error = qb_json_number(qb_json_get(m, "stderr"));
    int decimals = decimals_of(value);
    if (value >= 1e7)
        qb_str_printf(out, "%.2e", value);
    else
        qb_str_printf(out, "%.*f", decimals, value);
    if (isnan(error)) return;
    if (error >= 1e7)
        qb_str_printf(out, " ± %.0e", error);
    else
        qb_str_printf(out, " ± %.*f", decimals > 2 ? decimals - 1 : decimals, error);
}

/* "605.5 ± 3 %", the samples' deviation; "!" where it is too wide to compare with. */
static void put_speed(const qb_json *m, qb_str *out) {
    double value = qb_json_number(qb_json_get(m, "value")), spread = qb_metric_spread(m);
    qb_str_printf(out, "%.*f", value >= 1000 ? 0 : value >= 100 ? 1 : 2, value);
    if (isfinite(spread))
        qb_str_printf(out, spread < 0.01 ? " ± %.1f %%%s" : " ± %.0f %%%s", 100 * spread,
                      qb_metric_is_noisy(m) ? "!" : "");
}

static void put_amount(double value, qb_str *out) {
    if (value > 0 && value < 0.01)
        qb_str_printf(out, "%.1g", value);
    else if (!isnan(value))
        qb_str_printf(out, "%.*f", value >= 100 ? 0 : value >= 10 ? 1 : 2, value);
}

static void put_cell(const table *t, const column *col, const qb_json *c, const char *label, qb_str *out) {
    const qb_json *m;
    double value;
    const char *sign = qb_case_projected_device(c) ? "~" : ""; /* no measurement: it must not look like one */
    switch (col->kind) {
    case MODEL:
        qb_text_clean(qb_case_model(c), 32, out);
        break;
    case LABEL:
        qb_str_text(out, label);
        break;
    case BITS:
        value = qb_case_bits_per_weight(c);
        if (!isnan(value)) qb_str_printf(out, "%.2f", value);
        break;
    case SIZE:
        put_amount(qb_case_checkpoint_bytes(c) / col->unit, out);
        break;
    case PERPLEXITY:
        m = qb_results_metric(c, "perplexity", col->protocol, col->dataset);
        if (m && qb_metric_is_ok(m))
            put_perplexity(m, out);
        else if (m)
            qb_str_text(out, text_of(m, "status"));
        break;
    case SPEED:
        m = qb_results_metric(c, col->metric, col->protocol, NULL);
        if (!m || !qb_metric_is_ok(m)) break;
        qb_str_text(out, sign);
        put_speed(m, out);
        break;
    case PEAK:
        put_amount(qb_case_peak_rss_bytes(c) / col->unit, out);
        break;
    case DEVICE:
        value = qb_case_device_bytes(c) / col->unit;
        if (!isnan(value)) qb_str_text(out, sign);
        put_amount(value, out);
        break;
    case SECONDS:
        value = qb_case_quantize_seconds(c);
        if (!isnan(value)) qb_str_text(out, sign);
        put_amount(value, out);
        break;
    case STATUS:
        qb_str_text(out, text_of(c, "status"));
        break;
    }
    if (out->length == 0) qb_str_text(out, "–");
    (void)t;
}

static qb_status make_cells(table *t) {
    qb_status st = qb_case_labels(t->r, &t->arena, &t->labels, &t->n_rows);
    if (st != QB_OK) return st;
    st = qb_arena_alloc(&t->arena, (size_t)t->n_rows * (size_t)t->n_columns, sizeof *t->cells, &t->cells);
    int64_t row = 0;
    for (const qb_json *c = first_case(t); c && st == QB_OK; c = qb_json_next(c), row++)
        for (int i = 0; i < t->n_columns && st == QB_OK; i++) {
            qb_str text = {0};
            put_cell(t, &t->columns[i], c, t->labels[row], &text);
            st = keep(t, &text, &t->cells[row * t->n_columns + i]);
        }
    return st;
}

/* ---- what stands above and below ---- */

static void put_separated(qb_str *out, const char *text) {
    if (!text || !*text) return;
    if (out->length) qb_str_text(out, " · ");
    qb_text_clean(text, 240, out);
}

/* "wikimini-hf, 5.8 M parameters · AMD EPYC, 2 threads, avx512 · 2026-11-22T05:49:38Z" */
static void put_title(const table *t, qb_str *out) {
    const qb_json *context = qb_json_get(t->r->doc, "context");
    qb_str line = {0}, part = {0};
    if (t->columns[0].kind != MODEL && first_case(t)) {
        const qb_json *c = first_case(t);
        while (qb_json_next(c) && !*qb_case_model(c)) c = qb_json_next(c);
        double params = qb_json_number(qb_json_get(qb_json_get(c, "model"), "n_params"));
        qb_str_text(&part, qb_case_model(c));
        if (params >= 1e9)
            qb_str_printf(&part, ", %.2f G parameters", params / 1e9);
        else if (params > 0)
            qb_str_printf(&part, ", %.1f M parameters", params / 1e6);
        put_separated(&line, qb_str_get(&part));
        qb_str_free(&part);
    }
    qb_results_describe_devices(t->r, &part);
    put_separated(&line, qb_str_get(&part));
    if (!qb_json_is_null(qb_json_get(context, "projection"))) put_separated(&line, "projected");
    put_separated(&line, text_of(context, "created"));
    qb_str_text(out, qb_str_get(&line));
    qb_str_free(&part);
    qb_str_free(&line);
}

/* What the sign before a figure means, and each warning that the projected cases carry once. */
static void put_projection_note(const table *t, const char *prefix, qb_str *out) {
    const char *seen[8];
    int n = 0;
    bool any = false;
    for (const qb_json *c = first_case(t); c; c = qb_json_next(c)) {
        if (!qb_case_projected_device(c)) continue;
        if (!any)
            qb_str_printf(
                out,
                "%s~ projected, not measured: the device's datasheet times the share of its ceiling that the "
                "measured row reached; quality and sizes as measured\n",
                prefix);
        any = true;
        for (const qb_json *w = qb_json_first(qb_json_get(c, "warnings")); w && n < 8; w = qb_json_next(w)) {
            bool known = false;
            for (int i = 0; i < n; i++) known |= !strcmp(seen[i], qb_json_string(w));
            if (known) continue;
            seen[n++] = qb_json_string(w);
            qb_str_printf(out, "%s~ ", prefix);
            qb_text_clean(seen[n - 1], MAX_REASON_COLUMNS, out);
            qb_str_text(out, "\n");
        }
    }
}

static void put_unmeasured_note(const table *t, const char *prefix, qb_str *out) {
    int64_t n = qb_results_unmeasured(t->r);
    if (n)
        qb_str_printf(out, "%s%" PRId64 " planned case%s missing: the run ended before %s\n", prefix, n,
                      n == 1 ? " is" : "s are", n == 1 ? "it" : "them");
}

/* Rows whose samples differ too much, and what was going on beside the measurement. */
static void put_noise_notes(const table *t, const char *prefix, qb_str *out) {
    int noisy = 0;
    bool speeds = false;
    double least = (double)NAN, most = (double)NAN, widest = 0;
    for (int i = 0; i < t->n_columns; i++) {
        if (t->columns[i].kind != SPEED) continue;
        speeds = true;
        for (const qb_json *c = first_case(t); c; c = qb_json_next(c)) {
            const qb_json *m = qb_results_metric(c, t->columns[i].metric, t->columns[i].protocol, NULL);
            double spread = m && qb_metric_is_ok(m) ? qb_metric_spread(m) : 0;
            if (!m || !qb_metric_is_ok(m) || !qb_metric_is_noisy(m)) continue;
            noisy++;
            if (spread <= widest) continue;
            widest = spread;
            least = qb_json_number(qb_json_get(m, "min"));
            most = qb_json_number(qb_json_get(m, "max"));
        }
    }
    if (noisy) {
        qb_str_printf(out, "%s! stayed noisy: no speed to compare with", prefix);
        if (isfinite(least) && isfinite(most))
            qb_str_printf(out, " (the widest from %.0f to %.0f tok/s)", least, most);
        qb_str_text(out, "\n");
    }
    const qb_json *devices = qb_json_get(qb_json_get(t->r->doc, "context"), "devices");
    for (const qb_json *d = speeds ? qb_json_first(devices) : NULL; d; d = qb_json_next(d)) {
        double load = qb_json_number(qb_json_get(d, "load_average"));
        double cores = qb_json_number(qb_json_get(d, "cores"));
        if (!(load > cores / 2)) continue;
        qb_str_printf(out, "%sthe machine was busy when the run began: load average %.1f on %.0f core%s\n",
                      prefix, load, cores, cores == 1 ? "" : "s");
        break;
    }
}

/* A speed above what the device was measured to reach. */
static void put_share_notes(const table *t, const char *prefix, qb_str *out) {
    const char *seen[8];
    int n = 0;
    for (const qb_json *c = first_case(t); c; c = qb_json_next(c))
        for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m && n < 8; m = qb_json_next(m)) {
            const char *why = text_of(m, "share_reason");
            bool known = !*why;
            for (int i = 0; i < n; i++) known |= !strcmp(seen[i], why);
            if (known) continue;
            seen[n++] = why;
            qb_str_text(out, prefix);
            qb_text_clean(text_of(m, "name"), 40, out);
            qb_str_printf(out, " reaches %.0f %% of the ceiling: ",
                          100 * qb_json_number(qb_json_get(m, "share_of_ceiling")));
            qb_text_clean(why, MAX_REASON_COLUMNS, out);
            qb_str_text(out, "\n");
        }
}

/* Figures that were not computed with float32 activations alone: how many of each kind. */
static void put_activation_notes(const table *t, const char *prefix, qb_str *out) {
    const char *seen[4];
    int n = 0, rows[4] = {0};
    for (const qb_json *c = first_case(t); c; c = qb_json_next(c))
        for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m; m = qb_json_next(m)) {
            const char *kind = text_of(m, "activations");
            int i = 0;
            while (i < n && strcmp(seen[i], kind) != 0) i++;
            if (!*kind || i == 4) continue;
            seen[i] = kind;
            rows[i]++;
            n = i == n ? n + 1 : n;
        }
    for (int i = 0; i < n; i++) {
        qb_str_printf(out, "%s%d speed or quality figure%s with ", prefix, rows[i], rows[i] == 1 ? "" : "s");
        qb_text_clean(seen[i], 16, out);
        qb_str_text(out, " activations in products with quantized weights; all others with float32\n");
    }
}

/* Reasons of rows that were not measured: each once, with how many cases it stands for. */
static void put_notes(const table *t, const char *prefix, qb_str *out) {
    const char *seen[16];
    int n = 0;
    put_unmeasured_note(t, prefix, out);
    for (const qb_json *c = first_case(t); c; c = qb_json_next(c))
        for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m; m = qb_json_next(m)) {
            const char *reason = text_of(m, "error");
            if (!strcmp(text_of(m, "status"), "ok") || n == 16) continue;
            bool known = false;
            for (int i = 0; i < n; i++) known |= !strcmp(seen[i], reason);
            if (known) continue;
            seen[n++] = reason;
            qb_str_text(out, prefix);
            qb_text_clean(text_of(m, "name"), 40, out);
            qb_str_text(out, " ");
            qb_str_text(out, text_of(m, "status"));
            qb_str_text(out, ": ");
            qb_text_clean(reason, MAX_REASON_COLUMNS, out);
            qb_str_text(out, "\n");
        }
    for (int i = 0; i < t->n_columns; i++) {
        const column *col = &t->columns[i];
        if (col->kind != PERPLEXITY) continue;
        double part = 1;
        for (const qb_json *c = first_case(t); c; c = qb_json_next(c))
            part = fmin(part,
                        qb_perplexity_part(qb_results_metric(c, "perplexity", col->protocol, col->dataset)));
        if (part >= 1) continue;
        qb_str_printf(out, "%sperplexity on ", prefix);
        qb_text_clean(col->dataset, 40, out);
        qb_str_text(out, ", ");
        qb_text_clean(col->protocol, 40, out);
        qb_str_printf(out, ": only the first %.2g %% of the text; not comparable with the whole\n",
                      100 * part);
    }
    for (int i = 0; i < t->n_columns; i++)
        if (t->columns[i].kind == PERPLEXITY)
            qb_paired_notes(&t->rows, t->columns[i].dataset, t->columns[i].protocol, prefix, out);
    put_projection_note(t, prefix, out);
    put_noise_notes(t, prefix, out);
    put_share_notes(t, prefix, out);
    put_activation_notes(t, prefix, out);
    qb_published_notes(&t->rows, prefix, false, out);
    bool floor_put = false;
    for (const qb_json *c = first_case(t); c && !floor_put; c = qb_json_next(c))
        for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m && !floor_put;
             m = qb_json_next(m)) {
            double floor_value = qb_json_number(qb_json_get(m, "floor"));
            if (isnan(floor_value)) continue;
            qb_str_printf(out, "%sentropy of the text: no model can pass perplexity %.*f on ", prefix,
                          decimals_of(floor_value), floor_value);
            qb_text_clean(text_of(m, "dataset"), 40, out);
            qb_str_text(out, "\n");
            floor_put = true;
        }
}

/* ---- plain text ---- */

static int width_of(const table *t, int i) {
    int width = 0;
    for (int line = 0; line < HEADER_LINES; line++) {
        int n = qb_text_columns(t->columns[i].header[line]);
        if (n > width) width = n;
    }
    for (int64_t row = 0; row < t->n_rows; row++) {
        int n = qb_text_columns(t->cells[row * t->n_columns + i]);
        if (n > width) width = n;
    }
    return width;
}

/* Trailing blanks of a left-aligned last column are noise in files and diffs. */
static void end_line(qb_str *out) {
    while (!out->failed && out->length && out->text[out->length - 1] == ' ') out->length--;
    qb_str_text(out, "\n");
}

/* "±" lines up when every cell of the column has the same digits behind it. */
static void pad_errors(table *t, int i, qb_status *st) {
    int widest = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t row = 0; row < t->n_rows && *st == QB_OK; row++) {
            const char **cell = &t->cells[row * t->n_columns + i], *sign = strstr(*cell, "±");
            int behind = sign ? qb_text_columns(sign) : 0;
            if (pass == 0 && behind > widest) widest = behind;
            if (pass == 0 || behind == widest) continue;
            qb_str padded = {0};
            qb_str_text(&padded, *cell);
            if (!sign && (**cell < '0' || **cell > '9')) { /* a word, not a number: stays at the edge */
                qb_str_free(&padded);
                continue;
            }
            for (int k = behind - (sign ? 0 : 1); k < widest; k++) qb_str_append(&padded, " ", 1);
            *st = keep(t, &padded, cell);
        }
}

static void put_rule(const int *widths, int n, qb_str *out) {
    for (int i = 0; i < n; i++)
        for (int k = 0; k < widths[i] + (i ? GAP : 0); k++) qb_str_text(out, "─");
    qb_str_text(out, "\n");
}

static qb_status put_plain(table *t, qb_str *out) {
    int widths[MAX_COLUMNS];
    qb_status st = QB_OK;
    for (int i = 0; i < t->n_columns; i++) {
        if (t->columns[i].kind == PERPLEXITY || t->columns[i].kind == SPEED) pad_errors(t, i, &st);
        if (st != QB_OK) return st;
        widths[i] = width_of(t, i);
    }
    put_title(t, out);
    qb_str_text(out, "\n\n");
    for (int line = 0; line < HEADER_LINES; line++) {
        for (int i = 0; i < t->n_columns; i++) {
            if (i) qb_text_pad("", GAP, false, out);
            qb_text_pad(t->columns[i].header[line], widths[i], t->columns[i].right, out);
        }
        end_line(out);
    }
    put_rule(widths, t->n_columns, out);
    const qb_json *c = first_case(t);
    for (int64_t row = 0; row < t->n_rows; row++, c = qb_json_next(c)) {
        for (int i = 0; i < t->n_columns; i++) {
            if (i) qb_text_pad("", GAP, false, out);
            qb_text_pad(t->cells[row * t->n_columns + i], widths[i], t->columns[i].right, out);
        }
        end_line(out);
        if (qb_case_is_ok(c)) continue;
        qb_str_text(out, "  └ ");
        qb_text_clean(text_of(c, "error"), MAX_REASON_COLUMNS, out);
        qb_str_text(out, "\n");
    }
    put_rule(widths, t->n_columns, out);
    put_notes(t, "", out);
    return qb_str_status(out);
}

/* ---- Markdown ---- */

static void put_escaped(const char *text, qb_str *out) {
    for (const char *p = text; *p; p++) {
        if (strchr("|\\`*_[]<>", *p)) qb_str_text(out, "\\");
        qb_str_append(out, p, 1);
    }
}

static void put_escaped_clean(const char *text, int columns, qb_str *out) {
    qb_str s = {0};
    qb_text_clean(text, columns, &s);
    put_escaped(qb_str_get(&s), out);
    qb_str_free(&s);
}

static qb_status put_markdown(table *t, qb_str *out) {
    for (int i = 0; i < t->n_columns; i++) {
        const column *col = &t->columns[i];
        qb_str_text(out, i ? " " : "| ");
        for (int line = 0, put = 0; line < HEADER_LINES; line++) {
            if (!*col->header[line]) continue;
            if (put++)
                qb_str_text(out, line == 1 && col->kind != PERPLEXITY && col->kind != SPEED ? " " : "<br>");
            put_escaped(col->header[line], out);
        }
        qb_str_text(out, " |");
    }
    qb_str_text(out, "\n|");
    for (int i = 0; i < t->n_columns; i++) qb_str_text(out, t->columns[i].right ? "---:|" : "---|");
    qb_str_text(out, "\n");
    for (int64_t row = 0; row < t->n_rows; row++) {
        for (int i = 0; i < t->n_columns; i++) {
            qb_str_text(out, i ? " " : "| ");
            put_escaped(t->cells[row * t->n_columns + i], out);
            qb_str_text(out, " |");
        }
        qb_str_text(out, "\n");
    }
    qb_str below = {0};
    int64_t row = 0;
    for (const qb_json *c = first_case(t); c; c = qb_json_next(c), row++) {
        if (qb_case_is_ok(c)) continue;
        qb_str_text(&below, "- ");
        put_escaped(t->labels[row], &below);
        qb_str_printf(&below, " %s: ", text_of(c, "status"));
        put_escaped_clean(text_of(c, "error"), MAX_REASON_COLUMNS, &below);
        qb_str_text(&below, "\n");
    }
    put_notes(t, "- ", &below);
    qb_str_text(out, "\n");
    put_title(t, out);
    qb_str_text(out, "\n");
    if (below.length) qb_str_printf(out, "\n%s", below.text);
    if (below.failed) out->failed = true;
    qb_str_free(&below);
    return qb_str_status(out);
}

qb_status qb_results_table(const qb_results *r, bool markdown, qb_str *out) {
    table t = {.r = r};
    qb_status st;
    QB_TRY(st, qb_rows_read(&r, 1, &t.rows));
    QB_TRY(st, make_columns(&t));
    QB_TRY(st, make_cells(&t));
    QB_TRY(st, markdown ? put_markdown(&t, out) : put_plain(&t, out));
out:
    qb_arena_free(&t.arena);
    qb_rows_free(&t.rows);
    return st;
}
