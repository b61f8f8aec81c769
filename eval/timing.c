#include "eval/timing.h"

#include "base/clock.h"
#include "eval/watch.h"

#include <math.h>
#include <string.h>

qb_status qb_timing_run(const qb_timing *t) {
    if (t->prompt) return qb_speed_prompt(t->r, NULL, t->n_tok);
    for (int64_t s = 0; s < t->r->n_seq; s++) t->r->next[s] = qb_speed_id(t->r, s);
    return qb_speed_tokens(t->r, t->depth, t->n_tok);
}

static qb_status run_timed(qb_timing *t, int64_t runs, double *seconds) {
    qb_device *dev = t->r->dev;
    qb_status st = dev->backend->timer_start(dev);
    for (int64_t i = 0; st == QB_OK && i < runs; i++) st = qb_timing_run(t);
    return st == QB_OK ? dev->backend->timer_stop(dev, seconds) : st;
}

static double tokens_of(const qb_timing *t) {
    return (double)(t->n_tok * t->r->n_seq);
}

static qb_status take_sample(void *ctx, qb_sample *out) {
    qb_timing *t = ctx;
    double seconds;
    qb_stretch_begin(&t->stretch);
    int64_t start = qb_now_ns();
    qb_status st = run_timed(t, t->runs, &seconds);
    out->seconds = (double)(qb_now_ns() - start) * 1e-9;
    if (st != QB_OK) return st;
    out->disturbed = qb_stretch_end(&t->stretch, out->seconds);
    out->value = tokens_of(t) * (double)t->runs / seconds;
    t->timed += t->runs;
    return QB_OK;
}

/* Runs that do not count, the last of which tell how many make a sample: as long as was asked for, and so
   long that the samples that a row can hold fill its budget. */
static qb_status warm_up(qb_timing *t) {
    const qb_speed_config *c = t->r->config;
    double wanted = c->sample_ms * 1e-3, seconds = 0;
    if (!c->repeat && wanted > 0) wanted = fmax(wanted, c->budget_s / QB_SAMPLES_MAX);
    qb_status st = QB_OK;
    t->runs = 1;
    for (int64_t i = 0; st == QB_OK && i < c->warmup; i++) st = run_timed(t, 1, &seconds);
    if (seconds > 4 * wanted) return st; /* however cold it was, one is long enough */
    for (int64_t runs = 1; st == QB_OK && wanted > 0; runs *= 2) {
        st = run_timed(t, runs, &seconds);
        if (!(seconds < wanted / 2)) { /* a clock that stood still must not make it endless: 2^20 runs */
            t->runs = (int64_t)fmax(1, ceil((double)runs * wanted / seconds));
            return st;
        }
        if (runs >= 1 << 20) return st;
    }
    return st;
}

/* Rounds share budget and samples evenly. Intervals shrink as 1/sqrt(n): what a round must reach is as much
   wider as it has fewer samples than all together. */
qb_sampling_rule qb_timing_rule(const qb_speed_config *c, const qb_speed_round *round) {
    enum { FEWEST = 3 };
    qb_sampling_rule rule = {.precision = c->precision / 100,
                             .budget_s = c->budget_s,
                             .exactly = c->repeat,
                             .least = FEWEST,
                             .enough = QB_SAMPLING_ENOUGH};
    if (!round || round->count < 2) return rule;
    double part = (double)(round->index + 1) / round->count;
    rule.precision /= sqrt(part);
    rule.budget_s *= part;
    rule.exactly = (int64_t)ceil((double)c->repeat * part);
    rule.least = (FEWEST + round->count - 1) / round->count;
    rule.enough = (int)ceil(QB_SAMPLING_ENOUGH * part);
    return rule;
}

const qb_json *qb_timing_earlier(const qb_speed_round *round, const qb_measures *out, const qb_measure *row) {
    size_t before = 0; /* a list may name a length twice */
    for (size_t i = 0; i + 1 < out->count; i++)
        before += !strcmp(out->rows[i].name, row->name) && !strcmp(out->rows[i].protocol, row->protocol);
    for (const qb_json *m = qb_json_first(round->earlier); m; m = qb_json_next(m)) {
        const char *name = qb_json_string(qb_json_get(m, "name"));
        const char *protocol = qb_json_string(qb_json_get(m, "protocol"));
        if (name && protocol && !strcmp(name, row->name) && !strcmp(protocol, row->protocol) && before-- == 0)
            return m;
    }
    return NULL;
}

/* The worst load of any round stands for the row. */
static void keep_load(const qb_json *earlier, qb_json *extra) {
    double before = qb_json_number(qb_json_get(earlier, "load_average"));
    double now = qb_json_number(qb_json_get(extra, "load_average"));
    if (before > now) qb_json_put_real(extra, "load_average", before);
}

qb_status qb_timing_row(qb_timing *t, const qb_speed_round *round, const qb_measures *out,
                        qb_sampling *sampling, qb_measure *row) {
    const qb_json *earlier = qb_timing_earlier(round, out, row);
    qb_watch watch;
    qb_sampling_rule rule = qb_timing_rule(t->r->config, round), whole = qb_timing_rule(t->r->config, NULL);
    qb_status st = warm_up(t);
    if (st != QB_OK) return st;
    *sampling = (qb_sampling){0};
    if (earlier) qb_sampling_take_up(earlier, sampling);
    int taken_up = sampling->n;
    /* As many as the earlier rounds had each, as far as the budget goes: drift falls on all rounds alike. */
    if (round->index > 0) rule.balance = (taken_up + round->index - 1) / round->index;
    qb_stretch_open(&t->stretch, t->r->dev);
    qb_watch_begin(&watch, t->r->dev);
    st = qb_sampling_run(&rule, take_sample, t, sampling);
    if (st != QB_OK) return st;
    qb_watch_end(&watch, tokens_of(t) * (double)t->timed, row->extra);
    keep_load(earlier, row->extra);
    qb_json_put_int(row->extra, "runs_per_sample", t->runs);
    if (round->count > 1) qb_sampling_close_round(sampling, taken_up);
    qb_sampling_put(sampling, &whole, row);
    return QB_OK;
}
