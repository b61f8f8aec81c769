/* Suite files: what is read, refused, overridden and expanded. */
#include "tests/support.h"

#include "base/file.h"
#include "bench/suite/keys.h"

static const char tiny[] =
    "{\"name\":\"t\",\"summary\":\"s\",\"models\":[\"org/some model\"],"
    "\"methods\":[{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":[8,4],\"group_size\":[32,-1]},"
    "{\"method\":\"gptq\",\"bits\":4,\"act_order\":true,\"samples\":8,\"seqlen\":64},"
    "{\"method\":\"nf4\",\"double_quant\":[false,true]}],"
    "\"datasets\":[\"wikitext2\"],\"protocols\":[\"gptq-128\"],"
    "\"speed\":{\"prefill\":[16],\"repeat\":2},\"max_windows\":3}";

static qb_suite parsed(const char *text) {
    qb_suite s;
    assert_ok(qb_suite_parse(text, strlen(text), "t.json", &s));
    return s;
}

static void test_suite__expands_lists_in_order(void **state) {
    (void)state;
    static const char *const ids[] = {
        "some-model/as-is/cpu",      "some-model/rtn-8b-g32/cpu", "some-model/rtn-8b-row/cpu",
        "some-model/rtn-4b-g32/cpu", "some-model/rtn-4b-row/cpu", "some-model/gptq-4b-g128-act/cpu",
        "some-model/nf4/cpu",        "some-model/nf4-dq/cpu",
    };
    qb_suite s = parsed(tiny);
    qb_cases cases;
    assert_ok(qb_suite_expand(&s, NULL, &cases));
    assert_int_equal(cases.count, sizeof ids / sizeof ids[0]);
    for (size_t i = 0; i < cases.count; i++) assert_string_equal(cases.items[i].id, ids[i]);
    assert_null(cases.items[0].variant->method);
    assert_int_equal(cases.items[2].variant->config.bits, 8);
    assert_int_equal(cases.items[2].variant->config.group_size, -1);
    assert_true(cases.items[5].variant->config.act_order);
    assert_int_equal(cases.items[5].variant->config.samples, 8);
    assert_int_equal(s.config.max_windows, 3);
    assert_int_equal(s.speed.prefill.n, 1);
    assert_int_equal(s.speed.repeat, 2);
    qb_free(cases.items);
    qb_suite_free(&s);
}

