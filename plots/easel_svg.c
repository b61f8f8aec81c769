/* Pictures as SVG elements of a page. Colours are the page's custom properties (--h0 .. --h7 and their inks),
   so that light, dark and print each have their own; every series is a group that the page can hide, every
   mark tells its values in a title. */
#include "plots/bar_script.h"
#include "plots/easel.h"
#include "results/sink.h"
#include "results/text.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 800, HEIGHT = 520, MAX_TICS = 64, TIC_PX = 12, LABEL_PX = 11, AXIS_PX = 13 };

/* ---- small things ---- */

/* An attribute with its value. */
static void put_attribute(const char *name, const char *value, qb_str *out) {
    qb_str_printf(out, " %s=\"", name);
    qb_html_text(value, out);
    qb_str_text(out, "\"");
}

static void put_text(double x, double y, double px, const char *anchor, const char *class_name,
                     const char *text, qb_str *out) {
    qb_str_printf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" font-size=\"%.4g\" text-anchor=\"%s\">",
                  class_name, x, y + px * 0.35, px, anchor);
    qb_html_text(text, out);
    qb_str_text(out, "</text>\n");
}

static void put_amount(const char *words, double value, int digits, qb_str *out) {
    qb_str_text(out, words);
    qb_text_figure(value, digits, out);
}

static void put_line(double x0, double y0, double x1, double y1, const char *class_name, qb_str *out) {
    qb_str_printf(out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class_name,
                  x0, y0, x1, y1);
}

/* Dashes and marks follow plots/style.gp: each hue its own, each further variant of it too. */
static const char *dash_of(int hue, int variant, bool projected) {
    static const char *const dashes[] = {"none", "7 3", "2 3", "8 3 2 3", "8 3 2 3 2 3"};
    static const int first[] = {0, 0, 1, 3, 4, 2, 1, 3};
    return projected ? dashes[2] : dashes[(first[hue % 8] + variant) % 5];
}

/* A mark around (x, y): circle, square, triangles, diamond, pentagon, star. */
static void put_mark(int hue, bool hollow, double x, double y, double r, qb_str *out) {
    static const char *const shapes[] = {"",
                                         "",
                                         "-.9,-.9 .9,-.9 .9,.9 -.9,.9",
                                         "0,-1.2 1.1,.8 -1.1,.8",
                                         "0,-1.3 1.2,0 0,1.3 -1.2,0",
                                         "0,1.2 1.1,-.8 -1.1,-.8",
                                         "0,-1.15 1.1,-.35 .7,.95 -.7,.95 -1.1,-.35",
                                         "0,-1.3 .35,-.35 1.3,0 .35,.35 0,1.3 -.35,.35 -1.3,0 -.35,-.35"};
    const char *shape = shapes[hue % 8];
    qb_str_printf(out, "<g transform=\"translate(%.1f %.1f) scale(%.3g)\" class=\"mark%s\">", x, y, r,
                  hollow ? " hollow" : "");
    if (*shape)
        qb_str_printf(out, "<polygon points=\"%s\"/>", shape);
    else
        qb_str_text(out, "<circle r=\"1\"/>");
    qb_str_text(out, "</g>");
}

static void begin_svg(const char *title, const char *subtitle, int width, int height, qb_str *out) {
    qb_str_printf(out, "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"img\"", width, height);
    qb_str label = {0};
    qb_str_printf(&label, "%s. %s. The table holds the values.", title, subtitle ? subtitle : "");
    put_attribute("aria-label", qb_str_get(&label), out);
    qb_str_text(out, ">\n");
    out->failed |= label.failed;
    qb_str_free(&label);
}

static void begin_series(const char *series, int hue, bool projected, qb_str *out) {
    qb_str_printf(out, "<g class=\"series%s\" style=\"--c:var(--h%d);--i:var(--i%d)\"",
                  projected ? " projected" : "", hue % 8, hue % 8);
    put_attribute("data-series", series, out);
    qb_str_text(out, ">\n");
}

