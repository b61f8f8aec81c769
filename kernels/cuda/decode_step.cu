/* The order of a token's kernels: a walk over the decoder's lists. What decode_fold.cu cannot join is
   computed by the kernels of the plain ops, which allocate nothing and wait for nothing either. */
#include "kernels/cuda/decode_queue.cuh"

#include "kernels/cuda/matrix.h"
#include "kernels/cuda/place.cuh"

/* ---- what a step reads and writes ---- */

static bool is_in_place(const qb_step *p) {
    switch (p->kind) {
    case QB_STEP_ROPE:
    case QB_STEP_ADD:
    case QB_STEP_SCALE:
    case QB_STEP_CLAMP:
    case QB_STEP_SOFTCAP:
    case QB_STEP_GATE_ROWS:
    case QB_STEP_POSITION:
    case QB_STEP_TEMPERATURE:
    case QB_STEP_CONV:
        return true;
    default:
        return false;
    }
}

bool qb_decode_is_read(const decode_list &l, int64_t from, int8_t slot) {
    for (int64_t i = from; i < l.w->n_steps; i++) {
        const qb_step *p = &l.w->steps[i];
        const bool written = p->out == slot || p->out2 == slot || p->out3 == slot;
        if (p->in == slot || p->in2 == slot || p->in3 == slot || (written && is_in_place(p))) return true;
        if (written) return false;
    }
    return slot == QB_SLOT_X || slot == l.logits;
}

/* ---- what is due ---- */

static qb_status add_sum(decode_queue *q, const decode_norm &n, float *out) {
    const int8_t to = q->sum.to;
    const cudaError_t error = qb_decode_residual_norm(n, q->rows(to), q->slot(to), q->slot(q->sum.from),
                                                      q->sum.bias, out, qb_decode_device_of(q->s));
    q->sum = {QB_SLOT_NONE, QB_SLOT_NONE, NULL};
    return qb_cuda_status(q->s.dev, error, "residual and norm");
}

static qb_status settle_sum(decode_queue *q, int8_t slot) {
    if (slot < 0 || q->sum.to != slot) return QB_OK;
    decode_norm none = {};
    none.dim = static_cast<int32_t>(q->width(slot));
    return add_sum(q, none, NULL);
}

qb_status qb_decode_settle(decode_queue *q, int8_t slot) {
    qb_status st = settle_sum(q, slot);
    if (st != QB_OK || slot < 0 || !q->bias[slot]) return st;
    const float *bias = q->bias[slot];
    if ((st = qb_decode_before_write(q, slot, false)) != QB_OK) return st;
    q->bias[slot] = NULL;
    return qb_cuda_add_bias(&q->s.dev->base, q->slot(slot), bias, q->rows(slot), q->width(slot));
}

qb_status qb_decode_before_write(decode_queue *q, int8_t slot, bool anew) {
    if (slot < 0) return QB_OK;
    if (anew) {
        if (q->sum.to == slot) q->sum = {QB_SLOT_NONE, QB_SLOT_NONE, NULL};
        q->bias[slot] = NULL;
    }
    return q->sum.to >= 0 && q->sum.from == slot ? settle_sum(q, q->sum.to) : QB_OK;
}

/* ---- steps by themselves ---- */

