/* Every metric over the runs of weeks: a SQLite file that runs are added to, the series in it, and where they
   changed. */
#pragma once

#include "base/change_points.h"
#include "base/memory.h"
#include "results/results.h"

typedef struct qb_history qb_history; /* an open store */

/* Opens the store at `path`, which is made when `create` and absent; NULL: one in memory. A locked file is
   waited for two seconds. Errors say what the file is instead: locked, damaged, another program's, or of a
   later version of this one. */
qb_status qb_history_open(const char *path, bool create, qb_history **out) QB_NODISCARD;
void qb_history_close(qb_history *history);
/* Adds every measured row of a document in one transaction. *added is false where it was there already. */
qb_status qb_history_add(qb_history *history, const qb_results *document, bool *added) QB_NODISCARD;

typedef struct qb_history_run {
    const char *created, *git, *version, *suite, *name; /* "" unknown; the file's name */
} qb_history_run;

typedef struct qb_history_point {
    int run;                 /* index */
    double value, low, high; /* low and high: one standard error of the value, or NaN */
    bool noisy;              /* shown, but no change is looked for in it */
} qb_history_point;

typedef struct qb_series_change {
    int point; /* index of the first point after the change */
    double before, after, p;
    bool worse;
} qb_series_change;

/* One row of one case over the runs that it compares across (results/comparable.h). */
typedef struct qb_history_series {
    const char *case_id, *metric, *dataset, *protocol, *unit, *device; /* "" for none */
    bool higher_is_better;
    qb_history_point *points; /* by time */
    int n_points;
    qb_series_change *changes;
    int n_changes;
} qb_history_series;

typedef struct qb_history_view {
    qb_arena arena;
    qb_history_run *runs; /* by time */
    int n_runs;
    qb_history_series *series; /* by case, metric, dataset, protocol, then by their first run */
    int n_series;
} qb_history_view;

/* Reads all of it and finds the change points. Free in any case. */
qb_status qb_history_read(qb_history *history, const qb_change_point_config *config,
                          qb_history_view *out) QB_NODISCARD;
void qb_history_view_free(qb_history_view *view);
/* "decode tg32 b1" */
void qb_history_name(const qb_history_series *s, qb_str *out);

/* Everything that changed, newest first, for the terminal; and all series as JSON. */
qb_status qb_history_text(const qb_history_view *view, qb_str *out) QB_NODISCARD;
qb_status qb_history_json(const qb_history_view *view, qb_json **out) QB_NODISCARD;
/* Every value of every series, one object each, with what changed there: for tables (results/sheet.h). */
qb_status qb_history_values(const qb_history_view *view, qb_json **out) QB_NODISCARD;
/* One self-contained HTML page. */
qb_status qb_history_page(const qb_history_view *view, qb_str *out) QB_NODISCARD;
/* A picture for each metric, dataset and protocol, in DIR, by gnuplot; a line for each case. */
qb_status qb_history_plots(const qb_history_view *view, const char *dir, int *n_files) QB_NODISCARD;
