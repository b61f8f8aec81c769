#include "bench/measure/measure.h"

#include "base/memory.h"
#include "bench/measure/placement.h"
#include "bench/run/plan.h"
#include "eval/activations.h"
#include "eval/divergence.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static qb_json *row_json(const char *name, const char *unit, bool higher, const char *protocol,
                         const char *dataset) {
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "name", name);
    qb_json_put_null(j, "value");
    qb_json_put_text(j, "unit", unit);
    qb_json_put_text(j, "better", higher ? "higher" : "lower");
    qb_json_put_text(j, "protocol", protocol && *protocol ? protocol : NULL);
    qb_json_put_text(j, "dataset", dataset && *dataset ? dataset : NULL);
    return j;
}

static bool is_count(const char *unit, double v) {
    return !strcmp(unit, "B") && v == floor(v) && fabs(v) < 9e15;
}

static void put_value(qb_json *j, const qb_measure *row) {
    if (is_count(row->unit, row->value))
        qb_json_put_int(j, "value", (int64_t)row->value);
    else
        qb_json_put_real(j, "value", row->value);
}

qb_json *qb_measure_json(qb_measure *row) {
    qb_json *j = row_json(row->name, row->unit, row->higher_is_better, row->protocol, row->dataset);
    bool ok = !row->skipped[0];
    if (ok) put_value(j, row);
    qb_json_put_int(j, "n", row->n);
    qb_json_put_real(j, "stderr", row->stderr_value);
    qb_json_put_text(j, "status", ok ? "ok" : "skipped");
    qb_json_put_text(j, "error", ok ? NULL : row->skipped);
    qb_json *samples = qb_json_array();
    for (int i = 0; i < row->n_samples; i++) qb_json_push_real(samples, row->samples[i]);
    qb_json_put(j, "samples", samples);
    for (const qb_json *e = qb_json_first(row->extra); e; e = qb_json_next(e))
        if (!qb_json_get(j, qb_json_key(e))) qb_json_put(j, qb_json_key(e), qb_json_copy(e));
    return j;
}

/* A row without a value: `status` is "skipped" or "failed". */
static void push_empty(qb_json *metrics, const char *metric, const char *protocol, const char *dataset,
                       const char *status, const char *reason) {
    const qb_metric *m = qb_metric_find(metric);
    qb_json *j = row_json(metric, m ? m->unit : "1", m && m->higher_is_better, protocol, dataset);
    qb_json_put_int(j, "n", 0);
    qb_json_put_null(j, "stderr");
    qb_json_put_text(j, "status", status);
    qb_json_put_text(j, "error", *reason ? reason : "no reason given");
    qb_json_put(j, "samples", qb_json_array());
    qb_json_push(metrics, j);
}

void qb_measure_push_skipped(qb_json *metrics, const char *metric, const char *protocol, const char *dataset,
                             const char *reason) {
    push_empty(metrics, metric, protocol, dataset, "skipped", reason);
}

/* Keeps the first failure of several and goes on. */
typedef struct {
    qb_status status;
    qb_str text;
} first_failure;

static void note(first_failure *f, qb_status st, const char *what) {
    if (st == QB_OK || f->status != QB_OK) return;
    f->status = st;
    qb_str_printf(&f->text, "%s: %s", what, qb_error_text());
}

static void push_rows(qb_json *metrics, qb_measures *rows) {
    for (size_t i = 0; i < rows->count; i++) qb_json_push(metrics, qb_measure_json(&rows->rows[i]));
}

static qb_status score(qb_model *m, qb_device *dev, const qb_measuring *what, const qb_scoring *s,
                       qb_measure *row) {
    if (what->base) return qb_divergence_measure(m, what->base, &s->windows, what->memory_bytes, row);
    qb_status st = qb_perplexity(m, dev, &s->windows, what->memory_bytes, row);
    if (st == QB_OK && !isfinite(row->value))
        st = qb_fail(QB_ERR_NUMERIC,
                     "the perplexity is not finite: the mean negative log-likelihood overflows exp");
    if (st == QB_OK && isfinite(s->floor)) qb_json_put_real(row->extra, "floor", s->floor);
    return st;
}

