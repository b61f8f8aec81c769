/* Families write lists of steps by the names of their activations. */
#include "model/topology.h"

#include <stdio.h>
#include <string.h>

static void fail(qb_builder *b, const char *what, const char *name) {
    if (b->st == QB_OK)
        b->st = qb_fail(QB_ERR_INTERNAL, "family %s: %s \"%s\"", b->c->family->name, what, name);
}

static void new_slot(qb_builder *b, const char *name, int64_t width, bool routed) {
    qb_topology *t = b->t;
    if (b->st != QB_OK) return;
    for (int i = 0; i < t->n_slots; i++)
        if (!strcmp(t->slots[i].name, name)) {
            if (t->slots[i].width != width || t->slots[i].routed != routed)
                fail(b, "two widths of the activation", name);
            return;
        }
    if (t->n_slots == QB_SLOTS_MAX)
        fail(b, "too many activations with", name);
    else if (width < 1)
        fail(b, "no width of the activation", name);
    else
        t->slots[t->n_slots++] = (qb_slot){.name = name, .width = width, .routed = routed};
}

void qb_slot_new(qb_builder *b, const char *name, int64_t width) {
    new_slot(b, name, width, false);
}
void qb_slot_routed(qb_builder *b, const char *name, int64_t width) {
    new_slot(b, name, width, true);
}

static int8_t slot(qb_builder *b, const char *name) {
    if (!name) return QB_SLOT_NONE;
    for (int i = 0; i < b->t->n_slots; i++)
        if (!strcmp(b->t->slots[i].name, name)) return (int8_t)i;
    fail(b, "no activation", name);
    return 0;
}

int64_t qb_slot_width(qb_builder *b, const char *name) {
    int8_t i = slot(b, name);
    return i < 0 ? 0 : b->t->slots[i].width;
}

void qb_embed_into(qb_builder *b, const char *name) {
    b->t->embed_slot = slot(b, name);
}

static qb_step *push(qb_builder *b, qb_step_kind kind) {
    static qb_step nowhere;
    qb_list *l = b->list;
    if (b->st == QB_OK) b->st = qb_grow(&l->steps, &l->steps_capacity, l->n_steps + 1, sizeof *l->steps);
    qb_step *s = b->st == QB_OK ? &l->steps[l->n_steps++] : &nowhere;
    memset(s, 0, sizeof *s);
    s->kind = kind;
    s->in = s->in2 = s->in3 = s->out = s->out2 = s->out3 = QB_SLOT_NONE;
    s->module = s->expert = s->vector = s->vector2 = -1;
    return s;
}

static int16_t add_vector(qb_builder *b, qb_vector v) {
    qb_list *l = b->list;
    if (b->st == QB_OK && l->n_vectors == INT16_MAX) fail(b, "too many vectors with", v.name ? v.name : "");
    if (b->st == QB_OK)
        b->st = qb_grow(&l->vectors, &l->vectors_capacity, l->n_vectors + 1, sizeof *l->vectors);
    if (b->st != QB_OK) return -1;
    if (v.parts < 1) v.parts = 1;
    l->vectors[l->n_vectors] = v;
    return (int16_t)l->n_vectors++;
}

static const char *suffixed(qb_builder *b, const char *name, const char *suffix) {
    char text[QB_NAME_BYTES];
    const char *out = "";
    if (snprintf(text, sizeof text, "%s%s", name, suffix) >= (int)sizeof text)
        fail(b, "too long a name", name);
    if (b->st == QB_OK) b->st = qb_arena_strdup(&b->t->names, text, &out);
    return out;
}

