/* The divergence of a model from its base: the arithmetic against numpy's
 * (tools/record_divergence_golden.py), and the program's rows against its own perplexities. */
#include "tests/program.h"

#include "eval/divergence.h"

#include <math.h>
#include <unistd.h>

static const qb_json *item(const qb_json *array, int64_t i) {
    const qb_json *j = qb_json_first(array);
    while (j && i-- > 0) j = qb_json_next(j);
    return j;
}

static double number(const qb_json *j, const char *key, int64_t i) {
    const qb_json *value = qb_json_get(j, key);
    return qb_json_number(qb_json_is_array(value) ? item(value, i) : value);
}

static void near(double got, double expected, const char *what) {
    if (!(fabs(got - expected) <= 1e-11 * fmax(1, fabs(expected))))
        fail_msg("%s: expected %.17g, found %.17g", what, expected, got);
}

static void check_estimate(qb_estimate e, const qb_json *golden, const char *key) {
    near(e.value, number(golden, key, 0), key);
    near(e.error, number(golden, key, 1), key);
}

static float *floats(const qb_json *golden, const char *key) {
    const qb_json *array = qb_json_get(golden, key);
    float *x;
    assert_ok(qb_alloc((size_t)qb_json_count(array), sizeof *x, &x));
    int64_t i = 0;
    for (const qb_json *v = qb_json_first(array); v; v = qb_json_next(v)) x[i++] = (float)qb_json_number(v);
    return x;
}

static void test_divergence__equals_numpy(void **state) {
    (void)state;
    qb_json *g;
    qb_divergence_sums *sums;
    qb_divergence d;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/divergence.json", 1 << 20, &g));
    int64_t vocab = (int64_t)number(g, "vocab", 0), n = qb_json_count(qb_json_get(g, "target")),
            each = n / (int64_t)number(g, "windows", 0);
    float *base = floats(g, "base"), *model = floats(g, "model");
    assert_ok(qb_divergence_begin(n, &sums));
    for (int64_t i = 0; i < n; i++) {
        qb_token_divergence t;
        qb_token_diverge(model + i * vocab, base + i * vocab, vocab, (int32_t)number(g, "target", i), &t);
        near(t.kl, number(g, "kl", i), "kl");
        near(t.nll, number(g, "nll", i), "nll");
        near(t.base_nll, number(g, "base_nll", i), "base_nll");
        near(t.delta_p, number(g, "delta_p", i), "delta_p");
        assert_int_equal(t.same_top, qb_json_true(item(qb_json_get(g, "same_top"), i)));
        qb_divergence_add(sums, &t, i / each);
    }
    assert_ok(qb_divergence_end(sums, &d));
    assert_int_equal(d.tokens, n);
    check_estimate(d.perplexity, g, "perplexity");
    check_estimate(d.base_perplexity, g, "base_perplexity");
    near(d.correlation, number(g, "correlation", 0), "correlation");
    check_estimate(d.ln_ratio, g, "ln_ratio");
    near(d.ln_ratio_window_error, number(g, "ln_ratio_window_error", 0), "ln_ratio_window_error");
    near(d.ratio.value, d.perplexity.value / d.base_perplexity.value, "ratio");
    check_estimate(d.difference, g, "difference");
    check_estimate(d.kl, g, "mean_kl");
    check_estimate(d.delta_p, g, "mean_delta_p");
    check_estimate(d.rms_delta_p, g, "rms_delta_p");
    check_estimate(d.same_top, g, "same_share");
    for (int i = 0; i < QB_PERCENTILES; i++) {
        near(d.kl_percentiles[i], number(g, "kl_percentiles", i), "kl_percentiles");
        near(d.delta_p_percentiles[i], number(g, "delta_p_percentiles", i), "delta_p_percentiles");
    }
    qb_divergence_free(sums);
    /* A token that was announced and never came is an error, not a smaller mean. */
    assert_ok(qb_divergence_begin(2, &sums));
    qb_divergence_add(sums, &(qb_token_divergence){1, 1, 0, 0, true}, 0);
    assert_fails(qb_divergence_end(sums, &d), QB_ERR_INTERNAL, "1 of 2");
    qb_divergence_free(sums);
    qb_free(base);
    qb_free(model);
    qb_json_free(g);
}

/* The row of `bench eval ... --base demo --json`. */
static qb_json *row_of(const char *memory_gb, const char *model, const char *base, const char *metric) {
    outcome o =
        BENCH("eval", model, base ? "--base" : "-q", base ? base : "-q", "--dataset", "demo", "--protocol",
              "llamacpp-256", "--max-windows", "10", "--memory-gb", memory_gb, "--json");
    assert_worked(&o);
    qb_json *doc = json_of(&o);
    const qb_json *row = qb_json_first(qb_json_get(qb_json_first(qb_json_get(doc, "cases")), "metrics"));
    assert_string_equal(qb_json_string(qb_json_get(row, "name")), metric);
    qb_json *copy = qb_json_copy(row);
    qb_json_free(doc);
    outcome_free(&o);
    return copy;
}

