/* A model of random weights that takes no time, suites over it, and the results that they leave. */
#pragma once

#include "results/results.h"
#include "tests/program.h"

static const char tiny_config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\",\"hidden_"
    "size\":64,"
    "\"intermediate_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"vocab_size\":128,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"float16\"}";

static inline void write_suite(const char *name, const char *methods, const char *metrics, const char *more) {
    qb_str text = {0};
    qb_str_printf(
        &text,
        "{\"name\":\"tiny\",\"summary\":\"s\",\"models\":[\"%s\"],\"methods\":[%s],\"metrics\":[%s],"
        "\"datasets\":[\"wikitext2\"],\"protocols\":[\"gptq-64\"],"
        "\"speed\":{\"prefill\":[16],\"decode\":[4],\"repeat\":2,\"warmup\":0}%s}",
        scratch_path("tiny"), methods, metrics, more);
    assert_ok(qb_file_write_atomic(scratch_path(name), qb_str_get(&text), text.length));
    qb_str_free(&text);
}

static inline qb_results opened(const char *path) {
    qb_results r;
    assert_ok(qb_results_open(path, &r)); /* reads and validates */
    return r;
}

/* Group set-up: program_begin, and the model at scratch_path("tiny"). */
static inline int tiny_begin(void **state) {
    if (program_begin(state) != 0) return -1;
    if (qb_make_dirs(scratch_path("tiny")) != QB_OK) return -1;
    char *path = scratch_path("tiny/config.json");
    return qb_file_write_atomic(path, tiny_config, strlen(tiny_config)) == QB_OK ? 0 : -1;
}