void qb_norm(qb_builder *b, const char *out, const char *in, const char *name, qb_norm_of n) {
    int64_t width = qb_slot_width(b, in), dim = n.dim ? n.dim : width;
    qb_step *s = push(b, QB_STEP_NORM);
    s->in = slot(b, in);
    s->out = slot(b, out);
    s->u.norm = (qb_norm_attr){n.kind, n.eps, dim, n.per_group && dim ? width / dim : 1};
    int64_t values = dim * s->u.norm.weight_rows;
    qb_vector v = {
        .prefix = b->prefix, .rows = values, .add = n.add, .parts = n.by_head ? s->u.norm.weight_rows : 1};
    if (n.per_group && !n.by_head) v.rows = s->u.norm.weight_rows, v.cols = dim;
    if (!n.bare) {
        v.name = suffixed(b, name, ".weight");
        s->vector = add_vector(b, v);
    }
    if (n.biased) {
        v.name = suffixed(b, name, ".bias");
        v.add = 0;
        s->vector2 = add_vector(b, v);
    }
}

static void linear(qb_builder *b, const char *out, const char *in, qb_linear l) {
    qb_list *list = b->list;
    int8_t to = slot(b, out), from = slot(b, in);
    if (b->st == QB_OK && list->n_linears == INT16_MAX) fail(b, "too many linears with", l.name);
    if (b->st == QB_OK)
        b->st = qb_grow(&list->linears, &list->linears_capacity, list->n_linears + 1, sizeof *list->linears);
    if (b->st != QB_OK) return;
    l.prefix = b->prefix;
    l.rows = b->t->slots[to].width;
    l.cols = b->t->slots[from].width;
    list->linears[list->n_linears] = l;
    qb_step *s = push(b, QB_STEP_LINEAR);
    s->in = from;
    s->out = to;
    s->module = (int16_t)list->n_linears++;
    s->expert = l.expert;
}

void qb_dense(qb_builder *b, const char *out, const char *in, const char *name, bool bias) {
    linear(b, out, in,
           (qb_linear){.name = name, .expert = -1, .quantized = true, .bias = bias ? ".bias" : NULL});
}

void qb_dense_kept(qb_builder *b, const char *out, const char *in, const char *name, bool bias) {
    linear(b, out, in, (qb_linear){.name = name, .expert = -1, .bias = bias ? ".bias" : NULL});
}

void qb_stored_as(qb_builder *b, qb_stored stored) {
    if (b->st == QB_OK && b->list->n_linears > 0) b->list->linears[b->list->n_linears - 1].stored = stored;
}

void qb_with_unit_rows(qb_builder *b) {
    if (b->st != QB_OK || b->list->n_linears == 0) return;
    qb_linear *last = &b->list->linears[b->list->n_linears - 1];
    if (last->quantized)
        b->st =
            qb_fail(QB_ERR_INTERNAL, "%s: rows of length one in a linear that methods quantize", last->name);
    last->unit_rows = true;
}

void qb_experts(qb_builder *b, const char *out, const char *in, const char *name, const char *bias,
                qb_stored stored) {
    for (int64_t e = 0; e < b->c->n_experts && b->st == QB_OK; e++)
        linear(b, out, in,
               (qb_linear){
                   .name = name, .expert = (int16_t)e, .quantized = true, .bias = bias, .stored = stored});
}

static void halves_of_stack(qb_builder *b, const char *out, const char *in, const qb_stack_of *stack) {
    static const char *const half[2] = {"first_half_e", "second_half_e"};
    for (int8_t part = 0; part < 2; part++) {
        size_t first = b->list->n_linears;
        qb_slot_routed(b, half[part], qb_slot_width(b, out) / 2);
        qb_experts(b, half[part], in, stack->parted[part], stack->bias ? ".bias" : NULL, QB_STORED_ROWS);
        for (size_t i = first; b->st == QB_OK && i < b->list->n_linears; i++)
            b->list->linears[i].part = part, b->list->linears[i].parts = 2;
    }
    qb_concat(b, out, half[0], half[1], NULL);
}

