#include "base/metric.h"

#include <string.h>

static const qb_metric metrics[] = {
#define X(name, unit, higher, group, needs, judge, heading, format, summary, source)                         \
    {name, unit, higher, group, needs, judge, heading, format, summary, source},
#include "base/metrics.def"
#undef X
};
enum { N_METRICS = sizeof metrics / sizeof metrics[0] };

static const qb_metric_group groups[] = {
    {"perplexity", "every dataset under every protocol of the suite", QB_METRIC_WINDOWS},
    {"divergence", "the same windows against the unquantized model: Kullback-Leibler divergence and its kin",
     QB_METRIC_WINDOWS | QB_METRIC_BASE},
    {"speed", "prefill, decode, time to first token, latency of prompts",
     QB_METRIC_RESIDENT | QB_METRIC_CEILINGS | QB_METRIC_PROMPTS},
    {"memory", "checkpoint, resident weights, key-value cache, peak of the process", 0},
    {"determinism", "hash of the logits of fixed tokens", QB_METRIC_RESIDENT},
};
enum { N_GROUPS = sizeof groups / sizeof groups[0] };

const qb_metric *qb_metric_at(size_t index) {
    return index < N_METRICS ? &metrics[index] : NULL;
}

const qb_metric *qb_metric_find(const char *name) {
    for (size_t i = 0; name && i < N_METRICS; i++)
        if (!strcmp(metrics[i].name, name)) return &metrics[i];
    return NULL;
}

const qb_metric_group *qb_metric_group_at(size_t index) {
    return index < N_GROUPS ? &groups[index] : NULL;
}
