/* Typed rows: what documents of every schema say, and several documents as one set. */
#include "base/metric.h"
#include "results/ceilings.h"
#include "results/sink.h"
#include "results/twins.h"
#include "tests/support.h"

#include <math.h>

#define EXAMPLE QB_SOURCE_DIR "/tests/golden/results/example.json"

static void test_rows__say_what_the_document_says(void **state) {
    (void)state;
    qb_results r;
    qb_rows rows;
    assert_ok(qb_results_open(EXAMPLE, &r));
    assert_ok(qb_rows_read((const qb_results *[]){&r}, 1, &rows));
    assert_int_equal(rows.n_documents, 1);
    assert_string_equal(rows.documents[0].name, "example");
    assert_string_equal(rows.documents[0].suite, "demo");
    assert_int_equal(rows.documents[0].n_command, 6);
    assert_true(rows.devices[0].ceilings.read_bytes_per_s == 21.4e9);
    assert_int_equal(rows.n_cases, qb_json_count(qb_json_get(r.doc, "cases")));
    const qb_row_case *c = qb_rows_case(&rows, rows.documents, "demo/none/cpu");
    assert_true(c->unquantized && c->status == QB_ROW_OK && !c->published && !c->projected_on);
    assert_true(c->bits_per_weight == 16 && c->n_params == 3407872);
    const qb_row *p = qb_rows_find_ok(c, "perplexity", "gptq-256", "demo");
    assert_true(p->value == 24.81 && p->stderr_value == 0.09924 && p->n == 65025 && p->floor == 18.42);
    assert_true(p->metric && p->metric->judge == QB_JUDGE_QUALITY && p->part == 1 && p->n_samples == 0);
    const qb_row *s = qb_rows_find_ok(c, "prefill", "pp512 b1", NULL);
    assert_int_equal(s->n_samples, 5);
    assert_true(s->samples[4] == 9127.18 && s->higher_is_better && qb_row_judge(s) == QB_JUDGE_TIME);
    assert_true(fabs(qb_row_spread(s) - 60.7485 / 9146.32) < 1e-12);
    assert_null(qb_rows_find(c, "prefill", "pp513", NULL));
    assert_true(isnan(qb_rows_value(c, "nothing")));
    assert_string_equal(qb_rows_headline(&rows, "prefill"), "pp512 b1");
    assert_null(qb_rows_protocol(&rows, "latency", NULL));
    qb_rows_free(&rows);
    qb_results_close(&r);
}

/* Two runs of one suite: equal labels bear the document, unlike ones do not; the rest stays each one's own.
 */
static void test_rows__of_several_documents_are_told_apart(void **state) {
    (void)state;
    qb_results r[2];
    qb_rows rows;
    for (int i = 0; i < 2; i++) assert_ok(qb_results_open(EXAMPLE, &r[i]));
    qb_free(r[1].path);
    r[1].path = qb_strdup("other/example.json");
    assert_ok(qb_rows_read((const qb_results *[]){&r[0], &r[1]}, 2, &rows));
    assert_string_equal(rows.documents[0].name, "example");
    assert_string_equal(rows.documents[1].name, "other/example");
    int half = rows.n_cases / 2;
    assert_int_equal(rows.n_cases, 2 * half);
    for (int i = 0; i < half; i++) {
        const qb_row_case *a = &rows.cases[i], *b = &rows.cases[half + i];
        assert_string_equal(a->id, b->id);
        assert_string_not_equal(a->label, b->label);
        assert_non_null(strstr(b->label, "(other/example)"));
        assert_ptr_equal(a->document, &rows.documents[0]);
        assert_ptr_equal(b->device ? b->device->document : b->document, &rows.documents[1]);
        assert_string_equal(a->series, b->series);
        assert_ptr_equal(qb_rows_case(&rows, b->document, b->id), b);
    }
    qb_rows_free(&rows);
    for (int i = 0; i < 2; i++) qb_results_close(&r[i]);
}

