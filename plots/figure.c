#include "plots/figure.h"

#include "base/file.h"
#include "results/sink.h"
#include "results/text.h"

#include <math.h>
#include <string.h>

enum { MAX_LABELS = 160, LABEL_PX = 11 };

qb_status qb_figure_load(const char *name, qb_str *script) {
    char *share = qb_share_dir(), *dir = share ? qb_path_join(share, "plots") : NULL;
    char *path = dir ? qb_path_join(dir, name) : NULL, *text = NULL;
    size_t n = 0;
    qb_status st;
    if (!path) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
    st = qb_file_read(path, 1 << 20, &text, &n);
    if (st != QB_OK) {
        st = qb_fail_prefix(st,
                            "the plot scripts that come with the program are not at hand (set BENCH_SHARE)");
        goto out;
    }
    qb_str_append(script, text, n);
    st = qb_str_status(script);
out:
    qb_free(share);
    qb_free(dir);
    qb_free(path);
    qb_free(text);
    return st;
}

static void put_variable(const char *name, const char *text, qb_str *out) {
    qb_str_printf(out, "%s = ", name);
    qb_gnuplot_quote(text ? text : "", out);
    qb_str_text(out, "\n");
}

static void put_axis(const char *which, const qb_axis *a, int wanted, qb_str *out) {
    qb_str_printf(out, "set %srange [%.12g:%.12g]\n", which, a->min, a->max);
    if (a->log) qb_str_printf(out, "set logscale %s\n", which);
    qb_str_printf(out, "set %stics ", which);
    qb_axis_tics(a, wanted, out);
    qb_str_text(out, "\n");
}

/* Of letters that let the whole line stand on the canvas: what it says, such as which part of the text was
   measured, is not cut off. */
static double subtitle_px(const char *text, qb_canvas canvas) {
    double scale = qb_canvas_scale(&canvas), px = LABEL_PX * scale;
    double width = qb_text_width(text ? text : "", px), room = canvas.width - 32 * scale;
    return width > room && room > 0 ? px * room / width : px;
}

qb_status qb_figure_begin(const qb_figure *f, qb_canvas canvas, const double margins[4], qb_str *script) {
    qb_str_printf(script, "font_scale = %.6g\n", qb_canvas_scale(&canvas));
    qb_status st = qb_figure_load("style.gp", script);
    if (st != QB_OK) return st;
    qb_str_text(script, "\n");
    put_variable("figure_title", f->title, script);
    put_variable("figure_subtitle", f->subtitle, script);
    qb_str_printf(script, "subtitle_px = %.4g\n", subtitle_px(f->subtitle, canvas));
    put_variable("x_label", f->x_label, script);
    put_variable("y_label", f->y_label, script);
    qb_str_printf(script, "canvas_width = %d.0\ncanvas_height = %d.0\nhas_title = %d\n", canvas.width,
                  canvas.height, !canvas.untitled);
    qb_str_printf(script, "set lmargin at screen %.6f\nset rmargin at screen %.6f\n",
                  margins[0] / canvas.width, 1 - margins[1] / canvas.width);
    qb_str_printf(script, "set bmargin at screen %.6f\nset tmargin at screen %.6f\n",
                  margins[2] / canvas.height, 1 - margins[3] / canvas.height);
    qb_str_printf(script, "area_x = %.6f\narea_y = %.6f\n",
                  (margins[0] + canvas.width - margins[1]) / 2 / canvas.width,
                  (margins[2] + canvas.height - margins[3]) / 2 / canvas.height);
    put_axis("x", &f->x, 8, script);
    put_axis("y", &f->y, 8, script);
    return qb_figure_load("titles.gp", script);
}

void qb_figure_text(qb_canvas canvas, const char *text, double x, double y, bool flush_right,
                    const char *style, qb_str *script) {
    qb_str_text(script, "set label ");
    qb_gnuplot_quote(text, script);
    qb_str_printf(script, " at screen %.6f,%.6f %s front %s\n", x / canvas.width, y / canvas.height,
                  flush_right ? "right" : "left", style);
}

static void put_line(qb_canvas canvas, double x0, double y0, double x1, double y1, const char *style,
                     qb_str *script) {
    qb_str_printf(script, "set arrow from screen %.6f,%.6f to screen %.6f,%.6f nohead %s\n",
                  x0 / canvas.width, y0 / canvas.height, x1 / canvas.width, y1 / canvas.height, style);
}

