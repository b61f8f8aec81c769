#include "bench/run/score_plan.h"

#include "base/log.h"
#include "base/memory.h"
#include "bench/run/plan.h"
#include "bench/session.h"
#include "eval/divergence.h"

#include <inttypes.h>

/* What a scoring takes, together with its base where there is one, and the weights that it reads. */
static qb_status make_plan(const qb_score_plan *p, const qb_scoring *s, qb_perplexity_plan *out,
                           double *weights) {
    int64_t budget = (int64_t)(p->memory_gb * 1e9);
    *weights = (double)(qb_model_weight_bytes(p->model) + (p->base ? qb_model_weight_bytes(p->base) : 0));
    return p->base ? qb_divergence_plan_make(p->model, p->base, &s->windows, budget, out)
                   : qb_perplexity_plan_make(p->model, &s->windows, budget, out);
}

static qb_status describe(const qb_score_plan *p, const qb_scoring *s, const qb_ceilings *ceilings,
                          qb_str *out) {
    qb_perplexity_plan plan;
    double weights;
    char peak[32], time[32];
    qb_status st = make_plan(p, s, &plan, &weights);
    if (st != QB_OK) return st;
    qb_str_printf(out, "%s, %s: %" PRId64 " windows, ", s->windows.dataset, s->windows.protocol,
                  s->windows.count);
    if (p->base) qb_str_printf(out, "two models, ");
    if (plan.layer_major)
        qb_str_printf(out, "layer by layer in %" PRId64 " %s", plan.passes,
                      plan.passes == 1 ? "pass" : "passes");
    else
        qb_str_text(out, "all weights held");
    qb_str_printf(out, ", planned peak memory %s",
                  qb_format_bytes((double)(qb_resident_bytes() + plan.peak_bytes), peak));
    if (ceilings)
        qb_str_printf(out, ", about %s",
                      qb_format_seconds(qb_plan_seconds(plan.flops, weights, ceilings), time));
    return QB_OK;
}

static qb_status push(const qb_score_plan *p, const qb_scoring *s, const qb_ceilings *ceilings,
                      qb_json *all) {
    qb_perplexity_plan plan;
    double weights;
    qb_status st = make_plan(p, s, &plan, &weights);
    if (st != QB_OK) return st;
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "model", p->model->name);
    qb_json_put_text(j, "dataset", s->windows.dataset);
    qb_json_put_text(j, "protocol", s->windows.protocol);
    qb_json_put_int(j, "windows", s->windows.count);
    qb_json_put_bool(j, "layer_major", plan.layer_major);
    qb_json_put_int(j, "peak_bytes", qb_resident_bytes() + plan.peak_bytes);
    qb_json_put_real(j, "flop", plan.flops);
    qb_json_put_real(j, "seconds", qb_plan_seconds(plan.flops, weights, ceilings));
    qb_json_push(all, j);
    return QB_OK;
}

qb_status qb_score_plan_announce(const qb_score_plan *plan) {
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < plan->n; i++) {
        qb_str line = {0};
        if ((st = describe(plan, &plan->scorings[i], NULL, &line)) == QB_OK) qb_info("%s", qb_str_get(&line));
        qb_str_free(&line);
    }
    return st;
}

qb_status qb_score_plan_print(const qb_score_plan *plan, const qb_compute *compute, qb_json *array) {
    qb_device *dev = NULL;
    qb_ceilings ceilings;
    qb_status st;
    QB_TRY(st, qb_session_device(compute, &dev));
    plan->model->dev = dev; /* plans ask it what memory there is */
    if (plan->base) plan->base->dev = dev;
    QB_TRY(st, dev->backend->ceilings(dev, &ceilings));
    for (size_t i = 0; st == QB_OK && i < plan->n; i++) {
        qb_str line = {0};
        if (array)
            st = push(plan, &plan->scorings[i], &ceilings, array);
        else if ((st = describe(plan, &plan->scorings[i], &ceilings, &line)) == QB_OK)
            qb_output("%s\n", qb_str_get(&line));
        qb_str_free(&line);
    }
out:
    plan->model->dev = NULL;
    if (plan->base) plan->base->dev = NULL;
    qb_session_close(dev);
    return st;
}
