/* The commands that take one model: quantize, eval, generate and tokenize on the demo model, a GGUF file and
   the shared material. */
#include "tests/program.h"

#include "results/results.h"

#include <math.h>

/* The built-in model as a directory of its own, for files to be put beside. */
static void copy_demo(const char *dir) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    assert_ok(qb_make_dirs(dir));
    for (size_t i = 0; i < 3; i++) {
        char *from = qb_path_join(QB_SOURCE_DIR "/bench/demo", files[i]), *to = qb_path_join(dir, files[i]);
        assert_ok(qb_copy_file(from, to));
        qb_free(from);
        qb_free(to);
    }
}

static void test_cli_models__eval_states_its_peak_before_it_starts(void **state) {
    (void)state;
    outcome o = BENCH("eval", "demo", "--dataset", "demo", "--protocol", "gptq-256", "--memory-gb", "0.003",
                      "--dry-run");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "demo, gptq-256: 130 windows, layer by layer in "));
    assert_non_null(strstr(o.out, "peak memory "));
    outcome_free(&o);
    o = BENCH("eval", "demo", "--dataset", "demo", "--protocol", "gptq-256", "--dry-run", "--json");
    assert_worked(&o);
    qb_json *plans;
    assert_ok(qb_json_parse(o.out, strlen(o.out), "plans", &plans));
    assert_true(qb_json_number(qb_json_get(qb_json_first(plans), "peak_bytes")) > 2e6);
    qb_json_free(plans);
    outcome_free(&o);
}

/* Without a dataset and a protocol the demo is measured on its own text, in windows that it can hold. */
static void test_cli_models__eval_has_defaults_that_fit(void **state) {
    (void)state;
    outcome o = BENCH("eval", "demo", "--max-windows", "2");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "(demo, gptq-256, 2 windows"));
    outcome_free(&o);
}

/* Several models are set against each other window by window, as in a table: a checkpoint that came quantized
   goes back to the one unquantized model of its shapes. */
static void test_cli_models__eval_of_several_pairs_their_windows(void **state) {
    (void)state;
    char nf4[256];
    snprintf(nf4, sizeof nf4, "%s", scratch_path("nf4"));
    outcome o = BENCH("quantize", "demo", "--method", "nf4", "-o", nf4);
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("eval", "demo", nf4, "--dataset", "demo", "--max-windows", "10");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "\nF16 against NF4 published on demo, gptq-256: -0.0"));
    assert_non_null(strstr(o.out, " nats a token, paired over 10 windows\n"));
    outcome_free(&o);
    o = BENCH("eval", "demo", "--dataset", "demo", "--max-windows", "2");
    assert_worked(&o);
    assert_null(strstr(o.out, "against"));
    outcome_free(&o);
}

static void test_cli_models__gguf_files_stand_where_models_do(void **state) {
    (void)state;
    static const char gguf[] = QB_SOURCE_DIR "/tests/golden/gguf/k.gguf";
    outcome o = BENCH("tokenize", gguf, "--text", "the", "--ids");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "\n1 32"));
    outcome_free(&o);
    o = BENCH("generate", gguf, "--prompt", "the king", "--tokens", "4");
    assert_worked(&o);
    outcome_free(&o);
    char suite[1024];
    snprintf(suite, sizeof suite,
             "{\"name\":\"g\",\"summary\":\"s\",\"models\":[\"%s\"],\"backends\":[\"cpu\"],"
             "\"methods\":[{\"method\":\"none\"}],\"datasets\":[\"demo\"],\"protocols\":[\"gptq-64\"],"
             "\"metrics\":[\"perplexity\",\"memory\"],\"max_windows\":4}",
             gguf);
    const char *path = scratch_path("gguf-suite.json"), *out = scratch_path("gguf.json");
    assert_ok(qb_file_write_atomic(path, suite, strlen(suite)));
    o = BENCH("run", "--suite", path, "-o", out);
    assert_worked(&o);
    outcome_free(&o);
    qb_json *json;
    assert_ok(qb_json_read(out, 1 << 24, &json));
    const qb_json *c = qb_json_first(qb_json_get(json, "cases"));
    assert_string_equal(qb_json_string(qb_json_get(c, "status")), "ok");
    assert_string_equal(qb_json_string(qb_json_get(qb_json_get(c, "config"), "method")), "q4_1");
    assert_string_equal(qb_json_string(qb_json_get(qb_json_get(c, "config"), "layout")), "gguf");
    assert_true(fabs(qb_json_number(qb_json_get(qb_json_get(c, "model"), "bits_per_weight")) - 4.6823) <
                1e-3);
    qb_json_free(json);
    assert_refused(BENCH("quantize", gguf, "--method", "rtn", "-o", scratch_path("no")), 2,
                   "already quantized");
}

