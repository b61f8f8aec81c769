/* How often something is timed: until the median is known well enough, or the time for it is spent. What
   disturbed a sample from outside marks it, and another one is taken in its place. */
#pragma once

#include "eval/eval.h"

typedef struct qb_sample {
    double value;       /* what the row is made of: tokens a second, seconds */
    double seconds;     /* it took on the wall */
    unsigned disturbed; /* qb_disturbance bits */
} qb_sample;
/* Takes one sample. The rule sees nothing but what this returns, so tests need no clock. */
typedef qb_status (*qb_sample_fn)(void *ctx, qb_sample *out);

typedef struct qb_sampling_rule {
    double precision; /* wanted relative half-width of the median's interval, 0.02 */
    double budget_s;  /* seconds of samples, those taken up from earlier rounds included */
    int64_t exactly;  /* so many samples, whatever their spread; 0: as many as precision and budget ask */
    int64_t least;    /* that this call takes, whatever the budget; 1 or more */
    int64_t balance;  /* that this call takes, within the budget, before precision may end it */
    int enough;       /* undisturbed samples before precision may end it; 0: QB_SAMPLING_ENOUGH */
} qb_sampling_rule;
/* Ten: the interval then leaves out the outermost ones, so that no single one decides. */
enum { QB_SAMPLING_ENOUGH = 10 };

typedef enum {
    QB_STOPPED_PRECISION, /* the interval is narrow enough, and early and late samples agree */
    QB_STOPPED_BUDGET,
    QB_STOPPED_COUNT, /* `exactly` samples, or QB_SAMPLES_MAX of them */
} qb_sampling_stop;

enum { QB_ROUNDS_MAX = 64 };
typedef struct qb_sampling {
    int n; /* all samples in their order */
    double values[QB_SAMPLES_MAX];
    unsigned marks[QB_SAMPLES_MAX];
    double seconds; /* they took */
    int n_rounds;   /* that were closed; 0: all at once */
    double round_medians[QB_ROUNDS_MAX];
    qb_sampling_stop stop;
} qb_sampling;

/* Goes on from what `s` holds ({0} for nothing). */
qb_status qb_sampling_run(const qb_sampling_rule *rule, qb_sample_fn sample, void *ctx,
                          qb_sampling *s) QB_NODISCARD;

/* The samples from index `from` on are one of several rounds over several cases. */
void qb_sampling_close_round(qb_sampling *s, int from);

/* What the samples say. Undisturbed ones alone count where there are enough of them; else all do, and the row
   is noisy. */
typedef struct qb_sampling_verdict {
    int n, n_clean;
    bool all_used;                  /* disturbed ones too */
    double samples[QB_SAMPLES_MAX]; /* [n] those that count, undisturbed ones first */
    double median, low, high;       /* the interval; NaN below six samples */
    double half_width;              /* relative, the wider side; NaN without interval */
    double drift; /* relative difference of the later half's median from the earlier's; NaN below six */
    double round_spread; /* largest over smallest median of a round, less 1; 0 with one round or none */
    bool reached;        /* half-width, drift and rounds are within the precision */
    bool noisy;
    char why[160]; /* it is noisy; "" */
} qb_sampling_verdict;
void qb_sampling_judge(const qb_sampling *s, const qb_sampling_rule *rule, qb_sampling_verdict *out);

/* Each value becomes amount / value: a time of a rate, as the samples are. */
void qb_sampling_invert(qb_sampling *s, double amount);

/* Fills value, n, samples and stderr of the row and its `extra` (docs/measuring.md names the keys). */
void qb_sampling_put(const qb_sampling *s, const qb_sampling_rule *rule, qb_measure *row);
/* The samples of a row that an earlier round put; false where it is none such. */
bool qb_sampling_take_up(const qb_json *row, qb_sampling *out);
