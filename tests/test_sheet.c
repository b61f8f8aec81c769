/* Plain tables of JSON objects, and the commands that print them: list, inspect and diff. */
#include "tests/program.h"

#include "results/sheet.h"

static const char three[] = "[{\"name\":\"a,b\",\"n\":2,\"part\":[1]},{\"name\":\"=x|<y>&_\",\"n\":-0.5,"
                            "\"late\":true},{\"name\":null,\"n\":null}]";

static void assert_sheet(const char *json, const char *format, const char *expected) {
    qb_json *array;
    qb_str text = {0};
    assert_ok(qb_json_parse(json, strlen(json), "test", &array));
    assert_ok(qb_sheet_print(array, format, &text));
    assert_string_equal(qb_str_get(&text), expected);
    qb_str_free(&text);
    qb_json_free(array);
}

static void test_sheet__every_format_escapes_its_own_markup(void **state) {
    (void)state;
    assert_sheet(three, "csv", "name,n,late\r\n\"a,b\",2,\r\n\"'=x|<y>&_\",-0.5,true\r\n,,\r\n");
    assert_sheet(three, "markdown",
                 "| name | n | late |\n|---|---:|---|\n| a,b | 2 |  |\n| =x\\|\\<y\\>&\\_ | -0.5 | true |\n| "
                 " |  |  |\n");
    assert_sheet(three, "latex",
                 "% needs \\usepackage{booktabs}\n\\begin{tabular}{lrl}\n  \\toprule\n  name & n & late "
                 "\\\\\n  \\midrule\n"
                 "  a,b & 2 &  \\\\\n  =x|<y>\\&\\_ & -0.5 & true \\\\\n   &  &  \\\\\n  "
                 "\\bottomrule\n\\end{tabular}\n");
    assert_sheet(three, "html",
                 "<table class=\"qb\">\n<thead><tr><th scope=\"col\">name</th><th scope=\"col\">n</th><th "
                 "scope=\"col\">late</th></tr></thead>\n<tbody>\n<tr><td>a,b</td><td>2</td><td></td></tr>\n"
                 "<tr><td>=x|&lt;y&gt;&amp;_</td><td>-0.5</td><td>true</td></tr>\n<tr><td></td><td></"
                 "td><td></td></tr>\n"
                 "</tbody>\n</table>\n");
    assert_sheet("[{\"name\":\"a\\u001b[2J\\nb\",\"of_it\":1}]", "csv", "name,of it\r\na?[2J b,1\r\n");
}

static size_t lines_of(const outcome *o) {
    size_t n = 0;
    for (const char *p = o->out; (p = strchr(p, '\n')); p++) n++;
    return n;
}

static void test_sheet__lists_in_every_format(void **state) {
    (void)state;
    outcome json = BENCH("list", "methods", "--json"), same = BENCH("list", "methods", "--format", "json"),
            csv = BENCH("list", "methods", "--format", "csv"), all = BENCH("list", "--format", "markdown");
    assert_worked(&json);
    assert_string_equal(json.out, same.out);
    qb_json *array = json_of(&json);
    assert_worked(&csv);
    assert_int_equal(lines_of(&csv), qb_json_count(array) + 1);
    assert_int_equal(strncmp(csv.out, "name,summary,source,needs calibration\r\n", 39), 0);
    assert_worked(&all);
    assert_non_null(strstr(all.out, "| methods | gptq | "));
    assert_non_null(strstr(all.out, "| plots | "));
    qb_json_free(array);
    outcome_free(&json);
    outcome_free(&same);
    outcome_free(&csv);
    outcome_free(&all);
    assert_refused(BENCH("list", "--format", "yaml"), 2, "--format");
}

/* A module a row, with whole numbers; exit codes are those of the text. */
static void test_sheet__checkpoints_and_their_differences(void **state) {
    (void)state;
    char *w4 = scratch_path("nf4");
    outcome o = BENCH("quantize", "demo", "--method", "nf4", "-o", w4, "-q");
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("inspect", w4, "--format", "csv");
    assert_worked(&o);
    assert_int_equal(lines_of(&o), 28 + 1);
    assert_non_null(strstr(o.out, "\nmodel.layers.0.self_attn.q_proj,128,128,9359,nf4 b64,false,4.5\r\n"));
    outcome_free(&o);
    o = BENCH("diff", "demo", w4, "--format", "csv");
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.out, "\nmodule,model.layers.0.self_attn.q_proj,float16,nf4 b64,16384,false,"));
    assert_non_null(strstr(o.out, "\ntensor,model.norm.weight,"));
    outcome_free(&o);
    o = BENCH("diff", "demo", "demo", "--format", "html");
    assert_worked(&o);
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sheet__every_format_escapes_its_own_markup),
        cmocka_unit_test(test_sheet__lists_in_every_format),
        cmocka_unit_test(test_sheet__checkpoints_and_their_differences),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
