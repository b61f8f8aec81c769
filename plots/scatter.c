/* Pictures with a point a case: perplexity and speed against bits and size, and the front of the best trades.
 */
#include "plots/pictures.h"
#include "results/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A perplexity this many times the unquantized model's leaves the others on one line of a linear axis. */
static const double explosion = 3;
/* The second picture of such a document shows what lies within this many times the best. */
static const double detail = 1.25;

typedef struct sample {
    const qb_entry *entry;
    double x, y, spread, floor_value, part;
    int group; /* of one hue and variant, in the pareto picture split by being on the front */
    bool on_front, noisy;
} sample;

typedef struct samples {
    sample *items;
    int n;
} samples;

/* ---- gathering ---- */

typedef double (*figure_fn)(const qb_row_case *c);

static double bits_of(const qb_row_case *c) {
    return c->bits_per_weight;
}
static double bytes_of(const qb_row_case *c) {
    return c->checkpoint_bytes;
}

static qb_status gather(const qb_picture_job *job, const qb_panel *panel, figure_fn x_of, const char *metric,
                        samples *out) {
    *out = (samples){0};
    qb_status st = qb_arena_alloc(&job->sheet->arena, (size_t)job->sheet->n, sizeof *out->items, &out->items);
    for (int i = 0; i < job->sheet->n && st == QB_OK; i++) {
        const qb_entry *e = &job->sheet->entries[i];
        const qb_row *r =
            qb_panel_has(panel, e) ? qb_rows_find_ok(e->c, metric, panel->protocol, panel->dataset) : NULL;
        if (!r) continue;
        /* A quality carried over to another device is the measured one again. */
        bool quality = qb_row_judge(r) == QB_JUDGE_QUALITY;
        if (quality && r->projected) continue;
        sample s = {.entry = e,
                    .x = x_of(e->c),
                    .y = r->value,
                    .spread = quality ? r->stderr_value : r->sd,
                    .floor_value = r->floor,
                    .part = r->part,
                    .noisy = !quality && qb_row_is_noisy(r)};
        if (s.x > 0 && s.y > 0) out->items[out->n++] = s;
    }
    return st;
}

static int by_series_then_x(const void *a, const void *b) {
    const sample *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return (x->x > y->x) - (x->x < y->x);
}

/* Numbers the groups in order of appearance, so that equal documents give equal scripts. */
static int group_samples(samples *s) {
    int groups = 0;
    for (int i = 0; i < s->n; i++) {
        sample *a = &s->items[i];
        a->group = -1;
        for (int j = 0; j < i && a->group < 0; j++) {
            const sample *b = &s->items[j];
            if (b->on_front == a->on_front && b->entry->hue == a->entry->hue &&
                !strcmp(b->entry->series, a->entry->series))
                a->group = b->group;
        }
        if (a->group < 0) a->group = groups++;
    }
    if (s->n > 1) qsort(s->items, (size_t)s->n, sizeof *s->items, by_series_then_x);
    return groups;
}

static qb_status fill_figure(qb_arena *arena, samples *s, bool joined, qb_figure *f) {
    qb_status st;
    f->n_series = group_samples(s);
    f->n_points = s->n;
    QB_TRY(st, qb_arena_alloc(arena, (size_t)s->n, sizeof *f->points, &f->points));
    QB_TRY(st, qb_arena_alloc(arena, (size_t)f->n_series, sizeof *f->series, &f->series));
    for (int i = 0; i < s->n; i++) {
        const sample *a = &s->items[i];
        /* A projected line has its name once, at its end: no point of it is an observation of its own. */
        bool end = i + 1 == s->n || s->items[i + 1].group != a->group;
        const char *label = !a->entry->projected ? a->entry->label : end ? a->entry->series : NULL;
        f->points[i] = (qb_point){a->x, a->y, a->spread, label, a->group, a->noisy};
        qb_series *series = &f->series[a->group];
        /* On a front the marks tell who is on it, else which variant of the method it is. */
        *series = (qb_series){.name = a->entry->series,
                              .hue = a->entry->hue,
                              .variant = joined ? a->entry->variant : !a->on_front,
                              .projected = a->entry->projected};
        series->joined = joined && ((i > 0 && s->items[i - 1].group == a->group) ||
                                    (i + 1 < s->n && s->items[i + 1].group == a->group));
    }
out:
    return st;
}

/* ---- ranges and lines ---- */

typedef struct extent {
    double min, max;
} extent;