static void test_divergence__of_a_quantized_model(void **state) {
    (void)state;
    char model[1200];
    snprintf(model, sizeof model, "%s", scratch_path("w3"));
    outcome o =
        BENCH("quantize", "demo", "--method", "rtn", "--bits", "3", "--group-size", "32", "-o", model);
    assert_worked(&o);
    outcome_free(&o);
    qb_json *row = row_of("0", model, "demo", "kl_divergence"), *own = row_of("0", model, NULL, "perplexity"),
            *base = row_of("0", "demo", NULL, "perplexity");
    /* llamacpp's perplexity is the mean of tokens, as the divergence's is. */
    near(qb_json_number(qb_json_get(qb_json_get(row, "perplexity"), "value")) / number(own, "value", 0), 1,
         "model");
    near(qb_json_number(qb_json_get(qb_json_get(row, "perplexity"), "stderr")) / number(own, "stderr", 0), 1,
         "error");
    near(qb_json_number(qb_json_get(qb_json_get(row, "base_perplexity"), "value")) / number(base, "value", 0),
         1, "base");
    double kl = number(row, "value", 0);
    assert_true(kl > 0.001 && kl < 1);
    assert_true(number(row, "stderr", 0) > 0);
    assert_string_equal(qb_json_string(qb_json_get(row, "base")), "demo");
    /* Layer by layer both models give the same bits. */
    qb_json *layers = row_of("0.003", model, "demo", "kl_divergence");
    assert_true(number(layers, "value", 0) == kl);
    assert_true(qb_json_true(qb_json_get(layers, "layer_major")));
    assert_false(qb_json_true(qb_json_get(row, "layer_major")));
    /* From itself it has none. */
    qb_json *self = row_of("0", "demo", "demo", "kl_divergence");
    assert_true(number(self, "value", 0) == 0);
    assert_true(qb_json_number(qb_json_get(qb_json_get(self, "same_top"), "value")) == 1);
    o = BENCH("eval", model, "--base", "demo", "--max-windows", "10", "--dataset", "demo");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "Kullback-Leibler divergence, nats"));
    assert_non_null(strstr(o.out, "paired by window"));
    outcome_free(&o);
    qb_json_free(self);
    qb_json_free(layers);
    qb_json_free(row);
    qb_json_free(own);
    qb_json_free(base);
}

/* The demo with a tokenizer that makes other ids: capitals become small letters first. */
static void make_other(const char *dir) {
    static const char *const files[] = {"config.json", "model.safetensors"};
    char from[1300], to[1300], *text;
    qb_json *tokenizer, *lower = qb_json_object();
    assert_ok(qb_make_dirs(dir));
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(from, sizeof from, QB_SOURCE_DIR "/bench/demo/%s", files[i]);
        snprintf(to, sizeof to, "%s/%s", dir, files[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    assert_ok(qb_json_read(QB_SOURCE_DIR "/bench/demo/tokenizer.json", 1 << 24, &tokenizer));
    qb_json_put_text(lower, "type", "Lowercase");
    qb_json_put(tokenizer, "normalizer", lower);
    assert_ok(qb_json_print(tokenizer, false, &text));
    snprintf(to, sizeof to, "%s/tokenizer.json", dir);
    assert_ok(qb_file_write_atomic(to, text, strlen(text)));
    qb_free(text);
    qb_json_free(tokenizer);
}

static void test_divergence__refuses_what_reads_other_ids(void **state) {
    (void)state;
    char other[1200];
    snprintf(other, sizeof other, "%s", scratch_path("other"));
    make_other(other);
    assert_refused(BENCH("eval", "demo", "--dataset", "demo", "--base", other), 2, "other ids");
    assert_refused(
        BENCH("eval", "demo", "--base", QB_SOURCE_DIR "/tests/golden/families/qwen2", "--dataset", "demo"), 1,
        "tokenizer");
    assert_refused(BENCH("eval", "demo", "--base", "demo", "--card"), 2, "--card");
    assert_refused(BENCH("eval", "demo", "--dataset", "demo", "--base", scratch_path("absent")), 1, "absent");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_divergence__equals_numpy),
        cmocka_unit_test(test_divergence__of_a_quantized_model),
        cmocka_unit_test(test_divergence__refuses_what_reads_other_ids),
    };
    scratch = scratch_make();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove(scratch);
    return failed;
}
