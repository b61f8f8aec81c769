#include "eval/speed_run.h"

#include "base/memory.h"

#include <string.h>

void qb_speed_run_free(qb_speed_run *r) {
    const qb_backend *be = r->dev->backend;
    qb_workspace_free(r->m, &r->ws);
    qb_kv_free(r->m, &r->kv);
    be->free(r->dev, r->x);
    be->free(r->dev, r->logits);
    qb_free(r->ids);
    qb_free(r->next);
}

qb_status qb_speed_run_create(qb_speed_run *r, qb_model *m, qb_device *dev, const qb_speed_config *config,
                              int64_t n_seq, int64_t capacity) {
    *r = (qb_speed_run){.m = m, .dev = dev, .config = config, .n_seq = n_seq, .capacity = capacity};
    r->kv_dtype = !strcmp(config->kv, "f32") ? QB_DTYPE_F32 : QB_DTYPE_F16;
    const qb_backend *be = dev->backend;
    int64_t d = m->config.hidden, f = (int64_t)sizeof(float), chunk = qb_prefill_piece(be, n_seq, capacity);
    qb_status st;
    if (capacity > m->config.max_positions)
        return qb_fail(QB_ERR_USAGE, "%lld tokens of context exceed the model's %lld positions",
                       (long long)capacity, (long long)m->config.max_positions);
    QB_TRY(st, qb_workspace_create(m, n_seq * chunk, &r->ws));
    QB_TRY(st, qb_kv_create(m, r->kv_dtype, m->config.n_layers, n_seq, capacity, &r->kv));
    QB_TRY(st, be->alloc(dev, QB_MEMORY_ACTIVATIONS, n_seq * chunk * d * f, &r->x));
    QB_TRY(st, be->alloc(dev, QB_MEMORY_ACTIVATIONS, n_seq * m->config.vocab * f, &r->logits));
    QB_TRY(st, qb_alloc((size_t)(n_seq * capacity), sizeof *r->ids, &r->ids));
    QB_TRY(st, qb_alloc((size_t)n_seq, sizeof *r->next, &r->next));
out:
    return st;
}

int32_t qb_speed_id(const qb_speed_run *r, int64_t i) {
    return (int32_t)((i * 7919 + 13) % r->m->config.vocab);
}

/* The next ids from the logits. */
static qb_status choose(qb_speed_run *r) {
    return r->dev->backend->argmax(r->dev, r->logits, r->n_seq, r->m->config.vocab, r->next);
}

qb_status qb_speed_prompt(qb_speed_run *r, const int32_t *ids, int64_t n_tok) {
    for (int64_t s = 0; s < r->n_seq; s++)
        for (int64_t t = 0; t < n_tok; t++) r->ids[s * n_tok + t] = ids ? ids[t] : qb_speed_id(r, s * 31 + t);
    qb_span span = {r->n_seq, n_tok, 0, &r->kv, 0};
    qb_status st = qb_model_prefill(r->m, &r->ws, r->x, r->ids, &span, r->logits);
    return st == QB_OK ? choose(r) : st;
}

qb_status qb_speed_tokens(qb_speed_run *r, int64_t first, int64_t n) {
    qb_span span = {r->n_seq, 1, first, &r->kv, 0};
    int64_t done;
    qb_status st = qb_model_greedy(r->m, &r->ws, r->x, r->next, &span, n, r->logits, r->ids, &done);
    if (st == QB_OK && n > 0)
        memcpy(r->next, r->ids + (n - 1) * r->n_seq, (size_t)r->n_seq * sizeof *r->next);
    return st;
}
