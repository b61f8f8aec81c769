/* Published mixtures by their config.json: what the lists of steps hold is what their checkpoints hold. */
#include "model/topology.h"
#include "tests/support.h"

/* Shapes as published; counts are those of the published safetensors (the model pages state them). */
static const struct {
    const char *name;
    int64_t params;
    const char *config;
} published[] = {
    {"mixtral-8x7b", 46702792704,
     "{\"architectures\":[\"MixtralForCausalLM\"],\"hidden_size\":4096,"
     "\"intermediate_size\":14336,\"num_hidden_layers\":32,\"num_attention_heads\":32,"
     "\"num_key_value_heads\":8,\"vocab_size\":32000,\"num_local_experts\":8,"
     "\"num_experts_per_tok\":2,\"tie_word_embeddings\":false}"},
    {"qwen1.5-moe", 14315784192,
     "{\"architectures\":[\"Qwen2MoeForCausalLM\"],\"hidden_size\":2048,"
     "\"intermediate_size\":5632,\"num_hidden_layers\":24,\"num_attention_heads\":16,"
     "\"num_key_value_heads\":16,\"vocab_size\":151936,\"num_experts\":60,"
     "\"num_experts_per_tok\":4,\"moe_intermediate_size\":1408,"
     "\"shared_expert_intermediate_size\":5632,\"tie_word_embeddings\":false}"},
    {"qwen3-30b", 30532122624,
     "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"hidden_size\":2048,"
     "\"intermediate_size\":6144,\"num_hidden_layers\":48,\"num_attention_heads\":32,"
     "\"num_key_value_heads\":4,\"vocab_size\":151936,\"head_dim\":128,\"num_experts\":128,"
     "\"num_experts_per_tok\":8,\"moe_intermediate_size\":768,\"attention_bias\":false,"
     "\"tie_word_embeddings\":false}"},
    {"olmoe", 6919161856,
     "{\"architectures\":[\"OlmoeForCausalLM\"],\"hidden_size\":2048,"
     "\"intermediate_size\":1024,\"num_hidden_layers\":16,\"num_attention_heads\":16,"
     "\"num_key_value_heads\":16,\"vocab_size\":50304,\"num_experts\":64,"
     "\"num_experts_per_tok\":8,\"attention_bias\":false,\"tie_word_embeddings\":false}"},
    {"granite-3.0-1b-a400m", 1334628352,
     "{\"architectures\":[\"GraniteMoeForCausalLM\"],\"hidden_size\":1024,"
     "\"intermediate_size\":512,\"num_hidden_layers\":24,\"num_attention_heads\":16,"
     "\"num_key_value_heads\":8,\"vocab_size\":49155,\"num_local_experts\":32,"
     "\"num_experts_per_tok\":8,\"attention_bias\":false,\"tie_word_embeddings\":true}"},
    {"phi-3.5-moe", 41873153344,
     "{\"architectures\":[\"PhiMoEForCausalLM\"],\"hidden_size\":4096,"
     "\"intermediate_size\":6400,\"num_hidden_layers\":32,\"num_attention_heads\":32,"
     "\"num_key_value_heads\":8,\"vocab_size\":32064,\"num_local_experts\":16,"
     "\"num_experts_per_tok\":2,\"attention_bias\":true,\"lm_head_bias\":true,"
     "\"tie_word_embeddings\":false}"},
    {"deepseek-v2-lite", 15706484224,
     "{\"architectures\":[\"DeepseekV2ForCausalLM\"],\"hidden_size\":2048,"
     "\"intermediate_size\":10944,\"num_hidden_layers\":27,\"num_attention_heads\":16,"
     "\"num_key_value_heads\":16,\"vocab_size\":102400,\"n_routed_experts\":64,"
     "\"num_experts_per_tok\":6,\"moe_intermediate_size\":1408,\"n_shared_experts\":2,"
     "\"first_k_dense_replace\":1,\"q_lora_rank\":null,\"kv_lora_rank\":512,"
     "\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"
     "\"attention_bias\":false,\"tie_word_embeddings\":false}"},
    {"gpt-oss-20b", 20914757184,
     "{\"architectures\":[\"GptOssForCausalLM\"],\"hidden_size\":2880,"
     "\"intermediate_size\":2880,\"num_hidden_layers\":24,\"num_attention_heads\":64,"
     "\"num_key_value_heads\":8,\"vocab_size\":201088,\"head_dim\":64,"
     "\"num_local_experts\":32,\"num_experts_per_tok\":4,\"attention_bias\":true,"
     "\"tie_word_embeddings\":false}"},
};

static void test_published__parameter_counts(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        qb_json *json;
        qb_config c;
        qb_topology t;
        assert_ok(qb_json_parse(published[i].config, strlen(published[i].config), published[i].name, &json));
        assert_ok(qb_config_parse(json, published[i].name, &c));
        assert_ok(qb_topology_build(&c, &t));
        assert_int_equal(qb_topology_params(&t), published[i].params);
        qb_topology_free(&t);
        qb_json_free(json);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_published__parameter_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
