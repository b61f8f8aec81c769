/* Reading all of it: runs by time, series by what they are of, and where they changed. */
#include "history/store.h"

#include <math.h>
#include <string.h>

static qb_status text_at(qb_history_view *v, sqlite3_stmt *s, int column, const char **out) {
    const char *text = (const char *)sqlite3_column_text(s, column);
    return qb_arena_strdup(&v->arena, text ? text : "", out);
}

static qb_status read_runs(qb_history *h, qb_history_view *v) {
    sqlite3_stmt *s = NULL;
    int64_t n = 0;
    int code = 0;
    qb_status st;
    QB_TRY(st, qb_store_ask(h, "SELECT count(*) FROM runs", &n));
    QB_TRY(st, qb_arena_alloc(&v->arena, (size_t)n + 1, sizeof *v->runs, &v->runs));
    QB_TRY(st, qb_store_prepare(h, "SELECT created, git, version, suite, name FROM runs ORDER BY created, id",
                                &s));
    while (v->n_runs < n && (code = sqlite3_step(s)) == SQLITE_ROW) {
        qb_history_run *run = &v->runs[v->n_runs++];
        const char **fields[] = {&run->created, &run->git, &run->version, &run->suite, &run->name};
        for (int i = 0; i < 5; i++) QB_TRY(st, text_at(v, s, i, fields[i]));
    }
    if (v->n_runs < n && code != SQLITE_DONE) st = qb_store_fail(h, "reading runs");
out:
    sqlite3_finalize(s);
    return st;
}

/* Points come series by series, each by time; the rank of a run is its index in view->runs. */
static const char select_points[] =
    "WITH ranked AS (SELECT id, row_number() OVER (ORDER BY created, id) - 1 AS place FROM runs)"
    " SELECT s.id, s.case_id, s.metric, s.dataset, s.protocol, s.unit, s.higher_is_better, s.device, r.place,"
    " p.value, p.low, p.high, p.noisy FROM points p JOIN series s ON s.id = p.series JOIN ranked r ON r.id = "
    "p.run"
    " ORDER BY s.case_id, s.metric, s.dataset, s.protocol, s.id, r.place";

static double real_at(sqlite3_stmt *s, int column) {
    return sqlite3_column_type(s, column) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(s, column);
}

static qb_status begin_series(qb_history_view *v, sqlite3_stmt *s, qb_history_point *points) {
    qb_history_series *series = &v->series[v->n_series++];
    const char **fields[] = {&series->case_id, &series->metric, &series->dataset, &series->protocol,
                             &series->unit};
    qb_status st = QB_OK;
    for (int i = 0; i < 5 && st == QB_OK; i++) st = text_at(v, s, i + 1, fields[i]);
    if (st == QB_OK) st = text_at(v, s, 7, &series->device);
    series->higher_is_better = sqlite3_column_int(s, 6);
    series->points = points;
    return st;
}

static qb_status read_series(qb_history *h, qb_history_view *v) {
    sqlite3_stmt *s = NULL;
    int64_t n_series = 0, n_points = 0, read = 0, last = -1;
    qb_history_point *points;
    int code = 0;
    qb_status st;
    QB_TRY(st, qb_store_ask(h, "SELECT count(*) FROM series", &n_series));
    QB_TRY(st, qb_store_ask(h, "SELECT count(*) FROM points", &n_points));
    QB_TRY(st, qb_arena_alloc(&v->arena, (size_t)n_series + 1, sizeof *v->series, &v->series));
    QB_TRY(st, qb_arena_alloc(&v->arena, (size_t)n_points + 1, sizeof *points, &points));
    QB_TRY(st, qb_store_prepare(h, select_points, &s));
    while (read < n_points && (code = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(s, 0), place = sqlite3_column_int64(s, 8);
        if (id != last) QB_TRY(st, begin_series(v, s, points + read));
        last = id;
        if (place >= v->n_runs) break; /* added between the two reads */
        points[read++] = (qb_history_point){.run = (int)place,
                                            .value = real_at(s, 9),
                                            .low = real_at(s, 10),
                                            .high = real_at(s, 11),
                                            .noisy = sqlite3_column_int(s, 12)};
        v->series[v->n_series - 1].n_points++;
    }
    if (read < n_points && code != SQLITE_DONE && code != SQLITE_ROW) st = qb_store_fail(h, "reading series");
out:
    sqlite3_finalize(s);
    return st;
}

/* Looks for changes in what is not noisy. */
static qb_status find_changes(qb_history_view *v, const qb_change_point_config *config,
                              qb_history_series *s) {
    double *values = NULL;
    int *places = NULL, n = 0, count = 0;
    qb_change_point *found = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)s->n_points, sizeof *values, &values));
    QB_TRY(st, qb_alloc((size_t)s->n_points, sizeof *places, &places));
    for (int i = 0; i < s->n_points; i++) {
        if (s->points[i].noisy) continue;
        values[n] = s->points[i].value;
        places[n++] = i;
    }
    QB_TRY(st, qb_change_points(values, n, config, &found, &count));
    QB_TRY(st, qb_arena_alloc(&v->arena, (size_t)count + 1, sizeof *s->changes, &s->changes));
    for (int i = 0; i < count; i++) {
        bool up = found[i].mean_after > found[i].mean_before;
        s->changes[s->n_changes++] = (qb_series_change){.point = places[found[i].index],
                                                        .before = found[i].mean_before,
                                                        .after = found[i].mean_after,
                                                        .p = found[i].p,
                                                        .worse = up != s->higher_is_better};
    }
out:
    qb_free(values);
    qb_free(places);
    qb_free(found);
    return st;
}

qb_status qb_history_read(qb_history *h, const qb_change_point_config *config, qb_history_view *out) {
    qb_status st;
    *out = (qb_history_view){0};
    QB_TRY(st, qb_store_execute(h, "BEGIN", "reading"));
    st = read_runs(h, out);
    if (st == QB_OK) st = read_series(h, out);
    (void)sqlite3_exec(h->db, "COMMIT", NULL, NULL, NULL);
    for (int i = 0; i < out->n_series && st == QB_OK; i++) st = find_changes(out, config, &out->series[i]);
out:
    return st;
}

void qb_history_view_free(qb_history_view *v) {
    qb_arena_free(&v->arena);
    *v = (qb_history_view){0};
}
