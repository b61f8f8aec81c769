/* Published perplexities beside measured ones, and one size of the suites that measure them. */
#include "bench/suite/suite.h"
#include "model/model.h"
#include "results/published.h"
#include "tests/support.h"

/* A document of one case. */
static void notes(const char *model, const char *config, const char *row, const char *data, double value,
                  bool outside, qb_str *out) {
    qb_str text = {0};
    qb_results r;
    qb_rows rows;
    qb_str_printf(
        &text,
        "{\"schema\":\"qb.results/"
        "2\",\"context\":{\"program\":{\"name\":\"b\",\"version\":\"1\"},\"created\":"
        "\"2026-11-22T06:10:00Z\",\"devices\":[],\"data\":[%s]},\"cases\":[{\"id\":\"a\",\"status\":\"ok\","
        "\"config\":{\"model\":\"%s\",%s},\"model\":{\"name\":\"%s\",\"n_params\":%s},%s\"metrics\":[{"
        "\"name\":"
        "\"perplexity\",\"value\":%.6g,\"unit\":\"1\",\"better\":\"lower\",\"status\":\"ok\",\"data_sha256\":"
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",%s}]}]}",
        data, model, config, model, strstr(model, "125m") ? "125239296" : "6738415616",
        strstr(config, "gptq") ? "\"quantization\":{\"method\":\"gptq\",\"seconds\":1,\"modules\":[]}," : "",
        value, row);
    assert_ok(qb_results_parse(text.text, text.length, "t.json", &r));
    assert_ok(qb_rows_read((const qb_results *[]){&r}, 1, &rows));
    out->length = 0;
    if (out->text) out->text[0] = 0;
    qb_published_notes(&rows, "- ", outside, out);
    qb_rows_free(&rows);
    qb_results_close(&r);
    qb_str_free(&text);
}

#define W2048                                                                                                \
    "\"dataset\":\"wikitext2\",\"protocol\":\"gptq-2048\",\"windows\":100,\"window_tokens\":2048,\"total_"   \
    "tokens\":205000"
#define W512                                                                                                 \
    "\"dataset\":\"wikitext2\",\"protocol\":\"llamacpp-512\",\"windows\":500,\"window_tokens\":512,\"total_" \
    "tokens\":256100"
#define GPTQ4                                                                                                \
    "\"method\":\"gptq\",\"bits\":4,\"group_size\":-1,\"act_order\":false,\"sym\":false,\"samples\":128,"    \
    "\"seqlen\":2048,"                                                                                       \
    "\"calibration\":\"c4\""

static void test_figures__beside_what_was_measured(void **state) {
    (void)state;
    static const struct {
        const char *model, *config, *row, *data;
        double value;
        const char *needle; /* NULL: nothing is said */
        bool outside;
    } rows[] = {
        {"opt-125m", "\"method\":\"none\"", W2048, "", 27.652,
         "measured 27.6520, published 27.65 (+0.01 %; GPTQ paper, tables 2 and 3), within the band 27.64 to "
         "27.66",
         false},
        {"OPT-125M", "\"method\":\"none\"", W2048, "", 28.1, "OUTSIDE the band 27.64 to 27.66", true},
        {"opt-125m", GPTQ4, W2048, "", 29.9, "published 31.12 (-3.92 %; GPTQ paper", false},
        {"opt-125m", GPTQ4, W2048, "", 36, "OUTSIDE the band 28.995 to 32.005", true},
        {"Llama-2-7b-hf", "\"method\":\"none\"", W2048, "", 5.49, "OUTSIDE the band 5.46 to 5.48", true},
        {"Mistral-7B-v0.1", "\"method\":\"none\"", W2048, "", 5.2505, "within the band 5.24 to 5.26", false},
        {"Qwen2.5-7B", "\"method\":\"none\"", W2048, "", 6.862, "OUTSIDE the band 6.84 to 6.86", true},
        {"Qwen3-8B", "\"method\":\"none\"", W2048, "", 9.7249,
         "published 9.73 (-0.05 %; abdelfattah-lab/NVFP4-RaZeR", false},
        {"Qwen3-8B", "\"method\":\"none\"", W2048, "", 9.75, "OUTSIDE the band 9.72 to 9.74", true},
        {"Qwen3-8B-Base", "\"method\":\"none\"", W2048, "", 9.7249, NULL, false},
        {"Qwen3-14B", "\"method\":\"none\"", W512, "", 9.0133,
         "published 9.0133 (+0.00 %; ik_llama.cpp, pull request 541)\n", false},
        {"gemma-2-2b-it", "\"method\":\"none\"", W512, "", 12.9,
         "published 12.8792 (+0.16 %; ThomasBaruzier/gemma-2-2b-it-GGUF", false},
        {"gemma-3-27b-it", "\"method\":\"none\"", W512, "", 8.4276,
         "published 8.4276 (+0.00 %; ik_llama.cpp, discussion 334)\n", false},
        {"gemma-3-27b-it", "\"method\":\"none\"", W2048, "", 8.4276, NULL, false},
        {"pythia-1.4b", "\"method\":\"none\"", W512, "", 12.8692,
         "published 12.8692 (+0.00 %; llama.cpp, pull request 7461)\n", false},
        /* Tuned from a published one: its picture, not its figures. */
        {"tuned",
         "\"method\":\"none\"},\"display\":{\"label\":\"tuned F16\",\"series\":\"tuned "
         "F16\",\"of\":\"opt-125m\"",
         W2048, "", 27.1, NULL, false},
        /* No band is known: both figures, no verdict. */
        {"opt-1.3b", GPTQ4, W2048, "", 15.6, "published 15.47 (+0.84 %; GPTQ paper, tables 2 and 3)\n",
         false},
        /* What makes them incomparable is said instead. */
        {"opt-125m", "\"method\":\"none\"",
         "\"dataset\":\"wikitext2\",\"protocol\":\"gptq-2048\",\"windows\":10,\"window_tokens\":2048,\"total_"
         "tokens\":204800",
         "", 35, "not comparable: only the first 10 % of the text", false},
        {"opt-125m", "\"method\":\"none\"", W2048,
         "{\"dataset\":\"wikitext2\",\"role\":\"test\",\"canonical\":false}", 35,
         "not comparable: another text than the canonical one", false},
        {"opt-125m",
         "\"method\":\"gptq\",\"bits\":4,\"group_size\":-1,\"act_order\":false,\"sym\":true,\"samples\":16,"
         "\"seqlen\":2048,"
         "\"calibration\":\"c4\"",
         W2048, "", 36,
         "not comparable: published with asymmetric steps, published with 128 windows of 2048 tokens of c4",
         false},
        {"opt-125m", GPTQ4, W2048, "{\"dataset\":\"c4\",\"role\":\"train\",\"canonical\":false}", 36,
         "not comparable: calibrated on a substitute for c4", false},
        /* Nobody's: another protocol, method, model. */
        {"opt-125m", "\"method\":\"none\"", "\"dataset\":\"wikitext2\",\"protocol\":\"gptq-1024\"", "", 27,
         NULL, false},
        {"opt-125m", "\"method\":\"nf4\"", W2048, "", 27, NULL, false},
        {"my-opt-125m", "\"method\":\"none\"", W2048, "", 27, NULL, false},
    };
    qb_str out = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        notes(rows[i].model, rows[i].config, rows[i].row, rows[i].data, rows[i].value, false, &out);
        const char *text = qb_str_get(&out);
        if (rows[i].needle ? !strstr(text, rows[i].needle) : *text)
            fail_msg("row %d: \"%s\", expected \"%s\"", (int)i, text,
                     rows[i].needle ? rows[i].needle : "nothing");
        notes(rows[i].model, rows[i].config, rows[i].row, rows[i].data, rows[i].value, true, &out);
        if ((*qb_str_get(&out) != 0) != rows[i].outside) fail_msg("row %d: \"%s\"", (int)i, qb_str_get(&out));
    }
    qb_str_free(&out);
}

