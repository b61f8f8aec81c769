/* Sections of the page that are tables and maps of their own. */
#include "bench/report/report.h"
#include "results/paired.h"
#include "results/sink.h"
#include "results/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors layer by layer ---- */

enum { MAX_LAYERS = 4096, MAX_CASES = 40, MAX_KINDS = 64, LEFT_PX = 190, ROW_PX = 20, HEAD_PX = 24 };

typedef struct map {
    const qb_rows *rows;
    bool of_output;
    double least, most;
    int layers;
} map;

static bool is_shown(const map *m, const qb_row_module *t) {
    return t->layer >= 0 && t->layer < MAX_LAYERS && t->relative_error > 0 && t->of_output == m->of_output;
}

/* "self_attn.q_proj" of "model.layers.3.self_attn.q_proj". */
static const char *kind_of(const char *module) {
    const char *kind = module;
    for (const char *p = module; *p; p++) {
        size_t n = strspn(p, "0123456789");
        if ((p == module || p[-1] == '.') && n && p[n] == '.') kind = p + n + 1;
    }
    return kind;
}

/* Mean error of the case's matrices of a layer, all kinds or one; NaN without any. */
static double mean_of(const map *m, const qb_row_case *c, int layer, const char *kind) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < c->n_modules; i++) {
        const qb_row_module *t = &c->modules[i];
        if (!is_shown(m, t) || t->layer != layer || (kind && strcmp(kind_of(t->name), kind) != 0)) continue;
        sum += t->relative_error;
        n++;
    }
    return n ? sum / n : (double)NAN;
}

static void measure(map *m) {
    m->least = (double)INFINITY;
    m->most = 0;
    m->layers = 0;
    for (int i = 0; i < m->rows->n_cases; i++)
        for (int k = 0; k < m->rows->cases[i].n_modules; k++) {
            const qb_row_module *t = &m->rows->cases[i].modules[k];
            if (!is_shown(m, t)) continue;
            m->least = fmin(m->least, t->relative_error);
            m->most = fmax(m->most, t->relative_error);
            if (t->layer >= m->layers) m->layers = t->layer + 1;
        }
}

static void put_row(const map *m, const qb_row_case *c, const char *kind, const char *name, int row,
                    double cell, qb_str *out) {
    double span = log(m->most / m->least);
    int y = HEAD_PX + row * ROW_PX;
    qb_str_printf(out, "<text class=\"label\" x=\"%d\" y=\"%d\" font-size=\"11\" text-anchor=\"end\">",
                  LEFT_PX - 6, y + 14);
    qb_html_text(name, out);
    qb_str_text(out, "</text>\n");
    for (int layer = 0; layer < m->layers; layer++) {
        double error = mean_of(m, c, layer, kind);
        if (isnan(error)) continue;
        double depth = span > 0 ? log(error / m->least) / span : 1;
        qb_str_printf(out,
                      "<rect class=\"tip heat\" x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" "
                      "fill-opacity=\"%.3f\"><title>",
                      LEFT_PX + layer * cell, y + 1, cell - 0.6, ROW_PX - 2,
                      0.06 + 0.94 * fmin(fmax(depth, 0), 1));
        qb_html_text(name, out);
        qb_str_printf(out, ", layer %d: %.3g</title></rect>\n", layer, error);
    }
}

static void begin_map(const map *m, int rows, double cell, const char *label, qb_str *out) {
    qb_str_printf(out,
                  "<div class=\"scroll\"><svg class=\"plot heatmap\" role=\"img\" viewBox=\"0 0 %.0f %d\" "
                  "aria-label=\"",
                  LEFT_PX + m->layers * cell + 20, HEAD_PX + rows * ROW_PX + 4);
    qb_html_text(label, out);
    qb_str_text(out, "\">\n");
    int step = m->layers < 13 ? 1 : m->layers < 26 ? 2 : m->layers < 62 ? 5 : 10 * (1 + m->layers / 120);
    for (int layer = 0; layer < m->layers; layer += step)
        qb_str_printf(
            out,
            "<text class=\"tic\" x=\"%.1f\" y=\"15\" font-size=\"11\" text-anchor=\"middle\">%d</text>\n",
            LEFT_PX + (layer + 0.5) * cell, layer);
}

/* The kinds of matrix of a case in the order of their first layer. */
static int kinds_of(const map *m, const qb_row_case *c, const char **kinds) {
    int n = 0;
    for (int i = 0; i < c->n_modules && n < MAX_KINDS; i++) {
        const char *kind = kind_of(c->modules[i].name);
        bool known = !is_shown(m, &c->modules[i]);
        for (int k = 0; k < n && !known; k++) known = !strcmp(kinds[k], kind);
        if (!known) kinds[n++] = kind;
    }
    return n;
}

