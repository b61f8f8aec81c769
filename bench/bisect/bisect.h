/* Which revision made a row worse: builds revisions between a good and a bad one, measures each by turns with
   the good one's program, and takes compare's verdicts for an answer. */
#pragma once

#include "bench/bisect/revisions.h"
#include "bench/turns.h"

typedef struct qb_bisect_config {
    const char *good, *bad, *repo; /* revisions; the repository */
    const char *build;             /* a command of the shell, run in the tree */
    const char *program;           /* of the tree, that the build leaves */
    const char *metric;            /* names, comma separated, whose rows count; NULL: all */
    const char *dir;               /* for trees, documents and logs */
    int64_t max_pairs;             /* how far an inconclusive revision is measured on */
    qb_turns_config turns;
    const qb_settings *settings;
    qb_compare_config judging;
} qb_bisect_config;

typedef enum { QB_STEP_GOOD, QB_STEP_BAD, QB_STEP_SKIPPED } qb_step_kind;
extern const char *const qb_step_words[]; /* "good", "bad", "skipped" */

/* A revision that was looked at. */
typedef struct qb_bisect_step {
    qb_commit commit;
    qb_step_kind kind;
    qb_str why;     /* clean: which row is how much worse, or why it was skipped */
    bool unclear;   /* skipped because its rows stayed inconclusive */
    int pairs;      /* that were measured; 0: none */
    double seconds; /* build and measurement */
} qb_bisect_step;

/* A row that is worse at the bad end. */
typedef struct qb_bisect_row {
    char *id, *metric; /* of the case, and as compare writes it; owned, clean */
    double change_pct; /* at the first bad revision that is known; NaN: missing or without one */
    bool worse;        /* there */
} qb_bisect_row;

typedef struct qb_bisect {
    qb_commit good, bad;   /* the ends */
    int64_t between;       /* commits that the bad one reaches and the good one does not */
    qb_bisect_step *steps; /* in the order of looking; the first is the bad end */
    size_t n_steps, steps_capacity;
    qb_bisect_row *rows;
    size_t n_rows, rows_capacity;
    qb_commit *suspects; /* the first bad one is among them, the first bad that was measured leads: one when
                            it is found */
    size_t n_suspects, suspects_capacity;
} qb_bisect;

/* QB_ERR_USAGE where the ends are no ends of a range. When the bad end is not worse the search does not
   begin: n_suspects is 0 and steps[0] says what it is. `out` is zero-initialised; free in any case. */
qb_status qb_bisect_run(const qb_bisect_config *config, qb_bisect *out) QB_NODISCARD;
void qb_bisect_free(qb_bisect *b);
