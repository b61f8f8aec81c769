#include "results/compare_rows.h"

#include "base/memory.h"
#include "results/device.h"
#include "results/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N_VERDICTS = QB_INCOMPARABLE + 1, N_CELLS = 6, GAP = 2 };

static const char *const verdict_keys[N_VERDICTS] = {"same",    "better",  "worse",
                                                     "missing", "changed", "not_compared"};
static const char *const verdict_words[N_VERDICTS] = {"same",    "better",  "WORSE",
                                                      "MISSING", "changed", "not compared"};

qb_status qb_compare_rows_add(qb_compare_rows *rows, const char *id, qb_compare_row **row) {
    qb_status st = qb_grow(&rows->rows, &rows->capacity, rows->count + 1, sizeof *rows->rows);
    if (st != QB_OK) return st;
    *row = &rows->rows[rows->count++];
    **row = (qb_compare_row){.id = id,
                             .old_value = (double)NAN,
                             .new_value = (double)NAN,
                             .change_pct = (double)NAN,
                             .p = (double)NAN};
    return QB_OK;
}

void qb_compare_rows_free(qb_compare_rows *rows) {
    for (size_t i = 0; i < rows->count; i++) {
        qb_str_free(&rows->rows[i].metric);
        qb_str_free(&rows->rows[i].unit);
        qb_str_free(&rows->rows[i].why);
    }
    qb_free(rows->rows);
    *rows = (qb_compare_rows){0};
}

static size_t count_of(const qb_compare_rows *rows, qb_verdict verdict) {
    size_t n = 0;
    for (size_t i = 0; i < rows->count; i++) n += rows->rows[i].verdict == verdict;
    return n;
}

static size_t compared(const qb_compare_rows *rows) {
    return count_of(rows, QB_SAME) + count_of(rows, QB_BETTER) + count_of(rows, QB_WORSE) +
           count_of(rows, QB_MISSING);
}

bool qb_compare_rows_regressed(const qb_compare_rows *rows) {
    return count_of(rows, QB_WORSE) + count_of(rows, QB_MISSING) > 0 || compared(rows) == 0 ||
           rows->unmeasured[0] + rows->unmeasured[1] > 0;
}

/* ---- for people ---- */

static void put_value(double value, const char *unit, qb_str *out) {
    char buffer[32];
    if (isnan(value))
        qb_str_text(out, "–");
    else if (!strcmp(unit, "B"))
        qb_str_text(out, qb_format_bytes(value, buffer));
    else if (!strcmp(unit, "1"))
        qb_str_printf(out, "%.5g", value);
    else
        qb_str_printf(out, "%.4g %s", value, unit);
}

static void put_change(double pct, qb_str *out) {
    if (isnan(pct)) return;
    if (isinf(pct))
        qb_str_text(out, "from 0");
    else
        qb_str_printf(out, fabs(pct) >= 1000 ? "%+.0f %%" : fabs(pct) >= 1 ? "%+.1f %%" : "%+.3f %%", pct);
}

static void put_cell(const qb_compare_row *row, int column, qb_str *out) {
    switch (column) {
    case 0:
        qb_text_clean(row->id, 60, out);
        break;
    case 1:
        qb_str_text(out, qb_str_get(&row->metric));
        break;
    case 2:
        put_value(row->old_value, qb_str_get(&row->unit), out);
        break;
    case 3:
        put_value(row->new_value, qb_str_get(&row->unit), out);
        break;
    case 4:
        put_change(row->change_pct, out);
        break;
    default:
        qb_str_text(out, verdict_words[row->verdict]);
        if (!isnan(row->p)) qb_str_printf(out, row->p < 0.0001 ? "  p < 0.0001" : "  p = %.4f", row->p);
    }
}

static const char *const headers[N_CELLS] = {"case", "metric", "old", "new", "change", "verdict"};

