/* Experts that a class stacks in one tensor (gpt-oss, GraniteMoE, Llama 4): split on opening, quantized one
   by one under the names of programs that quantize, and stacked again when they are written dense. Tiny
   synthetic models of the families' own shapes, but with key heads as many as GPTQ's layout wants. */
#include "tests/support.h"

#include "base/json.h"
#include "datasets/datasets.h"
#include "eval/eval.h"
#include "kernels/cpu/cpu.h"
#include "model/model.h"
#include "quant/convert.h"
#include "quant/driver.h"

#include <math.h>

enum { TOKENS = 48, WINDOWS = 4 };

static double perplexity_of(const char *path) {
    qb_model *m;
    qb_device *dev;
    qb_windows windows;
    qb_measure measure;
    assert_ok(qb_model_open(path, &m));
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &dev));
    assert_ok(qb_model_load(m, dev, TOKENS, true));
    assert_ok(qb_random_windows(m->config.vocab, WINDOWS, TOKENS, 3, &windows));
    for (int64_t i = 0; i < windows.count; i++)
        windows.windows[i].score_begin = 1, windows.windows[i].score_end = TOKENS;
    windows.mean = QB_MEAN_OF_TOKENS;
    assert_ok(qb_perplexity(m, dev, &windows, 0, &measure));
    double value = measure.value;
    assert_true(isfinite(value));
    qb_measure_free(&measure);
    qb_windows_free(&windows);
    qb_model_close(m);
    dev->backend->close(dev);
    return value;
}

static void assert_near(double got, double want, double relative) {
    if (!(fabs(got / want - 1) <= relative)) fail_msg("%.9g, expected %.9g within %g", got, want, relative);
}

/* "synthetic:DIR" with the golden's config and four key heads. */
static char *synthetic_of(const char *dir, const char *golden) {
    char path[512];
    qb_json *config;
    snprintf(path, sizeof path, QB_SOURCE_DIR "/tests/golden/families/%s/config.json", golden);
    assert_ok(qb_json_read(path, 1 << 20, &config));
    qb_json_put_int(config, "num_key_value_heads", 4);
    char *to = qb_path_join(dir, "config.json");
    assert_ok(qb_json_write_atomic(config, to));
    qb_json_free(config);
    qb_free(to);
    snprintf(path, sizeof path, "synthetic:%s", dir);
    return qb_strdup(path);
}

static void convert(const char *from, const char *to, const char *out) {
    qb_model *m;
    qb_conversion conversion;
    assert_ok(qb_model_open(from, &m));
    assert_ok(qb_convert_model(m, to, &(qb_quant_target){.dir = out}, &conversion));
    qb_model_close(m);
}

static qb_status quantize(const char *from, const char *name, const char *out, size_t *modules) {
    const qb_quant_method *method = qb_quant_method_find(name);
    qb_quant_config config = {0};
    qb_quant_report report;
    qb_windows windows = {0};
    qb_model *m;
    qb_device *dev;
    qb_options_defaults(method->options, &config);
    if (strcmp(name, "nf4") != 0) config.bits = 8, config.group_size = 32;
    assert_ok(qb_model_open(from, &m));
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &dev));
    if (method->needs) assert_ok(qb_random_windows(m->config.vocab, 16, TOKENS, 1, &windows));
    qb_status st = qb_quantize_model(m, dev, method, &config, method->needs ? &windows : NULL,
                                     &(qb_quant_target){.dir = out}, &report);
    *modules = st == QB_OK ? report.n_modules : 0;
    qb_quant_report_free(&report);
    qb_windows_free(&windows);
    qb_model_close(m);
    dev->backend->close(dev);
    return st;
}

/* The directory as its files have it, not as a model has it. */
static void assert_tensor(const char *dir, const char *name, int n_dims) {
    qb_checkpoint *ck;
    assert_ok(qb_checkpoint_open(dir, &ck));
    const qb_tensor *t = qb_checkpoint_find(ck, name);
    if ((t ? t->n_dims : 0) != n_dims)
        fail_msg("%s: %d dimensions, expected %d", name, t ? t->n_dims : 0, n_dims);
    qb_checkpoint_close(ck);
}

