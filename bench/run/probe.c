#include "bench/run/probe.h"

#include "bench/run/child.h"
#include "bench/session.h"

typedef struct {
    const qb_compute *compute;
    bool ceilings;
} request;

static qb_status probe(void *ctx, qb_json **result) {
    const request *r = ctx;
    qb_device *dev;
    qb_device_facts facts = {0};
    qb_status st = qb_session_device(r->compute, &dev);
    if (st != QB_OK) return st;
    st = qb_device_facts_take(dev, r->ceilings, &facts);
    if (st == QB_OK) *result = qb_device_facts_json(&facts);
    qb_device_facts_free(&facts);
    qb_session_close(dev);
    return st;
}

qb_status qb_device_probe(const qb_compute *compute, bool ceilings, qb_device_facts *out) {
    qb_child_end end;
    request r = {compute, ceilings};
    *out = (qb_device_facts){0};
    qb_status st = qb_child_run("the probe of the device", probe, &r, &end);
    if (st == QB_OK) st = qb_device_facts_parse(end.result, out);
    qb_json_free(end.result);
    return st;
}
