/* Whole models through the CUDA backend: perplexity against
   the cpu, and on a device against the golden figures. */
#include "tests/cuda_support.h"

#include "base/json.h"
#include "datasets/datasets.h"
#include "eval/eval.h"

/* The shim computes as little as shows a fault, least with sanitizers. */
#if defined(QB_SHIM) && defined(QB_SANITIZED)
enum { WINDOWS = 1 };
static const char protocol_name[] = "gptq-32";
#elif defined(QB_SHIM)
enum { WINDOWS = 2 };
static const char protocol_name[] = "gptq-64";
#else
enum { WINDOWS = 20 };
static const char protocol_name[] = "gptq-512";
#endif

static double perplexity(const qb_backend *backend, const char *dir, const qb_windows *windows,
                         bool resident) {
    qb_model *model;
    qb_device *dev;
    qb_measure got;
    assert_ok(qb_model_open(dir, &model));
    assert_ok(backend->open(&(qb_device_options){.threads = 2}, &dev));
    assert_ok(qb_model_load(model, dev, model->config.max_positions, resident));
    assert_ok(qb_perplexity(model, dev, windows, 0, &got));
    double value = got.value;
    qb_measure_free(&got);
    qb_model_close(model);
    if (backend == cuda)
        cuda_close_device(dev);
    else
        backend->close(dev);
    return value;
}

static void cut(const char *dir, const char *dataset, const char *protocol, qb_special_tokens special,
                int64_t most, qb_windows *out) {
    qb_tokenizer *tokenizer;
    qb_protocol p;
    assert_ok(qb_tokenizer_open(dir, &tokenizer));
    assert_ok(qb_protocol_parse(protocol, &p));
    assert_ok(qb_dataset_windows(&(qb_source){dataset, shared_path("data"), tokenizer, special}, &p, most,
                                 out, NULL));
    qb_tokenizer_close(tokenizer);
}

static void compare_with_cpu(const char *model) {
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", shared_path(model));
    qb_windows windows;
    cut(dir, "wikitext2", protocol_name, QB_SPECIAL_TEXT, WINDOWS, &windows);
    double want = perplexity(&qb_backend_cpu, dir, &windows, true),
           got = perplexity(cuda, dir, &windows, true);
    print_message("%s: cpu %.6f, cuda %.6f, off by %.1e\n", model, want, got, fabs(got / want - 1));
    assert_true(fabs(got / want - 1) < 1e-3);
    /* Block by block gives what resident weights give, and every run the same bits. */
    assert_true(perplexity(cuda, dir, &windows, false) == got);
    qb_windows_free(&windows);
}

static void test_cuda_model__stories_agrees_with_the_cpu(void **state) {
    (void)state;
    compare_with_cpu("models/stories260K-hf");
}

static void test_cuda_model__wikimini_agrees_with_the_cpu(void **state) {
    (void)state;
    compare_with_cpu("models/wikimini-hf");
}

#ifndef QB_SHIM
static void test_cuda_model__wikimini_equals_golden(void **state) {
    (void)state;
    qb_json *json;
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", shared_path("models/wikimini-hf"));
    assert_ok(qb_json_read(shared_path("golden/perplexity-wikimini.json"), 1 << 20, &json));
    for (const qb_json *row = qb_json_first(qb_json_get(json, "rows")); row; row = qb_json_next(row)) {
        char dataset[64];
        snprintf(dataset, sizeof dataset, "%s", qb_json_string(qb_json_get(row, "dataset")));
        dataset[strcspn(dataset, " ")] = 0; /* "wikitext2 raw bytes": llamacpp reads those by definition */
        qb_windows windows;
        qb_special_tokens special;
        assert_ok(qb_special_tokens_parse(qb_json_string(qb_json_get(row, "special_tokens")), &special));
        cut(dir, dataset, qb_json_string(qb_json_get(row, "protocol")), special, 0, &windows);
        double want = qb_json_number(qb_json_get(row, "perplexity")),
               got = perplexity(cuda, dir, &windows, true);
        print_message("%s: %.6f, golden %.6f\n", dataset, got, want);
        assert_true(fabs(got / want - 1) < 1e-3);
        qb_windows_free(&windows);
    }
    qb_json_free(json);
}
#endif

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_model__stories_agrees_with_the_cpu),
        cmocka_unit_test(test_cuda_model__wikimini_agrees_with_the_cpu),
#ifndef QB_SHIM
        cmocka_unit_test(test_cuda_model__wikimini_equals_golden),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return cuda_run(run);
}
