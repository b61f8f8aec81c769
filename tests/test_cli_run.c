/* bench run as a user meets it, on a tiny model of random weights, so that no data is needed. */
#include "tests/tiny_model.h"

#include "base/lock.h"

static const char four_methods[] =
    "{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":[4,3],\"group_size\":32},"
    "{\"method\":\"gptq\",\"group_size\":32,\"samples\":2,\"seqlen\":32}";

/* Nothing, but that the machine was busy with something else at one end of the run and not at the other. */
static void assert_quiet(const char *err) {
    const char *line_end = strchr(err, '\n');
    bool drift = strstr(err, "warning: ") == err && strstr(err, "did not hold still during the run");
    if (*err && !(drift && line_end && !line_end[1])) fail_msg("\"%s\" was said", err);
}

static void test_cli_run__every_case_is_measured(void **state) {
    (void)state;
    write_suite("all.json", four_methods, "\"perplexity\",\"speed\",\"memory\",\"determinism\"", "");
    char *suite = scratch_path("all.json"), *out = scratch_path("all-result.json");
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out, "--json", "--quiet");
    assert_worked(&o);
    assert_quiet(o.err);
    qb_json *printed = json_of(&o);
    assert_ok(qb_results_validate(printed, "standard output"));
    qb_json_free(printed);
    outcome_free(&o);
    qb_results r = opened(out);
    assert_int_equal(qb_json_count(qb_json_get(r.doc, "cases")), 4);
    for (const qb_json *c = qb_json_first(qb_json_get(r.doc, "cases")); c; c = qb_json_next(c)) {
        assert_string_equal(qb_json_string(qb_json_get(c, "status")), "ok");
        const qb_json *perplexity = qb_results_metric(c, "perplexity", "gptq-64", "wikitext2");
        assert_string_equal(qb_json_string(qb_json_get(perplexity, "status")), "skipped");
        assert_non_null(strstr(qb_json_string(qb_json_get(perplexity, "error")), "random"));
        assert_true(qb_json_number(qb_json_get(qb_results_metric(c, "decode", NULL, NULL), "value")) > 0);
        double peak =
            qb_json_number(qb_json_get(qb_results_metric(c, "peak_rss_bytes", NULL, NULL), "value"));
        assert_true(peak > 1e6 && peak < 900e6); /* the ceilings' gigabyte is not in it */
        assert_non_null(
            qb_json_string(qb_json_get(qb_results_metric(c, "logits_sha256", NULL, NULL), "sha256")));
    }
    const qb_json *gptq = qb_results_case(&r, "tiny/gptq-4b-g32/cpu"),
                  *rtn = qb_results_case(&r, "tiny/rtn-3b-g32/cpu");
    const qb_json *quantization = qb_json_get(gptq, "quantization");
    assert_false(qb_json_true(qb_json_get(quantization, "cached")));
    assert_int_equal(qb_json_count(qb_json_get(quantization, "modules")), 14);
    assert_true(qb_json_number(qb_json_get(quantization, "seconds")) > 0);
    /* 3-bit codes, float16 scale a group of 32: 3.5 bits and what padding adds; below the 4-bit one. */
    double bits3 = qb_json_number(qb_json_get(qb_json_get(rtn, "model"), "bits_per_weight"));
    double bits4 = qb_json_number(qb_json_get(qb_json_get(gptq, "model"), "bits_per_weight"));
    assert_true(bits3 > 3.4 && bits3 < bits4 && bits4 < 6);
    qb_results_close(&r);
}

