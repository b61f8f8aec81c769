/* The file: its layout, opening it, and what is wrong with one. */
#include "history/store.h"

#include <string.h>

enum {
    APPLICATION_ID = 0x51424831, /* "QBH1", in the file's header */
    VERSION = 1,
    WAIT_MS = 2000
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

qb_status qb_store_fail(const qb_history *h, const char *doing) {
    int code = sqlite3_errcode(h->db) & 0xff;
    switch (code) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return qb_fail(
            QB_ERR_IO,
            "%s is locked by another program (waited %d seconds while %s): try again when it is done",
            h->path, WAIT_MS / 1000, doing);
    case SQLITE_NOTADB:
        return qb_fail(QB_ERR_FORMAT,
                       "%s is no SQLite file, or its beginning is damaged: expected what bench history add "
                       "writes, or a directory of result documents",
                       h->path);
    case SQLITE_CORRUPT:
        return qb_fail(
            QB_ERR_FORMAT,
            "%s is damaged (%s): expected what bench history add writes; what is left of it: sqlite3 %s "
            ".recover",
            h->path, sqlite3_errmsg(h->db), h->path);
    case SQLITE_NOMEM:
        return qb_fail(QB_ERR_MEMORY, "%s: out of memory while %s", h->path, doing);
    default:
        return qb_fail(QB_ERR_IO, "%s: %s while %s", h->path, sqlite3_errmsg(h->db), doing);
    }
}

qb_status qb_store_execute(const qb_history *h, const char *sql, const char *doing) {
    return sqlite3_exec(h->db, sql, NULL, NULL, NULL) == SQLITE_OK ? QB_OK : qb_store_fail(h, doing);
}

qb_status qb_store_prepare(const qb_history *h, const char *sql, sqlite3_stmt **out) {
    return sqlite3_prepare_v2(h->db, sql, -1, out, NULL) == SQLITE_OK ? QB_OK : qb_store_fail(h, "reading");
}

/* The one number that a pragma gives. */
qb_status qb_store_ask(const qb_history *h, const char *pragma, int64_t *out) {
    sqlite3_stmt *s = NULL;
    qb_status st;
    QB_TRY(st, qb_store_prepare(h, pragma, &s));
    if (sqlite3_step(s) != SQLITE_ROW)
        st = qb_store_fail(h, "reading");
    else
        *out = sqlite3_column_int64(s, 0);
out:
    sqlite3_finalize(s);
    return st;
}

/* ---- opening ---- */

/* SQLite says it in lines: the last is what it found, the one before in which database. */
static qb_status damaged(const qb_history *h, const char *said) {
    const char *last = strrchr(said, '\n');
    return qb_fail(QB_ERR_FORMAT, "%s is damaged (%s); what is left of it: sqlite3 %s .recover", h->path,
                   last ? last + 1 : said, h->path);
}

static qb_status check_sound(const qb_history *h) {
    sqlite3_stmt *s = NULL;
    qb_status st;
    QB_TRY(st, qb_store_prepare(h, "PRAGMA quick_check(1)", &s));
    if (sqlite3_step(s) != SQLITE_ROW)
        st = qb_store_fail(h, "checking");
    else if (strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
        st = damaged(h, (const char *)sqlite3_column_text(s, 0));
out:
    sqlite3_finalize(s);
    return st;
}

static qb_status check_kind(const qb_history *h) {
    int64_t application = 0, version = 0, tables = 0;
    qb_status st;
    QB_TRY(st, qb_store_ask(h, "PRAGMA application_id", &application));
    QB_TRY(st, qb_store_ask(h, "PRAGMA user_version", &version));
    QB_TRY(st, qb_store_ask(h, "SELECT count(*) FROM sqlite_master", &tables));
    if (!application && !tables) {
        qb_str sql = {0};
        qb_str_printf(&sql, "BEGIN IMMEDIATE;PRAGMA application_id=%d;PRAGMA user_version=%d;%s COMMIT;",
                      APPLICATION_ID, VERSION, schema);
        st = qb_str_status(&sql);
        if (st == QB_OK) st = qb_store_execute(h, sql.text, "making it");
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
