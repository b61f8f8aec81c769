/* Steps that share a kernel: a norm with the products that read it, these with their activation, a product
   with the sum it goes into, attention with biases, turns and the cache in front of it. Each group is
   recognised by its steps alone, and only where nobody else reads what is then never written. */
#include "kernels/cuda/decode_queue.cuh"

#include "kernels/cuda/decode_gemv.cuh"
#include "kernels/cuda/matrix.h"

static const qb_cuda_view *view_of(const decode_list &l, const qb_step *linear) {
    return qb_cuda_view_of(&l.w->matrices[linear->module]);
}
static const float *bias_of(const decode_list &l, const qb_step *linear) {
    return l.w->biases[linear->module];
}

bool qb_decode_list_folds(const decode_step &s, const qb_step_weights *w) {
    for (int64_t i = 0; i < w->n_steps; i++)
        if (w->steps[i].kind == QB_STEP_LINEAR && w->steps[i].expert < 0 &&
            !qb_decode_gemv_fits(*qb_cuda_view_of(&w->matrices[w->steps[i].module]), s.n_seq,
                                 qb_decode_device_of(s)))
            return false;
    return true;
}

/* ---- products of normed inputs ---- */

/* Linears from step i on that read `slot`, one behind the other. */
static int64_t linears_of(const decode_list &l, int64_t i, int8_t slot) {
    int64_t n = 0;
    for (const qb_step *p; (p = l.at(i + n)) && p->kind == QB_STEP_LINEAR && p->expert < 0 && p->in == slot;
         n++)
        if (p->out == slot) return 0;
    return n;
}

/* Whether the products' staging computes this norm. It has no bias for RMS. */
static bool is_folded_norm(const decode_queue &q, const qb_step *p) {
    const qb_norm_attr &a = p->u.norm;
    return a.dim == q.width(p->in) && a.weight_rows <= 1 && p->vector >= 0 &&
           (a.kind == QB_NORM_LAYER || p->vector2 < 0) && p->in != p->out;
}

static decode_norm norm_of(const decode_list &l, const qb_step *p) {
    return {p->u.norm.kind, l.vector(p->vector), l.vector(p->vector2), static_cast<int32_t>(p->u.norm.dim),
            p->u.norm.eps};
}

