#include "results/compare.h"
#include "results/paired.h"
#include "results/runs.h"
#include "results/sink.h"
#include "tests/support.h"

#include <math.h>

static const qb_compare_config usual = {
    .perplexity_tolerance_pct = 0.1, .speed_effect_pct = 5, .alpha = 0.01, .memory_tolerance_pct = 1};

#define DECODE  "[30.0,30.2,29.9,30.1,29.8,30.05,29.95,30.15,29.85]"
#define LATENCY "[2.0,2.01,1.99,2.02,1.98,2.005,1.995,2.015]"
/* Two cases on one machine, every kind of row; the text is edited by the tests. */
static const char base_text[] =
    "{\"schema\":\"qb.results/1\",\"context\":{\"program\":{\"name\":\"q\",\"version\":\"1\"},"
    "\"created\":\"2026-11-22T06:10:00Z\",\"machine\":{\"cpu\":\"CPU-A\",\"cores\":2,\"threads\":2,\"gpu\":[]"
    "}},"
    "\"cases\":[{\"id\":\"m/"
    "gptq\",\"status\":\"ok\",\"error\":null,\"config\":{\"method\":\"gptq\",\"bits\":4,\"threads\":2},"
    "\"model\":{\"name\":\"m\"},\"quantization\":{\"method\":\"gptq\"},\"metrics\":["
    "{\"name\":\"perplexity\",\"value\":10.0,\"unit\":\"1\",\"better\":\"lower\",\"protocol\":\"gptq-512\","
    "\"dataset\":\"w\","
    "\"stderr\":0.5,\"status\":\"ok\",\"windows\":4,\"data_sha256\":"
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},"
    "{\"name\":\"decode\",\"value\":30,\"unit\":\"tok/"
    "s\",\"better\":\"higher\",\"protocol\":\"tg128\",\"status\":\"ok\","
    "\"samples\":" DECODE "},"
    "{\"name\":\"latency\",\"value\":2,\"unit\":\"s\",\"better\":\"lower\",\"status\":\"ok\","
    "\"samples\":" LATENCY "},"
    "{\"name\":\"checkpoint_bytes\",\"value\":1000000,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"ok\"},"
    "{\"name\":\"logits_sha256\",\"value\":null,\"unit\":\"1\",\"better\":\"lower\",\"status\":\"ok\","
    "\"sha256\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"}]},"
    "{\"id\":\"m/nf4\",\"status\":\"failed\",\"error\":\"out of "
    "memory\",\"config\":{},\"model\":null,\"metrics\":[]}]}";

static void parse(const char *text, qb_results *out) {
    assert_ok(qb_results_parse(text, strlen(text), "doc.json", out));
}

static void read_rows(const qb_results *r, qb_rows *out) {
    assert_ok(qb_rows_read(&r, 1, out));
}

/* base_text with the one occurrence of `from` replaced. */
static char *edited(const char *from, const char *to) {
    const char *at = strstr(base_text, from);
    if (!at) fail_msg("no \"%s\" in the document", from);
    qb_str s = {0};
    qb_str_append(&s, base_text, (size_t)(at - base_text));
    qb_str_text(&s, to);
    qb_str_text(&s, at + strlen(from));
    return s.text;
}

typedef struct outcome {
    qb_verdict verdict;
    int exit_code;
    qb_str text, json;
    size_t counts[QB_N_VERDICTS];
} outcome;

static outcome compare_several(const qb_results *const *olds, int n_olds, const qb_results *const *news,
                               int n_news, const qb_compare_config *config) {
    outcome o = {0};
    qb_rows a, b;
    qb_comparison c;
    assert_ok(qb_rows_read(olds, n_olds, &a));
    assert_ok(qb_rows_read(news, n_news, &b));
    assert_ok(qb_compare(&a, &b, config, &c));
    o.verdict = qb_comparison_verdict(&c);
    o.exit_code = qb_comparison_exit_code(&c);
    for (int v = 0; v < QB_N_VERDICTS; v++) o.counts[v] = qb_comparison_count(&c, (qb_verdict)v);
    assert_ok(qb_compare_write_text(&c, &o.text));
    assert_ok(qb_compare_write_json(&c, &o.json));
    qb_comparison_free(&c);
    qb_rows_free(&a);
    qb_rows_free(&b);
    return o;
}
static outcome compare_sets(const qb_results *const *olds, int n_olds, const qb_results *after,
                            const qb_compare_config *config) {
    return compare_several(olds, n_olds, &after, 1, config);
}

