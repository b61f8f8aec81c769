/* Pictures with a bar a case: prefill speed, memory, quantization time. */
#include "plots/pictures.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ROWS = 60 };

/* Reads one case; false: it has no bar. */
typedef bool (*bar_fn)(const qb_picture_job *job, const qb_entry *e, qb_bar *out);

typedef struct bar_kind {
    const char *title, *x_label, *protocol; /* the protocol goes into the subtitle, may be NULL */
    bool speed;
    const char *outer_name, *inner_name, *mark_name;
    bar_fn read;
    double unit;
} bar_kind;

static qb_status draw_bars(const qb_picture_job *job, const bar_kind *kind, const qb_panel *panel,
                           const qb_bar *bars, int n) {
    char name[160];
    qb_bar_chart chart = {.title = kind->title,
                          .x_label = kind->x_label,
                          .outer_name = kind->outer_name,
                          .inner_name = kind->inner_name,
                          .mark_name = kind->mark_name,
                          .bars = bars,
                          .n = n};
    snprintf(name, sizeof name, "%s%s", job->name, panel->suffix);
    const char *tail = NULL;
    bool noisy = false;
    for (int i = 0; i < n; i++) noisy |= bars[i].noisy;
    qb_status st = QB_OK;
    if (kind->speed) st = qb_sheet_speed_tail(job->sheet, noisy ? "hatched" : NULL, &tail);
    if (st == QB_OK) st = qb_sheet_subtitle(job->sheet, panel, kind->protocol, tail, &chart.subtitle);
    return st == QB_OK ? job->easel->bars(job->easel, name, &chart) : st;
}

static qb_status draw_panels(const qb_picture_job *job, const bar_kind *kind) {
    qb_panel *panels;
    qb_bar *bars;
    int n_panels;
    qb_status st;
    QB_TRY(st, qb_sheet_panels(job->sheet, QB_PANEL_DEVICE, &panels, &n_panels));
    QB_TRY(st, qb_arena_alloc(&job->sheet->arena, MAX_ROWS, sizeof *bars, &bars));
    for (int p = 0; p < n_panels; p++) {
        int n = 0;
        for (int i = 0; i < job->sheet->n && n < MAX_ROWS; i++) {
            const qb_entry *e = &job->sheet->entries[i];
            qb_bar b = {.label = e->label, .series = e->series, .hue = e->hue, .projected = e->projected};
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

static bool read_prefill(const qb_picture_job *job, const qb_entry *e, qb_bar *out) {
    const char *protocol = qb_rows_headline(job->sheet->rows, "prefill");
    const qb_row *r = protocol ? qb_rows_find_ok(e->c, "prefill", protocol, NULL) : NULL;
    if (!r) return false;
    out->value = or_zero(r->value);
    out->spread = r->sd;
    out->noisy = qb_row_is_noisy(r);
    return out->value > 0;
}

static bool read_memory(const qb_picture_job *job, const qb_entry *e, qb_bar *out) {
    (void)job;
    out->value = or_zero(e->c->peak_rss_bytes);
    out->inner = or_zero(qb_rows_value(e->c, "resident_weight_bytes"));
    out->mark = or_zero(e->c->quantize_peak_bytes);
    return out->value > 0;
}

static bool read_quantize_time(const qb_picture_job *job, const qb_entry *e, qb_bar *out) {
    (void)job;
    out->value = or_zero(e->c->quantize_seconds);
    return out->value > 0;
}

qb_status qb_picture_prefill(const qb_picture_job *job) {
    const bar_kind kind = {.title = "Prefill speed",
                           .x_label = "prompt tokens per second (higher is better)",
                           .protocol = qb_rows_headline(job->sheet->rows, "prefill"),
                           .speed = true,
                           .read = read_prefill,
                           .unit = 1};
    return draw_panels(job, &kind);
}

qb_status qb_picture_memory(const qb_picture_job *job) {
    double max = 0;
    for (int i = 0; i < job->sheet->n; i++) {
        qb_bar b = {0};
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
