#include "eval/divergence.h"

#include "base/memory.h"
#include "eval/pass.h"

#include <math.h>

/* ---- a chunk of rows of both models, side by side on the host ---- */

typedef struct {
    qb_pass pass[2]; /* the model, its base */
    float *host[2];  /* [rows, V] where the device's memory is not the host's */
    const float *logits[2];
    int64_t rows; /* of one chunk */
    const int32_t *targets;
    qb_token_divergence *tokens; /* [rows] */
} comparison;

static void diverge_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    comparison *c = ctx;
    int64_t vocab = c->pass[0].m->config.vocab;
    for (int64_t t = begin; t < end; t++)
        qb_token_diverge(c->logits[0] + t * vocab, c->logits[1] + t * vocab, vocab, c->targets[t],
                         &c->tokens[t]);
}

static qb_status logits_of(comparison *c, int which, int64_t window, int32_t at, int32_t rows) {
    qb_pass *p = &c->pass[which];
    const qb_backend *be = p->m->dev->backend;
    qb_status st = qb_pass_head(p, window, at, rows);
    c->logits[which] = c->host[which] ? c->host[which] : p->logits;
    if (st == QB_OK && c->host[which])
        st = be->download(p->m->dev, c->host[which], p->logits,
                          rows * p->m->config.vocab * (int64_t)sizeof(float));
    return st;
}

static qb_status compare_window(comparison *c, int64_t window, qb_divergence_sums *sums) {
    const qb_windows *w = c->pass[0].w;
    const qb_window *win = &w->windows[window];
    qb_status st = QB_OK;
    for (int32_t at = win->score_begin, rows; st == QB_OK && at < win->score_end; at += rows) {
        rows = win->score_end - at < c->rows ? win->score_end - at : (int32_t)c->rows;
        c->targets = w->ids + win->offset + at;
        st = logits_of(c, 0, window, at, rows);
        if (st == QB_OK) st = logits_of(c, 1, window, at, rows);
        if (st != QB_OK)
            return qb_fail_prefix(st, "window %lld, tokens %d to %d", (long long)window, at, at + rows - 1);
        qb_parallel_for(c->pass[0].m->dev->threads, rows, 1, diverge_rows, c);
        for (int32_t r = 0; st == QB_OK && r < rows; r++) {
            if (!isfinite(c->tokens[r].kl))
                return qb_fail(QB_ERR_NUMERIC, "window %lld, token %d: the divergence is not finite",
                               (long long)window, at + r);
            qb_divergence_add(sums, &c->tokens[r], window);
        }
    }
    return st;
}

static qb_status plan_both(const qb_model *m, const qb_model *base, const qb_windows *w, int64_t bytes_each,
                           bool layer_major, qb_perplexity_plan *out) {
    qb_perplexity_plan b;
    qb_status st = qb_pass_plan(m, w, bytes_each, layer_major, out);
    if (st == QB_OK) st = qb_pass_plan(base, w, bytes_each, layer_major, &b);
    if (st != QB_OK) return st;
    out->peak_bytes += b.peak_bytes;
    out->flops += b.flops;
    if (b.passes > out->passes) out->passes = b.passes;
    return QB_OK;
}

qb_status qb_divergence_plan_make(const qb_model *m, const qb_model *base, const qb_windows *w,
                                  int64_t memory_bytes, qb_perplexity_plan *out) {
    int64_t budget;
    qb_status st = qb_pass_budget(m, memory_bytes, &budget);
    if (st == QB_OK) st = plan_both(m, base, w, INT64_MAX / 4, false, out);
    if (st == QB_OK && out->peak_bytes > budget) st = plan_both(m, base, w, budget / 2, true, out);
    return st;
}

static qb_status open_comparison(qb_model *m, qb_model *base, const qb_windows *w, int64_t memory_bytes,
                                 comparison *c) {
    qb_model *models[2] = {m, base};
    qb_status st = QB_OK;
    QB_TRY(st, qb_pass_budget(m, memory_bytes, &memory_bytes));
    for (int i = 0; i < 2; i++) {
        QB_TRY(st, qb_pass_open(models[i], w, memory_bytes / 2, &c->pass[i]));
        int64_t rows = c->pass[i].plan.head_rows;
        c->rows = i == 0 || rows < c->rows ? rows : c->rows;
    }
    for (int i = 0; i < 2; i++)
        if (models[i]->dev->backend->separate_memory)
            QB_TRY(st, qb_alloc((size_t)(c->rows * m->config.vocab), sizeof(float), &c->host[i]));
    QB_TRY(st, qb_alloc((size_t)c->rows, sizeof *c->tokens, &c->tokens));
out:
    return st;
}

