/* What decides a compared row: tolerances, samples, runs. */
#include "tests/compare_support.h"

static void test_compare__perplexity_moves_by_tolerance_not_by_standard_error(void **state) {
    (void)state;
    expect("\"value\":10.0", "\"value\":10.009", QB_PASS, "no regression");
    expect("\"value\":10.0", "\"value\":10.02", QB_REGRESSION,
           "perplexity w gptq-512   10  10.02  +0.200 %  REGRESSION");
    expect("\"value\":10.0", "\"value\":9.8", QB_IMPROVEMENT, "-2.0 %");
}

static void test_compare__speed_needs_both_effect_and_significance(void **state) {
    (void)state;
    expect(DECODE, "[29.0,29.2,28.9,29.1,28.8,29.05,28.95,29.15,28.85]", QB_PASS,
           "no regression"); /* -3 %: certain, but small */
    expect(DECODE, "[26.0,26.2,25.9,26.1,25.8,26.05,25.95,26.15,25.85]", QB_REGRESSION,
           "-13.3 %  REGRESSION  p < 0.0001  between -13.7 and -12.9 %");
    expect(DECODE, "[36.0,36.2,35.9,36.1,35.8,36.05,35.95,36.15,35.85]", QB_IMPROVEMENT, "+20.0 %");
    /* Times: down is better. */
    expect(LATENCY, "[2.3,2.31,2.29,2.32,2.28,2.305,2.295,2.315]", QB_REGRESSION, "+15.0 %");
    expect(LATENCY, "[1.7,1.71,1.69,1.72,1.68,1.705,1.695,1.715]", QB_IMPROVEMENT, "-15.0 %");
}

/* What a few samples show is neither a pass nor a regression: the text says how many would tell. */
static void test_compare__few_samples_are_inconclusive(void **state) {
    (void)state;
    /* Apart, but 2 / binomial(12, 3) is above the level that two rows leave. */
    expect(DECODE, "[26.0,26.2,25.9]", QB_INCONCLUSIVE,
           "worse by 5 % or more, not proved; about 6 samples a side would tell");
    /* No change in the median, but one of 5 % is not excluded. */
    expect(DECODE, "[30.0,27.2,33.9,30.1,27.8,32.05,29.95,28.15,31.85]", QB_PASS,
           "1 unchanged row does not exclude a change of 5 %: about");
    /* Faster is good news or chance; neither stops a gate. */
    expect(DECODE, "[34.0,34.2,33.9]", QB_PASS, "no regression");
    expect(DECODE, "[30.1]", QB_INCOMPARABLE, "timed once");
}

static void test_compare__noisy_rows_decide_nothing(void **state) {
    (void)state;
    expect(DECODE, "[20.0,26.2,15.9,22.1,18.8,19,25,17,28]", QB_NOISY_ROW, "noisy, m/gptq decode tg128");
    expect(DECODE, "[40.0,20.2,25.9,26.1,25.8,41,24,26,22]", QB_NOISY_ROW, "noisy on the new side");
    /* What a row says of itself goes before what its deviation says. */
    expect(DECODE, "[26.0,26.2,25.9,26.1,25.8],\"noisy\":true,\"noise\":\"5 of 5 samples were disturbed\"",
           QB_NOISY_ROW, "noisy on the new side: 5 of 5 samples were disturbed");
    expect(DECODE, "[20.0,26.2,15.9,22.1,18.8,19,25,17,28],\"noisy\":false", QB_REGRESSION, "-33.3 %");
}

/* Reasons that differ by their numbers alone are one, so that others are not crowded out. */
static void test_compare__noise_is_said_once(void **state) {
    (void)state;
#define NOISY_ROW(protocol, reason)                                                                          \
    "{\"name\":\"decode\",\"value\":30,\"unit\":\"tok/s\",\"better\":\"higher\",\"protocol\":\"" protocol    \
    "\",\"status\":\"ok\",\"samples\":" DECODE ",\"noisy\":true,\"noise\":\"" reason "\"}"
#define NOISY_DOC(size)                                                                                      \
    "{\"schema\":\"qb.results/1\",\"context\":{\"program\":{\"name\":\"q\",\"version\":\"1\"},"              \
    "\"created\":\"2026-11-22T06:10:00Z\",\"machine\":{\"cpu\":\"CPU-A\",\"cores\":2,\"threads\":2,\"gpu\":" \
    "[]"                                                                                                     \
    "}},\"cases\":[{\"id\":\"m/"                                                                             \
    "nf4\",\"status\":\"ok\",\"error\":null,\"config\":{},\"model\":{\"name\":\"m\"},"                       \
    "\"metrics\":[{\"name\":\"checkpoint_bytes\",\"value\":" size ",\"unit\":\"B\",\"better\":\"lower\","    \
    "\"status\":\"ok\"}," NOISY_ROW("tg1", "9 of 10 samples were disturbed") "," NOISY_ROW(                  \
        "tg2", "12 of 12 samples were disturbed") "," NOISY_ROW("tg3", "rounds differ by 20 %") "]}]}"
    outcome o = compare_texts(NOISY_DOC("1000"), NOISY_DOC("1001"), &usual);
    assert_int_equal(o.counts[QB_NOISY_ROW], 3);
    assert_non_null(strstr(
        o.text.text, "noisy, 2 rows, such as: noisy on the new side: 9 of 10 samples were disturbed\n"));
    assert_non_null(
        strstr(o.text.text, "noisy, m/nf4 decode tg3: noisy on the new side: rounds differ by 20 %\n"));
    assert_null(strstr(o.text.text, "12 of 12"));
    outcome_free(&o);
}

