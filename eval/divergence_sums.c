/* The arithmetic of a divergence: one token, and what many tokens come to. */
#include "base/memory.h"
#include "eval/divergence.h"

#include <math.h>

const double qb_percentiles[QB_PERCENTILES] = {100, 99.9, 99, 95, 90, 50, 10, 5, 1, 0.1, 0};

typedef struct {
    float largest;
    int64_t at;
    double ln_sum; /* of exp(logit), exact shift included */
} normalizer;

static normalizer normalize(const float *x, int64_t n) {
    normalizer z = {x[0], 0, 0};
    for (int64_t i = 1; i < n; i++)
        if (x[i] > z.largest) {
            z.largest = x[i];
            z.at = i;
        }
    double sum = exp((double)x[0] - (double)z.largest);
    for (int64_t i = 1; i < n; i++) sum += exp((double)x[i] - (double)z.largest);
    z.ln_sum = (double)z.largest + log(sum);
    return z;
}

void qb_token_diverge(const float *logits, const float *base, int64_t vocab, int32_t target,
                      qb_token_divergence *out) {
    normalizer q = normalize(logits, vocab), p = normalize(base, vocab);
    double kl = 0;
    for (int64_t i = 0; i < vocab; i++) {
        double ln_p = (double)base[i] - p.ln_sum;
        kl += exp(ln_p) * (ln_p - ((double)logits[i] - q.ln_sum));
    }
    out->nll = q.ln_sum - (double)logits[target];
    out->base_nll = p.ln_sum - (double)base[target];
    out->kl = kl;
    out->delta_p = exp(-out->nll) - exp(-out->base_nll);
    out->same_top = q.at == p.at;
}

struct qb_divergence_sums {
    int64_t n, capacity;
    double *kl, *delta_p; /* [capacity], for the percentiles */
    double nll, nll2, base, base2, cross, kl1, kl2, dp1, dp2, dp4;
    int64_t same_top;
    int64_t window, in_window; /* the one that tokens are added to */
    double window_difference;
    double windows, mean1, mean2; /* of windows' mean differences */
};

qb_status qb_divergence_begin(int64_t tokens, qb_divergence_sums **out) {
    qb_divergence_sums *s;
    qb_status st = qb_alloc_zero(1, sizeof *s, &s);
    *out = s;
    if (st != QB_OK) return st;
    s->capacity = tokens;
    st = qb_alloc((size_t)tokens, sizeof *s->kl, &s->kl);
    return st == QB_OK ? qb_alloc((size_t)tokens, sizeof *s->delta_p, &s->delta_p) : st;
}

static void close_window(qb_divergence_sums *s) {
    if (!s->in_window) return;
    double mean = s->window_difference / (double)s->in_window;
    s->windows += 1;
    s->mean1 += mean;
    s->mean2 += mean * mean;
    s->window_difference = 0;
    s->in_window = 0;
}

void qb_divergence_add(qb_divergence_sums *s, const qb_token_divergence *t, int64_t window) {
    if (s->n == s->capacity) return; /* told by qb_divergence_end */
    if (window != s->window) close_window(s);
    s->window = window;
    s->in_window++;
    s->window_difference += t->nll - t->base_nll;
    s->kl[s->n] = t->kl;
    s->delta_p[s->n++] = t->delta_p;
    double dp2 = t->delta_p * t->delta_p;
    s->nll += t->nll;
    s->nll2 += t->nll * t->nll;
    s->base += t->base_nll;
    s->base2 += t->base_nll * t->base_nll;
    s->cross += t->nll * t->base_nll;
    s->kl1 += t->kl;
    s->kl2 += t->kl * t->kl;
    s->dp1 += t->delta_p;
    s->dp2 += dp2;
    s->dp4 += dp2 * dp2;
    s->same_top += t->same_top;
}

/* Between the two nearest of the sorted values. */
static void percentiles(double *values, int64_t n, double *out) {
    qb_sort(values, n);
    for (int i = 0; i < QB_PERCENTILES; i++) {
        double at = qb_percentiles[i] / 100 * (double)(n - 1);
        int64_t below = (int64_t)at, above = below + 1 < n ? below + 1 : n - 1;
        double part = at - (double)below;
        out[i] = (1 - part) * values[below] + part * values[above];
    }
}

qb_status qb_divergence_end(qb_divergence_sums *s, qb_divergence *out) {
    double n = (double)s->n;
    if (s->n == 0 || s->n != s->capacity)
        return qb_fail(QB_ERR_INTERNAL, "%lld of %lld tokens were compared", (long long)s->n,
                       (long long)s->capacity);
    close_window(s);
    *out = (qb_divergence){.tokens = s->n};
    qb_estimate q = qb_estimate_of(s->nll, s->nll2, n), p = qb_estimate_of(s->base, s->base2, n);
    /* of the two means */
    double covariance = n > 1 ? (s->cross / n - q.value * p.value) / (n - 1) : (double)NAN;
    double ppl = exp(q.value), base = exp(p.value), ratio = exp(q.value - p.value);
    double var_q = q.error * q.error, var_p = p.error * p.error;
    double ln_error = sqrt(fmax(var_q + var_p - 2 * covariance, 0));
    out->perplexity = (qb_estimate){ppl, ppl * q.error};
    out->base_perplexity = (qb_estimate){base, base * p.error};
    out->correlation = covariance / (q.error * p.error);
    out->ln_ratio = (qb_estimate){q.value - p.value, ln_error};
    out->ratio = (qb_estimate){ratio, ratio * ln_error};
    out->difference = (qb_estimate){
        ppl - base, sqrt(fmax(ppl * ppl * var_q + base * base * var_p - 2 * ppl * base * covariance, 0))};
    out->ln_ratio_window_error =
        s->windows >= QB_MIN_WINDOWS ? qb_estimate_of(s->mean1, s->mean2, s->windows).error : (double)NAN;
    out->kl = qb_estimate_of(s->kl1, s->kl2, n);
    out->delta_p = qb_estimate_of(s->dp1, s->dp2, n);
    qb_estimate square = qb_estimate_of(s->dp2, s->dp4, n);
    double rms = sqrt(square.value);
    out->rms_delta_p = (qb_estimate){rms, rms > 0 ? 0.5 / rms * square.error : 0};
    double same = (double)s->same_top / n;
    out->same_top = (qb_estimate){same, n > 1 ? sqrt(same * (1 - same) / (n - 1)) : (double)NAN};
    percentiles(s->kl, s->n, out->kl_percentiles);
    percentiles(s->delta_p, s->n, out->delta_p_percentiles);
    return QB_OK;
}

void qb_divergence_free(qb_divergence_sums *s) {
    if (!s) return;
    qb_free(s->kl);
    qb_free(s->delta_p);
    qb_free(s);
}
