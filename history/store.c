#include "history/history.h"

#include "base/hash.h"
#include "results/comparable.h"
#include "results/rows.h"

#include <math.h>
#include <sqlite3.h>
#include <string.h>

enum {
    APPLICATION_ID = 0x51424831, /* "QBH1", in the file's header */
    VERSION = 1,
    WAIT_MS = 2000
};

struct qb_history {
    sqlite3 *db;
    char *path; /* "(memory)" */
};

/* series.facts: SHA-256 of everything that makes two rows comparable. */
static const char schema[] =
    "CREATE TABLE runs(id INTEGER PRIMARY KEY, created TEXT NOT NULL, git TEXT NOT NULL, version TEXT NOT "
    "NULL,"
    " suite TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE);"
    "CREATE TABLE series(id INTEGER PRIMARY KEY, case_id TEXT NOT NULL, metric TEXT NOT NULL, dataset TEXT "
    "NOT"
    " NULL, protocol TEXT NOT NULL, unit TEXT NOT NULL, higher_is_better INTEGER NOT NULL, device TEXT NOT "
    "NULL,"
    " facts TEXT NOT NULL UNIQUE);"
    "CREATE TABLE points(run INTEGER NOT NULL REFERENCES runs(id), series INTEGER NOT NULL REFERENCES"
    " series(id), value REAL NOT NULL, low REAL, high REAL, noisy INTEGER NOT NULL, PRIMARY KEY(series, run))"
    " WITHOUT ROWID;";

/* ---- errors ---- */

static qb_status fail(const qb_history *h, const char *doing) {
    int code = sqlite3_errcode(h->db) & 0xff;
    switch (code) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return qb_fail(
            QB_ERR_IO,
            "%s is locked by another program (waited %d seconds while %s): try again when it is done",
            h->path, WAIT_MS / 1000, doing);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return qb_fail(
            QB_ERR_FORMAT,
            "%s is damaged, or no SQLite file (%s): expected what bench history add writes; what is "
            "left of it: sqlite3 %s .recover",
            h->path, sqlite3_errmsg(h->db), h->path);
    case SQLITE_NOMEM:
        return qb_fail(QB_ERR_MEMORY, "%s: out of memory while %s", h->path, doing);
    default:
        return qb_fail(QB_ERR_IO, "%s: %s while %s", h->path, sqlite3_errmsg(h->db), doing);
    }
}

static qb_status execute(const qb_history *h, const char *sql, const char *doing) {
    return sqlite3_exec(h->db, sql, NULL, NULL, NULL) == SQLITE_OK ? QB_OK : fail(h, doing);
}

static qb_status prepare(const qb_history *h, const char *sql, sqlite3_stmt **out) {
    return sqlite3_prepare_v2(h->db, sql, -1, out, NULL) == SQLITE_OK ? QB_OK : fail(h, "reading");
}

/* The one number that a pragma gives. */
static qb_status ask(const qb_history *h, const char *pragma, int64_t *out) {
    sqlite3_stmt *s = NULL;
    qb_status st;
    QB_TRY(st, prepare(h, pragma, &s));
    if (sqlite3_step(s) != SQLITE_ROW)
        st = fail(h, "reading");
    else
        *out = sqlite3_column_int64(s, 0);
out:
    sqlite3_finalize(s);
    return st;
}

/* ---- opening ---- */

