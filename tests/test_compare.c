#include "results/paired.h"
#include "tests/support.h"

#include <math.h>

static const qb_compare_config usual = {
    .perplexity_tolerance_pct = 0.1, .speed_effect_pct = 5, .alpha = 0.01, .memory_tolerance_pct = 1};

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
    "\"samples\":[30.0,30.2,29.9,30.1,29.8]},"
    "{\"name\":\"latency\",\"value\":2,\"unit\":\"s\",\"better\":\"lower\",\"status\":\"ok\",\"samples\":[2."
    "0,2.01,1.99]},"
    "{\"name\":\"checkpoint_bytes\",\"value\":1000000,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"ok\"},"
    "{\"name\":\"logits_sha256\",\"value\":null,\"unit\":\"1\",\"better\":\"lower\",\"status\":\"ok\","
    "\"sha256\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"}]},"
    "{\"id\":\"m/nf4\",\"status\":\"failed\",\"error\":\"out of "
    "memory\",\"config\":{},\"model\":null,\"metrics\":[]}]}";

static void parse(const char *text, qb_results *out) {
    assert_ok(qb_results_parse(text, strlen(text), "doc.json", out));
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
    bool regressed;
    qb_str text;
    int64_t same, better, worse, missing, changed, not_compared;
} outcome;

static int64_t count(const qb_json *json, const char *key) {
    return (int64_t)qb_json_number(qb_json_get(qb_json_get(json, "counts"), key));
}

static outcome compare_edit(const char *from, const char *to, const qb_compare_config *config) {
    qb_results a, b;
    char *text = from ? edited(from, to) : qb_strdup(base_text);
    outcome o = {0};
    qb_json *json;
    parse(base_text, &a);
    parse(text, &b);
    assert_ok(qb_results_compare(&a, &b, config, &o.text, &json, &o.regressed));
    assert_true(qb_json_true(qb_json_get(json, "regressed")) == o.regressed);
    o.same = count(json, "same");
    o.better = count(json, "better");
    o.worse = count(json, "worse");
    o.missing = count(json, "missing");
    o.changed = count(json, "changed");
    o.not_compared = count(json, "not_compared");
    qb_json_free(json);
    qb_results_close(&a);
    qb_results_close(&b);
    qb_free(text);
    return o;
}

static void expect(const char *from, const char *to, bool regressed, const char *verdict, const char *words) {
    outcome o = compare_edit(from, to, &usual);
    if (o.regressed != regressed || !strstr(o.text.text, words))
        fail_msg("%s -> %s:\n%s", from, to, o.text.text);
    int64_t n = !strcmp(verdict, "better")    ? o.better
                : !strcmp(verdict, "worse")   ? o.worse
                : !strcmp(verdict, "missing") ? o.missing
                : !strcmp(verdict, "changed") ? o.changed
                : !strcmp(verdict, "same")    ? 6 - o.same
                                              : o.not_compared;
    if (strcmp(verdict, "same") != 0 ? n != 1 || o.same != 5 : n != 0)
        fail_msg("%s -> %s:\n%s", from, to, o.text.text);
    qb_str_free(&o.text);
}

static void test_compare__equal_documents_are_unchanged(void **state) {
    (void)state;
    outcome o = compare_edit(NULL, NULL, &usual);
    assert_false(o.regressed);
    assert_int_equal(o.same, 6); /* five rows, and the case that fails as before */
    assert_int_equal(o.better + o.worse + o.missing + o.changed + o.not_compared, 0);
    assert_non_null(
        strstr(o.text.text, "6 unchanged, 0 better, 0 worse, 0 missing, 0 not compared\nno regression\n"));
    qb_str_free(&o.text);
}

static void test_compare__perplexity_moves_by_tolerance_not_by_standard_error(void **state) {
    (void)state;
    expect("\"value\":10.0", "\"value\":10.009", false, "same", "no regression");
    expect("\"value\":10.0", "\"value\":10.02", true, "worse",
           "perplexity w gptq-512   10  10.02  +0.200 %  WORSE");
    expect("\"value\":10.0", "\"value\":9.8", false, "better", "-2.0 %");
}

