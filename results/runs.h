/* The result documents that words name: a file, a directory of runs, or a committed baseline. */
#pragma once

#include "results/results.h"

typedef struct qb_runs {
    qb_results *documents; /* owned; by time, the newest last */
    int n;
    size_t capacity;
    bool several; /* a directory was named */
} qb_runs;

/* Each of the n words: a result document; a directory, whose *.json that are result documents are taken and
   whose other files are told in a warning each; or baseline:NAME, which is NAME.json or the
   directory NAME in $BENCH_BASELINES, ./baselines, ./results/baselines or the program's own baselines. Of
   all together the `newest` stay. Fails for a word that holds none. Free in any case. */
qb_status qb_runs_open(const char *const *words, size_t n, int64_t newest, qb_runs *out) QB_NODISCARD;
void qb_runs_close(qb_runs *runs);
/* Takes out of a directory's runs what `others` hold too: a run is no baseline of itself. */
void qb_runs_without(qb_runs *runs, const qb_runs *others);
