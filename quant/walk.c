#include "quant/walk.h"

#include <string.h>

static const uint64_t stream = UINT64_C(1) << QB_SLOT_X;

static const qb_linear *quantized(const qb_list *l, const qb_step *s) {
    if (s->kind != QB_STEP_LINEAR || !l->linears[s->module].quantized) return NULL;
    return &l->linears[s->module];
}

/* Whether a step takes so long that a pass should not repeat it. */
static bool is_costly(const qb_list *l, const qb_step *s) {
    return quantized(l, s) || s->kind == QB_STEP_ATTEND || s->kind == QB_STEP_CACHE ||
           s->kind == QB_STEP_CONV || s->kind == QB_STEP_DELTA;
}

static double step_work(const qb_topology *t, const qb_list *l, const qb_step *s) {
    if (s->kind == QB_STEP_ATTEND) return 1024.0 * (double)(s->u.attend.heads * s->u.attend.head_dim);
    if (s->kind != QB_STEP_LINEAR) return 0;
    const qb_linear *w = &l->linears[s->module];
    double share = w->expert < 0 ? 1 : (double)t->top_k / (double)t->experts;
    return (double)(w->rows * w->cols) * share;
}

/* Whether a later step reads cache rows that a step before `at` stored. */
static bool cache_waits(const qb_list *l, int64_t at) {
    for (size_t i = (size_t)at; i < l->n_steps; i++) {
        if (l->steps[i].kind == QB_STEP_CACHE) return false;
        if (l->steps[i].kind == QB_STEP_ATTEND) return true;
    }
    return false;
}

static int64_t floats_of(const qb_topology *t, uint64_t slots) {
    int64_t n = 0;
    for (int i = 0; i < t->n_slots; i++)
        if (slots >> i & 1) n += t->slots[i].width * (t->slots[i].routed ? t->top_k : 1);
    return n;
}

/* The place of least memory among those from which only cheap steps lead to the cut. */
static void find_resume(const qb_topology *t, const qb_list *l, qb_stage *s) {
    s->possible = false;
    for (int64_t at = s->cut; at >= 0; at--) {
        uint64_t live;
        bool routing;
        if (at < s->cut && is_costly(l, &l->steps[at])) break;
        if (cache_waits(l, at)) continue;
        qb_list_live(l, (size_t)at, stream, &live, &routing);
        int64_t floats = floats_of(t, live & ~stream);
        if (s->possible && floats >= s->kept_floats) continue;
        s->possible = true;
        s->resume = at;
        s->kept = live & ~stream;
        s->routing = routing;
        s->kept_floats = floats;
    }
}

static qb_status add_stage(const qb_topology *t, const qb_list *l, int64_t cut, qb_walk *w) {
    qb_status st = qb_grow(&w->stages, &w->stages_capacity, w->n_stages + 1, sizeof *w->stages);
    if (st != QB_OK) return st;
    qb_stage *s = &w->stages[w->n_stages++];
    *s = (qb_stage){.cut = cut, .first_site = (int64_t)w->n_sites};
    find_resume(t, l, s);
    int64_t from = w->n_stages > 1 ? w->stages[w->n_stages - 2].resume : 0;
    for (int64_t i = from; s->possible && i < s->resume; i++) s->work += step_work(t, l, &l->steps[i]);
    return QB_OK;
}

/* All linears from step `from` on that read the same activation as it stands there. */
static qb_status add_sites(const qb_list *l, int64_t from, bool *taken, qb_walk *w) {
    int8_t slot = l->steps[from].in;
    qb_status st;
    for (size_t i = (size_t)from; i < l->n_steps; i++) {
        const qb_step *s = &l->steps[i];
        const qb_linear *linear = quantized(l, s);
        if (linear && s->in == slot && !taken[i]) {
            qb_site *last =
                w->n_sites > (size_t)w->stages[w->n_stages - 1].first_site ? w->sites + w->n_sites - 1 : NULL;
            /* an expert's linears need not stand side by side: gather them by expert */
            if (!last || last->expert != s->expert) {
                st = qb_grow(&w->sites, &w->sites_capacity, w->n_sites + 1, sizeof *w->sites);
                if (st != QB_OK) return st;
                w->sites[w->n_sites++] = (qb_site){(int64_t)w->n_linears, 0, slot, s->expert, linear->cols};
                w->stages[w->n_stages - 1].n_sites++;
            }
            for (size_t j = i; j < l->n_steps; j++) {
                const qb_step *other = &l->steps[j];
                if (quantized(l, other) && other->in == slot && other->expert == s->expert && !taken[j]) {
                    st = qb_grow(&w->linears, &w->linears_capacity, w->n_linears + 1, sizeof *w->linears);
                    if (st != QB_OK) return st;
                    w->linears[w->n_linears++] = other->module;
                    w->sites[w->n_sites - 1].n++;
                    taken[j] = true;
                }
                if (other->out == slot || other->out2 == slot || other->out3 == slot) break;
            }
        }
        if (s->out == slot || s->out2 == slot || s->out3 == slot)
            break; /* written: another activation from here */
    }
    return QB_OK;
}

qb_status qb_walk_make(const qb_topology *t, const qb_list *l, qb_walk *out) {
    *out = (qb_walk){0};
    bool *taken = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc_zero(l->n_steps ? l->n_steps : 1, sizeof *taken, &taken));
    for (size_t i = 0; i < l->n_steps; i++) {
        if (!quantized(l, &l->steps[i]) || taken[i]) continue;
        QB_TRY(st, add_stage(t, l, (int64_t)i, out));
        QB_TRY(st, add_sites(l, (int64_t)i, taken, out));
    }
    qb_walk_store(out, INT64_MAX);
out:
    qb_free(taken);
    if (st != QB_OK) qb_walk_free(out);
    return st;
}

void qb_walk_free(qb_walk *w) {
    qb_free(w->stages);
    qb_free(w->sites);
    qb_free(w->linears);
    *w = (qb_walk){0};
}

/* A state is read while the next one is written: neighbours lie in different buffers. */
static int64_t place(qb_walk *w) {
    int last = 1;
    w->buffer_floats[0] = w->buffer_floats[1] = 0;
    for (size_t i = 0; i < w->n_stages; i++) {
        qb_stage *s = &w->stages[i];
        if (!s->stored) continue;
        /* behind a state of the residual stream alone the first buffer is free again */
        s->buffer = s->kept_floats == 0 ? 1 : 1 - last;
        last = s->buffer;
        if (s->kept_floats > w->buffer_floats[s->buffer]) w->buffer_floats[s->buffer] = s->kept_floats;
    }
    return w->buffer_floats[0] + w->buffer_floats[1];
}

void qb_walk_store(qb_walk *w, int64_t floats) {
    for (size_t i = 0; i < w->n_stages; i++) w->stages[i].stored = w->stages[i].possible;
    while (place(w) > floats) {
        qb_stage *least = NULL;
        for (size_t i = 0; i < w->n_stages; i++) {
            qb_stage *s = &w->stages[i];
            if (s->stored && s->kept_floats > 0 &&
                (!least || s->work / (double)s->kept_floats < least->work / (double)least->kept_floats))
                least = s;
        }
        if (!least) return;
        least->stored = false;
    }
}