static void test_rows__a_part_of_the_text_is_told_from_the_whole(void **state) {
    (void)state;
    static const struct {
        const char *row;
        double part;
    } cases[] = {
        {"\"protocol\":\"gptq-512\",\"windows\":20,\"window_tokens\":512,\"total_tokens\":102400", 0.1},
        {"\"protocol\":\"gptq-512\",\"windows\":200,\"window_tokens\":512,\"total_tokens\":102911", 1},
        {"\"protocol\":\"strided-512-256\",\"windows\":3,\"window_tokens\":512,\"scored_tokens\":1023,"
         "\"total_tokens\":1024",
         1},
        {"\"protocol\":\"strided-512-256\",\"windows\":3,\"window_tokens\":512,\"scored_tokens\":1023,"
         "\"total_tokens\":4092",
         0.25},
        {"\"protocol\":\"gptq-512\"", 1},
        {"\"protocol\":\"gptq-512\",\"windows\":20,\"text_part\":0.5", 0.5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        qb_results r;
        qb_rows rows;
        snprintf(text, sizeof text,
                 "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"b\",\"version\":\"1\"},"
                 "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[]},\"cases\":[{\"id\":\"a\",\"status\":"
                 "\"ok\",\"config\":{},\"model\":null,\"metrics\":[{\"name\":\"kl_divergence\",\"value\":1,"
                 "\"unit\":\"nat\",\"better\":\"lower\",\"status\":\"ok\",%s}]}]}",
                 cases[i].row);
        assert_ok(qb_results_parse(text, strlen(text), "t.json", &r));
        assert_ok(qb_rows_read((const qb_results *[]){&r}, 1, &rows));
        assert_true(fabs(rows.rows[0].part - cases[i].part) < 1e-12);
        qb_rows_free(&rows);
        qb_results_close(&r);
    }
}

#define SHA "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_metrics__each_is_one_whole_row(void **state) {
    (void)state;
    for (size_t i = 0; qb_metric_at(i); i++) {
        const qb_metric *m = qb_metric_at(i);
        bool grouped = !m->group;
        assert_ptr_equal(qb_metric_find(m->name), m); /* no name twice */
        assert_true(*m->name && *m->unit && *m->summary && *m->source);
        for (size_t k = 0; qb_metric_group_at(k); k++) {
            if (!m->group || strcmp(qb_metric_group_at(k)->name, m->group) != 0) continue;
            grouped = true;
            assert_int_equal(m->needs & ~qb_metric_group_at(k)->needs, 0);
        }
        assert_true(grouped);
    }
    assert_null(qb_metric_find("nothing"));
}

static void expect_in(const qb_str *text, const char *words) {
    if (!strstr(qb_str_get(text), words)) fail_msg("no \"%s\" in\n%s", words, qb_str_get(text));
}

/* Names out of a document are text in every form: no markup, no command, no formula. */
static void test_sinks__hostile_names_are_only_text(void **state) {
    (void)state;
    static const char text[] =
        "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"b\",\"version\":\"1\"},"
        "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[]},\"cases\":[{\"id\":\"a\",\"status\":\"failed\","
        "\"error\":\"50 % & <b>, \\\"x\\\" \\\\input{y}\",\"config\":{\"method\":\"=1+1|<i>_&\"},\"model\":{"
        "\"name\":\"m\\u001b[31m\"},\"metrics\":[]}]}";
    static const struct {
        const char *format, *words;
    } rows[] = {{"text", "=1+1|<i>_&"},
                {"markdown", "=1+1\\|\\<i\\>\\_&"},
                {"csv", "\"'=1+1|<i>_&\""},
                {"csv", "\"50 % & <b>, \"\"x\"\" \\input{y}\""},
                {"latex", "50 \\% \\& <b>, \"x\" \\textbackslash{}input\\{y\\}"},
                {"html", "50 % &amp; &lt;b&gt;, &quot;x&quot;"},
                {"json", "\"schema\":\t\"qb.rows/1\""}};
    qb_results r;
    assert_ok(qb_results_parse(text, sizeof text - 1, "t.json", &r));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_str out = {0};
        assert_ok(qb_results_print(&r, rows[i].format, &out));
        expect_in(&out, rows[i].words);
        if (strchr(qb_str_get(&out), 27)) fail_msg("%s passes an escape sequence on", rows[i].format);
        qb_str_free(&out);
    }
    qb_str out = {0};
    assert_fails(qb_results_print(&r, "yaml", &out), QB_ERR_USAGE, "text|markdown|csv");
    qb_results_close(&r);
}

