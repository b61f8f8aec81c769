/* Comparison of result documents: what was found, row by row, and how it is told to people and to programs.
   docs/gate.md says what decides, in words. */
#pragma once

#include "results/paired.h"

typedef struct qb_compare_config {
    double perplexity_tolerance_pct; /* relative change of a quality that counts as moved */
    double speed_effect_pct;         /* least relative change of a speed or time that matters */
    double alpha;                    /* chance of one false alarm among all rows that are tested */
    double run_spread_pct; /* what runs of unchanged code are taken to differ by (standard deviation)
                              where the runs at hand do not say */
    double memory_tolerance_pct;
    double memory_floor_mb; /* memory of a process or a device moved when it moved by more than this too */
    bool force;             /* compare speeds and memory although devices differ */
    bool paired; /* the sets' documents were measured by turns, the first with the first: times are judged by
                    the differences of pairs, and configurations and devices may differ, for that is what is
                    asked */
    bool in_order; /* the sides' settings differ on purpose: cases that have no namesake meet in their order
                      where either side has as many of them */
    const char *names[2]; /* what is said of either side in place of its newest document; NULL: its path */
} qb_compare_config;

typedef enum {
    QB_PASS, /* unchanged as far as the gate asks, or equally absent */
    QB_IMPROVEMENT,
    QB_REGRESSION,
    QB_MISSING,      /* measured before, not there now: a regression */
    QB_CHANGED,      /* worth a line, neither better nor worse */
    QB_INCONCLUSIVE, /* the samples or windows cannot tell: more are needed */
    QB_NOISY_ROW,    /* marked noisy by whoever measured it: decides nothing */
    QB_INCOMPARABLE, /* both are there, but a comparison would mean nothing */
    QB_N_VERDICTS
} qb_verdict;
extern const char *const qb_verdict_keys[QB_N_VERDICTS]; /* "pass", "improvement", ... */

/* What a time was set against. */
typedef enum {
    QB_BY_NOTHING,             /* not a time, or not tested */
    QB_BY_RUNS,                /* the scatter of the runs at hand */
    QB_BY_RUNS_AND_ASSUMPTION, /* the same, and assumed scatter: the processes are too few for their ranks */
    QB_BY_ASSUMPTION,          /* assumed scatter: runs are too few to show theirs */
    QB_BY_PAIRS,
} qb_judged_by;

typedef struct qb_compare_row {
    const char *id;      /* of the case; points into a document */
    const char *new_id;  /* in the new one, where it is called otherwise there; NULL */
    qb_str metric, unit; /* "perplexity wikitext2 gptq-2048", "1"; clean text */
    const char *name;    /* of the metric; "case" for a whole case */
    bool higher_is_better;
    double old_value, new_value, change_pct; /* NaN where there is none */
    double low_pct,
        high_pct;         /* 90 % interval of the change of a time; NaN without, infinite where unbounded */
    double p, p_adjusted; /* of the test, and by Holm over all rows; NaN: not tested */
    double new_low, new_high; /* of what the new value was made of, for charts; NaN */
    /* What a time was judged by, old and new: processes are the rounds of all runs. */
    int samples[2], runs[2], processes[2];
    int noisy_unmoved;         /* noisy runs of the new side, which are not judged, that did not get worse */
    int pairs;                 /* that a time was judged by; 0: by runs */
    qb_judged_by judged_by;    /* a time */
    double spread_pct;         /* of runs: what they scatter by, or are taken to; NaN */
    double p_ranks, p_assumed; /* of the processes' ranks, and by assumed scatter; NaN */
    double scatter_pct;        /* of windows; NaN */
    qb_paired paired;          /* of perplexities; windows 0 without */
    int64_t sums;              /* over windows that were tested; 0: by tolerance alone */
    qb_verdict verdict;
    bool appeared;         /* an improvement for being measured now at all: nothing stood against it */
    int64_t needed;        /* about how many would tell, of an inconclusive row; of one that passes, how many
                              would exclude a change that matters, where this is not yet so. 0: unknown, or none */
    const char *needed_of; /* "samples a side", "runs", "windows" */
    qb_str why;            /* clean text, may be empty */
} qb_compare_row;

