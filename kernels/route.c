/* Routing: which experts compute which tokens, and with what weight. Scores are float64, so that no two
   logits that differ tie by rounding; ties go to the smaller expert. */
#include "base/memory.h"
#include "kernels/step.h"

#include <math.h>
#include <string.h>

struct qb_routing_work {
    double *score, *value; /* [experts]: what the choice looks at, what the weights are made of */
    double *kept;          /* [top_k] of one token, in the order of choice */
    int32_t *chosen;       /* [tokens][top_k], in ascending order behind sort_choice */
    float *weight;         /* [tokens][top_k] */
};

void qb_routing_free(qb_routing *r) {
    if (!r) return;
    if (r->work) {
        qb_free(r->work->score), qb_free(r->work->value), qb_free(r->work->kept);
        qb_free(r->work->chosen), qb_free(r->work->weight);
        qb_free(r->work);
    }
    qb_free(r->first), qb_free(r->token), qb_free(r->weight), qb_free(r->row);
    *r = (qb_routing){0};
}

qb_status qb_routing_create(int64_t tokens, int64_t top_k, int64_t experts, qb_routing *out) {
    *out = (qb_routing){.capacity = tokens * top_k, .top_k = top_k, .experts = experts};
    if (tokens < 0 || top_k < 1 || experts < top_k || tokens > INT32_MAX / top_k)
        return qb_fail(QB_ERR_INTERNAL, "routing of %lld tokens to %lld of %lld experts", (long long)tokens,
                       (long long)top_k, (long long)experts);
    size_t rows = (size_t)out->capacity;
    qb_status st;
    QB_TRY(st, qb_alloc_zero(1, sizeof *out->work, &out->work));
    QB_TRY(st, qb_alloc((size_t)experts, sizeof(double), &out->work->score));
    QB_TRY(st, qb_alloc((size_t)experts, sizeof(double), &out->work->value));
    QB_TRY(st, qb_alloc((size_t)top_k, sizeof(double), &out->work->kept));
    QB_TRY(st, qb_alloc(rows, sizeof(int32_t), &out->work->chosen));
    QB_TRY(st, qb_alloc(rows, sizeof(float), &out->work->weight));
    QB_TRY(st, qb_alloc_zero((size_t)experts + 1, sizeof *out->first, &out->first));
    QB_TRY(st, qb_alloc(rows, sizeof *out->token, &out->token));
    QB_TRY(st, qb_alloc(rows, sizeof *out->weight, &out->weight));
    QB_TRY(st, qb_alloc(rows, sizeof *out->row, &out->row));
out:
    if (st != QB_OK) qb_routing_free(out);
    return st;
}

static double largest_of(const double *x, int64_t n) {
    double m = -INFINITY;
    for (int64_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* The first of the largest; -1 when all are -infinity. */
static int64_t best_of(const double *x, int64_t n) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
        if (x[i] > (best < 0 ? -INFINITY : x[best])) best = i;
    return best;
}

static void softmax(double *x, int64_t n) {
    double m = largest_of(x, n), sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] = exp(x[i] - m);
    for (int64_t i = 0; i < n; i++) x[i] /= sum;
}

/* All but the best keep_groups groups, each judged by its largest score, leave the choice. */
static void limit_groups(const qb_route_attr *a, double *score) {
    int64_t size = a->experts / a->groups;
    for (int64_t drop = a->groups - a->keep_groups; drop > 0; drop--) {
        int64_t worst = -1;
        double least = INFINITY;
        for (int64_t g = 0; g < a->groups; g++) { /* the last of equals falls first */
            double m = largest_of(score + g * size, size);
            if (m > -INFINITY && m <= least) worst = g, least = m;
        }
        for (int64_t i = 0; worst >= 0 && i < size; i++) score[worst * size + i] = -INFINITY;
    }
}

/* Mixtral, Qwen, DeepSeek, gpt-oss, Llama 4: score, choose, weigh. */
static void choose(const qb_route_attr *a, const float *logits, const float *bias, struct qb_routing_work *w,
                   int32_t *chosen) {
    int64_t n = a->experts;
    for (int64_t e = 0; e < n; e++) w->value[e] = (double)logits[e];
    if (a->kind == QB_ROUTER_SOFTMAX) softmax(w->value, n);
    if (a->kind == QB_ROUTER_SIGMOID)
        for (int64_t e = 0; e < n; e++) w->value[e] = 1 / (1 + exp(-w->value[e]));
    /* Softmax and sigmoid keep the order, so without a bias the logits choose, and nothing saturates. */
    for (int64_t e = 0; e < n; e++) w->score[e] = bias ? w->value[e] + (double)bias[e] : (double)logits[e];
    if (a->groups > 0) limit_groups(a, w->score);
    for (int64_t k = 0; k < a->top_k; k++) {
        int64_t e = best_of(w->score, n);
        chosen[k] = (int32_t)e, w->kept[k] = w->value[e];
        w->score[e] = -INFINITY;
    }
    if (a->kind == QB_ROUTER_SOFTMAX_TOPK) softmax(w->kept, a->top_k);
}

