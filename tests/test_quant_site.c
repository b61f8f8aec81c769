/* The seam between the driver and its methods: a method owns its sites, and with them the choice of who
   computes. */
#include "datasets/datasets.h"
#include "quant/driver.h"
#include "quant/hessian.h"
#include "tests/method_support.h"

static const char config_json[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":128,"
    "\"intermediate_size\":256,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"vocab_size\":320,\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"torch_dtype\":\"float16\"}";

enum { LAYERS = 2, SITES = 4 * LAYERS, WINDOWS = 6 };

/* A backend that says it has GPTQ, and counts who asks. */
static int gptq_calls;
static qb_status counting_gptq(qb_device *dev, qb_gptq_problem *problem) {
    (void)dev;
    (void)problem;
    gptq_calls++;
    return qb_fail(QB_ERR_UNSUPPORTED, "counted");
}

/* A calibrated method that is not GPTQ: it looks at the Hessian sum and rounds to nearest. */
static int sites_seen;
static qb_status peek_and_round(const qb_site_job *job) {
    assert_non_null(job->sum);
    assert_int_equal(job->sum->n, job->linears[0].from->cols);
    assert_int_equal(job->sum->n_samples, WINDOWS);
    for (int64_t i = 1; i < job->n; i++) assert_int_equal(job->linears[i].from->cols, job->sum->n);
    sites_seen++;
    qb_hessian_sum_free(job->dev, job->sum); /* as a method may */
    return qb_quant_method_find("rtn")->site(job);
}

static char *quantize(const char *dir, const char *name, const qb_quant_method *method, bool counting) {
    char spec[600], *out = qb_path_join(dir, name), *path = qb_path_join(dir, "config.json");
    const qb_backend *cpu = qb_backend_find("cpu");
    qb_backend counted = *cpu;
    qb_device *dev;
    qb_model *m;
    qb_windows windows;
    qb_quant_report report;
    qb_quant_config c = {0};
    counted.gptq = counting_gptq;
    gptq_calls = sites_seen = 0;
    assert_ok(qb_file_write_atomic(path, config_json, strlen(config_json)));
    snprintf(spec, sizeof spec, "synthetic:%s", dir);
    assert_ok(qb_model_open(spec, &m));
    assert_ok(cpu->open(&(qb_device_options){.threads = 2}, &dev));
    if (counting) dev->backend = &counted;
    assert_ok(qb_random_windows(320, WINDOWS, 32, 1, &windows));
    qb_options_defaults(method->options, &c);
    assert_ok(qb_quantize_model(m, dev, method, &c, &windows, &(qb_quant_target){.dir = out}, &report));
    assert_int_equal(report.n_modules, 7 * LAYERS);
    qb_quant_report_free(&report);
    qb_windows_free(&windows);
    qb_model_close(m);
    dev->backend = cpu;
    cpu->close(dev);
    qb_free(path);
    return out;
}

static void assert_same_weights(const char *a, const char *b) {
    qb_checkpoint *one, *two;
    assert_ok(qb_checkpoint_open(a, &one));
    assert_ok(qb_checkpoint_open(b, &two));
    assert_int_equal(qb_checkpoint_count(one), qb_checkpoint_count(two));
    for (size_t i = 0; i < qb_checkpoint_count(one); i++) {
        const qb_tensor *t = qb_checkpoint_at(one, i), *u;
        const void *x, *y;
        assert_ok(qb_checkpoint_need(two, t->name, &u));
        assert_int_equal(t->bytes, u->bytes);
        assert_ok(qb_checkpoint_acquire(one, t, &x));
        assert_ok(qb_checkpoint_acquire(two, u, &y));
        assert_memory_equal(x, y, (size_t)t->bytes);
        qb_checkpoint_release(one, t);
        qb_checkpoint_release(two, u);
    }
    qb_checkpoint_close(one);
    qb_checkpoint_close(two);
}

static void test_quant_site__another_calibrated_method_never_reaches_the_devices_gptq(void **state) {
    (void)state;
    char *dir = scratch_make();
    const qb_quant_method *rtn = qb_quant_method_find("rtn");
    qb_quant_method peeking = *qb_quant_method_find("gptq");
    peeking.name = "peeking";
    peeking.site = peek_and_round;
    char *plain = quantize(dir, "rtn", rtn, true);
    char *out = quantize(dir, "peeking", &peeking, true);
    assert_int_equal(gptq_calls, 0);
    assert_int_equal(sites_seen, SITES);
    assert_same_weights(plain, out);
    qb_free(plain);
    qb_free(out);
    scratch_remove(dir);
}

/* Asked once, not once a site: the host computes what it would have computed without such a device. */
static void test_quant_site__gptq_asks_the_device_and_falls_back_to_the_host(void **state) {
    (void)state;
    char *dir = scratch_make();
    const qb_quant_method *gptq = qb_quant_method_find("gptq");
    char *host = quantize(dir, "host", gptq, false);
    assert_int_equal(gptq_calls, 0);
    char *asked = quantize(dir, "asked", gptq, true);
    assert_int_equal(gptq_calls, 1);
    assert_same_weights(host, asked);
    qb_free(host);
    qb_free(asked);
    scratch_remove(dir);
}

static void test_quant_site__labels_name_what_differs(void **state) {
    (void)state;
    static const struct {
        const char *method, *options, *label;
    } rows[] = {
        {"rtn", "{}", "rtn-4b-g128"},
        {"rtn", "{\"bits\":3,\"group_size\":-1,\"sym\":false,\"mse\":true}", "rtn-3b-row-asym-mse"},
        {"gptq", "{\"act_order\":true,\"static_groups\":true,\"true_sequential\":false,\"mse\":true}",
         "gptq-4b-g128-act-static-noseq-mse"},
        {"nf4", "{}", "nf4"},
        {"fp4", "{\"block_size\":128,\"double_quant\":true}", "fp4-b128-dq"},
        {"int8", "{}", "int8"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const qb_quant_method *m = qb_quant_method_find(rows[i].method);
        qb_quant_config c = {0};
        qb_json *options;
        qb_str label = {0};
        qb_options_defaults(m->options, &c);
        assert_ok(qb_json_parse(rows[i].options, strlen(rows[i].options), "options", &options));
        assert_ok(qb_options_from_json(m->options, &c, options, "options", NULL));
        qb_quant_label(m, &c, &label);
        assert_string_equal(qb_str_get(&label), rows[i].label);
        qb_str_free(&label);
        qb_json_free(options);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant_site__another_calibrated_method_never_reaches_the_devices_gptq),
        cmocka_unit_test(test_quant_site__gptq_asks_the_device_and_falls_back_to_the_host),
        cmocka_unit_test(test_quant_site__labels_name_what_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