static qb_status queue_norm(decode_queue *q, const decode_list &l, const qb_step *p) {
    const qb_norm_attr &a = p->u.norm;
    const float *weight = l.vector(p->vector), *bias = l.vector(p->vector2);
    qb_status st;
    if (a.dim != q->width(p->in) || !weight) {
        if ((st = qb_decode_settle(q, p->in)) != QB_OK) return st;
        if (p->in != p->out)
            st = qb_decode_before_write(q, p->out, true);
        else
            st = qb_decode_before_write(q, p->out, false);
        if (st != QB_OK) return st;
        return qb_cuda_norm(&q->s.dev->base, &a, q->slot(p->out), q->slot(p->in), weight, bias,
                            q->rows(p->in), q->width(p->in));
    }
    const decode_norm n = {a.kind, weight, bias, static_cast<int32_t>(a.dim), a.eps};
    if (q->bias[p->in] && (st = qb_decode_settle(q, p->in)) != QB_OK) return st;
    float *x = q->slot(p->in), *out = q->slot(p->out);
    if (q->sum.to == p->in) { /* a thread reads its part of both terms before it writes */
        q->bias[p->out] = NULL;
        return add_sum(q, n, out);
    }
    if ((st = qb_decode_before_write(q, p->out, p->out != p->in)) != QB_OK) return st;
    return qb_cuda_status(
        q->s.dev, qb_decode_residual_norm(n, q->rows(p->in), x, NULL, NULL, out, qb_decode_device_of(q->s)),
        "residual and norm");
}

static qb_status queue_linear(decode_queue *q, const decode_list &l, const qb_step *p) {
    qb_status st = qb_decode_settle(q, p->in);
    if (st == QB_OK) st = qb_decode_before_write(q, p->out, true);
    if (st != QB_OK) return st;
    q->bias[p->out] = l.w->biases[p->module];
    return qb_cuda_matmul(&q->s.dev->base, q->slot(p->out), q->slot(p->in), q->s.n_seq,
                          &l.w->matrices[p->module]);
}

/* Due until a norm takes it along, where nobody else reads the summand. */
static qb_status queue_add(decode_queue *q, const decode_list &l, int64_t i) {
    const qb_step *p = l.at(i);
    qb_status st = qb_decode_settle(q, p->out);
    if (st == QB_OK) st = qb_decode_before_write(q, p->out, false);
    if (st == QB_OK) st = settle_sum(q, p->in);
    if (st == QB_OK && q->sum.to >= 0) st = settle_sum(q, q->sum.to);
    if (st != QB_OK) return st;
    if (p->in != p->out && !qb_decode_is_read(l, i + 1, p->in)) {
        q->sum = {p->out, p->in, q->bias[p->in]};
        q->bias[p->in] = NULL;
        return QB_OK;
    }
    st = qb_decode_settle(q, p->in);
    if (st != QB_OK) return st;
    return qb_cuda_add(&q->s.dev->base, q->slot(p->out), q->slot(p->in), q->rows(p->out) * q->width(p->out));
}

/* With the biases of its inputs, where it is one of the forms that take them. */
static qb_status queue_activate(decode_queue *q, const qb_step *p) {
    const qb_activate_attr &a = p->u.activate;
    const bool pair = a.glu == QB_GLU_SEPARATE;
    const int64_t n = q->width(p->out), rows = q->rows(p->out);
    qb_status st;
    if ((!pair && a.glu != QB_GLU_NONE) || a.kind == QB_ACTIVATION_SWIGLU_OSS) {
        st = qb_decode_settle(q, p->in);
        if (st == QB_OK) st = qb_decode_settle(q, p->in2);
        if (st == QB_OK) st = qb_decode_before_write(q, p->out, p->out != p->in && p->out != p->in2);
        if (st != QB_OK) return st;
        return qb_cuda_activate(&q->s.dev->base, &a, q->slot(p->out), q->slot(p->in), q->slot(p->in2), rows,
                                n);
    }
    st = settle_sum(q, p->in);
    if (st == QB_OK) st = settle_sum(q, p->in2);
    if (st != QB_OK) return st;
    const float *gate_bias = q->bias[p->in], *up_bias = pair ? q->bias[p->in2] : gate_bias;
    if ((st = qb_decode_before_write(q, p->out, true)) != QB_OK) return st;
    return qb_cuda_status(q->s.dev,
                          qb_decode_activate(a.kind, rows, n, q->slot(p->out), pair ? q->slot(p->in) : NULL,
                                             gate_bias, q->slot(pair ? p->in2 : p->in), up_bias,
                                             qb_decode_device_of(q->s)),
                          "activation");
}

