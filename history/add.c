/* Adding a run: its row, the series of its rows, and their values, in one transaction. */
#include "base/hash.h"
#include "history/store.h"
#include "results/comparable.h"
#include "results/rows.h"

#include <math.h>
#include <string.h>

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
    qb_status st = code == SQLITE_DONE ? QB_OK : qb_store_fail(h, "adding a run");
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
    if (sqlite3_step(a->find_series) != SQLITE_ROW) st = qb_store_fail(a->h, "adding a run");
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
    QB_TRY(st,
           qb_store_prepare(
               a->h,
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
    QB_TRY(st, qb_store_prepare(
                   a->h,
                   "INSERT OR IGNORE INTO series(case_id, metric, dataset, protocol, unit, higher_is_better, "
                   "device, facts) VALUES(?,?,?,?,?,?,?,?)",
                   &a->put_series));
    QB_TRY(st, qb_store_prepare(a->h, "SELECT id FROM series WHERE facts = ?", &a->find_series));
    /* A list that names a length twice measures a row twice: the first counts. */
    QB_TRY(st,
           qb_store_prepare(
               a->h, "INSERT OR IGNORE INTO points(run, series, value, low, high, noisy) VALUES(?,?,?,?,?,?)",
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
    QB_TRY(st, qb_store_execute(h, "BEGIN IMMEDIATE", "adding a run"));
    begun = true;
    QB_TRY(st, add_rows(&a, &rows, sha256, added));
    QB_TRY(st, qb_store_execute(h, "COMMIT", "adding a run"));
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