static qb_status check_sound(const qb_history *h) {
    sqlite3_stmt *s = NULL;
    qb_status st;
    QB_TRY(st, prepare(h, "PRAGMA quick_check(1)", &s));
    if (sqlite3_step(s) != SQLITE_ROW)
        st = fail(h, "checking");
    else if (strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
        st = qb_fail(QB_ERR_FORMAT, "%s is damaged (%s); what is left of it: sqlite3 %s .recover", h->path,
                     sqlite3_column_text(s, 0), h->path);
out:
    sqlite3_finalize(s);
    return st;
}

static qb_status check_kind(const qb_history *h) {
    int64_t application = 0, version = 0, tables = 0;
    qb_status st;
    QB_TRY(st, ask(h, "PRAGMA application_id", &application));
    QB_TRY(st, ask(h, "PRAGMA user_version", &version));
    QB_TRY(st, ask(h, "SELECT count(*) FROM sqlite_master", &tables));
    if (!application && !tables) {
        qb_str sql = {0};
        qb_str_printf(&sql, "BEGIN IMMEDIATE;PRAGMA application_id=%d;PRAGMA user_version=%d;%s COMMIT;",
                      APPLICATION_ID, VERSION, schema);
        st = qb_str_status(&sql);
        if (st == QB_OK) st = execute(h, sql.text, "making it");
        qb_str_free(&sql);
    } else if (application != APPLICATION_ID) {
        st = qb_fail(QB_ERR_FORMAT, "%s is a SQLite file of another program, no history of bench", h->path);
    } else if (version > VERSION) {
        st = qb_fail(QB_ERR_UNSUPPORTED,
                     "%s was written by a later version of bench (layout %lld, this one knows %d)", h->path,
                     (long long)version, VERSION);
    } else {
        st = check_sound(h);
    }
out:
    return st;
}

qb_status qb_history_open(const char *path, bool create, qb_history **out) {
    qb_history *h = NULL;
    qb_status st;
    *out = NULL;
    QB_TRY(st, qb_alloc_zero(1, sizeof *h, &h));
    h->path = qb_strdup(path ? path : "(memory)");
    if (!h->path) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory while opening a history"));
    int flags = SQLITE_OPEN_READWRITE | (create || !path ? SQLITE_OPEN_CREATE : 0);
    if (sqlite3_open_v2(path ? path : ":memory:", &h->db, flags, NULL) != SQLITE_OK)
        QB_TRY(st, qb_fail(QB_ERR_IO, "cannot open the history %s: %s", h->path,
                           h->db ? sqlite3_errmsg(h->db) : "out of memory"));
    sqlite3_busy_timeout(h->db, WAIT_MS);
    QB_TRY(st, check_kind(h));
    *out = h;
    return QB_OK;
out:
    qb_history_close(h);
    return st;
}

void qb_history_close(qb_history *h) {
    if (!h) return;
    sqlite3_close(h->db);
    qb_free(h->path);
    qb_free(h);
}

/* ---- adding ---- */

static void bind_text(sqlite3_stmt *s, int at, const char *text) {
    sqlite3_bind_text(s, at, text ? text : "", -1, SQLITE_TRANSIENT);
}

static void bind_real(sqlite3_stmt *s, int at, double value) {
    if (isfinite(value))
        sqlite3_bind_double(s, at, value);
    else
        sqlite3_bind_null(s, at);
}

/* Runs a statement that gives no rows, and makes it ready for the next. */
static qb_status run_once(const qb_history *h, sqlite3_stmt *s) {
    int code = sqlite3_step(s);
    qb_status st = code == SQLITE_DONE ? QB_OK : fail(h, "adding a run");
    sqlite3_reset(s);
    return st;
}

typedef struct adding {
    qb_history *h;
    sqlite3_stmt *put_series, *find_series, *put_point;
    int64_t run;
} adding;

static qb_status series_of(const adding *a, const qb_row *row, int64_t *id) {
    char facts[QB_SHA256_HEX];
    qb_str text = {0}, device = {0};
    qb_status st;
    qb_row_facts(row, &text);
    QB_TRY(st, qb_str_status(&text));
    QB_TRY(st, qb_hash_bytes(text.text, text.length, facts));
    bool on_device = qb_row_comparison(row) != QB_COMPARE_QUALITY;
    if (on_device && row->of->device) qb_str_text(&device, row->of->device->description);
    const char *words[] = {row->of->id, row->name, row->dataset, row->protocol, row->unit};
    for (int i = 0; i < 5; i++) bind_text(a->put_series, i + 1, words[i]);
    sqlite3_bind_int(a->put_series, 6, row->higher_is_better);
    bind_text(a->put_series, 7, qb_str_get(&device));
    bind_text(a->put_series, 8, facts);
    QB_TRY(st, run_once(a->h, a->put_series));
    bind_text(a->find_series, 1, facts);
    if (sqlite3_step(a->find_series) != SQLITE_ROW) st = fail(a->h, "adding a run");
    *id = sqlite3_column_int64(a->find_series, 0);
    sqlite3_reset(a->find_series);
out:
    qb_str_free(&text);
    qb_str_free(&device);
    return st;
}

static qb_status add_point(const adding *a, const qb_row *row) {
    int64_t series = 0;
    qb_status st;
    double spread = row->stderr_value > 0 ? row->stderr_value : (double)NAN;
    if (row->status != QB_ROW_OK || row->projected || !isfinite(row->value)) return QB_OK;
    QB_TRY(st, series_of(a, row, &series));
    sqlite3_bind_int64(a->put_point, 1, a->run);
    sqlite3_bind_int64(a->put_point, 2, series);
    sqlite3_bind_double(a->put_point, 3, row->value);
    bind_real(a->put_point, 4, row->value - spread);
    bind_real(a->put_point, 5, row->value + spread);
    sqlite3_bind_int(a->put_point, 6, qb_row_is_noisy(row));
    QB_TRY(st, run_once(a->h, a->put_point));
out:
    return st;
}

static qb_status add_run(adding *a, const qb_row_document *d, const char *sha256, bool *added) {
    sqlite3_stmt *s = NULL;
    qb_status st;
    QB_TRY(
        st,
        prepare(a->h,
                "INSERT OR IGNORE INTO runs(created, git, version, suite, name, sha256) VALUES(?,?,?,?,?,?)",
                &s));
    const char *words[] = {d->created, d->git, d->version, d->suite, d->name, sha256};
    for (int i = 0; i < 6; i++) bind_text(s, i + 1, words[i]);
    QB_TRY(st, run_once(a->h, s));
    *added = sqlite3_changes(a->h->db) > 0;
    a->run = sqlite3_last_insert_rowid(a->h->db);
out:
    sqlite3_finalize(s);
    return st;
}

static qb_status add_rows(adding *a, const qb_rows *rows, const char *sha256, bool *added) {
    qb_status st;
    QB_TRY(st, add_run(a, rows->documents, sha256, added));
    if (!*added) return QB_OK;
    QB_TRY(st,
           prepare(a->h,
                   "INSERT OR IGNORE INTO series(case_id, metric, dataset, protocol, unit, higher_is_better, "
                   "device, facts) VALUES(?,?,?,?,?,?,?,?)",
                   &a->put_series));
    QB_TRY(st, prepare(a->h, "SELECT id FROM series WHERE facts = ?", &a->find_series));
    /* A list that names a length twice measures a row twice: the first counts. */
    QB_TRY(st,
           prepare(a->h,
                   "INSERT OR IGNORE INTO points(run, series, value, low, high, noisy) VALUES(?,?,?,?,?,?)",
                   &a->put_point));
    for (int i = 0; i < rows->n_rows; i++)
        if (rows->rows[i].of->status == QB_ROW_OK) QB_TRY(st, add_point(a, &rows->rows[i]));
out:
    return st;
}

qb_status qb_history_add(qb_history *h, const qb_results *document, bool *added) {
    adding a = {.h = h};
    qb_rows rows = {0};
    char sha256[QB_SHA256_HEX], *text = NULL;
    bool begun = false;
    qb_status st;
    *added = false;
    QB_TRY(st, qb_rows_read(&document, 1, &rows));
    QB_TRY(st, qb_json_print(document->doc, false, &text));
    QB_TRY(st, qb_hash_bytes(text, strlen(text), sha256));
    QB_TRY(st, execute(h, "BEGIN IMMEDIATE", "adding a run"));
    begun = true;
    QB_TRY(st, add_rows(&a, &rows, sha256, added));
    QB_TRY(st, execute(h, "COMMIT", "adding a run"));
    begun = false;
out:
    sqlite3_finalize(a.put_series);
    sqlite3_finalize(a.find_series);
    sqlite3_finalize(a.put_point);
    if (begun) (void)sqlite3_exec(h->db, "ROLLBACK", NULL, NULL, NULL);
    qb_rows_free(&rows);
    qb_free(text);
    return st;
}

/* ---- reading ---- */

static qb_status text_at(qb_history_view *v, sqlite3_stmt *s, int column, const char **out) {
    const char *text = (const char *)sqlite3_column_text(s, column);
    return qb_arena_strdup(&v->arena, text ? text : "", out);
}

static qb_status read_runs(qb_history *h, qb_history_view *v) {
    sqlite3_stmt *s = NULL;
    int64_t n = 0;
    int code = 0;
    qb_status st;
    QB_TRY(st, ask(h, "SELECT count(*) FROM runs", &n));
    QB_TRY(st, qb_arena_alloc(&v->arena, (size_t)n + 1, sizeof *v->runs, &v->runs));
    QB_TRY(st, prepare(h, "SELECT created, git, version, suite, name FROM runs ORDER BY created, id", &s));
    while (v->n_runs < n && (code = sqlite3_step(s)) == SQLITE_ROW) {
        qb_history_run *run = &v->runs[v->n_runs++];
        const char **fields[] = {&run->created, &run->git, &run->version, &run->suite, &run->name};
        for (int i = 0; i < 5; i++) QB_TRY(st, text_at(v, s, i, fields[i]));
    }
    if (v->n_runs < n && code != SQLITE_DONE) st = fail(h, "reading runs");
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
    QB_TRY(st, ask(h, "SELECT count(*) FROM series", &n_series));
    QB_TRY(st, ask(h, "SELECT count(*) FROM points", &n_points));
    QB_TRY(st, qb_arena_alloc(&v->arena, (size_t)n_series + 1, sizeof *v->series, &v->series));
    QB_TRY(st, qb_arena_alloc(&v->arena, (size_t)n_points + 1, sizeof *points, &points));
    QB_TRY(st, prepare(h, select_points, &s));
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
    if (read < n_points && code != SQLITE_DONE && code != SQLITE_ROW) st = fail(h, "reading series");
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
    QB_TRY(st, execute(h, "BEGIN", "reading"));
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
