/* Experts that a class stacks in one tensor, as modules of their own: methods quantize them one by one, and
   what quantizes has them apart too. A dense stack is split; files that hold them apart (GGUF, GPTQ) are read
   as they are; other stacks (MXFP4) stay. */
#include "model/stacks.h"

#include "base/memory.h"
#include "checkpoint/layout.h"

#include <stdio.h>
#include <string.h>

static bool is_stacked(const qb_linear *l) {
    return l->stack && (l->stack->apart || l->stack->parted[0]) && l->stored != QB_STORED_ROWS &&
           l->expert == 0;
}

/* The stack's tensor. */
static void stack_name(const qb_linear *l, int64_t layer, char out[QB_NAME_BYTES + 8]) {
    qb_linear_name(l, layer, out);
    strcat(out, l->stack->suffix);
}

static bool lies_as(const qb_model *m, const qb_linear *l, const char *as, int64_t layer) {
    if (!as) return false;
    char module[QB_NAME_BYTES], name[QB_NAME_BYTES + 8];
    const qb_layout *layout = qb_layout_find(qb_checkpoint_quantization(m->checkpoint)->layout);
    qb_linear one = *l;
    one.name = as;
    qb_linear_name(&one, layer, module);
    snprintf(name, sizeof name, "%s.weight", module);
    return qb_checkpoint_find(m->checkpoint, name) || (layout && layout->present(m->checkpoint, module));
}

/* The form that the first stack that there is has, or is to have: then its tensor is to be split. */
static qb_experts_form form_of(const qb_model *m, bool *splits) {
    char name[QB_NAME_BYTES + 8];
    const qb_topology *t = &m->topology;
    *splits = false;
    for (int64_t layer = 0; layer < t->n_layers; layer++)
        for (size_t i = 0; i < t->layers[layer].n_linears; i++) {
            const qb_linear *l = &t->layers[layer].linears[i];
            if (!is_stacked(l)) continue;
            stack_name(l, layer, name);
            *splits = qb_checkpoint_can_split(m->checkpoint, name);
            if (*splits) return l->stack->parted[0] ? QB_EXPERTS_PARTED : QB_EXPERTS_APART;
            return lies_as(m, l, l->stack->parted[0], layer) ? QB_EXPERTS_PARTED
                   : lies_as(m, l, l->stack->apart, layer)   ? QB_EXPERTS_APART
                                                             : QB_EXPERTS_STACKED;
        }
    return QB_EXPERTS_STACKED;
}

/* ---- splitting ---- */

static qb_status add(qb_model *m, const char *name, const char *pattern[2], bool transposed, qb_stack *out) {
    qb_arena *arena = &m->topology.names;
    *out = (qb_stack){.n = m->config.n_experts, .transposed = transposed};
    qb_status st = qb_arena_strdup(arena, name, &out->name);
    for (int part = 0; st == QB_OK && part < 2 && pattern[part]; part++)
        st = qb_arena_strdup(arena, pattern[part], &out->pattern[part]);
    return st;
}

/* The patterns of an expert's parts with the layer's number and `suffix`. */
static void patterns_of(const qb_linear *l, int64_t layer, const char *suffix,
                        char text[2][QB_NAME_BYTES + 8], const char *pattern[2]) {
    const char *const *names =
        l->stack->parted[0] ? l->stack->parted : (const char *const[2]){l->stack->apart};
    for (int part = 0; part < 2; part++) {
        qb_linear any = *l;
        any.name = names[part];
        any.expert = -1; /* %e stays */
        pattern[part] = any.name ? text[part] : NULL;
        if (any.name) qb_linear_name(&any, layer, text[part]), strcat(text[part], suffix);
    }
}

/* Its weight and, where it has one, its bias. */
static qb_status add_linear(qb_model *m, const qb_linear *l, int64_t layer, qb_stack *out, size_t *n) {
    char name[QB_NAME_BYTES + 8], text[2][QB_NAME_BYTES + 8];
    const char *pattern[2];
    stack_name(l, layer, name);
    patterns_of(l, layer, ".weight", text, pattern);
    qb_status st = add(m, name, pattern, l->stored == QB_STORED_STACKED_COLUMNS, &out[(*n)++]);
    if (st != QB_OK || !l->bias) return st;
    qb_linear_bias_name(l, layer, name);
    patterns_of(l, layer, ".bias", text, pattern);
    return add(m, name, pattern, false, &out[(*n)++]);
}

static qb_status split(qb_model *m) {
    const qb_topology *t = &m->topology;
    qb_stack *stacks = NULL;
    size_t most = 0, n = 0;
    qb_status st;
    for (int64_t layer = 0; layer < t->n_layers; layer++) most += 2 * t->layers[layer].n_linears;
    QB_TRY(st, qb_alloc_zero(most, sizeof *stacks, &stacks));
    for (int64_t layer = 0; layer < t->n_layers; layer++)
        for (size_t i = 0; i < t->layers[layer].n_linears; i++)
            if (is_stacked(&t->layers[layer].linears[i]))
                QB_TRY(st, add_linear(m, &t->layers[layer].linears[i], layer, stacks, &n));
    st = qb_checkpoint_split(m->checkpoint, stacks, n);
out:
    qb_free(stacks);
    return st;
}

qb_status qb_model_take_stacks_apart(qb_model *m) {
    bool splits;
    qb_experts_form form = form_of(m, &splits);
    qb_status st = splits ? split(m) : QB_OK;
    if (st != QB_OK || form == QB_EXPERTS_STACKED) return st;
    m->config.experts_form = form;
    qb_topology_free(&m->topology);
    return qb_topology_build(&m->config, &m->topology);
}