/* The picture joins the easel's list. Takes the string. */
static qb_status keep(qb_svg_easel *e, const char *name, const char *title, const char *subtitle,
                      qb_svg_picture made, qb_str *svg) {
    qb_status st = qb_str_status(svg);
    if (st == QB_OK) st = qb_arena_strdup(e->arena, qb_str_get(svg), &made.svg);
    if (st == QB_OK) st = qb_arena_strdup(e->arena, name, &made.name);
    if (st == QB_OK) st = qb_arena_strdup(e->arena, title, &made.title);
    if (st == QB_OK) st = qb_arena_strdup(e->arena, subtitle ? subtitle : "", &made.subtitle);
    if (st == QB_OK) st = qb_grow(&e->pictures, &e->capacity, e->n + 1, sizeof *e->pictures);
    if (st == QB_OK) e->pictures[e->n++] = made;
    qb_str_free(svg);
    return st;
}

static qb_status add_series(qb_svg_easel *e, const char *name, int hue, int variant, qb_svg_picture *p) {
    for (int i = 0; i < p->n_series; i++)
        if (!strcmp(p->series[i], name)) return QB_OK;
    p->hues[p->n_series] = hue;
    p->variants[p->n_series] = variant;
    return qb_arena_strdup(e->arena, name, &p->series[p->n_series++]);
}

static qb_status begin_picture(qb_svg_easel *e, int n, qb_svg_picture *p) {
    *p = (qb_svg_picture){0};
    qb_status st = qb_arena_alloc(e->arena, (size_t)n, sizeof *p->series, &p->series);
    if (st == QB_OK) st = qb_arena_alloc(e->arena, (size_t)n, sizeof *p->hues, &p->hues);
    if (st == QB_OK) st = qb_arena_alloc(e->arena, (size_t)n, sizeof *p->variants, &p->variants);
    return st;
}

/* ---- axes ---- */

static void put_tics(const qb_axis *a, bool vertical, qb_box area, double height, qb_str *out) {
    double values[MAX_TICS];
    int n = qb_axis_values(a, 8, values, MAX_TICS);
    for (int i = 0; i < n; i++) {
        qb_str text = {0};
        double place = qb_axis_place(a, values[i]);
        double x = area.x0 + place * (area.x1 - area.x0),
               y = height - (area.y0 + place * (area.y1 - area.y0));
        qb_axis_format(values[i], qb_axis_step(values, n), &text);
        if (vertical) {
            put_line(area.x0, y, area.x1, y, "grid", out);
            put_text(area.x0 - 8, y, TIC_PX, "end", "tic", qb_str_get(&text), out);
        } else {
            put_line(x, height - area.y0, x, height - area.y1, "grid", out);
            put_text(x, height - area.y0 + 16, TIC_PX, "middle", "tic", qb_str_get(&text), out);
        }
        qb_str_free(&text);
    }
}

static void put_axes(const char *x_label, const char *y_label, qb_box area, double height, qb_str *out) {
    put_line(area.x0, height - area.y0, area.x1, height - area.y0, "axis", out);
    put_text((area.x0 + area.x1) / 2, height - area.y0 + 42, AXIS_PX, "middle", "name", x_label, out);
    if (!*y_label) return;
    put_line(area.x0, height - area.y0, area.x0, height - area.y1, "axis", out);
    double middle = height - (area.y0 + area.y1) / 2;
    qb_str_printf(out, "<g transform=\"rotate(-90 18 %.1f)\">", middle);
    put_text(18, middle, AXIS_PX, "middle", "name", y_label, out);
    qb_str_text(out, "</g>\n");
}

/* ---- scatter ---- */