/* ---- data ---- */

/* As data, since not every terminal dashes an arrow. */
static void put_references(const qb_figure *f, qb_str *script) {
    static const char *const names[] = {"baselines", "floors", "projections"};
    for (int kind = 0; kind < 3; kind++) {
        int n = 0;
        qb_str_printf(script, "$%s << QB_END\n", names[kind]);
        for (int i = 0; i < f->n_references; i++) {
            const qb_reference *r = &f->references[i];
            if ((r->is_floor ? 1 : r->projected ? 2 : 0) != kind) continue;
            qb_str_printf(script, "%.12g %.12g\n%.12g %.12g\n\n", f->x.min, r->y, f->x.max, r->y);
            n++;
        }
        qb_str_printf(script, "%sQB_END\nn_%s = %d\n", n ? "" : "0 0\n", names[kind], n > 0);
    }
}

static void put_noisy(const qb_figure *f, qb_str *script) {
    int n = 0;
    qb_str_text(script, "$noisy << QB_END\n");
    for (int i = 0; i < f->n_points; i++) {
        if (!f->points[i].noisy) continue;
        qb_str_printf(script, "%.12g %.12g\n", f->points[i].x, f->points[i].y);
        n++;
    }
    qb_str_printf(script, "%sQB_END\nn_noisy = %d\n", n ? "" : "0 0\n", n > 0);
}

static void put_points(const qb_figure *f, qb_str *script) {
    qb_str hues = {0}, variants = {0}, joined_hues = {0}, joined_variants = {0}, lines = {0};
    qb_str projected = {0}, joined_projected = {0};
    int joined = 0;
    qb_str_text(script, "$points << QB_END\n");
    for (int s = 0; s < f->n_series; s++) {
        for (int i = 0; i < f->n_points; i++) {
            const qb_point *p = &f->points[i];
            if (p->series != s) continue;
            qb_str_printf(script, "%.12g %.12g %.12g\n", p->x, p->y, p->spread > 0 ? p->spread : 0);
            if (f->series[s].joined) qb_str_printf(&lines, "%.12g %.12g\n", p->x, p->y);
        }
        qb_str_text(script, "\n\n");
        qb_str_printf(&hues, "%d ", f->series[s].hue);
        qb_str_printf(&variants, "%d ", f->series[s].variant);
        qb_str_printf(&projected, "%d ", f->series[s].projected);
        if (!f->series[s].joined) continue;
        qb_str_text(&lines, "\n\n");
        qb_str_printf(&joined_hues, "%d ", f->series[s].hue);
        qb_str_printf(&joined_variants, "%d ", f->series[s].variant);
        qb_str_printf(&joined_projected, "%d ", f->series[s].projected);
        joined++;
    }
    qb_str_printf(script, "QB_END\n$lines << QB_END\n%sQB_END\n$front << QB_END\n",
                  joined ? qb_str_get(&lines) : "0 0\n");
    for (int i = 0; i < f->n_front; i++) qb_str_printf(script, "%.12g %.12g\n", f->front[i].x, f->front[i].y);
    qb_str_printf(script, "%sQB_END\n", f->n_front ? "" : "0 0\n");
    qb_str_printf(script, "n_series = %d\nn_lines = %d\nn_fronts = %d\n", f->n_series, joined,
                  f->n_front > 1);
    put_noisy(f, script);
    put_references(f, script);
    put_variable("series_hue", qb_str_get(&hues), script);
    put_variable("series_variant", qb_str_get(&variants), script);
    put_variable("line_hue", qb_str_get(&joined_hues), script);
    put_variable("line_variant", qb_str_get(&joined_variants), script);
    put_variable("series_projected", qb_str_get(&projected), script);
    put_variable("line_projected", qb_str_get(&joined_projected), script);
    script->failed |= hues.failed || variants.failed || lines.failed || joined_hues.failed ||
                      joined_variants.failed || projected.failed || joined_projected.failed;
    qb_str_free(&projected);
    qb_str_free(&joined_projected);
    qb_str_free(&hues);
    qb_str_free(&variants);
    qb_str_free(&joined_hues);
    qb_str_free(&joined_variants);
    qb_str_free(&lines);
}