typedef struct {
    const char *golden, *stack, *apart, *bias; /* of expert 3; NULL: no bias */
    const char *stacked_bias;
    size_t linears;
} family;

static const family families[] = {
    {"gpt-oss", "model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.3.up_proj",
     "model.layers.0.mlp.experts.3.gate_proj.bias", "model.layers.0.mlp.experts.gate_up_proj_bias",
     2 * (4 + 3 * 4)},
    {"granite-moe", "model.layers.0.block_sparse_moe.input_linear.weight",
     "model.layers.0.block_sparse_moe.input_linear.3.linear", NULL, NULL, 2 * (4 + 2 * 4)},
    {"granite-moe-shared", "model.layers.0.block_sparse_moe.output_linear.weight",
     "model.layers.0.block_sparse_moe.output_linear.3.linear", NULL, NULL, 4 + 2 * 4 + 2},
    {"llama4", "model.layers.1.feed_forward.experts.gate_up_proj",
     "model.layers.1.feed_forward.experts.3.gate_proj", NULL, NULL, 4 * (4 + 3) + 2 * 3 * 4},
};

static void check_quantized(const family *f, const char *dir, const char *dense, const char *method,
                            double want) {
    char *out = qb_path_join(dir, method), *again = qb_path_join(dir, "again"), name[256];
    size_t modules;
    assert_ok(quantize(dense, method, out, &modules));
    assert_int_equal(modules, f->linears);
    snprintf(name, sizeof name, "%s.qweight", f->apart);
    assert_tensor(out, name, 2);
    assert_tensor(out, f->stack, 0);
    if (f->bias) assert_tensor(out, f->bias, 1);
    double quantized = perplexity_of(out);
    assert_near(quantized, want, 0.05);
    convert(out, "f32", again);
    assert_tensor(again, f->stack, 3);
    if (f->stacked_bias) assert_tensor(again, f->stacked_bias, 2);
    assert_near(perplexity_of(again), quantized, 1e-5);
    scratch_remove(again);
    qb_free(out);
}

static void test_stacks__are_quantized_one_by_one(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        const family *f = &families[i];
        size_t modules;
        char *dir = scratch_make(), *from = synthetic_of(dir, f->golden), *dense = qb_path_join(dir, "dense"),
             *out = qb_path_join(dir, "out");
        convert(from, "f32", dense);
        assert_tensor(dense, f->stack, 3);
        double want = perplexity_of(from);
        assert_near(perplexity_of(dense), want, 1e-6);
        check_quantized(f, dir, dense, "rtn", want);
        check_quantized(f, dir, dense, "gptq", want);
        assert_fails(quantize(dense, "nf4", out, &modules), QB_ERR_UNSUPPORTED, "GPTQModel reads gptq");
        qb_free(from);
        qb_free(dense);
        qb_free(out);
        scratch_remove(dir);
    }
}

/* A stack that has fewer matrices than the config has experts is no model of it. */
static void test_stacks__of_another_size_are_refused(void **state) {
    (void)state;
    char *dir = scratch_make(), *from = synthetic_of(dir, "granite-moe"), *dense = qb_path_join(dir, "dense"),
         *path = qb_path_join(dense, "config.json");
    qb_json *config;
    qb_model *m;
    convert(from, "f32", dense);
    assert_ok(qb_json_read(path, 1 << 20, &config));
    qb_json_put_int(config, "num_local_experts", 3);
    assert_ok(qb_json_write_atomic(config, path));
    assert_fails(qb_model_open(dense, &m), QB_ERR_FORMAT, "expected a stack of 3 matrices, found F32 [4,");
    qb_json_free(config);
    qb_free(path);
    qb_free(from);
    qb_free(dense);
    scratch_remove(dir);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stacks__are_quantized_one_by_one),
        cmocka_unit_test(test_stacks__of_another_size_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