static void test_compare__speed_needs_both_effect_and_significance(void **state) {
    (void)state;
    const char *samples = "[30.0,30.2,29.9,30.1,29.8]";
    expect(samples, "[29.0,29.2,28.9,29.1,28.8]", false, "same",
           "no regression"); /* -3 %: certain, but small */
    expect(samples, "[26.0,26.2,25.9,26.1,25.8]", true, "worse", "p = 0.0079");
    expect(samples, "[36.0,36.2,35.9,36.1,35.8]", false, "better", "+20.0 %");
    expect(samples, "[40.0,20.2,25.9,26.1,25.8]", false, "same",
           "no regression"); /* -13 %, but within the noise */
    expect(samples, "[20.0,26.2,15.9,22.1,18.8]", false, "not compared", "deviate by more than 10 %");
    /* What a row says of itself goes before what its deviation says, on either side. */
    expect(samples, "[26.0,26.2,25.9,26.1,25.8],\"noisy\":true,\"noise\":\"5 of 5 samples were disturbed\"",
           false, "not compared", "noise on the new side: 5 of 5 samples were disturbed");
    expect(samples, "[20.0,26.2,15.9,22.1,18.8],\"noisy\":false", true, "worse", "p = 0.0079");
    expect("[2.0,2.01,1.99]", "[3.0,3.01,2.99]", false, "not compared",
           "3 and 3 samples are too few for alpha 0.01");
}

static void test_compare__sizes_hashes_and_lost_rows(void **state) {
    (void)state;
    expect("\"value\":1000000", "\"value\":1005000", false, "same", "no regression");
    expect("\"value\":1000000", "\"value\":1020000", true, "worse", "1.02 MB");
    expect("bbbbbbbb\"", "bbbbbbbc\"", false, "changed", "the hash differs");
    expect("\"name\":\"checkpoint_bytes\"", "\"name\":\"other_bytes\"", true, "missing", "no such row");
    expect("\"value\":1000000,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"ok\"",
           "\"value\":null,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"failed\",\"error\":\"disk full\"",
           true, "worse", "failed now: disk full");
}

/* A row measured twice under one name meets its own counterpart: found by fuzzing. */
static void test_compare__repeated_rows_are_paired_in_order(void **state) {
    (void)state;
    const char *name = "\"name\":\"latency\",\"value\":2";
    const char *twin = "\"name\":\"decode\",\"protocol\":\"tg128\",\"value\":2";
    char *text = edited(name, twin);
    qb_results r;
    qb_str out = {0};
    bool regressed;
    parse(text, &r);
    assert_ok(qb_results_compare(&r, &r, &usual, &out, NULL, &regressed));
    assert_non_null(strstr(out.text, "6 unchanged, 0 better, 0 worse, 0 missing, 0 not compared"));
    assert_false(regressed);
    qb_str_free(&out);
    qb_results_close(&r);
    qb_free(text);
}

static void test_compare__what_is_not_comparable_is_said(void **state) {
    (void)state;
    expect("\"gptq-512\"", "\"gptq-256\"", false, "not compared",
           "protocol differs: gptq-512 against gptq-256");
    expect("aaaaaaaa\"", "aaaaaaac\"", false, "not compared", "token ids differ");
    outcome o = compare_edit("CPU-A", "CPU-B", &usual);
    assert_int_equal(o.not_compared, 2);
    assert_false(o.regressed);
    assert_non_null(
        strstr(o.text.text, "not compared, 2 rows: device differs: cpu \"CPU-A\" against \"CPU-B\""));
    qb_str_free(&o.text);
    qb_compare_config forced = usual;
    forced.force = true;
    o = compare_edit("CPU-A", "CPU-B", &forced);
    assert_int_equal(o.not_compared, 0);
    qb_str_free(&o.text);
    o = compare_edit("\"threads\":2},\"model\"", "\"threads\":1},\"model\"", &usual);
    assert_int_equal(o.not_compared, 2); /* speeds; the perplexity is the same for any thread count */
    qb_str_free(&o.text);
    o = compare_edit("\"bits\":4", "\"bits\":3", &usual);
    assert_int_equal(o.not_compared, 5);
    assert_non_null(strstr(o.text.text, "config differs: bits 4 against 3"));
    qb_str_free(&o.text);
}

