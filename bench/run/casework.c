#include "bench/run/casework.h"

#include "base/clock.h"
#include "base/json_memory.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/machine/machine.h"
#include "bench/measure/measure.h"
#include "bench/run/child.h"
#include "bench/run/merged.h"
#include "bench/run/origin.h"
#include "bench/run/rounds.h"
#include "bench/run/supply.h"
#include "bench/session.h"

#include <string.h>

const qb_subject *qb_case_subject(const qb_run *run, const qb_case *c) {
    for (size_t i = 0; i < run->n_subjects; i++)
        if (!strcmp(run->subjects[i].word, c->model)) return &run->subjects[i];
    return NULL;
}

/* ---- config ---- */

static qb_json *texts_json(const qb_subject *s) {
    qb_json *array = qb_json_array();
    for (size_t i = 0; i < s->n_scorings; i++) {
        const qb_scoring *t = &s->scorings[i];
        qb_json *j = qb_json_object();
        qb_json_put_text(j, "dataset", t->dataset);
        qb_json_put_text(j, "protocol", t->protocol);
        qb_json_put_int(j, "windows", t->windows.count);
        qb_json_put_text(j, "data_sha256", t->windows.sha256[0] ? t->windows.sha256 : NULL);
        qb_json_push(array, j);
    }
    return array;
}

qb_json *qb_case_config(const qb_run *run, const qb_case *c) {
    const qb_subject *s = qb_case_subject(run, c);
    const qb_windows *calibration = qb_subject_calibration(s, c->variant);
    qb_json *j = qb_json_object();
    /* A model that came quantized is a row of its own method. */
    qb_json *method = c->variant->method ? qb_variant_json(c->variant) : qb_record_found_method(s->model);
    qb_json_put_text(j, "model", c->model_label);
    for (const qb_json *e = qb_json_first(method); e; e = qb_json_next(e))
        qb_json_put(j, qb_json_key(e), qb_json_copy(e));
    qb_json_free(method);
    qb_json_put_text(j, "backend", c->backend);
    qb_json_put(j, "threads", qb_json_copy(qb_json_get(qb_run_device_of(run, c)->facts.describe, "threads")));
    qb_json_put_bool(j, "synthetic", s->synthetic);
    qb_json_put_text(j, "source_sha256", s->sha256[0] ? s->sha256 : NULL);
    if (s->merged) {
        qb_json *merged = qb_json_object();
        qb_json_put_text(merged, "base", s->adapted->path);
        qb_json_put_text(merged, "base_sha256", s->merged->base_sha256);
        qb_json_put_text(merged, "adapter", s->adapted->adapter_path);
        qb_json_put_text(merged, "adapter_sha256", s->merged->adapter_sha256);
        qb_json_put(j, "merged", merged);
    }
    qb_json_put_text(j, "calibration_sha256", calibration ? calibration->sha256 : NULL);
    if (calibration && calibration->special_tokens[0])
        qb_json_put_int(j, "calibration_special_tokens_found", calibration->special_found);
    qb_json_put(j, "texts", texts_json(s));
    qb_json *metrics = qb_json_array();
    for (int i = 0; i < run->suite.metrics.n; i++) qb_json_push_text(metrics, run->suite.metrics.items[i]);
    qb_json_put(j, "metrics", metrics);
    if (qb_suite_measures(&run->suite, "speed")) {
        qb_json *speed = qb_json_object();
        qb_options_to_json(qb_speed_options, &run->suite.speed, speed);
        qb_json_put(j, "speed", speed);
    }
    return j;
}

qb_status qb_case_is_cached(const qb_run *run, const qb_case *c, bool *cached) {
    qb_cache_place place;
    *cached = false;
    if (!c->variant->method || !run->options->cache) return QB_OK;
    qb_status st = qb_supply_find(run, c, &place);
    if (st != QB_OK) return st;
    st = qb_cache_has(&place, cached);
    qb_cache_place_free(&place);
    return st;
}

/* ---- the two processes ---- */

