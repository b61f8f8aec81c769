#include "history/history.h"

#include "results/compare.h"
#include "results/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINES = 200 };

void qb_history_name(const qb_history_series *s, qb_str *out) {
    const char *parts[] = {s->metric, s->dataset, s->protocol};
    for (int i = 0, n = 0; i < 3; i++) {
        if (!*parts[i]) continue;
        if (n++) qb_str_text(out, " ");
        qb_text_clean(parts[i], 40, out);
    }
}

/* ---- the terminal ---- */

typedef struct entry {
    const qb_history_series *series;
    const qb_series_change *change;
    int run;
} entry;

static int newest_first(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->run != y->run) return y->run - x->run;
    if (x->series != y->series) return x->series < y->series ? -1 : 1;
    return y->change->point - x->change->point;
}

static void put_run(const qb_history_run *run, qb_str *out) {
    qb_text_clean(*run->git ? run->git : "no commit", 18, out);
    qb_str_text(out, " (");
    qb_str day = {0};
    qb_str_printf(&day, "%.10s", run->created);
    qb_text_clean(qb_str_get(&day), 0, out);
    qb_str_free(&day);
    qb_str_text(out, ")");
}

static void put_entry(const qb_history_view *v, const entry *e, qb_str *out) {
    const qb_history_series *s = e->series;
    qb_str unit = {0};
    qb_text_clean(s->unit, 12, &unit);
    qb_str_text(out, e->change->worse ? "worse   " : "better  ");
    qb_text_clean(s->case_id, 60, out);
    qb_str_text(out, "  ");
    qb_history_name(s, out);
    qb_str_text(out, "  ");
    qb_compare_put_value(e->change->before, qb_str_get(&unit), out);
    qb_str_text(out, " to ");
    qb_compare_put_value(e->change->after, qb_str_get(&unit), out);
    qb_str_text(out, "  ");
    qb_compare_put_change(100 * (e->change->after / e->change->before - 1), out);
    qb_str_printf(out, e->change->p < 0.0001 ? "  p < 0.0001  " : "  p = %.4f  ", e->change->p);
    put_run(&v->runs[s->points[e->change->point - 1].run], out);
    qb_str_text(out, " to ");
    put_run(&v->runs[e->run], out);
    if (*s->device) {
        qb_str_text(out, "  ");
        qb_text_clean(s->device, 60, out);
    }
    qb_str_text(out, "\n");
    qb_str_free(&unit);
}

qb_status qb_history_text(const qb_history_view *v, qb_str *out) {
    entry *entries = NULL;
    size_t capacity = 0, n = 0, points = 0;
    qb_status st = QB_OK;
    for (int i = 0; i < v->n_series; i++) {
        const qb_history_series *s = &v->series[i];
        points += (size_t)s->n_points;
        for (int k = 0; k < s->n_changes; k++) {
            QB_TRY(st, qb_grow(&entries, &capacity, n + 1, sizeof *entries));
            entries[n++] = (entry){s, &s->changes[k], s->points[s->changes[k].point].run};
        }
    }
    if (n) qsort(entries, n, sizeof *entries, newest_first);
    for (size_t i = 0; i < n && i < MAX_LINES; i++) put_entry(v, &entries[i], out);
    if (n > MAX_LINES)
        qb_str_printf(out, "%zu earlier changes stand in the page and the JSON form\n", n - MAX_LINES);
    qb_str_printf(out, "%d run%s, %d series, %zu values, %zu change%s\n", v->n_runs,
                  v->n_runs == 1 ? "" : "s", v->n_series, points, n, n == 1 ? "" : "s");
    st = qb_str_status(out);
out:
    qb_free(entries);
    return st;
}

/* ---- JSON ---- */

