/* Whole models token by token: greedy text and logits of decode steps against the CPU, for files of every
   format that a method writes. */
#include "tests/cuda_pair.h"

#include "eval/eval.h"
#include "model/decoder.h"
#include "quant/driver.h"

enum { MAX_TOKENS = 64 };
typedef struct {
    int32_t ids[MAX_TOKENS];
    int n;
} text;

static bool keep(void *ctx, int32_t id) {
    text *t = ctx;
    t->ids[t->n++] = id;
    return t->n < MAX_TOKENS;
}

static qb_model *load(const char *dir, qb_device *dev) {
    qb_model *m;
    assert_ok(qb_model_open(dir, &m));
    assert_ok(qb_model_load(m, dev, m->config.max_positions, true));
    return m;
}

/* stop: the id that ends the text, or none for -1. */
static text greedy(const char *dir, qb_device *dev, int tokens, int32_t stop) {
    text t = {.n = 0};
    int32_t bos = 1;
    qb_model *m = load(dir, dev);
    qb_generate_config config = {
        .tokens = tokens, .ignore_eos = stop < 0, .stops = &stop, .n_stops = stop < 0 ? 0 : 1};
    assert_ok(qb_generate(m, dev, &bos, 1, &config, keep, &t));
    qb_model_close(m);
    return t;
}

static void test_cuda_generate__greedy_text_equals_the_cpu(void **state) {
    (void)state;
    static const char *const models[] = {"models/stories260K-hf", "models/babyllama-tok105-hf"};
    for (int i = 0; i < 2; i++) {
        char dir[1024];
        snprintf(dir, sizeof dir, "%s", shared_path(models[i]));
        text want = greedy(dir, on_cpu, 40, -1), got = greedy(dir, on_cuda, 40, -1);
        assert_int_equal(got.n, want.n);
        assert_memory_equal(got.ids, want.ids, (size_t)want.n * sizeof *want.ids);
        /* an end amid the tokens that the device computes ahead */
        int first = 0;
        while (want.ids[first] != want.ids[13]) first++;
        got = greedy(dir, on_cuda, 40, want.ids[13]);
        assert_int_equal(got.n, first);
        assert_memory_equal(got.ids, want.ids, (size_t)first * sizeof *want.ids);
    }
}

/* A panel of weights is dequantized once a piece: long prompts come in larger ones than on the cpu. */
static void test_cuda_generate__pieces_of_a_prompt(void **state) {
    (void)state;
    assert_int_equal(qb_prefill_piece(&qb_backend_cpu, 1, 4096), 512);
    assert_int_equal(qb_prefill_piece(&qb_backend_cpu, 3, 100), 100);
    assert_int_equal(qb_prefill_piece(cuda, 1, 4096), 2048);
    assert_int_equal(qb_prefill_piece(cuda, 2, 4096), 1024);
    assert_int_equal(qb_prefill_piece(cuda, 8, 4096), 512);
    assert_int_equal(qb_prefill_piece(cuda, 1, 700), 700);
}

/* Logits of `tokens` decode steps over given ids, one sequence: out[tokens][vocab]. */
static float *step_logits(const char *dir, qb_device *dev, const int32_t *ids, int64_t tokens) {
    const qb_backend *be = dev->backend;
    qb_model *m = load(dir, dev);
    int64_t vocab = m->config.vocab;
    float *out = noise_new(tokens * vocab), *x, *logits;
    qb_workspace ws;
    qb_kv kv;
    assert_ok(qb_workspace_create(m, 1, &ws));
    assert_ok(qb_kv_create(m, QB_DTYPE_F16, m->config.n_layers, 1, tokens, &kv));
    assert_ok(be->alloc(dev, QB_MEMORY_ACTIVATIONS, m->config.hidden * 4, &x));
    assert_ok(be->alloc(dev, QB_MEMORY_ACTIVATIONS, vocab * 4, &logits));
    for (int64_t t = 0; t < tokens; t++) {
        qb_span span = {1, 1, t, &kv, 0};
        assert_ok(qb_model_next(m, &ws, x, ids + t, &span, logits));
        assert_ok(be->download(dev, out + t * vocab, logits, vocab * 4));
    }
    be->free(dev, x);
    be->free(dev, logits);
    qb_kv_free(m, &kv);
    qb_workspace_free(m, &ws);
    qb_model_close(m);
    return out;
}

static void compare_steps(const char *dir, const char *what) {
    enum { TOKENS = 6 };
    const int32_t ids[TOKENS] = {1, 400, 17, 3000, 2222, 901};
    float *want = step_logits(dir, on_cpu, ids, TOKENS), *got = step_logits(dir, on_cuda, ids, TOKENS);
    double off = relative_error(got, want, TOKENS * 4096);
    print_message("%s: %.1e off\n", what, off);
    if (!(off < 1e-3)) fail_msg("%s: %g off", what, off);
    qb_free(want);
    qb_free(got);
}

typedef struct {
    const char *name, *method;
    int bits;
    int64_t group;
    bool asymmetric, double_quant;
} written_format;

static void test_cuda_generate__steps_of_every_format_equal_the_cpu(void **state) {
    (void)state;
    static const written_format formats[] = {
        {"rtn int4 g128", "rtn", 4, 128, false, false},
        {"rtn int3 g64 asym", "rtn", 3, 64, true, false},
        {"rtn int2 g32 asym", "rtn", 2, 32, true, false},
        {"rtn int8 per row", "rtn", 8, -1, false, false},
        {"nf4", "nf4", 0, 64, false, false},
        {"fp4 dq", "fp4", 0, 64, false, true},
    };
    char source[1024];
    snprintf(source, sizeof source, "%s", shared_path("models/wikimini-hf"));
    compare_steps(source, "float16");
    char *scratch = scratch_make();
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const written_format *f = &formats[i];
        const qb_quant_method *method = qb_quant_method_find(f->method);
        qb_quant_config config = {0};
        qb_quant_report report = {0};
        qb_model *m;
        assert_non_null(method);
        qb_options_defaults(method->options, &config);
        if (f->bits) {
            config.bits = f->bits;
            config.group_size = f->group;
            config.symmetric = !f->asymmetric;
        } else {
            config.double_quant = f->double_quant;
        }
        char *dir = qb_path_join(scratch, f->name);
        assert_ok(qb_model_open(source, &m));
        assert_ok(
            qb_quantize_model(m, on_cpu, method, &config, NULL, &(qb_quant_target){.dir = dir}, &report));
        qb_model_close(m);
        qb_quant_report_free(&report);
        compare_steps(dir, f->name);
        qb_free(dir);
    }
    scratch_remove(scratch);
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_generate__greedy_text_equals_the_cpu),
        cmocka_unit_test(test_cuda_generate__pieces_of_a_prompt),
        cmocka_unit_test(test_cuda_generate__steps_of_every_format_equal_the_cpu),
    };
    return cmocka_run_group_tests(tests, pair_open, pair_close);
}

int main(void) {
    return cuda_run(run);
}
