/* bench speed: its document, its marks, its samples. */
#include "tests/tiny_model.h"

#include "eval/eval.h"

static void test_cli_speed__writes_one_document(void **state) {
    (void)state;
    outcome o = BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "8", "--decode", "4",
                      "--repeat", "2", "--json");
    assert_worked(&o);
    qb_json *doc = json_of(&o);
    assert_ok(qb_results_validate(doc, "standard output"));
    const qb_json *c = qb_json_first(qb_json_get(doc, "cases"));
    const qb_json *decode = qb_results_metric(c, "decode", NULL, NULL);
    assert_int_equal(qb_json_count(qb_json_get(decode, "samples")), 2);
    assert_true(qb_json_number(qb_json_get(decode, "share_of_ceiling")) > 0);
    qb_json_free(doc);
    outcome_free(&o);
}

/* Rows that stayed noisy are marked, those alone, each with its reason below, and the load is said. Five
   samples have no interval of their median: their deviation speaks. */
static void test_cli_speed__marks_noisy_rows(void **state) {
    (void)state;
    outcome o = BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "8", "--decode", "4",
                      "--repeat", "5");
    assert_worked(&o);
    int rows = 0, marked = 0, reasons = 0;
    for (char *line = strtok(o.out, "\n"); line; line = strtok(NULL, "\n")) {
        double median, sd;
        char known[16], unit[16];
        if (!strncmp(line, "load average ", 13)) rows += 100;
        reasons += !strncmp(line, "    ", 4);
        if (strlen(line) < 60 || sscanf(line + 40, "%lf %15s %lf %15s", &median, known, &sd, unit) != 4)
            continue;
        bool mark = !strcmp(known, "-!");
        rows++;
        marked += mark;
        if (sd / median > 0.101) assert_true(mark);
    }
    assert_true(rows >= 102); /* prefill, decode, and the load */
    assert_int_equal(marked, reasons);
    print_message("%d of %d rows marked\n", marked, rows - 100);
    outcome_free(&o);
}

/* What loading took is said of weights that are read, not of random ones, which are made. */
static void test_cli_speed__says_what_loading_took(void **state) {
    (void)state;
    outcome o = BENCH("speed", "demo", "--prefill", "0", "--decode", "2", "--repeat", "1", "--json");
    assert_worked(&o);
    qb_json *doc = json_of(&o);
    const qb_json *row =
        qb_results_metric(qb_json_first(qb_json_get(doc, "cases")), "resident_weight_bytes", NULL, NULL);
    double seconds = qb_json_number(qb_json_get(row, "load_seconds"));
    assert_true(seconds > 0 && seconds < 60);
    assert_true(qb_json_number(qb_json_get(row, "load_bytes_per_s")) * seconds > 1e6); /* the demo's 2 MB */
    qb_json_free(doc);
    outcome_free(&o);
    o = BENCH("speed", "demo", "--prefill", "0", "--decode", "2", "--repeat", "1");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "\nloading: "));
    outcome_free(&o);
    o = BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "0", "--decode", "2", "--repeat",
              "1");
    assert_worked(&o);
    assert_null(strstr(o.out, "\nloading: "));
    outcome_free(&o);
}

/* Without a number of samples the precision and the budget decide, and the row says which. */
static void test_cli_speed__samples_until_it_knows(void **state) {
    (void)state;
    outcome o = BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "0", "--decode", "4",
                      "--budget-s", "0.2", "--precision", "0.01", "--json");
    assert_worked(&o);
    qb_json *doc = json_of(&o);
    const qb_json *row = qb_results_metric(qb_json_first(qb_json_get(doc, "cases")), "decode", NULL, NULL);
    double n = qb_json_number(qb_json_get(row, "n")), spent = qb_json_number(qb_json_get(row, "sampled_s"));
    assert_true(n >= 3 && qb_json_number(qb_json_get(row, "runs_per_sample")) >= 1);
    assert_false(qb_json_true(qb_json_get(row, "reached"))); /* one part in ten thousand */
    /* as many as there can be, of which disturbed ones were left out, or the budget's time */
    if (strcmp(qb_json_string(qb_json_get(row, "stopped")), "count")) assert_true(spent >= 0.2);
    qb_json_free(doc);
    outcome_free(&o);
    o = BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "0", "--decode", "4", "--precision",
              "100", "--budget-s", "1", "--json");
    assert_worked(&o);
    doc = json_of(&o);
    row = qb_results_metric(qb_json_first(qb_json_get(doc, "cases")), "decode", NULL, NULL);
    if (!strcmp(qb_json_string(qb_json_get(row, "stopped")),
                "precision")) /* a busy machine never gets there */
        assert_true(qb_json_true(qb_json_get(row, "reached")));
    qb_json_free(doc);
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli_speed__writes_one_document),
        cmocka_unit_test(test_cli_speed__says_what_loading_took),
        cmocka_unit_test(test_cli_speed__marks_noisy_rows),
        cmocka_unit_test(test_cli_speed__samples_until_it_knows),
    };
    return cmocka_run_group_tests(tests, tiny_begin, program_end);
}
