/* LoRA of a mixture's experts. Transformers holds them in two parameters of a module since its fifth version,
   gate_up_proj and down_proj, and PEFT adapts those (target_parameters, lora.ParamWrapper); files have a
   matrix an expert, or stacks of other names. */
#include "adapter/match.h"
#include "adapter/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef enum { NO_ROLE, GATE, UP, GATE_UP, DOWN } role;

static role role_of_name(const char *name) {
    static const struct {
        const char *sign;
        role role;
    } signs[] = {{"down", DOWN},       {"output", DOWN},   {"w2", DOWN},
                 {"gate_up", GATE_UP}, {"input", GATE_UP}, {"gate", GATE},
                 {"w1", GATE},         {"up", UP},         {"w3", UP}};
    const char *last = strrchr(name, '.');
    last = last ? last + 1 : name;
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (!strncmp(last, signs[i].sign, strlen(signs[i].sign))) return signs[i].role;
    return NO_ROLE;
}

static role role_of(const qb_linear *l) {
    return role_of_name(l->stack ? l->stack->name : l->name);
}

/* The linear of expert 0 with that role, or its first part; the others follow it, then the second parts. */
static const qb_linear *find_linear(const qb_list *l, role wanted) {
    for (size_t i = 0; i < l->n_linears; i++)
        if (l->linears[i].expert == 0 && l->linears[i].part == 0 && role_of(&l->linears[i]) == wanted)
            return &l->linears[i];
    return NULL;
}

/* ---- which parameter ---- */

static bool is_named(const qb_adapter_config *c, const char *module, const char *parameter) {
    char path[2 * QB_NAME_BYTES];
    snprintf(path, sizeof path, "%.300s.%s", module, parameter);
    return qb_adapter_targets_parameter(c, path);
}

/* Adapted parameters of one module are wrapped around each other in the order in which it declares them: the
   last is outside, at depth 0. NULL when the config names none at this depth. */
static const char *parameter_at(const qb_adapter_config *c, const char *module, int depth) {
    static const char *const declared[] = {"gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias",
                                           "weight"};
    int at = 0;
    for (size_t i = sizeof declared / sizeof *declared; i-- > 0;)
        if (is_named(c, module, declared[i]) && at++ == depth) return declared[i];
    return NULL;
}

/* ---- edits ---- */

typedef struct {
    const qb_part_group *g;
    int64_t layer, experts, rank;
    double scale;
    bool turned;
} stack_lora;

static qb_status add_experts(qb_merge_plan *p, const stack_lora *s, const qb_linear *l, int64_t first_row) {
    char name[QB_NAME_BYTES + 8];
    qb_status st = QB_OK;
    bool shared_name = l->stored == QB_STORED_STACKED_ROWS || l->stored == QB_STORED_STACKED_COLUMNS;
    for (int64_t e = 0; st == QB_OK && e < s->experts; e++) {
        qb_linear_name(&l[e], s->layer, name);
        strcat(name, ".weight");
        st = qb_merge_add(p, name,
                          &(qb_edit){.expert = shared_name ? e : 0,
                                     .kind = QB_EDIT_LORA,
                                     .a = s->g->a,
                                     .b = s->g->b,
                                     .rank = s->rank,
                                     .scale = s->scale,
                                     .turned = s->turned != (l->stored == QB_STORED_COLUMNS),
                                     .n_experts = s->experts,
                                     .part_of = e,
                                     .first_row = first_row});
    }
    return st;
}

static qb_status refuse_extras(const qb_merge_plan *p, const qb_part_group *g) {
    const qb_part *extra = g->b_bias ? g->b_bias : g->magnitude;
    if (!extra) return QB_OK;
    return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s: experts have neither DoRA nor biases in PEFT",
                   qb_checkpoint_dir(p->adapter->checkpoint), extra->tensor->name);
}

/* Classes that hold a parameter as [in, out] say so (is_transposed), and PEFT looks there. Llama 4's does
   not: PEFT takes its outputs for inputs. (transformers 5.24.) */
static bool is_untold(const qb_model *m, const qb_linear *l) {
    return l->stack && l->stack->stored == QB_STORED_STACKED_COLUMNS &&
           !strcmp(m->config.family->name, "llama4");
}

/* rows, cols: of the whole parameter as [out, in]. */
static qb_status check_shapes(const qb_merge_plan *p, stack_lora *s, int64_t rows, int64_t cols,
                              bool turned) {
    s->turned = turned;
    int64_t out = turned ? cols : rows, in = turned ? rows : cols;
    qb_status st =
        qb_merge_expect(p, s->g->a, s->rank * s->experts, in, "rank x experts and the base's inputs");
    return st == QB_OK ? qb_merge_expect(p, s->g->b, out, s->rank * s->experts,
                                         "the base's outputs and rank x experts")
                       : st;
}

static qb_status plan_pair(qb_merge_plan *p, stack_lora *s, const qb_linear *gate, const qb_linear *up) {
    qb_status st = check_shapes(p, s, gate->rows + up->rows, gate->cols, false);
    if (st == QB_OK) st = add_experts(p, s, gate, 0);
    return st == QB_OK ? add_experts(p, s, up, gate->rows) : st;
}

qb_status qb_merge_plan_experts(qb_merge_plan *p, const qb_part_group *g, bool *taken) {
    const qb_model *m = p->model;
    const qb_adapter_config *c = &p->adapter->config;
    char key[2 * QB_NAME_BYTES];
    stack_lora s = {.g = g, .layer = qb_merge_layer_of(m, g->path), .experts = m->topology.experts};
    if (s.layer < 0 || s.experts < 1) return QB_OK;
    const char *parameter = parameter_at(c, g->path, g->depth);
    if (!parameter) return QB_OK;
    role r = role_of_name(!strcmp(parameter, "weight") ? g->path : parameter);
    const qb_list *l = &m->topology.layers[s.layer];
    const qb_linear *whole = find_linear(l, r), *gate = find_linear(l, GATE), *up = find_linear(l, UP);
    if ((r != GATE_UP && r != DOWN) || strstr(parameter, "_bias") || (!whole && (r == DOWN || !gate || !up)))
        return QB_OK;
    *taken = true;
    qb_status st;
    snprintf(key, sizeof key, "%.300s.%s", g->path, parameter);
    QB_TRY(st, refuse_extras(p, g));
    QB_TRY(st, qb_adapter_rank(c, key, &s.rank, &s.scale));
    if (!whole) return plan_pair(p, &s, gate, up);
    int64_t parts = whole->parts ? whole->parts : 1;
    QB_TRY(st, check_shapes(p, &s, parts * whole->rows, whole->cols, is_untold(m, whole)));
    for (int64_t part = 0; part < parts; part++)
        QB_TRY(st, add_experts(p, &s, whole + part * s.experts, part * whole->rows));
out:
    return st;
}