static void test_cli_models__the_main_job_on_real_weights(void **state) {
    (void)state;
    const char *model = shared_path("models/stories260K-hf"), *data = shared_path("data");
    char *w4 = scratch_path("stories-nf4");
    outcome o = BENCH("quantize", model, "--method", "nf4", "-o", w4, "--json");
    assert_worked(&o);
    qb_json *report = json_of(&o);
    assert_true(qb_json_number(qb_json_get(qb_json_get(report, "quantization"), "bits_per_weight")) < 5);
    qb_json_free(report);
    outcome_free(&o);
    double perplexity[2];
    const char *models[2] = {model, w4};
    for (int i = 0; i < 2; i++) {
        o = BENCH("eval", models[i], "--dataset", "ptb", "--protocol", "gptq-256", "--max-windows", "4",
                  "--data", data, "--json");
        assert_worked(&o);
        qb_json *doc = json_of(&o);
        assert_ok(qb_results_validate(doc, "standard output"));
        const qb_json *row =
            qb_results_metric(qb_json_first(qb_json_get(doc, "cases")), "perplexity", "gptq-256", "ptb");
        perplexity[i] = qb_json_number(qb_json_get(row, "value"));
        assert_true(qb_json_number(qb_json_get(row, "windows")) == 4);
        qb_json_free(doc);
        outcome_free(&o);
    }
    assert_true(perplexity[1] > perplexity[0] && perplexity[1] < 1.5 * perplexity[0]);
    /* Greedy text is the same from run to run, and English. */
    o = BENCH("generate", model, "--prompt", "Once upon a time", "--tokens", "20", "--quiet");
    assert_worked(&o);
    assert_int_equal(strncmp(o.out, "Once upon a time, there was a little girl", 41), 0);
    assert_string_equal(o.err, "");
    outcome_free(&o);
    assert_refused(BENCH("quantize", w4, "--method", "rtn", "-o", scratch_path("again")), 2,
                   "already quantized");
    assert_refused(BENCH("eval", model, "--protocol", "gptq-2048", "--data", data), 2, "try gptq-512");
    assert_refused(BENCH("eval", model, "--dataset", "wikitext3", "--protocol", "gptq-128", "--data", data),
                   2, "did you mean wikitext2?");
    assert_refused(BENCH("eval", model, "--dataset", "ptb", "--protocol", "gptq-128", "--data", scratch), 1,
                   "ptb.valid.txt");
}

/* A special token that a file names and the model lacks: refused before anything is computed, unless it is
 * text. */
static void test_cli_models__special_tokens_beyond_the_model(void **state) {
    (void)state;
    const char *dir = scratch_path("beyond"), *text = scratch_path("beyond.txt");
    static const char config[] = "{\"pad_token\": \"[PAD]\"}";
    qb_str words = {0};
    copy_demo(dir);
    char *path = qb_path_join(dir, "tokenizer_config.json");
    assert_ok(qb_file_write_atomic(path, config, sizeof config - 1));
    for (int i = 0; i < 200; i++) qb_str_text(&words, i == 7 ? "[PAD] " : "the king ");
    assert_ok(qb_file_write_atomic(text, words.text, words.length));
    assert_refused(BENCH("eval", dir, "--dataset", text, "--protocol", "gptq-64"), 1,
                   "--special-tokens text");
    outcome o =
        BENCH("eval", dir, "--dataset", text, "--protocol", "gptq-64", "--special-tokens", "text", "--json");
    assert_worked(&o);
    qb_json *j = json_of(&o);
    const qb_json *row = qb_json_first(qb_json_get(qb_json_first(qb_json_get(j, "cases")), "metrics"));
    assert_string_equal(qb_json_string(qb_json_get(row, "special_tokens")), "text");
    assert_true(qb_json_number(qb_json_get(row, "special_tokens_found")) == 1);
    assert_true(qb_json_true(qb_json_get(row, "bos")));
    assert_ok(qb_results_validate(j, "standard output"));
    qb_json_free(j);
    outcome_free(&o);
    qb_str_free(&words);
    qb_free(path);
}

