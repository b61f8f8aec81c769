#include "base/log.h"
#include "model/model.h"
#include "model/rope.h"
#include "tests/support.h"

#include <math.h>

static const char base_config[] = "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,"
                                  "\"intermediate_size\":172,\"num_hidden_layers\":5,"
                                  "\"num_attention_heads\":8,\"num_key_value_heads\":4,\"vocab_size\":512,"
                                  "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\"}";

/* The base config with one member replaced (value NULL: removed). */
static qb_status parse_with(const char *key, const char *value, qb_config *out) {
    qb_json *json, *member = NULL;
    assert_ok(qb_json_parse(base_config, sizeof base_config - 1, "base", &json));
    if (value) assert_ok(qb_json_parse(value, strlen(value), "value", &member));
    qb_json_put(json, key, value ? member : NULL);
    if (!value) qb_json_put_null(json, key);
    qb_status st = qb_config_parse(json, "config.json", out);
    qb_json_free(json);
    return st;
}

/* The base config with these members behind the others. */
static qb_status parse_members(const char *members, qb_config *out) {
    char text[1024];
    qb_json *json;
    int n = snprintf(text, sizeof text, "%.*s,%s}", (int)sizeof base_config - 2, base_config, members);
    assert_ok(qb_json_parse(text, (size_t)n, "members", &json));
    qb_status st = qb_config_parse(json, "config.json", out);
    qb_json_free(json);
    return st;
}

static void test_config__reads_a_grouped_query_llama(void **state) {
    (void)state;
    qb_config c;
    assert_ok(parse_with("eos_token_id", "[2, 3]", &c));
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.eos, 2);
    assert_int_equal(c.bos, -1);
    assert_false(c.tied_head);
    /* 5 * (64*64*2 + 2*32*64 + 3*64*172) */
    qb_topology t;
    assert_ok(qb_topology_build(&c, &t));
    assert_int_equal(qb_topology_linear_params(&t), 5 * (64 * 64 * 2 + 2 * 32 * 64 + 3 * 64 * 172));
    char name[QB_NAME_BYTES];
    qb_linear_name(&t.layers[3].linears[6], 3, name);
    assert_string_equal(name, "model.layers.3.mlp.down_proj");
    qb_topology_free(&t);
}

static void test_config__published_parameter_counts(void **state) {
    (void)state;
    /* docs/formats.md for Llama-2-7B; 13B and 70B from the model cards' checkpoints. */
    static const struct {
        const char *name;
        int64_t params, linear;
    } rows[] = {{"llama2-7b", 6738415616, 6476005376},
                {"llama2-13b", 13015864320, 12687769600},
                {"llama2-70b", 68976648192, 68451041280}};
    for (size_t i = 0; i < 3; i++) {
        qb_json *json;
        qb_config c;
        const qb_known_model *k = qb_known_model_find(rows[i].name);
        assert_ok(qb_json_parse(k->config_json, strlen(k->config_json), k->name, &json));
        assert_ok(qb_config_parse(json, k->name, &c));
        qb_topology t;
        assert_ok(qb_topology_build(&c, &t));
        assert_int_equal(qb_topology_params(&t), rows[i].params);
        assert_int_equal(qb_topology_linear_params(&t), rows[i].linear);
        qb_topology_free(&t);
        qb_json_free(json);
    }
}

