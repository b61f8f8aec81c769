#include "bench/run/found.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/measure/best_ceilings.h"
#include "bench/measure/display.h"
#include "bench/run/remembered.h"
#include "results/results.h"

#include <stdio.h>
#include <string.h>

/* The hash of a directory's weights, remembered where the cache can be written; a result is worth the
 * reading. */
static qb_status identify(const qb_model *m, char hex[QB_SHA256_HEX]) {
    bool synthetic = qb_checkpoint_is_synthetic(m->checkpoint), found = false;
    qb_status st = QB_OK;
    if (!synthetic) st = qb_identity_recall(m->path, hex, &found);
    if (st != QB_OK || found) return st;
    st = qb_checkpoint_sha256(m->checkpoint, hex);
    if (st == QB_OK && !synthetic && qb_identity_remember(m->path, hex) != QB_OK)
        qb_debug("the hash of the weights is not remembered: %s", qb_error_text());
    return st;
}

static void case_id(const qb_model *m, const qb_device *dev, char id[256]) {
    char label[96];
    qb_record_found_label(m, label);
    snprintf(id, 256, "%.150s/%.40s/%.40s", m->name, label, dev->backend->name);
}

static qb_json *case_config(qb_found *f, const qb_json *facts, const char *base_sha256) {
    qb_json *j = qb_json_object(), *method = qb_record_found_method(f->model);
    qb_json_put_text(j, "model", f->model->name);
    for (const qb_json *e = qb_json_first(method); e; e = qb_json_next(e))
        qb_json_put(j, qb_json_key(e), qb_json_copy(e));
    qb_json_free(method);
    qb_json_put_text(j, "backend", f->dev->backend->name);
    qb_json_put(j, "threads", qb_json_copy(qb_json_get(facts, "threads")));
    for (const qb_json *e = qb_json_first(f->config); e; e = qb_json_next(e))
        qb_json_put(j, qb_json_key(e), qb_json_copy(e));
    if (f->base) {
        qb_json_put_text(j, "base", f->base->name);
        qb_json_put_text(j, "base_sha256", base_sha256);
    }
    qb_json_free(f->config);
    f->config = NULL;
    return j;
}

/* NULL, not known: of a checkpoint that came quantized and stands beside no base. Who reads the document
   finds the one unquantized model of its shapes in it, if there is one. */
static const char *goes_back_to(const qb_found *f) {
    const qb_quantization *q = qb_checkpoint_quantization(f->model->checkpoint);
    return f->base ? f->base->name : q && q->method[0] ? NULL : f->model->name;
}

qb_status qb_found_measure(qb_found *f, const qb_measuring *what, qb_results *out) {
    char started[32], id[256], hex[QB_SHA256_HEX] = "", base_hex[QB_SHA256_HEX] = "", *error = NULL;
    int64_t begin = qb_now_ns();
    qb_now_rfc3339(started);
    *out = (qb_results){0};
    qb_json *metrics = qb_json_array();
    qb_status st, measured = QB_OK;
    case_id(f->model, f->dev, id);
    measured = qb_measure_model(f->model, f->dev, what, metrics);
    if (measured != QB_OK) error = qb_strdup(qb_error_text());
    QB_TRY(st, identify(f->model, hex));
    if (f->base) QB_TRY(st, identify(f->base, base_hex));
    if (!f->facts.describe) QB_TRY(st, qb_device_facts_take(f->dev, false, &f->facts));
    qb_json *devices = qb_json_array();
    qb_json *device = qb_record_device(f->dev->backend->name, f->dev->backend->name, &f->facts);
    qb_ceilings_remember(device);
    qb_json_push(devices, device);
    qb_json *context = qb_record_context(NULL, devices, f->data);
    f->data = NULL; /* the context has it, and goes with the document even when that cannot be made */
    QB_TRY(st, qb_results_create(NULL, context, out));
    qb_case_record record = {
        .id = id,
        .status = measured == QB_OK ? "ok" : "failed",
        .device = f->dev->backend->name,
        .error = error,
        .started = started,
        .seconds = (double)(qb_now_ns() - begin) * 1e-9,
        .display = qb_display_json(&(qb_display){.found = f->model, .of = goes_back_to(f)}),
        .config = case_config(f, f->facts.describe, base_hex),
        .model = qb_record_model(f->model, hex),
        .metrics = metrics,
        .warnings = f->model->warnings,
    };
    metrics = NULL;
    st = qb_results_put_case(out, qb_record_case(&record));
    if (st == QB_OK && measured != QB_OK)
        st = qb_fail(measured, "%s", error ? error : qb_status_text(measured));
out:
    qb_json_free(metrics);
    qb_device_facts_free(&f->facts);
    qb_free(error);
    return st;
}