static void put_map(const map *m, qb_str *out) {
    const char *kinds[MAX_KINDS];
    const qb_row_case *shown[MAX_CASES];
    int n = 0;
    double cell = fmin(fmax(610.0 / m->layers, 6), 60);
    for (int i = 0; i < m->rows->n_cases && n < MAX_CASES; i++)
        if (kinds_of(m, &m->rows->cases[i], kinds)) shown[n++] = &m->rows->cases[i];
    qb_str_printf(
        out,
        "<h3>%s</h3>\n<p>Mean of a layer's matrices, pale %.2g to full %.2g on a logarithmic scale; %s. "
        "Columns are layers.</p>\n",
        m->of_output ? "Error of the layers' outputs" : "Error of the layers' weights", m->least, m->most,
        m->of_output ? "(w-q) H (w-q)&#7488; over w H w&#7488;" : "|w-q|&#178; over |w|&#178;");
    begin_map(m, n, cell, "Relative error, a row a case and a column a layer", out);
    for (int i = 0; i < n; i++) put_row(m, shown[i], NULL, shown[i]->label, i, cell, out);
    qb_str_text(out, "</svg></div>\n");
    for (int i = 0; i < n; i++) {
        int n_kinds = kinds_of(m, shown[i], kinds);
        qb_str_text(out, "<details><summary>");
        qb_html_text(shown[i]->label, out);
        qb_str_text(out, ", matrix by matrix</summary>\n");
        begin_map(m, n_kinds, cell, "Relative error, a row a kind of matrix and a column a layer", out);
        for (int k = 0; k < n_kinds; k++) put_row(m, shown[i], kinds[k], kinds[k], k, cell, out);
        qb_str_text(out, "</svg></div></details>\n");
    }
}

void qb_report_heat(const qb_rows *rows, qb_str *out) {
    bool begun = false;
    for (int kind = 1; kind >= 0; kind--) {
        map m = {.rows = rows, .of_output = kind};
        measure(&m);
        if (!m.layers) continue;
        if (!begun) qb_str_text(out, "<section id=\"layers\"><h2>Layer by layer</h2>\n");
        begun = true;
        put_map(&m, out);
    }
    if (begun) qb_str_text(out, "</section>\n");
}

/* ---- published beside measured ---- */

/* The case quantized here that is nearest in bits, within half a bit, and answers the same text. */
static const qb_row *nearest_own(const qb_rows *rows, const qb_row *published) {
    const qb_row *best = NULL;
    double least = 0.5;
    for (int i = 0; i < rows->n_cases; i++) {
        const qb_row_case *c = &rows->cases[i];
        double off = fabs(c->bits_per_weight - published->of->bits_per_weight);
        if (c->published || c->unquantized || strcmp(c->of, published->of->of) != 0) continue;
        const qb_row *r = qb_rows_find_ok(c, published->name, published->protocol, published->dataset);
        if (!r || r->projected || !(off <= least) || (best && off == least && r->value >= best->value))
            continue;
        least = off;
        best = r;
    }
    return best;
}

static void put_cell(const char *text, bool number, qb_str *out) {
    qb_str_text(out, number ? "<td class=\"n\">" : "<td>");
    qb_html_text(text, out);
    qb_str_text(out, "</td>");
}

static void put_published(const qb_rows *rows, const qb_row *r, qb_str *out) {
    const qb_row *own = nearest_own(rows, r);
    qb_str value = {0}, mine = {0}, text = {0}, difference = {0};
    qb_paired pair;
    qb_figure_put(r, &value);
    qb_str_printf(&text, "%s, %s", r->dataset, r->protocol);
    if (own) qb_figure_put(own, &mine);
    if (own && qb_rows_paired(own, r, &pair))
        qb_paired_put(&pair, &difference);
    else
        qb_str_text(&difference, own ? "no windows to pair" : "nothing of as many bits was made here");
    qb_str_text(out, "<tr>");
    put_cell(r->of->label, false, out);
    put_cell(r->of->model, false, out);
    put_cell(qb_str_get(&text), false, out);
    put_cell(qb_str_get(&value), true, out);
    put_cell(own ? own->of->label : "", false, out);
    put_cell(qb_str_get(&mine), true, out);
    put_cell(qb_str_get(&difference), false, out);
    qb_str_text(out, "</tr>\n");
    out->failed |= value.failed || mine.failed || text.failed || difference.failed;
    qb_str_free(&value);
    qb_str_free(&mine);
    qb_str_free(&text);
    qb_str_free(&difference);
}

void qb_report_published(const qb_rows *rows, qb_str *out) {
    bool begun = false;
    for (int i = 0; i < rows->n_rows; i++) {
        const qb_row *r = &rows->rows[i];
        if (!r->of->published || strcmp(r->name, "perplexity") != 0 || r->status != QB_ROW_OK) continue;
        if (!begun)
            qb_str_text(
                out,
                "<section id=\"published\"><h2>Published beside measured</h2>\n<p>Checkpoints that came "
                "quantized, each beside the one made here whose bits are nearest; the difference is "
                "published less made here.</p>\n<div class=\"scroll\"><table><thead><tr><th>published</th>"
                "<th>model</th><th>text</th><th class=\"n\">perplexity</th><th>made here</th>"
                "<th class=\"n\">perplexity</th><th>difference</th></tr></thead><tbody>\n");
        begun = true;
        put_published(rows, r, out);
    }
    if (begun) qb_str_text(out, "</tbody></table></div></section>\n");
}

