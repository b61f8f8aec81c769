/* A run that is ended in the middle keeps what is finished and goes on. */
#include "tests/tiny_model.h"

#include <signal.h>
#include <time.h>

static int64_t finished_cases(const char *path) {
    qb_results r;
    if (!qb_path_exists(path) || qb_results_open(path, &r) != QB_OK) return 0;
    int64_t n = qb_json_count(qb_json_get(r.doc, "cases"));
    qb_results_close(&r);
    return n;
}

static void short_sleep(void) {
    nanosleep(&(struct timespec){0, 5000000}, NULL);
}

/* Starts a run of many cases, sends the signal once one is finished; returns the exit code. */
static int ended_run(const char *suite, const char *out, int number) {
    const char *const args[] = {"run", "--suite", suite, "--synthetic", "-o", out, NULL};
    pid_t pid = start(args, scratch_path("ended-stdout"), scratch_path("ended-stderr"));
    for (int i = 0; i < 12000 && finished_cases(out) < 1; i++) short_sleep();
    assert_true(finished_cases(out) >= 1);
    kill(pid, number);
    return wait_code(pid);
}

static void resumed_run_completes(int number, int expected_code) {
    write_suite("ended.json",
                "{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":[8,4,3,2],\"group_size\":[32,-1]},{"
                "\"method\":\"nf4\"},"
                "{\"method\":\"gptq\",\"bits\":[8,4,3,2],\"group_size\":[32,-1],\"samples\":2,\"seqlen\":32}",
                "\"memory\",\"determinism\"", "");
    char *suite = scratch_path("ended.json"), *out = scratch_path("ended-result.json");
    (void)unlink(out);
    assert_int_equal(ended_run(suite, out, number), expected_code);
    qb_results before = opened(out);
    int64_t n_before = qb_json_count(qb_json_get(before.doc, "cases"));
    assert_true(n_before >= 1 && n_before < 18);
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out, "--resume");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "kept"));
    outcome_free(&o);
    qb_results after = opened(out);
    assert_int_equal(qb_json_count(qb_json_get(after.doc, "cases")), 18);
    /* Kept means not touched: the start times are the old ones. */
    for (const qb_json *c = qb_json_first(qb_json_get(before.doc, "cases")); c; c = qb_json_next(c)) {
        const qb_json *same = qb_results_case(&after, qb_json_string(qb_json_get(c, "id")));
        assert_string_equal(qb_json_string(qb_json_get(same, "started")),
                            qb_json_string(qb_json_get(c, "started")));
        assert_true(qb_json_number(qb_json_get(same, "seconds")) ==
                    qb_json_number(qb_json_get(c, "seconds")));
    }
    assert_int_equal(qb_json_count(qb_json_get(qb_json_get(after.doc, "context"), "resumed")), 1);
    qb_results_close(&before);
    qb_results_close(&after);
}

static void test_cli_resume__killed_in_the_middle_it_keeps(void **state) {
    (void)state;
    resumed_run_completes(SIGKILL, 128 + SIGKILL);
}

static void test_cli_resume__interrupted_it_keeps_and_says_so(void **state) {
    (void)state;
    resumed_run_completes(SIGINT, 130);
    char *text;
    size_t n;
    assert_ok(qb_file_read(scratch_path("ended-stderr"), 1 << 20, &text, &n));
    assert_non_null(strstr(text, "bench: interrupted after"));
    assert_non_null(strstr(text, "--resume goes on"));
    qb_free(text);
}

static void test_cli_resume__what_changed_is_run_again(void **state) {
    (void)state;
    write_suite("change.json",
                "{\"method\":\"none\"},{\"method\":\"gptq\",\"group_size\":32,\"samples\":2,\"seqlen\":32}",
                "\"memory\"", "");
    char *suite = scratch_path("change.json"), *out = scratch_path("change-result.json");
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out);
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("run", "--suite", suite, "--synthetic", "-o", out, "--resume", "--set", "samples=3");
    assert_worked(&o);
    assert_non_null(
        strstr(o.err, "tiny/gptq-4b-g32/cpu: config differs: samples 2 against 3; it is run again"));
    assert_non_null(strstr(o.err, "f16"));
    assert_non_null(strstr(o.err, "kept"));
    outcome_free(&o);
    qb_results r = opened(out);
    const qb_json *config = qb_json_get(qb_results_case(&r, "tiny/gptq-4b-g32/cpu"), "config");
    assert_true(qb_json_number(qb_json_get(config, "samples")) == 3);
    qb_results_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli_resume__killed_in_the_middle_it_keeps),
        cmocka_unit_test(test_cli_resume__interrupted_it_keeps_and_says_so),
        cmocka_unit_test(test_cli_resume__what_changed_is_run_again),
    };
    return cmocka_run_group_tests(tests, tiny_begin, program_end);
}