static void outcome_free(outcome *o) {
    qb_str_free(&o->text);
    qb_str_free(&o->json);
}

static outcome compare_texts(const char *before, const char *after, const qb_compare_config *config) {
    qb_results a, b;
    parse(before, &a);
    parse(after, &b);
    outcome o = compare_sets((const qb_results *[]){&a}, 1, &b, config);
    qb_results_close(&a);
    qb_results_close(&b);
    return o;
}

static outcome compare_edit(const char *from, const char *to, const qb_compare_config *config) {
    char *text = from ? edited(from, to) : qb_strdup(base_text);
    outcome o = compare_texts(base_text, text, config);
    qb_free(text);
    return o;
}

/* In the base document five rows compare, and a case fails on both sides. */
static void expect(const char *from, const char *to, qb_verdict verdict, const char *words) {
    outcome o = compare_edit(from, to, &usual);
    int exit_code = verdict == QB_REGRESSION || verdict == QB_MISSING ? 1 : 0;
    size_t others = 0;
    for (int v = 0; v < QB_N_VERDICTS; v++)
        if (v != QB_PASS && v != QB_INCOMPARABLE) others += o.counts[v];
    bool one = verdict == QB_PASS           ? others == 0 && o.counts[QB_INCOMPARABLE] == 1
               : verdict == QB_INCOMPARABLE ? others == 0 && o.counts[verdict] == 2
                                            : o.counts[verdict] == 1 && others == 1;
    if (verdict == QB_INCONCLUSIVE) exit_code = 3;
    if (!one || o.exit_code != exit_code || !strstr(o.text.text, words))
        fail_msg("%s -> %s: exit code %d\n%s", from, to, o.exit_code, o.text.text);
    outcome_free(&o);
}

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

/* Two cases of one document and the second again in another, with sums over windows; the numbers beside them
   are numpy's. */
#define PAIRED_ROW(value, windows, nll, tokens)                                                              \
    "{\"name\":\"perplexity\",\"value\":" value ",\"unit\":\"1\",\"better\":\"lower\",\"protocol\":"         \
    "\"gptq-11\",\"dataset\":\"w\",\"status\":\"ok\",\"windows\":" windows ",\"data_sha256\":"               \
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"windows_per_sum\":1,"            \
    "\"window_nll_nats\":[" nll "],\"window_tokens_scored\":[" tokens "]}"
#define PAIRED_CASE(id, method, row)                                                                         \
    "{\"id\":\"" id "\",\"status\":\"ok\",\"error\":null,\"config\":{\"method\":\"" method "\",\"bits\":4}," \
    "\"model\":{\"name\":\"m\"},\"quantization\":{\"method\":\"" method "\"},\"metrics\":[" row "]}"
#define PAIRED_DOC(cases)                                                                                    \
    "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"q\",\"version\":\"1\"},"              \
    "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[]},\"cases\":[" cases "]}"
#define NLL_A        "20,21,19.5,22,20.5,18,23,20,9.5"
#define NLL_B        "20.5,21.25,20.25,22.5,20.5,18.25,24,20.5,9.625"
#define NLL_MOVED    "20.1,20.9,19.6,21.9,20.6,17.9,23.1,19.9,9.5"
#define TOKENS       "10,10,10,10,10,10,10,10,5"
#define OTHER_TOKENS "10,10,10,10,10,10,10,5,10"

static void assert_has(qb_str *text, const char *words) {
    if (!strstr(qb_str_get(text), words)) fail_msg("no \"%s\" in\n%s", words, qb_str_get(text));
    qb_str_free(text);
}

static const qb_row *first_row(const qb_rows *rows, const char *id) {
    return qb_rows_case(rows, rows->documents, id)->rows;
}

