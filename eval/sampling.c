#include "eval/sampling.h"

#include "base/significance.h"
#include "base/statistics.h"
#include "eval/disturbance.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The halves' medians differ by chance about as much as the interval is wide; twice that is a drift. */
static const double confidence = 0.95, drift_allowance = 2;
/* Beyond the wanted precision, and beyond these, a row is noisy. Deviation: of few samples without interval.
 */
static const double noisy_half_width = 0.05, noisy_deviation = 0.10;

static double median_or_nan(const double *x, int n) {
    return n > 0 ? qb_median(x, n) : (double)NAN;
}

static int enough_of(const qb_sampling_rule *rule) {
    return rule->enough > 0 ? rule->enough : QB_SAMPLING_ENOUGH;
}

/* Undisturbed samples first, then disturbed ones where the former do not suffice. */
static void choose_samples(const qb_sampling *s, const qb_sampling_rule *rule, qb_sampling_verdict *v) {
    int wanted = rule->exactly > 0 ? (int)rule->exactly : enough_of(rule);
    for (int i = 0; i < s->n; i++) v->n_clean += !s->marks[i];
    v->all_used = v->n_clean < wanted && v->n_clean < s->n;
    for (int marked = 0; marked <= (int)v->all_used; marked++)
        for (int i = 0; i < s->n; i++) {
            if ((s->marks[i] != 0) != (marked != 0)) continue;
            if (rule->exactly > 0 && v->n >= rule->exactly) return;
            v->samples[v->n++] = s->values[i];
        }
}

/* Of a round the undisturbed samples, or all where it has none. */
void qb_sampling_close_round(qb_sampling *s, int from) {
    double values[QB_SAMPLES_MAX];
    int n = 0;
    for (int marked = 0; marked < 2 && n == 0; marked++)
        for (int i = from; i < s->n; i++)
            if (marked || !s->marks[i]) values[n++] = s->values[i];
    if (n > 0 && s->n_rounds < QB_ROUNDS_MAX) s->round_medians[s->n_rounds++] = qb_median(values, n);
}

static double round_spread(const qb_sampling *s) {
    double least = INFINITY, most = 0;
    for (int i = 0; i < s->n_rounds; i++) {
        least = fmin(least, s->round_medians[i]);
        most = fmax(most, s->round_medians[i]);
    }
    return s->n_rounds > 1 && least > 0 ? most / least - 1 : 0;
}

static void judge_noise(const qb_sampling *s, const qb_sampling_rule *rule, qb_sampling_verdict *v) {
    double sd = qb_stddev(v->samples, v->n) / fabs(v->median);
    double width = fmax(noisy_half_width, rule->precision);
    if (2 * (v->n < v->n_clean ? 0 : v->n - v->n_clean) > v->n) {
        unsigned bits = 0;
        for (int i = 0; i < s->n; i++) bits |= s->marks[i];
        snprintf(v->why, sizeof v->why, "%d of %d samples were disturbed: %s", s->n - v->n_clean, s->n,
                 qb_disturbance_words(bits));
    } else if (v->half_width > width) {
        snprintf(v->why, sizeof v->why, "the median is known to ± %.0f %% only", 100 * v->half_width);
    } else if (fabs(v->drift) > drift_allowance * width) {
        snprintf(v->why, sizeof v->why, "later samples differ by %+.0f %% from earlier ones", 100 * v->drift);
    } else if (v->round_spread > drift_allowance * width) {
        snprintf(v->why, sizeof v->why, "rounds differ by %.0f %%", 100 * v->round_spread);
    } else if (isnan(v->half_width) && sd > noisy_deviation) {
        snprintf(v->why, sizeof v->why, "%d samples deviate by %.0f %%", v->n, 100 * sd);
    }
    v->noisy = v->why[0] != 0;
}

void qb_sampling_judge(const qb_sampling *s, const qb_sampling_rule *rule, qb_sampling_verdict *v) {
    *v = (qb_sampling_verdict){.half_width = (double)NAN, .drift = (double)NAN};
    choose_samples(s, rule, v);
    v->median = median_or_nan(v->samples, v->n);
    qb_median_interval(v->samples, v->n, confidence, &v->low, &v->high);
    v->half_width = fmax(v->high - v->median, v->median - v->low) / fabs(v->median);
    if (isnan(v->low)) v->half_width = (double)NAN; /* fmax passes over a NaN */
    int half = v->n / 2;
    if (!isnan(v->half_width) && !v->all_used) /* else they do not stand in their order */
        v->drift = median_or_nan(v->samples + v->n - half, half) / median_or_nan(v->samples, half) - 1;
    v->round_spread = round_spread(s);
    v->reached = !v->all_used && v->half_width <= rule->precision &&
                 !(fabs(v->drift) > drift_allowance * rule->precision) &&
                 !(v->round_spread > drift_allowance * rule->precision);
    judge_noise(s, rule, v);
}

/* Whether the samples suffice; *stop says why. */
static bool is_over(const qb_sampling *s, const qb_sampling_rule *rule, int taken, qb_sampling_stop *stop) {
    int clean = 0;
    *stop = QB_STOPPED_COUNT;
    if (s->n >= QB_SAMPLES_MAX) return true;
    for (int i = 0; i < s->n; i++) clean += !s->marks[i];
    /* A disturbed one is taken again, but not for ever. */
    if (rule->exactly > 0) return clean >= rule->exactly || s->n >= 2 * rule->exactly;
    if (taken < rule->least) return false;
    if (clean >= enough_of(rule) && taken >= rule->balance) {
        qb_sampling_verdict v;
        qb_sampling_judge(s, rule, &v);
        *stop = QB_STOPPED_PRECISION;
        if (v.reached) return true;
    }
    *stop = QB_STOPPED_BUDGET;
    return s->seconds >= rule->budget_s;
}