static void check_warned(const qb_json *document) {
    int n = 0;
    assert_ok(qb_results_validate(document, "the document"));
    for (const qb_json *c = qb_json_first(qb_json_get(document, "cases")); c; c = qb_json_next(c), n++) {
        assert_string_equal(qb_json_string(qb_json_get(c, "status")), "ok");
        assert_non_null(
            strstr(qb_json_string(qb_json_first(qb_json_get(c, "warnings"))), "\"gate_new\" (2.5)"));
    }
    assert_true(n > 0);
}

/* A key that nobody knows is named by every command, and stands in the cases that were measured. */
static void test_cli_models__unknown_keys_reach_the_result(void **state) {
    (void)state;
    const char *dir = scratch_path("unknown-key"), *out = scratch_path("unknown-key.json"),
               *suite = scratch_path("unknown-key-suite.json");
    char text[1024];
    qb_json *j;
    copy_demo(dir);
    char *path = qb_path_join(dir, "config.json");
    assert_ok(qb_json_read(path, 1 << 20, &j));
    qb_json_put_real(j, "gate_new", 2.5);
    char *config = NULL;
    assert_ok(qb_json_print(j, true, &config));
    assert_ok(qb_file_write_atomic(path, config, strlen(config)));
    qb_json_free(j);
    outcome o =
        BENCH("eval", dir, "--dataset", "demo", "--protocol", "gptq-64", "--max-windows", "1", "--json");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "warning: "));
    j = json_of(&o);
    check_warned(j);
    qb_json_free(j);
    outcome_free(&o);
    o = BENCH("inspect", dir);
    assert_worked(&o);
    assert_non_null(strstr(o.out, "\"gate_new\" (2.5) is neither read nor known"));
    outcome_free(&o);
    snprintf(text, sizeof text,
             "{\"name\":\"u\",\"summary\":\"s\",\"models\":[\"%s\"],\"backends\":[\"cpu\"],"
             "\"methods\":[{\"method\":\"none\"},{\"method\":\"rtn\"}],\"datasets\":[\"demo\"],"
             "\"protocols\":[\"gptq-64\"],\"metrics\":[\"perplexity\"],\"max_windows\":1}",
             dir);
    assert_ok(qb_file_write_atomic(suite, text, strlen(text)));
    o = BENCH("run", "--suite", suite, "-o", out);
    assert_worked(&o);
    outcome_free(&o);
    assert_ok(qb_json_read(out, 1 << 24, &j));
    assert_int_equal(qb_json_count(qb_json_get(j, "cases")), 2);
    check_warned(j);
    qb_json_free(j);
    qb_free(config);
    qb_free(path);
}

/* A tensor that is not there is told before anything is measured. */
static void test_cli_models__missing_tensors_are_told_at_once(void **state) {
    (void)state;
    const char *dir = scratch_path("missing");
    static const char told[] = "holds no tensor model.layers.4.self_attn.q_proj.weight; the nearest name is";
    qb_json *j;
    copy_demo(dir);
    char *path = qb_path_join(dir, "config.json"), *config = NULL;
    assert_ok(qb_json_read(path, 1 << 20, &j));
    qb_json_put_int(j, "num_hidden_layers", 5); /* of 4 */
    assert_ok(qb_json_print(j, true, &config));
    assert_ok(qb_file_write_atomic(path, config, strlen(config)));
    assert_refused(BENCH("eval", dir, "--dataset", "demo", "--dry-run"), 1, told);
    assert_refused(BENCH("speed", dir, "--dry-run"), 1, told);
    assert_refused(BENCH("quantize", dir, "--method", "rtn", "--dry-run"), 1, told);
    assert_refused(BENCH("run", "--suite", "demo", "--model", dir, "--dry-run"), 1, told);
    qb_json_free(j);
    qb_free(config);
    qb_free(path);
}

