/* A comparison for programs: JSON of ours, JUnit XML, and what two services for histories of figures read. */
#include "base/memory.h"
#include "results/compare.h"
#include "results/sink.h"
#include "results/text.h"

#include <math.h>
#include <string.h>

/* Prints and frees. */
static qb_status print_json(qb_json *doc, qb_str *out) {
    char *text = NULL;
    qb_status st = doc ? qb_json_print(doc, true, &text)
                       : qb_fail(QB_ERR_MEMORY, "out of memory while writing the comparison");
    if (st == QB_OK && !qb_text_escape_json(text, strlen(text), out)) qb_str_text(out, text);
    qb_free(text);
    qb_json_free(doc);
    return st == QB_OK ? qb_str_status(out) : st;
}

/* ---- ours ---- */

static qb_json *config_json(const qb_compare_config *config) {
    qb_json *used = qb_json_object();
    qb_json_put_real(used, "perplexity_tolerance_pct", config->perplexity_tolerance_pct);
    qb_json_put_real(used, "speed_effect_pct", config->speed_effect_pct);
    qb_json_put_real(used, "run_spread_pct", config->run_spread_pct);
    qb_json_put_real(used, "alpha", config->alpha);
    qb_json_put_real(used, "memory_tolerance_pct", config->memory_tolerance_pct);
    qb_json_put_real(used, "memory_floor_mb", config->memory_floor_mb);
    qb_json_put_bool(used, "force", config->force);
    return used;
}

static qb_json *row_json(const qb_compare_row *row) {
    qb_json *o = qb_json_object();
    qb_json_put_text(o, "id", row->id);
    if (row->new_id) qb_json_put_text(o, "new_id", row->new_id);
    qb_json_put_text(o, "metric", qb_str_get(&row->metric));
    qb_json_put_text(o, "unit", row->unit.length ? row->unit.text : NULL);
    qb_json_put_text(o, "verdict", qb_verdict_keys[row->verdict]);
    qb_json_put_real(o, "old", row->old_value);
    qb_json_put_real(o, "new", row->new_value);
    qb_json_put_real(o, "change_pct", row->change_pct);
    qb_json_put_real(o, "change_low_pct", row->low_pct);
    qb_json_put_real(o, "change_high_pct", row->high_pct);
    qb_json_put_real(o, "p", row->p);
    qb_json_put_real(o, "p_adjusted", row->p_adjusted);
    if (row->pairs) {
        qb_json_put_int(o, "pairs", row->pairs);
    } else if (row->samples[0] && row->samples[1]) {
        qb_json_put_int(o, "old_samples", row->samples[0]);
        qb_json_put_int(o, "new_samples", row->samples[1]);
        qb_json_put_int(o, "old_runs", row->runs[0]);
        qb_json_put_int(o, "new_runs", row->runs[1]);
        qb_json_put_int(o, "old_processes", row->processes[0]);
        qb_json_put_int(o, "new_processes", row->processes[1]);
    }
    if (row->paired.windows) {
        qb_json_put_real(o, "difference_nats", row->paired.difference);
        qb_json_put_real(o, "difference_nats_stderr", row->paired.stderr_value);
        qb_json_put_int(o, "windows", row->paired.windows);
    }
    if (row->judged_by) {
        static const char *const words[] = {NULL, "runs", "runs_and_assumption", "assumption", "pairs"};
        qb_json_put_text(o, "judged_by", words[row->judged_by]);
        qb_json_put_real(o, "run_spread_pct", row->spread_pct);
    }
    if (!isnan(row->scatter_pct)) qb_json_put_real(o, "windows_scatter_pct", row->scatter_pct);
    if (row->needed_of) {
        qb_json_put_real(o, "needed", row->needed ? (double)row->needed : (double)NAN);
        qb_json_put_text(o, "needed_of", row->needed_of);
    }
    qb_json_put_text(o, "why", row->why.length ? row->why.text : NULL);
    return o;
}

qb_status qb_compare_write_json(const qb_comparison *c, qb_str *out) {
    qb_json *doc = qb_json_object(), *counts = qb_json_object(), *list = qb_json_array();
    qb_json_put_text(doc, "schema", "qb.compare/2");
    qb_json_put_text(doc, "verdict", qb_verdict_keys[qb_comparison_verdict(c)]);
    qb_json_put_int(doc, "exit_code", qb_comparison_exit_code(c));
    qb_json_put_text(doc, "old", qb_str_get(&c->origin[0]));
    qb_json_put_text(doc, "new", qb_str_get(&c->origin[1]));
    qb_json_put(doc, "config", config_json(&c->config));
    for (int v = 0; v < QB_N_VERDICTS; v++)
        qb_json_put_int(counts, qb_verdict_keys[v], (int64_t)qb_comparison_count(c, (qb_verdict)v));
    qb_json_put(doc, "counts", counts);
    qb_json_put_int(doc, "tested", c->tested);
    qb_json_put_int(doc, "old_unmeasured", c->unmeasured[0]);
    qb_json_put_int(doc, "new_unmeasured", c->unmeasured[1]);
    for (size_t i = 0; i < c->count; i++) qb_json_push(list, row_json(&c->rows[i]));
    qb_json_put(doc, "rows", list);
    return print_json(doc, out);
}