static qb_status compare_all(comparison *c, qb_divergence_sums *sums) {
    const qb_windows *w = c->pass[0].w;
    int64_t a = c->pass[0].plan.windows_per_pass, b = c->pass[1].plan.windows_per_pass, step = a < b ? a : b,
            layers = c->pass[0].m->config.n_layers;
    qb_progress progress;
    qb_status st = QB_OK;
    qb_progress_begin(&progress, (double)(w->count * (layers + c->pass[1].m->config.n_layers)),
                      "divergence from %s on %s %s", c->pass[1].m->name, w->dataset, w->protocol);
    for (int64_t begin = 0; st == QB_OK && begin < w->count; begin += step) {
        int64_t end = begin + step < w->count ? begin + step : w->count;
        c->pass[0].blocks_before = c->pass[1].blocks_done;
        st = qb_pass_forward(&c->pass[0], begin, end, &progress);
        c->pass[1].blocks_before = c->pass[0].blocks_done;
        if (st == QB_OK) st = qb_pass_forward(&c->pass[1], begin, end, &progress);
        for (int64_t i = begin; st == QB_OK && i < end; i++) st = compare_window(c, i, sums);
    }
    if (st == QB_OK) qb_progress_end(&progress);
    return st;
}

/* ---- the row ---- */

static void put_estimate(qb_json *j, const char *name, qb_estimate e) {
    qb_json *o = qb_json_object();
    qb_json_put_real(o, "value", e.value);
    qb_json_put_real(o, "stderr", e.error);
    qb_json_put(j, name, o);
}

static void put_percentiles(qb_json *j, const char *name, const double *values) {
    qb_json *array = qb_json_array();
    for (int i = 0; i < QB_PERCENTILES; i++) {
        qb_json *o = qb_json_object();
        qb_json_put_real(o, "percent", qb_percentiles[i]);
        qb_json_put_real(o, "value", values[i]);
        qb_json_push(array, o);
    }
    qb_json_put(j, name, array);
}

static void fill_row(const qb_divergence *d, const qb_model *base, qb_measure *out) {
    qb_json *j = out->extra;
    out->value = d->kl.value;
    out->stderr_value = d->kl.error;
    out->n = d->tokens;
    qb_json_put_text(j, "base", base->name);
    qb_json_put_text(j, "stderr_from", "tokens");
    put_percentiles(j, "kl_percentiles", d->kl_percentiles);
    put_estimate(j, "perplexity", d->perplexity);
    put_estimate(j, "base_perplexity", d->base_perplexity);
    qb_json_put_real(j, "correlation", d->correlation);
    put_estimate(j, "ln_perplexity_ratio", d->ln_ratio);
    qb_json_put_real(j, "ln_perplexity_ratio_stderr_windows", d->ln_ratio_window_error);
    put_estimate(j, "perplexity_ratio", d->ratio);
    put_estimate(j, "perplexity_difference", d->difference);
    put_estimate(j, "delta_p", d->delta_p);
    put_percentiles(j, "delta_p_percentiles", d->delta_p_percentiles);
    put_estimate(j, "rms_delta_p", d->rms_delta_p);
    put_estimate(j, "same_top", d->same_top);
}

qb_status qb_divergence_measure(qb_model *m, qb_model *base, const qb_windows *w, int64_t memory_bytes,
                                qb_measure *out) {
    comparison c = {0};
    qb_divergence_sums *sums = NULL;
    qb_divergence d;
    qb_status st;
    if ((st = qb_measure_init(out, "kl_divergence")) != QB_OK) return st;
    if (m->config.vocab != base->config.vocab)
        return qb_fail(QB_ERR_USAGE, "%s has a vocabulary of %lld tokens and its base %s one of %lld",
                       m->name, (long long)m->config.vocab, base->name, (long long)base->config.vocab);
    QB_TRY(st, open_comparison(m, base, w, memory_bytes, &c));
    QB_TRY(st, qb_divergence_begin(qb_windows_scored(w), &sums));
    QB_TRY(st, compare_all(&c, sums));
    QB_TRY(st, qb_divergence_end(sums, &d));
    fill_row(&d, base, out);
    qb_windows_describe(w, c.pass[0].plan.layer_major, out);
out:
    st = qb_model_explain(m, st);
    qb_divergence_free(sums);
    for (int i = 0; i < 2; i++) {
        qb_pass_close(&c.pass[i]);
        qb_free(c.host[i]);
    }
    qb_free(c.tokens);
    return st;
}