/* ---- labels ---- */

static double pixel(const qb_axis *a, double value, double from, double to) {
    double place = qb_axis_place(a, value);
    return from + fmin(fmax(place, -1), 2) * (to - from);
}

/* What labels should not cover: the lines between joined points, reference lines, error bars, the front. */
static int segments_of(const qb_figure *f, qb_box area, qb_segment *out) {
    int n = 0;
    for (int i = 0; i < f->n_points; i++) {
        const qb_point *p = &f->points[i];
        double x = pixel(&f->x, p->x, area.x0, area.x1), y = pixel(&f->y, p->y, area.y0, area.y1);
        if (p->spread > 0) {
            double low = f->y.log && p->y <= p->spread ? f->y.min : p->y - p->spread;
            out[n++] = (qb_segment){x, pixel(&f->y, low, area.y0, area.y1), x,
                                    pixel(&f->y, p->y + p->spread, area.y0, area.y1)};
        }
        if (i == 0 || f->points[i - 1].series != p->series || !f->series[p->series].joined) continue;
        const qb_point *before = &f->points[i - 1];
        out[n++] = (qb_segment){pixel(&f->x, before->x, area.x0, area.x1),
                                pixel(&f->y, before->y, area.y0, area.y1), x, y};
    }
    for (int i = 1; i < f->n_front; i++) {
        double x0 = pixel(&f->x, f->front[i - 1].x, area.x0, area.x1),
               x1 = pixel(&f->x, f->front[i].x, area.x0, area.x1);
        double y0 = pixel(&f->y, f->front[i - 1].y, area.y0, area.y1),
               y1 = pixel(&f->y, f->front[i].y, area.y0, area.y1);
        out[n++] = (qb_segment){x0, y0, x1, y0};
        out[n++] = (qb_segment){x1, y0, x1, y1};
    }
    for (int i = 0; i < f->n_references; i++) {
        double y = pixel(&f->y, f->references[i].y, area.y0, area.y1);
        out[n++] = (qb_segment){area.x0, y, area.x1, y};
    }
    return n;
}

static void put_labels(qb_canvas canvas, const qb_tag *tags, const int *hues, int n, qb_str *script) {
    for (int i = 0; i < n; i++) {
        const qb_tag *t = &tags[i];
        qb_str style = {0};
        qb_str_printf(&style, "font label_font textcolor rgb ink(%d)%s", hues[i],
                      t->on_segment ? " boxed" : "");
        qb_figure_text(canvas, t->text, t->at_x, t->at_y, t->flush_right, qb_str_get(&style), script);
        if (t->leader)
            put_line(canvas, t->leading.x0, t->leading.y0, t->leading.x1, t->leading.y1,
                     "back lc rgb '#b0b0b0' lw 0.6", script);
        qb_str_free(&style);
    }
}

double qb_figure_x(const qb_figure *f, const qb_placed *p, double x) {
    return pixel(&f->x, x, p->area.x0, p->area.x1);
}
double qb_figure_y(const qb_figure *f, const qb_placed *p, double y) {
    return pixel(&f->y, y, p->area.y0, p->area.y1);
}

static void margins_of(qb_canvas canvas, double margins[4]) {
    double scale = qb_canvas_scale(&canvas);
    margins[0] = 82 * scale;
    margins[1] = 26 * scale;
    margins[2] = 60 * scale;
    margins[3] = (canvas.untitled ? 14 : 70) * scale;
}

