#include "model/topology.h"

#include <stdio.h>
#include <string.h>

/* ---- names ---- */

/* Replaces %d by the layer, %e by the expert and %h by the part; `at` is where out ends so far. */
static size_t fill_name(const char *pattern, int64_t layer, int64_t expert, int64_t part,
                        char out[QB_NAME_BYTES], size_t at) {
    for (const char *p = pattern; p && *p && at + 1 < QB_NAME_BYTES; p++) {
        int64_t value = p[0] != '%'   ? -1
                        : p[1] == 'd' ? layer
                        : p[1] == 'e' ? expert
                        : p[1] == 'h' ? part
                                      : -1;
        if (value < 0) {
            out[at++] = *p;
            continue;
        }
        at += (size_t)snprintf(out + at, QB_NAME_BYTES - at, "%lld", (long long)value);
        if (at >= QB_NAME_BYTES) at = QB_NAME_BYTES - 1;
        p++;
    }
    out[at] = 0;
    return at;
}

void qb_linear_name(const qb_linear *l, int64_t layer, char out[QB_NAME_BYTES]) {
    fill_name(l->name, layer, l->expert, 0, out, fill_name(l->prefix, layer, l->expert, 0, out, 0));
}

void qb_linear_bias_name(const qb_linear *l, int64_t layer, char out[QB_NAME_BYTES]) {
    qb_linear_name(l, layer, out);
    fill_name(l->bias ? l->bias : ".bias", layer, l->expert, 0, out, strlen(out));
}

void qb_vector_name(const qb_vector *v, int64_t layer, int64_t part, char out[QB_NAME_BYTES]) {
    const char *name = v->name;
    for (int64_t i = 0; name && i < part && strchr(name, '|'); i++) name = strchr(name, '|') + 1;
    fill_name(name, layer, 0, part, out, fill_name(v->prefix, layer, 0, part, out, 0));
    out[strcspn(out, "|")] = 0;
}

/* ---- what a step reads and writes ---- */

void qb_step_uses(const qb_step *s, qb_step_use *out) {
    *out = (qb_step_use){0};
    const int8_t ins[] = {s->in, s->in2, s->in3}, outs[] = {s->out, s->out2, s->out3};
    for (int i = 0; i < 3; i++)
        if (ins[i] >= 0) out->reads[out->n_reads++] = ins[i];
    bool in_place = s->kind == QB_STEP_ROPE || s->kind == QB_STEP_ADD || s->kind == QB_STEP_SCALE ||
                    s->kind == QB_STEP_CLAMP || s->kind == QB_STEP_SOFTCAP || s->kind == QB_STEP_GATE_ROWS ||
                    s->kind == QB_STEP_POSITION || s->kind == QB_STEP_TEMPERATURE || s->kind == QB_STEP_CONV;
    /* an expert's linear fills its rows alone: the first of them begins the activation anew */
    bool part = s->kind == QB_STEP_LINEAR && s->expert > 0;
    for (int i = 0; i < 3; i++) {
        if (outs[i] < 0) continue;
        if (in_place) out->reads[out->n_reads++] = outs[i];
        out->writes[out->n_writes++] = outs[i];
    }
    out->begins = !in_place && !part;
    out->routed = s->kind == QB_STEP_GATHER || s->kind == QB_STEP_SCATTER ||
                  (s->kind == QB_STEP_LINEAR && s->expert >= 0);
}

/* What must be there before a step, from what must be behind it. */
static void step_back(const qb_step *s, uint64_t *live, bool *routing) {
    qb_step_use u;
    qb_step_uses(s, &u);
    for (int w = 0; w < u.n_writes; w++) {
        uint64_t bit = UINT64_C(1) << u.writes[w];
        *live = u.begins ? *live & ~bit : *live | bit;
    }
    for (int r = 0; r < u.n_reads; r++) *live |= UINT64_C(1) << u.reads[r];
    *routing = s->kind != QB_STEP_ROUTE && (*routing || u.routed);
}

void qb_list_live(const qb_list *l, size_t at, uint64_t after, uint64_t *slots, bool *routing) {
    *slots = after;
    *routing = false;
    for (size_t i = l->n_steps; i-- > at;) step_back(&l->steps[i], slots, routing);
}

