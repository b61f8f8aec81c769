/* What a model loses against its base, token by token over the same windows: Kullback-Leibler divergence,
   agreement of the most likely token, shift of the true token's probability, ratio of the perplexities. Names
   and formulas are those of llama.cpp's `--kl-divergence` (tools/perplexity), but from exact float32 logits
   of both models: nothing is stored in 16 bits and no token is left out for being unlikely. */
#pragma once

#include "base/statistics.h"
#include "eval/eval.h"

enum { QB_PERCENTILES = 11 };
extern const double
    qb_percentiles[QB_PERCENTILES]; /* 100 (the maximum), 99.9, 99, 95, 90, 50, 10, 5, 1, 0.1, 0 */

/* Standard errors are of tokens taken as independent. */
typedef struct qb_divergence {
    int64_t tokens;
    qb_estimate perplexity, base_perplexity; /* exp of the mean NLL of tokens, whatever the protocol's mean */
    double correlation;                      /* of the NLLs of both, token by token */
    qb_estimate ln_ratio, ratio, difference; /* of perplexity to base_perplexity; errors are paired */
    double ln_ratio_window_error;            /* paired by window; NaN below 8 windows */
    qb_estimate kl;                          /* nats: sum_v p_base (ln p_base - ln p) */
    double kl_percentiles[QB_PERCENTILES];
    qb_estimate delta_p, rms_delta_p; /* of the true token's probability, model minus base */
    double delta_p_percentiles[QB_PERCENTILES];
    qb_estimate same_top; /* share of tokens where both find the same one most likely */
} qb_divergence;

/* One row of logits against another: exact to float64's rounding. target: the token that came. */
typedef struct qb_token_divergence {
    double nll, base_nll, kl, delta_p;
    bool same_top; /* the first of equal largest ones counts */
} qb_token_divergence;
void qb_token_diverge(const float *logits, const float *base, int64_t vocab, int32_t target,
                      qb_token_divergence *out);

/* Sums of tokens in the order of the text. `window` numbers from 0 and does not fall. */
typedef struct qb_divergence_sums qb_divergence_sums;
qb_status qb_divergence_begin(int64_t tokens, qb_divergence_sums **out) QB_NODISCARD;
void qb_divergence_add(qb_divergence_sums *s, const qb_token_divergence *t, int64_t window);
qb_status qb_divergence_end(qb_divergence_sums *s, qb_divergence *out) QB_NODISCARD; /* once all are added */
void qb_divergence_free(qb_divergence_sums *s);

/* What both models take together: all weights held where they fit with their work into memory_bytes (0: 80 %
   of what is free), else both block by block, each with half of it. */
qb_status qb_divergence_plan_make(const qb_model *m, const qb_model *base, const qb_windows *w,
                                  int64_t memory_bytes, qb_perplexity_plan *out) QB_NODISCARD;
/* Both models loaded, on devices of any kind; their vocabularies are of one size (QB_ERR_USAGE else) and the
   windows' ids mean the same to both, which is the caller's to check. Each gets half of memory_bytes (0: 80 %
   of what is free). Row kl_divergence, everything else in its extra. */
qb_status qb_divergence_measure(qb_model *m, qb_model *base, const qb_windows *w, int64_t memory_bytes,
                                qb_measure *out) QB_NODISCARD;
