#include "bench/probe.h"

#include "bench/child.h"
#include "bench/session.h"

static qb_status probe(void *ctx, qb_json **result) {
    const qb_compute *compute = ctx;
    qb_device *dev;
    qb_device_facts facts = {0};
    qb_status st = qb_session_device(compute, &dev);
    if (st != QB_OK) return st;
    st = qb_device_facts_take(dev, true, &facts);
    if (st == QB_OK) *result = qb_device_facts_json(&facts);
    qb_device_facts_free(&facts);
    qb_session_close(dev);
    return st;
}

qb_status qb_device_probe(const qb_compute *compute, qb_device_facts *out) {
    qb_child_end end;
    qb_compute own = *compute;
    *out = (qb_device_facts){0};
    qb_status st = qb_child_run("the probe of the device", probe, &own, &end);
    if (st == QB_OK) st = qb_device_facts_parse(end.result, out);
    qb_json_free(end.result);
    return st;
}