/* What to do stands at the end of a reason. */
static void test_sinks__a_skipped_case_says_all_of_its_reason(void **state) {
    (void)state;
    static const char reason[] =
        "rtn-4b-g128: model.layers.0.self_attn.q_proj: group size 128 does not divide its 64 input columns; "
        "sizes "
        "that do: 64, 32, 16, 8, -1 (one group a row); or allow a short last group with --ragged-groups";
    qb_str text = {0};
    qb_results r;
    qb_str_printf(&text,
                  "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"b\",\"version\":\"1\"},"
                  "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[]},\"cases\":[{\"id\":\"a\",\"status\":"
                  "\"skipped\",\"error\":\"%s\",\"config\":{},\"model\":{\"name\":\"m\"},\"metrics\":[]}]}",
                  reason);
    assert_ok(qb_results_parse(text.text, text.length, "t.json", &r));
    qb_str_free(&text);
    assert_ok(qb_results_print(&r, "text", &text));
    expect_in(&text, reason);
    qb_str_free(&text);
    qb_results_close(&r);
}

/* The same lines and fields in every row, and numbers that read back as what was measured. */
/* Numbers at the ends of what a double holds make no wide cells, and no picture that cannot be drawn. */
static void test_sinks__extreme_numbers_stay_short(void **state) {
    (void)state;
    static const char *const formats[] = {"text", "markdown", "latex", "html"};
    static const char *const values[] = {"1e308", "-1e308", "5e-324", "0", "-1"};
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
        qb_str text = {0};
        qb_results r;
        qb_str_printf(
            &text,
            "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"b\",\"version\":\"1\"},"
            "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[]},\"cases\":[{\"id\":\"a\",\"status\":\"ok\","
            "\"error\":null,\"config\":{\"method\":\"rtn\"},\"model\":{\"name\":\"m\"},\"metrics\":["
            "{\"name\":\"perplexity\",\"value\":%s,\"unit\":\"1\",\"better\":\"lower\",\"protocol\":\"p\","
            "\"dataset\":\"d\",\"data_sha256\":\"" SHA
            "\",\"windows\":9,\"stderr\":1e308,\"status\":\"ok\"},{\"name\":\"decode\",\"value\":%s,"
            "\"unit\":"
            "\"tok/s\",\"better\":\"higher\",\"protocol\":\"t\",\"sd\":1e308,\"n\":9,\"status\":\"ok\"},"
            "{\"name\":\"bits_per_weight\",\"value\":%s,\"unit\":\"bit\",\"better\":\"lower\",\"protocol\":"
            "null,"
            "\"status\":\"ok\"},{\"name\":\"checkpoint_bytes\",\"value\":%s,\"unit\":\"B\",\"better\":"
            "\"lower\",\"protocol\":null,\"status\":\"ok\"}]}]}",
            v == 0 ? values[v] : "1", values[v], values[v], values[v]); /* a perplexity is at least 1 */
        assert_ok(qb_results_parse(text.text, text.length, "t.json", &r));
        for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
            qb_str out = {0};
            assert_ok(qb_results_print(&r, formats[i], &out));
            /* Digits in a row; the page's data-value attributes hold numbers to read, not to show. */
            for (const char *p = qb_str_get(&out); *p;) {
                size_t digits = strspn(p, "0123456789");
                if (digits > 24) fail_msg("%s of %s: %.60s", formats[i], values[v], p);
                p += digits ? digits : 1;
            }
            qb_str_free(&out);
        }
        qb_results_close(&r);
        qb_str_free(&text);
    }
}

static void test_sinks__csv_holds_full_numbers(void **state) {
    (void)state;
    qb_results r;
    qb_str out = {0};
    int columns = 0, lines = 0;
    assert_ok(qb_results_open(EXAMPLE, &r));
    assert_ok(qb_results_print(&r, "csv", &out));
    for (const char *p = out.text; *p; p = strstr(p, "\r\n") + 2, lines++) {
        int n = 1;
        bool quoted = false;
        for (const char *q = p; *q != '\r'; q++) {
            quoted ^= *q == '"';
            n += *q == ',' && !quoted;
        }
        if (!columns) columns = n;
        assert_int_equal(n, columns);
    }
    assert_int_equal(lines, 1 + qb_json_count(qb_json_get(r.doc, "cases")));
    expect_in(&out, ",perplexity demo gptq-256 (1),perplexity demo gptq-256 stderr (1),");
    expect_in(&out, ",24.81,0.09924,");
    expect_in(&out, "decode tg128@d0 b1 stderr (tok/s),decode tg128@d0 b1 noisy (0 or 1),");
    expect_in(&out, ",605.467,3.06034,0,");
    qb_str_free(&out);
    qb_results_close(&r);
}

