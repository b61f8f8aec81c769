/* Projections against figures computed by hand from the same datasheets (docs/methods.md): Llama-2-7B in int4
 * g128 with the share of its ceiling set to known values. */
#include "bench/project/project.h"
#include "results/compare.h"
#include "tests/support.h"

#include <math.h>

/* One llama2-7b case. Efficiencies: decode %s of the read ceiling, prefill %s of the product ceiling. */
static const char head[] =
    "{\"schema\":\"qb.results/1\",\"context\":{\"program\":{\"name\":\"bench\",\"version\":\"1\"},"
    "\"created\":\"2026-11-22T06:10:00Z\",\"machine\":{\"cpu\":\"C\",\"cores\":2,\"threads\":2,"
    "\"ceilings\":{\"read_bytes_per_s\":4e12,\"gemm_flop_per_s\":5e14}}},"
    "\"cases\":[{\"id\":\"llama2-7b/gptq\",\"status\":\"ok\",\"error\":null,"
    "\"config\":{\"model\":\"llama2-7b\",\"method\":\"gptq\",\"bits\":4,\"group_size\":128,\"samples\":128,"
    "\"seqlen\":2048,\"backend\":\"cuda\"},\"model\":{\"name\":\"llama2-7b\",\"n_layers\":32},";
static const char rows[] =
    "\"metrics\":[{\"name\":\"decode\",\"value\":500,\"unit\":\"tok/s\",\"better\":\"higher\","
    "\"protocol\":\"tg128@d0 b1\",\"status\":\"ok\",\"bytes_per_token\":3.6e9,\"share_of_ceiling\":0.5},"
    "{\"name\":\"prefill\",\"value\":20000,\"unit\":\"tok/s\",\"better\":\"higher\",\"protocol\":\"pp2048 "
    "b1\","
    "\"status\":\"ok\",\"flop_per_s\":2.8e14,\"share_of_ceiling\":0.7},"
    "{\"name\":\"time_to_first_token\",\"value\":0.1,\"unit\":\"s\",\"better\":\"lower\","
    "\"protocol\":\"pp2048 b1\",\"status\":\"ok\"},"
    "{\"name\":\"perplexity\",\"value\":5.6,\"unit\":\"1\",\"better\":\"lower\",\"protocol\":\"gptq-2048\","
    "\"dataset\":\"wikitext2\",\"status\":\"ok\",\"data_sha256\":"
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},"
    "{\"name\":\"peak_rss_bytes\",\"value\":5e9,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"ok\"},"
    "{\"name\":\"resident_weight_bytes\",\"value\":%s,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"ok\"},"
    "{\"name\":\"kv_bytes_per_token\",\"value\":524288,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"ok\"}"
    "]"
    "}]}";

/* The 32 layers of Llama-2-7B as quantized modules. */
static void put_modules(qb_str *out) {
    static const struct {
        const char *name;
        int rows, cols;
    } linears[] = {{"self_attn.q_proj", 4096, 4096}, {"self_attn.k_proj", 4096, 4096},
                   {"self_attn.v_proj", 4096, 4096}, {"self_attn.o_proj", 4096, 4096},
                   {"mlp.gate_proj", 11008, 4096},   {"mlp.up_proj", 11008, 4096},
                   {"mlp.down_proj", 4096, 11008}};
    for (int layer = 0; layer < 32; layer++)
        for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++)
            qb_str_printf(out, "%s{\"name\":\"model.layers.%d.%s\",\"rows\":%d,\"cols\":%d}",
                          layer || i ? "," : "", layer, linears[i].name, linears[i].rows, linears[i].cols);
}

static void make_document(const char *resident_bytes, qb_results *out) {
    qb_str s = {0};
    qb_str_printf(&s, "%s\"quantization\":{\"method\":\"gptq\",\"seconds\":43.67,\"modules\":[", head);
    put_modules(&s);
    qb_str_text(&s, "]},");
    qb_str_printf(&s, rows, resident_bytes);
    assert_ok(qb_results_parse(s.text, s.length, "7b.json", out));
    qb_str_free(&s);
}

static qb_json *project(const qb_results *r, const char *device, int64_t context) {
    const qb_project_config config = {context, 1, 0.7e9};
    qb_json *out;
    qb_rows all;
    assert_ok(qb_rows_read(&r, 1, &all));
    assert_ok(qb_project_case(&all, all.cases, qb_target_find(device), &config, &out));
    qb_rows_free(&all);
    return out;
}

