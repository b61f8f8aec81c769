/* Text generation: greedy, or sampled with temperature, top-k and top-p. */
#include "base/memory.h"
#include "base/rng.h"
#include "eval/eval.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    float logit;
    int32_t id;
} candidate;

static int by_logit(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Draws from softmax(logits / temperature) cut to the top_k likeliest and then to the least set holding top_p
 * of the mass. */
static int32_t sample(const float *logits, int64_t vocab, const qb_generate_config *config, qb_pyrandom *rng,
                      candidate *list) {
    for (int64_t i = 0; i < vocab; i++) list[i] = (candidate){logits[i], (int32_t)i};
    qsort(list, (size_t)vocab, sizeof *list, by_logit);
    int64_t n = config->top_k > 0 && config->top_k < vocab ? config->top_k : vocab;
    double total = 0, kept = 0;
    for (int64_t i = 0; i < n; i++)
        total += exp((double)(list[i].logit - list[0].logit) / config->temperature);
    int64_t m = 0;
    while (m < n && kept < config->top_p * total)
        kept += exp((double)(list[m++].logit - list[0].logit) / config->temperature);
    double draw = qb_pyrandom_double(rng) * kept;
    for (int64_t i = 0; i < m; i++) {
        draw -= exp((double)(list[i].logit - list[0].logit) / config->temperature);
        if (draw < 0) return list[i].id;
    }
    return list[m > 0 ? m - 1 : 0].id;
}

/* Greedy tokens that a backend with a loop of its own computes before the text is looked at: what stands
   behind its end is thrown away. */
enum { AHEAD = 8 };

typedef struct {
    qb_workspace ws;
    qb_kv kv;
    float *x, *logits, *host;
    candidate *list;
    int32_t ids[AHEAD]; /* greedy: computed ahead, of which n_ids are there and `at` have been given */
    int64_t n_ids, at;
    qb_status ended; /* what came behind them */
} generator;

static qb_status generator_create(qb_model *m, qb_device *dev, int64_t capacity, int64_t chunk, bool sampling,
                                  generator *g) {
    const qb_config *c = &m->config;
    int64_t f = (int64_t)sizeof(float);
    qb_status st;
    QB_TRY(st, qb_workspace_create(m, chunk, &g->ws));
    QB_TRY(st, qb_kv_create(m, QB_DTYPE_F16, c->n_layers, 1, capacity, &g->kv));
    QB_TRY(st, dev->backend->alloc(dev, QB_MEMORY_ACTIVATIONS, chunk * c->hidden * f, &g->x));
    QB_TRY(st, dev->backend->alloc(dev, QB_MEMORY_ACTIVATIONS, c->vocab * f, &g->logits));
    if (sampling) {
        QB_TRY(st, qb_alloc((size_t)c->vocab, sizeof *g->host, &g->host));
        QB_TRY(st, qb_alloc((size_t)c->vocab, sizeof *g->list, &g->list));
    }
out:
    return st;
}

/* Nothing can be drawn from a distribution with a NaN in it. */
static qb_status check_logits(qb_model *m, const float *logits) {
    bool finite;
    qb_status st = m->dev->backend->all_finite(m->dev, logits, m->config.vocab, &finite);
    if (st != QB_OK || finite) return st;
    return qb_fail(QB_ERR_NUMERIC, "the logits hold a NaN or an infinity");
}

/* The token behind `id`, which stands at span->first; of at most `left` that are still wanted. */
static qb_status greedy_next(generator *g, qb_model *m, const qb_span *span, int64_t left, int32_t *id) {
    qb_status st;
    if (g->at == g->n_ids) {
        const int64_t ahead = m->dev->backend->decode_greedy ? AHEAD : 1;
        QB_TRY(st, g->ended);
        g->at = 0;
        g->ended = qb_model_greedy(m, &g->ws, g->x, id, span, left < ahead ? left : ahead, g->logits, g->ids,
                                   &g->n_ids);
        if (g->n_ids == 0) QB_TRY(st, g->ended);
    }
    *id = g->ids[g->at++];
    st = QB_OK;
out:
    return st;
}

static bool ends_text(const qb_config *c, const qb_generate_config *config, int32_t id) {
    bool stop = id == c->eos;
    for (size_t i = 0; i < config->n_stops; i++) stop = stop || config->stops[i] == id;
    return stop && !config->ignore_eos;
}

qb_status qb_generate(qb_model *m, qb_device *dev, const int32_t *prompt, int64_t n_prompt,
                      const qb_generate_config *config, qb_emit_fn emit, void *ctx) {
    const qb_config *c = &m->config;
    generator g = {0};
    qb_pyrandom rng;
    qb_status st;
    if (n_prompt < 1)
        return qb_fail(QB_ERR_USAGE,
                       "the prompt is empty and the tokenizer adds no BOS: give at least one token");
    if (n_prompt + config->tokens > c->max_positions)
        return qb_fail(
            QB_ERR_USAGE,
            "%lld prompt tokens and %lld new ones exceed the model's %lld positions; try --tokens %lld",
            (long long)n_prompt, (long long)config->tokens, (long long)c->max_positions,
            (long long)(c->max_positions > n_prompt ? c->max_positions - n_prompt : 0));
    if (!m->resident) return qb_fail(QB_ERR_INTERNAL, "generation needs resident weights");
    bool sampling = config->temperature > 0;
    qb_pyrandom_seed(&rng, (uint64_t)config->seed);
    int64_t chunk = qb_prefill_piece(dev->backend, 1, n_prompt);
    QB_TRY(st, generator_create(m, dev, n_prompt + config->tokens, chunk, sampling, &g));
    qb_span span = {1, n_prompt, 0, &g.kv, 0};
    QB_TRY(st, qb_model_prefill(m, &g.ws, g.x, prompt, &span, g.logits));
    int32_t id = 0;
    for (int64_t i = 0; i < config->tokens; i++) {
        if (i > 0) {
            span = (qb_span){1, 1, n_prompt + i - 1, &g.kv, 0};
            QB_TRY(st, sampling ? qb_model_next(m, &g.ws, g.x, &id, &span, g.logits)
                                : greedy_next(&g, m, &span, config->tokens - i, &id));
        }
        if (sampling) {
            QB_TRY(st, check_logits(m, g.logits));
            QB_TRY(st, dev->backend->download(dev, g.host, g.logits, c->vocab * (int64_t)sizeof(float)));
            id = sample(g.host, c->vocab, config, &rng, g.list);
        } else if (i == 0) {
            QB_TRY(st, dev->backend->argmax(dev, g.logits, 1, c->vocab, &id));
        }
        if (ends_text(c, config, id)) break;
        if (!emit(ctx, id)) break;
    }
out:
    st = qb_model_explain(m, st);
    qb_workspace_free(m, &g.ws);
    qb_kv_free(m, &g.kv);
    dev->backend->free(dev, g.x);
    dev->backend->free(dev, g.logits);
    qb_free(g.host);
    qb_free(g.list);
    return st;
}