qb_status qb_sampling_run(const qb_sampling_rule *rule, qb_sample_fn sample, void *ctx, qb_sampling *s) {
    for (int taken = 0; !is_over(s, rule, taken, &s->stop); taken++) {
        qb_sample one = {0};
        qb_status st = sample(ctx, &one);
        if (st != QB_OK) return st;
        s->values[s->n] = one.value;
        s->marks[s->n++] = one.disturbed;
        s->seconds += one.seconds;
    }
    return QB_OK;
}

void qb_sampling_invert(qb_sampling *s, double amount) {
    for (int i = 0; i < s->n; i++) s->values[i] = amount / s->values[i];
    for (int i = 0; i < s->n_rounds; i++) s->round_medians[i] = amount / s->round_medians[i];
}

/* ---- as a row ---- */

static const char *const stop_names[] = {"precision", "budget", "count"};

/* Their values, and how many had which cause: one may have several. */
static void put_disturbed(const qb_sampling *s, bool used, qb_json *extra) {
    qb_json *values = qb_json_array(), *causes = qb_json_object();
    for (int i = 0; i < s->n; i++)
        if (s->marks[i]) qb_json_push_real(values, s->values[i]);
    for (unsigned bit = 1; bit < 1u << QB_DISTURBANCES; bit <<= 1) {
        int count = 0;
        for (int i = 0; i < s->n; i++) count += (s->marks[i] & bit) != 0;
        if (count) qb_json_put_int(causes, qb_disturbance_key(bit), count);
    }
    qb_json_put(extra, "disturbed", values);
    qb_json_put(extra, "disturbed_by", causes);
    qb_json_put_bool(extra, "disturbed_used", used);
}

void qb_sampling_put(const qb_sampling *s, const qb_sampling_rule *rule, qb_measure *row) {
    qb_sampling_verdict v;
    qb_sampling_judge(s, rule, &v);
    double least = (double)NAN, most = (double)NAN, sd = qb_stddev(v.samples, v.n);
    for (int i = 0; i < v.n; i++) {
        row->samples[i] = v.samples[i];
        least = fmin(least, v.samples[i]);
        most = fmax(most, v.samples[i]);
    }
    row->n = row->n_samples = v.n;
    row->value = v.median;
    row->stderr_value = sd / sqrt(v.n);
    qb_json *e = row->extra;
    qb_json_put_real(e, "mean", qb_mean_of(v.samples, v.n));
    qb_json_put_real(e, "sd", sd);
    qb_json_put_real(e, "min", least);
    qb_json_put_real(e, "max", most);
    qb_json_put_real(e, "median_low", v.low);
    qb_json_put_real(e, "median_high", v.high);
    qb_json_put_real(e, "confidence", confidence);
    qb_json_put_real(e, "half_width", v.half_width);
    qb_json_put_real(e, "drift", v.drift);
    qb_json_put_real(e, "precision", rule->precision);
    qb_json_put_bool(e, "reached", v.reached);
    qb_json_put_text(e, "stopped", stop_names[s->stop]);
    qb_json_put_bool(e, "noisy", v.noisy);
    qb_json_put_text(e, "noise", v.noisy ? v.why : NULL);
    qb_json_put_real(e, "sampled_s", s->seconds);
    put_disturbed(s, v.all_used, e);
    if (!s->n_rounds) return;
    qb_json *medians = qb_json_array();
    for (int i = 0; i < s->n_rounds; i++) qb_json_push_real(medians, s->round_medians[i]);
    qb_json_put(e, "round_medians", medians);
}

bool qb_sampling_take_up(const qb_json *row, qb_sampling *out) {
    *out = (qb_sampling){0};
    const qb_json *samples = qb_json_get(row, "samples"), *disturbed = qb_json_get(row, "disturbed");
    unsigned causes = 0; /* which sample had which is not kept */
    double seconds = qb_json_number(qb_json_get(row, "sampled_s"));
    if (!(seconds >= 0)) return false;
    for (unsigned bit = 1; bit < 1u << QB_DISTURBANCES; bit <<= 1)
        if (qb_json_get(qb_json_get(row, "disturbed_by"), qb_disturbance_key(bit))) causes |= bit;
    int64_t clean = qb_json_count(samples);
    if (qb_json_true(qb_json_get(row, "disturbed_used"))) clean -= qb_json_count(disturbed);
    for (const qb_json *v = qb_json_first(samples); v && clean > 0 && out->n < QB_SAMPLES_MAX;
         v = qb_json_next(v), clean--)
        out->values[out->n++] = qb_json_number(v);
    for (const qb_json *v = qb_json_first(disturbed); v && out->n < QB_SAMPLES_MAX; v = qb_json_next(v)) {
        out->values[out->n] = qb_json_number(v);
        out->marks[out->n++] = causes;
    }
    for (const qb_json *m = qb_json_first(qb_json_get(row, "round_medians"));
         m && out->n_rounds < QB_ROUNDS_MAX; m = qb_json_next(m))
        out->round_medians[out->n_rounds++] = qb_json_number(m);
    out->seconds = seconds;
    return true;
}