static void test_compare__perplexities_are_paired_by_window(void **state) {
    (void)state;
    qb_results both, other;
    qb_rows rows, other_rows;
    qb_paired paired;
    qb_str text = {0};
    parse(PAIRED_DOC(PAIRED_CASE("m/nf4", "nf4", PAIRED_ROW("8.10", "9", NLL_B, TOKENS)) "," PAIRED_CASE(
              "m/gptq", "gptq", PAIRED_ROW("7.71", "9", NLL_A, TOKENS))),
          &both);
    read_rows(&both, &rows);
    assert_true(qb_rows_paired(first_row(&rows, "m/nf4"), first_row(&rows, "m/gptq"), &paired));
    assert_true(fabs(paired.difference - -0.045588235294117645) < 1e-12);
    assert_true(fabs(paired.stderr_value - 0.010377378385708758) < 1e-12);
    assert_ok(qb_results_print(&both, "text", &text));
    assert_has(&text,
               "GPTQ 4b against NF4 on w, gptq-11: -0.0456 ± 0.0104 nats a token, paired over 9 windows\n");
    parse(PAIRED_DOC(PAIRED_CASE("m/gptq", "gptq", PAIRED_ROW("8.10", "9", NLL_B, TOKENS))), &other);
    outcome o = compare_sets((const qb_results *[]){&both}, 1, &other, &usual);
    assert_int_equal(o.counts[QB_REGRESSION], 1); /* p = 0.0023 by Student's t of 8 degrees of freedom */
    assert_non_null(strstr(o.text.text, "+0.0456 ± 0.0104 nats a token, paired over 9 windows"));
    outcome_free(&o);
    /* What lies beyond the tolerance and within the windows' noise cannot be told yet. */
    qb_compare_config strict = usual;
    strict.alpha = 0.001;
    o = compare_sets((const qb_results *[]){&both}, 1, &other, &strict);
    assert_int_equal(o.counts[QB_INCONCLUSIVE], 1);
    assert_non_null(strstr(o.text.text, "worse by more than 0.1 %, not proved; about 12 windows would tell"));
    outcome_free(&o);
    qb_results_close(&other);
    /* The same sums over other tokens are no pairs. */
    parse(PAIRED_DOC(PAIRED_CASE("m/gptq", "gptq", PAIRED_ROW("8.10", "9", NLL_B, OTHER_TOKENS))), &other);
    read_rows(&other, &other_rows);
    assert_false(qb_rows_paired(first_row(&rows, "m/nf4"), first_row(&other_rows, "m/gptq"), &paired));
    qb_rows_free(&other_rows);
    qb_rows_free(&rows);
    qb_results_close(&other);
    qb_results_close(&both);
}

/* Wrong zero points in one linear of the demo model moved each window by 0.1 % and their sum by nothing. */
static void test_compare__windows_that_all_moved_are_said(void **state) {
    (void)state;
    qb_results before, after;
    parse(PAIRED_DOC(PAIRED_CASE("m/gptq", "gptq", PAIRED_ROW("7.71", "9", NLL_A, TOKENS))), &before);
    parse(PAIRED_DOC(PAIRED_CASE("m/gptq", "gptq", PAIRED_ROW("7.71", "9", NLL_MOVED, TOKENS))), &after);
    outcome o = compare_sets((const qb_results *[]){&before}, 1, &after, &usual);
    assert_int_equal(o.counts[QB_CHANGED], 1);
    assert_int_equal(o.exit_code, 1); /* nothing else was compared */
    assert_non_null(strstr(o.text.text, "each window moved by 0.49 % (root mean square), up and down"));
    outcome_free(&o);
    qb_results_close(&before);
    qb_results_close(&after);
}