typedef struct qb_comparison {
    qb_compare_config config;
    qb_compare_row *rows; /* owned */
    size_t count, capacity;
    int tested;            /* rows that Holm's step-down covers */
    int64_t unmeasured[2]; /* cases that the old and the new run planned and did not come to */
    int documents[2];
    qb_str origin[2]; /* file, time, program, device of the newest document on either side; clean text */
} qb_comparison;

/* Sets the newest document of `after` (the last one) against the newest of `before`; earlier ones add their
   samples. Both sets outlive the comparison. Free in any case. */
qb_status qb_compare(const qb_rows *before, const qb_rows *after, const qb_compare_config *config,
                     qb_comparison *out) QB_NODISCARD;
void qb_comparison_free(qb_comparison *c);
size_t qb_comparison_count(const qb_comparison *c, qb_verdict verdict);
/* Rows with figures on both sides that passed or improved: none of them, and nothing vouches for the new
 * document. */
size_t qb_comparison_vouched(const qb_comparison *c);
/* QB_REGRESSION: something is worse or missing, a document is incomplete, or no row of the two was
   comparable: a gate must not pass because it saw nothing. QB_INCONCLUSIVE: some row is, or nothing but noise
   was seen. Else QB_IMPROVEMENT or QB_PASS. */
qb_verdict qb_comparison_verdict(const qb_comparison *c);
int qb_comparison_exit_code(const qb_comparison *c); /* 0, 1, 3 */

/* How a comparison is written; the choices of `bench compare --format`. */
typedef struct qb_compare_format {
    const char *name, *summary;
    qb_status (*write)(const qb_comparison *c, qb_str *out);
} qb_compare_format;
const qb_compare_format *qb_compare_format_at(size_t index); /* NULL behind the last */
const qb_compare_format *qb_compare_format_find(const char *name);
#define QB_COMPARE_FORMATS "text|markdown|csv|junit|json|bencher|benchmark-bigger|benchmark-smaller"

/* Parts of the formats, for results/ alone. */
/* "demo/rtn-4b-g128/cpu", or "demo/rtn-4b-g128/cpu, demo/rtn-4b-g64/cpu" where the new side calls it
 * otherwise; clean text. */
void qb_compare_put_case(const qb_compare_row *row, int max_columns, qb_str *out);
void qb_compare_put_value(double value, const char *unit, qb_str *out);
void qb_compare_put_change(double pct, qb_str *out);
void qb_compare_put_reason(const qb_compare_row *row, qb_str *out); /* pairs, interval, what is needed, why */
/* "3 regressions, ..." and the verdict, in a line each. */
void qb_compare_put_counts(const qb_comparison *c, qb_str *out);
void qb_compare_put_verdict(const qb_comparison *c, qb_str *out);
/* The reasons why rows were not compared, each once: false behind the last. Start with *at = 0; *rows counts
   those of the reason, *row is the first. */
bool qb_compare_next_reason(const qb_comparison *c, size_t *at, const qb_compare_row **row, size_t *rows);
qb_status qb_compare_write_text(const qb_comparison *c, qb_str *out) QB_NODISCARD;
qb_status qb_compare_write_markdown(const qb_comparison *c, qb_str *out) QB_NODISCARD;
qb_status qb_compare_write_junit(const qb_comparison *c, qb_str *out) QB_NODISCARD;
qb_status qb_compare_write_json(const qb_comparison *c, qb_str *out) QB_NODISCARD;
qb_status qb_compare_write_bencher(const qb_comparison *c, qb_str *out) QB_NODISCARD;
qb_status qb_compare_write_bigger(const qb_comparison *c, qb_str *out) QB_NODISCARD;
qb_status qb_compare_write_smaller(const qb_comparison *c, qb_str *out) QB_NODISCARD;
