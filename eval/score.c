/* The sums of a window's scored targets, from a float32 forward (pass.h) and a float64 log-softmax. Sums run
   in window order: the same bits for any thread count. */
#include "eval/score.h"

#include "base/memory.h"
#include "eval/pass.h"

typedef struct {
    qb_pass pass;
    qb_device *dev;
    double *nll; /* [head_rows] */
    qb_scores *sums;
} scorer;

static qb_status score_window(scorer *s, int64_t i) {
    const qb_windows *w = s->pass.w;
    const qb_window *win = &w->windows[i];
    qb_window_sums *sums = &s->sums->windows[i];
    for (int32_t at = win->score_begin, rows; at < win->score_end; at += rows) {
        rows = qb_pass_rows(&s->pass, i, at);
        qb_status st = qb_pass_head(&s->pass, i, at, rows);
        if (st == QB_OK)
            st = s->dev->backend->nll(s->dev, s->pass.logits, rows, s->pass.m->config.vocab,
                                      w->ids + win->offset + at, s->nll);
        if (st != QB_OK)
            return qb_fail_prefix(st, "window %lld, tokens %d to %d", (long long)i, at, at + rows - 1);
        for (int32_t r = 0; r < rows; r++) {
            sums->nll += s->nll[r];
            s->sums->nll += s->nll[r];
            s->sums->nll_squares += s->nll[r] * s->nll[r];
        }
        sums->tokens += rows;
    }
    return QB_OK;
}

qb_status qb_score(qb_model *m, qb_device *dev, const qb_windows *w, int64_t memory_bytes, qb_scores *out) {
    scorer s = {.dev = dev, .sums = out};
    qb_progress progress;
    qb_status st;
    *out = (qb_scores){.count = w->count};
    QB_TRY(st, qb_pass_open(m, w, memory_bytes, &s.pass));
    out->layer_major = s.pass.plan.layer_major;
    QB_TRY(st, qb_alloc((size_t)s.pass.plan.head_rows, sizeof *s.nll, &s.nll));
    QB_TRY(st, qb_alloc_zero((size_t)w->count, sizeof *out->windows, &out->windows));
    qb_progress_begin(&progress, (double)(w->count * m->config.n_layers), "perplexity %s %s", w->dataset,
                      w->protocol);
    int64_t step = s.pass.plan.windows_per_pass;
    for (int64_t begin = 0; begin < w->count; begin += step) {
        int64_t end = begin + step < w->count ? begin + step : w->count;
        QB_TRY(st, qb_pass_forward(&s.pass, begin, end, &progress));
        for (int64_t i = begin; i < end; i++) QB_TRY(st, score_window(&s, i));
    }
    qb_progress_end(&progress);
out:
    st = qb_model_explain(m, st);
    qb_pass_close(&s.pass);
    qb_free(s.nll);
    if (st != QB_OK) qb_scores_free(out);
    return st;
}

void qb_scores_free(qb_scores *s) {
    qb_free(s->windows);
    *s = (qb_scores){0};
}