/* ---- twins ---- */

#define TWIN(id, method, config, decode)                                                                     \
    "{\"id\":\"" id "\",\"status\":\"ok\",\"error\":null,\"device\":\"cpu\",\"config\":{\"model\":\"m\","    \
    "\"method\":\"" method "\"," config                                                                      \
    "},\"model\":{\"name\":\"m\"},\"quantization\":{\"method\":\"" method                                    \
    "\"},\"metrics\":[{\"name\":\"decode\",\"unit\":\"tok/"                                                  \
    "s\",\"better\":\"higher\",\"status\":\"ok\",\"protocol\":"                                              \
    "\"tg32@d0 b1\",\"half_width\":0.01," decode "}]}"
#define AFFINE "\"bits\":4,\"group_size\":128,\"sym\":true"

static void twins_say(const char *cases, const char *words) {
    qb_str text = {0}, notes = {0};
    qb_results r;
    qb_rows rows;
    qb_str_printf(&text,
                  "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"q\",\"version\":\"1\"},"
                  "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[{\"id\":\"cpu\",\"backend\":\"cpu\","
                  "\"cpu\":\"c\",\"cores\":2,\"threads\":2}]},"
                  "\"cases\":[%s]}",
                  cases);
    assert_ok(qb_results_parse(text.text, text.length, "doc.json", &r));
    assert_ok(qb_rows_read((const qb_results *[]){&r}, 1, &rows));
    qb_twins_notes(&rows, &notes);
    if (words ? !strstr(qb_str_get(&notes), words) : notes.length != 0)
        fail_msg("expected \"%s\", found \"%s\"", words ? words : "", qb_str_get(&notes));
    if (words) {
        qb_str table = {0};
        assert_ok(qb_results_print(&r, "text", &table));
        assert_non_null(strstr(table.text, "have one format, which alone decides the speed"));
        qb_str_free(&table);
    }
    qb_str_free(&notes);
    qb_str_free(&text);
    qb_rows_free(&rows);
    qb_results_close(&r);
}

static void test_twins__of_one_format_differ_by_noise_only(void **state) {
    (void)state;
    static const char act[] = TWIN("m/rtn", "rtn", AFFINE, "\"value\":100") "," TWIN(
        "m/gptq", "gptq", AFFINE ",\"act_order\":true", "\"value\":90");
    twins_say(
        TWIN("m/rtn", "rtn", AFFINE, "\"value\":100") "," TWIN("m/gptq", "gptq", AFFINE, "\"value\":90"),
        "RTN 4b g128 and GPTQ 4b g128 have one format, which alone decides the speed, yet decode tg32@d0 b1 "
        "differs by 11.1 % (100 and 90 tok/s), more than the 1.4 % that the rows know of");
    /* Within what the rows know of, or what sampling aims at. */
    twins_say(
        TWIN("m/rtn", "rtn", AFFINE, "\"value\":100") "," TWIN("m/gptq", "gptq", AFFINE, "\"value\":98.5"),
        NULL);
    twins_say(TWIN("m/rtn", "rtn", AFFINE, "\"value\":100,\"round_medians\":[100,101,88]") "," TWIN(
                  "m/gptq", "gptq", AFFINE, "\"value\":90"),
              NULL);
    /* Another format, or a row that says itself that it is noisy. */
    twins_say(act, NULL);
    twins_say(TWIN("m/rtn", "rtn", AFFINE, "\"value\":100") "," TWIN("m/nf4", "nf4", "\"block_size\":64",
                                                                     "\"value\":90"),
              NULL);
    twins_say(TWIN("m/rtn", "rtn", AFFINE, "\"value\":100") "," TWIN("m/gptq", "gptq", AFFINE,
                                                                     "\"value\":90,\"noisy\":true"),
              NULL);
}