static void include(extent *e, double v) {
    if (!isfinite(v)) return;
    e->min = fmin(e->min, v);
    e->max = fmax(e->max, v);
}

static qb_status text_line(qb_arena *arena, const char **out, const char *fmt, const char *word,
                           double value) {
    qb_str s = {0};
    qb_str_printf(&s, fmt, word);
    qb_str_printf(&s, ": %.*f", value >= 1000 ? 0 : value >= 100 ? 1 : value >= 10 ? 2 : 3, value);
    qb_status st = qb_str_status(&s);
    if (st == QB_OK) st = qb_arena_strdup(arena, qb_str_get(&s), out);
    qb_str_free(&s);
    return st;
}

static qb_status add_baselines(qb_arena *arena, const samples *all, qb_figure *f) {
    qb_status st = QB_OK;
    for (int i = 0; i < all->n && st == QB_OK && f->n_references + 1 < QB_REFERENCES_MAX; i++) {
        const sample *s = &all->items[i];
        if (!s->entry->unquantized) continue;
        qb_reference *r = &f->references[f->n_references++];
        *r = (qb_reference){.y = s->y, .projected = s->entry->projected};
        st = text_line(arena, &r->label, s->noisy ? "unquantized, %s, noisy" : "unquantized, %s",
                       s->entry->label, s->y);
    }
    return st;
}

static qb_status add_floor(qb_arena *arena, const samples *all, qb_figure *f) {
    for (int i = 0; i < all->n && f->n_references < QB_REFERENCES_MAX; i++) {
        if (!(all->items[i].floor_value > 0)) continue;
        qb_reference *r = &f->references[f->n_references++];
        *r = (qb_reference){.y = all->items[i].floor_value, .is_floor = true};
        return text_line(arena, &r->label, "%s", "entropy of the text", r->y);
    }
    return QB_OK;
}

static void drop_unquantized(samples *s) {
    int n = 0;
    for (int i = 0; i < s->n; i++)
        if (!s->items[i].entry->unquantized) s->items[n++] = s->items[i];
    s->n = n;
}

/* The axis of a perplexity: logarithmic when the worst point would press the others together. */
static qb_axis perplexity_axis(const qb_figure *f) {
    extent e = {(double)INFINITY, -(double)INFINITY};
    double base = (double)INFINITY;
    for (int i = 0; i < f->n_points; i++) {
        double spread = f->points[i].spread > 0 ? f->points[i].spread : 0;
        include(&e, f->points[i].y + spread);
        include(&e, f->points[i].y > spread ? f->points[i].y - spread : f->points[i].y);
        base = fmin(base, f->points[i].y);
    }
    for (int i = 0; i < f->n_references; i++) {
        include(&e, f->references[i].y);
        if (!f->references[i].is_floor) base = f->references[i].y;
    }
    return qb_axis_fit(e.min, e.max, 0.07, e.max > explosion * base, false);
}

static qb_axis x_axis(const qb_figure *f, double margin, bool may_be_log) {
    extent e = {(double)INFINITY, -(double)INFINITY};
    for (int i = 0; i < f->n_points; i++) include(&e, f->points[i].x);
    for (int i = 0; i < f->n_front; i++) include(&e, f->front[i].x);
    return qb_axis_fit(e.min, e.max, margin, may_be_log && e.max > 8 * e.min, false);
}

static qb_status draw(const qb_picture_job *job, const qb_panel *panel, const char *part,
                      const qb_figure *f) {
    char name[160];
    snprintf(name, sizeof name, "%s%s%s", job->name, panel->suffix, part);
    return job->easel->scatter(job->easel, name, f);
}

static void scale_x(samples *s, double unit) {
    for (int i = 0; i < s->n; i++) s->items[i].x /= unit;
}

/* MB below 10 GB; writes the axis' label. */
static double size_unit(const samples *s, const char **label) {
    double max = 0;
    for (int i = 0; i < s->n; i++) max = fmax(max, s->items[i].x);
    *label = max >= 10e9 ? "size of the checkpoint (GB)" : "size of the checkpoint (MB)";
    return max >= 10e9 ? 1e9 : 1e6;
}

/* ---- the front ---- */

static int by_size_then_quality(const void *a, const void *b) {
    const sample *x = a, *y = b;
    if (x->x != y->x) return x->x < y->x ? -1 : 1;
    return (x->y > y->y) - (x->y < y->y);
}

