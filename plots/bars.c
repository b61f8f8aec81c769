/* Pictures with a bar a case: prefill speed, memory, quantization time. */
#include "plots/pictures.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 800, ROW_PX = 24, HEAD_PX = 78, LEGEND_PX = 22, FOOT_PX = 58, MAX_ROWS = 60, FONT_PX = 11 };

typedef struct bar {
    const qb_entry *entry;
    double value, spread, inner, mark; /* 0: none */
} bar;

/* Reads one case; false: it has no bar. */
typedef bool (*bar_fn)(const qb_picture_job *job, const qb_entry *e, bar *out);

typedef struct bar_kind {
    const char *title, *x_label, *tail, *protocol; /* tail and protocol go into the subtitle, may be NULL */
    const char *outer_name, *inner_name, *mark_name;
    bar_fn read;
    double unit;
} bar_kind;

static void put_value(double value, qb_str *out) {
    if (value < 0.01)
        qb_str_printf(out, "%.1g", value);
    else
        qb_str_printf(out, "%.*f", value >= 100 ? 0 : value >= 10 ? 1 : 2, value);
}

static void put_bars(const bar *bars, int n, qb_str *out) {
    bool inner = false, mark = false;
    qb_str_text(out, "$bars << QB_END\n");
    for (int i = 0; i < n; i++) {
        qb_str_printf(out, "%d %.12g %.12g %d %.12g %.12g %d\n", n - i, bars[i].value, bars[i].spread,
                      bars[i].entry->hue, bars[i].inner, bars[i].mark, bars[i].entry->projected);
        inner |= bars[i].inner > 0;
        mark |= bars[i].mark > 0;
    }
    qb_str_printf(out, "QB_END\nhas_inner = %d\nhas_mark = %d\n", inner, mark);
}

/* Swatches and words from the right edge to the left, above the bars. */
static void put_legend(const bar_kind *kind, qb_canvas canvas, qb_str *out) {
    const struct {
        const char *name, *colour; /* no colour: the mark */
    } items[] = {{kind->mark_name, NULL}, {kind->inner_name, "#4d4d4d"}, {kind->outer_name, "#c3c3c3"}};
    double x = canvas.width - 20, y = canvas.height - HEAD_PX + 8;
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        if (!items[i].name) continue;
        x -= qb_text_width(items[i].name, FONT_PX);
        qb_figure_text(canvas, items[i].name, x, y, false, "font label_font textcolor rgb '#333333'", out);
        if (items[i].colour)
            qb_str_printf(out,
                          "set object rectangle from screen %.6f,%.6f to screen %.6f,%.6f fc rgb '%s' fs "
                          "solid noborder\n",
                          (x - 24) / canvas.width, (y - 5) / canvas.height, (x - 6) / canvas.width,
                          (y + 5) / canvas.height, items[i].colour);
        else
            qb_str_printf(
                out,
                "set label '' at screen %.6f,%.6f point pt 12 ps 1.1 * point_scale lw 1.4 lc rgb '#000000'\n",
                (x - 12) / canvas.width, y / canvas.height);
        x -= 40;
    }
}

/* Case names to the left of their bars, values behind the bars' ends. */
static void put_row_labels(const qb_figure *f, qb_canvas canvas, const double margins[4], const bar *bars,
                           int n, qb_str *out) {
    double left = margins[0], right = canvas.width - margins[1], bottom = margins[2],
           top = canvas.height - margins[3];
    for (int i = 0; i < n; i++) {
        double y = bottom + qb_axis_place(&f->y, n - i) * (top - bottom);
        double end = bars[i].value + bars[i].spread,
               gap = (bars[i].mark - end) / (f->x.max - f->x.min) * (right - left);
        if (gap > -12 && gap < 40)
            end = fmax(end, bars[i].mark); /* no room between the bar's end and the mark */
        char style[80];
        qb_str value = {0};
        snprintf(style, sizeof style, "font label_font textcolor rgb ink(%d)", bars[i].entry->hue);
        put_value(bars[i].value, &value);
        qb_figure_text(canvas, bars[i].entry->label, left - 8, y, true, style, out);
        qb_figure_text(canvas, qb_str_get(&value), left + qb_axis_place(&f->x, end) * (right - left) + 7, y,
                       false, "font label_font textcolor rgb '#333333'", out);
        qb_str_free(&value);
    }
}

