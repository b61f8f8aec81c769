#include "results/sink.h"
#include "tests/compare_support.h"

#include <math.h>

static void test_compare__equal_documents_are_unchanged(void **state) {
    (void)state;
    outcome o = compare_edit(NULL, NULL, &usual);
    assert_int_equal(o.exit_code, 0);
    assert_int_equal(o.verdict, QB_PASS);
    assert_int_equal(o.counts[QB_PASS], 5);
    assert_non_null(strstr(o.text.text, "not compared, m/nf4 case: measured on neither side\n"));
    assert_non_null(strstr(o.text.text, "5 unchanged, 0 better, 0 worse, 0 missing, 1 not compared\nno "
                                        "regression; speeds set against what is within "
                                        "a run alone\n"));
    outcome_free(&o);
}

static void test_compare__sizes_hashes_and_lost_rows(void **state) {
    (void)state;
    expect("\"value\":1000000", "\"value\":1005000", QB_PASS, "no regression");
    expect("\"value\":1000000", "\"value\":1020000", QB_REGRESSION, "1.02 MB");
    expect("bbbbbbbb\"", "bbbbbbbc\"", QB_CHANGED, "the hash differs");
    outcome o = compare_edit("\"name\":\"checkpoint_bytes\"", "\"name\":\"other_bytes\"", &usual);
    assert_int_equal(o.exit_code, 1);
    assert_true(o.counts[QB_MISSING] == 1 && o.counts[QB_CHANGED] == 1);
    assert_non_null(strstr(o.text.text, "no such row"));
    assert_non_null(strstr(o.text.text, "new, nothing to compare with"));
    outcome_free(&o);
    expect("\"value\":1000000,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"ok\"",
           "\"value\":null,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"failed\",\"error\":\"disk full\"",
           QB_REGRESSION, "failed now: disk full");
}

/* A row measured twice under one name meets its own counterpart: found by fuzzing. */
static void test_compare__repeated_rows_are_paired_in_order(void **state) {
    (void)state;
    char *text =
        edited("\"name\":\"latency\",\"value\":2", "\"name\":\"decode\",\"protocol\":\"tg128\",\"value\":2");
    outcome o = compare_texts(text, text, &usual);
    assert_int_equal(o.counts[QB_PASS], 5);
    assert_int_equal(o.exit_code, 0);
    outcome_free(&o);
    qb_free(text);
}

static void test_compare__what_is_not_comparable_is_said(void **state) {
    (void)state;
    expect("\"gptq-512\"", "\"gptq-256\"", QB_INCOMPARABLE, "protocol differs: gptq-512 against gptq-256");
    expect("aaaaaaaa\"", "aaaaaaac\"", QB_INCOMPARABLE, "token ids differ");
    outcome o = compare_edit("CPU-A", "CPU-B", &usual);
    assert_int_equal(o.counts[QB_INCOMPARABLE], 3);
    assert_int_equal(o.exit_code, 0);
    assert_non_null(
        strstr(o.text.text, "not compared, 2 rows: device differs: cpu \"CPU-A\" against \"CPU-B\""));
    outcome_free(&o);
    qb_compare_config forced = usual;
    forced.force = true;
    o = compare_edit("CPU-A", "CPU-B", &forced);
    assert_int_equal(o.counts[QB_INCOMPARABLE], 1);
    outcome_free(&o);
    o = compare_edit("\"threads\":2},\"model\"", "\"threads\":1},\"model\"", &usual);
    assert_int_equal(o.counts[QB_INCOMPARABLE],
                     3); /* speeds; the perplexity is the same for any thread count */
    outcome_free(&o);
    o = compare_edit("\"bits\":4", "\"bits\":3", &usual);
    assert_int_equal(o.counts[QB_INCOMPARABLE], 6);
    assert_int_equal(o.exit_code, 1); /* nothing was compared */
    assert_non_null(strstr(o.text.text, "config differs: bits 4 against 3"));
    outcome_free(&o);
}

static void test_compare__fewer_windows_are_another_measurement(void **state) {
    (void)state;
    expect("\"windows\":4", "\"windows\":2", QB_INCOMPARABLE, "windows differ: 4 against 2");
    /* What an older document does not state cannot tell two measurements apart. */
    expect("\"windows\":4,", "", QB_PASS, "no regression");
}