static void print_table(const qb_compare_rows *rows, qb_str *out) {
    int widths[N_CELLS];
    for (int k = 0; k < N_CELLS; k++) widths[k] = qb_text_columns(headers[k]);
    /* First pass measures, second prints; the first line is the header. */
    for (int pass = 0; pass < 2; pass++) {
        for (int k = 0; pass && k < N_CELLS; k++) {
            if (k) qb_text_pad("", GAP, false, out);
            qb_text_pad(headers[k], k + 1 < N_CELLS ? widths[k] : 0, k >= 2 && k <= 4, out);
        }
        if (pass) qb_str_text(out, "\n");
        for (size_t i = 0; i < rows->count; i++) {
            const qb_compare_row *row = &rows->rows[i];
            if (row->verdict == QB_SAME || row->verdict == QB_INCOMPARABLE) continue;
            for (int k = 0; k < N_CELLS; k++) {
                qb_str cell = {0};
                put_cell(row, k, &cell);
                int n = qb_text_columns(qb_str_get(&cell));
                if (!pass && n > widths[k]) widths[k] = n;
                if (pass && k) qb_text_pad("", GAP, false, out);
                if (pass)
                    qb_text_pad(qb_str_get(&cell), k + 1 < N_CELLS ? widths[k] : 0, k >= 2 && k <= 4, out);
                qb_str_free(&cell);
            }
            if (pass && row->paired.windows) {
                qb_str_text(out, "  ");
                qb_paired_put(&row->paired, out);
            }
            if (pass && row->why.length) qb_str_printf(out, "  %s", row->why.text);
            if (pass) qb_str_text(out, "\n");
        }
    }
}

/* "not compared (14 rows): machine differs: ...": each reason once, with how many rows it covers. */
static void print_incomparable(const qb_compare_rows *rows, qb_str *out) {
    size_t reasons = 0;
    for (size_t i = 0; i < rows->count; i++) {
        const qb_compare_row *row = &rows->rows[i];
        if (row->verdict != QB_INCOMPARABLE) continue;
        const char *why = qb_str_get(&row->why);
        size_t same = 0;
        bool first = true;
        for (size_t j = 0; j < rows->count; j++) {
            if (rows->rows[j].verdict != QB_INCOMPARABLE || strcmp(qb_str_get(&rows->rows[j].why), why) != 0)
                continue;
            if (j < i) {
                first = false;
                break;
            }
            same++;
        }
        if (!first) continue;
        if (++reasons > 20) {
            qb_str_text(out, "not compared: further reasons stand in the JSON form\n");
            return;
        }
        if (same > 1) {
            qb_str_printf(out, "not compared, %zu rows: %s\n", same, why);
        } else {
            qb_str_text(out, "not compared, ");
            qb_text_clean(row->id, 60, out);
            qb_str_printf(out, " %s: %s\n", qb_str_get(&row->metric), why);
        }
    }
}

static void print_origin(const char *title, const qb_results *r, qb_str *out) {
    const qb_json *context = qb_json_get(r->doc, "context"), *program = qb_json_get(context, "program");
    qb_str_printf(out, "%s  ", title);
    qb_text_clean(r->path ? r->path : "(no file)", 60, out);
    qb_str_text(out, "  ");
    qb_text_clean(qb_json_string(qb_json_get(context, "created")), 0, out);
    qb_str_text(out, "  ");
    qb_text_clean(qb_json_string(qb_json_get(program, "version")), 20, out);
    const char *git = qb_json_string(qb_json_get(program, "git"));
    if (git) {
        qb_str_text(out, " ");
        qb_text_clean(git, 16, out);
    }
    qb_str_text(out, "  ");
    qb_str devices = {0};
    qb_results_describe_devices(r, &devices);
    qb_str_text(out, qb_str_get(&devices));
    qb_str_free(&devices);
    qb_str_text(out, "\n");
}