qb_status qb_figure_place(const qb_figure *f, qb_canvas canvas, qb_arena *arena, qb_placed *out) {
    double margins[4], font = LABEL_PX * qb_canvas_scale(&canvas);
    int *points;
    qb_status st;
    margins_of(canvas, margins);
    *out =
        (qb_placed){.area = {margins[0], margins[2], canvas.width - margins[1], canvas.height - margins[3]}};
    const qb_box area = out->area, inner = {area.x0 + 4, area.y0 + 3, area.x1 - 4, area.y1 - 3};
    QB_TRY(st, qb_arena_alloc(arena, MAX_LABELS, sizeof *out->tags, &out->tags));
    QB_TRY(st, qb_arena_alloc(arena, MAX_LABELS, sizeof *out->hues, &out->hues));
    QB_TRY(st, qb_arena_alloc(arena, MAX_LABELS, sizeof *points, &points));
    size_t most = 2 * (size_t)(f->n_points + f->n_front) + QB_REFERENCES_MAX;
    QB_TRY(st, qb_arena_alloc(arena, most, sizeof *out->segments, &out->segments));
    out->points = points;
    for (int i = 0; i < f->n_references; i++) {
        const qb_reference *r = &f->references[i];
        points[out->n_tags] = -1;
        out->hues[out->n_tags] = 0;
        out->tags[out->n_tags++] = (qb_tag){.text = r->label,
                                            .x = inner.x1,
                                            .y = qb_figure_y(f, out, r->y),
                                            .on_line = true,
                                            .line_x0 = inner.x0,
                                            .font_px = font};
    }
    for (int i = 0; i < f->n_points && out->n_tags < MAX_LABELS; i++) {
        const qb_point *p = &f->points[i];
        if (!p->label) continue;
        points[out->n_tags] = i;
        out->hues[out->n_tags] = f->series[p->series].hue;
        out->tags[out->n_tags++] = (qb_tag){.text = p->label,
                                            .x = qb_figure_x(f, out, p->x),
                                            .y = qb_figure_y(f, out, p->y),
                                            .group = 1 + p->series,
                                            .font_px = font};
    }
    out->n_segments = segments_of(f, area, out->segments);
    st = qb_tags_place(out->tags, out->n_tags, inner, out->segments, out->n_segments);
out:
    return st;
}

qb_figure qb_figure_with_room(const qb_figure *f, qb_canvas canvas) {
    double margins[4], lowest = (double)INFINITY;
    qb_figure own = *f;
    qb_axis *y = &own.y;
    margins_of(canvas, margins);
    double height = canvas.height - margins[2] - margins[3];
    double need = (LABEL_PX * 1.2 + 8) * qb_canvas_scale(&canvas) / height;
    for (int i = 0; i < f->n_references; i++) lowest = fmin(lowest, f->references[i].y);
    if (!isfinite(lowest) || !(need < 0.5) || qb_axis_place(y, lowest) >= need) return own;
    double low = y->log ? log(lowest) : lowest, high = y->log ? log(y->max) : y->max;
    double min = (low - need * high) / (1 - need);
    y->min = y->log ? exp(min) : min;
    return own;
}

qb_status qb_figure_scatter(const qb_figure *figure, qb_canvas canvas, qb_arena *arena, qb_str *script) {
    double margins[4];
    qb_placed placed;
    qb_status st;
    margins_of(canvas, margins);
    const qb_figure own = qb_figure_with_room(figure, canvas), *f = &own;
    QB_TRY(st, qb_figure_begin(f, canvas, margins, script));
    QB_TRY(st, qb_figure_place(f, canvas, arena, &placed));
    put_labels(canvas, placed.tags, placed.hues, placed.n_tags, script);
    put_points(f, script);
    QB_TRY(st, qb_figure_load("scatter.gp", script));
out:
    return st;
}

void qb_figure_csv(const qb_figure *f, qb_str *csv) {
    qb_str_text(csv, "series,label,");
    qb_csv_text(f->x_label, csv);
    qb_str_text(csv, ",");
    qb_csv_text(f->y_label, csv);
    qb_str_text(csv, ",half error bar,noisy\r\n");
    for (int i = 0; i < f->n_points; i++) {
        const qb_point *p = &f->points[i];
        qb_csv_text(f->series[p->series].name, csv);
        qb_str_text(csv, ",");
        qb_csv_text(p->label ? p->label : "", csv);
        const double values[] = {p->x, p->y, p->spread > 0 ? p->spread : (double)NAN};
        for (int k = 0; k < 3; k++) {
            qb_str_text(csv, ",");
            qb_number_text(values[k], csv);
        }
        qb_str_text(csv, p->noisy ? ",1\r\n" : ",0\r\n");
    }
    for (int i = 0; i < f->n_references; i++) {
        qb_str_text(csv, "reference,");
        qb_csv_text(f->references[i].label, csv);
        qb_str_text(csv, ",,");
        qb_number_text(f->references[i].y, csv);
        qb_str_text(csv, ",,\r\n");
    }
}