static qb_status draw_bars(const qb_picture_job *job, const bar_kind *kind, const qb_panel *panel,
                           const bar *bars, int n) {
    bool legend = kind->inner_name || kind->mark_name;
    double widest = 0, max = 0;
    for (int i = 0; i < n; i++) {
        widest = fmax(widest, qb_text_width(bars[i].entry->label, FONT_PX));
        max = fmax(max, fmax(bars[i].value + bars[i].spread, bars[i].mark));
    }
    const qb_canvas canvas = {WIDTH, HEAD_PX + (legend ? LEGEND_PX : 0) + FOOT_PX + ROW_PX * n};
    const double margins[4] = {widest + 28, 30, FOOT_PX, HEAD_PX + (legend ? LEGEND_PX : 0)};
    qb_figure f = {.title = kind->title, .x_label = kind->x_label, .y_label = "", .y = {0.4, n + 0.6, false}};
    f.x = qb_axis_fit(0, max, 0.09, false, true);
    char name[160];
    qb_str script = {0};
    qb_status st;
    snprintf(name, sizeof name, "%s%s", job->name, panel->suffix);
    QB_TRY(st, qb_sheet_subtitle(job->sheet, panel, kind->protocol, kind->tail, &f.subtitle));
    QB_TRY(st, qb_figure_begin(&f, canvas, margins, &script));
    put_row_labels(&f, canvas, margins, bars, n, &script);
    put_bars(bars, n, &script);
    if (legend) put_legend(kind, canvas, &script);
    QB_TRY(st, qb_figure_load("bars.gp", &script));
    QB_TRY(st, qb_gnuplot_draw(job->terminals, job->dir, name, canvas, qb_str_get(&script), job->n_files));
out:
    qb_str_free(&script);
    return st;
}

static qb_status draw_panels(const qb_picture_job *job, const bar_kind *kind) {
    qb_panel *panels;
    bar *bars;
    int n_panels;
    qb_status st;
    QB_TRY(st, qb_sheet_panels(job->sheet, QB_PANEL_DEVICE, &panels, &n_panels));
    QB_TRY(st, qb_arena_alloc(&job->sheet->arena, MAX_ROWS, sizeof *bars, &bars));
    for (int p = 0; p < n_panels; p++) {
        int n = 0;
        for (int i = 0; i < job->sheet->n && n < MAX_ROWS; i++) {
            const qb_entry *e = &job->sheet->entries[i];
            bar b = {.entry = e};
            if (!qb_panel_has(&panels[p], e) || !kind->read(job, e, &b)) continue;
            b.value /= kind->unit;
            b.inner /= kind->unit;
            b.mark /= kind->unit;
            b.spread = b.spread > 0 ? b.spread / kind->unit : 0;
            bars[n++] = b;
        }
        if (n > 0) QB_TRY(st, draw_bars(job, kind, &panels[p], bars, n));
    }
out:
    return st;
}

static double or_zero(double v) {
    return v > 0 && isfinite(v) ? v : 0;
}

static bool read_prefill(const qb_picture_job *job, const qb_entry *e, bar *out) {
    const char *protocol = qb_rows_headline(job->sheet->rows, "prefill");
    const qb_row *r = protocol ? qb_rows_find_ok(e->c, "prefill", protocol, NULL) : NULL;
    if (!r) return false;
    out->value = or_zero(r->value);
    out->spread = r->sd;
    return out->value > 0;
}

static bool read_memory(const qb_picture_job *job, const qb_entry *e, bar *out) {
    (void)job;
    out->value = or_zero(e->c->peak_rss_bytes);
    out->inner = or_zero(qb_rows_value(e->c, "resident_weight_bytes"));
    out->mark = or_zero(e->c->quantize_peak_bytes);
    return out->value > 0;
}

static bool read_quantize_time(const qb_picture_job *job, const qb_entry *e, bar *out) {
    (void)job;
    out->value = or_zero(e->c->quantize_seconds);
    return out->value > 0;
}

qb_status qb_picture_prefill(const qb_picture_job *job) {
    const bar_kind kind = {.title = "Prefill speed",
                           .x_label = "prompt tokens per second (higher is better)",
                           .protocol = qb_rows_headline(job->sheet->rows, "prefill"),
                           .tail = qb_sheet_speed_tail(job->sheet),
                           .read = read_prefill,
                           .unit = 1};
    return draw_panels(job, &kind);
}

qb_status qb_picture_memory(const qb_picture_job *job) {
    double max = 0;
    for (int i = 0; i < job->sheet->n; i++) {
        bar b = {0};
        if (read_memory(job, &job->sheet->entries[i], &b)) max = fmax(max, fmax(b.value, b.mark));
    }
    const bar_kind kind = {.title = "Memory",
                           .x_label = max >= 10e9 ? "GB (lower is better)" : "MB (lower is better)",
                           .outer_name = "peak while measuring",
                           .inner_name = "weights",
                           .mark_name = "peak while quantizing",
                           .read = read_memory,
                           .unit = max >= 10e9 ? 1e9 : 1e6};
    return draw_panels(job, &kind);
}

qb_status qb_picture_quantize_time(const qb_picture_job *job) {
    const bar_kind kind = {.title = "Time to quantize",
                           .x_label = "seconds (lower is better)",
                           .read = read_quantize_time,
                           .unit = 1};
    return draw_panels(job, &kind);
}
