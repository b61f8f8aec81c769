/* qb.results/1 had one machine for all cases, and the facts and ceilings of the first backend in it: what
   cases of another backend were measured on is not known, and the shares of ceiling in their rows are of the
   wrong ceiling. */
#include "results/lift.h"

#include "results/results.h"
#include "results/validate.h"

#include <string.h>

static const char *backend_of(const qb_json *c) {
    const char *backend = qb_json_string(qb_json_get(qb_json_get(c, "config"), "backend"));
    return backend ? backend : "";
}

/* The backend that the machine's facts are of: the only one, or the first, which ran on a GPU when the facts
   name one. */
static const char *measured_backend(const qb_json *doc, const qb_json *machine) {
    bool gpu = qb_json_is_string(qb_json_get(machine, "device")), several = false;
    const char *first = NULL, *on_gpu = NULL;
    for (const qb_json *c = qb_json_first(qb_json_get(doc, "cases")); c; c = qb_json_next(c)) {
        const char *own = backend_of(c);
        if (!*own) continue;
        if (!first) first = own;
        if (!on_gpu && strcmp(own, "cpu") != 0) on_gpu = own;
        several |= strcmp(own, first) != 0;
    }
    if (first && !several) return first;
    return !gpu ? "cpu" : on_gpu ? on_gpu : "cuda";
}

static qb_json *lift_context(const qb_json *context, const char *backend) {
    qb_json *out = qb_json_object();
    for (const qb_json *v = qb_json_first(context); v; v = qb_json_next(v)) {
        if (strcmp(qb_json_key(v), "machine") != 0 || !qb_json_is_object(v)) {
            qb_json_put(out, qb_json_key(v), qb_json_copy(v));
            continue;
        }
        qb_json *devices = qb_json_array(), *device = qb_json_object();
        qb_json_put_text(device, "id", backend);
        qb_json_put_text(device, "backend", backend);
        for (const qb_json *fact = qb_json_first(v); fact; fact = qb_json_next(fact))
            qb_json_put(device, qb_json_key(fact), qb_json_copy(fact));
        qb_json_push(devices, device);
        qb_json_put(out, "devices", devices);
    }
    return out;
}

static qb_json *without_shares(const qb_json *metrics) {
    static const char *const of_the_other[] = {"ceiling", "share_of_ceiling", "read_ceiling_bytes_per_s",
                                               "gemm_ceiling_flop_per_s"};
    if (!qb_json_is_array(metrics)) return qb_json_copy(metrics);
    qb_json *out = qb_json_array();
    for (const qb_json *m = qb_json_first(metrics); m; m = qb_json_next(m)) {
        qb_json *row = qb_json_copy(m);
        for (size_t i = 0; i < sizeof of_the_other / sizeof of_the_other[0]; i++)
            if (qb_json_get(row, of_the_other[i])) qb_json_put_null(row, of_the_other[i]);
        qb_json_push(out, row);
    }
    return out;
}

static qb_json *lift_case(const qb_json *c, const char *backend) {
    if (!qb_json_is_object(c)) return qb_json_copy(c);
    bool known = !*backend_of(c) || !strcmp(backend_of(c), backend);
    qb_json *out = qb_json_object();
    for (const qb_json *v = qb_json_first(c); v; v = qb_json_next(v)) {
        bool rows = !known && !strcmp(qb_json_key(v), "metrics");
        qb_json_put(out, qb_json_key(v), rows ? without_shares(v) : qb_json_copy(v));
        if (strcmp(qb_json_key(v), "status") != 0) continue;
        qb_json_put_text(out, "device", known ? backend : NULL);
    }
    return out;
}

static qb_json *lift_cases(const qb_json *cases, const char *backend) {
    if (!qb_json_is_array(cases)) return qb_json_copy(cases);
    qb_json *out = qb_json_array();
    for (const qb_json *c = qb_json_first(cases); c; c = qb_json_next(c))
        qb_json_push(out, lift_case(c, backend));
    return out;
}

qb_status qb_results_lift(qb_json **doc, const char *name) {
    const char *schema = qb_json_string(qb_json_get(*doc, "schema"));
    const qb_json *context = qb_json_get(*doc, "context"), *machine = qb_json_get(context, "machine");
    static const char ours[] = "qb.results/";
    if (schema && !strncmp(schema, ours, strlen(ours)) && strcmp(schema, "qb.results/1") != 0 &&
        strcmp(schema, QB_RESULTS_SCHEMA) != 0)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: schema must be one of qb.results/1 and %s, which this program reads, found "
                       "\"%.40s\": read it "
                       "with the program that wrote it, or a later one",
                       name, QB_RESULTS_SCHEMA, schema);
    if (!schema || strcmp(schema, "qb.results/1") != 0 || !qb_json_is_object(context)) return QB_OK;
    qb_status st = qb_results_check_keys(*doc, name);
    if (st != QB_OK) return st;
    const char *backend = measured_backend(*doc, machine);
    qb_json *out = qb_json_object();
    for (const qb_json *v = qb_json_first(*doc); v; v = qb_json_next(v)) {
        const char *key = qb_json_key(v);
        if (!strcmp(key, "schema"))
            qb_json_put_text(out, key, QB_RESULTS_SCHEMA);
        else if (!strcmp(key, "context"))
            qb_json_put(out, key, lift_context(v, backend));
        else if (!strcmp(key, "cases"))
            qb_json_put(out, key, lift_cases(v, backend));
        else
            qb_json_put(out, key, qb_json_copy(v));
    }
    if (!out) return qb_fail(QB_ERR_MEMORY, "out of memory while reading %s", name);
    qb_json_free(*doc);
    *doc = out;
    return QB_OK;
}