typedef struct {
    const qb_run *run;
    const qb_case *c;
    const qb_subject *subject;
    const qb_supply *supply; /* of the quantized checkpoint; NULL where the model is measured as it is */
    const qb_subject *base;  /* of the divergences */
    const qb_case_part *part;
} work;

static qb_status open_device(const work *w, qb_device **dev) {
    qb_compute compute = {w->run->options->threads, w->c->backend,
                          w->run->options->device,  w->run->options->device_gb,
                          w->run->options->offload, w->run->options->numa};
    return qb_session_device(&compute, dev);
}

static qb_status quantize(void *ctx, qb_json **result) {
    const work *w = ctx;
    const qb_variant *v = w->c->variant;
    qb_device *dev = NULL;
    qb_model *m = NULL;
    qb_quant_report report = {0};
    char fingerprint[QB_SHA256_HEX];
    qb_status st;
    QB_TRY(st, open_device(w, &dev));
    QB_TRY(st, qb_model_open(w->subject->spec, &m));
    memcpy(m->name, w->subject->model->name, sizeof m->name); /* a merged one lies under its key */
    const qb_windows *calibration = qb_subject_calibration(w->subject, v);
    qb_quant_target target = {.dir = w->supply->dir,
                              .replace = true,
                              .source_sha256 = w->subject->sha256,
                              .program = qb_program_version()};
    if (!w->supply->private) { /* what a killed run finished of it is taken up */
        QB_TRY(st, qb_hash_bytes(w->supply->place.key, strlen(w->supply->place.key), fingerprint));
        target.fingerprint = fingerprint;
        target.resume = true;
        target.stream_every_s = 120;
    }
    QB_TRY(st, qb_quantize_model(m, dev, v->method, &v->config, calibration, &target, &report));
    *result = qb_quant_report_json(&report);
out:
    qb_quant_report_free(&report);
    qb_model_close(m);
    qb_session_close(dev);
    return st;
}

/* The hash of a quantized checkpoint says later whether two runs measured the same codes. */
static void put_model(const work *w, const qb_model *m, qb_json *result) {
    qb_json *model = qb_record_model(m, w->supply ? w->supply->sha256 : w->subject->sha256);
    qb_json_put_text(model, "name", qb_run_model_name(w->run, w->subject));
    qb_json_put_text(model, "path", w->subject->model->path);
    qb_json_put_text(model, "source_sha256", w->subject->sha256);
    qb_json_put(result, "model", model);
    if (m->warnings) qb_json_put(result, "warnings", qb_json_copy(m->warnings));
}

static qb_status measure(void *ctx, qb_json **result) {
    const work *w = ctx;
    const qb_suite *suite = &w->run->suite;
    const qb_subject *s = w->subject;
    bool quality = w->part->quality, perplexity = quality && qb_suite_measures(suite, "perplexity");
    qb_measuring what = {
        .scorings = s->scorings,
        .n_scorings = perplexity ? s->n_scorings : 0,
        .memory_bytes = (int64_t)(suite->config.memory_gb * 1e9),
        .speed = w->part->speed && qb_suite_measures(suite, "speed") ? &suite->speed : NULL,
        .round = &w->part->round,
        .prompts = s->prompts.count ? &s->prompts : NULL,
        .ceilings = &qb_run_device_of(w->run, w->c)->facts.ceilings,
        .memory = qb_suite_measures(suite, "memory"),
        .determinism = quality && qb_suite_measures(suite, "determinism"),
        .offload = w->run->options->offload,
    };
    qb_device *dev = NULL;
    qb_model *m = NULL;
    qb_status st;
    *result = qb_json_object();
    qb_json *metrics = qb_json_array();
    QB_TRY(st, open_device(w, &dev));
    QB_TRY(st, qb_model_open(w->supply ? w->supply->dir : s->spec, &m));
    QB_TRY(st, qb_measure_model(m, dev, &what, metrics));
    put_model(w, m, *result);
out:
    qb_json_put(*result, "metrics", metrics);
    qb_model_close(m);
    qb_session_close(dev);
    return st;
}

