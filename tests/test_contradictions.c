/* Checkpoints whose files contradict each other, or hold what the config does not speak of: a head beside a
   tied flag, no head at all, tensors under a layer that nobody reads. */
#include "base/json.h"
#include "base/log.h"
#include "datasets/datasets.h"
#include "eval/eval.h"
#include "kernels/cpu/cpu.h"
#include "quant/driver.h"
#include "tests/checkpoint_files.h"

#include <math.h>

enum { HIDDEN = 32, FFN = 64, VOCAB = 48 };

typedef enum { NO_HEAD, SAME_HEAD, OTHER_HEAD } head;
typedef struct recipe {
    bool tied;
    head head;
    const char *extra; /* one more tensor of HIDDEN numbers */
} recipe;

static char *dir;
static int make_dir(void **state) {
    (void)state;
    dir = scratch_make();
    return 0;
}
static int drop_dir(void **state) {
    (void)state;
    scratch_remove(dir);
    return 0;
}

/* ---- a Llama of one layer ---- */

typedef struct writing {
    qb_str header, data;
} writing;

/* Values follow the seed alone. */
static void put(writing *w, const char *name, int64_t rows, int64_t cols, uint32_t seed) {
    size_t begin = w->data.length;
    for (int64_t i = 0; i < rows * cols; i++) {
        seed = seed * 1664525u + 1013904223u;
        float v = rows == 1 ? 1.0f : (float)((int32_t)(seed >> 8) - (1 << 23)) * 0x1p-25f;
        qb_str_append(&w->data, &v, sizeof v);
    }
    char shape[48];
    if (rows == 1)
        snprintf(shape, sizeof shape, "[%lld]", (long long)cols);
    else
        snprintf(shape, sizeof shape, "[%lld,%lld]", (long long)rows, (long long)cols);
    qb_str_printf(&w->header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                  w->header.length > 1 ? "," : "", name, shape, begin, w->data.length);
}

static char *build(const char *name, recipe r) {
    static const struct {
        const char *name;
        int64_t rows, cols;
    } tensors[] = {
        {"model.layers.0.input_layernorm.weight", 1, HIDDEN},
        {"model.layers.0.self_attn.q_proj.weight", HIDDEN, HIDDEN},
        {"model.layers.0.self_attn.k_proj.weight", HIDDEN, HIDDEN},
        {"model.layers.0.self_attn.v_proj.weight", HIDDEN, HIDDEN},
        {"model.layers.0.self_attn.o_proj.weight", HIDDEN, HIDDEN},
        {"model.layers.0.post_attention_layernorm.weight", 1, HIDDEN},
        {"model.layers.0.mlp.gate_proj.weight", FFN, HIDDEN},
        {"model.layers.0.mlp.up_proj.weight", FFN, HIDDEN},
        {"model.layers.0.mlp.down_proj.weight", HIDDEN, FFN},
        {"model.norm.weight", 1, HIDDEN},
    };
    writing w = {0};
    char *path = qb_path_join(dir, name), config[512];
    assert_ok(qb_make_dirs(path));
    qb_str_text(&w.header, "{");
    put(&w, "model.embed_tokens.weight", VOCAB, HIDDEN, 1);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        put(&w, tensors[i].name, tensors[i].rows, tensors[i].cols, (uint32_t)i + 10);
    if (r.head != NO_HEAD) put(&w, "lm_head.weight", VOCAB, HIDDEN, r.head == SAME_HEAD ? 1 : 2);
    if (r.extra) put(&w, r.extra, 1, HIDDEN, 3);
    qb_str_text(&w.header, "}");
    uint64_t length = w.header.length;
    qb_str file = {0};
    qb_str_append(&file, &length, 8);
    qb_str_append(&file, w.header.text, w.header.length);
    qb_str_append(&file, w.data.text, w.data.length);
    write_bytes(path, "model.safetensors", file.text, file.length);
    snprintf(config, sizeof config,
             "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":%d,\"intermediate_size\":%d,"
             "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"vocab_size\":%d,"
             "\"max_position_embeddings\":64,\"tie_word_embeddings\":%s}",
             HIDDEN, FFN, VOCAB, r.tied ? "true" : "false");
    write_text(path, "config.json", config);
    qb_str_free(&file);
    qb_str_free(&w.header);
    qb_str_free(&w.data);
    return path;
}