/* A fault may hide behind noise: a row that is worse by the effect that matters is not passed for it. */
static void test_compare__what_is_worse_and_noisy_is_not_passed(void **state) {
    (void)state;
    static const char
        old_row[] = "\"value\":30,\"unit\":\"tok/s\",\"better\":\"higher\",\"protocol\":\"tg128\",",
        worse[] = "\"value\":25,\"noisy\":true,\"noise\":\"rounds differ by 15 %\",\"unit\":\"tok/s\","
                  "\"better\":\"higher\",\"protocol\":\"tg128\",",
        better[] = "\"value\":36,\"noisy\":true,\"unit\":\"tok/s\",\"better\":\"higher\",\"protocol\":"
                   "\"tg128\",";
    qb_compare_config config = usual;
    config.speed_effect_pct = 5;
    outcome o = compare_edit(old_row, worse, &config);
    assert_int_equal(o.counts[QB_INCONCLUSIVE], 1);
    assert_int_equal(o.exit_code, 3);
    assert_non_null(strstr(o.text.text,
                           "worse by 5 % or more, but noisy on the new side: rounds differ by 15 %; about "
                           "1 run that is not noisy would tell"));
    outcome_free(&o);
    o = compare_edit(old_row, better, &config);
    assert_int_equal(o.counts[QB_NOISY_ROW], 1);
    assert_int_equal(o.exit_code, 0);
    outcome_free(&o);
    config.speed_effect_pct = 20;
    o = compare_edit(old_row, worse, &config);
    assert_int_equal(o.counts[QB_NOISY_ROW], 1);
    outcome_free(&o);
}

/* Of several runs of a side a noisy one is left out, the newest like any other. */
static void test_compare__a_noisy_run_does_not_hide_the_others(void **state) {
    (void)state;
    qb_results old[3], news[2];
    char *slow = edited(DECODE, "[26.0,26.2,25.9,26.1,25.8,26.05,25.95,26.15,25.85]");
    char *noisy = edited(DECODE, "[26.0,26.2,25.9,26.1,25.8,26.05,25.95,26.15,25.85],\"noisy\":true");
    for (int i = 0; i < 3; i++) parse(base_text, &old[i]);
    parse(slow, &news[0]);
    parse(noisy, &news[1]);
    const qb_results *olds[] = {&old[0], &old[1], &old[2]}, *both[] = {&news[0], &news[1]};
    outcome o = compare_several(olds, 3, both, 2, &usual);
    if (o.counts[QB_REGRESSION] != 1 || o.counts[QB_NOISY_ROW]) fail_msg("%s", o.text.text);
    assert_non_null(strstr(o.json.text, "\"new_runs\":\t1"));
    outcome_free(&o);
    for (int i = 0; i < 3; i++) qb_results_close(&old[i]);
    for (int i = 0; i < 2; i++) qb_results_close(&news[i]);
    qb_free(slow);
    qb_free(noisy);
}

/* The run that was made to confirm an alarm came out noisy, and at the old speed: two more such runs would
   not be an alarm, and no run but the first says so. A noisy run that is as slow as the first confirms
   nothing either, and speaks against nothing. */
