/* Mixtures of experts through the quantizer: a Hessian and a count of tokens for each expert, rounding where
   too few tokens came, the two orders of calibration, and what is kept between passes. */
#include "tests/support.h"

#include "datasets/datasets.h"
#include "model/inspect.h"
#include "quant/calibration.h"
#include "quant/driver.h"

static const char mixtral[] =
    "{\"architectures\":[\"MixtralForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":96,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":320,"
    "\"num_local_experts\":4,\"num_experts_per_tok\":2,\"max_position_embeddings\":256,"
    "\"torch_dtype\":\"float16\"}";
static const char deepseek[] =
    "{\"architectures\":[\"DeepseekV2ForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":96,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":320,\"q_lora_rank\":32,"
    "\"kv_lora_rank\":32,\"qk_nope_head_dim\":16,\"qk_rope_head_dim\":32,\"v_head_dim\":16,"
    "\"n_routed_experts\":16,\"num_experts_per_tok\":1,\"n_shared_experts\":1,\"first_k_dense_replace\":1,"
    "\"moe_intermediate_size\":64,\"max_position_embeddings\":256,\"torch_dtype\":\"float16\"}";

typedef struct {
    char *dir;
    qb_device *dev;
    qb_quant_config config;
    qb_windows windows;
} setting;

static setting setting_make(const char *config, int64_t windows, int64_t length) {
    setting s = {.dir = scratch_make()};
    char *path = qb_path_join(s.dir, "config.json");
    assert_ok(qb_file_write_atomic(path, config, strlen(config)));
    qb_free(path);
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 2}, &s.dev));
    assert_ok(qb_random_windows(320, windows, length, 1, &s.windows));
    qb_options_defaults(qb_quant_method_find("gptq")->options, &s.config);
    s.config.bits = 4;
    s.config.group_size = 32;
    return s;
}

static void setting_free(setting *s) {
    qb_windows_free(&s->windows);
    s->dev->backend->close(s->dev);
    scratch_remove(s->dir);
}

static qb_model *open_model(const setting *s) {
    char spec[600];
    qb_model *m;
    snprintf(spec, sizeof spec, "synthetic:%s", s->dir);
    assert_ok(qb_model_open(spec, &m));
    return m;
}

/* Quantizes into NAME; the report is the caller's, the name's path is returned. */
static char *quantize(setting *s, const char *method, const char *name, qb_quant_report *report) {
    const qb_quant_method *how = qb_quant_method_find(method);
    qb_model *m = open_model(s);
    char *out = qb_path_join(s->dir, name);
    assert_ok(qb_quantize_model(m, s->dev, how, &s->config, how->needs ? &s->windows : NULL,
                                &(qb_quant_target){.dir = out}, report));
    qb_model_close(m);
    return out;
}

static const qb_module_report *report_of(const qb_quant_report *r, const char *module) {
    for (size_t i = 0; i < r->n_modules; i++)
        if (!strcmp(r->modules[i].module, module)) return &r->modules[i];
    fail_msg("no report of %s", module);
    return NULL;
}

/* Calibration tokens of the modules whose names have `part`. */
static int64_t tokens_of(const qb_quant_report *r, const char *part, const char *end) {
    int64_t n = 0;
    for (size_t i = 0; i < r->n_modules; i++) {
        const char *name = r->modules[i].module;
        size_t length = strlen(name), tail = strlen(end);
        if (strstr(name, part) && length > tail && !strcmp(name + length - tail, end))
            n += r->modules[i].calibration_tokens;
    }
    return n;
}