/* ---- JUnit ---- */

/* What a person reads of one row: "decode tg128: 30.1 tok/s to 27.0 tok/s, -10.3 %; ..." */
static void put_sentence(const qb_compare_row *row, qb_str *out) {
    const char *unit = qb_str_get(&row->unit);
    qb_str_printf(out, "%s: ", qb_str_get(&row->metric));
    if (!isnan(row->old_value) || !isnan(row->new_value)) {
        qb_compare_put_value(row->old_value, unit, out);
        qb_str_text(out, " to ");
        qb_compare_put_value(row->new_value, unit, out);
        if (!isnan(row->change_pct)) qb_str_text(out, ", ");
        qb_compare_put_change(row->change_pct, out);
        qb_str_text(out, "; ");
    }
    qb_compare_put_reason(row, out);
}

static void put_testcase(const qb_compare_row *row, qb_str *out) {
    qb_str said = {0};
    put_sentence(row, &said);
    qb_str_text(out, "    <testcase classname=\"");
    qb_str id = {0};
    qb_compare_put_case(row, 200, &id);
    qb_html_text(qb_str_get(&id), out);
    qb_str_free(&id);
    qb_str_text(out, "\" name=\"");
    qb_html_text(qb_str_get(&row->metric), out);
    qb_str_text(out, "\" time=\"0\">");
    switch (row->verdict) {
    case QB_REGRESSION:
    case QB_MISSING:
        qb_str_printf(out, "<failure type=\"%s\" message=\"", qb_verdict_keys[row->verdict]);
        qb_html_text(qb_str_get(&said), out);
        qb_str_text(out, "\">");
        qb_html_text(qb_str_get(&said), out);
        qb_str_text(out, "</failure>");
        break;
    case QB_INCONCLUSIVE:
    case QB_NOISY_ROW:
    case QB_INCOMPARABLE:
        qb_str_printf(out, "<skipped message=\"%s: ", qb_verdict_keys[row->verdict]);
        qb_html_text(qb_str_get(&said), out);
        qb_str_text(out, "\"/>");
        break;
    default:
        break;
    }
    qb_str_text(out, "</testcase>\n");
    qb_str_free(&said);
}

/* The verdict as a test of its own: an empty or incomplete comparison has no row that fails. */
qb_status qb_compare_write_junit(const qb_comparison *c, qb_str *out) {
    bool failed = qb_comparison_verdict(c) == QB_REGRESSION;
    size_t failures = qb_comparison_count(c, QB_REGRESSION) + qb_comparison_count(c, QB_MISSING) + failed,
           skipped = qb_comparison_count(c, QB_INCONCLUSIVE) + qb_comparison_count(c, QB_NOISY_ROW) +
                     qb_comparison_count(c, QB_INCOMPARABLE);
    qb_str verdict = {0};
    qb_compare_put_verdict(c, &verdict);
    qb_str_printf(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<testsuites name=\"bench compare\" tests=\"%zu\" failures=\"%zu\" time=\"0\">\n"
        "  <testsuite name=\"bench compare\" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\" "
        "time=\"0\">\n"
        "    <testcase classname=\"gate\" name=\"verdict\" time=\"0\">",
        c->count + 1, failures, c->count + 1, failures, skipped);
    qb_str_text(out, failed ? "<failure type=\"gate\" message=\"" : "<system-out>");
    qb_html_text(qb_str_get(&verdict), out);
    qb_str_text(out, failed ? "\"/>" : "</system-out>");
    qb_str_text(out, "</testcase>\n");
    qb_str_free(&verdict);
    for (size_t i = 0; i < c->count; i++) put_testcase(&c->rows[i], out);
    qb_str_text(out, "  </testsuite>\n</testsuites>\n");
    return qb_str_status(out);
}

/* ---- CSV ---- */

/* Every row, those that passed too. */
static qb_status write_csv(const qb_comparison *c, qb_str *out) {
    qb_str_text(out, "case,metric,unit,old,new,change %,change % low,change % high,p,verdict,reason\r\n");
    for (size_t i = 0; i < c->count; i++) {
        const qb_compare_row *row = &c->rows[i];
        qb_str id = {0};
        qb_compare_put_case(row, 200, &id);
        const char *words[] = {qb_str_get(&id), qb_str_get(&row->metric), qb_str_get(&row->unit)};
        const double numbers[] = {row->old_value, row->new_value, row->change_pct,
                                  row->low_pct,   row->high_pct,  row->p_adjusted};
        qb_str why = {0};
        qb_compare_put_reason(row, &why);
        for (size_t k = 0; k < sizeof words / sizeof words[0]; k++) {
            qb_csv_text(words[k], out);
            qb_str_text(out, ",");
        }
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
            if (isfinite(numbers[k])) qb_str_printf(out, "%.12g", numbers[k]);
            qb_str_text(out, ",");
        }
        qb_str_printf(out, "%s,", qb_verdict_keys[row->verdict]);
        qb_csv_text(qb_str_get(&why), out);
        qb_str_text(out, "\r\n");
        out->failed |= why.failed || id.failed;
        qb_str_free(&why);
        qb_str_free(&id);
    }
    return qb_str_status(out);
}