static void put_points(const qb_figure *f, const qb_placed *p, int series, double height, qb_str *out) {
    const qb_series *s = &f->series[series];
    qb_str path = {0};
    for (int i = 0; s->joined && i < f->n_points; i++)
        if (f->points[i].series == series)
            qb_str_printf(&path, "%s%.1f,%.1f", path.length ? " " : "", qb_figure_x(f, p, f->points[i].x),
                          height - qb_figure_y(f, p, f->points[i].y));
    if (path.length)
        qb_str_printf(out, "<polyline class=\"joined\" stroke-dasharray=\"%s\" points=\"%s\"/>\n",
                      dash_of(s->hue, s->variant, s->projected), qb_str_get(&path));
    out->failed |= path.failed;
    qb_str_free(&path);
    for (int i = 0; i < f->n_points; i++) {
        const qb_point *t = &f->points[i];
        if (t->series != series) continue;
        double x = qb_figure_x(f, p, t->x), y = height - qb_figure_y(f, p, t->y);
        if (t->spread > 0) {
            double low = f->y.log && t->y <= t->spread ? f->y.min : t->y - t->spread;
            put_line(x, height - qb_figure_y(f, p, low), x, height - qb_figure_y(f, p, t->y + t->spread),
                     "error", out);
        }
        qb_str_text(out, "<g class=\"tip\"><title>");
        qb_html_text(t->label ? t->label : s->name, out);
        put_amount(": ", t->y, 5, out);
        if (t->spread > 0) put_amount(" &#177; ", t->spread, 2, out);
        put_amount(" at ", t->x, 4, out);
        qb_str_printf(out, "%s</title>", t->noisy ? ", stayed noisy" : "");
        put_mark(s->hue, s->variant > 0 || s->projected, x, y, 5, out);
        if (t->noisy)
            qb_str_printf(out, "<path class=\"noisy\" d=\"M%.1f,%.1fl14,14m0,-14l-14,14\"/>", x - 7, y - 7);
        qb_str_text(out, "</g>\n");
    }
}

static void put_tag(const qb_figure *f, const qb_placed *p, int i, double height, qb_str *out) {
    const qb_tag *t = &p->tags[i];
    bool reference = p->points[i] < 0;
    qb_str_printf(out, "<g class=\"label\" style=\"--i:var(--i%d)\"", p->hues[i] % 8);
    if (!reference) put_attribute("data-series", f->series[f->points[p->points[i]].series].name, out);
    qb_str_text(out, ">");
    const qb_segment *to = &t->leading;
    if (t->leader) put_line(to->x0, height - to->y0, to->x1, height - to->y1, "leader", out);
    put_text(t->at_x, height - t->at_y, t->font_px, t->flush_right ? "end" : "start", "label", t->text, out);
    qb_str_text(out, "</g>\n");
}

static qb_status draw_scatter(qb_easel *easel, const char *name, const qb_figure *f) {
    qb_svg_easel *e = (qb_svg_easel *)easel;
    qb_canvas canvas = qb_easel_canvas(easel, WIDTH, HEIGHT);
    double height = canvas.height;
    qb_svg_picture picture;
    qb_placed p;
    qb_str out = {0};
    qb_status st;
    canvas.untitled = true; /* the page has headings */
    QB_TRY(st, qb_figure_place(f, canvas, e->arena, &p));
    QB_TRY(st, begin_picture(e, f->n_series, &picture));
    begin_svg(f->title, f->subtitle, canvas.width, canvas.height, &out);
    put_tics(&f->y, true, p.area, height, &out);
    put_tics(&f->x, false, p.area, height, &out);
    put_axes(f->x_label, f->y_label, p.area, height, &out);
    for (int i = 0; i < f->n_references; i++) {
        double y = height - qb_figure_y(f, &p, f->references[i].y);
        put_line(p.area.x0, y, p.area.x1, y, f->references[i].is_floor ? "reference floor" : "reference",
                 &out);
    }
    for (int i = 1; i < f->n_front; i++) {
        double x0 = qb_figure_x(f, &p, f->front[i - 1].x),
               y0 = height - qb_figure_y(f, &p, f->front[i - 1].y);
        double x1 = qb_figure_x(f, &p, f->front[i].x), y1 = height - qb_figure_y(f, &p, f->front[i].y);
        put_line(x0, y0, x1, y0, "front", &out);
        put_line(x1, y0, x1, y1, "front", &out);
    }
    for (int s = 0; s < f->n_series; s++) {
        const qb_series *series = &f->series[s];
        QB_TRY(st, add_series(e, series->name, series->hue, series->variant, &picture));
        begin_series(series->name, series->hue, series->projected, &out);
        put_points(f, &p, s, height, &out);
        qb_str_text(&out, "</g>\n");
    }
    for (int i = 0; i < p.n_tags; i++) put_tag(f, &p, i, height, &out);
    qb_str_text(&out, "</svg>\n");
    st = keep(e, name, f->title, f->subtitle, picture, &out);
out:
    qb_str_free(&out);
    return st;
}

/* ---- bars ---- */