void qb_experts_of_stack(qb_builder *b, const char *out, const char *in, const qb_stack_of *stack) {
    size_t first = b->list->n_linears;
    const char *bias = stack->bias ? ".bias" : NULL;
    if (b->c->experts_form == QB_EXPERTS_PARTED && stack->parted[1])
        halves_of_stack(b, out, in, stack);
    else if (b->c->experts_form == QB_EXPERTS_PARTED && stack->parted[0])
        qb_experts(b, out, in, stack->parted[0], bias, QB_STORED_ROWS);
    else if (b->c->experts_form == QB_EXPERTS_APART && stack->apart)
        qb_experts(b, out, in, stack->apart, bias, QB_STORED_ROWS);
    else
        qb_experts(b, out, in, stack->name, stack->bias, stack->stored);
    for (size_t i = first; b->st == QB_OK && i < b->list->n_linears; i++) b->list->linears[i].stack = stack;
}

void qb_split(qb_builder *b, const char *in, const char *out, const char *out2, const char *out3,
              qb_split_attr a) {
    qb_step *s = push(b, QB_STEP_SPLIT);
    s->in = slot(b, in);
    s->out = slot(b, out);
    s->out2 = slot(b, out2);
    s->out3 = slot(b, out3);
    s->u.split = a;
}

void qb_join_heads(qb_builder *b, const char *out, const char *in, const char *shared, qb_join_attr a) {
    qb_step *s = push(b, QB_STEP_JOIN);
    s->in = slot(b, in);
    s->in2 = slot(b, shared);
    s->out = slot(b, out);
    s->u.join = a;
}

void qb_rope(qb_builder *b, const char *name, qb_rope_attr a) {
    qb_step *s = push(b, QB_STEP_ROPE);
    s->out = slot(b, name);
    s->u.rope = a;
}

void qb_cache(qb_builder *b, const char *keys, const char *values) {
    qb_step *s = push(b, QB_STEP_CACHE);
    s->in = slot(b, keys);
    s->in2 = slot(b, values);
}

void qb_attend(qb_builder *b, const char *out, const char *queries, const char *sinks, qb_attend_attr a) {
    qb_step *s = push(b, QB_STEP_ATTEND);
    s->in = slot(b, queries);
    s->out = slot(b, out);
    s->u.attend = a;
    if (a.alibi != QB_ALIBI_NONE)
        s->vector =
            add_vector(b, (qb_vector){.rows = a.heads, .source = QB_VECTOR_SLOPES, .most = b->c->alibi_max});
    if (sinks) s->vector2 = add_vector(b, (qb_vector){.prefix = b->prefix, .name = sinks, .rows = a.heads});
}

void qb_activate(qb_builder *b, const char *out, const char *in, const char *in2, qb_activate_attr a) {
    qb_step *s = push(b, QB_STEP_ACTIVATE);
    s->in = slot(b, in);
    s->in2 = slot(b, in2);
    s->out = slot(b, out);
    s->u.activate = a;
}

void qb_add(qb_builder *b, const char *to, const char *what) {
    qb_step *s = push(b, QB_STEP_ADD);
    s->in = slot(b, what);
    s->out = slot(b, to);
}

void qb_map_values(qb_builder *b, qb_step_kind kind, const char *name, float value) {
    if (kind == QB_STEP_SCALE ? value == 1 : value == 0) return;
    qb_step *s = push(b, kind);
    s->out = slot(b, name);
    s->u.value = value;
}

void qb_gate_rows(qb_builder *b, const char *name, const char *gate) {
    qb_step *s = push(b, QB_STEP_GATE_ROWS);
    s->in = slot(b, gate);
    s->out = slot(b, name);
}

static void position(qb_builder *b, const char *name, int64_t offset, qb_vector table) {
    qb_step *s = push(b, QB_STEP_POSITION);
    s->out = slot(b, name);
    s->u.position = offset;
    table.cols = qb_slot_width(b, name);
    s->vector = add_vector(b, table);
}

void qb_position(qb_builder *b, const char *slot_name, const char *tensor, int64_t rows, int64_t offset) {
    position(b, slot_name, offset, (qb_vector){.prefix = b->prefix, .name = tensor, .rows = rows + offset});
}

void qb_position_sinusoids(qb_builder *b, const char *name, int64_t rows, int64_t offset) {
    position(b, name, offset, (qb_vector){.rows = rows + offset, .source = QB_VECTOR_SINUSOIDS});
}