static double value_of(const qb_json *c, const char *metric) {
    const qb_json *m = qb_results_metric(c, metric, NULL, NULL);
    if (!m) fail_msg("no row %s", metric);
    assert_true(qb_json_true(qb_json_get(m, "projected")));
    return qb_json_number(qb_json_get(m, "value"));
}

static void expect_near(double found, double expected) {
    if (!(fabs(found - expected) <= 1e-3 * expected)) fail_msg("found %.6g, expected %.6g", found, expected);
}

static void test_project__speeds_are_the_roofline_times_the_measured_share(void **state) {
    (void)state;
    qb_results r;
    make_document("3.6e9", &r);
    qb_json *t4 = project(&r, "t4", 2048), *h200 = project(&r, "h200", 2048);
    assert_string_equal(qb_json_string(qb_json_get(t4, "id")), "llama2-7b/gptq@t4");
    /* 320 GB/s x 0.81 x 0.5 / 3.6 GB = 36; 4800 x 0.896 x 0.5 / 3.6 = 597.33 */
    expect_near(value_of(t4, "decode"), 36.0);
    expect_near(value_of(h200, "decode"), 597.33);
    /* 2.8e14 / 20000 = 1.4e10 operations a token: 65 TF x 0.5 x 0.7 / 1.4e10 = 1625; 989.5 x 0.797 x 0.7 */
    expect_near(value_of(t4, "prefill"), 1625);
    expect_near(value_of(h200, "prefill"), 39431.6);
    expect_near(value_of(t4, "time_to_first_token"), 2048 / 1625.0);
    expect_near(value_of(h200, "perplexity"), 5.6);
    /* 3.6 GB + 2048 x 524288 + 0.7 GB */
    expect_near(value_of(h200, "device_memory_bytes"), 5.37374e9);
    assert_null(qb_results_metric(h200, "peak_rss_bytes", NULL, NULL)); /* of the host that measured */
    qb_json_free(t4);
    qb_json_free(h200);
    qb_results_close(&r);
}

static void test_project__gptq_work_is_that_of_the_reference(void **state) {
    (void)state;
    qb_results r;
    qb_gptq_work w;
    make_document("3.6e9", &r);
    const qb_results *document = &r;
    qb_rows all;
    assert_ok(qb_rows_read(&document, 1, &all));
    assert_true(qb_gptq_work_of(all.cases->modules, all.cases->n_modules, 128 * 2048, &w));
    qb_rows_free(&all);
    expect_near(w.forward, 3.395e15);
    expect_near(w.hessian, 1.439e15);
    expect_near(w.factor, 6.57e13);
    expect_near(w.update, 3.65e13);
    /* 2 x 3.3953e15 + 1.4387e15 + 6.571e13 + 3.649e13 = 8.3315e15 at 5e14: 16.663 s of the 43.67 measured: a
       share of 0.38157. On the H200: (8.2293e15 / 788.63e12 + 6.571e13 / 33.45e12 + 3.649e13 / 66.9e12) /
       0.38157 */
    qb_json *h200 = project(&r, "h200", 2048);
    expect_near(value_of(h200, "quantize_seconds"), (10.4349 + 1.9644 + 0.5454) / 0.38157);
    qb_json_free(h200);
    qb_results_close(&r);
}

static void test_project__what_does_not_fit_has_no_speed(void **state) {
    (void)state;
    qb_results r;
    make_document("13.5e9", &r); /* fp16: with 8192 tokens of keys and values 18.5 GB */
    qb_json *t4 = project(&r, "t4", 8192), *a6000 = project(&r, "a6000", 8192);
    const qb_json *decode = qb_results_metric(t4, "decode", NULL, NULL);
    assert_string_equal(qb_json_string(qb_json_get(decode, "status")), "skipped");
    assert_non_null(strstr(qb_json_string(qb_json_get(decode, "error")), "does not fit: needs 18"));
    assert_true(qb_json_is_null(qb_json_get(decode, "value")));
    assert_false(qb_json_true(qb_json_get(qb_results_metric(t4, "device_memory_bytes", NULL, NULL), "fits")));
    assert_true(
        qb_json_true(qb_json_get(qb_results_metric(a6000, "device_memory_bytes", NULL, NULL), "fits")));
    assert_true(value_of(a6000, "decode") > 0);
    qb_json_free(t4);
    qb_json_free(a6000);
    qb_results_close(&r);
}

