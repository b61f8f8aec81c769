/* The report: one well-formed page that asks nothing of the network, and its files. */
#include "tests/noisy_rows.h"
#include "tests/support.h"

#include "base/file.h"
#include "bench/report/report.h"

#include <ctype.h>

static char *report_of(const char *const *paths, size_t n, const char *only, const char *dir) {
    qb_result_set *set;
    int n_files;
    char *path = qb_path_join(dir, "report.html"), *text;
    assert_ok(qb_alloc_zero(1, sizeof *set, &set));
    assert_ok(qb_result_set_open(paths, n, set));
    assert_ok(qb_report_write(set, &(qb_report_request){.dir = dir, .figures = {.only = only}}, &n_files));
    assert_true(n_files >= 4);
    assert_ok(qb_file_read(path, 16 << 20, &text, NULL));
    qb_result_set_close(set);
    qb_free(set);
    qb_free(path);
    return text;
}

/* Every element ends, in the order of a tree; every attribute is quoted. Style and script are text. */
static void expect_well_formed(const char *text) {
    enum { DEEP = 64 };
    char open[DEEP][24];
    int n = 0;
    const char *p = strstr(text, "<html");
    assert_non_null(p);
    while ((p = strchr(p, '<'))) {
        bool end = p[1] == '/';
        const char *name = p + 1 + end;
        size_t length = strcspn(name, " />");
        const char *q = name + length;
        if (!isalpha((unsigned char)*name) || length >= sizeof open[0]) fail_msg("at \"%.40s\"", p);
        for (bool quoted = false; *q != '>' || quoted; q++) {
            if (!*q || (*q == '<' && !quoted)) fail_msg("unended: \"%.60s\"", p);
            if (*q == '=' && !quoted && q[1] != '"') fail_msg("not quoted: \"%.60s\"", p);
            quoted ^= *q == '"';
        }
        if (end) {
            if (!n || strncmp(open[n - 1], name, length) != 0 || open[n - 1][length])
                fail_msg("\"%.20s\" ends %s", p, n ? open[n - 1] : "nothing");
            n--;
        } else if (q[-1] != '/' && strncmp(name, "br>", 3) != 0) {
            assert_true(n < DEEP);
            memcpy(open[n], name, length);
            open[n][length] = 0;
            const char *close = !strcmp(open[n], "style") ? "</style>" : "</script>";
            n++;
            if (!strcmp(open[n - 1], "style") || !strcmp(open[n - 1], "script")) q = strstr(q, close) - 1;
        }
        p = q + 1;
    }
    assert_int_equal(n, 0);
}

static void expect_in(const char *text, const char *words) {
    if (!strstr(text, words)) fail_msg("the page lacks \"%s\"", words);
}

/* Rows that stayed noisy are marked in the page's figures as in the table, and their values say so. */
static void test_report__marks_noisy_rows(void **state) {
    (void)state;
    static const char *const words[] = {"<path class=\"noisy\"",  "crossed: stayed noisy",
                                        "<path class=\"hatch\"",  "hatched: stayed noisy",
                                        ", stayed noisy</title>", "(the widest from 4442 to 13326 tok/s)"};
    char *dir = scratch_make(), *path = qb_path_join(dir, "noisy.json");
    qb_json *document;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/results/example.json", 16 << 20, &document));
    leave_noisy(document, 1);
    assert_ok(qb_json_write_atomic(document, path));
    qb_json_free(document);
    char *text = report_of((const char *const *)&path, 1, "decode-bits,prefill", dir);
    expect_well_formed(text);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) expect_in(text, words[i]);
    qb_free(text);
    qb_free(path);
    scratch_remove(dir);
}

static void test_report__is_one_page_without_a_network(void **state) {
    (void)state;
    static const char *const paths[] = {QB_SOURCE_DIR "/tests/golden/results/example.json",
                                        QB_SOURCE_DIR "/results/baselines/demo.json"};
    static const char *const words[] = {"<h2>In short</h2>",          "is best on demo (gptq-256)",
                                        "<h2>Warnings</h2>",          "data-toggle=\"GPTQ",
                                        "id=\"figure-pareto",         "id=\"layers\"",
                                        "prefers-color-scheme: dark", "@media print",
                                        "bench run --suite demo"};
    for (size_t n = 1; n <= 2; n++) {
        char *dir = scratch_make(), *text = report_of(paths, n, "pareto", dir);
        expect_well_formed(text);
        assert_null(strstr(text, "http:"));
        assert_null(strstr(text, "https:"));
        assert_null(strstr(text, "src="));
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) expect_in(text, words[i]);
        qb_free(text);
        scratch_remove(dir);
    }
}

/* Figures are written out: 12590 tok/s, and a small part of another perplexity as how many times that. */
static void test_report__writes_no_powers_of_ten(void **state) {
    (void)state;
    static const char *const paths[] = {QB_SOURCE_DIR "/results/baselines/demo.json",
                                        QB_SOURCE_DIR "/results/baselines/seeds.json",
                                        QB_SOURCE_DIR "/results/h200/speed-int4.json"};
    char *dir = scratch_make(), *text = report_of(paths, 3, "pareto", dir);
    expect_in(text, "times that of F16");
    const char *power = strstr(text, "e+0");
    if (power) fail_msg("\"%.60s\"", power - 30);
    qb_free(text);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report__marks_noisy_rows),
        cmocka_unit_test(test_report__is_one_page_without_a_network),
        cmocka_unit_test(test_report__writes_no_powers_of_ten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
