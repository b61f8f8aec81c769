#include "plots/bar_script.h"
#include "plots/easel.h"

enum { WIDTH = 800, HEIGHT = 520 };

qb_canvas qb_easel_canvas(const qb_easel *e, int width, int height) {
    qb_canvas canvas = e->style;
    double scale = qb_canvas_scale(&canvas);
    if (!canvas.width) canvas.width = (int)(width * scale);
    if (!canvas.height) canvas.height = (int)(height * scale);
    return canvas;
}

static qb_status draw_script(qb_easel *easel, const char *name, qb_canvas canvas, const char *script,
                             const char *csv) {
    qb_gnuplot_easel *e = (qb_gnuplot_easel *)easel;
    qb_status st = qb_gnuplot_draw(e->terminals, e->dir, name, canvas, script, e->n_files);
    if (st == QB_OK && e->sources) st = qb_gnuplot_sources(e->dir, name, canvas, script, csv, e->n_files);
    return st;
}

static qb_status draw_scatter(qb_easel *easel, const char *name, const qb_figure *f) {
    const qb_canvas canvas = qb_easel_canvas(easel, WIDTH, HEIGHT);
    qb_arena arena = {0};
    qb_str script = {0}, csv = {0};
    qb_status st = qb_figure_scatter(f, canvas, &arena, &script);
    qb_figure_csv(f, &csv);
    if (st == QB_OK) st = qb_str_status(&script);
    if (st == QB_OK) st = draw_script(easel, name, canvas, qb_str_get(&script), qb_str_get(&csv));
    qb_str_free(&script);
    qb_str_free(&csv);
    qb_arena_free(&arena);
    return st;
}

static qb_status draw_bars(qb_easel *easel, const char *name, const qb_bar_chart *chart) {
    qb_canvas canvas = qb_easel_canvas(easel, WIDTH, 1);
    qb_str script = {0}, csv = {0};
    if (!easel->style.height) canvas.height = qb_bars_height(chart, easel->style);
    qb_status st = qb_bars_script(chart, canvas, &script);
    qb_bars_csv(chart, &csv);
    if (st == QB_OK) st = qb_str_status(&script);
    if (st == QB_OK) st = draw_script(easel, name, canvas, qb_str_get(&script), qb_str_get(&csv));
    qb_str_free(&script);
    qb_str_free(&csv);
    return st;
}

void qb_gnuplot_easel_make(qb_gnuplot_easel *e) {
    e->easel.scatter = draw_scatter;
    e->easel.bars = draw_bars;
    e->easel.script = draw_script;
    e->easel.takes_scripts = true;
}