void qb_temperature(qb_builder *b, const char *name, qb_temperature_attr a) {
    qb_step *s = push(b, QB_STEP_TEMPERATURE);
    s->out = slot(b, name);
    s->u.temperature = a;
}

void qb_route_by(qb_builder *b, const char *logits, const char *bias, qb_route_attr a) {
    qb_step *s = push(b, QB_STEP_ROUTE);
    s->in = slot(b, logits);
    s->u.route = a;
    if (bias) s->vector = add_vector(b, (qb_vector){.prefix = b->prefix, .name = bias, .rows = a.experts});
    if (a.top_k > b->t->top_k) b->t->top_k = a.top_k;
    if (a.experts > b->t->experts) b->t->experts = a.experts;
}

void qb_gather(qb_builder *b, const char *out, const char *in, bool weigh) {
    qb_step *s = push(b, QB_STEP_GATHER);
    s->in = slot(b, in);
    s->out = slot(b, out);
    s->u.weigh_input = weigh;
}

void qb_scatter(qb_builder *b, const char *out, const char *in, bool weighed_before) {
    qb_step *s = push(b, QB_STEP_SCATTER);
    s->in = slot(b, in);
    s->out = slot(b, out);
    s->u.weigh_input = weighed_before;
}

void qb_concat(qb_builder *b, const char *out, const char *in, const char *in2, const char *in3) {
    qb_step *s = push(b, QB_STEP_CONCAT);
    s->in = slot(b, in);
    s->in2 = slot(b, in2);
    s->in3 = slot(b, in3);
    s->out = slot(b, out);
}

/* Takes room in what a layer keeps of a sequence. */
static int64_t keep(qb_builder *b, int64_t floats) {
    int64_t at = b->list->state_floats;
    b->list->state_floats += floats;
    if (b->list->state_floats > b->t->state_floats) b->t->state_floats = b->list->state_floats;
    return at;
}

void qb_conv(qb_builder *b, const char *slot_name, const char *tensor, int64_t taps) {
    int64_t width = qb_slot_width(b, slot_name);
    qb_step *s = push(b, QB_STEP_CONV);
    s->out = slot(b, slot_name);
    s->vector = add_vector(b, (qb_vector){.prefix = b->prefix, .name = tensor, .rows = width, .cols = taps});
    s->u.conv = (qb_conv_attr){width, taps, keep(b, width * (taps - 1))};
}

void qb_delta(qb_builder *b, const char *out, const char *qkv, const char *beta, const char *decay,
              const char *a_log, const char *dt_bias, qb_delta_attr a) {
    qb_step *s = push(b, QB_STEP_DELTA);
    s->in = slot(b, qkv);
    s->in2 = slot(b, beta);
    s->in3 = slot(b, decay);
    s->out = slot(b, out);
    s->vector = add_vector(b, (qb_vector){.prefix = b->prefix, .name = a_log, .rows = a.value_heads});
    s->vector2 = add_vector(b, (qb_vector){.prefix = b->prefix, .name = dt_bias, .rows = a.value_heads});
    s->u.delta = a;
    s->u.delta.state = keep(b, a.value_heads * a.key_dim * a.value_dim);
}

void qb_xielu(qb_builder *b, const char *out, const char *in, const char *module) {
    char text[QB_NAME_BYTES];
    qb_step *s = push(b, QB_STEP_XIELU);
    s->in = slot(b, in);
    s->out = slot(b, out);
    snprintf(text, sizeof text, "%s.alpha_p|%s.alpha_n|%s.beta|%s.eps", module, module, module, module);
    s->vector =
        add_vector(b, (qb_vector){.prefix = b->prefix, .name = suffixed(b, text, ""), .rows = 4, .parts = 4});
}

void qb_head(qb_builder *b, const char *in, const char *name, bool bias) {
    qb_slot_new(b, "logits", b->c->vocab);
    b->t->logits_slot = slot(b, "logits");
    b->t->head = (int)b->list->n_linears;
    qb_dense_kept(b, "logits", in, name, bias);
}
