/* Keys of config.json that nobody reads: known to change nothing, or warned of by name. */
#include "base/file.h"
#include "model/model.h"
#include "tests/said.h"
#include "tests/support.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

/* What reading this config says; it must be readable. */
static const char *warnings_of(const char *text) {
    qb_json *json;
    qb_config c;
    said[0] = 0;
    assert_ok(qb_json_parse(text, strlen(text), "config", &json));
    qb_log_capture(keep, NULL);
    qb_status st = qb_config_parse(json, "config.json", &c);
    qb_log_capture(NULL, NULL);
    qb_json_free(json);
    assert_ok(st);
    return said;
}

#define SHAPE                                                                                                \
    "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":4,"         \
    "\"vocab_size\":128"
#define LLAMA(members) "{\"architectures\":[\"LlamaForCausalLM\"]," SHAPE "," members "}"
#define MPT(members)                                                                                         \
    "{\"architectures\":[\"MPTForCausalLM\"],\"d_model\":64,\"n_layers\":2,\"n_heads\":4,\"vocab_size\":"    \
    "128,"                                                                                                   \
    "\"no_bias\":true," members "}"
#define WRAPPED(outer, inner)                                                                                \
    "{\"architectures\":[\"Gemma3ForConditionalGeneration\"]," outer ",\"text_config\":{" SHAPE              \
    ",\"head_dim\":16,\"num_key_value_heads\":2," inner "}}"

/* ---- what is told ---- */

