/* What a config that leaves keys out means: tests/golden/family_defaults.json is what transformers makes of
   the same (tools/make_family_defaults.py). */
#include "model/config.h"
#include "tests/support.h"

#include <math.h>

enum { CASES_MAX = 128 };

static double number(const qb_json *want, const char *key) {
    return qb_json_number(qb_json_get(want, key));
}

static void check_number(const qb_json *want, const char *key, double found) {
    double expected = number(want, key);
    if (!(fabs(found - expected) <= 1e-6 * fabs(expected)))
        fail_msg("%s is %.9g, expected %.9g", key, found, expected);
}

static void check_layers(const qb_json *want, const qb_config *c) {
    const qb_json *window = qb_json_first(qb_json_get(want, "windows")),
                  *no_rope = qb_json_first(qb_json_get(want, "no_rope"));
    for (int64_t l = 0; l < c->n_layers;
         l++, window = qb_json_next(window), no_rope = qb_json_next(no_rope)) {
        double found = c->layers[l] & QB_LAYER_SLIDING ? (double)c->window : 0;
        if (found != qb_json_number(window))
            fail_msg("layer %lld has a window of %g, expected %g", (long long)l, found,
                     qb_json_number(window));
        if (((c->layers[l] & QB_LAYER_NO_ROPE) != 0) != (qb_json_number(no_rope) != 0))
            fail_msg("layer %lld has positions where it should have none, or the reverse", (long long)l);
    }
    assert_null(window);
}

static void check_ropes(const qb_json *want, const qb_config *c) {
    static const char *const names[] = {"default", "linear", "dynamic", "llama3", "yarn", "longrope"};
    int64_t i = 0;
    for (const qb_json *r = qb_json_first(qb_json_get(want, "ropes")); r; r = qb_json_next(r), i++) {
        assert_true(i < c->n_ropes);
        assert_string_equal(names[c->ropes[i].scaling], qb_json_string(qb_json_get(r, "type")));
        check_number(r, "theta", c->ropes[i].theta);
        bool has_length = !qb_json_is_null(qb_json_get(r, "original"));
        if (has_length) check_number(r, "original", (double)c->ropes[i].original_positions);
        if (c->ropes[i].scaling != QB_ROPE_LONGROPE) check_number(r, "factor", c->ropes[i].factor);
    }
    assert_int_equal(i, c->n_ropes);
}

static void test_family_defaults__are_those_of_the_class(void **state) {
    const qb_json *row = *state, *want = qb_json_get(row, "want");
    qb_config c;
    assert_ok(qb_config_parse(qb_json_get(row, "config"), "config.json", &c));
    check_number(want, "n_heads", (double)c.n_heads);
    check_number(want, "n_kv_heads", (double)c.n_kv_heads);
    check_number(want, "head_dim", (double)c.head_dim);
    check_number(want, "vocab", (double)c.vocab);
    check_number(want, "max_positions", (double)c.max_positions);
    check_number(want, "eps", (double)c.norm_eps);
    assert_int_equal(c.tied_head, qb_json_true(qb_json_get(want, "tied")));
    assert_int_equal(c.attention_bias, qb_json_true(qb_json_get(want, "attention_bias")));
    qb_keys none = {.where = "want"};
    qb_activation activation = QB_ACTIVATION_COUNT;
    qb_config_activation(&none, qb_json_string(qb_json_get(want, "activation")), &activation);
    assert_int_equal(c.activation, activation);
    double plain = 1 / sqrt((double)c.head_dim);
    check_number(want, "attention_scale", c.attention_scale > 0 ? (double)c.attention_scale : plain);
    check_number(want, "embed_scale", (double)c.embed_scale);
    check_number(want, "attention_softcap", (double)c.attention_softcap);
    check_number(want, "logit_softcap", (double)c.logit_softcap);
    check_number(want, "temperature", (double)c.temperature.beta);
    check_layers(want, &c);
    check_ropes(want, &c);
}

/* Letters are the hub's spelling of EXAONE's pattern; transformers reads it with layer_types beside it alone.
 */