static void test_suite__only_filters_by_id_label_and_method(void **state) {
    (void)state;
    qb_suite s = parsed(tiny);
    static const struct {
        const char *only;
        size_t count;
    } rows[] = {{"none", 1}, {"rtn", 4}, {"rtn-4b*", 2}, {"*/nf4*/cpu", 2}, {"none,gptq", 2}, {"f16", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_cases cases;
        assert_ok(qb_suite_expand(&s, rows[i].only, &cases));
        assert_int_equal(cases.count, rows[i].count);
        qb_free(cases.items);
    }
    qb_cases cases;
    assert_fails(qb_suite_expand(&s, "awq*", &cases), QB_ERR_USAGE, "matches no case");
    qb_suite_free(&s);
}

static void test_suite__set_overrides_every_kind_of_key(void **state) {
    (void)state;
    qb_suite s = parsed(tiny);
    assert_ok(qb_suite_set(&s, "max_windows=7"));
    assert_ok(qb_suite_set(&s, "repeat=9"));
    assert_ok(qb_suite_set(&s, "samples=16"));
    assert_ok(qb_suite_set(&s, "datasets=ptb,c4"));
    assert_ok(qb_suite_set(&s, "prefill=1,2,3"));
    assert_int_equal(s.config.max_windows, 7);
    /* The rule of special tokens is the evaluation's and, where a method names none, the calibration's. */
    assert_string_equal(s.config.special_tokens, "protocol");
    assert_string_equal(s.variants[5].config.special_tokens, "file");
    assert_ok(qb_suite_set(&s, "special_tokens=legacy"));
    assert_string_equal(s.config.special_tokens, "legacy");
    assert_string_equal(s.variants[5].config.special_tokens, "legacy");
    assert_fails(qb_suite_set(&s, "special_tokens=slow"), QB_ERR_USAGE, "slow");
    assert_int_equal(s.speed.repeat, 9);
    assert_int_equal(s.speed.prefill.n, 3);
    assert_int_equal(s.datasets.n, 2);
    assert_string_equal(s.datasets.items[1], "c4");
    assert_int_equal(s.variants[5].config.samples, 16);
    /* Two entries that become one case are measured once. */
    assert_ok(qb_suite_set(&s, "group_size=64"));
    qb_cases cases;
    assert_ok(qb_suite_expand(&s, "rtn", &cases));
    assert_int_equal(cases.count, 2);
    assert_string_equal(cases.items[0].variant->label, "rtn-8b-g64");
    qb_free(cases.items);
    qb_suite_free(&s);
}

static void test_suite__set_refuses_what_it_does_not_know(void **state) {
    (void)state;
    qb_suite s = parsed(tiny);
    assert_fails(qb_suite_set(&s, "sampels=16"), QB_ERR_USAGE, "did you mean samples?");
    assert_fails(qb_suite_set(&s, "max_windos=1"), QB_ERR_USAGE, "did you mean max_windows?");
    assert_fails(qb_suite_set(&s, "repeat"), QB_ERR_USAGE, "key=value");
    assert_fails(qb_suite_set(&s, "bits=5000"), QB_ERR_USAGE, "--bits");
    assert_fails(qb_suite_set(&s, "datasets=wikitext3"), QB_ERR_USAGE, "did you mean wikitext2?");
    assert_fails(qb_suite_set(&s, "protocols=gptq-x"), QB_ERR_USAGE, "gptq");
    assert_fails(qb_suite_set(&s, "metrics=perplexty"), QB_ERR_USAGE, "did you mean perplexity?");
    qb_suite_free(&s);
}

/* Each document differs from a good one in one place. */
static void test_suite__refuses_bad_files_with_one_line(void **state) {
    (void)state;
#define SUITE(members) "{\"name\":\"t\",\"summary\":\"s\"," members "}"
    static const struct {
        const char *text;
        const char *needle;
    } rows[] = {
        {SUITE("\"models\":[\"m\"],\"methdos\":[{\"method\":\"none\"}]"), "did you mean methods?"},
        {SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"gtpq\"}]"), "did you mean gptq?"},
        {SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"rtn\",\"group_sise\":1}]"),
         "did you mean group_size?"},
        {SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"none\",\"bits\":4}]"),
         "unknown key bits; known here: method, label"},
        {SUITE("\"models\":[{\"model\":\"m\",\"bits\":4}],\"methods\":[{\"method\":\"none\"}]"),
         "unknown key bits; known here: model, label, base, adapter"},
        {SUITE("\"models\":[\"m\"],\"bits\":4,\"methods\":[{\"method\":\"none\"}]"),
         "\"bits\" is a method's"},
        {SUITE("\"models\":[\"m\"],\"decode\":4,\"methods\":[{\"method\":\"none\"}]"),
         "\"decode\" is of speed"},
        {SUITE("\"models\":[\"m\"],\"xyzzy\":4,\"methods\":[{\"method\":\"none\"}]"),
         "`bench help suite` says"},
        {SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"rtn\",\"bits\":\"4\"}]"), "must be a number"},
        {SUITE("\"models\":[\"m\"],\"methods\":[]"), "\"methods\" must be a list"},
        {SUITE("\"models\":[],\"methods\":[{\"method\":\"none\"}]"), "\"models\" must be a list"},
        {SUITE("\"models\":[1],\"methods\":[{\"method\":\"none\"}]"), "strings and objects only"},
        {SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"none\"}]"), "perplexity needs"},
        {SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"none\"}],\"backends\":[\"cpi\"]"),
         "did you mean cpu?"},
        {SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"none\"}],\"metrics\":[\"memory\"],\"speed\":{"
               "\"repeet\":1}"),
         "did you mean repeat?"},
        {SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"rtn\",\"label\":\"a\"},{\"method\":\"nf4\","
               "\"label\":\"a\"}],"
               "\"metrics\":[\"memory\"]"),
         "would both be called 'a'"},
        {SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"rtn\",\"label\":\"A "
               "B\"}],\"metrics\":[\"memory\"]"),
         "label"},
        {"{\"name\":\"Not a name\",\"summary\":\"s\"}", "\"name\" must be"},
        {"{\"summary\":\"s\"}", "name"},
        {"[]", "JSON object"},
        {"{", "JSON"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_suite s;
        qb_status st = qb_suite_parse(rows[i].text, strlen(rows[i].text), "t.json", &s);
        if (st == QB_OK || !strstr(qb_error_text(), rows[i].needle) || strchr(qb_error_text(), '\n'))
            fail_msg("%s: got %s: %s; expected \"%s\"", rows[i].text, qb_status_name(st), qb_error_text(),
                     rows[i].needle);
        assert_non_null(strstr(qb_error_text(), "t.json"));
    }
}

