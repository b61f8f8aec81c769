/* Perplexity of token windows: a consumer of the pass over them (score.h). */
#include "base/statistics.h"
#include "eval/pass.h"
#include "eval/score.h"

#include <math.h>

enum {
    MAX_SUMS = 1024, /* a row of more windows keeps sums over neighbours */
};

/* The row's value and its standard error. Tokens of one window depend on each other, so the error of the GPTQ
   protocol comes from the spread of window means; llama.cpp's and the strided protocol's from tokens, as
   their sources do. The spread of a few window means is itself a matter of luck: two that happen to agree
   would claim no error. Below QB_MIN_WINDOWS of them the larger of both stands. */
static void reduce(const qb_windows *w, const qb_scores *s, qb_measure *out) {
    double n = 0, mean_sum = 0, mean_squares = 0, used = 0;
    for (int64_t i = 0; i < s->count; i++) {
        const qb_window_sums *window = &s->windows[i];
        if (window->tokens == 0) continue;
        double mean = window->nll / (double)window->tokens;
        n += (double)window->tokens;
        used += 1;
        mean_sum += mean;
        mean_squares += mean * mean;
    }
    qb_estimate token = qb_estimate_of(s->nll, s->nll_squares, n),
                window = qb_estimate_of(mean_sum, mean_squares, used);
    if (!(used > 1)) window.error = token.error;
    bool by_window = w->mean == QB_MEAN_OF_WINDOWS;
    bool from_windows = by_window && (used >= QB_MIN_WINDOWS || window.error > token.error);
    double mean = by_window ? window.value : token.value;
    out->value = exp(mean);
    out->stderr_value = out->value * (from_windows ? window.error : token.error);
    qb_json_put_text(out->extra, "stderr_from", from_windows ? "windows" : "tokens");
    out->n = (int64_t)n;
    qb_json_put_real(out->extra, "nll_mean", mean);
    qb_json_put_real(out->extra, "stderr_tokens", exp(mean) * token.error);
    qb_json_put_real(out->extra, "nll_total_nats", s->nll);
}

/* What pairs this row with another over the same windows: sums of equally many neighbours, so that equal
   windows make equal parts. A window that scores nothing is none. */
static void put_sums(const qb_scores *s, qb_json *extra) {
    int64_t used = 0, taken = 0;
    for (int64_t i = 0; i < s->count; i++) used += s->windows[i].tokens > 0;
    if (used == 0) return;
    int64_t each = (used + MAX_SUMS - 1) / MAX_SUMS;
    qb_json *nll = qb_json_array(), *tokens = qb_json_array();
    qb_window_sums sum = {0};
    for (int64_t i = 0; i < s->count; i++) {
        if (s->windows[i].tokens == 0) continue;
        sum.tokens += s->windows[i].tokens;
        sum.nll += s->windows[i].nll;
        if (++taken % each != 0 && taken != used) continue;
        qb_json_push_real(nll, sum.nll);
        qb_json_push_int(tokens, sum.tokens);
        sum = (qb_window_sums){0};
    }
    qb_json_put_int(extra, "windows_per_sum", each);
    qb_json_put(extra, "window_nll_nats", nll);
    qb_json_put(extra, "window_tokens_scored", tokens);
}

qb_status qb_perplexity(qb_model *m, qb_device *dev, const qb_windows *w, int64_t memory_bytes,
                        qb_measure *out) {
    qb_scores scores = {0};
    qb_status st = qb_measure_init(out, "perplexity");
    if (st == QB_OK) st = qb_score(m, dev, w, memory_bytes, &scores);
    if (st != QB_OK) return st;
    reduce(w, &scores, out);
    qb_windows_describe(w, scores.layer_major, out);
    qb_json_put_text(out->extra, "reduction",
                     w->mean == QB_MEAN_OF_WINDOWS ? "mean of window means" : "mean of tokens");
    put_sums(&scores, out->extra);
    qb_scores_free(&scores);
    return QB_OK;
}