static qb_status measure_scoring(qb_model *m, qb_device *dev, const qb_measuring *what, const qb_scoring *s,
                                 qb_json *metrics) {
    const char *metric = what->base ? "kl_divergence" : "perplexity";
    if (s->skipped[0]) {
        push_empty(metrics, metric, s->protocol, s->dataset, "skipped", s->skipped);
        return QB_OK;
    }
    qb_measure row = {0};
    qb_activation_use use;
    qb_status st = qb_activations_use(m, dev, what->activations, true, &use);
    if (st == QB_OK) st = score(m, dev, what, s, &row);
    if (st == QB_OK) {
        qb_activations_put(&use, row.extra);
        qb_json_push(metrics, qb_measure_json(&row));
    } else {
        push_empty(metrics, metric, s->protocol, s->dataset, "failed", qb_error_text());
    }
    qb_measure_free(&row);
    return st;
}

static qb_status measure_speed(qb_model *m, qb_device *dev, const qb_measuring *what, qb_json *metrics) {
    qb_measures rows = {0};
    qb_status st = qb_speed(m, dev, what->speed, what->prompts, what->ceilings, what->round, &rows);
    push_rows(metrics, &rows);
    if (st != QB_OK) push_empty(metrics, "decode", NULL, NULL, "failed", qb_error_text());
    qb_measures_free(&rows);
    return st;
}

static qb_status measure_memory(qb_model *m, qb_device *dev, qb_json *metrics) {
    qb_measures rows = {0};
    qb_status st = qb_memory_measures(m, dev, &rows);
    push_rows(metrics, &rows);
    if (st != QB_OK) push_empty(metrics, "peak_rss_bytes", NULL, NULL, "failed", qb_error_text());
    qb_measures_free(&rows);
    return st;
}

static qb_status measure_logits(qb_model *m, qb_device *dev, const qb_measuring *what, qb_json *metrics) {
    qb_measures rows = {0};
    qb_activation_use use;
    qb_status st =
        qb_activations_use(m, dev, what->activations, true, &use); /* the speed rows had their own */
    if (st == QB_OK) st = qb_determinism(m, dev, &rows);
    for (size_t i = 0; i < rows.count; i++) qb_activations_put(&use, rows.rows[i].extra);
    push_rows(metrics, &rows);
    if (st != QB_OK) push_empty(metrics, "logits_sha256", NULL, NULL, "failed", qb_error_text());
    qb_measures_free(&rows);
    return st;
}

static int64_t largest(const qb_int_list *list) {
    int64_t max = 0;
    for (int i = 0; i < list->n; i++)
        if (list->values[i] > max) max = list->values[i];
    return max;
}

/* Positions that the rotary table must cover. */
static int64_t positions_needed(const qb_model *m, const qb_measuring *what) {
    int64_t need = what->determinism ? 64 : 1;
    for (size_t i = 0; i < what->n_scorings; i++)
        if (what->scorings[i].windows.max_length > need) need = what->scorings[i].windows.max_length;
    if (what->speed) {
        int64_t speed = largest(&what->speed->depth) + largest(&what->speed->decode);
        if (largest(&what->speed->prefill) > speed) speed = largest(&what->speed->prefill);
        if (speed > need) need = speed;
        if (what->prompts) need = m->config.max_positions;
    }
    return need < m->config.max_positions ? need : m->config.max_positions;
}