/* ---- memory: slots that never live together share ---- */

static const uint64_t stream = UINT64_C(1) << QB_SLOT_X;

static void find_conflicts(const qb_list *l, uint64_t after, uint64_t conflicts[QB_SLOTS_MAX]) {
    uint64_t behind = after, before = after;
    bool routing = false;
    for (size_t i = l->n_steps; i-- > 0; behind = before) {
        qb_step_use u;
        step_back(&l->steps[i], &before, &routing);
        qb_step_uses(&l->steps[i], &u);
        uint64_t together = before | behind;
        for (int w = 0; w < u.n_writes; w++) together |= UINT64_C(1) << u.writes[w];
        for (int a = 0; a < QB_SLOTS_MAX; a++)
            if (together >> a & 1) conflicts[a] |= together;
    }
}

/* First fit in the order of declaration, among the slots that are placed already. */
static void place_slots(qb_topology *t, const uint64_t conflicts[QB_SLOTS_MAX]) {
    t->workspace_floats = 0;
    for (int i = 0; i < t->n_slots; i++) {
        qb_slot *s = &t->slots[i];
        if (i == QB_SLOT_X || i == t->logits_slot) continue; /* the caller's memory */
        int64_t size = s->width * (s->routed ? t->top_k : 1), at = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (int j = 0; j < i; j++) {
                const qb_slot *o = &t->slots[j];
                int64_t end = o->offset + o->width * (o->routed ? t->top_k : 1);
                if (j == QB_SLOT_X || j == t->logits_slot || !(conflicts[i] >> j & 1)) continue;
                if (at < end && o->offset < at + size) at = end, moved = true;
            }
        }
        s->offset = at;
        if (at + size > t->workspace_floats) t->workspace_floats = at + size;
    }
}

/* ---- checks ---- */

static qb_status wrong(const qb_topology *t, const qb_step *s, int64_t layer, const char *what) {
    return qb_fail(QB_ERR_INTERNAL, "a family's list is wrong: step %s of layer %lld: %s (%s)",
                   qb_step_name(s->kind), (long long)layer, what,
                   s->out >= 0  ? t->slots[s->out].name
                   : s->in >= 0 ? t->slots[s->in].name
                                : "");
}

static int64_t width_of(const qb_topology *t, int8_t slot) {
    return slot < 0 ? 0 : t->slots[slot].width;
}

/* Widths that belong together. */
static bool widths_fit(const qb_topology *t, const qb_step *s) {
    int64_t in = width_of(t, s->in), in2 = width_of(t, s->in2), out = width_of(t, s->out);
    const qb_split_attr *p = &s->u.split;
    switch (s->kind) {
    case QB_STEP_NORM:
        return in == out && s->u.norm.dim > 0 && in % s->u.norm.dim == 0;
    case QB_STEP_SPLIT:
        return in == p->groups * (p->width[0] + p->width[1] + p->width[2]) &&
               out == p->groups * p->width[0] && width_of(t, s->out2) == p->groups * p->width[1] &&
               width_of(t, s->out3) == p->groups * p->width[2];
    case QB_STEP_JOIN:
        return in == s->u.join.heads * s->u.join.width && in2 == s->u.join.shared &&
               out == s->u.join.heads * (s->u.join.width + s->u.join.shared);
    case QB_STEP_ROPE:
        return out == s->u.rope.heads * s->u.rope.head_dim &&
               s->u.rope.offset + s->u.rope.width <= s->u.rope.head_dim;
    case QB_STEP_ATTEND:
        return in == s->u.attend.heads * s->u.attend.head_dim &&
               out == s->u.attend.heads * s->u.attend.value_dim;
    case QB_STEP_ACTIVATE:
        return s->u.activate.glu == QB_GLU_HALVES || s->u.activate.glu == QB_GLU_INTERLEAVED
                   ? in == 2 * out && s->in2 < 0
                   : in == out && (s->in2 < 0 || in2 == out) &&
                         (s->in2 >= 0) == (s->u.activate.glu == QB_GLU_SEPARATE);
    case QB_STEP_ADD:
    case QB_STEP_GATHER:
    case QB_STEP_SCATTER:
    case QB_STEP_XIELU:
        return in == out;
    case QB_STEP_CONCAT:
        return out == in + in2 + width_of(t, s->in3);
    case QB_STEP_DELTA:
        return in == 2 * s->u.delta.key_heads * s->u.delta.key_dim + out &&
               out == s->u.delta.value_heads * s->u.delta.value_dim && in2 == s->u.delta.value_heads &&
               width_of(t, s->in3) == in2;
    case QB_STEP_GATE_ROWS:
        return in == 1;
    case QB_STEP_ROUTE:
        return in == s->u.route.experts && s->u.route.top_k >= 1 && s->u.route.top_k <= s->u.route.experts;
    default:
        return true;
    }
}