static void test_cli_run__a_second_run_finds_its_checkpoints(void **state) {
    (void)state;
    write_suite("cached.json", "{\"method\":\"rtn\",\"bits\":2,\"group_size\":32}", "\"memory\"", "");
    char *suite = scratch_path("cached.json"), *out = scratch_path("cached-result.json");
    for (int i = 0; i < 3; i++) {
        /* The third run is told to use no cache: it makes its own. */
        outcome o =
            BENCH("run", "--suite", suite, "--synthetic", "-o", out, i == 2 ? "--no-cache" : "--cache");
        assert_worked(&o);
        outcome_free(&o);
        qb_results r = opened(out);
        const qb_json *c = qb_results_case(&r, "tiny/rtn-2b-g32/cpu");
        assert_int_equal(qb_json_true(qb_json_get(qb_json_get(c, "quantization"), "cached")), i == 1);
        qb_results_close(&r);
    }
    assert_true(qb_path_exists(scratch_path("cached-result.json.old")));
}

static void test_cli_run__outputs_are_tried_before_the_work(void **state) {
    (void)state;
    write_suite("out.json", "{\"method\":\"none\"}", "\"memory\"", "");
    char *suite = scratch_path("out.json");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "-o", "/nonexistent/dir/result.json"), 1,
                   "/nonexistent");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "-o", scratch), 2, "is a directory");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "--resume"), 2, "--resume needs --output");
    char *tiny = scratch_path("tiny"), *there = scratch_path("there"), *busy = scratch_path("busy.json");
    qb_file_lock lock;
    assert_ok(qb_file_lock_take(busy, &lock));
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "-o", busy), 2, "another process");
    qb_file_unlock(&lock);
    assert_ok(qb_make_dirs(there));
    assert_refused(BENCH("quantize", tiny, "--synthetic", "--method", "rtn", "-o", there), 2,
                   "--force replaces it");
    assert_refused(BENCH("quantize", tiny, "--synthetic", "--method", "rtn", "-o", "/proc/nowhere/w4"), 1,
                   "/proc/nowhere");
    assert_refused(
        BENCH("quantize", tiny, "--synthetic", "--method", "rtn", "--group-size", "48", "--dry-run"), 2,
        "48");
}

static void test_cli_run__what_does_not_fit_the_model_is_a_usage_error(void **state) {
    (void)state;
    write_suite("fit.json", four_methods, "\"speed\"", "");
    char *suite = scratch_path("fit.json");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "--set", "seqlen=100"), 2,
                   "--set seqlen=64");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "--set", "prefill=100"), 2, "has 64");
    assert_refused(BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "100", "--decode", "8"),
                   2, "try --prefill 32 --decode 16");
    assert_refused(BENCH("generate", "demo", "--prompt", "a", "--tokens", "100000"), 2, "try --tokens");
    /* What the shapes forbid is that method's affair, unless nothing else is left to measure. */
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "--set", "group_size=48", "--dry-run");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "skipped: "));
    outcome_free(&o);
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "--set", "group_size=48", "--only", "rtn"),
                   2, "48");
    o = BENCH("run", "--suite", suite, "--synthetic", "--dry-run", "--json");
    assert_worked(&o);
    qb_json *plan = json_of(&o);
    assert_int_equal(qb_json_count(qb_json_get(plan, "cases")), 4);
    for (const qb_json *c = qb_json_first(qb_json_get(plan, "cases")); c; c = qb_json_next(c))
        assert_true(qb_json_number(qb_json_get(c, "measure_peak_bytes")) > 0);
    qb_json_free(plan);
    outcome_free(&o);
}