/* A step whose inputs are as they should be, by the plain op's kernel. */
static qb_status queue_plain(decode_queue *q, const decode_list &l, const qb_step *p) {
    const decode_step &s = q->s;
    qb_device *dev = &s.dev->base;
    const cuda_place here = {s.first, 0};
    float *in = q->slot(p->in), *in2 = q->slot(p->in2), *out = q->slot(p->out);
    const int64_t n = p->out < 0 ? 0 : q->width(p->out);
    switch (p->kind) {
    case QB_STEP_SPLIT: {
        float *const parts[3] = {out, q->slot(p->out2), q->slot(p->out3)};
        return qb_cuda_split(dev, &p->u.split, in, parts, s.n_seq);
    }
    case QB_STEP_JOIN:
        return qb_cuda_join(dev, &p->u.join, out, in, in2, s.n_seq);
    case QB_STEP_ROPE:
        return qb_cuda_status(
            s.dev,
            qb_queue_rope(p->u.rope, out, s.d->rope_tables[p->u.rope.table], s.n_seq, 1, here, s.dev->stream),
            "rope");
    case QB_STEP_CACHE:
        return qb_cuda_status(s.dev, qb_queue_store(s.kv, l.layer, in, in2, s.n_seq, 1, here, s.dev->stream),
                              "kv_store");
    case QB_STEP_ATTEND:
        return qb_decode_attend(q, l, p, NULL);
    case QB_STEP_SCALE:
    case QB_STEP_CLAMP:
    case QB_STEP_SOFTCAP:
        return qb_cuda_map(dev, p->kind, p->u.value, out, q->rows(p->out) * n);
    case QB_STEP_XIELU:
        return qb_cuda_xielu(dev, out, in, l.vector(p->vector), q->rows(p->out) * n);
    case QB_STEP_GATE_ROWS:
        return qb_cuda_gate_rows(dev, out, in, s.n_seq, n);
    case QB_STEP_POSITION:
        return qb_cuda_status(
            s.dev,
            qb_queue_position(out, l.vector(p->vector), p->u.position, s.n_seq, n, here, s.dev->stream),
            "position");
    case QB_STEP_TEMPERATURE:
        return qb_cuda_status(s.dev,
                              qb_queue_temperature(p->u.temperature, out, s.n_seq, 1, n, here, s.dev->stream),
                              "temperature");
    case QB_STEP_ROUTE:
        return qb_cuda_status(
            s.dev,
            qb_queue_route(p->u.route, in, l.vector(p->vector), s.n_seq, s.chosen, s.weight, s.dev->stream),
            "route");
    case QB_STEP_GATHER:
        return qb_cuda_status(s.dev,
                              qb_queue_gather(p->u.weigh_input ? s.weight : NULL, out, in, s.n_seq,
                                              s.d->top_k, n, s.dev->stream),
                              "gather");
    case QB_STEP_SCATTER:
        return qb_cuda_status(s.dev,
                              qb_queue_scatter(p->u.weigh_input ? NULL : s.weight, out, in, s.n_seq,
                                               s.d->top_k, n, s.dev->stream),
                              "scatter");
    case QB_STEP_CONCAT: {
        const float *const parts[3] = {in, in2, q->slot(p->in3)};
        const int64_t widths[3] = {q->width(p->in), q->width(p->in2), p->in3 < 0 ? 0 : q->width(p->in3)};
        return qb_cuda_concat(dev, out, parts, widths, q->rows(p->out));
    }
    case QB_STEP_CONV:
        return qb_cuda_status(s.dev,
                              qb_queue_conv(p->u.conv, out, l.vector(p->vector), s.kv, l.layer, s.n_seq, 1,
                                            here, s.dev->stream),
                              "conv");
    case QB_STEP_DELTA: {
        const delta_inputs inputs = {in, in2, q->slot(p->in3), l.vector(p->vector), l.vector(p->vector2)};
        return qb_cuda_status(
            s.dev, qb_queue_delta(p->u.delta, out, inputs, s.kv, l.layer, s.n_seq, 1, here, s.dev->stream),
            "delta");
    }
    default:
        return qb_fail(QB_ERR_INTERNAL, "a %s step in a captured token", qb_step_name(p->kind));
    }
}