/* ---- services that keep histories ---- */

/* A noisy figure gates nothing, and those services would let it. */
static bool has_figure(const qb_compare_row *row) {
    return isfinite(row->new_value) && row->unit.length && row->verdict != QB_NOISY_ROW;
}

/* Bencher Metric Format: {"CASE, METRIC": {"METRIC NAME": {"value": V, "lower_value": L, "upper_value": U}}}.
 */
qb_status qb_compare_write_bencher(const qb_comparison *c, qb_str *out) {
    qb_json *doc = qb_json_object();
    for (size_t i = 0; i < c->count; i++) {
        const qb_compare_row *row = &c->rows[i];
        if (!has_figure(row)) continue;
        qb_json *figure = qb_json_object(), *measures = qb_json_object();
        qb_json_put_real(figure, "value", row->new_value);
        if (isfinite(row->new_low) && isfinite(row->new_high)) {
            qb_json_put_real(figure, "lower_value", row->new_low);
            qb_json_put_real(figure, "upper_value", row->new_high);
        }
        qb_str name = {0}, measure = {0};
        qb_compare_put_case(row, 200, &name);
        qb_str_printf(&name, ", %s", qb_str_get(&row->metric));
        qb_text_clean(row->name, 60, &measure); /* at most 64 characters there */
        qb_json_put(measures, qb_str_get(&measure), figure);
        qb_json_put(doc, qb_str_get(&name), measures);
        qb_str_free(&name);
        qb_str_free(&measure);
    }
    return print_json(doc, out);
}

/* [{"name", "unit", "value", "range", "extra"}]: that action wants a file for each direction. */
static qb_status write_benchmarks(const qb_comparison *c, bool bigger, qb_str *out) {
    qb_json *list = qb_json_array();
    for (size_t i = 0; i < c->count; i++) {
        const qb_compare_row *row = &c->rows[i];
        if (!has_figure(row) || row->higher_is_better != bigger) continue;
        qb_json *o = qb_json_object();
        qb_str text = {0};
        qb_compare_put_case(row, 200, &text);
        qb_str_printf(&text, ", %s", qb_str_get(&row->metric));
        qb_json_put_text(o, "name", qb_str_get(&text));
        qb_json_put_text(o, "unit", qb_str_get(&row->unit));
        qb_json_put_real(o, "value", row->new_value);
        qb_str_free(&text);
        if (isfinite(row->new_low) && isfinite(row->new_high)) {
            qb_str_printf(&text, "± %.4g", (row->new_high - row->new_low) / 2);
            qb_json_put_text(o, "range", qb_str_get(&text));
            qb_str_free(&text);
        }
        qb_str why = {0};
        qb_compare_put_reason(row, &why);
        qb_str_printf(&text, "%s%s%s", qb_verdict_keys[row->verdict], why.length ? "; " : "",
                      qb_str_get(&why));
        text.failed |= why.failed;
        qb_str_free(&why);
        qb_json_put_text(o, "extra", qb_str_get(&text));
        qb_str_free(&text);
        qb_json_push(list, o);
    }
    return print_json(list, out);
}

qb_status qb_compare_write_bigger(const qb_comparison *c, qb_str *out) {
    return write_benchmarks(c, true, out);
}

qb_status qb_compare_write_smaller(const qb_comparison *c, qb_str *out) {
    return write_benchmarks(c, false, out);
}

/* ---- the table ---- */

static const qb_compare_format formats[] = {
    {"text", "for the terminal", qb_compare_write_text},
    {"markdown", "for a comment on a change", qb_compare_write_markdown},
    {"csv", "every row, in base units (RFC 4180)", write_csv},
    {"junit", "JUnit XML", qb_compare_write_junit},
    {"json", "all of it (qb.compare/2)", qb_compare_write_json},
    {"bencher", "Bencher Metric Format", qb_compare_write_bencher},
    {"benchmark-bigger", "github-action-benchmark, customBiggerIsBetter", qb_compare_write_bigger},
    {"benchmark-smaller", "github-action-benchmark, customSmallerIsBetter", qb_compare_write_smaller},
};

const qb_compare_format *qb_compare_format_at(size_t index) {
    return index < sizeof formats / sizeof formats[0] ? &formats[index] : NULL;
}

const qb_compare_format *qb_compare_format_find(const char *name) {
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (!strcmp(formats[i].name, name)) return &formats[i];
    return NULL;
}
