#include "model/decoder.h"

#include "base/memory.h"

#include <string.h>

/* One call of the executor. */
typedef struct {
    qb_model *m;
    qb_device *dev;
    const qb_backend *be;
    const qb_step_weights *w;
    const qb_topology *t;
    qb_workspace *ws;
    float *slots[QB_SLOTS_MAX];
    const qb_span *s;
    int64_t rows;
    bool again; /* the step reads what the linear before it read */
} run;

static int64_t rows_of(const qb_span *s) {
    return s->n_seq * s->n_tok;
}

static float *at(const run *r, int8_t slot) {
    return slot < 0 ? NULL : r->slots[slot];
}
static int64_t width(const run *r, int8_t slot) {
    return r->t->slots[slot].width;
}
static int64_t slot_rows(const run *r, int8_t slot) {
    return r->t->slots[slot].routed ? r->ws->routing.rows : r->rows;
}
static const float *vector(const run *r, int16_t index) {
    return index < 0 ? NULL : r->w->vectors[index];
}

/* ---- steps that are more than one op, or that look around ---- */

/* The product of a linear; its T is 0 where an expert has no rows. */
static qb_product product_of(const run *r, const qb_step *p) {
    int64_t rows = r->rows, first = 0;
    if (p->expert >= 0) {
        first = r->ws->routing.first[p->expert];
        rows = r->ws->routing.first[p->expert + 1] - first;
    }
    return (qb_product){&r->w->matrices[p->module], at(r, p->in) + first * width(r, p->in),
                        at(r, p->out) + first * width(r, p->out), rows};
}

static qb_status add_bias(const run *r, const qb_step *p, const qb_product *of) {
    const float *bias = r->w->biases[p->module];
    return bias && of->T ? r->be->add_bias(r->dev, of->y, bias, of->T, of->w->rows) : QB_OK;
}

static qb_status run_linear(const run *r, const qb_step *p) {
    qb_product of = product_of(r, p);
    if (of.T == 0) return QB_OK;
    qb_status (*matmul)(qb_device *, float *, const float *, int64_t, const qb_matrix *) =
        r->again && r->be->matmul_again ? r->be->matmul_again : r->be->matmul;
    qb_status st = matmul(r->dev, of.y, of.x, of.T, of.w);
    return st == QB_OK ? add_bias(r, p, &of) : st;
}

/* Linears from p on that read one slot and write others: none waits for another. */
static int64_t linears_together(const qb_step *p, int64_t n) {
    int64_t count = 0;
    while (count < n && p[count].kind == QB_STEP_LINEAR && p[count].in == p->in && p[count].out != p->in)
        count++;
    return count;
}

static qb_status run_linears(const run *r, const qb_step *p, int64_t n) {
    qb_status st = QB_OK;
    for (int64_t i = 0; st == QB_OK && i < n;) {
        qb_product of[QB_PRODUCTS_MAX];
        const qb_step *step[QB_PRODUCTS_MAX];
        int64_t count = 0;
        for (; i < n && count < QB_PRODUCTS_MAX; i++) {
            step[count] = &p[i], of[count] = product_of(r, &p[i]);
            count += of[count].T > 0;
        }
        st = r->be->matmul_all(r->dev, of, count);
        for (int64_t k = 0; st == QB_OK && k < count; k++) st = add_bias(r, step[k], &of[k]);
    }
    return st;
}

static qb_status run_rope(const run *r, const qb_step *p) {
    int64_t end = r->s->first + r->s->n_tok;
    if (end > r->m->rope_capacity)
        return qb_fail(QB_ERR_INTERNAL, "position %lld lies beyond the rotary table of %lld", (long long)end,
                       (long long)r->m->rope_capacity);
    return r->be->rope(r->dev, &p->u.rope, at(r, p->out), r->m->rope_tables[p->u.rope.table], r->s->n_seq,
                       r->s->n_tok, r->s->first);
}

static qb_status run_attend(const run *r, const qb_step *p) {
    qb_attention a = {.q = at(r, p->in),
                      .out = at(r, p->out),
                      .n_seq = r->s->n_seq,
                      .n_tok = r->s->n_tok,
                      .first = r->s->first,
                      .kv = r->s->kv,
                      .layer = r->s->kv_layer,
                      .attr = &p->u.attend,
                      .slopes = vector(r, p->vector),
                      .sinks = vector(r, p->vector2)};
    return r->be->attention(r->dev, &a);
}