/* Neighbours that are alike share a launch. */
static qb_status project(decode_queue *q, const decode_list &l, const qb_step *norm, int64_t n) {
    const qb_step *p = norm + 1;
    const decode_norm attr = norm_of(l, norm);
    for (int64_t i = 0; i < n;) {
        decode_parts parts = {};
        int used = 0;
        const qb_cuda_view *head = view_of(l, &p[i]);
        while (i < n && used < QB_DECODE_PARTS && qb_decode_gemv_alike(*head, *view_of(l, &p[i]))) {
            parts.v[used] = *view_of(l, &p[i]);
            parts.y[used] = q->slot(p[i].out);
            parts.first[used + 1] =
                parts.first[used] + static_cast<int>(qb_blocks(parts.v[used].rows, QB_TILE_ROWS));
            used++, i++;
        }
        for (; used < QB_DECODE_PARTS; used++) parts.first[used + 1] = parts.first[used];
        const qb_status st = qb_cuda_status(
            q->s.dev,
            qb_decode_project(parts, attr, q->slot(norm->in), q->s.n_seq, qb_decode_device_of(q->s)),
            "decode product");
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

/* The activation behind one or two products when it can be computed with them; NULL otherwise. */
static const qb_step *activation_of(const decode_list &l, int64_t i, int64_t n) {
    const qb_step *norm = l.at(i), *act = l.at(i + 1 + n), *gate = norm + 1, *up = norm + n;
    if (n > 2 || !act || act->kind != QB_STEP_ACTIVATE || act->u.activate.kind == QB_ACTIVATION_SWIGLU_OSS ||
        act->in != gate->out || act->out == norm->in)
        return NULL;
    if (act->u.activate.glu != (n == 2 ? QB_GLU_SEPARATE : QB_GLU_NONE)) return NULL;
    if (n == 2 && (act->in2 != up->out || gate->out == up->out ||
                   !qb_decode_gemv_alike(*view_of(l, gate), *view_of(l, up))))
        return NULL;
    for (const qb_step *p = gate; p <= up; p++)
        if (p->out != act->out && qb_decode_is_read(l, i + 2 + n, p->out)) return NULL;
    return act;
}

static qb_status norm_and_products(decode_queue *q, const decode_list &l, int64_t i, int64_t *taken) {
    const qb_step *norm = l.at(i), *gate = norm + 1;
    const int64_t n = linears_of(l, i + 1, norm->out);
    if (n == 0 || !is_folded_norm(*q, norm) || qb_decode_is_read(l, i + 1 + n, norm->out)) return QB_OK;
    for (int64_t j = 0; j < n; j++)
        if (gate[j].out == norm->in) return QB_OK;
    const qb_step *act = activation_of(l, i, n), *up = norm + n;
    qb_status st = qb_decode_settle(q, norm->in);
    *taken = 1 + n + (act ? 1 : 0);
    for (int64_t j = 0; st == QB_OK && !act && j < n; j++) {
        st = qb_decode_before_write(q, gate[j].out, true);
        q->bias[gate[j].out] = bias_of(l, &gate[j]);
    }
    if (st == QB_OK && act) st = qb_decode_before_write(q, act->out, true);
    if (st != QB_OK) return st;
    if (!act) return project(q, l, norm, n);
    return qb_cuda_status(q->s.dev,
                          qb_decode_mlp(n == 2 ? view_of(l, gate) : NULL, n == 2 ? bias_of(l, gate) : NULL,
                                        *view_of(l, up), bias_of(l, up), act->u.activate.kind,
                                        norm_of(l, norm), q->slot(norm->in), q->slot(act->out), q->s.n_seq,
                                        qb_decode_device_of(q->s)),
                          "decode product");
}

/* ---- a product and the sum it goes into ---- */

static qb_status product_and_sum(decode_queue *q, const decode_list &l, int64_t i, int64_t *taken) {
    const qb_step *p = l.at(i), *add = l.at(i + 1);
    if (!add || add->kind != QB_STEP_ADD || add->in != p->out || add->out == p->out || add->out == p->in ||
        qb_decode_is_read(l, i + 2, p->out))
        return QB_OK;
    *taken = 2;
    qb_status st = qb_decode_settle(q, p->in);
    if (st == QB_OK) st = qb_decode_settle(q, add->out);
    if (st == QB_OK) st = qb_decode_before_write(q, add->out, false);
    if (st != QB_OK) return st;
    return qb_cuda_status(q->s.dev,
                          qb_decode_residual(*view_of(l, p), bias_of(l, p), q->slot(p->in), q->slot(add->out),
                                             q->s.n_seq, qb_decode_device_of(q->s)),
                          "decode product");
}

/* ---- attention ---- */

qb_status qb_decode_attend(decode_queue *q, const decode_list &l, const qb_step *p,
                           const decode_append *append) {
    const decode_step &s = q->s;
    const qb_attend_attr &attr = p->u.attend;
    attention_args a = qb_attention_args(s.kv, l.layer, &attr, l.vector(p->vector), l.vector(p->vector2));
    a.q = q->slot(p->in);
    a.out = q->slot(p->out);
    a.dev_first = s.first;
    a.dependent = s.dependent;
    a.n_tok = 1;
    a.n_seq = static_cast<int32_t>(s.n_seq);
    qb_attention_cut(&a,
                     qb_attention_plan(s.bound, s.n_seq, attr.heads, attr.kv_heads, attr.value_dim,
                                       s.dev->multiprocessors),
                     s.partial, s.arrived);
    if (append) {
        const qb_rope_attr none = {}, &rope = append->rope ? append->rope->u.rope : none;
        a.append = {q->slot(append->k),
                    q->slot(append->v),
                    {q->bias[p->in], q->bias[append->k], q->bias[append->v]},
                    append->rope ? s.d->rope_tables[rope.table] : NULL,
                    static_cast<int32_t>(rope.width),
                    rope.kind};
    }
    return qb_cuda_status(s.dev, qb_attention_decode(a, s.dev->stream), "attention");
}

static bool same_turn(const qb_rope_attr &a, const qb_rope_attr &b) {
    return a.kind == b.kind && a.table == b.table && a.head_dim == b.head_dim && a.offset == 0 &&
           b.offset == 0 && a.width == b.width;
}

/* [rope, rope,] cache, attend from step i on: the number of turns (0 or 2), or -1. */
static int64_t turns_before_attention(const decode_list &l, int64_t i) {
    const qb_step *p = l.at(i), *second = l.at(i + 1);
    const bool turned = p->kind == QB_STEP_ROPE;
    if (turned && (!second || second->kind != QB_STEP_ROPE || !same_turn(p->u.rope, second->u.rope)))
        return -1;
    const int64_t turns = turned ? 2 : 0;
    const qb_step *cache = l.at(i + turns), *attend = l.at(i + turns + 1);
    if (!attend || cache->kind != QB_STEP_CACHE || attend->kind != QB_STEP_ATTEND ||
        attend->in == cache->in || attend->in == cache->in2)
        return -1;
    if (!turned) return 0;
    const qb_attend_attr &a = attend->u.attend;
    const bool queries_first = p->out == attend->in;
    const qb_step *of_q = queries_first ? p : second, *of_k = queries_first ? second : p;
    if (of_q->out != attend->in || of_k->out != cache->in || of_q->u.rope.heads != a.heads ||
        of_k->u.rope.heads != a.kv_heads || of_q->u.rope.head_dim != a.head_dim || cache->in == cache->in2)
        return -1;
    /* the turned ones are never written */
    return qb_decode_is_read(l, i + 4, attend->in) || qb_decode_is_read(l, i + 4, cache->in) ? -1 : 2;
}

static qb_status cache_and_attention(decode_queue *q, const decode_list &l, int64_t i, int64_t *taken) {
    const int64_t turns = turns_before_attention(l, i);
    if (turns < 0) return QB_OK;
    const qb_step *cache = l.at(i + turns), *attend = cache + 1;
    const int8_t inputs[] = {attend->in, cache->in, cache->in2};
    qb_status st = QB_OK;
    for (int8_t slot : inputs) /* biases stay due: the kernel adds them, and writes none of the three */
        if (st == QB_OK && q->sum.to == slot) st = qb_decode_settle(q, slot);
    const decode_append append = {cache->in, cache->in2, turns ? l.at(i) : NULL};
    if (st == QB_OK && attend->out != attend->in && attend->out != cache->in && attend->out != cache->in2)
        st = qb_decode_before_write(q, attend->out, true);
    else
        return st; /* the blocks of a head read what others would write */
    *taken = turns + 2;
    return st == QB_OK ? qb_decode_attend(q, l, attend, &append) : st;
}

/* ---- experts ---- */

/* The linears of a projection's experts, which follow each other, by one kernel. */
static qb_status products_of_experts(decode_queue *q, const decode_list &l, int64_t i, int64_t *taken) {
    const qb_step *p = l.at(i);
    const decode_experts &all = *q->s.experts;
    const expert_group *g = q->expert_group < all.n_groups ? &all.groups[q->expert_group++] : NULL;
    if (!g || g->w != l.w || g->at != i)
        return qb_fail(QB_ERR_INTERNAL, "step %lld: experts that were not looked at before", (long long)i);
    *taken = g->n;
    qb_status st = qb_decode_settle(q, p->in);
    if (st == QB_OK) st = qb_decode_before_write(q, p->out, true);
    if (st != QB_OK) return st;
    return qb_cuda_status(q->s.dev,
                          qb_decode_expert_products(*g, q->s.chosen, q->rows(p->out), q->slot(p->in),
                                                    q->slot(p->out), qb_decode_device_of(q->s)),
                          "expert products");
}

qb_status qb_decode_fold(decode_queue *q, const decode_list &l, int64_t i, int64_t *taken) {
    *taken = 0;
    switch (l.at(i)->kind) {
    case QB_STEP_NORM:
        return l.folds ? norm_and_products(q, l, i, taken) : QB_OK;
    case QB_STEP_LINEAR:
        if (l.at(i)->expert >= 0) return products_of_experts(q, l, i, taken);
        return l.folds ? product_and_sum(q, l, i, taken) : QB_OK;
    case QB_STEP_ROPE:
    case QB_STEP_CACHE:
        return cache_and_attention(q, l, i, taken);
    default:
        return QB_OK;
    }
}