/* Whether all tensors of a module are the same bytes in two checkpoints. */
static bool same_codes(const char *a, const char *b, const char *module) {
    qb_model *x, *y;
    bool same = true;
    int found = 0;
    assert_ok(qb_model_open(a, &x));
    assert_ok(qb_model_open(b, &y));
    for (size_t i = 0; i < qb_checkpoint_count(x->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(x->checkpoint, i),
                        *u = qb_checkpoint_find(y->checkpoint, t->name);
        const void *p, *q;
        if (strncmp(t->name, module, strlen(module)) != 0) continue;
        assert_non_null(u);
        assert_int_equal(t->bytes, u->bytes);
        assert_ok(qb_checkpoint_acquire(x->checkpoint, t, &p));
        assert_ok(qb_checkpoint_acquire(y->checkpoint, u, &q));
        same = same && !memcmp(p, q, (size_t)t->bytes);
        qb_checkpoint_release(x->checkpoint, t);
        qb_checkpoint_release(y->checkpoint, u);
        found++;
    }
    assert_true(found > 1);
    qb_model_close(x);
    qb_model_close(y);
    return same;
}

static void test_experts__have_hessians_of_their_own(void **state) {
    (void)state;
    enum { TOKENS = 16 * 64 };
    setting s = setting_make(mixtral, 16, 64);
    qb_quant_report report, rounded;
    char *out = quantize(&s, "gptq", "gptq", &report), *rtn = quantize(&s, "rtn", "rtn", &rounded);
    assert_int_equal(report.n_modules, 2 * (4 + 3 * 4));
    for (size_t i = 0; i < report.n_modules; i++) {
        const qb_module_report *m = &report.modules[i];
        if (strstr(m->module, "self_attn")) assert_int_equal(m->calibration_tokens, TOKENS);
        assert_int_equal(m->fallback != NULL,
                         strstr(m->module, "experts") && m->calibration_tokens < QB_EXPERT_TOKENS_MIN);
    }
    assert_int_equal(tokens_of(&report, "layers.0.", "w1"), 2 * TOKENS);
    assert_int_equal(tokens_of(&report, "layers.1.", "w2"), 2 * TOKENS);
    assert_int_equal(rounded.modules[0].calibration_tokens, -1);
    assert_false(same_codes(out, rtn, "model.layers.0.block_sparse_moe.experts.1.w1"));
    qb_quant_report_free(&report);
    qb_quant_report_free(&rounded);
    qb_free(out);
    qb_free(rtn);
    setting_free(&s);
}

/* Few tokens, or none: the codes are those of rounding, not zeros, and the report says why. */
static void few_tokens(const char *config, int64_t tokens, const char *experts, const char *dense) {
    setting s = setting_make(config, 1, tokens);
    qb_quant_report report, rounded;
    char *out = quantize(&s, "gptq", "gptq", &report), *rtn = quantize(&s, "rtn", "rtn", &rounded);
    int64_t seen = 0, none = 0;
    for (size_t i = 0; i < report.n_modules; i++) {
        const qb_module_report *m = &report.modules[i];
        if (!strstr(m->module, experts)) {
            assert_null(m->fallback);
            continue;
        }
        assert_true(m->calibration_tokens < QB_EXPERT_TOKENS_MIN);
        assert_string_equal(m->fallback, "rtn");
        assert_non_null(strstr(m->reason, "calibration tokens"));
        assert_string_equal(m->error_kind, m->calibration_tokens > 0 ? "hessian" : "weight");
        assert_true(m->relative_error > 0 && m->relative_error < 0.1);
        assert_true(same_codes(out, rtn, m->module));
        seen += m->calibration_tokens > 0;
        none += m->calibration_tokens == 0;
    }
    assert_true(seen > 0);
    if (tokens < 16) assert_true(none > 0);
    assert_int_equal(report_of(&report, dense)->calibration_tokens, tokens);
    assert_false(same_codes(out, rtn, dense));
    qb_quant_report_free(&report);
    qb_quant_report_free(&rounded);
    qb_free(out);
    qb_free(rtn);
    setting_free(&s);
}

static void test_experts__few_tokens_are_rounded(void **state) {
    (void)state;
    few_tokens(mixtral, 100, ".experts.", "model.layers.1.self_attn.o_proj");
    few_tokens(deepseek, 8, ".experts.", "model.layers.1.mlp.shared_experts.down_proj");
}

static void test_experts__both_orders_of_calibration(void **state) {
    (void)state;
    setting s = setting_make(mixtral, 16, 64);
    qb_quant_report behind, at_once;
    char *a = quantize(&s, "gptq", "sequential", &behind);
    s.config.true_sequential = false;
    char *b = quantize(&s, "gptq", "parallel", &at_once);
    assert_int_equal(behind.n_modules, at_once.n_modules);
    /* the first inputs are the same, what stands behind quantized linears is not */
    assert_true(same_codes(a, b, "model.layers.0.self_attn.q_proj"));
    assert_false(same_codes(a, b, "model.layers.0.block_sparse_moe.experts.0.w2"));
    assert_int_equal(tokens_of(&behind, "layers.0.", "w3"), tokens_of(&at_once, "layers.0.", "w3"));
    qb_quant_report_free(&behind);
    qb_quant_report_free(&at_once);
    qb_free(a);
    qb_free(b);
    setting_free(&s);
}

/* The peak of workspace, where Hessians lie. */
static int64_t workspace_peak(const setting *s) {
    qb_memory m;
    s->dev->backend->memory(s->dev, &m);
    return m.peak_bytes[QB_MEMORY_WORKSPACE];
}

static void check_same(const char *a, const char *b, const qb_quant_report *x, const qb_quant_report *y) {
    assert_int_equal(x->n_modules, y->n_modules);
    for (size_t i = 0; i < x->n_modules; i++) {
        assert_string_equal(x->modules[i].module, y->modules[i].module);
        assert_int_equal(x->modules[i].calibration_tokens, y->modules[i].calibration_tokens);
        assert_true(x->modules[i].error == y->modules[i].error);
        assert_true(same_codes(a, b, x->modules[i].module));
    }
}

/* Room for one Hessian gives what room for all gives, in less memory and more passes, and the plan says so.
 */
static void hessians_in_parts(const char *config, bool true_sequential, int64_t saved_floats) {
    setting s = setting_make(config, 16, 64), t = setting_make(config, 16, 64);
    qb_quant_report all, parts;
    qb_quant_plan with_room, without;
    s.config.true_sequential = t.config.true_sequential = true_sequential;
    t.config.hessian_room_bytes = 1;
    s.config.samples = t.config.samples = 16, s.config.seqlen = t.config.seqlen = 64;
    qb_model *m = open_model(&s);
    assert_ok(qb_quant_plan_make(m, qb_quant_method_find("gptq"), &s.config, &with_room));
    assert_ok(qb_quant_plan_make(m, qb_quant_method_find("gptq"), &t.config, &without));
    qb_model_close(m);
    char *a = quantize(&s, "gptq", "all", &all), *b = quantize(&t, "gptq", "parts", &parts);
    check_same(a, b, &all, &parts);
    int64_t saved = saved_floats * (int64_t)sizeof(float);
    assert_int_equal(with_room.hessian_bytes - without.hessian_bytes, saved);
    assert_true(workspace_peak(&s) - workspace_peak(&t) >= saved / 2);
    assert_true(without.hessian_passes > with_room.hessian_passes);
    assert_int_equal(with_room.hessian_passes, with_room.stages);
    qb_quant_report_free(&all);
    qb_quant_report_free(&parts);
    qb_free(a);
    qb_free(b);
    setting_free(&s);
    setting_free(&t);
}

static void test_experts__hessians_find_room_in_parts(void **state) {
    (void)state;
    /* q, k, v | o | four experts' inputs | four of their inner ones: all but the widest, of 96 columns */
    hessians_in_parts(mixtral, false, 6 * 64 * 64 + 3 * 96 * 96);
    hessians_in_parts(mixtral, true, 3 * 96 * 96);
}

static void compare_stage(const setting *s, qb_calibration *kept, qb_calibration *lean, const qb_block *b,
                          const qb_walk *much, const qb_walk *little, int64_t stage) {
    enum { SITES_MAX = 64 };
    qb_hessian_sum x[SITES_MAX], y[SITES_MAX];
    int64_t first = much->stages[stage].first_site, n = much->stages[stage].n_sites;
    assert_true(n <= SITES_MAX);
    for (int64_t i = 0; i < n; i++) {
        assert_ok(qb_hessian_sum_create(s->dev, much->sites[first + i].cols, &x[i]));
        assert_ok(qb_hessian_sum_create(s->dev, much->sites[first + i].cols, &y[i]));
    }
    assert_ok(qb_calibration_observe(kept, b, much, stage, first, n, x));
    assert_ok(qb_calibration_observe(lean, b, little, stage, first, n, y));
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(x[i].n_samples, s->windows.count);
        assert_int_equal(x[i].rows, y[i].rows);
        assert_memory_equal(x[i].dev_h, y[i].dev_h, (size_t)(x[i].n * x[i].n) * sizeof(float));
        qb_hessian_sum_free(s->dev, &x[i]);
        qb_hessian_sum_free(s->dev, &y[i]);
    }
}

