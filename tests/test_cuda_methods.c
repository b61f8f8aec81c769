/* Whole models quantized by the device against the same quantized by the host: a table of perplexities per
   method and bits, and of the device's forward on what it made. The demo model and its texts. */
#include "eval/eval.h"
#include "quant/driver.h"
#include "tests/cuda_support.h"
#include "tokenizer/tokenizer.h"

#define DEMO QB_SOURCE_DIR "/bench/demo"
enum { WINDOW = 128, TEXT_WINDOWS = 48, FORWARD_WINDOWS = 1 };
#ifdef QB_SHIM
/* Few tokens, since the shim takes a second for a dozen: their Hessians leave GPTQ's choices loose, and the
   device's float16 activations then move the result by more than with the paper's amount of data. */
enum { SAMPLES = 4, SAMPLE_TOKENS = 64 };
#else
enum { SAMPLES = 64, SAMPLE_TOKENS = 256 };
#endif

/* A code that goes the other way moves all that follow, so GPTQ answers a change of the last digits of its
   Hessian with other codes that are as good. On the host alone, with damping changed by 2e-4 to 1e-3 of its
   value, the perplexity of the demo model moves by up to 1e-5 (8 bits), 5e-4 (4), 5e-3 (3) and 5e-2 (2);
   allowed is some times that. */
static double gptq_tolerance(int bits) {
#ifdef QB_SHIM
    (void)bits;
    return 0.02;
#else
    return bits == 8 ? 1e-3 : bits == 4 ? 4e-3 : bits == 3 ? 2e-2 : 0.15;
#endif
}

static qb_windows text_windows(const char *file, int64_t count, int32_t length, bool scored) {
    char *text;
    size_t n;
    qb_tokenizer *t;
    qb_ids ids = {0};
    qb_windows w = {.max_length = length, .count = count};
    assert_ok(qb_file_read(file, 1 << 24, &text, &n));
    assert_ok(qb_tokenizer_open(DEMO, &t));
    assert_ok(qb_tokenizer_encode(t, text, n, false, &ids));
    qb_tokenizer_close(t);
    qb_free(text);
    assert_true((int64_t)ids.count >= count * length);
    w.ids = ids.ids, w.n_ids = w.total_tokens = count * length;
    assert_ok(qb_alloc_zero((size_t)count, sizeof *w.windows, &w.windows));
    for (int64_t i = 0; i < count; i++)
        w.windows[i] = (qb_window){i * length, length, scored ? 1 : length, length};
    snprintf(w.protocol, sizeof w.protocol, scored ? "gptq-%d" : "calibration", (int)length);
    snprintf(w.dataset, sizeof w.dataset, "demo");
    return w;
}

static qb_device *open_device(const char *backend) {
    qb_device *dev;
    assert_ok(qb_backend_find(backend)->open(&(qb_device_options){.threads = 2}, &dev));
    return dev;
}

static double perplexity(const char *dir, const char *backend, const qb_windows *w, int64_t windows) {
    qb_device *dev = open_device(backend);
    qb_model *m;
    qb_measure row;
    qb_windows part = *w;
    part.count = windows;
    assert_ok(qb_model_open(dir, &m));
    assert_ok(qb_model_load(m, dev, w->max_length, true));
    assert_ok(qb_perplexity(m, dev, &part, 0, &row));
    double value = row.value;
    qb_measure_free(&row);
    qb_model_close(m);
    dev->backend->close(dev);
    return value;
}

static void quantize(const char *backend, const char *method, const qb_quant_config *c, const qb_windows *w,
                     const char *dir) {
    qb_device *dev = open_device(backend);
    qb_model *m;
    qb_quant_report report;
    const qb_quant_method *how = qb_quant_method_find(method);
    assert_ok(qb_model_open(DEMO, &m));
    assert_ok(qb_quantize_model(m, dev, how, c, how->needs ? w : NULL,
                                &(qb_quant_target){.dir = dir, .replace = true}, &report));
    qb_quant_report_free(&report);
    qb_model_close(m);
    dev->backend->close(dev);
}

static void compare_method(const char *method, int bits, bool act_order, const char *scratch,
                           const qb_windows *text, const qb_windows *calibration) {
    qb_quant_config c = {0};
    char *made[2] = {qb_path_join(scratch, "host"), qb_path_join(scratch, "device")};
    double on_host[2];
    qb_options_defaults(qb_quant_method_find(method)->options, &c);
    bool gptq = !strcmp(method, "gptq");
    if (bits) c.bits = bits, c.group_size = 64;
    c.act_order = act_order;
    for (int i = 0; i < 2; i++) {
        quantize(i ? "cuda" : "cpu", method, &c, calibration, made[i]);
        on_host[i] = perplexity(made[i], "cpu", text, TEXT_WINDOWS);
    }
    double change = on_host[1] / on_host[0] - 1;
    double here = perplexity(made[1], "cpu", text, FORWARD_WINDOWS);
    double there = perplexity(made[1], "cuda", text, FORWARD_WINDOWS);
    print_message("%-5s %d bit%-4s  made by host %8.4f, by device %8.4f: %+.4f %%   forward %+.4f %%\n",
                  method, bits ? bits : 4, act_order ? " act" : "", on_host[0], on_host[1], 100 * change,
                  100 * (there / here - 1));
    if (!(fabs(change) <= (gptq ? gptq_tolerance(bits) : 0)))
        fail_msg("%s, %d bits: the device's codes have perplexity %.6f, the host's %.6f", method, bits,
                 on_host[1], on_host[0]);
    if (!(fabs(there / here - 1) <= 1e-3))
        fail_msg("%s, %d bits: perplexity %.6f on the device, %.6f on the host", method, bits, there, here);
    for (int i = 0; i < 2; i++) qb_free(made[i]);
}

static void test_cuda_methods__agree_with_the_host(void **state) {
    (void)state;
    char *scratch = scratch_make();
    qb_windows text = text_windows(DEMO "/test.txt", TEXT_WINDOWS, WINDOW, true);
    qb_windows calibration = text_windows(DEMO "/train.txt", SAMPLES, SAMPLE_TOKENS, false);
    compare_method("rtn", 4, false, scratch, &text, &calibration);
    compare_method("rtn", 3, false, scratch, &text, &calibration);
    compare_method("nf4", 0, false, scratch, &text, &calibration);
    compare_method("fp4", 0, false, scratch, &text, &calibration);
    compare_method("gptq", 8, false, scratch, &text, &calibration);
    compare_method("gptq", 4, true, scratch, &text, &calibration);
#ifndef QB_SHIM
    compare_method("gptq", 4, false, scratch, &text, &calibration);
    compare_method("gptq", 3, false, scratch, &text, &calibration);
    compare_method("gptq", 2, false, scratch, &text, &calibration);
#endif
    qb_windows_free(&text);
    qb_windows_free(&calibration);
    scratch_remove(scratch);
}

static int run(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuda_methods__agree_with_the_host)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return cuda_run(run);
}