static qb_status queue_step(decode_queue *q, const decode_list &l, int64_t i) {
    const qb_step *p = l.at(i);
    if (p->kind == QB_STEP_NORM) return queue_norm(q, l, p);
    if (p->kind == QB_STEP_LINEAR) return queue_linear(q, l, p);
    if (p->kind == QB_STEP_ADD) return queue_add(q, l, i);
    if (p->kind == QB_STEP_ACTIVATE) return queue_activate(q, p);
    const int8_t reads[] = {p->in, p->in2, p->in3,
                            is_in_place(p) ? p->out : static_cast<int8_t>(QB_SLOT_NONE)};
    const int8_t writes[] = {p->out, p->out2, p->out3};
    qb_status st = QB_OK;
    for (int8_t slot : reads)
        if (st == QB_OK) st = qb_decode_settle(q, slot);
    for (int8_t slot : writes)
        if (st == QB_OK) st = qb_decode_before_write(q, slot, !is_in_place(p));
    return st == QB_OK ? queue_plain(q, l, p) : st;
}

static qb_status queue_list(decode_queue *q, const qb_step_weights *w, int64_t layer, int64_t from) {
    const decode_list l = {w, layer, qb_decode_list_folds(q->s, w), q->s.d->logits_slot};
    qb_status st = QB_OK;
    for (int64_t i = from, taken; st == QB_OK && i < w->n_steps; i += taken ? taken : 1) {
        st = qb_decode_fold(q, l, i, &taken);
        if (st == QB_OK && taken == 0) st = queue_step(q, l, i);
    }
    return st;
}

static qb_status queue_embedding(const decode_step &s) {
    const qb_decoder *d = s.d;
    return qb_cuda_status(s.dev,
                          qb_decode_embed_next(s.greedy_ids.next, s.first, s.n_seq, d->embed,
                                               qb_decode_embed_position(d), s.slots[d->embed_slot],
                                               s.dev->stream),
                          "embedding");
}

static qb_status queue_choice(const decode_step &s) {
    return qb_cuda_status(s.dev,
                          qb_decode_choose(s.logits, s.n_seq, s.d->slot_width[s.d->logits_slot], s.greedy_ids,
                                           s.first, qb_decode_device_of(s)),
                          "argmax");
}

qb_status qb_decode_queue(const decode_step &s) {
    const qb_decoder *d = s.d;
    decode_queue q(s);
    qb_status st = s.greedy ? queue_embedding(s) : QB_OK;
    if (st == QB_OK) st = queue_list(&q, d->enter, -1, qb_decode_embed_position(d) ? 1 : 0);
    for (int64_t layer = 0; st == QB_OK && layer < d->n_layers; layer++)
        st = queue_list(&q, d->blocks[layer], layer, 0);
    if (st == QB_OK) st = queue_list(&q, d->leave, -1, 0);
    if (st == QB_OK) st = qb_decode_settle(&q, d->logits_slot);
    return st == QB_OK && s.greedy ? queue_choice(s) : st;
}

/* ---- what is served, and where it lies ---- */

const float *qb_decode_embed_position(const qb_decoder *d) {
    if (d->enter->n_steps == 0) return NULL;
    const qb_step *p = &d->enter->steps[0];
    if (p->kind != QB_STEP_POSITION || p->out != d->embed_slot) return NULL;
    return d->enter->vectors[p->vector] + p->u.position * d->slot_width[p->out];
}

