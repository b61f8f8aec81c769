/* What the config names and the file lacks. */
#include "adapter/match.h"
#include "adapter/plan.h"

#include <string.h>

static bool has_lora(const qb_merge_plan *p, const char *tensor) {
    for (size_t i = 0; i < p->count; i++)
        if (p->edits[i].kind == QB_EDIT_LORA && !strcmp(p->edits[i].tensor, tensor)) return true;
    return false;
}

static qb_status incomplete(const qb_merge_plan *p, const char *name) {
    return qb_fail(
        QB_ERR_FORMAT,
        "%s: adapter_config.json names %.200s, but there is no tensor for it: is the file complete, and "
        "this the adapter's base?",
        qb_merge_adapter_dir(p), name);
}

/* Routers are modules of other kinds in newer programs, and experts lie in one parameter: their absence says
   nothing. "all-linear" leaves the head out. */
static qb_status check_list(const qb_merge_plan *p, const qb_list *l, int64_t layer, bool in_blocks) {
    const qb_adapter_config *c = &p->adapter->config;
    char name[QB_NAME_BYTES + 8];
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < l->n_linears; i++) {
        bool targeted, asked = in_blocks ? l->linears[i].quantized : !qb_adapter_targets_all_linear(c);
        if (l->linears[i].expert >= 0 || !asked) continue;
        qb_linear_name(&l->linears[i], layer, name);
        st = qb_adapter_targets(c, name, &targeted);
        if (st != QB_OK || !targeted) continue;
        strcat(name, ".weight");
        if (!has_lora(p, name)) st = incomplete(p, name);
    }
    return st;
}

static qb_status check_embedding(const qb_merge_plan *p) {
    bool targeted;
    qb_status st = qb_adapter_targets(&p->adapter->config, p->model->topology.embed, &targeted);
    if (st != QB_OK || !targeted || qb_adapter_targets_all_linear(&p->adapter->config)) return st;
    return has_lora(p, p->embed) ? QB_OK : incomplete(p, p->embed);
}

static qb_status check_parameters(const qb_merge_plan *p) {
    const qb_adapter_config *c = &p->adapter->config;
    if (!c->target_parameters) return QB_OK;
    for (size_t i = 0; i < p->count; i++)
        if (p->edits[i].kind == QB_EDIT_LORA) return QB_OK;
    return qb_merge_missing(p, qb_json_string(qb_json_first(c->target_parameters)),
                            "tensors (target_parameters)");
}

qb_status qb_merge_check_complete(const qb_merge_plan *p) {
    const qb_topology *t = &p->model->topology;
    qb_status st = QB_OK;
    for (int64_t layer = 0; st == QB_OK && layer < t->n_layers; layer++)
        st = check_list(p, &t->layers[layer], layer, true);
    if (st == QB_OK) st = check_list(p, &t->enter, -1, false);
    if (st == QB_OK) st = check_list(p, &t->leave, t->n_layers, false);
    if (st == QB_OK) st = check_embedding(p);
    if (st == QB_OK) st = check_parameters(p);
    if (st != QB_OK || p->count > 0) return st;
    return qb_fail(QB_ERR_FORMAT, "%s: the adapter changes nothing", qb_merge_adapter_dir(p));
}