static void test_compare__fewer_windows_are_another_measurement(void **state) {
    (void)state;
    expect("\"windows\":4", "\"windows\":2", false, "not compared", "windows differ: 4 against 2");
    /* What an older document does not state cannot tell two measurements apart. */
    expect("\"windows\":4,", "", false, "same", "no regression");
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
#define TOKENS       "10,10,10,10,10,10,10,10,5"
#define OTHER_TOKENS "10,10,10,10,10,10,10,5,10"

static void assert_has(qb_str *text, const char *words) {
    if (!strstr(qb_str_get(text), words)) fail_msg("no \"%s\" in\n%s", words, qb_str_get(text));
    qb_str_free(text);
}

static const qb_row *first_row(const qb_rows *rows, const char *id) {
    return qb_rows_case(rows, rows->documents, id)->rows;
}

static void read_rows(const qb_results *r, qb_rows *out) {
    assert_ok(qb_rows_read(&r, 1, out));
}

static void test_compare__perplexities_are_paired_by_window(void **state) {
    (void)state;
    qb_results both, other;
    qb_rows rows, other_rows;
    qb_paired paired;
    qb_str text = {0};
    bool regressed;
    parse(PAIRED_DOC(PAIRED_CASE("m/nf4", "nf4", PAIRED_ROW("8.10", "9", NLL_B, TOKENS)) "," PAIRED_CASE(
              "m/gptq", "gptq", PAIRED_ROW("7.71", "9", NLL_A, TOKENS))),
          &both);
    read_rows(&both, &rows);
    assert_true(qb_rows_paired(first_row(&rows, "m/nf4"), first_row(&rows, "m/gptq"), &paired));
    assert_true(fabs(paired.difference - -0.045588235294117645) < 1e-12);
    assert_true(fabs(paired.stderr_value - 0.010377378385708758) < 1e-12);
    assert_ok(qb_results_table(&both, false, &text));
    assert_has(&text,
               "GPTQ 4b against NF4 on w, gptq-11: -0.0456 ± 0.0104 nats a token, paired over 9 windows\n");
    parse(PAIRED_DOC(PAIRED_CASE("m/gptq", "gptq", PAIRED_ROW("8.10", "9", NLL_B, TOKENS))), &other);
    assert_ok(qb_results_compare(&both, &other, &usual, &text, NULL, &regressed));
    assert_true(regressed);
    assert_has(&text, "+0.0456 ± 0.0104 nats a token, paired over 9 windows");
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

static void test_compare__few_windows_tell_no_error(void **state) {
    (void)state;
    qb_results both;
    qb_str text = {0};
    parse(PAIRED_DOC(PAIRED_CASE("m/nf4", "nf4", PAIRED_ROW("8", "2", "20.5,21.25", "10,10")) "," PAIRED_CASE(
              "m/gptq", "gptq", PAIRED_ROW("7.9", "2", "20,21", "10,10"))),
          &both);
    assert_ok(qb_results_table(&both, false, &text));
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
        {"\"name\":\"peak_rss_bytes\",\"value\":33900000", "CPU-A", false, "6 unchanged"},
        {"\"name\":\"peak_rss_bytes\",\"value\":34100000", "CPU-A", true, "WORSE"},
        {"\"name\":\"peak_rss_bytes\",\"value\":34100000", "CPU-B", false,
         "not compared, 3 rows: device differs: cpu"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *after = edited(from, rows[i].after), *cpu = strstr(after, "CPU-A");
        memcpy(cpu, rows[i].cpu, strlen(rows[i].cpu));
        qb_results a, b;
        qb_str text = {0};
        bool regressed;
        parse(before, &a);
        parse(after, &b);
        assert_ok(qb_results_compare(&a, &b, &config, &text, NULL, &regressed));
        if (regressed != rows[i].regressed || !strstr(text.text, rows[i].words))
            fail_msg("row %zu:\n%s", i, text.text);
        qb_str_free(&text);
        qb_results_close(&a);
        qb_results_close(&b);
        qb_free(after);
    }
    qb_free(before);
}

static void test_compare__an_incomplete_document_never_passes(void **state) {
    (void)state;
    static const char *const from = "\"created\":",
                             *const to = "\"planned\":[\"m/gptq\",\"m/nf4\",\"m/fp4\"],\"created\":";
    outcome o = compare_edit(from, to, &usual);
    assert_true(o.regressed);
    assert_int_equal(o.same, 6);
    assert_non_null(strstr(o.text.text, "INCOMPLETE: the new run ended before 1 of its cases"));
    qb_str_free(&o.text);
    qb_results r;
    qb_str table = {0};
    char *text = edited(from, to);
    parse(text, &r);
    assert_int_equal(qb_results_unmeasured(&r), 1);
    assert_ok(qb_results_table(&r, false, &table));
    assert_non_null(strstr(table.text, "1 planned case is missing"));
    qb_str_free(&table);
    qb_results_close(&r);
    qb_free(text);
    expect("\"id\":\"m/nf4\",\"status\":\"failed\"", "\"id\":\"m/new\",\"status\":\"failed\"", true, "worse",
           "new, and fails: out of memory");
}

static void test_compare__cases_lost_failing_and_new(void **state) {
    (void)state;
    expect("\"status\":\"failed\",\"error\":\"out of memory\"", "\"status\":\"ok\",\"error\":null", false,
           "better", "is measured now");
    outcome o = compare_edit("\"m/gptq\"", "\"m/other\"", &usual);
    assert_true(o.regressed && o.missing == 1 && o.changed == 1);
    qb_str_free(&o.text);
    o = compare_edit("\"status\":\"ok\",\"error\":null",
                     "\"status\":\"failed\",\"error\":\"killed by signal 9\"", &usual);
    assert_true(o.regressed && o.worse == 1);
    assert_non_null(strstr(o.text.text, "fails now: killed by signal 9"));
    qb_str_free(&o.text);
}

static void test_compare__a_gate_that_saw_nothing_does_not_pass(void **state) {
    (void)state;
    static const char empty[] =
        "{\"schema\":\"qb.results/1\",\"context\":{\"program\":{\"name\":\"q\",\"version\":\"1\"},"
        "\"created\":\"2026-11-22T06:10:00Z\",\"machine\":{\"cpu\":\"c\",\"cores\":1,\"threads\":1}},"
        "\"cases\":[]}";
    qb_results a;
    qb_str text = {0};
    bool regressed;
    parse(empty, &a);
    assert_ok(qb_results_compare(&a, &a, &usual, &text, NULL, &regressed));
    assert_true(regressed);
    assert_non_null(strstr(text.text, "nothing could be compared"));
    qb_compare_config bad = usual;
    bad.alpha = 0;
    assert_fails(qb_results_compare(&a, &a, &bad, &text, NULL, &regressed), QB_ERR_USAGE, "alpha");
    bad = usual;
    bad.speed_effect_pct = (double)NAN;
    assert_fails(qb_results_compare(&a, &a, &bad, &text, NULL, &regressed), QB_ERR_USAGE, "tolerances");
    qb_str_free(&text);
    qb_results_close(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare__equal_documents_are_unchanged),
        cmocka_unit_test(test_compare__perplexity_moves_by_tolerance_not_by_standard_error),
        cmocka_unit_test(test_compare__speed_needs_both_effect_and_significance),
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