static void test_family_defaults__exaone_spells_its_layers(void **state) {
    (void)state;
    static const char text[] =
        "{\"architectures\":[\"Exaone4ForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":96,"
        "\"num_hidden_layers\":6,\"num_attention_heads\":8,\"vocab_size\":99,"
        "\"sliding_window\":9,\"sliding_window_pattern\":\"%s\"}";
    char config[512];
    qb_json *json;
    qb_config c;
    snprintf(config, sizeof config, text, "LLLG");
    assert_ok(qb_json_parse(config, strlen(config), "test", &json));
    assert_ok(qb_config_parse(json, "config.json", &c));
    for (int l = 0; l < 6; l++) assert_int_equal(c.layers[l], l == 3 ? QB_LAYER_NO_ROPE : QB_LAYER_SLIDING);
    qb_json_free(json);
    snprintf(config, sizeof config, text, "LLX");
    assert_ok(qb_json_parse(config, strlen(config), "test", &json));
    assert_fails(qb_config_parse(json, "config.json", &c), QB_ERR_FORMAT,
                 "sliding_window_pattern is \"LLX\"");
    qb_json_free(json);
}

/* What no class of ours computes is refused by name. */
static void test_family_defaults__refuses_what_would_be_another_model(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"\"architectures\":[\"GemmaForCausalLM\"],\"use_bidirectional_attention\":true",
         "use_bidirectional_attention"},
        {"\"architectures\":[\"MistralForCausalLM\"],\"attention_bias\":true", "attention_bias"},
        {"\"architectures\":[\"LlamaForCausalLM\"],\"sliding_window\":9", "sliding_window"},
        {"\"architectures\":[\"Phi3ForCausalLM\"],\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}",
         "rope of the types"},
        {"\"architectures\":[\"ApertusForCausalLM\"],\"hidden_act\":\"silu\",\"rope_parameters\":{}",
         "xielu alone"},
        {"\"architectures\":[\"ApertusForCausalLM\"]", "neither rope_parameters nor rope_scaling"},
        {"\"architectures\":[\"SmolLM3ForCausalLM\"],\"no_rope_layers\":[1,0]",
         "no_rope_layers must list 1 layers, found 2"},
        {"\"architectures\":[\"Gemma2ForCausalLM\"],\"layer_types\":[\"linear_attention\"]",
         "layer 0 is \"linear_attention\"; the layers of the family gemma2 are full_attention and "
         "sliding_attention"},
        {"\"architectures\":[\"Gemma2ForCausalLM\"],\"layer_types\":[\"chunked_attention\"]",
         "layer 0 is \"chunked_attention\""},
        {"\"architectures\":[\"Llama4ForCausalLM\"],\"layer_types\":[\"sliding_attention\"]",
         "are full_attention and chunked_attention here"},
        {"\"architectures\":[\"Qwen3_5ForCausalLM\"],\"layer_types\":[\"sliding_attention\"]",
         "are full_attention and linear_attention here"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char config[512];
        qb_json *json;
        qb_config c;
        snprintf(config, sizeof config,
                 "{%s,\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":1,"
                 "\"num_attention_heads\":8,\"num_key_value_heads\":8,\"vocab_size\":99}",
                 rows[i][0]);
        assert_ok(qb_json_parse(config, strlen(config), "test", &json));
        qb_status st = qb_config_parse(json, "config.json", &c);
        assert_true(st == QB_ERR_UNSUPPORTED || st == QB_ERR_FORMAT);
        assert_non_null(strstr(qb_error_text(), rows[i][1]));
        qb_json_free(json);
    }
}

int main(void) {
    static struct CMUnitTest tests[CASES_MAX] = {
        cmocka_unit_test(test_family_defaults__exaone_spells_its_layers),
        cmocka_unit_test(test_family_defaults__refuses_what_would_be_another_model),
    };
    size_t n = 2;
    qb_json *golden;
    if (qb_json_read(QB_SOURCE_DIR "/tests/golden/family_defaults.json", 1 << 20, &golden) != QB_OK) {
        fprintf(stderr, "%s\n", qb_error_text());
        return 1;
    }
    for (const qb_json *j = qb_json_first(qb_json_get(golden, "cases")); j && n < CASES_MAX;
         j = qb_json_next(j))
        tests[n++] = (struct CMUnitTest){.name = qb_json_string(qb_json_get(j, "name")),
                                         .test_func = test_family_defaults__are_those_of_the_class,
                                         .initial_state = (void *)(uintptr_t)j};
    int failed = n > 2 ? _cmocka_run_group_tests("family defaults", tests, n, NULL, NULL) : 1;
    qb_json_free(golden);
    return failed;
}