/* ---- what it computes ---- */

static char said[512];
static void keep_warning(void *ctx, const char *text) {
    (void)ctx;
    snprintf(said, sizeof said, "%s", text);
}

/* The perplexity of some random ids; what was warned of is in `said`. */
static double measure(const char *path) {
    qb_model *m;
    qb_device *dev;
    qb_windows w;
    qb_measure got;
    said[0] = 0;
    qb_log_capture(keep_warning, NULL);
    assert_ok(qb_model_open(path, &m));
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &dev));
    assert_ok(qb_model_load(m, dev, 64, true));
    assert_ok(qb_random_windows(VOCAB, 4, 32, 3, &w));
    w.mean = QB_MEAN_OF_TOKENS;
    for (int64_t i = 0; i < w.count; i++) w.windows[i].score_begin = 1, w.windows[i].score_end = 32;
    assert_ok(qb_perplexity(m, dev, &w, 0, &got));
    qb_log_capture(NULL, NULL);
    double value = got.value;
    qb_measure_free(&got);
    qb_windows_free(&w);
    qb_model_close(m);
    dev->backend->close(dev);
    return value;
}

static qb_status quantize(const char *source, const char *target) {
    const qb_quant_method *method = qb_quant_method_find("nf4");
    qb_model *m;
    qb_device *dev = NULL;
    qb_quant_config config = {0};
    qb_quant_report report = {0};
    qb_options_defaults(method->options, &config);
    qb_status st = qb_model_open(source, &m);
    if (st == QB_OK) {
        assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &dev));
        st = qb_quantize_model(m, dev, method, &config, NULL, &(qb_quant_target){.dir = target}, &report);
        qb_quant_report_free(&report);
    }
    qb_model_close(m);
    if (dev) dev->backend->close(dev);
    return st;
}

static qb_json *config_of(const char *path) {
    qb_json *json;
    char *file = qb_path_join(path, "config.json");
    assert_ok(qb_json_read(file, 1 << 20, &json));
    qb_free(file);
    return json;
}

/* config.json of `path` with the flag set so. */
static void set_tied(const char *path, bool tied) {
    qb_json *json = config_of(path);
    char *text;
    qb_json_put_bool(json, "tie_word_embeddings", tied);
    assert_ok(qb_json_print(json, true, &text));
    write_text(path, "config.json", text);
    qb_free(text);
    qb_json_free(json);
}

/* ---- a head beside a tied flag ---- */

static void test_head__in_the_file_beside_a_tied_flag_is_used_and_said(void **state) {
    (void)state;
    char *untied = build("untied", (recipe){.head = OTHER_HEAD});
    char *tied = build("tied", (recipe){.tied = true, .head = OTHER_HEAD});
    char *alone = build("alone", (recipe){.tied = true});
    char *packed = qb_path_join(dir, "packed");
    double with_head = measure(untied), without = measure(alone);
    assert_string_equal(said, "");
    assert_true(fabs(with_head / without - 1) > 1e-3);
    assert_true(measure(tied) == with_head);
    assert_non_null(strstr(said, "tie_word_embeddings is true, but the checkpoint holds another head"));
    /* Quantized it computes with the same head, and its config no longer says otherwise. */
    assert_ok(quantize(tied, packed));
    qb_json *config = config_of(packed);
    bool ties = true;
    assert_ok(qb_json_bool(config, "tie_word_embeddings", "config", true, &ties));
    assert_false(ties);
    qb_json_free(config);
    double quantized = measure(packed);
    assert_string_equal(said, "");
    assert_true(fabs(quantized / with_head - 1) < 0.1);
    /* Nor do quantized files of others lose theirs. */
    set_tied(packed, true);
    assert_true(measure(packed) == quantized);
    assert_non_null(strstr(said, "holds another head"));
    qb_free(untied);
    qb_free(tied);
    qb_free(alone);
    qb_free(packed);
}