static void test_compare__a_noisy_run_at_the_old_speed_leaves_an_alarm_open(void **state) {
    (void)state;
    qb_results old[3], news[3];
    char *slow = edited(DECODE, "[26.0,26.2,25.9,26.1,25.8,26.05,25.95,26.15,25.85]");
    char *noisy = edited(DECODE, "[30.0,30.2,29.9,30.1,29.8,30.05,29.95,30.15,29.85],\"noisy\":true");
    const qb_results *olds[] = {&old[0], &old[1], &old[2]}, *both[] = {&news[0], &news[1], &news[2]};
    for (int i = 0; i < 3; i++) parse(base_text, &old[i]);
    parse(slow, &news[0]);
    parse(noisy, &news[1]);
    parse(slow, &news[2]);
    outcome o = compare_several(olds, 3, both, 2, &usual);
    if (o.counts[QB_INCONCLUSIVE] != 1 || o.exit_code != 3) fail_msg("%s", o.text.text);
    assert_non_null(strstr(o.text.text, "worse by 5 % or more, but not in 1 noisy run of the new side; "));
    outcome_free(&o);
    o = compare_several(olds, 3, both, 3, &usual); /* a third run confirms it */
    if (o.counts[QB_REGRESSION] != 1 || o.exit_code != 1) fail_msg("%s", o.text.text);
    outcome_free(&o);
    for (int i = 0; i < 3; i++) qb_results_close(&old[i]);
    for (int i = 0; i < 3; i++) qb_results_close(&news[i]);
    qb_free(slow);
    qb_free(noisy);
}

/* Holm: one of two rows at p = 0.0079 is no proof at 0.01 for both, though it would be alone. */
static void test_compare__levels_hold_for_all_rows_together(void **state) {
    (void)state;
    static const char five[] = "[30.0,30.2,29.9,30.1,29.8]", less[] = "[26.0,26.2,25.9,26.1,25.8]";
    char *before = edited(DECODE, five), *after = edited(DECODE, less);
    outcome o = compare_texts(before, after, &usual);
    assert_int_equal(o.exit_code, 3);
    assert_non_null(strstr(o.text.text, "INCONCLUSIVE  p = 0.0159"));
    outcome_free(&o);
    qb_compare_config looser = usual;
    looser.alpha = 0.02;
    o = compare_texts(before, after, &looser);
    assert_int_equal(o.exit_code, 1);
    outcome_free(&o);
    qb_free(before);
    qb_free(after);
}

/* Runs of unchanged code differ by some per cent, each being sure of itself: with three or more of them a
   fourth that lies among them is no regression, one far from them is. */
static void test_compare__runs_of_one_side_say_what_runs_differ_by(void **state) {
    (void)state;
    static const double levels[] = {30, 27.5, 29, 31, 28.2};
    qb_results runs[5], now, slow;
    const qb_results *olds[5];
    for (int i = 0; i < 5; i++) {
        qb_str samples = {0};
        for (int k = 0; k < 9; k++)
            qb_str_printf(&samples, "%s%.3f", k ? "," : "[", levels[i] * (1 + 0.001 * k));
        qb_str_text(&samples, "]");
        char *text = edited(DECODE, samples.text);
        parse(text, &runs[i]);
        olds[i] = &runs[i];
        qb_free(text);
        qb_str_free(&samples);
    }
    char *text = edited(DECODE, "[27.2,27.23,27.25,27.28,27.31,27.33,27.36,27.39,27.41]");
    parse(text, &now);
    qb_free(text);
    text = edited(DECODE, "[20.2,20.23,20.25,20.28,20.31,20.33,20.36,20.39,20.41]");
    parse(text, &slow);
    qb_free(text);
    outcome o = compare_sets(olds, 1, &now, &usual);
    assert_int_equal(o.exit_code, 1); /* two files know of no other runs */
    outcome_free(&o);
    o = compare_sets(olds, 5, &now, &usual);
    assert_int_equal(o.counts[QB_REGRESSION], 0);
    assert_non_null(strstr(o.text.text, " runs a side would"));
    outcome_free(&o);
    o = compare_sets(olds, 5, &slow, &usual);
    assert_int_equal(o.exit_code, 1);
    assert_non_null(strstr(o.json.text, "\"old_runs\":\t5"));
    outcome_free(&o);
    for (int i = 0; i < 5; i++) qb_results_close(&runs[i]);
    qb_results_close(&now);
    qb_results_close(&slow);
}

/* A document of three rounds whose processes are that much faster than 30 tokens a second. */
static void parse_rounds(double first, double second, double third, qb_results *out) {
    const double rounds[] = {first, second, third};
    static int runs;
    double own = 1e-5 * ++runs; /* ties would make the ranks' test an approximate one */
    qb_str row = {0}, medians = {0};
    for (int k = 0; k < 9; k++)
        qb_str_printf(&row, "%s%.4f", k ? "," : "[", 30 * rounds[k / 3] * (1 + 0.001 * (k % 3)));
    for (int k = 0; k < 3; k++)
        qb_str_printf(&medians, "%s%.4f", k ? "," : "],\"noisy\":false,\"round_medians\":[",
                      30 * rounds[k] * 1.001 * (1 + own));
    qb_str_printf(&row, "%s]", qb_str_get(&medians));
    char *text = edited(DECODE, row.text);
    parse(text, out);
    qb_free(text);
    qb_str_free(&row);
    qb_str_free(&medians);
}