/* Memory of a process: on one device, and beyond what pages and buffers make of it by chance. */
static void test_compare__memory_has_a_floor_and_belongs_to_a_device(void **state) {
    (void)state;
    static const char *const from = "\"name\":\"checkpoint_bytes\",\"value\":1000000";
    static const char *const base = "\"name\":\"peak_rss_bytes\",\"value\":30000000";
    qb_compare_config config = usual;
    config.memory_floor_mb = 4;
    char *before = edited(from, base);
    static const struct {
        const char *after, *cpu;
        bool regressed;
        const char *words;
    } rows[] = {
        {"\"name\":\"peak_rss_bytes\",\"value\":33900000", "CPU-A", false, "5 unchanged"},
        {"\"name\":\"peak_rss_bytes\",\"value\":34100000", "CPU-A", true, "REGRESSION"},
        {"\"name\":\"peak_rss_bytes\",\"value\":34100000", "CPU-B", false,
         "not compared, 3 rows: device differs: cpu"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *after = edited(from, rows[i].after), *cpu = strstr(after, "CPU-A");
        memcpy(cpu, rows[i].cpu, strlen(rows[i].cpu));
        outcome o = compare_texts(before, after, &config);
        if ((o.exit_code == 1) != rows[i].regressed || !strstr(o.text.text, rows[i].words))
            fail_msg("row %zu:\n%s", i, o.text.text);
        outcome_free(&o);
        qb_free(after);
    }
    qb_free(before);
}

static void test_compare__an_incomplete_document_never_passes(void **state) {
    (void)state;
    static const char *const from = "\"created\":",
                             *const to = "\"planned\":[\"m/gptq\",\"m/nf4\",\"m/fp4\"],\"created\":";
    outcome o = compare_edit(from, to, &usual);
    assert_int_equal(o.exit_code, 1);
    assert_int_equal(o.counts[QB_PASS], 5);
    assert_non_null(strstr(o.text.text, "INCOMPLETE: the new run ended before 1 of its cases"));
    outcome_free(&o);
    qb_results r;
    qb_str table = {0};
    char *text = edited(from, to);
    parse(text, &r);
    assert_int_equal(qb_results_unmeasured(&r), 1);
    assert_ok(qb_results_print(&r, "text", &table));
    assert_non_null(strstr(table.text, "1 planned case is missing"));
    qb_str_free(&table);
    qb_results_close(&r);
    qb_free(text);
    o = compare_edit("\"id\":\"m/nf4\",\"status\":\"failed\"", "\"id\":\"m/new\",\"status\":\"failed\"",
                     &usual);
    assert_int_equal(o.exit_code, 1);
    assert_non_null(strstr(o.text.text, "new, and fails: out of memory"));
    outcome_free(&o);
}

static void test_compare__cases_lost_failing_and_new(void **state) {
    (void)state;
    outcome o = compare_edit("\"status\":\"failed\",\"error\":\"out of memory\"",
                             "\"status\":\"ok\",\"error\":null", &usual);
    assert_int_equal(o.verdict, QB_IMPROVEMENT);
    assert_non_null(strstr(o.text.text, "is measured now"));
    outcome_free(&o);
    o = compare_edit("\"m/gptq\"", "\"m/other\"", &usual);
    assert_true(o.exit_code == 1 && o.counts[QB_MISSING] == 1 && o.counts[QB_CHANGED] == 1);
    outcome_free(&o);
    o = compare_edit("\"status\":\"ok\",\"error\":null",
                     "\"status\":\"failed\",\"error\":\"killed by signal 9\"", &usual);
    assert_true(o.exit_code == 1 && o.counts[QB_REGRESSION] == 1);
    assert_non_null(strstr(o.text.text, "fails now: killed by signal 9"));
    outcome_free(&o);
}

static void test_compare__a_gate_that_saw_nothing_does_not_pass(void **state) {
    (void)state;
    static const char empty[] =
        "{\"schema\":\"qb.results/1\",\"context\":{\"program\":{\"name\":\"q\",\"version\":\"1\"},"
        "\"created\":\"2026-11-22T06:10:00Z\",\"machine\":{\"cpu\":\"c\",\"cores\":1,\"threads\":1}},"
        "\"cases\":[";
    static const char failed[] = "{\"id\":\"m/nf4\",\"status\":\"failed\",\"error\":\"no\",\"config\":{},"
                                 "\"model\":null,\"metrics\":[]}";
    for (int i = 0; i < 2; i++) {
        qb_str text = {0};
        qb_str_printf(&text, "%s%s]}", empty, i ? failed : "");
        outcome o = compare_texts(text.text, text.text, &usual);
        assert_int_equal(o.exit_code, 1);
        assert_non_null(strstr(o.text.text, "nothing could be compared"));
        outcome_free(&o);
        qb_str_free(&text);
    }
    /* All that is measured now failed before: no figure stood against another. */
    char *before = edited("\"status\":\"ok\",\"error\":null", "\"status\":\"failed\",\"error\":\"no\"");
    outcome o = compare_texts(before, base_text, &usual);
    assert_int_equal(o.exit_code, 1);
    assert_int_equal(o.counts[QB_IMPROVEMENT], 1);
    assert_non_null(strstr(o.text.text, "REGRESSION: nothing could be compared"));
    assert_non_null(strstr(o.json.text, "\"verdict\":\t\"regression\""));
    outcome_free(&o);
    qb_free(before);
    qb_results a;
    qb_rows rows;
    qb_comparison c;
    parse(base_text, &a);
    read_rows(&a, &rows);
    qb_compare_config bad = usual;
    bad.alpha = 0;
    assert_fails(qb_compare(&rows, &rows, &bad, &c), QB_ERR_USAGE, "alpha");
    bad = usual;
    bad.speed_effect_pct = (double)NAN;
    assert_fails(qb_compare(&rows, &rows, &bad, &c), QB_ERR_USAGE, "tolerances");
    qb_rows_free(&rows);
    qb_results_close(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare__equal_documents_are_unchanged),
        cmocka_unit_test(test_compare__sizes_hashes_and_lost_rows),
        cmocka_unit_test(test_compare__repeated_rows_are_paired_in_order),
        cmocka_unit_test(test_compare__what_is_not_comparable_is_said),
        cmocka_unit_test(test_compare__fewer_windows_are_another_measurement),
        cmocka_unit_test(test_compare__memory_has_a_floor_and_belongs_to_a_device),
        cmocka_unit_test(test_compare__an_incomplete_document_never_passes),
        cmocka_unit_test(test_compare__cases_lost_failing_and_new),
        cmocka_unit_test(test_compare__a_gate_that_saw_nothing_does_not_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