static bool routed_right(const qb_topology *t, const qb_step *s) {
    bool in = s->in >= 0 && t->slots[s->in].routed, out = s->out >= 0 && t->slots[s->out].routed;
    if (s->kind == QB_STEP_GATHER) return !in && out;
    if (s->kind == QB_STEP_SCATTER) return in && !out;
    if (s->kind == QB_STEP_LINEAR) return in == out && in == (s->expert >= 0);
    if (s->kind == QB_STEP_ACTIVATE || s->kind == QB_STEP_NORM || s->kind == QB_STEP_ADD) return in == out;
    if (s->kind == QB_STEP_CONCAT)
        return in == out && t->slots[s->in2].routed == out && (s->in3 < 0 || t->slots[s->in3].routed == out);
    return (s->in < 0 || !in) && (s->kind == QB_STEP_SCALE || s->kind == QB_STEP_CLAMP || s->out < 0 || !out);
}

static qb_status check_list(qb_topology *t, const qb_list *l, int64_t layer, uint64_t before) {
    uint64_t written = before;
    for (size_t i = 0; i < l->n_steps; i++) {
        const qb_step *s = &l->steps[i];
        qb_step_use u;
        qb_step_uses(s, &u);
        for (int r = 0; r < u.n_reads; r++)
            if (!(written >> u.reads[r] & 1)) return wrong(t, s, layer, "reads what was not written");
        for (int w = 0; w < u.n_writes; w++) written |= UINT64_C(1) << u.writes[w];
        if (!widths_fit(t, s)) return wrong(t, s, layer, "widths do not fit");
        if (!routed_right(t, s)) return wrong(t, s, layer, "routed and plain activations are mixed");
        if (s->kind == QB_STEP_CACHE) {
            int64_t k = width_of(t, s->in), v = width_of(t, s->in2);
            if (t->kv_heads * t->key_dim != k || t->kv_heads * t->value_dim != v)
                return wrong(t, s, layer, "the cache has another shape");
        }
        if (s->kind == QB_STEP_ATTEND)
            t->context_flops += s->u.attend.heads * (s->u.attend.head_dim + s->u.attend.value_dim);
    }
    return QB_OK;
}

static void take_cache_shape(qb_topology *t, const qb_list *l) {
    for (size_t i = 0; i < l->n_steps && !t->kv_heads; i++) {
        const qb_step *s = &l->steps[i];
        if (s->kind != QB_STEP_ATTEND) continue;
        t->kv_heads = s->u.attend.kv_heads;
        t->key_dim = s->u.attend.head_dim;
        t->value_dim = s->u.attend.value_dim;
    }
}

/* ---- building ---- */

static qb_status build_lists(const qb_config *c, qb_topology *t) {
    qb_builder b = {.t = t, .c = c, .prefix = ""};
    qb_slot_new(&b, "x", c->hidden);
    b.list = &t->enter;
    t->embed_width = c->embed_width;
    t->embed_slot = QB_SLOT_X;
    c->family->enter(&b, c);
    for (int64_t layer = 0; layer < c->n_layers && b.st == QB_OK; layer++) {
        b.list = &t->layers[layer];
        c->family->block(&b, c, layer);
    }
    b.list = &t->leave;
    b.prefix = "";
    if (b.st == QB_OK) c->family->leave(&b, c);
    return b.st;
}