static void test_cli_run__a_failed_case_does_not_end_the_run(void **state) {
    (void)state;
    /* Something foreign lies where a checkpoint of the cache is to be made: that case fails, the others do
     * not. */
    write_suite("damaged.json", "{\"method\":\"rtn\",\"bits\":[8,4],\"group_size\":-1}", "\"memory\"", "");
    char *suite = scratch_path("damaged.json"), *out = scratch_path("damaged-result.json");
    char *cache = scratch_path("damaged-cache"), *usual = qb_strdup(getenv("BENCH_CACHE"));
    setenv("BENCH_CACHE", cache, 1);
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out, "--only", "rtn-8b*");
    assert_worked(&o);
    outcome_free(&o);
    qb_str command = {0};
    qb_str_printf(&command,
                  "for d in '%s'/quantized/*/; do rm -r \"$d\"; mkdir -p \"${d%%/}.partial/stranger\"; done",
                  cache);
    assert_int_equal(system(qb_str_get(&command)), 0);
    qb_str_free(&command);
    o = BENCH("run", "--suite", suite, "--synthetic", "-o", out);
    setenv("BENCH_CACHE", usual, 1);
    qb_free(usual);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "1 of 2 cases failed"));
    outcome_free(&o);
    qb_results r = opened(out);
    const qb_json *bad = qb_results_case(&r, "tiny/rtn-8b-row/cpu"),
                  *good = qb_results_case(&r, "tiny/rtn-4b-row/cpu");
    assert_string_equal(qb_json_string(qb_json_get(bad, "status")), "failed");
    assert_non_null(strstr(qb_json_string(qb_json_get(bad, "error")), "was not left by an interrupted run"));
    assert_string_equal(qb_json_string(qb_json_get(good, "status")), "ok");
    qb_results_close(&r);
}

static void test_cli_run__the_plan_holds_the_measured_peak(void **state) {
    (void)state;
    char *out = scratch_path("peak-result.json");
    outcome o = BENCH("run", "--suite", "demo", "--only", "none,rtn-4b*", "--set", "max_windows=16", "--set",
                      "budget_s=0.1", "--dry-run", "--json");
    assert_worked(&o);
    qb_json *plan = json_of(&o);
    outcome_free(&o);
    o = BENCH("run", "--suite", "demo", "--only", "none,rtn-4b*", "--set", "max_windows=16", "--set",
              "budget_s=0.1", "-o", out);
    assert_worked(&o);
    /* A part of the text is said to be one, and has no floor. */
    assert_non_null(strstr(o.out, "of the text; not comparable"));
    assert_null(strstr(o.out, "no model can pass"));
    outcome_free(&o);
    qb_results r = opened(out);
    for (const qb_json *c = qb_json_first(qb_json_get(plan, "cases")); c; c = qb_json_next(c)) {
        const qb_json *found = qb_results_case(&r, qb_json_string(qb_json_get(c, "id")));
        double planned = qb_json_number(qb_json_get(c, "measure_peak_bytes")),
               peak = qb_json_number(
                   qb_json_get(qb_results_metric(found, "peak_rss_bytes", NULL, NULL), "value"));
        if (!(planned >= peak && planned < 2 * peak))
            fail_msg("planned %.0f bytes, took %.0f", planned, peak);
    }
    qb_json_free(plan);
    qb_results_close(&r);
}

static void test_cli_run__compare_tells_same_from_worse(void **state) {
    (void)state;
    write_suite("compare.json", "{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":4,\"group_size\":32}",
                "\"memory\"", "");
    char *suite = scratch_path("compare.json"), *out = scratch_path("compare-result.json");
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out);
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("compare", out, out, "--json");
    assert_worked(&o);
    qb_json_free(json_of(&o));
    outcome_free(&o);
    /* One case less is a regression. */
    char *less = scratch_path("compare-less.json");
    o = BENCH("run", "--suite", suite, "--synthetic", "-o", less, "--only", "none");
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("compare", out, less);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.out, "rtn-4b-g32"));
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli_run__every_case_is_measured),
        cmocka_unit_test(test_cli_run__a_second_run_finds_its_checkpoints),
        cmocka_unit_test(test_cli_run__outputs_are_tried_before_the_work),
        cmocka_unit_test(test_cli_run__what_does_not_fit_the_model_is_a_usage_error),
        cmocka_unit_test(test_cli_run__a_failed_case_does_not_end_the_run),
        cmocka_unit_test(test_cli_run__the_plan_holds_the_measured_peak),
        cmocka_unit_test(test_cli_run__compare_tells_same_from_worse),
    };
    return cmocka_run_group_tests(tests, tiny_begin, program_end);
}
