#include "base/memory.h"
#include "quant/driver.h"

void qb_quant_report_free(qb_quant_report *r) {
    if (!r) return;
    qb_free(r->modules);
    *r = (qb_quant_report){0};
}

static qb_json *module_json(const qb_module_report *m) {
    qb_json *o = qb_json_object();
    qb_json_put_text(o, "module", m->module);
    qb_json_put_int(o, "rows", m->rows);
    qb_json_put_int(o, "cols", m->cols);
    qb_json_put_real(o, "error", m->error);
    qb_json_put_real(o, "relative_error", m->relative_error);
    qb_json_put_text(o, "error_kind", m->error_kind);
    qb_json_put_real(o, "damp_percent", m->damp_percent);
    qb_json_put_int(o, "dead_columns", m->dead_columns);
    qb_json_put_int(o, "retries", m->retries);
    qb_json_put_text(o, "fallback", m->fallback);
    qb_json_put_text(o, "reason", m->reason[0] ? m->reason : NULL);
    qb_json_put_real(o, "seconds", m->seconds);
    return o;
}

qb_json *qb_quant_report_json(const qb_quant_report *r) {
    qb_json *o = qb_json_object(), *modules = qb_json_array();
    qb_json_put_real(o, "seconds", r->seconds);
    qb_json_put_real(o, "params_per_second", r->params_per_second);
    qb_json_put_int(o, "peak_rss_bytes", r->peak_rss_bytes);
    qb_json_put_int(o, "checkpoint_bytes", r->checkpoint_bytes);
    qb_json_put_real(o, "bits_per_weight", r->bits_per_weight);
    for (size_t i = 0; i < r->n_modules; i++) qb_json_push(modules, module_json(&r->modules[i]));
    qb_json_put(o, "modules", modules);
    return o;
}