/* What must fit beside the weights of a resident model. */
static qb_status work_bytes(const qb_model *m, const qb_device *dev, const qb_measuring *what, int64_t *out) {
    int64_t most = what->speed ? qb_plan_speed_bytes(m, dev->backend, what->speed) : 0;
    for (size_t i = 0; i < what->n_scorings; i++) {
        qb_perplexity_plan plan;
        if (what->scorings[i].skipped[0]) continue;
        /* All weights are held. */
        qb_status st = qb_perplexity_plan_make(m, &what->scorings[i].windows, INT64_MAX / 4, &plan);
        if (st != QB_OK) return st;
        int64_t beside = plan.peak_bytes - qb_model_weight_bytes(m);
        most = beside > most ? beside : most;
    }
    *out = most;
    return QB_OK;
}

/* Whether the weights stay on the device with the rest of the work. Speed and the logits hash need it; a
   perplexity alone may run layer by layer. */
static qb_status place(qb_model *m, qb_device *dev, const qb_measuring *what, qb_placement *out) {
    bool resident_only = what->speed || what->determinism;
    int64_t work = 0;
    qb_status st = dev->backend->separate_memory ? work_bytes(m, dev, what, &work) : QB_OK;
    if (st == QB_OK)
        st = qb_placement_make(m, dev, work, what->memory_bytes, what->offload && resident_only, out);
    if (st != QB_OK || out->kind != QB_PLACEMENT_DEVICE) return st;
    for (size_t i = 0; i < what->n_scorings; i++) {
        qb_perplexity_plan plan;
        if (what->scorings[i].skipped[0]) continue;
        st = qb_perplexity_plan_make(m, &what->scorings[i].windows, what->memory_bytes, &plan);
        if (st != QB_OK) return st;
        if (plan.layer_major) out->kind = QB_PLACEMENT_BLOCKS;
    }
    return QB_OK;
}

static qb_status place_base(const qb_model *m, qb_model *base, qb_device *dev, const qb_measuring *what,
                            qb_placement *out) {
    base->dev = dev;
    for (size_t i = 0; i < what->n_scorings; i++) {
        qb_perplexity_plan plan;
        if (what->scorings[i].skipped[0]) continue;
        qb_status st =
            qb_divergence_plan_make(m, base, &what->scorings[i].windows, what->memory_bytes, &plan);
        if (st != QB_OK) return st;
        if (plan.layer_major && out->kind == QB_PLACEMENT_DEVICE) out->kind = QB_PLACEMENT_BLOCKS;
    }
    return QB_OK;
}

qb_status qb_measure_model(qb_model *m, qb_device *dev, const qb_measuring *what, qb_json *metrics) {
    first_failure failure = {0};
    qb_placement placement;
    m->dev = dev; /* plans ask it what memory there is */
    qb_status st = place(m, dev, what, &placement);
    if (st != QB_OK) return st;
    if (what->base) st = place_base(m, what->base, dev, what, &placement);
    if (st != QB_OK) return st;
    bool resident = placement.kind != QB_PLACEMENT_BLOCKS;
    if (placement.kind == QB_PLACEMENT_SPLIT) qb_model_offload(m, &placement.plan);
    st = qb_model_load(m, dev, positions_needed(m, what), resident);
    if (st == QB_OK && what->base)
        st = qb_model_load(what->base, dev, positions_needed(what->base, what), resident);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < what->n_scorings; i++)
        note(&failure, measure_scoring(m, dev, what, &what->scorings[i], metrics), what->scorings[i].dataset);
    if (what->speed && resident)
        note(&failure, measure_speed(m, dev, what, metrics), "speed");
    else if (what->speed)
        push_empty(metrics, "decode", NULL, NULL, "skipped", placement.reason);
    if (what->determinism && resident)
        note(&failure, measure_logits(m, dev, what, metrics), "logits");
    else if (what->determinism)
        push_empty(metrics, "logits_sha256", NULL, NULL, "skipped", placement.reason);
    if (what->memory) note(&failure, measure_memory(m, dev, metrics), "memory");
    if (failure.status != QB_OK) st = qb_fail(failure.status, "%s", qb_str_get(&failure.text));
    qb_str_free(&failure.text);
    return st;
}
