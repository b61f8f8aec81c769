/* The error of each layer: one line a quantized case. Errors of the output (with the Hessian) and of the
   weights are different quantities and never share a picture. */
#include "plots/pictures.h"
#include "results/sink.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 860,
    HEIGHT = 540,
    MAX_LINES = 40,
    MAX_LAYERS = 1024,
    MAX_MARKS = 4000,
    FONT_PX = 11,
    LABEL_STEP_PX = 14
};

typedef struct line {
    const qb_entry *entry;
    double sum[MAX_LAYERS];
    int count[MAX_LAYERS];
    int last, variant; /* last layer with data */
    double label_y;
} line;

/* Whether a module has a place in the picture: of that kind, in a layer, with an error that a logarithmic
   axis can show. */
static bool is_drawn(const qb_row_module *m, bool of_output) {
    return m->layer >= 0 && m->layer < MAX_LAYERS && m->relative_error > 0 && m->of_output == of_output;
}

static bool fill_line(const qb_entry *e, bool of_output, line *out) {
    *out = (line){.entry = e, .last = -1};
    for (int i = 0; i < e->c->n_modules; i++) {
        const qb_row_module *m = &e->c->modules[i];
        if (!is_drawn(m, of_output)) continue;
        out->sum[m->layer] += m->relative_error;
        out->count[m->layer]++;
        if (m->layer > out->last) out->last = m->layer;
    }
    return out->last >= 0;
}

static double mean_at(const line *l, int layer) {
    return l->sum[layer] / l->count[layer];
}

/* ---- labels at the lines' ends ---- */

static int by_label_y(const void *a, const void *b) {
    const line *x = *(line *const *)a, *y = *(line *const *)b;
    return (x->label_y < y->label_y) - (x->label_y > y->label_y);
}

/* From the top down each label keeps its distance; what falls out below pushes the others up again. */
static void spread_labels(line **order, int n, double bottom, double top, double step) {
    qsort(order, (size_t)n, sizeof *order, by_label_y);
    double limit = top;
    for (int i = 0; i < n; i++) {
        order[i]->label_y = fmin(order[i]->label_y, limit);
        limit = order[i]->label_y - step;
    }
    limit = bottom;
    for (int i = n - 1; i >= 0; i--) {
        order[i]->label_y = fmax(order[i]->label_y, limit);
        limit = order[i]->label_y + step;
    }
}

static void put_end_labels(const qb_figure *f, qb_canvas canvas, const double margins[4], line *lines, int n,
                           qb_str *out) {
    double left = margins[0], right = canvas.width - margins[1], bottom = margins[2],
           top = canvas.height - margins[3], scale = qb_canvas_scale(&canvas);
    line *order[MAX_LINES] = {NULL};
    for (int i = 0; i < n; i++) {
        order[i] = &lines[i];
        lines[i].label_y = bottom + qb_axis_place(&f->y, mean_at(&lines[i], lines[i].last)) * (top - bottom);
    }
    spread_labels(order, n, bottom, top, LABEL_STEP_PX * scale);
    for (int i = 0; i < n; i++) {
        const line *l = &lines[i];
        double x = left + qb_axis_place(&f->x, l->last) * (right - left);
        double y = bottom + qb_axis_place(&f->y, mean_at(l, l->last)) * (top - bottom);
        char style[80];
        snprintf(style, sizeof style, "font label_font textcolor rgb ink(%d)", l->entry->hue);
        qb_figure_text(canvas, l->entry->label, right + 22 * scale, l->label_y, false, style, out);
        qb_str_printf(
            out, "set arrow from screen %.6f,%.6f to screen %.6f,%.6f nohead back lc rgb '#b0b0b0' lw 0.6\n",
            (x + 5 * scale) / canvas.width, y / canvas.height, (right + 19 * scale) / canvas.width,
            l->label_y / canvas.height);
    }
}

/* ---- data ---- */

static void put_data(bool of_output, line *lines, int n, qb_str *out) {
    qb_str modules = {0}, hues = {0}, variants = {0};
    int marks = 0;
    qb_str_text(out, "$layers << QB_END\n");
    for (int i = 0; i < n; i++) {
        for (int k = 0; k <= lines[i].last; k++)
            if (lines[i].count[k]) qb_str_printf(out, "%d %.9g\n", k, mean_at(&lines[i], k));
        for (int k = 0; k < lines[i].entry->c->n_modules; k++) {
            const qb_row_module *m = &lines[i].entry->c->modules[k];
            if (!is_drawn(m, of_output)) continue;
            qb_str_printf(&modules, "%d %.9g\n", m->layer, m->relative_error);
            marks++;
        }
        qb_str_text(out, "\n\n");
        qb_str_text(&modules, "\n\n");
        qb_str_printf(&hues, "%d ", lines[i].entry->hue);
        qb_str_printf(&variants, "%d ", lines[i].variant);
    }
    /* Many thousand marks are a grey cloud and a heavy file. */
    bool few = marks <= MAX_MARKS;
    qb_str_printf(out, "QB_END\n$modules << QB_END\n%sQB_END\n", few ? qb_str_get(&modules) : "0 0\n");
    qb_str_printf(out, "n_cases = %d\nhas_modules = %d\ncase_hue = '%s'\ncase_variant = '%s'\n", n, few,
                  qb_str_get(&hues), qb_str_get(&variants));
    out->failed |= modules.failed || hues.failed || variants.failed;
    qb_str_free(&modules);
    qb_str_free(&hues);
    qb_str_free(&variants);
}

