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
} qb_sampling_rule;

typedef enum {
    QB_STOPPED_PRECISION, /* the interval is narrow enough, and early and late samples agree */
    QB_STOPPED_BUDGET,
    QB_STOPPED_COUNT, /* `exactly` samples, or QB_SAMPLES_MAX of them */
} qb_sampling_stop;

typedef struct qb_sampling {
    int n; /* all samples in their order */
    double values[QB_SAMPLES_MAX];
    unsigned marks[QB_SAMPLES_MAX];
    double seconds; /* they took */
    qb_sampling_stop stop;
} qb_sampling;

/* Goes on from what `s` holds ({0} for nothing). */
qb_status qb_sampling_run(const qb_sampling_rule *rule, qb_sample_fn sample, void *ctx,
                          qb_sampling *s) QB_NODISCARD;

/* What the samples say. Undisturbed ones alone count where there are enough of them; else all do, and the row
   is noisy. */
typedef struct qb_sampling_verdict {
    int n, n_clean;
    bool all_used;                  /* disturbed ones too */
    double samples[QB_SAMPLES_MAX]; /* [n] those that count, undisturbed ones first */
    double median, low, high;       /* the interval; NaN below six samples */
    double half_width;              /* relative, the wider side; NaN without interval */
    double drift; /* relative difference of the later half's median from the earlier's; NaN below six */
    bool reached; /* half-width and drift are within the precision */
    bool noisy;
    char why[160]; /* it is noisy; "" */
} qb_sampling_verdict;
void qb_sampling_judge(const qb_sampling *s, const qb_sampling_rule *rule, qb_sampling_verdict *out);

/* Fills value, n, samples and stderr of the row and its `extra` (docs/measuring.md names the keys). */
void qb_sampling_put(const qb_sampling *s, const qb_sampling_rule *rule, qb_measure *row);
/* The samples of a row that an earlier round put; false where it is none such. */
bool qb_sampling_take_up(const qb_json *row, qb_sampling *out);
