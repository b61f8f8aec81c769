/* Experts that a class stacks in one tensor, as modules of their own: methods quantize them one by one, and
   what quantizes has them apart too. A dense stack is split; files that hold them apart (GGUF, GPTQ) are read
   as they are; other stacks (MXFP4) stay. */
#include "model/stacks.h"

#include "base/memory.h"
#include "checkpoint/layout.h"

#include <stdio.h>
#include <string.h>

static bool is_stacked(const qb_linear *l) {
    return l->stack && l->stack->apart && l->stored != QB_STORED_ROWS && l->expert == 0;
}

/* The stack's tensor. */
static void stack_name(const qb_linear *l, int64_t layer, char out[QB_NAME_BYTES + 8]) {
    qb_linear_name(l, layer, out);
    strcat(out, l->stack->suffix);
}

static bool lies_apart(const qb_model *m, const qb_linear *l, int64_t layer) {
    char module[QB_NAME_BYTES], name[QB_NAME_BYTES + 8];
    const qb_layout *layout = qb_layout_find(qb_checkpoint_quantization(m->checkpoint)->layout);
    qb_linear one = *l;
    one.name = l->stack->apart;
    qb_linear_name(&one, layer, module);
    snprintf(name, sizeof name, "%s.weight", module);
    return qb_checkpoint_find(m->checkpoint, name) || (layout && layout->present(m->checkpoint, module));
}

/* Which of the forms the first stack that there is has, or should have. */
typedef enum { KEPT, APART, TO_SPLIT } form;

static form form_of(const qb_model *m) {
    char name[QB_NAME_BYTES + 8];
    const qb_topology *t = &m->topology;
    for (int64_t layer = 0; layer < t->n_layers; layer++)
        for (size_t i = 0; i < t->layers[layer].n_linears; i++) {
            const qb_linear *l = &t->layers[layer].linears[i];
            if (!is_stacked(l)) continue;
            stack_name(l, layer, name);
            return qb_checkpoint_can_split(m->checkpoint, name) ? TO_SPLIT
                   : lies_apart(m, l, layer)                    ? APART
                                                                : KEPT;
        }
    return KEPT;
}

/* ---- splitting ---- */

static qb_status add(qb_model *m, const char *name, const char *pattern, bool transposed, qb_stack *out) {
    qb_arena *arena = &m->topology.names;
    *out = (qb_stack){.n = m->config.n_experts, .transposed = transposed};
    qb_status st = qb_arena_strdup(arena, name, &out->name);
    return st == QB_OK ? qb_arena_strdup(arena, pattern, &out->pattern) : st;
}

/* Its weight and, where it has one, its bias. */
static qb_status add_linear(qb_model *m, const qb_linear *l, int64_t layer, qb_stack *out, size_t *n) {
    char name[QB_NAME_BYTES + 8], pattern[QB_NAME_BYTES + 8], module[QB_NAME_BYTES];
    qb_linear any = *l;
    any.name = l->stack->apart;
    any.expert = -1; /* %e stays */
    qb_linear_name(&any, layer, module);
    stack_name(l, layer, name);
    snprintf(pattern, sizeof pattern, "%s.weight", module);
    qb_status st = add(m, name, pattern, l->stored == QB_STORED_STACKED_COLUMNS, &out[(*n)++]);
    if (st != QB_OK || !l->bias) return st;
    qb_linear_bias_name(l, layer, name);
    snprintf(pattern, sizeof pattern, "%s.bias", module);
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
    form f = form_of(m);
    qb_status st = f == TO_SPLIT ? split(m) : QB_OK;
    if (st != QB_OK || f == KEPT) return st;
    m->config.experts_apart = true;
    qb_topology_free(&m->topology);
    return qb_topology_build(&m->config, &m->topology);
}
