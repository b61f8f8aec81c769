#include "results/device.h"

#include "base/memory.h"
#include "results/text.h"

#include <string.h>

/* No host memory (it differs by some pages from boot to boot), no list of the host's GPUs: one that does not
   compute changes nothing. */
static const char *const facts[] = {"backend",
                                    "cpu",
                                    "cores",
                                    "threads",
                                    "numa",
                                    "simd",
                                    "blas",
                                    "device",
                                    "compute_capability",
                                    "device_memory_bytes"};
enum { N_FACTS = sizeof facts / sizeof facts[0] };

const qb_json *qb_results_device(const qb_results *r, const char *id) {
    const qb_json *devices = qb_json_get(qb_json_get(r->doc, "context"), "devices");
    for (const qb_json *d = qb_json_first(devices); id && d; d = qb_json_next(d)) {
        const char *own = qb_json_string(qb_json_get(d, "id"));
        if (own && !strcmp(own, id)) return d;
    }
    return NULL;
}

const qb_json *qb_case_device(const qb_results *r, const qb_json *c) {
    return qb_results_device(r, qb_json_string(qb_json_get(c, "device")));
}

const char *qb_device_difference(const qb_json *a, const qb_json *b) {
    for (size_t i = 0; i < N_FACTS; i++) {
        const qb_json *x = qb_json_get(a, facts[i]), *y = qb_json_get(b, facts[i]);
        if (!qb_json_is_null(x) && !qb_json_is_null(y) && !qb_json_equal(x, y)) return facts[i];
    }
    return NULL;
}

void qb_device_identity(const qb_json *device, qb_str *out) {
    for (size_t i = 0; i < N_FACTS; i++) {
        char *text = NULL;
        const qb_json *fact = qb_json_get(device, facts[i]);
        if (qb_json_is_null(fact) || qb_json_print(fact, false, &text) != QB_OK) continue;
        qb_str_printf(out, "device %s %s\n", facts[i], text);
        qb_free(text);
    }
}

static void put_separated(qb_str *out, const char *text) {
    if (out->length) qb_str_text(out, " · ");
    qb_text_clean(text, 80, out);
}

void qb_device_describe(const qb_json *device, qb_str *out) {
    qb_str host = {0};
    double threads = qb_json_number(qb_json_get(device, "threads"));
    const char *gpu = qb_json_string(qb_json_get(device, "device"));
    const char *cpu = qb_json_string(qb_json_get(device, "cpu"));
    const char *simd = qb_json_string(qb_json_get(device, "simd"));
    qb_str_printf(&host, "%s, %.0f thread%s", cpu ? cpu : "", threads, threads == 1 ? "" : "s");
    if (simd && *simd) qb_str_printf(&host, ", %s", simd);
    if (gpu && *gpu) put_separated(out, gpu);
    put_separated(out, qb_str_get(&host));
    out->failed |= host.failed;
    qb_str_free(&host);
}
