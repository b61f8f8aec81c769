#include "bench/run/rounds.h"

#include "base/log.h"
#include "base/metric.h"
#include "results/results.h"

#include <string.h>

int qb_rounds_of(const qb_run *run) {
    size_t measured = 0;
    for (size_t i = 0; i < run->cases.count; i++) measured += !run->cases.items[i].skipped[0];
    int rounds = (int)run->suite.speed.rounds;
    if (rounds < 2 || measured < 2 || !qb_suite_measures(&run->suite, "speed")) return 1;
    if (run->options->cache) return rounds;
    qb_info("--no-cache: speeds are measured case after case, not in %d rounds over all", rounds);
    return 1;
}

static const char *text_of(const qb_json *row, const char *key) {
    const char *text = qb_json_string(qb_json_get(row, key));
    return text ? text : "";
}

static bool same_row(const qb_json *a, const qb_json *b) {
    return !strcmp(text_of(a, "name"), text_of(b, "name")) &&
           !strcmp(text_of(a, "protocol"), text_of(b, "protocol")) &&
           !strcmp(text_of(a, "dataset"), text_of(b, "dataset"));
}

static bool is_of(const qb_json *row, const char *group) {
    const qb_metric *m = qb_metric_find(text_of(row, "name"));
    return m && m->group && !strcmp(m->group, group);
}

static const qb_json *counterpart(const qb_json *rows, const qb_json *row) {
    for (const qb_json *r = qb_json_first(rows); r; r = qb_json_next(r))
        if (same_row(r, row)) return r;
    return NULL;
}

/* What a process holds at its peak depends on what it did. */
static bool is_peak(const qb_json *row) {
    return !strcmp(text_of(row, "name"), "peak_rss_bytes") ||
           !strcmp(text_of(row, "name"), "device_memory_bytes");
}

static const qb_json *larger(const qb_json *a, const qb_json *b) {
    return qb_json_number(qb_json_get(a, "value")) > qb_json_number(qb_json_get(b, "value")) ? a : b;
}

qb_json *qb_rounds_merge(const qb_json *earlier, const qb_json *later) {
    qb_json *all = qb_json_array();
    bool speeds = false;
    for (const qb_json *r = qb_json_first(later); r; r = qb_json_next(r))
        speeds = speeds || is_of(r, "speed");
    for (const qb_json *r = qb_json_first(earlier); r; r = qb_json_next(r)) {
        bool replaced = is_of(r, "speed") ? speeds : counterpart(later, r) != NULL;
        if (!replaced) qb_json_push(all, qb_json_copy(r));
    }
    for (const qb_json *r = qb_json_first(later); r; r = qb_json_next(r)) {
        const qb_json *before = is_peak(r) ? counterpart(earlier, r) : NULL;
        qb_json_push(all, qb_json_copy(before ? larger(before, r) : r));
    }
    return all;
}
