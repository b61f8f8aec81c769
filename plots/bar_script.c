/* A bar chart as a gnuplot script. */
#include "plots/bar_script.h"

#include "results/sink.h"

#include <math.h>
#include <stdio.h>

enum { ROW_PX = 24, HEAD_PX = 78, UNTITLED_PX = 14, LEGEND_PX = 22, FOOT_PX = 58, FONT_PX = 11 };

static bool has_legend(const qb_bar_chart *c) {
    return c->inner_name || c->mark_name;
}

static double head_px(const qb_bar_chart *c, qb_canvas canvas) {
    return ((canvas.untitled ? UNTITLED_PX : HEAD_PX) + (has_legend(c) ? LEGEND_PX : 0)) *
           qb_canvas_scale(&canvas);
}

int qb_bars_height(const qb_bar_chart *c, qb_canvas style) {
    return (int)(head_px(c, style) + (FOOT_PX + ROW_PX * c->n) * qb_canvas_scale(&style));
}

double qb_bars_left(const qb_bar_chart *c, qb_canvas canvas) {
    double widest = 0, scale = qb_canvas_scale(&canvas);
    for (int i = 0; i < c->n; i++) widest = fmax(widest, qb_text_width(c->bars[i].label, FONT_PX * scale));
    return widest + 28 * scale;
}

qb_axis qb_bars_axis(const qb_bar_chart *c) {
    double max = 0;
    for (int i = 0; i < c->n; i++)
        max = fmax(max, fmax(c->bars[i].value + c->bars[i].spread, c->bars[i].mark));
    return qb_axis_fit(0, max, 0.09, false, true);
}

void qb_bar_value(double value, qb_str *out) {
    if (value < 0.01 || value >= 1e7)
        qb_str_printf(out, value < 0.01 ? "%.1g" : "%.3g", value);
    else
        qb_str_printf(out, "%.*f", value >= 100 ? 0 : value >= 10 ? 1 : 2, value);
}

/* The ways of filling a bar; plots/bars.gp knows them by these numbers. */
enum { PLAIN, PROJECTED, NOISY };

static void put_bars(const qb_bar *bars, int n, qb_str *out) {
    bool inner = false, mark = false;
    qb_str_text(out, "$bars << QB_END\n");
    for (int i = 0; i < n; i++) {
        qb_str_printf(out, "%d %.12g %.12g %d %.12g %.12g %d\n", n - i, bars[i].value, bars[i].spread,
                      bars[i].hue, bars[i].inner, bars[i].mark,
                      bars[i].projected ? PROJECTED
                      : bars[i].noisy   ? NOISY
                                        : PLAIN);
        inner |= bars[i].inner > 0;
        mark |= bars[i].mark > 0;
    }
    qb_str_printf(out, "QB_END\nhas_inner = %d\nhas_mark = %d\n", inner, mark);
}

/* Swatches and words from the right edge to the left, above the bars. */
static void put_legend(const qb_bar_chart *chart, qb_canvas canvas, qb_str *out) {
    const struct {
        const char *name, *colour; /* no colour: the mark */
    } items[] = {{chart->mark_name, NULL}, {chart->inner_name, "#4d4d4d"}, {chart->outer_name, "#c3c3c3"}};
    double s = qb_canvas_scale(&canvas), x = canvas.width - 20 * s,
           y = canvas.height - head_px(chart, canvas) + (LEGEND_PX + 8) * s;
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        if (!items[i].name) continue;
        x -= qb_text_width(items[i].name, FONT_PX * s);
        qb_figure_text(canvas, items[i].name, x, y, false, "font label_font textcolor rgb '#333333'", out);
        if (items[i].colour)
            qb_str_printf(out,
                          "set object rectangle from screen %.6f,%.6f to screen %.6f,%.6f fc rgb '%s' fs "
                          "solid noborder\n",
                          (x - 24 * s) / canvas.width, (y - 5 * s) / canvas.height,
                          (x - 6 * s) / canvas.width, (y + 5 * s) / canvas.height, items[i].colour);
        else
            qb_str_printf(
                out,
                "set label '' at screen %.6f,%.6f point pt 12 ps 1.1 * point_scale lw 1.4 lc rgb '#000000'\n",
                (x - 12 * s) / canvas.width, y / canvas.height);
        x -= 40 * s;
    }
}

/* Case names to the left of their bars, values behind the bars' ends. */
static void put_row_labels(const qb_figure *f, qb_canvas canvas, const double margins[4], const qb_bar *bars,
                           int n, qb_str *out) {
    double left = margins[0], right = canvas.width - margins[1], bottom = margins[2],
           top = canvas.height - margins[3], s = qb_canvas_scale(&canvas);
    for (int i = 0; i < n; i++) {
        double y = bottom + qb_axis_place(&f->y, n - i) * (top - bottom);
        double end = bars[i].value + bars[i].spread,
               gap = (bars[i].mark - end) / (f->x.max - f->x.min) * (right - left);
        if (gap > -12 * s && gap < 40 * s)
            end = fmax(end, bars[i].mark); /* no room between the bar's end and the mark */
        char style[80];
        qb_str value = {0};
        snprintf(style, sizeof style, "font label_font textcolor rgb ink(%d)", bars[i].hue);
        qb_bar_value(bars[i].value, &value);
        qb_figure_text(canvas, bars[i].label, left - 8 * s, y, true, style, out);
        qb_figure_text(canvas, qb_str_get(&value), left + qb_axis_place(&f->x, end) * (right - left) + 7 * s,
                       y, false, "font label_font textcolor rgb '#333333'", out);
        qb_str_free(&value);
    }
}

qb_status qb_bars_script(const qb_bar_chart *c, qb_canvas canvas, qb_str *script) {
    double s = qb_canvas_scale(&canvas);
    const double margins[4] = {qb_bars_left(c, canvas), 30 * s, FOOT_PX * s, head_px(c, canvas)};
    qb_figure f = {.title = c->title,
                   .subtitle = c->subtitle,
                   .x_label = c->x_label,
                   .y_label = "",
                   .y = {0.4, c->n + 0.6, false}};
    f.x = qb_bars_axis(c);
    qb_status st;
    QB_TRY(st, qb_figure_begin(&f, canvas, margins, script));
    put_row_labels(&f, canvas, margins, c->bars, c->n, script);
    put_bars(c->bars, c->n, script);
    if (has_legend(c)) put_legend(c, canvas, script);
    st = qb_figure_load("bars.gp", script);
out:
    return st;
}

void qb_bars_csv(const qb_bar_chart *c, qb_str *csv) {
    const char *names[] = {c->outer_name ? c->outer_name : c->x_label, "half error bar", c->inner_name,
                           c->mark_name};
    qb_str_text(csv, "series,label");
    for (int k = 0; k < 4; k++) {
        if (!names[k]) continue;
        qb_str_text(csv, ",");
        qb_csv_text(names[k], csv);
    }
    qb_str_text(csv, ",noisy\r\n");
    for (int i = 0; i < c->n; i++) {
        const double values[] = {c->bars[i].value, c->bars[i].spread, c->bars[i].inner, c->bars[i].mark};
        qb_csv_text(c->bars[i].series, csv);
        qb_str_text(csv, ",");
        qb_csv_text(c->bars[i].label, csv);
        for (int k = 0; k < 4; k++) {
            if (!names[k]) continue;
            qb_str_text(csv, ",");
            if (values[k] > 0) qb_number_text(values[k], csv);
        }
        qb_str_text(csv, c->bars[i].noisy ? ",1\r\n" : ",0\r\n");
    }
}
