/* eval and speed over several models: one document, each model as if it were alone. */
#include "tests/program.h"

#include "results/results.h"

#define EVAL "--dataset", "demo", "--protocol", "gptq-64", "--max-windows", "9", "-q"

static const char *nf4(void) {
    char *path = scratch_path("nf4");
    if (qb_path_exists(path)) return path;
    outcome o = BENCH("quantize", "demo", "--method", "nf4", "-o", path, "-q");
    assert_worked(&o);
    outcome_free(&o);
    return path;
}

static double perplexity_of(const qb_json *doc, int index) {
    const qb_json *c = qb_json_first(qb_json_get(doc, "cases"));
    while (c && index--) c = qb_json_next(c);
    return qb_json_number(qb_json_get(qb_results_metric(c, "perplexity", "gptq-64", "demo"), "value"));
}

static void test_several__eval_gives_what_single_calls_give(void **state) {
    (void)state;
    outcome both = BENCH("eval", "demo", nf4(), EVAL, "--json"), one = BENCH("eval", "demo", EVAL, "--json"),
            other = BENCH("eval", nf4(), EVAL, "--json");
    assert_worked(&both);
    assert_worked(&one);
    assert_worked(&other);
    qb_json *doc = json_of(&both), *first = json_of(&one), *second = json_of(&other);
    assert_ok(qb_results_validate(doc, "standard output"));
    assert_int_equal(qb_json_count(qb_json_get(doc, "cases")), 2);
    assert_true(perplexity_of(doc, 0) == perplexity_of(first, 0));
    assert_true(perplexity_of(doc, 1) == perplexity_of(second, 0));
    const qb_json *context = qb_json_get(doc, "context"), *alone = qb_json_get(first, "context");
    assert_int_equal(qb_json_count(qb_json_get(context, "data")), qb_json_count(qb_json_get(alone, "data")));
    assert_int_equal(qb_json_count(qb_json_get(context, "devices")), 1);
    qb_json_free(doc);
    qb_json_free(first);
    qb_json_free(second);
    outcome_free(&both);
    outcome_free(&one);
    outcome_free(&other);
}

/* Each under its own name, and in every format; against one base, too. */
static void test_several__eval_tells_them_apart(void **state) {
    (void)state;
    outcome o = BENCH("eval", "demo", nf4(), "--base", "demo", EVAL);
    assert_worked(&o);
    assert_non_null(strstr(o.out, "demo/f16/cpu\n"));
    assert_non_null(strstr(o.out, "\nnf4/as-is/cpu\n"));
    assert_non_null(strstr(o.out, "paired by window"));
    outcome_free(&o);
    o = BENCH("eval", "demo", nf4(), "--format", "csv", EVAL);
    assert_worked(&o);
    assert_non_null(strstr(o.out, "\r\nresult,nf4/as-is/cpu,nf4,"));
    outcome_free(&o);
}

/* A name that is wrong shows before anything is measured; what fails later does not take the others with it.
 */
static void test_several__one_that_fails_is_told(void **state) {
    (void)state;
    static const char *const files[] = {"config.json", "model.safetensors"};
    char *bare = scratch_path("bare");
    assert_ok(qb_make_dirs(bare));
    for (size_t i = 0; i < 2; i++) {
        char *from = qb_path_join(QB_SOURCE_DIR "/bench/demo", files[i]), *to = qb_path_join(bare, files[i]);
        assert_ok(qb_copy_file(from, to));
        qb_free(from);
        qb_free(to);
    }
    assert_refused(BENCH("eval", "demo", "./nowhere", EVAL), 1, "nowhere");
    assert_refused(BENCH("eval", "demo", "demo", EVAL), 2, "both called demo");
    assert_refused(BENCH("speed", "demo", "./nowhere", "--prefill", "8", "--decode", "2", "-q"), 1,
                   "nowhere");
    outcome o = BENCH("eval", bare, "demo", EVAL, "--json");
    assert_true(o.code != 0);
    assert_non_null(strstr(o.err, "warning: "));
    assert_non_null(strstr(o.err, "tokenizer"));
    qb_json *doc = json_of(&o);
    assert_int_equal(qb_json_count(qb_json_get(doc, "cases")), 1);
    assert_true(perplexity_of(doc, 0) > 1);
    qb_json_free(doc);
    outcome_free(&o);
}

static void test_several__speed_measures_each_alone(void **state) {
    (void)state;
    outcome o =
        BENCH("speed", "demo", nf4(), "--prefill", "8", "--decode", "2", "--repeat", "3", "-q", "--json");
    assert_worked(&o);
    qb_json *doc = json_of(&o);
    assert_ok(qb_results_validate(doc, "standard output"));
    assert_int_equal(qb_json_count(qb_json_get(doc, "cases")), 2);
    for (const qb_json *c = qb_json_first(qb_json_get(doc, "cases")); c; c = qb_json_next(c)) {
        assert_true(
            qb_json_number(qb_json_get(qb_results_metric(c, "decode", NULL, NULL), "share_of_ceiling")) > 0);
        assert_true(qb_json_number(qb_json_get(qb_results_metric(c, "peak_rss_bytes", NULL, NULL), "value")) <
                    500e6);
    }
    qb_json_free(doc);
    outcome_free(&o);
    o = BENCH("speed", "demo", nf4(), "--prefill", "8", "--decode", "2", "--dry-run", "--json");
    assert_worked(&o);
    doc = json_of(&o);
    assert_int_equal(qb_json_count(doc), 2);
    assert_string_equal(qb_json_string(qb_json_get(qb_json_first(doc), "model")), "demo");
    qb_json_free(doc);
    outcome_free(&o);
    o = BENCH("eval", "demo", nf4(), EVAL, "--dry-run");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "demo\ndemo, gptq-64: 9 windows"));
    assert_non_null(strstr(o.out, "\nnf4\n"));
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several__eval_gives_what_single_calls_give),
        cmocka_unit_test(test_several__eval_tells_them_apart),
        cmocka_unit_test(test_several__one_that_fails_is_told),
        cmocka_unit_test(test_several__speed_measures_each_alone),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
