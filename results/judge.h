/* How one row is judged against its counterpart, in two steps: what can be tested gets a p value, and when
   all rows have theirs (results/compare.c applies Holm's step-down) each gets its verdict. Private to
   results/. */
#pragma once

#include "results/compare.h"

/* The same row of several runs, noisy ones left out. */
typedef struct qb_pool {
    double *logs; /* logarithms of all samples; owned */
    int n;
    size_t capacity;
    double *centers; /* of each run: the median of its processes; owned */
    int runs;
    size_t centers_capacity;
    double *processes; /* the median of each process's logs: of each round, where a run had rounds; owned */
    int rounds;        /* in all runs */
    size_t processes_capacity;
    double *within; /* squared standard error of each center by what is within its run; owned */
    size_t within_capacity;
    bool sampled; /* some run has more than one sample */
} qb_pool;
/* Adds a row: its samples and rounds, or its value where it has none. */
qb_status qb_pool_add(qb_pool *pool, const qb_row *row) QB_NODISCARD;
void qb_pool_free(qb_pool *pool);

/* First step. Rows of one kind each; `row` has its values. `assumed_pct`: what runs are taken to scatter by
   where those at hand do not say. */
void qb_judge_time(const qb_pool *before, const qb_pool *after, double assumed_pct, qb_compare_row *row);
/* Of runs by turns: logarithms of the i-th pair's values, n >= 1. `after` is changed. */
void qb_judge_pairs(const double *before, double *after, int n, qb_compare_row *row);
void qb_judge_windows(const qb_row *a, const qb_row *b, qb_compare_row *row);
void qb_judge_size(const qb_row *a, const qb_compare_config *config, qb_compare_row *row);
void qb_judge_hash(const qb_row *a, const qb_row *b, qb_compare_row *row);
/* Between the steps, when c->tested is known: the p value of a time, made safe against stray runs. */
void qb_judge_time_tails(const qb_comparison *c, qb_compare_row *row);
/* Second step, of rows that have a p value. */
void qb_judge_tested(const qb_comparison *c, qb_compare_row *row);
void qb_decide_time(const qb_comparison *c, qb_compare_row *row);