/* A backend that this build lacks is another thing than a word that names none, in a suite as elsewhere. */
static void test_suite__a_backend_that_is_not_built_is_named(void **state) {
    (void)state;
    static const char text[] =
        SUITE("\"models\":[\"m\"],\"methods\":[{\"method\":\"none\"}],\"backends\":[\"cuda\"]");
    qb_suite s;
    if (qb_backend_find("cuda")) skip();
    assert_fails(qb_suite_parse(text, strlen(text), "t.json", &s), QB_ERR_USAGE,
                 "t.json: this build has no backend 'cuda'");
}

static void test_suite__limits_the_product(void **state) {
    (void)state;
    qb_str text = {0};
    qb_str_text(&text,
                "{\"name\":\"t\",\"summary\":\"s\",\"models\":[\"m\"],\"metrics\":[\"memory\"],\"methods\":["
                "{\"method\":\"gptq\"");
    static const char *const keys[] = {"samples", "seqlen", "seed"};
    for (size_t k = 0; k < 3; k++) {
        qb_str_printf(&text, ",\"%s\":[", keys[k]);
        for (int i = 1; i <= 60; i++) qb_str_printf(&text, i > 1 ? ",%d" : "%d", i);
        qb_str_text(&text, "]");
    }
    qb_str_text(&text, "}]}");
    qb_suite s;
    assert_fails(qb_suite_parse(qb_str_get(&text), text.length, "t.json", &s), QB_ERR_USAGE, "more than");
    qb_str_free(&text);
}

static void test_suite__models_of_one_name_are_told_apart(void **state) {
    (void)state;
    qb_suite s = parsed(tiny);
    qb_cases cases;
    assert_ok(qb_suite_set_list(&s, "models", "/a/m,/b/m/"));
    assert_fails(qb_suite_expand(&s, NULL, &cases), QB_ERR_USAGE, "would both be called m");
    qb_suite_free(&s);
}

static void test_suite__unknown_name_suggests_the_nearest(void **state) {
    (void)state;
    setenv("BENCH_SHARE", QB_SOURCE_DIR "/bench", 1);
    qb_suite s;
    assert_fails(qb_suite_load("llama2-7", &s), QB_ERR_USAGE, "did you mean llama2-7b?");
    assert_fails(qb_suite_load("./nowhere.json", &s), QB_ERR_NOT_FOUND, "nowhere.json");
}

static void test_suite__the_committed_ones_load(void **state) {
    (void)state;
    static const char *const names[] = {
        "demo",   "llama2-7b",  "llama2-13b", "llama2-70b", "nightly", "smollm2", "opt",    "bloom", "llama",
        "llama3", "mistral-7b", "qwen2.5",    "qwen3",      "gemma2",  "gemma3",  "pythia", "gpt2",  "seeds"};
    setenv("BENCH_SHARE", QB_SOURCE_DIR "/bench", 1);
    char **found;
    size_t n;
    assert_ok(qb_suite_names(&found, &n));
    assert_int_equal(n, sizeof names / sizeof names[0]);
    for (size_t i = 0; i < n; i++) {
        qb_suite s;
        qb_cases cases;
        assert_ok(qb_suite_load(found[i], &s));
        assert_string_equal(s.name, found[i]);
        assert_ok(qb_suite_expand(&s, NULL, &cases));
        assert_true(cases.count >= 9);
        assert_null(
            cases.items[0].variant->method); /* the unquantized model comes first: plots draw it as a line */
        qb_free(cases.items);
        qb_suite_free(&s);
        qb_free(found[i]);
    }
    qb_free(found);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        qb_suite s;
        assert_ok(qb_suite_load(names[i], &s));
        qb_suite_free(&s);
    }
}

/* Models with labels and bases, methods for some of them only, no summary; printed, it is the same suite
 * again. */