/* From small to large, whoever is better than all smaller ones. */
static qb_status find_front(qb_arena *arena, samples *s, qb_figure *f) {
    double best = (double)INFINITY;
    qb_status st = qb_arena_alloc(arena, (size_t)s->n, sizeof *f->front, &f->front);
    if (st != QB_OK) return st;
    if (s->n > 1) qsort(s->items, (size_t)s->n, sizeof *s->items, by_size_then_quality);
    for (int i = 0; i < s->n; i++) {
        s->items[i].on_front = s->items[i].y < best;
        if (!s->items[i].on_front) continue;
        best = s->items[i].y;
        f->front[f->n_front++] = (qb_point){.x = s->items[i].x, .y = best};
    }
    return QB_OK;
}

/* ---- perplexity ---- */

typedef struct quality_kind {
    const char *title;
    figure_fn x_of;
    bool by_size, front;
} quality_kind;

static double lowest(const samples *s) {
    double least = (double)INFINITY;
    for (int i = 0; i < s->n; i++) least = fmin(least, s->items[i].y);
    return least;
}

static double floor_of(const samples *s) { /* NaN when no row has one */
    double value = (double)NAN;
    for (int i = 0; i < s->n && isnan(value); i++) value = s->items[i].floor_value;
    return value;
}

/* Drops what lies above `limit`; the number dropped. */
static int drop_above(samples *s, double limit) {
    int n = 0, all = s->n;
    for (int i = 0; i < all; i++)
        if (s->items[i].y <= limit) s->items[n++] = s->items[i];
    s->n = n;
    return all - n;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The standard error says how far another text of the kind might lie, and every case was given the same text:
   where it is as large as the differences it would bury them, so it is stated once (the median, returned)
   instead of drawn. NaN: drawn; 0: no case has any. */
static double bury_errors(samples *s) {
    double spreads[256], min = (double)INFINITY, max = 0;
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        min = fmin(min, s->items[i].y);
        max = fmax(max, s->items[i].y);
        if (s->items[i].spread > 0 && n < 256) spreads[n++] = s->items[i].spread;
    }
    if (n == 0) return 0;
    qsort(spreads, (size_t)n, sizeof *spreads, ascending);
    double median = spreads[n / 2];
    if (median < 0.2 * (max - min)) return (double)NAN;
    for (int i = 0; i < s->n; i++) s->items[i].spread = (double)NAN;
    return median;
}

static qb_status subtitle(const qb_picture_job *job, const qb_panel *panel, const quality_kind *kind,
                          const samples *s, double buried, int dropped, double limit, const char **out) {
    qb_str tail = {0};
    double part = 1;
    for (int i = 0; i < s->n; i++) part = fmin(part, s->items[i].part);
    if (part < 1) qb_str_printf(&tail, "first %.2g %% of the text · ", 100 * part);
    if (kind->front) qb_str_text(&tail, "filled marks: nothing smaller is as good · ");
    if (isnan(buried)) {
        qb_str_text(&tail, "bars: ± 1 standard error");
    } else if (buried > 0) {
        qb_str_text(&tail, "standard error ± ");
        qb_text_figure(buried, 2, &tail);
        qb_str_text(&tail, ", one text for all");
    } else {
        qb_str_text(&tail, "too few windows for a standard error");
    }
    if (dropped)
        qb_str_printf(&tail, " · %d case%s above %.3g not shown", dropped, dropped > 1 ? "s" : "", limit);
    qb_status st = qb_str_status(&tail);
    if (st == QB_OK) st = qb_sheet_subtitle(job->sheet, panel, NULL, qb_str_get(&tail), out);
    qb_str_free(&tail);
    return st;
}

/* One picture of the samples up to `limit`. *was_log: its axis had to be logarithmic. */
static qb_status draw_quality(const qb_picture_job *job, const qb_panel *panel, const quality_kind *kind,
                              double limit, bool *was_log) {
    qb_arena *arena = &job->sheet->arena;
    qb_figure f = {.title = kind->title,
                   .x_label = "bits per weight, scales included",
                   .y_label = "perplexity (lower is better)"};
    samples s;
    qb_status st;
    *was_log = false;
    QB_TRY(st, gather(job, panel, kind->x_of, "perplexity", &s));
    int dropped = drop_above(&s, limit);
    double buried = bury_errors(&s);
    if (!kind->front) QB_TRY(st, add_baselines(arena, &s, &f));
    /* The line that no model can pass, unless it would take the room that the closer view is for. */
    if (!dropped || floor_of(&s) >= 0.9 * lowest(&s)) QB_TRY(st, add_floor(arena, &s, &f));
    if (!kind->front) drop_unquantized(&s);
    if (s.n < (kind->front || dropped ? 2 : 1)) goto out;
    if (kind->by_size) scale_x(&s, size_unit(&s, &f.x_label));
    if (kind->front) QB_TRY(st, find_front(arena, &s, &f));
    QB_TRY(st, fill_figure(arena, &s, !kind->front, &f));
    f.y = perplexity_axis(&f);
    f.x = x_axis(&f, 0.1, kind->by_size);
    *was_log = f.y.log;
    QB_TRY(st, subtitle(job, panel, kind, &s, buried, dropped, limit, &f.subtitle));
    QB_TRY(st, draw(job, panel, dropped ? "-detail" : "", &f));
out:
    return st;
}