static void put_csv(bool of_output, const line *lines, int n, qb_str *out) {
    qb_str_printf(out, "label,layer,matrix,%s\r\n",
                  of_output ? "relative output error" : "relative squared weight error");
    for (int i = 0; i < n; i++)
        for (int k = 0; k < lines[i].entry->c->n_modules; k++) {
            const qb_row_module *m = &lines[i].entry->c->modules[k];
            if (!is_drawn(m, of_output)) continue;
            qb_csv_text(lines[i].entry->label, out);
            qb_str_printf(out, ",%d,", m->layer);
            qb_csv_text(m->name, out);
            qb_str_text(out, ",");
            qb_number_text(m->relative_error, out);
            qb_str_text(out, "\r\n");
        }
}

static void fit_axes(bool of_output, const line *lines, int n, qb_figure *f) {
    double min = (double)INFINITY, max = 0;
    int last = 0;
    for (int i = 0; i < n; i++) {
        if (lines[i].last > last) last = lines[i].last;
        for (int k = 0; k < lines[i].entry->c->n_modules; k++) {
            const qb_row_module *m = &lines[i].entry->c->modules[k];
            if (!is_drawn(m, of_output)) continue;
            min = fmin(min, m->relative_error);
            max = fmax(max, m->relative_error);
        }
    }
    f->x = (qb_axis){-0.3, last + 0.3, false};
    f->y = qb_axis_fit(min, max, 0.06, true, false);
}

/* Whole layers only; at most a dozen. */
static void put_layer_tics(const line *lines, int n, qb_str *out) {
    int last = 0;
    for (int i = 0; i < n; i++)
        if (lines[i].last > last) last = lines[i].last;
    int step = last < 12 ? 1 : last < 24 ? 2 : last < 60 ? 5 : 10 * (1 + last / 120);
    qb_str_printf(out, "set xtics 0, %d, %d\n", step, last);
}

static qb_status draw_kind(const qb_picture_job *job, const qb_panel *panel, bool of_output, bool name_kind) {
    line *lines;
    qb_str script = {0}, csv = {0};
    int n = 0;
    qb_arena arena = {0};
    qb_status st;
    QB_TRY(st, qb_arena_alloc(&arena, MAX_LINES, sizeof *lines, &lines));
    for (int i = 0; i < job->sheet->n && n < MAX_LINES; i++) {
        const qb_entry *e = &job->sheet->entries[i];
        if (!qb_panel_has(panel, e) || !fill_line(e, of_output, &lines[n])) continue;
        for (int k = 0; k < n; k++) lines[n].variant += lines[k].entry->hue == e->hue;
        n++;
    }
    if (n == 0) goto out;
    const qb_canvas canvas = qb_easel_canvas(job->easel, WIDTH, HEIGHT);
    double widest = 0, scale = qb_canvas_scale(&canvas);
    for (int i = 0; i < n; i++) widest = fmax(widest, qb_text_width(lines[i].entry->label, FONT_PX * scale));
    const double margins[4] = {82 * scale, widest + 52 * scale, 60 * scale,
                               (canvas.untitled ? 14 : 70) * scale};
    qb_figure f = {.title = of_output ? "Error of the layers' outputs" : "Error of the layers' weights",
                   .x_label = "layer",
                   .y_label = of_output ? "relative output error" : "relative squared weight error"};
    QB_TRY(st,
           qb_sheet_subtitle(
               job->sheet, panel, NULL,
               of_output ? "(w-q) H (w-q)ᵀ over w H wᵀ; line: mean of a layer's matrices, dots: each matrix"
                         : "|w-q|² over |w|²; line: mean of a layer's matrices, dots: each matrix",
               &f.subtitle));
    fit_axes(of_output, lines, n, &f);
    QB_TRY(st, qb_figure_begin(&f, canvas, margins, &script));
    put_layer_tics(lines, n, &script);
    put_end_labels(&f, canvas, margins, lines, n, &script);
    put_data(of_output, lines, n, &script);
    QB_TRY(st, qb_figure_load("layers.gp", &script));
    char name[160];
    snprintf(name, sizeof name, "%s%s%s", job->name, panel->suffix,
             !name_kind  ? ""
             : of_output ? "-output"
                         : "-weights");
    put_csv(of_output, lines, n, &csv);
    QB_TRY(st, job->easel->script(job->easel, name, canvas, qb_str_get(&script), qb_str_get(&csv)));
out:
    qb_str_free(&script);
    qb_str_free(&csv);
    qb_arena_free(&arena);
    return st;
}

static bool has_kind(const qb_picture_job *job, const qb_panel *panel, bool of_output) {
    for (int i = 0; i < job->sheet->n; i++) {
        const qb_entry *e = &job->sheet->entries[i];
        for (int k = 0; qb_panel_has(panel, e) && k < e->c->n_modules; k++)
            if (is_drawn(&e->c->modules[k], of_output)) return true;
    }
    return false;
}

qb_status qb_picture_layer_error(const qb_picture_job *job) {
    qb_panel *panels;
    int n;
    qb_status st;
    if (!job->easel->takes_scripts) return QB_OK;
    QB_TRY(st, qb_sheet_panels(job->sheet, QB_PANEL_MODEL, &panels, &n));
    for (int i = 0; i < n; i++) {
        bool output = has_kind(job, &panels[i], true), weights = has_kind(job, &panels[i], false);
        if (output) QB_TRY(st, draw_kind(job, &panels[i], true, weights));
        if (weights) QB_TRY(st, draw_kind(job, &panels[i], false, output));
    }
out:
    return st;
}
