#include "bench/run/ceilings.h"

#include "base/log.h"
#include "bench/run/probe.h"
#include "results/ceilings.h"

#include <string.h>

static qb_json *with_after(const qb_json *device, const qb_ceilings *after) {
    qb_json *copy = qb_json_copy(device), *c = qb_json_copy(qb_json_get(device, "ceilings"));
    qb_ceilings_write(after, "_after", c);
    qb_json_put(copy, "ceilings", c);
    return copy;
}

/* The document's devices with that one's ceilings; those of a resumed run may be more than this run's. */
static void put_after(qb_run *run, const char *id, const qb_ceilings *after) {
    const qb_json *old = qb_json_get(run->results.doc, "context");
    qb_json *context = qb_json_copy(old), *devices = qb_json_array();
    for (const qb_json *d = qb_json_first(qb_json_get(old, "devices")); d; d = qb_json_next(d)) {
        const char *name = qb_json_string(qb_json_get(d, "id"));
        bool is_it = name && !strcmp(name, id) && qb_json_is_object(qb_json_get(d, "ceilings"));
        qb_json_push(devices, is_it ? with_after(d, after) : qb_json_copy(d));
    }
    qb_json_put(context, "devices", devices);
    qb_json_put(run->results.doc, "context", context);
}

qb_status qb_run_ceilings_again(qb_run *run) {
    qb_status st = QB_OK;
    if (!run->began || !run->worked || !qb_suite_measures(&run->suite, "speed")) return QB_OK;
    for (size_t i = 0; i < run->n_devices && st == QB_OK; i++) {
        const qb_run_device *d = &run->devices[i];
        qb_device_facts facts = {0};
        qb_str text = {0};
        qb_compute compute = {run->options->threads, d->backend,
                              run->options->device,  run->options->device_gb,
                              run->options->offload, run->options->numa};
        if (!d->facts.measured) continue;
        st = qb_device_probe(&compute, true, &facts);
        if (st == QB_OK) {
            put_after(run, d->id, &facts.ceilings);
            qb_ceiling_drift_put(d->id, &d->facts.ceilings, &facts.ceilings, &text);
        }
        if (text.length) qb_warn("%s", text.text);
        qb_str_free(&text);
        qb_device_facts_free(&facts);
    }
    if (st == QB_OK) st = qb_results_write(&run->results);
    /* A full disk: the document stands in memory, and the run's end tries again. */
    return st != QB_OK && run->results.unwritten ? QB_OK : st;
}