static void test_unread__unknown_keys_are_named(void **state) {
    (void)state;
    static const struct {
        const char *config, *told;
    } rows[] = {
        {LLAMA("\"logit_softcap_new\":30.0"),
         "config.json: \"logit_softcap_new\" (30.0) is neither read nor"},
        {LLAMA("\"a_gate\":true,\"rms_norm_eps\":1e-5,\"b\":[1,2]"), "\"a_gate\" (true), \"b\" ([1,2]) are"},
        {LLAMA("\"a_gate\":false"), "\"a_gate\" (false)"},
        {LLAMA("\"a_scale\":0"), "\"a_scale\" (0)"},
        {LLAMA("\"layers_extra\":{\"gate\":1}"), "\"layers_extra\" ({\"gate\":1})"},
        /* known, but not with this value */
        {LLAMA("\"rope_interleaved\":true"), "\"rope_interleaved\" (true)"},
        {LLAMA("\"is_llama_config\":false"), "\"is_llama_config\" (false)"},
        {LLAMA("\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1"),
         "\"h\" (1) and 2 more are"},
        {MPT("\"attn_config\":{\"alibi\":true,\"attn_gate\":2}"), "\"attn_gate\" (2)"},
        {WRAPPED("\"tie_word_embeddings\":true", "\"a_gate\":true"), "\"a_gate\" (true)"},
        {WRAPPED("\"a_gate\":true", "\"hidden_activation\":\"gelu\""), "\"a_gate\" (true)"},
        /* the text's class reads its own part alone */
        {WRAPPED("\"final_logit_softcapping\":9.5", "\"sliding_window\":8"),
         "\"final_logit_softcapping\" (9.5)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!strstr(warnings_of(rows[i].config), rows[i].told))
            fail_msg("%s\nsays \"%s\"\nand not: %s", rows[i].config, said, rows[i].told);
}

static void test_unread__what_changes_a_computation_in_an_inner_object_is_refused(void **state) {
    (void)state;
    static const char text[] = MPT("\"attn_config\":{\"alibi\":true,\"rope\":true}");
    qb_json *json;
    qb_config c;
    assert_ok(qb_json_parse(text, strlen(text), "config", &json));
    assert_fails(qb_config_parse(json, "config.json", &c), QB_ERR_UNSUPPORTED, "\"rope\" is true");
    qb_json_free(json);
}

/* A quantization's own members, on the NF4 checkpoint of the adapters' goldens. */
static void test_unread__members_of_a_quantization_are_named(void **state) {
    (void)state;
    static const char base[] = QB_SOURCE_DIR "/tests/golden/adapters/nf4/base";
    static const struct {
        const char *key, *value;
        const char *told; /* NULL: nothing is */
    } rows[] = {{"act_bits", "4", "\"act_bits\" (4"},
                {"rotation", "1", "\"rotation\" (1"},
                {"act_bits", "16", NULL},
                {"nsamples", "128", NULL},
                {"config_groups",
                 "{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"dynamic\":false}}}",
                 NULL},
                {"config_groups", "{\"group_0\":{\"rotate\":1}}", "\"config_groups.group_0.rotate\" (1)"},
                {"config_groups", "{\"g\":{\"weights\":{\"hadamard\":64}}}", "weights.hadamard\" (64)"},
                {"config_groups", "{\"group_0\":{\"weights\":{\"dynamic\":true}}}",
                 "\"config_groups.group_0.weights.dynamic\" (true)"},
                {"kv_cache_scheme", "8", "\"kv_cache_scheme\" is not applied"},
                {"activation_scheme", "1", "\"activation_scheme\" is not applied"}};
    char *dir = scratch_make(), *config = qb_path_join(dir, "config.json"),
         *weights = qb_path_join(dir, "model.safetensors");
    assert_int_equal(symlink(QB_SOURCE_DIR "/tests/golden/adapters/nf4/base/model.safetensors", weights), 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_json *json;
        char path[512], *text = NULL;
        qb_model *m;
        snprintf(path, sizeof path, "%s/config.json", base);
        assert_ok(qb_json_read(path, 1 << 20, &json));
        qb_json *how = qb_json_take(json, "quantization_config");
        qb_json *value;
        assert_ok(qb_json_parse(rows[i].value, strlen(rows[i].value), "row", &value));
        qb_json_put(how, rows[i].key, value);
        qb_json_put(json, "quantization_config", how);
        assert_ok(qb_json_print(json, false, &text));
        assert_ok(qb_file_write_atomic(config, text, strlen(text)));
        said[0] = 0;
        qb_log_capture(keep, NULL);
        qb_status st = qb_model_open(dir, &m);
        qb_log_capture(NULL, NULL);
        assert_ok(st);
        if (!rows[i].told) assert_string_equal(said, "");
        if (rows[i].told && !strstr(said, rows[i].told)) fail_msg("said \"%s\", not %s", said, rows[i].told);
        qb_model_close(m);
        qb_free(text);
        qb_json_free(json);
    }
    qb_free(config);
    qb_free(weights);
    scratch_remove(dir);
}

/* ---- what is not ---- */

static void test_unread__keys_without_effect_say_nothing(void **state) {
    (void)state;
    static const char *const configs[] = {
        LLAMA("\"logit_softcap_new\":null,\"extras\":[],\"more\":{},\"map\":{\"a\":null}"),
        /* as published: SmolLM2, Llama 2 and 3, Phi-3 mini with its 4096 positions */
        LLAMA("\"is_llama_config\":true,\"rope_interleaved\":false,\"pretraining_tp\":1,\"use_cache\":true,"
              "\"initializer_range\":0.041,\"transformers.js_config\":{\"dtype\":\"q4\"},\"pad_token_id\":2,"
              "\"transformers_version\":\"4.40.1\",\"_name_or_path\":\"a/b\",\"unsloth_fixed\":true,"
              "\"max_sequence_length\":4096,\"attention_dropout\":0.0,\"auto_map\":{\"AutoModel\":\"x\"}"),
        "{\"architectures\":[\"Phi3ForCausalLM\"]," SHAPE
        ",\"original_max_position_embeddings\":4096,\"rope_scaling\":null,\"embd_pdrop\":0.0,"
        "\"full_attn_mod\":1,\"interpolate_factor\":1,\"sliding_window\":2047}",
        "{\"architectures\":[\"Cohere2ForCausalLM\"]," SHAPE
        ",\"cache_implementation\":\"hybrid\",\"layer_switch\":4,\"rotary_pct\":1.0,"
        "\"order_of_interleaved_layers\":\"local_attn_first\",\"position_embedding_type\":\"rope_gptj\","
        "\"use_embedding_sharing\":true,\"use_gated_activation\":true,\"use_parallel_block\":true,"
        "\"use_parallel_embedding\":true,\"sliding_window_pattern\":4}",
        "{\"architectures\":[\"Starcoder2ForCausalLM\"]," SHAPE
        ",\"mlp_type\":\"default\",\"norm_type\":\"layer_norm\",\"attention_softmax_in_fp32\":true,"
        "\"residual_dropout\":0.0,\"norm_epsilon\":1e-5}",
        WRAPPED("\"vision_config\":{\"depth\":2},\"mm_tokens_per_image\":256,\"boi_token_index\":1,"
                "\"a_gate\":2,\"hidden_size\":64",
                "\"a_gate\":null,\"sliding_window\":8,\"hidden_size\":64,\"dtype\":\"float32\""),
    };
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        const char *found = warnings_of(configs[i]);
        if (strstr(configs[i], "a_gate")) { /* what the wrapper repeats is passed over, this is not */
            assert_non_null(strstr(found, "\"a_gate\" (2) is"));
            continue;
        }
        if (strstr(found, "neither read")) fail_msg("%s\nsays \"%s\"", configs[i], found);
    }
}

/* Every config.json below a directory; -> how many. */
static int check_directory(const char *dir, int depth) {
    DIR *d = opendir(dir);
    int n = 0;
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[1024];
        struct stat s;
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (stat(path, &s) == 0 && S_ISDIR(s.st_mode)) {
            if (depth > 0) n += check_directory(path, depth - 1);
            continue;
        }
        if (strcmp(e->d_name, "config.json") != 0) continue;
        qb_json *json;
        qb_config c;
        said[0] = 0;
        assert_ok(qb_json_read(path, 1 << 20, &json));
        qb_log_capture(keep, NULL);
        qb_status st = qb_config_parse(json, path, &c);
        qb_log_capture(NULL, NULL);
        qb_json_free(json);
        if (st != QB_OK) qb_error_clear(); /* a hostile one */
        if (strstr(said, "neither read")) fail_msg("%s", said);
        n += st == QB_OK;
    }
    closedir(d);
    return n;
}