static void put_bar(const qb_bar *b, const qb_axis *x, qb_box area, double y, qb_str *out) {
    double width = area.x1 - area.x0, end = area.x0 + qb_axis_place(x, b->value) * width;
    qb_str value = {0};
    begin_series(b->series, b->hue, b->projected, out);
    qb_str_text(out, "<g class=\"tip\"><title>");
    qb_html_text(b->label, out);
    put_amount(": ", b->value, 5, out);
    if (b->spread > 0) put_amount(" &#177; ", b->spread, 2, out);
    if (b->inner > 0) put_amount(", of it ", b->inner, 4, out);
    if (b->mark > 0) put_amount(", mark ", b->mark, 4, out);
    if (b->noisy) qb_str_text(out, ", stayed noisy");
    qb_str_printf(out, "</title><rect class=\"bar%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"16\"/>",
                  b->projected   ? " hollow"
                  : b->inner > 0 ? " pale"
                                 : "",
                  area.x0, y - 8, end - area.x0);
    if (b->inner > 0)
        qb_str_printf(out, "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"16\"/>",
                      area.x0, y - 8, qb_axis_place(x, b->inner) * width);
    for (double at = area.x0 + 6; b->noisy && at < end - 2;
         at += 8) { /* slanted lines in the paper's colour */
        double tall = fmin(16, end - at);
        qb_str_printf(out, "<path class=\"hatch\" d=\"M%.1f,%.1fl%.1f,%.1f\"/>", at, y + 8, tall, -tall);
    }
    qb_str_text(out, "</g>\n");
    double last = b->value + b->spread;
    if (b->spread > 0)
        put_line(area.x0 + qb_axis_place(x, b->value - b->spread) * width, y,
                 area.x0 + qb_axis_place(x, last) * width, y, "error bar", out);
    if (b->mark > 0) {
        put_mark(4, true, area.x0 + qb_axis_place(x, b->mark) * width, y, 5, out);
        if (b->mark > last - 0.02 * x->max && b->mark < last + 0.1 * x->max) last = b->mark;
    }
    qb_bar_value(b->value, &value);
    put_text(area.x0 - 8, y, LABEL_PX, "end", "label", b->label, out);
    put_text(area.x0 + qb_axis_place(x, last) * width + 8, y, LABEL_PX, "start", "value", qb_str_get(&value),
             out);
    qb_str_text(out, "</g>\n");
    qb_str_free(&value);
}

static qb_status draw_bars(qb_easel *easel, const char *name, const qb_bar_chart *c) {
    enum { ROW = 24, TOP = 8, BOTTOM = 52, RIGHT = 40 };
    qb_svg_easel *e = (qb_svg_easel *)easel;
    qb_canvas canvas = {WIDTH, TOP + BOTTOM + ROW * c->n, 0, NULL, true};
    const qb_box area = {qb_bars_left(c, canvas), BOTTOM, WIDTH - RIGHT, canvas.height - TOP};
    const qb_axis x = qb_bars_axis(c);
    qb_svg_picture picture;
    qb_str out = {0}, subtitle = {0};
    qb_status st;
    QB_TRY(st, begin_picture(e, c->n, &picture));
    begin_svg(c->title, c->subtitle, canvas.width, canvas.height, &out);
    put_tics(&x, false, area, canvas.height, &out);
    put_axes(c->x_label, "", area, canvas.height, &out);
    for (int i = 0; i < c->n; i++) {
        QB_TRY(st, add_series(e, c->bars[i].series, c->bars[i].hue, 0, &picture));
        put_bar(&c->bars[i], &x, area, TOP + ROW * (i + 0.5), &out);
    }
    qb_str_text(&out, "</svg>\n");
    qb_str_text(&subtitle, c->subtitle ? c->subtitle : "");
    if (c->inner_name) qb_str_printf(&subtitle, " · pale: %s, full: %s", c->outer_name, c->inner_name);
    if (c->mark_name) qb_str_printf(&subtitle, ", diamond: %s", c->mark_name);
    QB_TRY(st, qb_str_status(&subtitle));
    st = keep(e, name, c->title, qb_str_get(&subtitle), picture, &out);
out:
    qb_str_free(&out);
    qb_str_free(&subtitle);
    return st;
}

void qb_svg_easel_make(qb_svg_easel *e, qb_arena *arena) {
    *e = (qb_svg_easel){.easel = {.scatter = draw_scatter, .bars = draw_bars}, .arena = arena};
}
