/* The metrics: a row of metrics.def each. What measures (eval/), what reads results (results/, plots/) and
   what chooses (suites) learn from the same row. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* How two values of a metric are judged against each other. */
typedef enum {
    QB_JUDGE_QUALITY, /* of the model's answers: a relative tolerance, paired by window where sums were kept
                       */
    QB_JUDGE_TIME,    /* speeds and durations: samples, and only on one device */
    QB_JUDGE_SIZE,    /* of the model: a relative tolerance */
    QB_JUDGE_MEMORY, /* of a process or a device: a tolerance, of bytes a floor too, and only on one device */
    QB_JUDGE_HASH,   /* equal or not; neither better nor worse */
} qb_judge;

/* What has to be there before it can be measured, as bits. */
enum {
    QB_METRIC_WINDOWS = 1,  /* token windows of texts */
    QB_METRIC_BASE = 2,     /* a second model, which it is measured from */
    QB_METRIC_RESIDENT = 4, /* all weights on the device at once */
    QB_METRIC_CEILINGS = 8, /* of the device */
    QB_METRIC_PROMPTS = 16,
};

/* How a value is written for people. */
typedef enum {
    QB_FORMAT_PLAIN,      /* four significant digits and the unit */
    QB_FORMAT_PERPLEXITY, /* four to five digits and the standard error */
    QB_FORMAT_SPEED,      /* with the samples' deviation */
    QB_FORMAT_BITS,       /* two decimals */
    QB_FORMAT_BYTES,      /* MB or GB, by the largest of a column */
    QB_FORMAT_SECONDS,
    QB_FORMAT_HASH,
} qb_metric_format;

typedef struct qb_metric {
    const char *name, *unit;
    bool higher_is_better;
    const char *group; /* of suites; NULL: none measures it */
    unsigned needs;
    qb_judge judge;
    const char *heading; /* of its column in tables, "bits per|weight" in two lines; NULL: it has none */
    qb_metric_format format;
    const char *summary, *source;
} qb_metric;
const qb_metric *qb_metric_at(size_t index); /* NULL behind the last */
const qb_metric *qb_metric_find(const char *name);

/* The groups that a suite's "metrics" may name. */
typedef struct qb_metric_group {
    const char *name, *summary;
    unsigned needs; /* of all its metrics together */
} qb_metric_group;
const qb_metric_group *qb_metric_group_at(size_t index);