/* A process in some dozens is off by as much as a fault would be, each sample of it agreeing: it moves
   neither its run's figure nor the ranks of all processes. The fault is in every one. */
static void test_compare__a_stray_process_is_no_regression(void **state) {
    (void)state;
    enum { OLDS = 8 };
    static const double off[OLDS] = {0.002, -0.004, 0.003, 0.001, -0.002, 0.004, -0.003, 0};
    qb_compare_config config = usual;
    qb_results runs[OLDS], now;
    const qb_results *olds[OLDS];
    config.run_spread_pct = 5;
    for (int i = 0; i < OLDS; i++) {
        parse_rounds(1 + off[i], i == 3 ? 0.92 : 1.001 + off[i], 0.998 + off[i], &runs[i]);
        olds[i] = &runs[i];
    }
    parse_rounds(1.001, 0.9, 0.999, &now);
    outcome o = compare_sets(olds, OLDS, &now, &config);
    assert_int_equal(o.counts[QB_REGRESSION] + o.counts[QB_INCONCLUSIVE], 0);
    outcome_free(&o);
    qb_results_close(&now);
    parse_rounds(0.901, 0.9, 0.899, &now);
    o = compare_sets(olds, OLDS, &now, &config);
    if (o.counts[QB_REGRESSION] != 1) fail_msg("%s", o.text.text);
    assert_non_null(strstr(o.text.text, "; runs differ by 0."));
    assert_non_null(strstr(o.text.text,
                           "REGRESSION: 1 row worse or missing; speeds set against what runs differ "
                           "by, "));
    assert_non_null(strstr(o.json.text, "\"judged_by\":\t\"runs\""));
    assert_non_null(strstr(o.json.text, "\"old_processes\":\t24"));
    outcome_free(&o);
    /* Three old runs and one new cannot show by ranks that none is stray: 2 / binomial(12, 3) is above 0.005.
     */
    o = compare_sets(olds, 3, &now, &config);
    assert_int_equal(o.counts[QB_INCONCLUSIVE], 1);
    assert_non_null(strstr(o.text.text, "9 against 3 processes are too few to exclude a stray one"));
    outcome_free(&o);
    for (int i = 0; i < OLDS; i++) qb_results_close(&runs[i]);
    qb_results_close(&now);
}

/* One run a side does not say what runs differ by: the verdict names what was assumed. */
static void test_compare__two_files_are_set_against_an_assumed_spread(void **state) {
    (void)state;
    qb_compare_config config = usual;
    config.run_spread_pct = 5;
    outcome o = compare_edit(DECODE, "[26.0,26.2,25.9,26.1,25.8,26.05,25.95,26.15,25.85]", &config);
    assert_int_equal(o.counts[QB_INCONCLUSIVE], 1);
    assert_int_equal(o.exit_code, 3);
    assert_non_null(
        strstr(o.text.text, "worse by 5 % or more, not proved; runs are taken to differ by 5 %; about "));
    assert_non_null(strstr(o.text.text,
                           "INCONCLUSIVE: 1 row cannot be told yet; 2 speeds set against an assumed 5 "
                           "% between runs (1 old and 1 new do not tell it)"));
    outcome_free(&o);
    o = compare_edit(DECODE, "[16.0,16.2,15.9,16.1,15.8,16.05,15.95,16.15,15.85]", &config);
    assert_int_equal(o.exit_code, 1); /* no two runs of unchanged code lie so far apart */
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare__perplexity_moves_by_tolerance_not_by_standard_error),
        cmocka_unit_test(test_compare__speed_needs_both_effect_and_significance),
        cmocka_unit_test(test_compare__few_samples_are_inconclusive),
        cmocka_unit_test(test_compare__noisy_rows_decide_nothing),
        cmocka_unit_test(test_compare__noise_is_said_once),
        cmocka_unit_test(test_compare__what_is_worse_and_noisy_is_not_passed),
        cmocka_unit_test(test_compare__a_noisy_run_does_not_hide_the_others),
        cmocka_unit_test(test_compare__a_noisy_run_at_the_old_speed_leaves_an_alarm_open),
        cmocka_unit_test(test_compare__levels_hold_for_all_rows_together),
        cmocka_unit_test(test_compare__runs_of_one_side_say_what_runs_differ_by),
        cmocka_unit_test(test_compare__a_stray_process_is_no_regression),
        cmocka_unit_test(test_compare__two_files_are_set_against_an_assumed_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
