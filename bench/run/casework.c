#include "bench/run/casework.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "bench/machine/machine.h"
#include "bench/measure/measure.h"
#include "bench/run/cache.h"
#include "bench/run/child.h"
#include "bench/run/identity.h"
#include "bench/session.h"

#include <string.h>
#include <unistd.h>

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
    qb_json_put_text(j, "calibration_sha256", calibration ? calibration->sha256 : NULL);
    qb_json_put(j, "texts", texts_json(s));
    if (qb_suite_measures(&run->suite) & QB_MEASURE_SPEED) {
        qb_json *speed = qb_json_object();
        qb_options_to_json(qb_speed_options, &run->suite.speed, speed);
        qb_json_put(j, "speed", speed);
    }
    return j;
}

/* What is removed after its case must not be what another run finds and opens: its name is this run's alone,
 * and known as a leftover should the run be killed. */
static qb_status make_private(char **dir) {
    qb_str own = {0};
    qb_str_printf(&own, "%s.tmp.%ld", *dir, (long)getpid());
    qb_free(*dir);
    *dir = own.text;
    return qb_str_status(&own);
}

qb_status qb_case_checkpoint(const qb_run *run, const qb_case *c, char **dir) {
    *dir = NULL;
    if (!c->variant->method) return QB_OK;
    const qb_subject *s = qb_case_subject(run, c);
    const qb_windows *calibration = qb_subject_calibration(s, c->variant);
    qb_json *options = qb_variant_json(c->variant);
    /* Rounding gives the same codes everywhere; what is calibrated depends on the arithmetic that did it. */
    if (c->variant->method->needs && strcmp(c->backend, "cpu") != 0)
        qb_json_put_text(options, "backend", c->backend);
    qb_cache_key key = {s->sha256, options, calibration ? calibration->sha256 : NULL};
    qb_status st = qb_cache_path(&key, dir);
    qb_json_free(options);
    if (st == QB_OK && !run->options->cache && !qb_cache_hit(*dir)) st = make_private(dir);
    return st;
}

/* ---- the two processes ---- */

typedef struct {
    const qb_run *run;
    const qb_case *c;
    const qb_subject *subject;
    const char *dir; /* quantized checkpoint, or NULL */
} work;