/* Where a few bits explode, the logarithmic picture shows by how much, and a second one what is left of the
 * differences. */
static qb_status draw_qualities(const qb_picture_job *job, const quality_kind *kind) {
    qb_panel *panels;
    int n;
    qb_status st;
    QB_TRY(st, qb_sheet_panels(job->sheet, QB_PANEL_TEXT, &panels, &n));
    for (int i = 0; i < n; i++) {
        bool was_log, ignored;
        samples s;
        QB_TRY(st, draw_quality(job, &panels[i], kind, (double)INFINITY, &was_log));
        if (!was_log) continue;
        QB_TRY(st, gather(job, &panels[i], kind->x_of, "perplexity", &s));
        QB_TRY(st, draw_quality(job, &panels[i], kind, lowest(&s) * detail, &ignored));
    }
out:
    return st;
}

qb_status qb_picture_perplexity_bits(const qb_picture_job *job) {
    const quality_kind kind = {"Perplexity against bits per weight", bits_of, false, false};
    return draw_qualities(job, &kind);
}

qb_status qb_picture_perplexity_size(const qb_picture_job *job) {
    const quality_kind kind = {"Perplexity against model size", bytes_of, true, false};
    return draw_qualities(job, &kind);
}

qb_status qb_picture_pareto(const qb_picture_job *job) {
    const quality_kind kind = {"Size against perplexity: the Pareto front", bytes_of, true, true};
    return draw_qualities(job, &kind);
}

/* ---- decode speed ---- */

/* From zero, so that lengths compare; devices that are worlds apart need a logarithm. */
static qb_axis speed_axis(const qb_figure *f) {
    double min = (double)INFINITY, max = 0;
    for (int i = 0; i < f->n_points; i++) {
        min = fmin(min, f->points[i].y);
        max = fmax(max, f->points[i].y + fmax(0, f->points[i].spread));
    }
    for (int i = 0; i < f->n_references; i++) {
        min = fmin(min, f->references[i].y);
        max = fmax(max, f->references[i].y);
    }
    bool log = max > 10 * min;
    return qb_axis_fit(log ? min : 0, max, 0.08, log, !log);
}

static bool any_noisy(const qb_figure *f) {
    for (int i = 0; i < f->n_points; i++)
        if (f->points[i].noisy) return true;
    return false;
}

qb_status qb_picture_decode_bits(const qb_picture_job *job) {
    qb_arena *arena = &job->sheet->arena;
    const char *protocol = qb_rows_headline(job->sheet->rows, "decode");
    qb_panel *panels;
    int n = 0;
    qb_status st = QB_OK;
    if (protocol) QB_TRY(st, qb_sheet_panels(job->sheet, QB_PANEL_DEVICE, &panels, &n));
    for (int i = 0; i < n; i++) {
        qb_figure f = {.title = "Decode speed against bits per weight",
                       .x_label = "bits per weight, scales included",
                       .y_label = "tokens per second (higher is better)"};
        const char *tail;
        samples s;
        qb_panel speed = panels[i];
        speed.protocol = protocol;
        QB_TRY(st, gather(job, &speed, bits_of, "decode", &s));
        QB_TRY(st, add_baselines(arena, &s, &f));
        drop_unquantized(&s);
        if (s.n == 0) continue;
        QB_TRY(st, fill_figure(arena, &s, true, &f));
        f.y = speed_axis(&f);
        f.x = x_axis(&f, 0.1, false);
        QB_TRY(st, qb_sheet_speed_tail(job->sheet, any_noisy(&f) ? "crossed" : NULL, &tail));
        QB_TRY(st, qb_sheet_subtitle(job->sheet, &speed, NULL, tail, &f.subtitle));
        QB_TRY(st, draw(job, &panels[i], "", &f));
    }
out:
    return st;
}