/* Written by transformers, and by others that it reads. */
static void test_unread__no_config_of_the_test_material_is_warned_of(void **state) {
    (void)state;
    assert_true(check_directory(QB_SOURCE_DIR "/tests/golden/families", 1) > 80);
    assert_true(check_directory(QB_SOURCE_DIR "/tests/golden", 3) > 90);
    assert_int_equal(check_directory(QB_SOURCE_DIR "/bench/demo", 0), 1);
    check_directory(QB_SOURCE_DIR "/../shared/models", 1); /* where there are any */
    check_directory(QB_SOURCE_DIR "/../shared/tokenizers", 1);
}

/* Written by llama.cpp's converter. */
static void test_unread__nor_any_gguf_file(void **state) {
    (void)state;
    static const char dir[] = QB_SOURCE_DIR "/tests/golden/families";
    DIR *d = opendir(dir);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[1024];
        struct stat s;
        qb_model *m;
        snprintf(path, sizeof path, "%s/%s/model.gguf", dir, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &s) != 0) continue;
        said[0] = 0;
        qb_log_capture(keep, NULL);
        qb_status st = qb_model_open(path, &m);
        qb_log_capture(NULL, NULL);
        assert_ok(st);
        if (strstr(said, "neither read")) fail_msg("%s", said);
        qb_model_close(m);
        n++;
    }
    closedir(d);
    assert_true(n > 40);
}

/* The defaults that transformers' own classes state. */
static void test_unread__nor_the_defaults_of_the_classes(void **state) {
    (void)state;
    qb_json *document;
    int n = 0;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/family_defaults.json", 1 << 20, &document));
    for (const qb_json *j = qb_json_first(qb_json_get(document, "cases")); j; j = qb_json_next(j), n++) {
        char *text = NULL;
        assert_ok(qb_json_print(qb_json_get(j, "config"), false, &text));
        if (strstr(warnings_of(text), "neither read")) fail_msg("%s\nsays \"%s\"", text, said);
        qb_free(text);
    }
    qb_json_free(document);
    assert_true(n > 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unread__unknown_keys_are_named),
        cmocka_unit_test(test_unread__what_changes_a_computation_in_an_inner_object_is_refused),
        cmocka_unit_test(test_unread__members_of_a_quantization_are_named),
        cmocka_unit_test(test_unread__keys_without_effect_say_nothing),
        cmocka_unit_test(test_unread__no_config_of_the_test_material_is_warned_of),
        cmocka_unit_test(test_unread__nor_any_gguf_file),
        cmocka_unit_test(test_unread__nor_the_defaults_of_the_classes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
