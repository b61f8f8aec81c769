#include "base/memory.h"
#include "quant/driver.h"

#include <stdio.h>
#include <string.h>

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
    qb_json_put_real(o, "bits_per_weight", m->bits / ((double)m->rows * (double)m->cols));
    qb_json_put_real(o, "error", m->error);
    qb_json_put_real(o, "relative_error", m->relative_error);
    qb_json_put_text(o, "error_kind", m->error_kind);
    qb_json_put_real(o, "damp_percent", m->damp_percent);
    qb_json_put_int(o, "dead_columns", m->dead_columns);
    qb_json_put_int(o, "retries", m->retries);
    if (m->calibration_tokens < 0)
        qb_json_put_null(o, "calibration_tokens");
    else
        qb_json_put_int(o, "calibration_tokens", m->calibration_tokens);
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
    qb_json_put_int(o, "resumed_blocks", r->resumed_blocks);
    for (size_t i = 0; i < r->n_modules; i++) qb_json_push(modules, module_json(&r->modules[i]));
    qb_json_put(o, "modules", modules);
    return o;
}

qb_status qb_quant_report_add(qb_quant_report *r, const qb_module_report *module) {
    qb_status st = qb_grow(&r->modules, &r->capacity, r->n_modules + 1, sizeof *r->modules);
    if (st == QB_OK) r->modules[r->n_modules++] = *module;
    return st;
}

qb_status qb_quant_report_move(qb_quant_report *r, size_t from, size_t to) {
    size_t n = r->n_modules - from;
    qb_module_report *moved;
    if (n == 0 || from == to) return QB_OK;
    qb_status st = qb_alloc(n, sizeof *moved, &moved);
    if (st != QB_OK) return st;
    memcpy(moved, r->modules + from, n * sizeof *moved);
    memmove(r->modules + to + n, r->modules + to, (from - to) * sizeof *moved);
    memcpy(r->modules + to, moved, n * sizeof *moved);
    qb_free(moved);
    return QB_OK;
}

/* Texts that reports point to are constants of the program. */
static const char *constant_of(const char *text) {
    static const char *const known[] = {"hessian", "weight", "rtn"};
    for (size_t i = 0; text && i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i], text)) return known[i];
    return NULL;
}

static qb_status module_restore(const qb_json *o, const char *where, qb_module_report *m) {
    const char *name = "", *kind = NULL, *fallback = NULL, *reason = "";
    double bits = 0;
    qb_status st;
    *m = (qb_module_report){.calibration_tokens = -1};
    QB_TRY(st, qb_json_text(o, "module", where, true, &name));
    QB_TRY(st, qb_json_int(o, "rows", where, true, 1, INT32_MAX, &m->rows));
    QB_TRY(st, qb_json_int(o, "cols", where, true, 1, INT32_MAX, &m->cols));
    QB_TRY(st, qb_json_real(o, "bits_per_weight", where, true, 0, 1e6, &bits));
    QB_TRY(st, qb_json_real(o, "error", where, false, 0, 1e308, &m->error));
    QB_TRY(st, qb_json_real(o, "relative_error", where, false, 0, 1e308, &m->relative_error));
    QB_TRY(st, qb_json_text(o, "error_kind", where, false, &kind));
    QB_TRY(st, qb_json_real(o, "damp_percent", where, false, 0, 1e308, &m->damp_percent));
    QB_TRY(st, qb_json_int(o, "dead_columns", where, false, 0, INT32_MAX, &m->dead_columns));
    QB_TRY(st, qb_json_int(o, "retries", where, false, 0, INT32_MAX, &m->retries));
    QB_TRY(st, qb_json_int(o, "calibration_tokens", where, false, 0, INT64_MAX / 2, &m->calibration_tokens));
    QB_TRY(st, qb_json_text(o, "fallback", where, false, &fallback));
    QB_TRY(st, qb_json_text(o, "reason", where, false, &reason));
    QB_TRY(st, qb_json_real(o, "seconds", where, false, 0, 1e12, &m->seconds));
    snprintf(m->module, sizeof m->module, "%s", name);
    snprintf(m->reason, sizeof m->reason, "%s", reason);
    m->bits = bits * (double)m->rows * (double)m->cols;
    m->error_kind = constant_of(kind);
    m->fallback = constant_of(fallback);
out:
    return st;
}

qb_status qb_quant_report_restore(const qb_json *modules, const char *where, qb_quant_report *r) {
    qb_status st = QB_OK;
    for (const qb_json *o = qb_json_first(modules); st == QB_OK && o; o = qb_json_next(o)) {
        qb_module_report module;
        st = module_restore(o, where, &module);
        if (st == QB_OK) st = qb_quant_report_add(r, &module);
    }
    return st;
}