static qb_json *series_json(const qb_history_series *s) {
    qb_json *o = qb_json_object(), *points = qb_json_array(), *changes = qb_json_array();
    qb_json_put_text(o, "case", s->case_id);
    qb_json_put_text(o, "metric", s->metric);
    qb_json_put_text(o, "dataset", s->dataset);
    qb_json_put_text(o, "protocol", s->protocol);
    qb_json_put_text(o, "unit", s->unit);
    qb_json_put_text(o, "better", s->higher_is_better ? "higher" : "lower");
    qb_json_put_text(o, "device", *s->device ? s->device : NULL);
    for (int i = 0; i < s->n_points; i++) {
        qb_json *p = qb_json_object();
        qb_json_put_int(p, "run", s->points[i].run);
        qb_json_put_real(p, "value", s->points[i].value);
        qb_json_put_bool(p, "noisy", s->points[i].noisy);
        qb_json_push(points, p);
    }
    for (int i = 0; i < s->n_changes; i++) {
        const qb_series_change *change = &s->changes[i];
        qb_json *c = qb_json_object();
        qb_json_put_int(c, "run", s->points[change->point].run);
        qb_json_put_int(c, "run_before", s->points[change->point - 1].run);
        qb_json_put_real(c, "before", change->before);
        qb_json_put_real(c, "after", change->after);
        qb_json_put_real(c, "p", change->p);
        qb_json_put_bool(c, "worse", change->worse);
        qb_json_push(changes, c);
    }
    qb_json_put(o, "points", points);
    qb_json_put(o, "changes", changes);
    return o;
}

qb_status qb_history_json(const qb_history_view *v, qb_json **out) {
    qb_json *doc = qb_json_object(), *runs = qb_json_array(), *series = qb_json_array();
    qb_json_put_text(doc, "schema", "qb.history/1");
    for (int i = 0; i < v->n_runs; i++) {
        const qb_history_run *run = &v->runs[i];
        qb_json *o = qb_json_object();
        qb_json_put_text(o, "created", run->created);
        qb_json_put_text(o, "git", *run->git ? run->git : NULL);
        qb_json_put_text(o, "version", run->version);
        qb_json_put_text(o, "suite", *run->suite ? run->suite : NULL);
        qb_json_put_text(o, "name", run->name);
        qb_json_push(runs, o);
    }
    for (int i = 0; i < v->n_series; i++) qb_json_push(series, series_json(&v->series[i]));
    qb_json_put(doc, "runs", runs);
    qb_json_put(doc, "series", series);
    *out = doc;
    return doc ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory while writing a history");
}

/* ---- a table ---- */

static qb_json *value_json(const qb_history_view *v, const qb_history_series *s, int point) {
    const qb_history_run *run = &v->runs[s->points[point].run];
    const qb_series_change *change = NULL;
    qb_json *o = qb_json_object();
    for (int i = 0; i < s->n_changes; i++)
        if (s->changes[i].point == point) change = &s->changes[i];
    qb_json_put_text(o, "created", run->created);
    qb_json_put_text(o, "git", run->git);
    qb_json_put_text(o, "case", s->case_id);
    qb_json_put_text(o, "metric", s->metric);
    qb_json_put_text(o, "dataset", s->dataset);
    qb_json_put_text(o, "protocol", s->protocol);
    qb_json_put_text(o, "device", s->device);
    qb_json_put_real(o, "value", s->points[point].value);
    qb_json_put_text(o, "unit", s->unit);
    qb_json_put_bool(o, "noisy", s->points[point].noisy);
    qb_json_put_text(o, "change", !change ? NULL : change->worse ? "worse" : "better");
    qb_json_put_real(o, "before", change ? change->before : (double)NAN);
    qb_json_put_real(o, "after", change ? change->after : (double)NAN);
    qb_json_put_real(o, "p", change ? change->p : (double)NAN);
    return o;
}

qb_status qb_history_values(const qb_history_view *v, qb_json **out) {
    qb_json *values = qb_json_array();
    for (int i = 0; i < v->n_series; i++)
        for (int k = 0; k < v->series[i].n_points; k++) qb_json_push(values, value_json(v, &v->series[i], k));
    *out = values;
    return values ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory while writing a history");
}