static void test_config__names_what_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *needle;
        qb_status status;
    } rows[] = {
        {"architectures", "[\"MambaForCausalLM\"]", "architecture \"MambaForCausalLM\" is not known",
         QB_ERR_UNSUPPORTED},
        {"architectures", NULL, "neither \"architectures\" nor \"model_type\"", QB_ERR_FORMAT},
        {"architectures", "7", "\"architectures\" must be an array", QB_ERR_FORMAT},
        {"hidden_size", NULL, "\"hidden_size\" is missing", QB_ERR_FORMAT},
        {"hidden_size", "-1", "\"hidden_size\" must lie between", QB_ERR_FORMAT},
        {"hidden_size", "1e300", "\"hidden_size\" must be an integer", QB_ERR_FORMAT},
        {"hidden_size", "65", "not a multiple of num_attention_heads", QB_ERR_FORMAT},
        {"num_key_value_heads", "3", "not a multiple of num_key_value_heads 3", QB_ERR_FORMAT},
        {"hidden_act", "\"mish\"", "activation \"mish\" is not known", QB_ERR_UNSUPPORTED},
        {"rope_scaling", "{\"rope_type\":\"mrope\",\"factor\":2}", "rope of type \"mrope\"",
         QB_ERR_UNSUPPORTED},
        {"rope_scaling", "{\"rope_type\":\"longrope\",\"short_factor\":[1,2]}", "rope needs 4 numbers",
         QB_ERR_FORMAT},
        {"sliding_window", "4096", "\"sliding_window\" is 4096, which changes", QB_ERR_UNSUPPORTED},
        {"final_logit_softcapping", "30.0", "\"final_logit_softcapping\"", QB_ERR_UNSUPPORTED},
        {"num_local_experts", "8", "\"num_local_experts\" is 8", QB_ERR_UNSUPPORTED},
        {"rope_scaling", "{\"rope_type\":\"linear\",\"factor\":2,\"bend\":3}",
         "\"bend\" among the rope parameters", QB_ERR_UNSUPPORTED},
        {"rope_scaling", "{\"rope_type\":\"dynamic\",\"factor\":2,\"alpha\":1000}", "\"alpha\" among",
         QB_ERR_UNSUPPORTED},
        {"rope_scaling", "7", "\"rope_scaling\" and \"rope_parameters\" must be objects", QB_ERR_FORMAT},
        {"torch_dtype", "\"float7\"", "float7", QB_ERR_FORMAT},
        {"vocab_size", "\"many\"", "\"vocab_size\" must be an integer, found a string", QB_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_config c;
        assert_fails(parse_with(rows[i].key, rows[i].value, &c), rows[i].status, rows[i].needle);
        assert_true(strstr(qb_error_text(), "config.json") != NULL);
    }
}