/* Phi-3.5-MoE: each round takes the best expert, and weighs it by a softmax over the logits near it. The
   second round's softmax leaves the first winner out (transformers, models/phimoe). */
static void choose_sparsemixer(const qb_route_attr *a, const float *logits, struct qb_routing_work *w,
                               int32_t *chosen) {
    int64_t n = a->experts;
    for (int64_t e = 0; e < n; e++) w->score[e] = (double)logits[e];
    for (int64_t k = 0; k < a->top_k; k++) {
        int64_t e = best_of(w->score, n);
        double m = w->score[e], sum = 0;
        for (int64_t i = 0; i < n; i++) {
            double factor = fmax(fabs((double)logits[i]), m);
            bool far = (m - w->score[i]) / factor > 2.0 * (double)a->jitter;
            if (w->score[i] > -INFINITY && !far) sum += exp(w->score[i] - m);
        }
        chosen[k] = (int32_t)e, w->kept[k] = 1 / sum;
        w->score[e] = -INFINITY;
    }
}

static void finish_weights(const qb_route_attr *a, double *kept) {
    double sum = 0;
    for (int64_t k = 0; k < a->top_k; k++) sum += kept[k];
    for (int64_t k = 0; k < a->top_k; k++) {
        if (a->normalise && sum > 0) kept[k] /= sum;
        kept[k] *= (double)a->scale;
    }
}

/* Experts ascending, weights with them. */
static void sort_choice(int64_t n, int32_t *chosen, double *kept) {
    for (int64_t i = 1; i < n; i++)
        for (int64_t j = i; j > 0 && chosen[j - 1] > chosen[j]; j--) {
            int32_t expert = chosen[j];
            double weight = kept[j];
            chosen[j] = chosen[j - 1], kept[j] = kept[j - 1];
            chosen[j - 1] = expert, kept[j - 1] = weight;
        }
}

static qb_status check_logits(const float *logits, const float *bias, int64_t T, int64_t experts) {
    for (int64_t i = 0; i < T * experts; i++)
        if (!isfinite(logits[i]))
            return qb_fail(QB_ERR_NUMERIC, "router logit of expert %lld is %s at token %lld of %lld",
                           (long long)(i % experts), isnan(logits[i]) ? "NaN" : "infinite",
                           (long long)(i / experts), (long long)T);
    for (int64_t e = 0; bias && e < experts; e++)
        if (!isfinite(bias[e]))
            return qb_fail(QB_ERR_NUMERIC, "router bias of expert %lld is not finite", (long long)e);
    return QB_OK;
}

/* Chosen experts to rows sorted by expert and, within one, by token. */
static void lay_rows(int64_t T, qb_routing *out) {
    int64_t k = out->top_k, *first = out->first;
    memset(first, 0, ((size_t)out->experts + 1) * sizeof *first);
    for (int64_t i = 0; i < T * k; i++) first[out->work->chosen[i] + 1]++;
    for (int64_t e = 0; e < out->experts; e++) first[e + 1] += first[e];
    for (int64_t i = 0; i < T * k; i++) { /* first[e] walks through e's rows, up to where e + 1 begins */
        int64_t row = first[out->work->chosen[i]]++;
        out->token[row] = (int32_t)(i / k);
        out->weight[row] = out->work->weight[i];
        out->row[i] = (int32_t)row;
    }
    for (int64_t e = out->experts; e > 0; e--) first[e] = first[e - 1];
    first[0] = 0;
    out->rows = T * k;
}

qb_status qb_route(const qb_route_attr *a, const float *logits, const float *bias, int64_t T,
                   qb_routing *out) {
    if (!out->work || out->experts != a->experts || out->top_k != a->top_k || T * a->top_k > out->capacity)
        return qb_fail(
            QB_ERR_INTERNAL,
            "%lld tokens to %lld of %lld experts do not fit a routing of %lld rows to %lld of %lld",
            (long long)T, (long long)a->top_k, (long long)a->experts, (long long)out->capacity,
            (long long)out->top_k, (long long)out->experts);
    qb_status st = check_logits(logits, bias, T, a->experts);
    if (st != QB_OK) return st;
    struct qb_routing_work *w = out->work;
    for (int64_t t = 0; t < T; t++) {
        int32_t *chosen = w->chosen + t * a->top_k;
        if (a->kind == QB_ROUTER_SPARSEMIXER)
            choose_sparsemixer(a, logits + t * a->experts, w, chosen);
        else
            choose(a, logits + t * a->experts, bias, w, chosen);
        finish_weights(a, w->kept);
        sort_choice(a->top_k, chosen, w->kept);
        for (int64_t k = 0; k < a->top_k; k++) w->weight[t * a->top_k + k] = (float)w->kept[k];
    }
    lay_rows(T, out);
    return QB_OK;
}