static qb_status run_position(const run *r, const qb_step *p) {
    int64_t d = width(r, p->out), n = r->s->n_tok * d;
    const float *table = vector(r, p->vector) + (r->s->first + p->u.position) * d;
    int64_t end = r->s->first + r->s->n_tok;
    if (end > r->m->config.max_positions)
        return qb_fail(QB_ERR_INTERNAL, "position %lld lies beyond the model's %lld", (long long)end,
                       (long long)r->m->config.max_positions);
    qb_status st = QB_OK;
    for (int64_t q = 0; st == QB_OK && q < r->s->n_seq; q++)
        st = r->be->add(r->dev, at(r, p->out) + q * n, table, n);
    return st;
}

static qb_status run_step(const run *r, const qb_step *p) {
    const qb_backend *be = r->be;
    qb_device *dev = r->dev;
    float *in = at(r, p->in), *in2 = at(r, p->in2), *out = at(r, p->out);
    const qb_span *s = r->s;
    switch (p->kind) {
    case QB_STEP_NORM:
        return be->norm(dev, &p->u.norm, out, in, vector(r, p->vector), vector(r, p->vector2),
                        slot_rows(r, p->in), width(r, p->in));
    case QB_STEP_LINEAR:
        return run_linear(r, p);
    case QB_STEP_SPLIT:
        return be->split(dev, &p->u.split, in, (float *const[3]){out, at(r, p->out2), at(r, p->out3)},
                         r->rows);
    case QB_STEP_JOIN:
        return be->join(dev, &p->u.join, out, in, in2, r->rows);
    case QB_STEP_ROPE:
        return run_rope(r, p);
    case QB_STEP_CACHE:
        return be->kv_store(dev, s->kv, s->kv_layer, in, in2, s->n_seq, s->n_tok, s->first);
    case QB_STEP_ATTEND:
        return run_attend(r, p);
    case QB_STEP_ACTIVATE:
        return be->activate(dev, &p->u.activate, out, in, in2, slot_rows(r, p->out), width(r, p->out));
    case QB_STEP_ADD:
        return be->add(dev, out, in, slot_rows(r, p->out) * width(r, p->out));
    case QB_STEP_SCALE:
    case QB_STEP_CLAMP:
    case QB_STEP_SOFTCAP:
        return be->map(dev, p->kind, p->u.value, out, slot_rows(r, p->out) * width(r, p->out));
    case QB_STEP_GATE_ROWS:
        return be->gate_rows(dev, out, in, r->rows, width(r, p->out));
    case QB_STEP_POSITION:
        return run_position(r, p);
    case QB_STEP_TEMPERATURE:
        return be->temperature(dev, &p->u.temperature, out, s->n_seq, s->n_tok, s->first, width(r, p->out));
    case QB_STEP_ROUTE:
        return be->route(dev, &p->u.route, in, vector(r, p->vector), r->rows, &r->ws->routing);
    case QB_STEP_GATHER:
        return be->gather(dev, &r->ws->routing, p->u.weigh_input, out, in, width(r, p->in));
    case QB_STEP_SCATTER:
        return be->scatter(dev, &r->ws->routing, !p->u.weigh_input, out, in, r->rows, width(r, p->out));
    case QB_STEP_CONCAT: {
        int64_t n[3] = {width(r, p->in), width(r, p->in2), p->in3 < 0 ? 0 : width(r, p->in3)};
        return be->concat(dev, out, (const float *const[3]){in, in2, at(r, p->in3)}, n, slot_rows(r, p->out));
    }
    case QB_STEP_CONV:
        return be->conv(dev, &p->u.conv, out, vector(r, p->vector), s->kv, s->kv_layer, s->n_seq, s->n_tok,
                        s->first);
    case QB_STEP_DELTA:
        return be->delta(dev, &p->u.delta, out, in, in2, at(r, p->in3), vector(r, p->vector),
                         vector(r, p->vector2), s->kv, s->kv_layer, s->n_seq, s->n_tok, s->first);
    case QB_STEP_XIELU:
        return be->xielu(dev, out, in, vector(r, p->vector), slot_rows(r, p->out) * width(r, p->out));
    case QB_STEP_COUNT:
        break;
    }
    return qb_fail(QB_ERR_INTERNAL, "no such step: %d", (int)p->kind);
}

