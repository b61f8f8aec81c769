#include "history/history.h"

#include "base/file.h"
#include "plots/figure.h"
#include "results/text.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLOT_WIDTH = 800, PLOT_HEIGHT = 520, HUES = 7, NAME_BYTES = 120 };

static bool one_picture(const qb_history_series *a, const qb_history_series *b) {
    return !strcmp(a->metric, b->metric) && !strcmp(a->dataset, b->dataset) &&
           !strcmp(a->protocol, b->protocol);
}

/* "decode-tg32-d0-b1": what the file is called. */
static void file_name(const qb_history_series *s, char name[NAME_BYTES]) {
    qb_str text = {0};
    size_t n = 0;
    qb_history_name(s, &text);
    for (const char *p = qb_str_get(&text); *p && n + 1 < NAME_BYTES; p++) {
        bool word = isalnum((unsigned char)*p) || *p == '_';
        if (word || (n && name[n - 1] != '-')) name[n++] = word ? *p : '-';
    }
    while (n && name[n - 1] == '-') n--;
    name[n] = 0;
    qb_str_free(&text);
}

static qb_status format(qb_arena *arena, const char **out, const char *fmt, ...) QB_PRINTF(3, 4);
static qb_status format(qb_arena *arena, const char **out, const char *fmt, ...) {
    qb_str text = {0}, clean = {0};
    va_list args;
    va_start(args, fmt);
    qb_str_vprintf(&text, fmt, args);
    va_end(args);
    qb_text_clean(qb_str_get(&text), 0, &clean); /* names may be cut within a character */
    clean.failed |= text.failed;
    qb_status st = qb_str_status(&clean);
    if (st == QB_OK) st = qb_arena_strdup(arena, qb_str_get(&clean), out);
    qb_str_free(&text);
    qb_str_free(&clean);
    return st;
}

typedef struct picture {
    qb_arena arena;
    qb_figure figure;
    double low, high;
    bool noisy; /* one of its points */
} picture;

/* A line, which bears the case's name at its end, and behind it a series of its own for each change. */
static qb_status add_series(picture *p, const qb_history_series *s, int nth) {
    qb_figure *f = &p->figure;
    int line = f->n_series++;
    qb_status st = QB_OK;
    f->series[line] = (qb_series){
        .name = s->case_id, .hue = 1 + nth % HUES, .variant = nth / HUES % 2, .joined = s->n_points > 1};
    for (int i = 0; i < s->n_points; i++) {
        const qb_history_point *point = &s->points[i];
        const char *label = NULL;
        if (i + 1 == s->n_points) QB_TRY(st, format(&p->arena, &label, "%s", s->case_id));
        for (int k = 0; k < s->n_changes; k++)
            if (s->changes[k].point == i)
                QB_TRY(st, format(&p->arena, &label, "%+.1f %% %s%s",
                                  100 * (s->changes[k].after / s->changes[k].before - 1),
                                  s->changes[k].worse ? "worse" : "better", label ? ", " : ""));
        f->points[f->n_points++] = (qb_point){point->run + 1, point->value, (point->high - point->low) / 2,
                                              label,          line,         point->noisy};
        p->noisy |= point->noisy;
        p->low = fmin(p->low, point->value);
        p->high = fmax(p->high, point->value);
    }
out:
    return st;
}

static qb_status fill(const qb_history_view *v, int first, picture *p) {
    const qb_history_series *like = &v->series[first];
    qb_figure *f = &p->figure;
    size_t n_series = 0, n_points = 0;
    qb_str title = {0};
    qb_status st;
    for (int i = first; i < v->n_series; i++) {
        if (!one_picture(&v->series[i], like)) continue;
        n_series++;
        n_points += (size_t)v->series[i].n_points;
    }
    QB_TRY(st, qb_arena_alloc(&p->arena, n_series, sizeof *f->series, &f->series));
    QB_TRY(st, qb_arena_alloc(&p->arena, n_points, sizeof *f->points, &f->points));
    for (int i = first, nth = 0; i < v->n_series; i++)
        if (one_picture(&v->series[i], like)) QB_TRY(st, add_series(p, &v->series[i], nth++));
    qb_history_name(like, &title);
    QB_TRY(st, format(&p->arena, &f->title, "%s over %d runs", qb_str_get(&title), v->n_runs));
    QB_TRY(st, format(&p->arena, &f->subtitle,
                      "from %.18s, %.10s, to %.18s, %.10s · change points say by how much%s", v->runs[0].git,
                      v->runs[0].created, v->runs[v->n_runs - 1].git, v->runs[v->n_runs - 1].created,
                      p->noisy ? " · crossed: noisy, not looked into" : ""));
    f->x_label = "run";
    QB_TRY(st, format(&p->arena, &f->y_label, "%s (%s)", like->metric,
                      like->higher_is_better ? "higher is better" : "lower is better"));
    f->x = qb_axis_fit(1, v->n_runs, 0.04, false, false);
    f->y = qb_axis_fit(p->low, p->high, 0.08, p->low > 0 && p->high > 8 * p->low, false);
out:
    qb_str_free(&title);
    return st;
}

static qb_status draw(const qb_history_view *v, int first, const char *terminals, const char *dir,
                      int *n_files) {
    const qb_canvas canvas = {.width = PLOT_WIDTH, .height = PLOT_HEIGHT, .scale = 1};
    picture p = {.low = (double)INFINITY, .high = -(double)INFINITY};
    qb_str script = {0};
    char name[NAME_BYTES];
    qb_status st;
    file_name(&v->series[first], name);
    QB_TRY(st, fill(v, first, &p));
    QB_TRY(st, qb_figure_scatter(&p.figure, canvas, &p.arena, &script));
    QB_TRY(st, qb_gnuplot_draw(terminals, dir, name, canvas, qb_str_get(&script), n_files));
out:
    qb_str_free(&script);
    qb_arena_free(&p.arena);
    return st;
}

qb_status qb_history_plots(const qb_history_view *v, const char *dir, int *n_files) {
    qb_str terminals = {0};
    qb_status st;
    *n_files = 0;
    QB_TRY(st, qb_gnuplot_terminals(&terminals));
    QB_TRY(st, qb_make_dirs(dir));
    for (int i = 0; i < v->n_series; i++) {
        bool drawn = false;
        for (int k = 0; k < i && !drawn; k++) drawn = one_picture(&v->series[k], &v->series[i]);
        if (!drawn) QB_TRY(st, draw(v, i, qb_str_get(&terminals), dir, n_files));
    }
out:
    qb_str_free(&terminals);
    return st;
}
