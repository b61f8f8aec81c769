/* Suites with adapters: {"model": BASE, "adapter": ADAPTER} is merged into the cache and measured beside its
 * base. */
#include "tests/program.h"

#include "checkpoint/writer.h"
#include "model/model.h"
#include "results/results.h"
#include "tests/checkpoint_files.h"

static char *base, *adapter, *suite; /* paths, made once */

/* ---- an adapter of one linear of the demo model ---- */

static void write_adapter(const char *dir, int64_t rows, int64_t cols, float size) {
    char old[1200], new[1200];
    float *values;
    qb_writer *w;
    static const char a[] = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                      b[] = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
    assert_ok(qb_alloc((size_t)(rows + cols), sizeof *values, &values));
    for (int64_t i = 0; i < rows + cols; i++) values[i] = size * (float)((i * 7) % 13 - 6);
    assert_ok(qb_writer_create(dir, true, 0, &w));
    assert_ok(qb_writer_plan(w, a, QB_DTYPE_F32, 2, (int64_t[]){1, cols}));
    assert_ok(qb_writer_plan(w, b, QB_DTYPE_F32, 2, (int64_t[]){rows, 1}));
    assert_ok(qb_writer_begin(w));
    assert_ok(qb_writer_put(w, a, values, cols * 4));
    assert_ok(qb_writer_put(w, b, values + cols, rows * 4));
    assert_ok(qb_writer_finish(w));
    qb_free(values);
    snprintf(old, sizeof old, "%s/model.safetensors", dir);
    snprintf(new, sizeof new, "%s/adapter_model.safetensors", dir);
    assert_int_equal(rename(old, new), 0);
    write_text(dir, "adapter_config.json",
               "{\"peft_type\":\"LORA\",\"r\":1,\"lora_alpha\":1,\"target_modules\":[\"layers.0.self_attn.q_"
               "proj\"]}");
}

static int begin(void **state) {
    char *spec;
    qb_model *m;
    program_begin(state);
    base = qb_strdup(scratch_path("demo-nf4"));
    adapter = qb_strdup(scratch_path("tuned"));
    suite = qb_strdup(scratch_path("suite.json"));
    outcome o = BENCH("quantize", "demo", "-m", "nf4", "-o", base, "-q");
    assert_worked(&o);
    outcome_free(&o);
    assert_ok(qb_model_resolve("demo", &spec));
    assert_ok(qb_model_open(spec, &m));
    write_adapter(adapter, m->config.n_heads * m->config.head_dim, m->config.hidden, 0.05F);
    qb_model_close(m);
    qb_free(spec);
    qb_str text = {0};
    qb_str_printf(
        &text,
        "{\"name\":\"t\",\"summary\":\"s\",\"models\":[\"%s\",{\"model\":\"%s\",\"adapter\":\"%s\"}],"
        "\"methods\":[{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":4,\"group_size\":32}],"
        "\"datasets\":[\"demo\"],\"protocols\":[\"gptq-64\"],\"metrics\":[\"perplexity\",\"memory\"],"
        "\"max_windows\":4}",
        base, base, adapter);
    assert_ok(qb_file_write_atomic(suite, text.text, text.length));
    qb_str_free(&text);
    return 0;
}

static int end(void **state) {
    qb_free(base);
    qb_free(adapter);
    qb_free(suite);
    return program_end(state);
}

static double perplexity_of(const qb_results *r, const char *id) {
    const qb_json *row = qb_results_metric(qb_results_case(r, id), "perplexity", NULL, NULL);
    assert_non_null(row);
    return qb_json_number(qb_json_get(row, "value"));
}

static const char *text_of(const qb_results *r, const char *id, const char *part, const char *key) {
    const char *text = qb_json_string(qb_json_get(qb_json_get(qb_results_case(r, id), part), key));
    return text ? text : "";
}

/* ---- tests ---- */

static void test_run__an_adapter_is_a_row_beside_its_base(void **state) {
    (void)state;
    qb_results r;
    char *out = scratch_path("rows.json"), *merged = scratch_path("merged");
    outcome o = BENCH("run", "-s", suite, "-o", out);
    assert_worked(&o);
    assert_non_null(strstr(o.err, "merging into demo-nf4"));
    outcome_free(&o);
    assert_ok(qb_results_open(out, &r));
    const qb_json *skipped = qb_results_case(&r, "demo-nf4/rtn-4b-g32/cpu");
    assert_string_equal(qb_json_string(qb_json_get(skipped, "status")), "skipped");
    double before = perplexity_of(&r, "demo-nf4/as-is/cpu"),
           after = perplexity_of(&r, "demo-nf4+tuned/f16/cpu"),
           quantized = perplexity_of(&r, "demo-nf4+tuned/rtn-4b-g32/cpu");
    assert_true(after != before && quantized != after);
    assert_string_equal(text_of(&r, "demo-nf4+tuned/f16/cpu", "model", "name"), "demo-nf4+tuned");
    const qb_json *how =
        qb_json_get(qb_json_get(qb_results_case(&r, "demo-nf4+tuned/f16/cpu"), "config"), "merged");
    assert_string_equal(qb_json_string(qb_json_get(how, "base")), base);
    assert_string_equal(qb_json_string(qb_json_get(how, "adapter")), adapter);
    assert_int_equal(strlen(qb_json_string(qb_json_get(how, "adapter_sha256"))), 64);
    /* The row is of the very model that `bench merge` writes. */
    o = BENCH("merge", base, adapter, "-o", merged, "-q");
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("eval", merged, "--dataset", "demo", "--protocol", "gptq-64", "--max-windows", "4", "--json",
              "-q");
    assert_worked(&o);
    qb_json *doc = json_of(&o);
    const qb_json *c = qb_json_first(qb_json_get(doc, "cases"));
    assert_string_equal(qb_json_string(qb_json_get(qb_json_get(c, "model"), "sha256")),
                        text_of(&r, "demo-nf4+tuned/f16/cpu", "model", "sha256"));
    assert_true(qb_json_number(qb_json_get(qb_results_metric(c, "perplexity", NULL, NULL), "value")) ==
                after);
    qb_json_free(doc);
    outcome_free(&o);
    qb_results_close(&r);
}

