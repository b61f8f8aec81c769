#include "bench/measure/divergence_text.h"

#include "bench/command.h"

#include <math.h>
#include <stdio.h>

static double value_of(const qb_json *row, const char *name, double *error) {
    const qb_json *o = qb_json_get(row, name);
    *error = qb_json_number(qb_json_get(o, "stderr"));
    return qb_json_number(qb_json_get(o, "value"));
}

static void print_estimate(const qb_json *row, const char *what, const char *name, double scale,
                           const char *unit) {
    double error, value = value_of(row, name, &error);
    qb_output("  %-22s %12.6f", what, scale * value);
    if (isfinite(error)) qb_output(" ± %.6f", scale * error);
    qb_output("%s\n", unit);
}

static void print_percentiles(const qb_json *row, const char *name, double scale, const char *unit) {
    for (const qb_json *p = qb_json_first(qb_json_get(row, name)); p; p = qb_json_next(p)) {
        double percent = qb_json_number(qb_json_get(p, "percent"));
        char what[32];
        if (percent == 50)
            snprintf(what, sizeof what, "median");
        else if (percent == 0 || percent == 100)
            snprintf(what, sizeof what, percent == 0 ? "minimum" : "maximum");
        else
            snprintf(what, sizeof what, "%g %%", percent);
        qb_output("  %-22s %12.6f%s\n", what, scale * qb_json_number(qb_json_get(p, "value")), unit);
    }
}

void qb_divergence_print(const qb_row *r) {
    const qb_json *row = r->json; /* what only this reader knows */
    double windows = qb_json_number(qb_json_get(row, "ln_perplexity_ratio_stderr_windows"));
    qb_output("from %s (%s, %s, %.0f windows, %.0f tokens scored", r->base ? r->base : "", r->dataset,
              r->protocol, r->windows, r->scored_tokens);
    if (r->part < 1) qb_output(", %.3g %% of the text", 100 * r->part);
    qb_output(")\nperplexity, means of tokens\n");
    print_estimate(row, "this model", "perplexity", 1, "");
    print_estimate(row, "base", "base_perplexity", 1, "");
    qb_output("  %-22s %12.4f %%\n", "correlation", 100 * qb_json_number(qb_json_get(row, "correlation")));
    print_estimate(row, "ln of the ratio", "ln_perplexity_ratio", 1, "");
    if (isfinite(windows)) qb_output("  %-22s %12s ± %.6f, paired by window\n", "", "", windows);
    print_estimate(row, "ratio", "perplexity_ratio", 1, "");
    print_estimate(row, "difference", "perplexity_difference", 1, "");
    qb_output("Kullback-Leibler divergence, nats\n  %-22s %12.6f ± %.6f\n", "mean", r->value,
              r->stderr_value);
    print_percentiles(row, "kl_percentiles", 1, "");
    qb_output("probability of the true token, this model minus base\n");
    print_estimate(row, "mean", "delta_p", 100, " %");
    print_percentiles(row, "delta_p_percentiles", 100, " %");
    print_estimate(row, "root mean square", "rms_delta_p", 100, " %");
    qb_output("likeliest token\n");
    print_estimate(row, "the same", "same_top", 100, " %");
}