static bool reads_the_same(const qb_step *before, const qb_step *p) {
    return before->kind == QB_STEP_LINEAR && p->kind == QB_STEP_LINEAR && before->in == p->in &&
           before->out != p->in && before->expert < 0 && p->expert < 0;
}

static qb_status run_list(qb_model *m, const qb_step_weights *w, int64_t from, int64_t to, qb_workspace *ws,
                          float *x, float *logits, const qb_span *s) {
    run r = {.m = m,
             .dev = m->dev,
             .be = m->dev->backend,
             .w = w,
             .t = &m->topology,
             .ws = ws,
             .s = s,
             .rows = rows_of(s)};
    if (r.rows > ws->max_rows)
        return qb_fail(QB_ERR_INTERNAL, "%lld rows do not fit a workspace of %lld", (long long)r.rows,
                       (long long)ws->max_rows);
    memcpy(r.slots, ws->slots, sizeof r.slots);
    r.slots[QB_SLOT_X] = x;
    r.slots[m->topology.logits_slot] = logits;
    qb_status st = QB_OK;
    for (int64_t i = from; st == QB_OK && i < to; i++) {
        const qb_step *step = &w->steps[i];
        int64_t together = r.be->matmul_all ? linears_together(step, to - i) : 0;
        r.again = i > from && reads_the_same(step - 1, step);
        if (together > 1)
            st = run_linears(&r, step, together), i += together - 1;
        else
            st = run_step(&r, step);
    }
    return st;
}

qb_status qb_steps_run(qb_model *m, const qb_step_weights *w, int64_t from, int64_t to, qb_workspace *ws,
                       float *x, const qb_span *s) {
    return run_list(m, w, from, to, ws, x, NULL, s);
}

qb_status qb_block_forward(qb_model *m, const qb_block *b, qb_workspace *ws, float *x, const qb_span *s) {
    return run_list(m, &b->w, 0, b->w.n_steps, ws, x, NULL, s);
}

/* ---- the ends ---- */

static qb_status check_ids(const qb_config *c, const int32_t *ids, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= c->vocab)
            return qb_fail(
                QB_ERR_FORMAT,
                "token id %d lies outside the model's vocabulary of %lld; tokenizer and model do not match",
                ids[i], (long long)c->vocab);
    return QB_OK;
}

qb_status qb_model_embed(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s) {
    const qb_topology *t = &m->topology;
    float *to = t->embed_slot == QB_SLOT_X ? x : ws->slots[t->embed_slot];
    if (rows_of(s) > ws->max_rows)
        return qb_fail(QB_ERR_INTERNAL, "%lld rows do not fit a workspace of %lld", (long long)rows_of(s),
                       (long long)ws->max_rows);
    qb_status st = check_ids(&m->config, ids, rows_of(s));
    if (st == QB_OK) st = m->dev->backend->embed(m->dev, to, &m->embed, ids, rows_of(s));
    return st == QB_OK ? run_list(m, &m->enter.w, 0, m->enter.w.n_steps, ws, x, NULL, s) : st;
}

qb_status qb_model_head(qb_model *m, qb_workspace *ws, float *logits, const float *x, int64_t rows) {
    qb_span s = {.n_seq = 1, .n_tok = rows};
    return run_list(m, &m->leave.w, 0, m->leave.w.n_steps, ws, (float *)(uintptr_t)x, logits, &s);
}

qb_status qb_model_forward(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s) {
    if (!m->resident) return qb_fail(QB_ERR_INTERNAL, "the whole-model forward needs resident weights");
    qb_status st = qb_model_embed(m, ws, x, ids, s);
    for (int64_t l = 0; st == QB_OK && l < m->config.n_layers; l++) {
        qb_span layer = *s;
        layer.kv_layer = l;
        st = qb_block_forward(m, &m->blocks[l], ws, x, &layer);
    }
    return st;
}