/* Forms of a family that its class, or this program, does not have. */
static void test_config__families_refuse_other_forms(void **state) {
    (void)state;
#define MPT(attn)                                                                                            \
    "{\"architectures\":[\"MPTForCausalLM\"],\"d_model\":64,\"n_heads\":4,\"n_layers\":2,\"vocab_size\":96," \
    "\"attn_config\":" attn "}"
#define NEO(types)                                                                                           \
    "{\"architectures\":[\"GPTNeoForCausalLM\"],\"hidden_size\":64,\"num_heads\":4,\"num_layers\":2,"        \
    "\"vocab_size\":96,\"attention_types\":" types "}"
#define BAICHUAN(more)                                                                                       \
    "{\"architectures\":[\"BaichuanForCausalLM\"],\"hidden_size\":64,\"num_attention_heads\":4,"             \
    "\"num_hidden_layers\":2,\"intermediate_size\":64,\"vocab_size\":96," more "}"
#define LIKE_LLAMA(name, more)                                                                               \
    "{\"architectures\":[\"" name                                                                            \
    "\"],\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":4,"                              \
    "\"intermediate_size\":64,\"vocab_size\":96,\"max_position_embeddings\":64," more "}"
#define OLMO3_ROPES(sliding)                                                                                 \
    LIKE_LLAMA("Olmo3ForCausalLM",                                                                           \
               "\"rope_parameters\":{\"full_attention\":{\"rope_theta\":10000,\"rope_type\":\"linear\","     \
               "\"factor\":2},\"sliding_attention\":{\"rope_theta\":10000," sliding "}}")
#define OTHER(name, more)                                                                                    \
    "{\"architectures\":[\"" name "\"],\"n_embd\":96,\"n_layer\":2,\"vocab_size\":96," more "}"
    static const struct {
        const char *json, *needle; /* NULL: it is taken */
    } rows[] = {
        {MPT("{\"alibi\":true,\"alibi_bias_max\":16}"), NULL},
        {MPT("{\"alibi\":false}"), "alibi is false"},
        {MPT("{\"qk_ln\":true}"), "qk_ln is true"},
        {MPT("{\"attn_type\":\"multiquery_attention\"}"), "only \"multihead_attention\""},
        {MPT("{\"kv_n_heads\":2}"), "kv_n_heads is 2 of 4"},
        {NEO("[[[\"global\",\"local\"],1]]"), NULL},
        {NEO("[[[\"global\",\"local\"],2]]"), "the kinds of 4 layers, expected 2"},
        {NEO("[[]]"), "must be pairs of kinds and a count"},
        {NEO("[[[\"odd\"],2]]"), "layer 0 is \"odd\""},
        {BAICHUAN("\"model_max_length\":64"), NULL},
        {BAICHUAN("\"z_loss_weight\":0"), "\"model_max_length\" is missing"},
        {BAICHUAN("\"max_position_embeddings\":64,\"z_loss_weight\":0,\"tie_word_embeddings\":true"),
         "has a head of its own"},
        {OTHER("CodeGenForCausalLM", "\"n_head\":6,\"rotary_dim\":4"), "in 4 groups, found 6 heads"},
        {OTHER("GPTJForCausalLM", "\"n_head\":6,\"rotary_dim\":3"), "an even number of elements, found 3"},
        {OTHER("GPT2LMHeadModel", "\"n_head\":6,\"add_cross_attention\":true"), "\"add_cross_attention\""},
        {OTHER("RWForCausalLM", "\"n_head\":6,\"n_head_kv\":2,\"parallel_attn\":false"),
         "no Falcon of this form"},
        {OTHER("RWForCausalLM", "\"n_head\":6,\"num_ln_in_parallel_attn\":2"), "no Falcon of this form"},
        {OLMO3_ROPES("\"rope_type\":\"default\""), NULL},
        {OLMO3_ROPES("\"rope_type\":\"linear\",\"factor\":2"), "rope_parameters.sliding_attention scales"},
        {LIKE_LLAMA("Cohere2ForCausalLM", "\"position_embedding_type\":\"rope_gptj\""), NULL},
        {LIKE_LLAMA("Cohere2ForCausalLM", "\"use_qk_norm\":true"), "\"use_qk_norm\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_json *json;
        qb_config c;
        assert_ok(qb_json_parse(rows[i].json, strlen(rows[i].json), "row", &json));
        qb_status st = qb_config_parse(json, "config.json", &c);
        qb_json_free(json);
        if (rows[i].needle && (st == QB_OK || !strstr(qb_error_text(), rows[i].needle)))
            fail_msg("row %zu: \"%s\"", i, st == QB_OK ? "taken" : qb_error_text());
        if (!rows[i].needle) assert_ok(st);
        if (i == 0) assert_true(c.alibi_max == 16.0f);
    }
}

/* The class from before transformers had StableLM spells norms' eps and the rotary part otherwise. */
static void test_config__old_stablelm_keys(void **state) {
    (void)state;
    static const char text[] = LIKE_LLAMA("StableLMEpochForCausalLM", "\"norm_eps\":1e-3,\"rope_pct\":0.5");
    qb_json *json;
    qb_config c;
    assert_ok(qb_json_parse(text, strlen(text), "row", &json));
    assert_ok(qb_config_parse(json, "config.json", &c));
    qb_json_free(json);
    assert_true(c.norm_eps == 1e-3f);
    assert_int_equal(c.ropes[0].width, 8); /* half of 64 / 4 */
}

/* Llama 3.1's rule: wavelengths below original / high_freq_factor (here 2048) stay, above original /
   low_freq_factor (8192) are stretched, between they blend. Head size 8 and theta 500000 give wavelengths 6,
   167, 4443 and 118143. */
static void test_rope__tables(void **state) {
    (void)state;
    qb_config c;
    float table[2 * 4 * 2];
    assert_ok(parse_with("rope_theta", "10000.0", &c));
    qb_rope_fill(&c.ropes[0], 2, table);
    for (int i = 0; i < 4; i++) {
        double angle = pow(10000.0, -i / 4.0);
        assert_true(table[2 * i] == 1.0f && table[2 * i + 1] == 0.0f);
        assert_true(fabs((double)table[8 + 2 * i] - cos(angle)) < 1e-6);
        assert_true(fabs((double)table[8 + 2 * i + 1] - sin(angle)) < 1e-6);
    }
    assert_ok(parse_with("rope_scaling", "{\"type\":\"linear\",\"factor\":4}", &c));
    qb_rope_fill(&c.ropes[0], 2, table);
    assert_true(fabs((double)table[8 + 1] - sin(0.25)) < 1e-6);
    assert_ok(parse_with("rope_parameters",
                         "{\"rope_type\":\"llama3\",\"rope_theta\":500000,\"factor\":8,\"low_freq_factor\":1,"
                         "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}",
                         &c));
    qb_rope_fill(&c.ropes[0], 2, table);
    double high = pow(500000, -0.25), middle = pow(500000, -0.5), low = pow(500000, -0.75);
    double smooth = (8192 / (2 * M_PI / middle) - 1) / 3;
    assert_true(fabs((double)table[8 + 3] - sin(high)) < 1e-6);
    assert_true(smooth > 0 && smooth < 1);
    assert_true(fabs((double)table[8 + 5] - sin((1 - smooth) * middle / 8 + smooth * middle)) < 1e-9);
    assert_true(fabs((double)table[8 + 7] - sin(low / 8)) < 1e-9);
}

/* ---- two keys that say one thing differently ---- */

static void keep_warning(void *ctx, const char *text) {
    char *kept = ctx;
    snprintf(kept, 512, "%s", text);
}

#define LLAMA3(original)                                                                                     \
    "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"                   \
    "\"original_max_position_embeddings\":" original "}"

/* What counts is what LlamaConfig of transformers 5.24 makes of the same members; `warning` is in what is
   said, NULL: nothing is. */
static void test_rope__contradictions_are_resolved_as_in_transformers(void **state) {
    (void)state;
    static const struct {
        const char *members, *warning;
        qb_rope_scaling scaling;
        double theta, factor, original;
    } rows[] = {
        {"\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5000.0},"
         "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.0}",
         "\"rope_scaling\" counts", QB_ROPE_LINEAR, 10000, 2, 0},
        {"\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2.0},"
         "\"rope_scaling\":{\"factor\":2,\"rope_type\":\"linear\"}",
         NULL, QB_ROPE_LINEAR, 10000, 2, 0},
        {"\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5000.0},\"rope_scaling\":null", NULL,
         QB_ROPE_DEFAULT, 5000, 1, 0},
        {"\"rope_theta\":7000.0,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5000.0}",
         "rope_theta is 7000 on top and 5000 in the rope parameters; 5000 counts", QB_ROPE_DEFAULT, 5000, 1,
         0},
        {"\"rope_theta\":5e3,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5000}", NULL,
         QB_ROPE_DEFAULT, 5000, 1, 0},
        {"\"original_max_position_embeddings\":4096,\"rope_scaling\":" LLAMA3("8192"),
         "is 4096 on top and 8192 for rope; 4096 counts", QB_ROPE_LLAMA3, 10000, 8, 4096},
        {"\"original_max_position_embeddings\":8192,\"rope_scaling\":" LLAMA3("8192"), NULL, QB_ROPE_LLAMA3,
         10000, 8, 8192},
        {"\"rope_scaling\":" LLAMA3("8192"), NULL, QB_ROPE_LLAMA3, 10000, 8, 8192},
        {"\"partial_rotary_factor\":1.0,\"rope_parameters\":{\"rope_type\":\"default\","
         "\"partial_rotary_factor\":1}",
         NULL, QB_ROPE_DEFAULT, 10000, 1, 0},
        {"\"partial_rotary_factor\":0.5", "\"partial_rotary_factor\" is 0.5", QB_ROPE_DEFAULT, 10000, 1, 0},
        {"\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}",
         "heads are turned whole, as in transformers", QB_ROPE_DEFAULT, 10000, 1, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char said[512] = "";
        qb_config c;
        qb_log_capture(keep_warning, said);
        qb_status st = parse_members(rows[i].members, &c);
        qb_log_capture(NULL, NULL);
        assert_ok(st);
        if (rows[i].warning ? !strstr(said, rows[i].warning) : *said)
            fail_msg("row %zu: \"%s\" was said", i, said);
        assert_int_equal(c.ropes[0].scaling, rows[i].scaling);
        assert_int_equal(c.ropes[0].width, c.head_dim);
        assert_true(c.ropes[0].theta == rows[i].theta && c.ropes[0].factor == rows[i].factor);
        if (rows[i].original > 0) assert_true((double)c.ropes[0].original_positions == rows[i].original);
    }
}

/* Llama turns whole heads: transformers 5.24 passes such a factor over with the default rope (a row above)
   and fails on shapes with the others. */
static void test_rope__a_part_of_the_head_that_llama_does_not_read_is_refused_with_scaling(void **state) {
    (void)state;
    static const char *const rows[] = {
        "\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}",
        "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"partial_rotary_factor\":0.5}",
    };
    qb_config c;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_fails(parse_members(rows[i], &c), QB_ERR_UNSUPPORTED, "\"partial_rotary_factor\" is 0.5");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config__reads_a_grouped_query_llama),
        cmocka_unit_test(test_config__published_parameter_counts),
        cmocka_unit_test(test_config__names_what_is_wrong),
        cmocka_unit_test(test_config__families_refuse_other_forms),
        cmocka_unit_test(test_config__old_stablelm_keys),
        cmocka_unit_test(test_rope__tables),
        cmocka_unit_test(test_rope__contradictions_are_resolved_as_in_transformers),
        cmocka_unit_test(test_rope__a_part_of_the_head_that_llama_does_not_read_is_refused_with_scaling),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