/* ---- divergence, in a process of its own: the base must not stand in the memory that is measured ---- */

static qb_status diverge(void *ctx, qb_json **result) {
    const work *w = ctx;
    const qb_subject *s = w->subject;
    qb_device *dev = NULL;
    qb_model *m = NULL, *base = NULL;
    qb_status st;
    *result = qb_json_object();
    qb_json *metrics = qb_json_array();
    QB_TRY(st, open_device(w, &dev));
    QB_TRY(st, qb_model_open(w->supply ? w->supply->dir : s->spec, &m));
    QB_TRY(st, qb_model_open(w->base->spec, &base));
    qb_measuring what = {
        .scorings = s->scorings,
        .n_scorings = s->n_scorings,
        .base = base,
        .memory_bytes = (int64_t)(w->run->suite.config.memory_gb * 1e9),
        .offload = w->run->options->offload,
    };
    st = qb_measure_model(m, dev, &what, metrics);
out:
    qb_json_put(*result, "metrics", metrics);
    qb_model_close(m);
    qb_model_close(base);
    qb_session_close(dev);
    return st;
}

static void push_rows_of(const qb_subject *base, const qb_json *from, qb_json *to) {
    for (const qb_json *row = qb_json_first(from); row; row = qb_json_next(row)) {
        qb_json *copy = qb_json_copy(row);
        qb_json_put_text(copy, "base_sha256", base->sha256[0] ? base->sha256 : NULL);
        qb_json_push(to, copy);
    }
}

/* Adds the rows of the divergences, or those that say why there are none. */
static qb_status measure_divergence(work *w, qb_json *measured) {
    const char *why;
    qb_json *metrics = qb_json_copy(qb_json_get(measured, "metrics"));
    if (!metrics) metrics = qb_json_array();
    qb_child_end end = {0};
    qb_status st = QB_OK;
    w->base = qb_case_base(w->run, w->c, &why);
    if (w->base) st = qb_child_run("the process of the divergences", diverge, w, &end);
    if (w->base) push_rows_of(w->base, qb_json_get(end.result, "metrics"), metrics);
    for (size_t i = 0; why && i < w->subject->n_scorings; i++)
        qb_measure_push_skipped(metrics, "kl_divergence", w->subject->scorings[i].protocol,
                                w->subject->scorings[i].dataset, why);
    qb_json_put(measured, "metrics", metrics);
    qb_json_free(end.result);
    return st;
}

/* ---- one case ---- */

/* Sets *quantization to what made the checkpoint, from the store or from a fresh run. */
static qb_status provide_checkpoint(work *w, qb_supply *supply, qb_json **quantization) {
    const char *method = w->c->variant->method->name;
    qb_status st = qb_supply_open(w->run, w->c, supply);
    w->supply = supply;
    if (st != QB_OK) return st;
    if (supply->cached) {
        *quantization = qb_record_quantization(method, qb_json_get(supply->report, "report"), true);
        return QB_OK;
    }
    qb_child_end end;
    st = qb_child_run("the quantizing process", quantize, w, &end);
    if (end.result) {
        *quantization = qb_record_quantization(method, end.result, false);
        /* The system's figure holds what the process did outside the driver too. */
        qb_json_put_int(*quantization, "peak_rss_bytes", end.peak_rss_bytes);
    }
    qb_json_free(end.result);
    if (st == QB_OK) st = qb_supply_made(supply);
    return st == QB_OK ? st : qb_fail_prefix(st, "quantizing");
}

/* ---- its record ---- */

typedef struct {
    const char *started, *error;
    double seconds;
    qb_status status;
    const qb_json *quantization, *measured; /* NULL: none */
    const qb_case_part *part;
} happened;

/* What an earlier part recorded, or what this one made. */
static qb_json *earlier_or(const happened *h, const char *key, const qb_json *made) {
    const qb_json *earlier = qb_json_get(h->part->before, key);
    return qb_json_copy(qb_json_is_null(earlier) ? made : earlier);
}