/* Every end-of-sequence id of generation_config.json ends a text. */
static void test_cli_models__generate_ends_at_every_eos(void **state) {
    (void)state;
    const char *dir = scratch_path("stops");
    int32_t seventh = -1;
    size_t first = 0;
    copy_demo(dir);
    for (int with = 0; with < 2; with++) {
        outcome o = BENCH("generate", dir, "--prompt", "the", "--tokens", "12", "--json");
        assert_worked(&o);
        qb_json *j = json_of(&o);
        size_t n = 0;
        for (const qb_json *id = qb_json_first(qb_json_get(j, "ids")); id; id = qb_json_next(id), n++)
            if (!with && n == 6) seventh = (int32_t)qb_json_number(id);
        if (with) {
            assert_int_equal(n, first);
        } else {
            assert_int_equal(n, 12);
            for (const qb_json *id = qb_json_first(qb_json_get(j, "ids"));
                 (int32_t)qb_json_number(id) != seventh; id = qb_json_next(id))
                first++;
        }
        qb_json_free(j);
        outcome_free(&o);
        char text[64], *path = qb_path_join(dir, "generation_config.json");
        snprintf(text, sizeof text, "{\"eos_token_id\": [100000, %d]}", seventh);
        assert_ok(qb_file_write_atomic(path, text, strlen(text)));
        qb_free(path);
    }
}

static void test_cli_models__tokenize_equals_the_golden_hash(void **state) {
    (void)state;
    const char *model = shared_path("tokenizers/llama2"), *data = shared_path("data");
    outcome o = BENCH("tokenize", model, "--dataset", "ptb", "--data", data, "--json");
    assert_worked(&o);
    qb_json *j = json_of(&o);
    /* golden/text.json */
    assert_true(qb_json_number(qb_json_get(j, "count")) == 95280);
    assert_true(qb_json_number(qb_json_get(j, "special_tokens_found")) == 3354);
    assert_string_equal(qb_json_string(qb_json_get(j, "special_tokens")), "file");
    assert_true(qb_json_true(qb_json_get(j, "bos")));
    assert_string_equal(qb_json_string(qb_json_get(j, "sha256")),
                        "89efea7159a3fce5cb289277c41d0c05777e2cca6d2ba5ecf8b55e8df258161f");
    qb_json_free(j);
    outcome_free(&o);
    o = BENCH("tokenize", model, "--dataset", "ptb", "--data", data, "--json", "--special-tokens", "text");
    assert_worked(&o);
    j = json_of(&o);
    assert_true(qb_json_number(qb_json_get(j, "count")) == 101988);
    assert_true(qb_json_number(qb_json_get(j, "special_tokens_found")) == 3485); /* as it is spelt */
    assert_string_equal(qb_json_string(qb_json_get(j, "sha256")),
                        "2111dcc121299cc1e7b6ee5d4d063240f52dc29ab9f222680f97b1973e0a56c1");
    qb_json_free(j);
    outcome_free(&o);
    o = BENCH("tokenize", model, "--text", "Hello world", "--ids", "--json");
    assert_worked(&o);
    j = json_of(&o);
    assert_int_equal(qb_json_count(qb_json_get(j, "ids")), 3); /* BOS 1, 15043, 3186 */
    assert_true(qb_json_number(qb_json_first(qb_json_get(j, "ids"))) == 1);
    qb_json_free(j);
    outcome_free(&o);
    o = BENCH("tokenize", model, "--decode", "1,15043,3186");
    assert_worked(&o);
    assert_string_equal(o.out, "Hello world\n");
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli_models__eval_states_its_peak_before_it_starts),
        cmocka_unit_test(test_cli_models__eval_has_defaults_that_fit),
        cmocka_unit_test(test_cli_models__eval_of_several_pairs_their_windows),
        cmocka_unit_test(test_cli_models__gguf_files_stand_where_models_do),
        cmocka_unit_test(test_cli_models__the_main_job_on_real_weights),
        cmocka_unit_test(test_cli_models__special_tokens_beyond_the_model),
        cmocka_unit_test(test_cli_models__unknown_keys_reach_the_result),
        cmocka_unit_test(test_cli_models__missing_tensors_are_told_at_once),
        cmocka_unit_test(test_cli_models__generate_ends_at_every_eos),
        cmocka_unit_test(test_cli_models__tokenize_equals_the_golden_hash),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
