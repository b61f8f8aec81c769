/* Two programs that measure one suite by turns, A B, B A, A B ..: what drifts on the machine is in both sides
   of a pair. What `bench ab` is, and how `bench bisect` judges a revision. */
#pragma once

#include "base/option.h"
#include "bench/settings.h"
#include "results/compare.h"

typedef struct qb_turns_config {
    const char *suite, *model, *data, *only, *backend;
    const char *set;  /* only for --help: it may be given several times */
    const char *numa; /* NULL: not passed on, as older programs do not know it */
    int64_t pairs, samples, threads;
    bool synthetic;
} qb_turns_config;
extern const qb_option qb_turns_options[];

typedef struct qb_turns {
    const qb_turns_config *config;
    const char *programs[2];          /* the old and the new one; found in PATH without a '/' */
    const qb_settings *both, *own[2]; /* settings; NULL: none */
    const char *dir;                  /* of documents and logs */
    const char *prefix;               /* heads their names: PREFIXa-001.json */
    /* ---- its own ---- */
    bool has_rounds[2], no_times;
    qb_results *documents[2]; /* the first has everything, the others speeds only */
    int n[2];
    size_t capacity[2];
} qb_turns;

/* Goes on until each side was measured `pairs` times; once is enough for a suite without speeds. The first
   pair measures all that the suite names. A side that ends without a document fails with its last line. */
qb_status qb_turns_measure(qb_turns *t, int pairs) QB_NODISCARD;
void qb_turns_close(qb_turns *t); /* the documents' files stay */

/* The sides set against each other, times by the differences of pairs. Free in any case, before the turns. */
typedef struct qb_turns_verdict {
    qb_rows sides[2];
    qb_comparison comparison; /* points into the sides */
} qb_turns_verdict;
qb_status qb_turns_judge(const qb_turns *t, const qb_compare_config *config,
                         qb_turns_verdict *out) QB_NODISCARD;
void qb_turns_verdict_free(qb_turns_verdict *v);