static void test_head__equal_to_the_embedding_is_silent(void **state) {
    (void)state;
    char *alone = build("alone", (recipe){.tied = true});
    char *twice = build("twice", (recipe){.tied = true, .head = SAME_HEAD});
    char *packed = qb_path_join(dir, "packed");
    double expected = measure(alone);
    assert_true(measure(twice) == expected);
    assert_string_equal(said, "");
    qb_log_capture(keep_warning, NULL);
    assert_ok(quantize(twice, packed));
    qb_log_capture(NULL, NULL);
    assert_string_equal(said, "");
    qb_json *config = config_of(packed);
    assert_true(qb_json_true(qb_json_get(config, "tie_word_embeddings")));
    qb_json_free(config);
    (void)measure(packed);
    assert_string_equal(said, "");
    qb_free(alone);
    qb_free(twice);
    qb_free(packed);
}

static void test_head__that_is_nowhere_is_refused_before_anything_is_written(void **state) {
    (void)state;
    char *source = build("headless", (recipe){.head = NO_HEAD});
    char *out = qb_path_join(dir, "out");
    assert_fails(quantize(source, out), QB_ERR_FORMAT,
                 "tie_word_embeddings is false, but the checkpoint holds no lm_head");
    char *left[] = {out, qb_path_join(dir, "out.part")};
    for (size_t i = 0; i < 2; i++) {
        assert_false(qb_path_exists(left[i]));
        qb_free(left[i]);
    }
    qb_free(source);
}

/* ---- tensors that nobody names ---- */

static void test_tensors__under_a_layer_that_nobody_reads_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *tensor, *refusal, *warning;
    } rows[] = {
        {"model.layers.0.self_attn.q_norm.weight", "which nothing in a model of the family llama reads", ""},
        {"model.layers.0.self_attn.sinks", "which nothing in a model of the family llama reads", ""},
        {"model.layers.0.pre_feedforward_layernorm.weight", "which nothing in a model", ""},
        {"model.layers.0.mlp.experts.0.up_proj.weight", "which nothing in a model", ""},
        {"model.layers.0.self_attn.q_proj.lora_A.weight", "which nothing in a model", ""},
        {"model.layers.0.self_attn.q_proj.base_layer.weight", "which nothing in a model", ""},
        {"model.layers.0.self_attn.k_scale", NULL, "is not applied: activations, keys and values are"},
        {"model.layers.0.mlp.up_proj.input_scale", NULL, "is not applied: activations, keys and values"},
        {"model.layers.1.input_layernorm.weight", "num_hidden_layers is 1, but the checkpoint holds", ""},
        {"model.layers.0.self_attn.rotary_emb.inv_freq", NULL, ""}, /* stale */
        {"vision_tower.norm.weight", NULL, "tensor vision_tower.norm.weight is not read"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *path = build("extra", (recipe){.tied = true, .extra = rows[i].tensor});
        qb_model *m;
        said[0] = 0;
        qb_log_capture(keep_warning, NULL);
        qb_status st = qb_model_open(path, &m);
        qb_log_capture(NULL, NULL);
        if (rows[i].refusal) {
            if (st == QB_OK) fail_msg("%s: was passed over", rows[i].tensor);
            if (!strstr(qb_error_text(), rows[i].refusal) || !strstr(qb_error_text(), rows[i].tensor))
                fail_msg("%s: %s", rows[i].tensor, qb_error_text());
        } else {
            assert_ok(st);
        }
        if (!strstr(said, rows[i].warning) || (!*rows[i].warning && *said))
            fail_msg("%s: \"%s\" was said", rows[i].tensor, said);
        qb_model_close(m);
        qb_free(path);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        TEST(test_head__in_the_file_beside_a_tied_flag_is_used_and_said),
        TEST(test_head__equal_to_the_embedding_is_silent),
        TEST(test_head__that_is_nowhere_is_refused_before_anything_is_written),
        TEST(test_tensors__under_a_layer_that_nobody_reads_are_refused),
    };
    return cmocka_run_group_tests_name("contradictions", tests, NULL, NULL);
}
