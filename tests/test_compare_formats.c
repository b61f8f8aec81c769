#include "tests/compare_support.h"

#include <math.h>

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
    format_edit(DECODE, slow, "csv", &out);
    if (!strstr(out.text, "\r\nm/gptq,decode tg128,tok/s,30,26,-13.")) fail_msg("%s", out.text);
    assert_non_null(strstr(out.text, ",regression,"));
    int lines = 0, wrong = 0;
    for (const char *p = out.text; *p; p += strcspn(p, "\n") + 1) {
        int fields = 1, quoted = 0;
        for (const char *q = p; *q != '\n'; q++) {
            quoted ^= *q == '"';
            fields += *q == ',' && !quoted;
        }
        lines++;
        wrong += fields != 11;
    }
    assert_int_equal(lines, 7); /* its head, and the rows that the JSON form has */
    assert_int_equal(wrong, 0);
    qb_str_free(&out);
    format_edit(DECODE, slow, "json", &out);
    assert_ok(qb_json_parse(out.text, out.length, "json", &json));
    assert_string_equal(qb_json_string(qb_json_get(json, "verdict")), "regression");
    assert_int_equal(qb_json_count(qb_json_get(json, "rows")), 6);
    qb_json_free(json);
    qb_str_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare__junit_counts_what_failed_and_was_skipped),
        cmocka_unit_test(test_compare__markdown_is_one_table_and_escapes),
        cmocka_unit_test(test_compare__services_read_their_own_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