static void test_suite__models_have_labels_and_methods_their_models(void **state) {
    (void)state;
    static const char text[] =
        "{\"name\":\"t\",\"models\":[\"org/plain\",{\"model\":\"org/"
        "quantized\",\"label\":\"Q4_K_M\",\"base\":"
        "\"org/plain\"}],\"methods\":[{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":[8,4],\"models\":["
        "\"org/plain\"]}],\"metrics\":[\"memory\"]}";
    static const char *const ids[] = {"plain/as-is/cpu", "plain/rtn-8b-g128/cpu", "plain/rtn-4b-g128/cpu",
                                      "Q4_K_M/as-is/cpu"};
    qb_suite s = parsed(text);
    assert_string_equal(s.summary, "");
    for (int printed = 0; printed < 2; printed++) {
        qb_cases cases;
        assert_ok(qb_suite_expand(&s, NULL, &cases));
        assert_int_equal(cases.count, sizeof ids / sizeof ids[0]);
        for (size_t i = 0; i < cases.count; i++) assert_string_equal(cases.items[i].id, ids[i]);
        assert_int_equal(qb_suite_model_find(&s, "Q4_K_M"), 1);
        assert_int_equal(qb_suite_model_find(&s, s.model_entries[1].base), 0);
        assert_int_equal(qb_suite_model_find(&s, "plain"), 0);      /* what ids call it */
        assert_int_equal(qb_suite_model_find(&s, "quantized"), -1); /* its label stands for that */
        qb_free(cases.items);
        qb_json *json = qb_suite_json(&s);
        char *again;
        assert_ok(qb_json_print(json, true, &again));
        qb_json_free(json);
        qb_suite_free(&s);
        s = parsed(again);
        qb_free(again);
    }
    /* Models of the command line take every method. */
    qb_cases cases;
    assert_ok(qb_suite_set_list(&s, "models", "other"));
    assert_ok(qb_suite_expand(&s, NULL, &cases));
    assert_int_equal(cases.count, 3);
    qb_free(cases.items);
    qb_suite_free(&s);
    static const struct {
        const char *models, *method, *words;
    } bad[] = {
        {"[{\"label\":\"x\"}]", "{\"method\":\"none\"}", "models[0] lacks \"model\""},
        {"[{\"model\":\"a\",\"label\":\"a b\"}]", "{\"method\":\"none\"}", "\"label\" must be"},
        {"[{\"model\":\"a\",\"base\":\"b\"}]", "{\"method\":\"none\"}", "'b' is no other model"},
        {"[{\"model\":\"a\",\"base\":\"a\"}]", "{\"method\":\"none\"}", "'a' is no other model"},
        {"[{\"model\":\"a\",\"adapter\":\"\"}]", "{\"method\":\"none\"}", "\"adapter\" is empty"},
        {"[{\"adapter\":\"a\"}]", "{\"method\":\"none\"}", "models[0] lacks \"model\""},
        {"[{\"model\":\"a\",\"adapter\":\"b\",\"base\":\"a\"}]", "{\"method\":\"none\"}",
         "'a' is no other model"},
        {"[{\"model\":\"a\",\"lable\":\"b\"}]", "{\"method\":\"none\"}", "did you mean label"},
        {"[\"a\"]", "{\"method\":\"none\",\"models\":[\"b\"]}", "'b', which is no model of the suite"},
        {"[\"a\"]", "{\"method\":\"none\",\"models\":[]}", "a list of names that is not empty"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char wrong[512];
        snprintf(wrong, sizeof wrong,
                 "{\"name\":\"t\",\"models\":%s,\"methods\":[%s],\"metrics\":[\"memory\"]}", bad[i].models,
                 bad[i].method);
        assert_fails(qb_suite_parse(wrong, strlen(wrong), "t.json", &s), QB_ERR_USAGE, bad[i].words);
    }
}

/* A model and the same with an adapter are two, told apart by what stands behind the sign. */
static void test_suite__a_model_with_an_adapter_is_one_of_its_own(void **state) {
    (void)state;
    static const char text[] =
        "{\"name\":\"t\",\"models\":[\"org/base\",{\"model\":\"org/base\",\"adapter\":\"me/tuned/\"},"
        "{\"model\":\"org/base\",\"adapter\":\"me/other\",\"label\":\"second\",\"base\":\"org/base\"}],"
        "\"methods\":[{\"method\":\"rtn\",\"models\":[\"org/"
        "base\"]},{\"method\":\"nf4\",\"models\":[\"second\","
        "\"org/base+me/tuned/\"]}],\"metrics\":[\"memory\"]}";
    static const char *const ids[] = {"base/rtn-4b-g128/cpu", "base+tuned/nf4/cpu", "second/nf4/cpu"};
    qb_suite s = parsed(text);
    for (int printed = 0; printed < 2; printed++) {
        qb_cases cases;
        char *again;
        assert_ok(qb_suite_expand(&s, NULL, &cases));
        assert_int_equal(cases.count, 3);
        for (size_t i = 0; i < 3; i++) assert_string_equal(cases.items[i].id, ids[i]);
        assert_null(qb_suite_adapted(&s, cases.items[0].model));
        const qb_suite_model *m = qb_suite_adapted(&s, cases.items[1].model);
        assert_non_null(m);
        assert_string_equal(m->path, "org/base");
        assert_string_equal(m->adapter_path, "me/tuned/");
        assert_int_equal(qb_suite_model_find(&s, "org/base"), 0);
        qb_free(cases.items);
        qb_json *json = qb_suite_json(&s);
        assert_ok(qb_json_print(json, true, &again));
        qb_json_free(json);
        qb_suite_free(&s);
        s = parsed(again);
        qb_free(again);
    }
    qb_suite_free(&s);
}

/* A path is where it lies beside the suite's file; one with ./ only there; other words stay. */
static void test_suite__paths_are_beside_its_file(void **state) {
    (void)state;
    char *dir = scratch_make(), *file = qb_path_join(dir, "s.json"), *text = qb_path_join(dir, "notes.txt"),
         *absent = qb_path_join(dir, "./absent");
    static const char suite[] =
        "{\"name\":\"t\",\"models\":[\"./absent\",\"org/model\",\"demo\"],\"methods\":[{\"method\":\"gptq\","
        "\"calibration\":\"notes.txt\"}],\"datasets\":[\"notes.txt\",\"wikitext2\"],\"protocols\":[\"gptq-"
        "64\"]}";
    qb_suite s;
    assert_ok(qb_file_write_atomic(text, "words\n", 6));
    assert_ok(qb_file_write_atomic(file, suite, sizeof suite - 1));
    assert_ok(qb_suite_load(file, &s));
    assert_string_equal(s.models.items[0], absent);
    assert_string_equal(s.models.items[1], "org/model");
    assert_string_equal(s.models.items[2], "demo");
    assert_string_equal(s.datasets.items[0], text);
    assert_string_equal(s.datasets.items[1], "wikitext2");
    assert_string_equal(s.variants[0].config.calibration, text);
    qb_suite_free(&s);
    qb_free(file);
    qb_free(text);
    qb_free(absent);
    scratch_remove(dir);
}

/* docs/suites.md is what the program writes; every key that is read stands in it. */
static void test_suite__help_and_page_name_every_key(void **state) {
    (void)state;
    char shown[QB_SUITE_KEYS_MAX][48], *page;
    const char *names[QB_SUITE_KEYS_MAX];
    size_t n = qb_suite_key_names(shown, names);
    qb_str text = {0}, markdown = {0};
    assert_ok(qb_suite_help(false, &text));
    assert_ok(qb_suite_help(true, &markdown));
    for (size_t i = 0; i < n; i++) {
        char quoted[64];
        snprintf(quoted, sizeof quoted, "| `%s` |", names[i]);
        if (!strstr(qb_str_get(&text), names[i]) || !strstr(qb_str_get(&markdown), quoted))
            fail_msg("the help lacks %s", names[i]);
    }
    assert_ok(qb_file_read(QB_SOURCE_DIR "/docs/suites.md", 1 << 20, &page, NULL));
    if (strcmp(page, qb_str_get(&markdown)) != 0)
        fail_msg("docs/suites.md differs from `bench help suite markdown`: write it anew");
    qb_free(page);
    qb_str_free(&text);
    qb_str_free(&markdown);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suite__expands_lists_in_order),
        cmocka_unit_test(test_suite__only_filters_by_id_label_and_method),
        cmocka_unit_test(test_suite__set_overrides_every_kind_of_key),
        cmocka_unit_test(test_suite__set_refuses_what_it_does_not_know),
        cmocka_unit_test(test_suite__refuses_bad_files_with_one_line),
        cmocka_unit_test(test_suite__a_backend_that_is_not_built_is_named),
        cmocka_unit_test(test_suite__limits_the_product),
        cmocka_unit_test(test_suite__models_of_one_name_are_told_apart),
        cmocka_unit_test(test_suite__unknown_name_suggests_the_nearest),
        cmocka_unit_test(test_suite__the_committed_ones_load),
        cmocka_unit_test(test_suite__models_have_labels_and_methods_their_models),
        cmocka_unit_test(test_suite__a_model_with_an_adapter_is_one_of_its_own),
        cmocka_unit_test(test_suite__paths_are_beside_its_file),
        cmocka_unit_test(test_suite__help_and_page_name_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