/* What a list's steps are checked against. */
struct check_place {
    const cuda_device *dev;
    const qb_decoder *d;
    const qb_kv *kv;
    int64_t n_seq, layer; /* -1 around the blocks */
    const qb_step_weights *w;
    bool routed;     /* a step before has routed the rows */
    int64_t experts; /* steps that belong to a run whose first has been looked at */
};

static qb_status refuse(const qb_step *p, const char *why) {
    return qb_fail(QB_ERR_UNSUPPORTED, "a %s step in a captured token: %s", qb_step_name(p->kind), why);
}

/* Routed rows go through few kinds of steps; to those that are by token they would be of other tokens. */
static qb_status check_rows(const qb_decoder *d, const qb_step *p) {
    const int8_t slots[] = {p->in, p->in2, p->in3, p->out, p->out2, p->out3};
    int routed = 0, plain = 0;
    for (int8_t slot : slots)
        if (slot >= 0) (d->slot_routed[slot] ? routed : plain)++;
    switch (p->kind) {
    case QB_STEP_GATHER:
        return p->in >= 0 && !d->slot_routed[p->in] && routed == 1 ? QB_OK
                                                                   : refuse(p, "rows that are not by token");
    case QB_STEP_SCATTER:
        return p->in >= 0 && d->slot_routed[p->in] && plain == 1 ? QB_OK
                                                                 : refuse(p, "rows that are not routed");
    case QB_STEP_LINEAR:
        return p->expert >= 0 ? (plain ? refuse(p, "an expert of rows by token") : QB_OK)
                              : (routed ? refuse(p, "one matrix for routed rows") : QB_OK);
    case QB_STEP_NORM:
    case QB_STEP_ACTIVATE:
    case QB_STEP_ADD:
    case QB_STEP_SCALE:
    case QB_STEP_CLAMP:
    case QB_STEP_SOFTCAP:
    case QB_STEP_CONCAT:
        return routed && plain ? refuse(p, "routed rows and rows by token") : QB_OK;
    default:
        return routed ? refuse(p, "routed rows") : QB_OK;
    }
}

static qb_status check_linear(check_place *c, const qb_step *p, int64_t i) {
    if (p->expert < 0) return QB_OK;
    if (c->experts-- > 0) return QB_OK;
    const decode_device dev = {NULL, c->dev->multiprocessors, c->dev->shared_bytes, c->dev->major >= 8,
                               false};
    const int64_t n = c->routed ? qb_decode_experts_run(c->w, i, c->d->n_experts) : 0;
    if (n == 0) return refuse(p, "experts that are no run of one shape behind a routing");
    for (int64_t e = 0; e < n; e++)
        if (!qb_decode_experts_fit(*qb_cuda_view_of(&c->w->matrices[c->w->steps[i + e].module]), dev))
            return refuse(p, "an expert's inputs do not fit shared memory");
    c->experts = n - 1;
    return QB_OK;
}

static qb_status check_route(check_place *c, const qb_step *p) {
    const qb_route_attr &a = p->u.route;
    if (a.experts != c->d->n_experts || a.top_k != c->d->top_k)
        return refuse(p, "not of the experts that the decoder names");
    if (a.experts > QB_ROUTE_MAX_EXPERTS) return refuse(p, "more than 2048 experts");
    c->routed = true;
    return QB_OK;
}