static qb_status plan_memory(qb_topology *t) {
    uint64_t conflicts[QB_SLOTS_MAX] = {0}, logits = UINT64_C(1) << t->logits_slot;
    find_conflicts(&t->enter, stream, conflicts);
    for (int64_t l = 0; l < t->n_layers; l++) find_conflicts(&t->layers[l], stream, conflicts);
    find_conflicts(&t->leave, logits, conflicts);
    place_slots(t, conflicts);
    return QB_OK;
}

qb_status qb_topology_build(const qb_config *c, qb_topology *out) {
    qb_topology *t = out;
    *t = (qb_topology){.n_layers = c->n_layers,
                       .hidden = c->hidden,
                       .vocab = c->vocab,
                       .head = -1,
                       .logits_slot = -1,
                       .tied_head = c->tied_head};
    qb_status st;
    QB_TRY(st, qb_alloc_zero((size_t)c->n_layers, sizeof *t->layers, &t->layers));
    QB_TRY(st, build_lists(c, t));
    if (t->head < 0 || !t->embed || t->slots[t->embed_slot].width != t->embed_width)
        QB_TRY(st, qb_fail(QB_ERR_INTERNAL, "family %s: embedding or head are missing", c->family->name));
    for (int64_t l = 0; l < t->n_layers; l++) take_cache_shape(t, &t->layers[l]);
    QB_TRY(st, check_list(t, &t->enter, -1, UINT64_C(1) << t->embed_slot));
    for (int64_t l = 0; l < t->n_layers; l++) QB_TRY(st, check_list(t, &t->layers[l], l, stream));
    QB_TRY(st, check_list(t, &t->leave, t->n_layers, stream));
    QB_TRY(st, plan_memory(t));
out:
    if (st != QB_OK) qb_topology_free(t);
    return st;
}

static void free_list(qb_list *l) {
    qb_free(l->steps);
    qb_free(l->linears);
    qb_free(l->vectors);
}

void qb_topology_free(qb_topology *t) {
    free_list(&t->enter);
    free_list(&t->leave);
    for (int64_t l = 0; t->layers && l < t->n_layers; l++) free_list(&t->layers[l]);
    qb_free(t->layers);
    qb_arena_free(&t->names);
    *t = (qb_topology){0};
}

/* ---- counts ---- */

int64_t qb_topology_linear_params(const qb_topology *t) {
    int64_t n = 0;
    for (int64_t l = 0; l < t->n_layers; l++)
        for (size_t i = 0; i < t->layers[l].n_linears; i++)
            if (t->layers[l].linears[i].quantized)
                n += t->layers[l].linears[i].rows * t->layers[l].linears[i].cols;
    return n;
}

int64_t qb_topology_widest(const qb_topology *t) {
    int64_t most = 0;
    for (int64_t l = 0; l < t->n_layers; l++)
        for (size_t i = 0; i < t->layers[l].n_linears; i++)
            if (t->layers[l].linears[i].cols > most) most = t->layers[l].linears[i].cols;
    return most;
}

int64_t qb_topology_active_params(const qb_topology *t) {
    double n = 0; /* of an expert only the part of its tokens, were they spread evenly */
    for (int64_t l = 0; l < t->n_layers; l++)
        for (size_t i = 0; i < t->layers[l].n_linears; i++) {
            const qb_linear *w = &t->layers[l].linears[i];
            double share = w->expert < 0 ? 1 : (double)t->top_k / (double)t->experts;
            n += (double)(w->rows * w->cols) * share;
        }
    return (int64_t)n;
}

static int64_t list_params(const qb_list *l, int skip) {
    int64_t n = 0;
    for (size_t i = 0; i < l->n_linears; i++) {
        if ((int)i != skip) n += l->linears[i].rows * l->linears[i].cols;
        if (l->linears[i].bias) n += l->linears[i].rows;
    }
    for (size_t i = 0; i < l->n_vectors; i++)
        if (l->vectors[i].source == QB_VECTOR_TENSOR)
            n += l->vectors[i].rows * (l->vectors[i].cols ? l->vectors[i].cols : 1);
    return n;
}

int64_t qb_topology_params(const qb_topology *t) {
    int64_t n = t->vocab * t->embed_width + list_params(&t->enter, -1);
    for (int64_t l = 0; l < t->n_layers; l++) n += list_params(&t->layers[l], -1);
    return n + list_params(&t->leave, t->tied_head ? t->head : -1);
}