static qb_status open_device(const work *w, qb_device **dev) {
    qb_compute compute = {w->run->options->threads, w->c->backend, w->run->options->device,
                          w->run->options->device_gb, w->run->options->offload};
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
    const qb_windows *calibration = qb_subject_calibration(w->subject, v);
    qb_quant_target target = {
        .dir = w->dir, .replace = true, .source_sha256 = w->subject->sha256, .program = qb_program_version()};
    /* What a killed run finished of a checkpoint is taken up; two runs at once each make their own. */
    if (w->run->options->cache && !qb_cache_busy(w->dir)) {
        QB_TRY(st, qb_identity_of_run(w->subject->sha256, v->method, &v->config, calibration, NULL, dev,
                                      fingerprint));
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
static qb_status put_model(const work *w, const qb_model *m, qb_json *result) {
    char hex[QB_SHA256_HEX];
    bool found = false;
    qb_status st = QB_OK;
    if (!w->dir) {
        memcpy(hex, w->subject->sha256, sizeof hex);
    } else {
        st = qb_identity_recall(w->dir, hex, &found);
        if (st == QB_OK && !found) st = qb_checkpoint_sha256(m->checkpoint, hex);
        if (st == QB_OK && !found) st = qb_identity_remember(w->dir, hex);
    }
    if (st != QB_OK) return st;
    qb_json *model = qb_record_model(m, hex);
    qb_json_put_text(model, "name", w->subject->model->name);
    qb_json_put_text(model, "path", w->subject->model->path);
    qb_json_put_text(model, "source_sha256", w->subject->sha256);
    qb_json_put(result, "model", model);
    return QB_OK;
}

static qb_status measure(void *ctx, qb_json **result) {
    const work *w = ctx;
    const qb_suite *suite = &w->run->suite;
    unsigned groups = qb_suite_measures(suite);
    const qb_subject *s = w->subject;
    qb_measuring what = {
        .scorings = s->scorings,
        .n_scorings = s->n_scorings,
        .memory_bytes = (int64_t)(suite->config.memory_gb * 1e9),
        .speed = groups & QB_MEASURE_SPEED ? &suite->speed : NULL,
        .prompts = s->prompts.count ? &s->prompts : NULL,
        .ceilings = &qb_run_device_of(w->run, w->c)->facts.ceilings,
        .memory = (groups & QB_MEASURE_MEMORY) != 0,
        .determinism = (groups & QB_MEASURE_DETERMINISM) != 0,
        .offload = w->run->options->offload,
    };
    qb_device *dev = NULL;
    qb_model *m = NULL;
    qb_status st;
    *result = qb_json_object();
    qb_json *metrics = qb_json_array();
    QB_TRY(st, open_device(w, &dev));
    QB_TRY(st, qb_model_open(w->dir ? w->dir : s->spec, &m));
    QB_TRY(st, qb_measure_model(m, dev, &what, metrics));
    st = put_model(w, m, *result);
out:
    qb_json_put(*result, "metrics", metrics);
    qb_model_close(m);
    qb_session_close(dev);
    return st;
}

/* ---- one case ---- */

/* Sets *quantization to what made the checkpoint, from the store or from a fresh run. */
static qb_status provide_checkpoint(const work *w, bool *made, qb_json **quantization) {
    const char *method = w->c->variant->method->name;
    qb_json *report = NULL;
    qb_status st;
    *made = false;
    if (qb_cache_hit(w->dir)) {
        char *path = qb_path_join(w->dir, "quantize_report.json");
        st = path ? qb_json_read(path, (size_t)64 << 20, &report) : qb_fail(QB_ERR_MEMORY, "out of memory");
        qb_free(path);
        if (st == QB_OK) *quantization = qb_record_quantization(method, qb_json_get(report, "report"), true);
        qb_json_free(report);
        return st;
    }
    qb_child_end end;
    st = qb_child_run("the quantizing process", quantize, (void *)w, &end);
    *made = st == QB_OK;
    if (end.result) {
        *quantization = qb_record_quantization(method, end.result, false);
        /* The system's figure holds what the process did outside the driver too. */
        qb_json_put_int(*quantization, "peak_rss_bytes", end.peak_rss_bytes);
    }
    qb_json_free(end.result);
    return st == QB_OK ? st : qb_fail_prefix(st, "quantizing");
}

static qb_json *take(qb_json *object, const char *key) {
    const qb_json *child = qb_json_get(object, key);
    return child ? qb_json_copy(child) : NULL;
}

qb_json *qb_case_run(const qb_run *run, const qb_case *c, qb_status *status) {
    work w = {run, c, qb_case_subject(run, c), NULL};
    char *dir = NULL, started[32], *error = NULL;
    bool made = false;
    qb_json *quantization = NULL;
    qb_child_end end = {0};
    int64_t begin = qb_now_ns();
    qb_now_rfc3339(started);
    qb_status st;
    QB_TRY(st, qb_case_checkpoint(run, c, &dir));
    w.dir = dir;
    if (dir) QB_TRY(st, provide_checkpoint(&w, &made, &quantization));
    st = qb_child_run("the measuring process", measure, &w, &end);
out:
    *status = st;
    if (st != QB_OK) error = qb_strdup(*qb_error_text() ? qb_error_text() : qb_status_text(st));
    if (made && !run->options->cache && qb_remove_tree(dir) != QB_OK) qb_warn("%s", qb_error_text());
    qb_json *record = NULL;
    if (st != QB_ERR_INTERRUPTED)
        record = qb_record_case(&(qb_case_record){
            .id = c->id,
            .status = st == QB_OK ? "ok" : "failed",
            .device = qb_run_device_of(run, c)->id,
            .error = error,
            .started = started,
            .seconds = (double)(qb_now_ns() - begin) * 1e-9,
            .config = qb_case_config(run, c),
            .model = take(end.result, "model"),
            .quantization = quantization,
            .metrics = take(end.result, "metrics"),
        });
    else
        qb_json_free(quantization);
    qb_json_free(end.result);
    qb_free(error);
    qb_free(dir);
    return record;
}