static qb_status check_step(check_place *c, int64_t i) {
    const qb_step *p = &c->w->steps[i];
    qb_status st = qb_cuda_check_step(p);
    if (st == QB_OK) st = check_rows(c->d, p);
    if (st != QB_OK) return st;
    switch (p->kind) {
    case QB_STEP_NORM:
    case QB_STEP_SPLIT:
    case QB_STEP_JOIN:
    case QB_STEP_ACTIVATE:
    case QB_STEP_ADD:
    case QB_STEP_SCALE:
    case QB_STEP_CLAMP:
    case QB_STEP_SOFTCAP:
    case QB_STEP_GATE_ROWS:
    case QB_STEP_POSITION:
    case QB_STEP_TEMPERATURE:
    case QB_STEP_CONCAT:
    case QB_STEP_XIELU:
        return QB_OK;
    case QB_STEP_LINEAR:
        return check_linear(c, p, i);
    case QB_STEP_ROPE:
        return p->u.rope.table < c->d->n_rope_tables ? QB_OK : refuse(p, "a rotary table that is not there");
    case QB_STEP_CACHE:
        return c->layer >= 0 ? QB_OK : refuse(p, "no layer's cache");
    case QB_STEP_ATTEND:
        return c->layer >= 0 ? qb_attention_check(c->kv, &p->u.attend, c->n_seq, 0, 1)
                             : refuse(p, "no layer's cache");
    case QB_STEP_ROUTE:
        return check_route(c, p);
    case QB_STEP_GATHER:
    case QB_STEP_SCATTER:
        return c->routed ? QB_OK : refuse(p, "no routing stands before it");
    case QB_STEP_CONV:
        return c->layer >= 0 && qb_conv_check(p->u.conv, c->kv, c->n_seq) == QB_OK
                   ? QB_OK
                   : refuse(p, "no layer's cache that keeps what it needs");
    case QB_STEP_DELTA:
        return c->layer >= 0 && qb_delta_check(p->u.delta, c->kv, c->n_seq) == QB_OK
                   ? QB_OK
                   : refuse(p, "no layer's cache that keeps what it needs");
    case QB_STEP_COUNT:
        break;
    }
    return refuse(p, "not known");
}

qb_status qb_decode_check(const cuda_device *dev, const qb_decoder *d, const qb_kv *kv, int64_t n_seq) {
    if (n_seq > QB_DECODE_MAX_SEQ || d->n_layers < 1 || !d->embed->dense)
        return qb_fail(QB_ERR_UNSUPPORTED, "no captured token for %lld sequences of this model",
                       (long long)n_seq);
    qb_status st = QB_OK;
    for (int64_t layer = -1; layer <= d->n_layers; layer++) {
        check_place c = {dev, d, kv, n_seq, layer < d->n_layers ? layer : -1, NULL, false, 0};
        c.w = layer < 0 ? d->enter : layer < d->n_layers ? d->blocks[layer] : d->leave;
        for (int64_t i = 0; st == QB_OK && i < c.w->n_steps; i++) st = check_step(&c, i);
    }
    return st;
}

int64_t qb_decode_layout(decode_step *s, int64_t partial_bytes, void *slab) {
    const qb_decoder *d = s->d;
    int64_t at = 0;
    auto take = [&](int64_t bytes) {
        void *p = slab ? static_cast<char *>(slab) + at : nullptr;
        at += (bytes + 255) / 256 * 256;
        return static_cast<float *>(p);
    };
    for (int64_t i = 0; i < d->n_slots; i++)
        s->slots[i] = i == d->logits_slot
                          ? s->logits
                          : take(d->slot_width[i] * s->n_seq * (d->slot_routed[i] ? d->top_k : 1) *
                                 static_cast<int64_t>(sizeof(float)));
    s->partial = take(partial_bytes);
    s->first = reinterpret_cast<int32_t *>(take(sizeof(int32_t)));
    s->chosen =
        reinterpret_cast<int32_t *>(take(d->top_k * s->n_seq * static_cast<int64_t>(sizeof(int32_t))));
    s->greedy_ids.next = reinterpret_cast<int32_t *>(take(s->n_seq * 4));
    s->greedy_ids.history = reinterpret_cast<int32_t *>(take(QB_DECODE_RUN * s->n_seq * 4));
    s->greedy_ids.n_done = reinterpret_cast<int32_t *>(take(4));
    s->greedy_ids.parts = take(qb_decode_parts_bytes(s->n_seq, d->slot_width[d->logits_slot]));
    s->weight = take(d->top_k * s->n_seq * static_cast<int64_t>(sizeof(float)));
    return at;
}