/* The suites of every family that others measured: a finished run of at least one of their models,
   unquantized, under a protocol of the suite, is put beside a published figure. */
static void test_figures__reach_a_run_of_every_family(void **state) {
    (void)state;
    static const char *const suites[] = {"opt",        "bloom",  "llama",      "llama2-7b", "llama2-13b",
                                         "llama2-70b", "llama3", "mistral-7b", "qwen2.5",   "qwen3",
                                         "gemma2",     "gemma3", "pythia",     "gpt2"};
    setenv("BENCH_SHARE", QB_SOURCE_DIR "/bench", 1);
    qb_str out = {0}, row = {0};
    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++) {
        qb_suite s;
        int found = 0;
        assert_ok(qb_suite_load(suites[i], &s));
        for (int m = 0; m < s.models.n; m++)
            for (int p = 0; p < s.protocols.n; p++) {
                /* As a checkpoint of the hub's cache is called. */
                const qb_known_model *known = qb_known_model_find(s.models.items[m]);
                const char *id = known ? known->hub_id : s.models.items[m], *name = strrchr(id, '/');
                row.length = 0;
                qb_str_printf(&row, "\"dataset\":\"wikitext2\",\"protocol\":\"%s\"", s.protocols.items[p]);
                notes(name ? name + 1 : id, "\"method\":\"none\"", qb_str_get(&row), "", 10, false, &out);
                found += strstr(qb_str_get(&out), "published ") != NULL;
            }
        if (!found) fail_msg("suite %s: no published figure of any of its models", suites[i]);
        qb_suite_free(&s);
    }
    qb_str_free(&row);
    qb_str_free(&out);
}

/* One size of a family by its name. */
static void test_figures__a_suite_for_one_model(void **state) {
    (void)state;
    static const char *const words[][3] = {{"opt-66b", "opt", "facebook/opt-66b"},
                                           {"bloom-560m", "bloom", "bigscience/bloom-560m"},
                                           {"qwen2.5-7b", "qwen2.5", "Qwen/Qwen2.5-7B"},
                                           {"qwen3-8b", "qwen3", "Qwen/Qwen3-8B"},
                                           {"gemma-2-9b-it", "gemma2", "google/gemma-2-9b-it"},
                                           {"pythia-1.4b", "pythia", "EleutherAI/pythia-1.4b"}};
    qb_suite s;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_ok(qb_suite_load(words[i][0], &s));
        assert_string_equal(s.name, words[i][1]);
        assert_int_equal(s.models.n, 1);
        assert_string_equal(s.models.items[0], words[i][2]);
        qb_suite_free(&s);
    }
    assert_fails(qb_suite_load("opt-67b", &s), QB_ERR_USAGE, "no suite 'opt-67b'");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures__beside_what_was_measured),
        cmocka_unit_test(test_figures__reach_a_run_of_every_family),
        cmocka_unit_test(test_figures__a_suite_for_one_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
