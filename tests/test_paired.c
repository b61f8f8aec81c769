/* Perplexities of one text are set against each other window by window. */
#include "results/paired.h"
#include "results/sink.h"
#include "tests/compare_support.h"

#include <math.h>

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

/* The spread of a few window means is no standard error, whatever a document says. */
static void test_table__few_windows_have_no_standard_error(void **state) {
    (void)state;
    static const char few[] = PAIRED_DOC(
        PAIRED_CASE("m/nf4", "nf4",
                    PAIRED_ROW("8,\"stderr\":0.5,\"stderr_from\":\"windows\"", "7", "20.5,21.25", "10,10"))),
                      enough[] =
                          PAIRED_DOC(PAIRED_CASE("m/nf4", "nf4",
                                                 PAIRED_ROW("8,\"stderr\":0.5,\"stderr_from\":\"windows\"",
                                                            "8", "20.5,21.25", "10,10"))),
                      by_token[] =
                          PAIRED_DOC(PAIRED_CASE("m/nf4", "nf4",
                                                 PAIRED_ROW("8,\"stderr\":0.5,\"stderr_from\":\"tokens\"",
                                                            "7", "20.5,21.25", "10,10")));
    static const char *const documents[] = {few, enough, by_token};
    for (int i = 0; i < 3; i++) {
        qb_results r;
        qb_str text = {0};
        parse(documents[i], &r);
        assert_ok(qb_results_print(&r, "text", &text));
        bool shown = strstr(qb_str_get(&text), "8.0000 ± 0.500"),
             said = strstr(qb_str_get(&text),
                           "perplexity on w, gptq-11: 7 windows are too few for a standard error");
        if (shown != (i > 0) || said != (i == 0)) fail_msg("document %d: %s", i, qb_str_get(&text));
        qb_str_free(&text);
        qb_results_close(&r);
    }
}

/* A result of two machines sets no case against itself, unless it came out otherwise. */
static void test_paired__the_same_case_again_is_no_neighbour(void **state) {
    (void)state;
    static const char *const others[] = {
        PAIRED_DOC(PAIRED_CASE("m/nf4/cuda", "nf4", PAIRED_ROW("8.00000001", "9", NLL_B, TOKENS))),
        PAIRED_DOC(PAIRED_CASE("m/nf4/cuda", "nf4", PAIRED_ROW("8.002", "9", NLL_B, TOKENS)))};
    for (int i = 0; i < 2; i++) {
        qb_results here, there;
        qb_rows rows;
        qb_paired pair;
        const qb_row *worse;
        parse(PAIRED_DOC(PAIRED_CASE("m/nf4/cpu", "nf4", PAIRED_ROW("8", "9", NLL_B, TOKENS)) "," PAIRED_CASE(
                  "m/gptq/cpu", "gptq", PAIRED_ROW("8.01", "9", NLL_A, TOKENS))),
              &here);
        parse(others[i], &there);
        assert_ok(qb_rows_read((const qb_results *[]){&here, &there}, 2, &rows));
        assert_true(qb_paired_next(&rows, first_row(&rows, "m/nf4/cpu"), &worse, &pair));
        assert_string_equal(worse->of->id, i ? "m/nf4/cuda" : "m/gptq/cpu");
        qb_rows_free(&rows);
        qb_results_close(&here);
        qb_results_close(&there);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare__perplexities_are_paired_by_window),
        cmocka_unit_test(test_compare__windows_that_all_moved_are_said),
        cmocka_unit_test(test_compare__few_windows_tell_no_error),
        cmocka_unit_test(test_table__few_windows_have_no_standard_error),
        cmocka_unit_test(test_paired__the_same_case_again_is_no_neighbour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