/* Whether the backend's own step did it. */
static qb_status fused_step(qb_model *m, const int32_t *ids, const qb_span *s, float *logits, bool *done) {
    *done = false;
    if (s->n_tok != 1 || !m->dev->backend->decode || !m->resident) return QB_OK;
    qb_status st = check_ids(&m->config, ids, s->n_seq);
    if (st != QB_OK) return st;
    st = m->dev->backend->decode(m->dev, &m->decoder, s->kv, ids, s->n_seq, s->first, logits);
    *done = st == QB_OK;
    if (st != QB_ERR_UNSUPPORTED) return st;
    qb_error_clear();
    return QB_OK;
}

qb_status qb_model_next(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                        float *logits) {
    int64_t d = m->config.hidden;
    bool done;
    qb_status st;
    QB_TRY(st, fused_step(m, ids, s, logits, &done));
    if (done) return QB_OK;
    QB_TRY(st, qb_model_forward(m, ws, x, ids, s));
    for (int64_t q = 0; s->n_tok > 1 && q < s->n_seq; q++) /* each lands before the rows still to be read */
        QB_TRY(st, m->dev->backend->copy(m->dev, x + q * d, x + ((q + 1) * s->n_tok - 1) * d,
                                         d * (int64_t)sizeof(float)));
    QB_TRY(st, qb_model_head(m, ws, logits, x, s->n_seq));
out:
    return st;
}

qb_status qb_model_greedy(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                          int64_t n, float *logits, int32_t *chosen, int64_t *n_chosen) {
    const qb_backend *be = m->dev->backend;
    qb_status st;
    *n_chosen = 0;
    if (be->decode_greedy && m->resident) {
        QB_TRY(st, check_ids(&m->config, ids, s->n_seq));
        st = be->decode_greedy(m->dev, &m->decoder, s->kv, ids, s->n_seq, s->first, n, logits, chosen,
                               n_chosen);
        if (st != QB_ERR_UNSUPPORTED) return st;
        qb_error_clear();
    }
    for (int64_t i = 0; i < n; i++, ++*n_chosen) {
        qb_span span = {s->n_seq, 1, s->first + i, s->kv, 0};
        QB_TRY(st, qb_model_next(m, ws, x, i ? chosen + (i - 1) * s->n_seq : ids, &span, logits));
        QB_TRY(st, be->argmax(m->dev, logits, s->n_seq, m->config.vocab, chosen + i * s->n_seq));
    }
    st = QB_OK;
out:
    return st;
}

int64_t qb_prefill_piece(const qb_backend *backend, int64_t n_seq, int64_t n_tok) {
    int64_t wish = (backend->batch_rows < QB_PREFILL_ROWS ? backend->batch_rows : QB_PREFILL_ROWS) / n_seq,
            piece = wish > QB_PREFILL_TOKENS ? wish : QB_PREFILL_TOKENS;
    return n_tok < piece ? n_tok : piece;
}

qb_status qb_model_prefill(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                           float *logits) {
    int64_t chunk = qb_prefill_piece(m->dev->backend, s->n_seq, ws->max_rows / s->n_seq);
    int32_t *piece = NULL;
    qb_status st;
    if (chunk < 1) return qb_fail(QB_ERR_INTERNAL, "no room for a token of each sequence");
    QB_TRY(st, qb_alloc((size_t)(s->n_seq * chunk), sizeof *piece, &piece));
    for (int64_t done = 0; done < s->n_tok; done += chunk) {
        qb_span span = {s->n_seq, s->n_tok - done < chunk ? s->n_tok - done : chunk, s->first + done, s->kv,
                        0};
        for (int64_t q = 0; q < s->n_seq; q++)
            memcpy(piece + q * span.n_tok, ids + q * s->n_tok + done, (size_t)span.n_tok * sizeof *piece);
        bool last = done + span.n_tok == s->n_tok;
        QB_TRY(st, last && logits ? qb_model_next(m, ws, x, piece, &span, logits)
                                  : qb_model_forward(m, ws, x, piece, &span));
    }
out:
    qb_free(piece);
    return st;
}