static void test_project__missing_shares_are_said_not_guessed(void **state) {
    (void)state;
    static const char text[] =
        "{\"schema\":\"qb.results/1\",\"context\":{\"program\":{\"name\":\"b\",\"version\":\"1\"},"
        "\"created\":\"2026-11-22T06:10:00Z\",\"machine\":{\"cpu\":\"C\",\"cores\":2,\"threads\":2}},"
        "\"cases\":["
        "{\"id\":\"a\",\"status\":\"ok\",\"config\":{},\"model\":null,\"metrics\":[{\"name\":\"decode\","
        "\"value\":1,\"unit\":\"tok/s\",\"better\":\"higher\",\"status\":\"ok\"}]},"
        "{\"id\":\"b\",\"status\":\"failed\",\"error\":\"no\",\"config\":{},\"model\":null,\"metrics\":[]}]}";
    qb_results r;
    const qb_project_config config = {0, 1, 0};
    assert_ok(qb_results_parse(text, strlen(text), "x.json", &r));
    qb_json *a = project(&r, "l4", 2048), *b;
    assert_string_equal(qb_json_string(qb_json_get(qb_results_metric(a, "decode", NULL, NULL), "status")),
                        "skipped");
    assert_string_equal(
        qb_json_string(qb_json_get(qb_results_metric(a, "device_memory_bytes", NULL, NULL), "status")),
        "skipped");
    qb_rows all;
    const qb_results *document = &r;
    assert_ok(qb_rows_read(&document, 1, &all));
    const qb_row_case *failed = qb_rows_case(&all, all.documents, "b");
    assert_ok(qb_project_case(&all, failed, qb_target_find("l4"), &config, &b));
    qb_rows_free(&all);
    assert_string_equal(qb_json_string(qb_json_get(b, "status")), "failed");
    assert_string_equal(qb_json_string(qb_json_get(b, "error")), "no");
    qb_json_free(a);
    qb_json_free(b);
    qb_results_close(&r);
}

static void test_project__a_projection_is_not_compared_with_a_measurement(void **state) {
    (void)state;
    qb_results measured, projected;
    qb_rows before, after;
    qb_comparison comparison;
    qb_str text = {0};
    const qb_compare_config config = {.perplexity_tolerance_pct = 0.1,
                                      .speed_effect_pct = 5,
                                      .alpha = 0.01,
                                      .memory_tolerance_pct = 2,
                                      .force = true};
    make_document("3.6e9", &measured);
    qb_json *c = project(&measured, "h200", 2048);
    /* The same id, so that compare pairs them. */
    qb_json_put_text(c, "id", "llama2-7b/gptq");
    qb_json_put(c, "config",
                qb_json_copy(qb_json_get(qb_json_first(qb_json_get(measured.doc, "cases")), "config")));
    make_document("3.6e9", &projected);
    assert_ok(qb_results_put_case(&projected, c));
    assert_ok(qb_rows_read((const qb_results *[]){&measured}, 1, &before));
    assert_ok(qb_rows_read((const qb_results *[]){&projected}, 1, &after));
    assert_ok(qb_compare(&before, &after, &config, &comparison));
    assert_int_equal((int)qb_comparison_count(&comparison, QB_IMPROVEMENT), 0);
    assert_int_equal((int)qb_comparison_count(&comparison, QB_REGRESSION), 0);
    assert_int_equal((int)qb_comparison_count(&comparison, QB_INCOMPARABLE), 6);
    assert_ok(qb_compare_write_text(&comparison, &text));
    assert_non_null(strstr(qb_str_get(&text), "projected figure"));
    qb_str_free(&text);
    qb_comparison_free(&comparison);
    qb_rows_free(&before);
    qb_rows_free(&after);
    qb_results_close(&measured);
    qb_results_close(&projected);
}

static void test_project__every_device_is_plausible(void **state) {
    (void)state;
    size_t n = 0;
    for (const qb_target *t; (t = qb_target_at(n)); n++) {
        assert_ptr_equal(qb_target_find(t->name), t);
        assert_true(t->copy_share > 0.4 && t->copy_share < 1 && t->gemm_share > 0.4 && t->gemm_share < 1);
        assert_true(t->memory_bytes > 14e9 && t->memory_bytes < 160e9);
        assert_true(t->bandwidth_bytes_per_s >= 300e9 && t->fp16_flop_per_s > t->fp32_flop_per_s);
    }
    assert_int_equal(n, 7);
    assert_null(qb_target_find("t400"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_project__speeds_are_the_roofline_times_the_measured_share),
        cmocka_unit_test(test_project__gptq_work_is_that_of_the_reference),
        cmocka_unit_test(test_project__what_does_not_fit_has_no_speed),
        cmocka_unit_test(test_project__missing_shares_are_said_not_guessed),
        cmocka_unit_test(test_project__a_projection_is_not_compared_with_a_measurement),
        cmocka_unit_test(test_project__every_device_is_plausible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