/* With `base` all models of the recipe stand in one picture, told apart by whose the case is. */
static void test_run__models_of_one_base_stand_in_one_picture(void **state) {
    (void)state;
    static const struct {
        const char *id, *label, *of;
    } wanted[] = {
        {"demo/rtn-4b-g32/cpu", "RTN 4b g32", "demo"},
        {"demo-nf4/as-is/cpu", "NF4 published", "demo"},
        {"tuned-nf4/rtn-4b-g32/cpu", "tuned-nf4 RTN 4b g32", "demo"},
        {"demo+tuned/rtn-4b-g32/cpu", "RTN 4b g32", "demo+tuned"},
    };
    char *path = scratch_path("recipe-suite.json"), *out = scratch_path("recipe.json");
    qb_str text = {0};
    qb_results r;
    qb_str_printf(
        &text,
        "{\"name\":\"t\",\"models\":[\"demo\",\"%s\",{\"model\":\"%s\",\"adapter\":\"%s\",\"label\":"
        "\"tuned-nf4\",\"base\":\"demo\"},{\"model\":\"demo\",\"adapter\":\"%s\"}],\"methods\":[{"
        "\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":4,\"group_size\":32}],\"datasets\":[\"demo\"],"
        "\"protocols\":[\"gptq-64\"],\"metrics\":[\"perplexity\",\"divergence\"],\"max_windows\":1}",
        base, base, adapter, adapter);
    assert_ok(qb_file_write_atomic(path, text.text, text.length));
    qb_str_free(&text);
    outcome o = BENCH("run", "-s", path, "-o", out, "-q");
    assert_worked(&o);
    outcome_free(&o);
    assert_ok(qb_results_open(out, &r));
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        assert_string_equal(text_of(&r, wanted[i].id, "display", "of"), wanted[i].of);
        assert_string_equal(text_of(&r, wanted[i].id, "display", "label"), wanted[i].label);
    }
    /* The nf4 checkpoint goes back to the one model of its shapes that no adapter was merged into. */
    assert_non_null(
        qb_results_metric(qb_results_case(&r, "demo-nf4/as-is/cpu"), "kl_divergence", NULL, NULL));
    qb_results_close(&r);
}

static void test_run__a_merged_model_is_made_once(void **state) {
    (void)state;
    qb_results a, b;
    char *first = scratch_path("first.json"), *second = scratch_path("second.json"),
         *third = scratch_path("third.json");
    outcome o = BENCH("run", "-s", suite, "-o", first);
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("run", "-s", suite, "-o", second);
    assert_worked(&o);
    assert_null(strstr(o.err, "merging into"));
    outcome_free(&o);
    o = BENCH("run", "-s", suite, "-o", third, "--no-cache");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "merging into"));
    outcome_free(&o);
    assert_ok(qb_results_open(first, &a));
    assert_ok(qb_results_open(third, &b));
    static const char id[] = "demo-nf4+tuned/rtn-4b-g32/cpu";
    assert_string_equal(text_of(&a, id, "model", "sha256"), text_of(&b, id, "model", "sha256"));
    qb_results_close(&a);
    qb_results_close(&b);
}

static void test_run__an_adapter_that_does_not_fit_ends_the_run_at_once(void **state) {
    (void)state;
    char *wrong = scratch_path("wrong"), *out = scratch_path("wrong.json"),
         *path = scratch_path("wrong-suite.json");
    write_adapter(wrong, 8, 8, 1);
    qb_str text = {0};
    qb_str_printf(&text,
                  "{\"name\":\"t\",\"summary\":\"s\",\"models\":[{\"model\":\"%s\",\"adapter\":\"%s\"}],"
                  "\"methods\":[{\"method\":\"none\"}],\"metrics\":[\"memory\"]}",
                  base, wrong);
    assert_ok(qb_file_write_atomic(path, text.text, text.length));
    qb_str_free(&text);
    assert_refused(BENCH("run", "-s", path, "-o", out, "-q"), 1,
                   "is this the base that the adapter was made for");
    assert_false(qb_path_exists(out));
    assert_refused(BENCH("run", "-s", path, "--synthetic", "-q"), 2, "random weights have none");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run__an_adapter_is_a_row_beside_its_base),
        cmocka_unit_test(test_run__models_of_one_base_stand_in_one_picture),
        cmocka_unit_test(test_run__a_merged_model_is_made_once),
        cmocka_unit_test(test_run__an_adapter_that_does_not_fit_ends_the_run_at_once),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