/* ---- where it comes from ---- */

static void put_fact(const char *name, const char *value, qb_str *out) {
    if (!value || !*value) return;
    qb_str_text(out, "<dt>");
    qb_html_text(name, out);
    qb_str_text(out, "</dt><dd>");
    qb_html_text(value, out);
    qb_str_text(out, "</dd>\n");
}

static void put_amount(const char *name, double value, const char *unit, qb_str *out) {
    qb_str text = {0};
    char bytes[32];
    if (isnan(value)) return;
    if (*unit == 'B')
        qb_str_printf(&text, "%s%s", qb_format_bytes(value, bytes), unit + 1);
    else {
        qb_text_figure(value, 4, &text);
        qb_str_printf(&text, "%s%s", *unit ? " " : "", unit);
    }
    put_fact(name, qb_str_get(&text), out);
    qb_str_free(&text);
}

static void put_device(const qb_row_device *d, qb_str *out) {
    qb_str_text(out, "<h4>");
    qb_html_text(d->description, out);
    qb_str_text(out, "</h4>\n<dl>\n");
    put_fact("processor", d->cpu, out);
    put_fact("GPU", d->gpu, out);
    put_amount("cores", d->cores, "", out);
    put_amount("threads", d->threads, "", out);
    put_fact("instructions", d->simd, out);
    put_fact("BLAS", d->blas, out);
    put_amount("memory", d->memory_bytes, "B", out);
    put_amount("device memory", d->device_memory_bytes, "B", out);
    put_fact("system", d->os, out);
    put_fact("kernel", d->kernel, out);
    put_fact("frequency governor", d->governor, out);
    put_amount("load average when it began", d->load_average, "", out);
    const qb_ceiling *c;
    for (size_t i = 0; (c = qb_ceiling_at(i)); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s ceiling", c->name);
        put_amount(name, qb_ceiling_of(&d->ceilings, c) / c->scale, c->unit, out);
    }
    qb_str_text(out, "</dl>\n");
}

/* As one would type it. */
static void put_command(const qb_row_document *d, qb_str *out) {
    qb_str line = {0}, clean = {0};
    for (int i = 0; i < d->n_command; i++) {
        const char *word = d->command[i];
        if (i == 0) word = strrchr(word, '/') ? strrchr(word, '/') + 1 : word;
        bool plain = *word && !word[strcspn(word, " \t\n\"'\\$`*?[]{}()<>|&;#~!")];
        qb_str_text(&line, i ? " " : "");
        qb_str_text(&line, plain ? "" : "'");
        for (const char *p = word; *p; p++)
            if (*p == '\'')
                qb_str_text(&line, "'\\''");
            else
                qb_str_append(&line, p, 1);
        qb_str_text(&line, plain ? "" : "'");
    }
    qb_text_clean(qb_str_get(&line), 0, &clean);
    qb_str_text(out, "<pre>");
    qb_html_text(qb_str_get(&clean), out);
    qb_str_text(out, "</pre>\n");
    out->failed |= line.failed || clean.failed;
    qb_str_free(&line);
    qb_str_free(&clean);
}

static void put_data(const qb_row_document *d, qb_str *out) {
    const qb_json *data = qb_json_get(qb_json_get(d->results->doc, "context"), "data");
    for (const qb_json *f = qb_json_first(data); f; f = qb_json_next(f)) {
        const char *file = qb_json_string(qb_json_get(f, "file")),
                   *sha = qb_json_string(qb_json_get(f, "sha256"));
        const char *role = qb_json_string(qb_json_get(f, "role")),
                   *note = qb_json_string(qb_json_get(f, "note"));
        qb_str text = {0};
        qb_str_printf(&text, "%s%s%s", file ? file : "", sha ? ", SHA-256 " : "", sha ? sha : "");
        if (role) qb_str_printf(&text, ", %s", role);
        if (note) qb_str_printf(&text, "; %s", note);
        put_fact(qb_json_string(qb_json_get(f, "dataset")), qb_str_get(&text), out);
        qb_str_free(&text);
    }
}

void qb_report_facts(const qb_rows *rows, qb_str *out) {
    qb_str_text(out, "<section id=\"facts\"><h2>Where it comes from</h2>\n");
    for (int i = 0; i < rows->n_documents; i++) {
        const qb_row_document *d = &rows->documents[i];
        qb_str_text(out, "<h3>");
        qb_html_text(d->name, out);
        qb_str_text(out, "</h3>\n<dl>\n");
        put_fact("created", d->created, out);
        put_fact("suite", d->suite, out);
        put_fact("program", d->version, out);
        put_fact("commit", d->git, out);
        put_data(d, out);
        qb_str_text(out, "</dl>\n");
        if (d->n_command) put_command(d, out);
        for (int k = 0; k < rows->n_devices; k++)
            if (rows->devices[k].document == d) put_device(&rows->devices[k], out);
    }
    qb_str_text(out, "</section>\n");
}