/* The pattern of test_driver__keeping_changes_nothing, with routing among what is kept. */
static void keeping_changes_nothing(const char *config, int64_t layer) {
    setting s = setting_make(config, 12, 64);
    qb_model *m = open_model(&s);
    qb_calibration kept, lean, plain;
    qb_walk much, little;
    qb_block b;
    bool routing = false;
    assert_ok(qb_model_load(m, s.dev, 64, false));
    assert_ok(qb_calibration_create(m, &s.windows, true, 0, &kept));
    assert_ok(qb_calibration_create(m, &s.windows, true, INT64_MAX / 4, &lean));
    assert_ok(qb_calibration_create(m, &s.windows, false, 0, &plain));
    assert_ok(qb_walk_make(&m->topology, &m->topology.layers[layer], &much));
    assert_ok(qb_walk_make(&m->topology, &m->topology.layers[layer], &little));
    qb_walk_store(&much, kept.memory.kept_floats);
    qb_walk_store(&little, lean.memory.kept_floats);
    assert_ok(qb_block_load(m, layer, &b));
    for (size_t i = 0; i < much.n_stages; i++) {
        routing = routing || (much.stages[i].stored && much.stages[i].routing);
        compare_stage(&s, &kept, &lean, &b, &much, &little, (int64_t)i);
    }
    assert_true(routing);
    assert_ok(qb_calibration_finish_block(&kept, &b, &much));
    assert_ok(qb_calibration_finish_block(&lean, &b, &little));
    assert_ok(qb_calibration_forward(&plain, &b));
    size_t bytes = (size_t)(12 * 64 * m->config.hidden) * sizeof(float);
    assert_memory_equal(kept.x, lean.x, bytes);
    assert_memory_equal(kept.x, plain.x, bytes);
    qb_calibration_free(&kept);
    qb_calibration_free(&lean);
    qb_calibration_free(&plain);
    qb_walk_free(&much);
    qb_walk_free(&little);
    qb_block_free(m, &b);
    qb_model_close(m);
    setting_free(&s);
}