static qb_json *make_record(const qb_run *run, const qb_case *c, const happened *h) {
    const char *started = qb_json_string(qb_json_get(h->part->before, "started"));
    double earlier = qb_json_number(qb_json_get(h->part->before, "seconds"));
    const qb_json *warnings = qb_json_get(h->measured, "warnings");
    return qb_record_case(&(qb_case_record){
        .id = c->id,
        .status = h->status == QB_OK ? "ok" : "failed",
        .device = qb_run_device_of(run, c)->id,
        .error = h->error,
        .started = started ? started : h->started,
        .seconds = h->seconds + (earlier > 0 ? earlier : 0),
        .rounds_done = h->part->round.index + (h->part->speed && h->status == QB_OK),
        .rounds = h->part->round.count > 1 ? h->part->round.count : 0,
        .display = qb_case_display(run, c),
        .config = qb_case_config(run, c),
        .model = earlier_or(h, "model", qb_json_get(h->measured, "model")),
        .quantization = earlier_or(h, "quantization", h->quantization),
        .metrics =
            qb_rounds_merge(qb_json_get(h->part->before, "metrics"), qb_json_get(h->measured, "metrics")),
        .warnings = warnings ? warnings : qb_json_get(h->part->before, "warnings"),
    });
}

/* What took hours to measure is not lost to one allocation that failed while it was written down. */
static qb_json *record_whole(const qb_run *run, const qb_case *c, const happened *h, qb_status *status) {
    for (int tries = 0; tries < 3; tries++) {
        qb_json_losses_reset(0);
        qb_json *record = make_record(run, c, h);
        if (record && !qb_json_losses()) return record;
        qb_json_free(record);
    }
    qb_json_losses_reset(0);
    *status = qb_fail(QB_ERR_MEMORY, "out of memory while recording %s", c->id);
    return NULL;
}

/* Memory is measured beside something that takes some: a part with nothing else only provides the checkpoint.
 */
static bool has_work(const qb_run *run, const qb_case_part *part) {
    static const char *const of_quality[] = {"perplexity", "determinism"};
    if (part->speed || !qb_suite_measures(&run->suite, "speed")) return true;
    for (size_t i = 0; part->quality && i < sizeof of_quality / sizeof of_quality[0]; i++)
        if (qb_suite_measures(&run->suite, of_quality[i])) return true;
    return false;
}

qb_json *qb_case_run(const qb_run *run, const qb_case *c, const qb_case_part *part, qb_status *status) {
    work w = {run, c, qb_case_subject(run, c), NULL, NULL, part};
    qb_supply supply = {.own.lock_fd = -1};
    char started[32], *error = NULL;
    qb_json *quantization = NULL;
    qb_child_end end = {0};
    int64_t begin = qb_now_ns();
    qb_now_rfc3339(started);
    qb_json_losses_reset(0);
    qb_status st = QB_OK;
    if (c->variant->method) QB_TRY(st, provide_checkpoint(&w, &supply, &quantization));
    if (has_work(run, part))
        st = qb_child_run("the measuring process", measure, &w, &end);
    else
        end.result = qb_json_object();
    if (st == QB_OK && part->quality && qb_suite_measures(&run->suite, "divergence"))
        st = measure_divergence(&w, end.result);
out:
    *status = st;
    if (st != QB_OK) error = qb_strdup(*qb_error_text() ? qb_error_text() : qb_status_text(st));
    qb_supply_close(&supply);
    const happened h = {.started = started,
                        .error = error,
                        .seconds = (double)(qb_now_ns() - begin) * 1e-9,
                        .status = st,
                        .quantization = quantization,
                        .measured = end.result,
                        .part = part};
    qb_json *record = st != QB_ERR_INTERRUPTED ? record_whole(run, c, &h, status) : NULL;
    qb_json_free(quantization);
    qb_json_free(end.result);
    qb_free(error);
    return record;
}