/* A machine that became slower while it measured: said with both figures, and only beyond what ceilings
   scatter by. */
static void test_ceilings__that_did_not_hold_are_said(void **state) {
    (void)state;
    qb_str text = {0};
    const qb_ceilings before = {80e9, 400e9, 0, 0, 0, 1}, slow = {6.4e9, 100e9, 0, 0, (double)NAN, 1};
    const qb_ceilings near = {75e9, 390e9, 0, 0, 0, 1}, read = {60e9, 390e9, 0, 0, 0, 1};
    const qb_ceilings unknown = {(double)NAN, (double)NAN, (double)NAN, (double)NAN, 1e12, 0};
    qb_ceiling_drift_put("cpu", &before, &near, &text);
    qb_ceiling_drift_put("cpu", &before, &unknown, &text);
    assert_int_equal(text.length, 0);
    qb_ceiling_drift_put("cpu", &before, &read, &text);
    assert_string_equal(text.text,
                        "cpu did not hold still during the run: read ceiling 80.0 before and 60.0 GB/s "
                        "behind it (-25 %); speeds and shares of the ceiling may be off by as much");
    qb_str_free(&text);
    qb_ceiling_drift_put("cpu", &slow, &before, &text);
    assert_non_null(
        strstr(text.text, "(+1150 %), GEMM ceiling 100.0 before and 400.0 GFLOP/s behind it (+300 %)"));
    qb_str_free(&text);
}

/* Ceilings that were measured beside other work, or that were higher once. */
static void test_ceilings__that_are_doubtful_are_said(void **state) {
    (void)state;
    static const struct {
        const char *ceilings, *said;
    } rows[] = {
        {"{\"read_bytes_per_s\":8e10,\"gemm_flop_per_s\":4e11}", ""},
        {"{\"read_bytes_per_s\":8e10,\"cpu_share\":0.9,\"best\":{\"read_bytes_per_s\":{\"value\":9e10}}}",
         ""},
        {"{\"read_bytes_per_s\":8e10,\"cpu_share\":0.5}",
         "cpu: other work had 50 % of the processors when its ceilings were measured: speeds may be low as "
         "well"},
        {"{\"read_bytes_per_s\":6.4e9,\"gemm_flop_per_s\":1e11,\"cpu_share\":0.7,\"best\":{\"read_bytes_per_"
         "s\":"
         "{\"value\":8e10,\"date\":\"2026-11-20T05:49:38Z\",\"load_average\":0.1},\"gemm_flop_per_s\":{"
         "\"value\":"
         "1e11}}}",
         "cpu: other work had 30 % of the processors when its ceilings were measured; read ceiling 6.4 GB/s, "
         "and 80.0 "
         "on 2026-11-20 at load 0.1: speeds may be low as well"},
        /* what it reached behind the run counts too */
        {"{\"read_bytes_per_s\":6.4e9,\"read_bytes_per_s_after\":7.9e10,\"best\":{\"read_bytes_per_s\":{"
         "\"value\":"
         "8e10}}}",
         ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qb_json *json = NULL;
        qb_str text = {0};
        assert_ok(qb_json_parse(rows[i].ceilings, strlen(rows[i].ceilings), "ceilings", &json));
        qb_ceiling_doubt_put("cpu", json, &text);
        assert_string_equal(qb_str_get(&text), rows[i].said);
        qb_str_free(&text);
        qb_json_free(json);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows__say_what_the_document_says),
        cmocka_unit_test(test_rows__of_several_documents_are_told_apart),
        cmocka_unit_test(test_rows__a_part_of_the_text_is_told_from_the_whole),
        cmocka_unit_test(test_sinks__a_skipped_case_says_all_of_its_reason),
        cmocka_unit_test(test_sinks__hostile_names_are_only_text),
        cmocka_unit_test(test_sinks__extreme_numbers_stay_short),
        cmocka_unit_test(test_sinks__csv_holds_full_numbers),
        cmocka_unit_test(test_metrics__each_is_one_whole_row),
        cmocka_unit_test(test_twins__of_one_format_differ_by_noise_only),
        cmocka_unit_test(test_ceilings__that_did_not_hold_are_said),
        cmocka_unit_test(test_ceilings__that_are_doubtful_are_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