void qb_compare_rows_print(const qb_compare_rows *rows, const qb_results *old_doc, const qb_results *new_doc,
                           qb_str *out) {
    size_t same = count_of(rows, QB_SAME), better = count_of(rows, QB_BETTER),
           worse = count_of(rows, QB_WORSE), missing = count_of(rows, QB_MISSING),
           changed = count_of(rows, QB_CHANGED), other = count_of(rows, QB_INCOMPARABLE);
    print_origin("old", old_doc, out);
    print_origin("new", new_doc, out);
    qb_str_text(out, "\n");
    if (same + other < rows->count) {
        print_table(rows, out);
        qb_str_text(out, "\n");
    }
    print_incomparable(rows, out);
    qb_str_printf(out, "%zu unchanged, %zu better, %zu worse, ", same, better, worse);
    if (changed) qb_str_printf(out, "%zu changed or new, ", changed);
    qb_str_printf(out, "%zu missing, %zu not compared\n", missing, other);
    for (int side = 0; side < 2; side++)
        if (rows->unmeasured[side])
            qb_str_printf(out, "INCOMPLETE: the %s run ended before %" PRId64 " of its cases\n",
                          side ? "new" : "old", rows->unmeasured[side]);
    if (compared(rows) == 0)
        qb_str_text(out, "REGRESSION: nothing could be compared\n");
    else if (worse + missing > 0)
        qb_str_printf(out, "REGRESSION: %zu row%s worse or missing\n", worse + missing,
                      worse + missing > 1 ? "s" : "");
    else
        qb_str_text(out, qb_compare_rows_regressed(rows) ? "no regression in what was compared\n"
                                                         : "no regression\n");
}

/* ---- for scripts ---- */

qb_json *qb_compare_rows_json(const qb_compare_rows *rows, const qb_compare_config *config) {
    qb_json *doc = qb_json_object(), *counts = qb_json_object(), *list = qb_json_array(),
            *used = qb_json_object();
    qb_json_put_text(doc, "schema", "qb.compare/1");
    qb_json_put_bool(doc, "regressed", qb_compare_rows_regressed(rows));
    qb_json_put_real(used, "perplexity_tolerance_pct", config->perplexity_tolerance_pct);
    qb_json_put_real(used, "speed_effect_pct", config->speed_effect_pct);
    qb_json_put_real(used, "alpha", config->alpha);
    qb_json_put_real(used, "memory_tolerance_pct", config->memory_tolerance_pct);
    qb_json_put_real(used, "memory_floor_mb", config->memory_floor_mb);
    qb_json_put_bool(used, "force", config->force);
    qb_json_put(doc, "config", used);
    for (int v = 0; v < N_VERDICTS; v++)
        qb_json_put_int(counts, verdict_keys[v], (int64_t)count_of(rows, (qb_verdict)v));
    qb_json_put(doc, "counts", counts);
    qb_json_put_int(doc, "old_unmeasured", rows->unmeasured[0]);
    qb_json_put_int(doc, "new_unmeasured", rows->unmeasured[1]);
    for (size_t i = 0; i < rows->count; i++) {
        const qb_compare_row *row = &rows->rows[i];
        if (row->verdict == QB_SAME) continue;
        qb_json *o = qb_json_object();
        qb_json_put_text(o, "id", row->id);
        qb_json_put_text(o, "metric", qb_str_get(&row->metric));
        qb_json_put_text(o, "unit", row->unit.length ? row->unit.text : NULL);
        qb_json_put_text(o, "verdict", verdict_keys[row->verdict]);
        qb_json_put_real(o, "old", row->old_value);
        qb_json_put_real(o, "new", row->new_value);
        qb_json_put_real(o, "change_pct", row->change_pct);
        qb_json_put_real(o, "p", row->p);
        if (row->paired.windows) {
            qb_json_put_real(o, "difference_nats", row->paired.difference);
            qb_json_put_real(o, "difference_nats_stderr", row->paired.stderr_value);
            qb_json_put_int(o, "windows", row->paired.windows);
        }
        qb_json_put_text(o, "why", row->why.length ? row->why.text : NULL);
        qb_json_push(list, o);
    }
    qb_json_put(doc, "rows", list);
    return doc;
}