static void test_experts__keeping_changes_nothing(void **state) {
    (void)state;
    keeping_changes_nothing(mixtral, 0);
    keeping_changes_nothing(deepseek, 1);
}

/* Experts in one tensor are no damage, and have random weights as others do. */
static void test_experts__stacked_are_inspected_and_synthetic(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-oss", "gpt-oss-mxfp4", "granite-moe", "granite-moe-shared",
                                        "llama4"};
    char path[600];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, QB_SOURCE_DIR "/tests/golden/families/%s", names[i]);
        qb_json *report = qb_inspect(path);
        assert_true(qb_json_true(qb_json_get(report, "sound")));
        assert_int_equal(qb_json_count(qb_json_get(report, "oddities")), 0);
        qb_json_free(report);
        snprintf(path, sizeof path, "synthetic:" QB_SOURCE_DIR "/tests/golden/families/%s", names[i]);
        qb_model *m;
        qb_device *dev;
        assert_ok(qb_model_open(path, &m));
        assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &dev));
        assert_ok(qb_model_load(m, dev, 16, true));
        qb_model_close(m);
        dev->backend->close(dev);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_experts__have_hessians_of_their_own),
        cmocka_unit_test(test_experts__few_tokens_are_rounded),
        cmocka_unit_test(test_experts__both_orders_of_calibration),
        cmocka_unit_test(test_experts__hessians_find_room_in_parts),
        cmocka_unit_test(test_experts__keeping_changes_nothing),
        cmocka_unit_test(test_experts__stacked_are_inspected_and_synthetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
