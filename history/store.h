/* The SQLite file of a history, for the files of this folder: what it is and how a statement on it fails. */
#pragma once

#include "history/history.h"

#include <sqlite3.h>

struct qb_history {
    sqlite3 *db;
    char *path; /* "(memory)" */
};

/* The status of the last call on the file; `doing` completes "while ..". */
qb_status qb_store_fail(const qb_history *h, const char *doing) QB_NODISCARD;
qb_status qb_store_execute(const qb_history *h, const char *sql, const char *doing) QB_NODISCARD;
/* *out: for sqlite3_finalize, which takes NULL. */
qb_status qb_store_prepare(const qb_history *h, const char *sql, sqlite3_stmt **out) QB_NODISCARD;
/* The one number that a statement gives. */
qb_status qb_store_ask(const qb_history *h, const char *sql, int64_t *out) QB_NODISCARD;