static void test_compare__few_windows_tell_no_error(void **state) {
    (void)state;
    qb_results both;
    qb_str text = {0};
    parse(PAIRED_DOC(PAIRED_CASE("m/nf4", "nf4", PAIRED_ROW("8", "2", "20.5,21.25", "10,10")) "," PAIRED_CASE(
              "m/gptq", "gptq", PAIRED_ROW("7.9", "2", "20,21", "10,10"))),
          &both);
    assert_ok(qb_results_print(&both, "text", &text));
    assert_has(&text, ": -0.0375 nats a token, paired over 2 windows, too few for an error\n");
    qb_results_close(&both);
    static const char uneven[] = PAIRED_DOC(PAIRED_CASE("m/x", "nf4", PAIRED_ROW("8", "2", "1,2", "1")));
    assert_fails(qb_results_parse(uneven, sizeof uneven - 1, "doc.json", &both), QB_ERR_FORMAT,
                 "has 2 window_nll_nats and 1 window_tokens_scored, expected as many");
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

/* ---- formats ---- */

static void format_edit(const char *from, const char *to, const char *format, qb_str *out) {
    qb_results a, b;
    qb_rows before, after;
    qb_comparison c;
    char *text = edited(from, to);
    parse(base_text, &a);
    parse(text, &b);
    read_rows(&a, &before);
    read_rows(&b, &after);
    assert_ok(qb_compare(&before, &after, &usual, &c));
    assert_ok(qb_compare_format_find(format)->write(&c, out));
    qb_comparison_free(&c);
    qb_rows_free(&before);
    qb_rows_free(&after);
    qb_results_close(&a);
    qb_results_close(&b);
    qb_free(text);
}

static const char slow[] = "[26.0,26.2,25.9,26.1,25.8,26.05,25.95,26.15,25.85]";

static void test_compare__junit_counts_what_failed_and_was_skipped(void **state) {
    (void)state;
    qb_str out = {0};
    format_edit(DECODE, slow, "junit", &out);
    assert_non_null(strstr(out.text, "tests=\"7\" failures=\"2\" errors=\"0\" skipped=\"1\""));
    assert_non_null(strstr(out.text, "<testcase classname=\"gate\" name=\"verdict\" time=\"0\"><failure "
                                     "type=\"gate\" message=\"REGRESSION: 1 row worse or missing; speeds set "
                                     "against what is within a run alone\"/>"));
    assert_non_null(strstr(out.text,
                           "<testcase classname=\"m/gptq\" name=\"decode tg128\" time=\"0\"><failure "
                           "type=\"regression\" message=\"decode tg128: 30 tok/s to 26 tok/s, -13.3 %"));
    assert_non_null(strstr(out.text, "<skipped message=\"not_compared: case: measured on neither side\"/>"));
    qb_str_free(&out);
    format_edit("\"status\":\"ok\",\"error\":null", "\"status\":\"failed\",\"error\":\"a < b & \\\"c\\\"\"",
                "junit", &out);
    assert_non_null(strstr(out.text, "a &lt; b &amp; &quot;c&quot;"));
    qb_str_free(&out);
}

static void test_compare__markdown_is_one_table_and_escapes(void **state) {
    (void)state;
    qb_str out = {0};
    format_edit(DECODE, slow, "markdown", &out);
    assert_non_null(strstr(out.text, "### Benchmarks: REGRESSION: 1 row worse or missing; speeds set"));
    assert_non_null(
        strstr(out.text, "| m/gptq | decode tg128 | 30 tok/s | 26 tok/s | -13.3 % | **REGRESSION"));
    qb_str_free(&out);
    format_edit("\"status\":\"ok\",\"error\":null", "\"status\":\"failed\",\"error\":\"a|b <c>\"", "markdown",
                &out);
    assert_non_null(strstr(out.text, "a\\|b \\<c\\>"));
    qb_str_free(&out);
}

static void test_compare__services_read_their_own_forms(void **state) {
    (void)state;
    qb_str out = {0};
    qb_json *json;
    format_edit(DECODE, slow, "bencher", &out);
    assert_ok(qb_json_parse(out.text, out.length, "bencher", &json));
    assert_int_equal(qb_json_count(json), 4);
    const qb_json *figure = qb_json_get(qb_json_get(json, "m/gptq, decode tg128"), "decode");
    assert_true(fabs(qb_json_number(qb_json_get(figure, "value")) - 26) < 1e-9);
    qb_json_free(json);
    qb_str_free(&out);
    static const struct {
        const char *format, *first;
        int rows;
    } forms[] = {{"benchmark-bigger", "m/gptq, decode tg128", 1},
                 {"benchmark-smaller", "m/gptq, perplexity w gptq-512", 3}};
    for (int i = 0; i < 2; i++) {
        format_edit(DECODE, slow, forms[i].format, &out);
        assert_ok(qb_json_parse(out.text, out.length, "array", &json));
        assert_true(qb_json_is_array(json));
        assert_int_equal(qb_json_count(json), forms[i].rows);
        const qb_json *o = qb_json_first(json);
        assert_string_equal(qb_json_string(qb_json_get(o, "name")), forms[i].first);
        assert_true(qb_json_is_string(qb_json_get(o, "unit")) && qb_json_is_number(qb_json_get(o, "value")));
        qb_json_free(json);
        qb_str_free(&out);
    }
    format_edit(DECODE, slow, "json", &out);
    assert_ok(qb_json_parse(out.text, out.length, "json", &json));
    assert_string_equal(qb_json_string(qb_json_get(json, "verdict")), "regression");
    assert_int_equal(qb_json_count(qb_json_get(json, "rows")), 6);
    qb_json_free(json);
    qb_str_free(&out);
}

/* ---- where documents come from ---- */

static void write_document(const char *dir, const char *name, const char *from, const char *to) {
    char *path = qb_path_join(dir, name), *text = edited(from, to);
    assert_ok(qb_file_write_atomic(path, text, strlen(text)));
    qb_free(text);
    qb_free(path);
}

static void test_runs__of_a_directory_come_by_time(void **state) {
    (void)state;
    char *dir = scratch_make();
    qb_runs runs, now;
    static const char from[] = "2026-11-22T06:10:00Z";
    write_document(dir, "a.json", from, "2026-11-24T06:10:00Z");
    write_document(dir, "b.json", from, "2026-11-22T06:10:00Z");
    write_document(dir, "c.json", from, "2026-11-23T06:10:00Z");
    write_document(dir, "broken.json", "\"cases\":[", "\"cases\":{");
    write_document(dir, "notes.txt", from, from);
    assert_ok(qb_runs_open((const char *[]){dir}, 1, 2, &runs));
    assert_int_equal(runs.n, 2);
    assert_non_null(strstr(runs.documents[0].path, "c.json"));
    assert_non_null(strstr(runs.documents[1].path, "a.json"));
    /* A run is no baseline of itself. */
    char *newest = qb_path_join(dir, "a.json");
    assert_ok(qb_runs_open((const char *[]){newest}, 1, 20, &now));
    qb_runs_without(&runs, &now);
    assert_int_equal(runs.n, 1);
    qb_runs_without(&now, &now);
    assert_int_equal(now.n, 1); /* but a file is what was asked for */
    qb_runs_close(&runs);
    qb_runs_close(&now);
    qb_free(newest);
    scratch_remove(dir);
}

static void test_runs__need_a_document(void **state) {
    (void)state;
    char *dir = scratch_make();
    qb_runs runs;
    assert_fails(qb_runs_open((const char *[]){dir}, 1, 20, &runs), QB_ERR_FORMAT,
                 "holds no result document");
    qb_runs_close(&runs);
    assert_fails(qb_runs_open((const char *[]){"no-such.json"}, 1, 20, &runs), QB_ERR_NOT_FOUND,
                 "no-such.json");
    qb_runs_close(&runs);
    assert_fails(qb_runs_open((const char *[]){"baseline:none"}, 1, 20, &runs), QB_ERR_IO,
                 "no baseline \"none\"");
    qb_runs_close(&runs);
    assert_fails(qb_runs_open((const char *[]){"baseline:../x"}, 1, 20, &runs), QB_ERR_IO, "no baseline");
    qb_runs_close(&runs);
    write_document(dir, "mine.json", "30.0", "30.0");
    assert_int_equal(setenv("BENCH_BASELINES", dir, 1), 0);
    assert_ok(qb_runs_open((const char *[]){"baseline:mine"}, 1, 20, &runs));
    assert_int_equal(runs.n, 1);
    qb_runs_close(&runs);
    unsetenv("BENCH_BASELINES");
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare__equal_documents_are_unchanged),
        cmocka_unit_test(test_compare__perplexity_moves_by_tolerance_not_by_standard_error),
        cmocka_unit_test(test_compare__speed_needs_both_effect_and_significance),
        cmocka_unit_test(test_compare__few_samples_are_inconclusive),
        cmocka_unit_test(test_compare__noisy_rows_decide_nothing),
        cmocka_unit_test(test_compare__what_is_worse_and_noisy_is_not_passed),
        cmocka_unit_test(test_compare__a_noisy_run_does_not_hide_the_others),
        cmocka_unit_test(test_compare__levels_hold_for_all_rows_together),
        cmocka_unit_test(test_compare__runs_of_one_side_say_what_runs_differ_by),
        cmocka_unit_test(test_compare__a_stray_process_is_no_regression),
        cmocka_unit_test(test_compare__two_files_are_set_against_an_assumed_spread),
        cmocka_unit_test(test_compare__windows_that_all_moved_are_said),
        cmocka_unit_test(test_compare__sizes_hashes_and_lost_rows),
        cmocka_unit_test(test_compare__repeated_rows_are_paired_in_order),
        cmocka_unit_test(test_compare__what_is_not_comparable_is_said),
        cmocka_unit_test(test_compare__fewer_windows_are_another_measurement),
        cmocka_unit_test(test_compare__perplexities_are_paired_by_window),
        cmocka_unit_test(test_compare__few_windows_tell_no_error),
        cmocka_unit_test(test_compare__memory_has_a_floor_and_belongs_to_a_device),
        cmocka_unit_test(test_compare__an_incomplete_document_never_passes),
        cmocka_unit_test(test_compare__cases_lost_failing_and_new),
        cmocka_unit_test(test_compare__a_gate_that_saw_nothing_does_not_pass),
        cmocka_unit_test(test_compare__junit_counts_what_failed_and_was_skipped),
        cmocka_unit_test(test_compare__markdown_is_one_table_and_escapes),
        cmocka_unit_test(test_compare__services_read_their_own_forms),
        cmocka_unit_test(test_runs__of_a_directory_come_by_time),
        cmocka_unit_test(test_runs__need_a_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
