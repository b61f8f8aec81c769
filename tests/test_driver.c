/* Whole models through the driver: what is written, the calibration passes, refusals, the plan. */
#include "tests/method_support.h"
#include "tests/support.h"

#include "base/log.h"
#include "datasets/datasets.h"
#include "eval/eval.h"
#include "kernels/cpu/cpu.h"
#include "quant/calibration.h"
#include "quant/driver.h"

#include <math.h>
#include <sys/resource.h>
#include <sys/wait.h>

static const char small_config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":128,\"intermediate_"
    "size\":256,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":320,"
    "\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"hidden_act\":\"silu\","
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"float16\"}";

static void put_file(const char *dir, const char *name, const char *text) {
    char *path = qb_path_join(dir, name);
    assert_ok(qb_file_write_atomic(path, text, strlen(text)));
    qb_free(path);
}

static qb_model *open_synthetic(const char *dir, const char *config) {
    char spec[600];
    qb_model *m;
    put_file(dir, "config.json", config);
    snprintf(spec, sizeof spec, "synthetic:%s", dir);
    assert_ok(qb_model_open(spec, &m));
    return m;
}

/* Writes the synthetic model out as a Hugging Face directory; one element of `poisoned` becomes NaN. */
static char *materialise(const char *dir, const char *poisoned) {
    qb_model *m = open_synthetic(dir, small_config);
    char *out = qb_path_join(dir, "source");
    qb_writer *w;
    assert_ok(qb_writer_create(out, true, 0, &w));
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        assert_ok(qb_writer_plan(w, t->name, t->dtype, t->n_dims, t->shape));
    }
    assert_ok(qb_writer_begin(w));
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        const void *bytes;
        assert_ok(qb_checkpoint_acquire(m->checkpoint, t, &bytes));
        uint16_t *copy;
        assert_ok(qb_alloc((size_t)t->bytes, 1, &copy));
        memcpy(copy, bytes, (size_t)t->bytes);
        if (poisoned && strcmp(t->name, poisoned) == 0) copy[3] = 0x7E00;
        assert_ok(qb_writer_put(w, t->name, copy, t->bytes));
        qb_free(copy);
        qb_checkpoint_release(m->checkpoint, t);
    }
    assert_ok(qb_writer_put_json(w, "config.json", qb_checkpoint_config(m->checkpoint)));
    assert_ok(qb_writer_finish(w));
    put_file(out, "tokenizer.json", "{\"a\":1}");
    put_file(out, "generation_config.json", "{}");
    qb_model_close(m);
    return out;
}

static qb_quant_config defaults(const char *method) {
    qb_quant_config c = {0};
    qb_options_defaults(qb_quant_method_find(method)->options, &c);
    return c;
}

static qb_device *open_device(int threads) {
    qb_device *dev;
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = threads}, &dev));
    return dev;
}

typedef struct {
    char *dir, *source, *out;
    qb_model *m;
    qb_device *dev;
    qb_windows windows;
    qb_quant_report report;
} setting;

static setting setting_make(const char *poisoned) {
    setting s = {.dir = scratch_make()};
    s.source = materialise(s.dir, poisoned);
    s.out = qb_path_join(s.dir, "out");
    assert_ok(qb_model_open(s.source, &s.m));
    s.dev = open_device(2);
    assert_ok(qb_random_windows(320, 12, 64, 1, &s.windows));
    return s;
}

static void setting_free(setting *s) {
    qb_quant_report_free(&s->report);
    qb_windows_free(&s->windows);
    qb_model_close(s->m);
    s->dev->backend->close(s->dev);
    qb_free(s->source);
    qb_free(s->out);
    scratch_remove(s->dir);
}

/* With a model opened afresh: the driver loads it. */
static qb_status quantize(setting *s, const char *method, const qb_quant_config *c, const char *out) {
    const qb_quant_method *m = qb_quant_method_find(method);
    qb_model_close(s->m);
    assert_ok(qb_model_open(s->source, &s->m));
    return qb_quantize_model(s->m, s->dev, m, c, m->needs ? &s->windows : NULL,
                             &(qb_quant_target){.dir = out}, &s->report);
}

/* Relative squared difference between a linear here and there, both as float32. */
static double linear_distance(qb_model *a, qb_model *b, int64_t layer, const qb_linear *l,
                              qb_weight *packed) {
    int64_t rows = l->rows, cols = l->cols;
    qb_weight dense;
    assert_ok(qb_linear_read(a, l, layer, &dense));
    assert_ok(qb_linear_read(b, l, layer, packed));
    assert_non_null(packed->packed);
    float *x, *y;
    assert_ok(qb_alloc((size_t)(rows * cols), sizeof *x, &x));
    assert_ok(qb_alloc((size_t)(rows * cols), sizeof *y, &y));
    assert_ok(qb_to_f32(dense.dtype, dense.dense, rows * cols, x));
    qb_qweight_dequantize(packed->packed, y);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < rows * cols; i++) {
        error += pow((double)x[i] - (double)y[i], 2);
        norm += (double)x[i] * (double)x[i];
    }
    qb_free(x);
    qb_free(y);
    qb_linear_unread(a, l, layer, &dense);
    return error / norm;
}

static void check_copied_tensors(qb_model *a, qb_model *b) {
    size_t copied = 0;
    for (size_t i = 0; i < qb_checkpoint_count(a->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(a->checkpoint, i),
                        *u = qb_checkpoint_find(b->checkpoint, t->name);
        if (strstr(t->name, "_proj")) continue;
        assert_non_null(u);
        const void *x, *y;
        assert_ok(qb_checkpoint_acquire(a->checkpoint, t, &x));
        assert_ok(qb_checkpoint_acquire(b->checkpoint, u, &y));
        assert_int_equal(t->bytes, u->bytes);
        assert_memory_equal(x, y, (size_t)t->bytes);
        qb_checkpoint_release(a->checkpoint, t);
        qb_checkpoint_release(b->checkpoint, u);
        copied++;
    }
    assert_int_equal(copied, 2 + 1 + 2 * 2); /* embedding, head, final norm, two norms a block */
}

static void test_driver__writes_a_complete_checkpoint(void **state) {
    (void)state;
    static const struct {
        const char *method;
        int bits;
        double worst; /* relative squared error of a normal weight */
    } runs[] = {{"rtn", 4, 0.02}, {"gptq", 4, 0.03}, {"gptq", 8, 1e-4}, {"nf4", 4, 0.012}, {"fp4", 4, 0.02}};
    setting s = setting_make(NULL);
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        qb_quant_config c = defaults(runs[i].method);
        c.bits = runs[i].bits;
        c.act_order = i == 2;
        c.double_quant = i == 4;
        char out[600];
        snprintf(out, sizeof out, "%s/out-%zu", s.dir, i);
        assert_ok(quantize(&s, runs[i].method, &c, out));
        assert_int_equal(s.report.n_modules, 14);
        assert_true(s.report.peak_rss_bytes > 1 << 20 && s.report.seconds > 0);
        qb_model *back;
        assert_ok(qb_model_open(out, &back));
        const qb_quantization *q = qb_checkpoint_quantization(back->checkpoint);
        assert_string_equal(q->layout, i < 3 ? "gptq" : "bnb4");
        for (int64_t layer = 0; layer < 2; layer++)
            for (size_t l = 0; l < s.m->topology.layers[layer].n_linears; l++) {
                qb_weight packed;
                double distance =
                    linear_distance(s.m, back, layer, &s.m->topology.layers[layer].linears[l], &packed);
                if (distance > runs[i].worst || distance < 1e-7)
                    fail_msg("%s: distance %g", runs[i].method, distance);
                assert_int_equal(packed.packed->bits, runs[i].bits);
                qb_weight_free(&packed);
            }
        check_copied_tensors(s.m, back);
        char path[700];
        static const char *const files[] = {"tokenizer.json", "generation_config.json",
                                            "quantize_report.json"};
        for (size_t f = 0; f < 3; f++) {
            snprintf(path, sizeof path, "%s/%s", out, files[f]);
            assert_true(qb_path_exists(path));
        }
        qb_quant_plan plan;
        c.samples = 12;
        c.seqlen = 64;
        assert_ok(qb_quant_plan_make(s.m, qb_quant_method_find(runs[i].method), &c, &plan));
        assert_int_equal(plan.params, 2 * (128 * 128 * 2 + 64 * 128 * 2 + 3 * 128 * 256));
        assert_true(fabs((double)plan.checkpoint_bytes / (double)s.report.checkpoint_bytes - 1) < 0.02);
        assert_true(fabs(plan.bits_per_weight - s.report.bits_per_weight) < 1e-9);
        qb_model_close(back);
        qb_quant_report_free(&s.report);
    }
    setting_free(&s);
}

/* The report's numbers as JSON, and in quantize_report.json beside the weights. */
static void test_driver__reports_every_module(void **state) {
    (void)state;
    setting s = setting_make(NULL);
    qb_quant_config c = defaults("gptq");
    assert_ok(quantize(&s, "gptq", &c, s.out));
    qb_json *json;
    char path[600];
    snprintf(path, sizeof path, "%s/quantize_report.json", s.out);
    assert_ok(qb_json_read(path, 1 << 20, &json));
    assert_string_equal(qb_json_string(qb_json_get(json, "method")), "gptq");
    assert_int_equal((int)qb_json_number(qb_json_get(qb_json_get(json, "calibration"), "tokens")), 12 * 64);
    const qb_json *module = qb_json_first(qb_json_get(qb_json_get(json, "report"), "modules"));
    for (size_t i = 0; i < s.report.n_modules; i++, module = qb_json_next(module)) {
        const qb_module_report *r = &s.report.modules[i];
        assert_string_equal(qb_json_string(qb_json_get(module, "module")), r->module);
        assert_string_equal(r->error_kind, "hessian");
        assert_true(r->relative_error > 0 && r->relative_error < 0.05);
        assert_true(r->damp_percent == 0.01 && r->fallback == NULL);
    }
    assert_null(module);
    qb_json_free(json);
    setting_free(&s);
}

/* The first block's q, k, v against Hessians computed here from the embeddings: window, norm and scaling
 * independently. */
static void test_driver__first_hessian_is_that_of_the_embeddings(void **state) {
    (void)state;
    enum { D = 128 };
    setting s = setting_make(NULL);
    qb_quant_config c = defaults("gptq");
    c.bits = 3;
    assert_ok(quantize(&s, "gptq", &c, s.out));
    float *embed, *norm, *weight;
    assert_ok(qb_checkpoint_read_f32(s.m->checkpoint, "model.embed_tokens.weight", 320, D, &embed));
    assert_ok(qb_checkpoint_read_f32(s.m->checkpoint, "model.layers.0.input_layernorm.weight", D, 0, &norm));
    assert_ok(
        qb_checkpoint_read_f32(s.m->checkpoint, "model.layers.0.self_attn.v_proj.weight", 64, D, &weight));
    qb_hessian h = {.n = D, .n_samples = s.windows.count};
    assert_ok(qb_alloc_zero(D * D, sizeof(float), &h.h));
    double *sum;
    assert_ok(qb_alloc_zero(D * D, sizeof *sum, &sum));
    for (int64_t w = 0; w < s.windows.count; w++)
        for (int64_t t = 0; t < s.windows.windows[w].length; t++) {
            const float *e = embed + s.windows.ids[s.windows.windows[w].offset + t] * D;
            double square = 0, x[D];
            for (int i = 0; i < D; i++) square += (double)e[i] * (double)e[i] / D;
            for (int i = 0; i < D; i++) x[i] = (double)e[i] / sqrt(square + 1e-5) * (double)norm[i];
            for (int i = 0; i < D; i++)
                for (int j = 0; j < D; j++) sum[i * D + j] += x[i] * x[j];
        }
    for (int i = 0; i < D * D; i++) h.h[i] = (float)(sum[i] * 2 / (double)s.windows.count);
    assert_ok(qb_hessian_prepare("test", &h));
    qb_quant_job job = {"v", 64, D, weight, QB_DTYPE_F16, &h, &c, NULL, NULL, NULL};
    qb_qweight q;
    qb_module_report report = {0};
    assert_ok(quantize_alone("gptq", &job, &q, &report));
    qb_model *back;
    qb_weight stored;
    assert_ok(qb_model_open(s.out, &back));
    assert_ok(qb_checkpoint_linear(back->checkpoint, "model.layers.0.self_attn.v_proj", 64, D, &stored));
    int differing = 0;
    for (int i = 0; i < 64 * D; i++) differing += q.codes[i] != stored.packed->codes[i];
    if (differing > 64 * D / 200) fail_msg("%d of %d codes differ", differing, 64 * D);
    assert_true(fabs(report.error / s.report.modules[2].error - 1) < 0.01);
    assert_non_null(strstr(s.report.modules[2].module, "v_proj"));
    qb_weight_free(&stored);
    qb_qweight_free(&q);
    qb_hessian_free(&h);
    qb_model_close(back);
    qb_free(sum);
    qb_free(embed);
    qb_free(norm);
    qb_free(weight);
    setting_free(&s);
}

/* Runs a block's stages with and without what may be kept between them; streams and Hessians agree to the
 * bit. */
static void test_driver__keeping_changes_nothing(void **state) {
    (void)state;
    setting s = setting_make(NULL);
    assert_ok(qb_model_load(s.m, s.dev, 64, false));
    qb_calibration kept, lean;
    assert_ok(qb_calibration_create(s.m, &s.windows, true, 0, &kept));
    assert_ok(qb_calibration_create(s.m, &s.windows, true, INT64_MAX / 4, &lean));
    assert_non_null(kept.kept[0]);
    assert_null(lean.kept[0]);
    assert_null(lean.kept[1]);
    qb_walk much, little;
    assert_ok(qb_walk_make(&s.m->topology, &s.m->topology.layers[0], &much));
    assert_ok(qb_walk_make(&s.m->topology, &s.m->topology.layers[0], &little));
    qb_walk_store(&much, kept.memory.kept_floats);
    qb_walk_store(&little, lean.memory.kept_floats);
    qb_block b;
    assert_ok(qb_block_load(s.m, 0, &b));
    const int64_t widths[] = {128, 128, 128, 256};
    assert_int_equal(much.n_stages, 4);
    for (int64_t i = 0; i < 4; i++) {
        qb_hessian_sum x, y;
        assert_int_equal(much.sites[i].cols, widths[i]);
        assert_ok(qb_hessian_sum_create(s.dev, widths[i], &x));
        assert_ok(qb_hessian_sum_create(s.dev, widths[i], &y));
        assert_ok(qb_calibration_observe(&kept, &b, &much, i, i, 1, &x));
        assert_ok(qb_calibration_observe(&lean, &b, &little, i, i, 1, &y));
        assert_int_equal(x.n_samples, 12);
        assert_memory_equal(x.dev_h, y.dev_h, (size_t)(widths[i] * widths[i]) * sizeof(float));
        qb_hessian_sum_free(s.dev, &x);
        qb_hessian_sum_free(s.dev, &y);
    }
    assert_ok(qb_calibration_finish_block(&kept, &b, &much));
    assert_ok(qb_calibration_finish_block(&lean, &b, &little));
    assert_memory_equal(kept.x, lean.x, 12 * 64 * 128 * sizeof(float));
    /* and the stages together are the block */
    qb_calibration plain;
    assert_ok(qb_calibration_create(s.m, &s.windows, false, 0, &plain));
    assert_ok(qb_calibration_forward(&plain, &b));
    assert_memory_equal(kept.x, plain.x, 12 * 64 * 128 * sizeof(float));
    qb_calibration_free(&kept);
    qb_calibration_free(&lean);
    qb_calibration_free(&plain);
    qb_walk_free(&much);
    qb_walk_free(&little);
    qb_block_free(s.m, &b);
    setting_free(&s);
}

static void test_driver__same_bytes_for_any_thread_count(void **state) {
    (void)state;
    setting s = setting_make(NULL);
    char first[QB_SHA256_HEX], again[QB_SHA256_HEX];
    qb_quant_config c = defaults("gptq");
    c.group_size = 32;
    c.true_sequential = false;
    for (int threads = 1; threads <= 3; threads++) {
        qb_model *m;
        qb_device *dev = open_device(threads);
        qb_quant_report report;
        char path[600];
        assert_ok(qb_model_open(s.source, &m));
        assert_ok(qb_quantize_model(m, dev, qb_quant_method_find("gptq"), &c, &s.windows,
                                    &(qb_quant_target){.dir = s.out, .replace = true}, &report));
        snprintf(path, sizeof path, "%s/model.safetensors", s.out);
        assert_ok(qb_hash_file(path, threads == 1 ? first : again));
        if (threads > 1) assert_string_equal(first, again);
        qb_quant_report_free(&report);
        qb_model_close(m);
        dev->backend->close(dev);
    }
    setting_free(&s);
}

static void test_driver__refuses_and_leaves_nothing(void **state) {
    (void)state;
    setting s = setting_make(NULL);
    const qb_quant_method *gptq = qb_quant_method_find("gptq");
    qb_quant_config c = defaults("gptq");
    assert_fails(qb_quantize_model(s.m, s.dev, gptq, &c, NULL, &(qb_quant_target){.dir = s.out}, &s.report),
                 QB_ERR_USAGE, "needs calibration windows");
    c.group_size = 96;
    assert_fails(quantize(&s, "gptq", &c, s.out), QB_ERR_USAGE, "group size 96 does not divide");
    s.windows.ids[5] = 320;
    c = defaults("gptq");
    assert_int_not_equal(quantize(&s, "gptq", &c, s.out), QB_OK); /* an id beyond the vocabulary */
    assert_false(qb_path_exists(s.out));
    c = defaults("nf4");
    assert_ok(quantize(&s, "nf4", &c, s.out));
    qb_quant_report_free(&s.report);
    qb_model *again;
    assert_ok(qb_model_open(s.out, &again));
    char other[600];
    snprintf(other, sizeof other, "%s/other", s.dir);
    assert_fails(qb_quantize_model(again, s.dev, qb_quant_method_find("nf4"), &c, NULL,
                                   &(qb_quant_target){.dir = other}, &s.report),
                 QB_ERR_USAGE, "already quantized (bitsandbytes, 4 bits)");
    assert_false(qb_path_exists(other));
    qb_model_close(again);
    setting_free(&s);
}

static void test_driver__damaged_weights_are_named(void **state) {
    (void)state;
    setting s = setting_make("model.layers.1.mlp.up_proj.weight");
    qb_quant_config rtn = defaults("rtn"), gptq = defaults("gptq");
    assert_fails(quantize(&s, "rtn", &rtn, s.out), QB_ERR_NUMERIC,
                 "model.layers.1.mlp.up_proj: weight[0, 3] is NaN");
    assert_fails(quantize(&s, "gptq", &gptq, s.out), QB_ERR_NUMERIC,
                 "model.layers.1.mlp.up_proj: weight[0, 3] is NaN");
    assert_false(qb_path_exists(s.out));
    setting_free(&s);
    /* what is copied as it is must be sound too */
    static const char *const copied[] = {"model.layers.1.input_layernorm.weight", "model.embed_tokens.weight",
                                         "model.norm.weight"};
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++) {
        char needle[128];
        s = setting_make(copied[i]);
        snprintf(needle, sizeof needle, "tensor %s: element 3 is NaN", copied[i]);
        assert_fails(quantize(&s, "gptq", &gptq, s.out), QB_ERR_NUMERIC, needle);
        assert_fails(quantize(&s, "rtn", &rtn, s.out), QB_ERR_NUMERIC, needle);
        assert_false(qb_path_exists(s.out));
        setting_free(&s);
    }
}

static bool ignore_id(void *ctx, int32_t id) {
    (void)ctx;
    (void)id;
    return true;
}

static void test_driver__a_nan_in_the_forward_pass_names_its_weight(void **state) {
    (void)state;
    setting s = setting_make("model.layers.1.mlp.up_proj.weight");
    const char *needle = "tensor model.layers.1.mlp.up_proj.weight: element 3 is NaN";
    qb_measure row = {0};
    qb_measures rows = {0};
    qb_generate_config greedy = {.tokens = 2, .top_p = 1},
                       drawn = {.tokens = 2, .top_p = 1, .temperature = 1};
    qb_speed_config speed = {
        .kv = "f32", .prefill = {.n = 1, .values = {4}}, .batch = {.n = 1, .values = {1}}};
    qb_ceilings ceilings = {.read_bytes_per_s = 1, .gemm_flop_per_s = 1};
    speed.repeat = 1;
    for (int64_t i = 0; i < s.windows.count; i++)
        s.windows.windows[i].score_begin = 1, s.windows.windows[i].score_end = s.windows.windows[i].length;
    assert_ok(qb_model_load(s.m, s.dev, 64, true));
    assert_fails(qb_perplexity(s.m, s.dev, &s.windows, 0, &row), QB_ERR_NUMERIC, needle);
    assert_fails(qb_generate(s.m, s.dev, s.windows.ids, 4, &greedy, ignore_id, NULL), QB_ERR_NUMERIC, needle);
    assert_fails(qb_generate(s.m, s.dev, s.windows.ids, 4, &drawn, ignore_id, NULL), QB_ERR_NUMERIC, needle);
    assert_fails(qb_speed(s.m, s.dev, &speed, NULL, &ceilings, NULL, &rows), QB_ERR_NUMERIC, needle);
    assert_int_equal(rows.count, 0); /* no row without a value */
    assert_fails(qb_determinism(s.m, s.dev, &rows), QB_ERR_NUMERIC, needle);
    qb_measure_free(&row);
    qb_measures_free(&rows);
    setting_free(&s);
}

static void test_driver__blocks_beyond_the_config_are_refused(void **state) {
    (void)state;
    setting s = setting_make(NULL);
    qb_model *m;
    char *path = qb_path_join(s.source, "config.json");
    qb_json *config = qb_json_copy(qb_checkpoint_config(s.m->checkpoint));
    qb_json_put_int(config, "num_hidden_layers", 1);
    assert_ok(qb_json_write_atomic(config, path));
    assert_fails(qb_model_open(s.source, &m), QB_ERR_FORMAT,
                 "config.json: num_hidden_layers is 1, but the checkpoint holds model.layers.1.");
    qb_json_free(config);
    qb_free(path);
    setting_free(&s);
}

/* Runs in a process of its own, so that its peak is its own. */
static void quantize_wide(const char *dir, const char *method, double *planned, double *measured) {
    static const char config[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":768,"
        "\"intermediate_size\":2048,\"num_hidden_layers\":1,\"num_attention_heads\":12,\"num_key_value_"
        "heads\":12,"
        "\"vocab_size\":2048,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
        "\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"torch_dtype\":\"float16\"}";
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        qb_model *m = open_synthetic(dir, config);
        qb_windows windows;
        qb_quant_config c = defaults(method);
        qb_quant_report report;
        qb_quant_plan plan;
        c.samples = 6;
        c.seqlen = 256;
        char out[600];
        snprintf(out, sizeof out, "%s/out-%s", dir, method);
        assert_ok(qb_random_windows(2048, c.samples, c.seqlen, 1, &windows));
        qb_device *dev = open_device(2);
        assert_ok(qb_quant_plan_make(m, qb_quant_method_find(method), &c, &plan));
        assert_ok(qb_quantize_model(m, dev, qb_quant_method_find(method), &c, &windows,
                                    &(qb_quant_target){.dir = out}, &report));
        double both[2] = {(double)plan.peak_bytes, (double)report.peak_rss_bytes};
        _exit(write(ends[1], both, sizeof both) == (ssize_t)sizeof both ? 0 : 1);
    }
    double both[2] = {0};
    close(ends[1]);
    assert_int_equal(read(ends[0], both, sizeof both), sizeof both);
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    *planned = both[0];
    *measured = both[1];
}

static void test_driver__plan_states_the_peak(void **state) {
    (void)state;
#if defined(QB_SANITIZED)
    print_message("skipped: the sanitizer's own memory is no part of the plan\n");
    skip();
#endif
    char *dir = scratch_make();
    static const char *const methods[] = {"gptq", "rtn", "nf4"};
    for (int i = 0; i < 3; i++) {
        double planned, measured;
        quantize_wide(dir, methods[i], &planned, &measured);
        print_message("%s: planned %.1f MB, measured %.1f MB\n", methods[i], planned * 1e-6, measured * 1e-6);
        if (fabs(planned / measured - 1) > 0.15)
            fail_msg("%s: planned %g, measured %g", methods[i], planned, measured);
    }
    scratch_remove(dir);
}

/* Perplexity of a checkpoint on the first windows of wikitext2. */
static double perplexity(const char *dir, const qb_windows *windows) {
    qb_model *m;
    qb_measure row = {0};
    qb_device *dev = open_device(0);
    assert_ok(qb_model_open(dir, &m));
    assert_ok(qb_model_load(m, dev, windows->max_length, true));
    assert_ok(qb_perplexity(m, dev, windows, 0, &row));
    double value = row.value;
    qb_measure_free(&row);
    qb_model_close(m);
    dev->backend->close(dev);
    return value;
}

static double quantized_perplexity(const char *source, const char *method, int bits,
                                   const qb_windows *calibration, const qb_windows *windows) {
    char *dir = scratch_make(), out[600];
    snprintf(out, sizeof out, "%s/out", dir);
    qb_model *m;
    qb_quant_report report;
    qb_device *dev = open_device(0);
    qb_quant_config c = defaults(method);
    c.bits = bits;
    assert_ok(qb_model_open(source, &m));
    assert_ok(qb_quantize_model(m, dev, qb_quant_method_find(method), &c, calibration,
                                &(qb_quant_target){.dir = out}, &report));
    qb_quant_report_free(&report);
    qb_model_close(m);
    dev->backend->close(dev);
    double value = perplexity(out, windows);
    scratch_remove(dir);
    return value;
}

static void test_driver__a_real_model_keeps_its_perplexity(void **state) {
    (void)state;
#if defined(QB_SANITIZED)
    print_message(
        "skipped: the same paths run on the small model, a real one takes minutes with sanitizers\n");
    skip();
#endif
    char source[1024], c4[1024], wikitext2[1024];
    snprintf(source, sizeof source, "%s", shared_path("models/wikimini-hf"));
    snprintf(c4, sizeof c4, "%s", shared_path("data/c4/c4-train.sample.jsonl"));
    snprintf(wikitext2, sizeof wikitext2, "%s", shared_path("data/wikitext2"));
    char *data = qb_path_dir(wikitext2);
    qb_tokenizer *tokenizer;
    qb_windows calibration, windows;
    qb_data_files files;
    qb_protocol protocol;
    assert_ok(qb_tokenizer_open(source, &tokenizer));
    /* with a dozen windows GPTQ's lead at 2 bits is less than another BLAS's last bits move */
    assert_ok(qb_dataset_calibration(&(qb_source){"c4", data, tokenizer, QB_SPECIAL_FILE}, 64, 256, 0,
                                     &calibration, &files, NULL, NULL));
    assert_ok(qb_protocol_parse("gptq-256", &protocol));
    assert_ok(qb_dataset_windows(&(qb_source){"wikitext2", data, tokenizer, QB_SPECIAL_FILE}, &protocol, 10,
                                 &windows, &files));
    double full = perplexity(source, &windows);
    double nf4 = quantized_perplexity(source, "nf4", 4, &calibration, &windows);
    double gptq4 = quantized_perplexity(source, "gptq", 4, &calibration, &windows);
    double gptq2 = quantized_perplexity(source, "gptq", 2, &calibration, &windows);
    double rtn2 = quantized_perplexity(source, "rtn", 2, &calibration, &windows);
    print_message("wikitext2: f16 %.3f, nf4 %.3f, gptq 4 bits %.3f, 2 bits %.3f, rtn 2 bits %.3f\n", full,
                  nf4, gptq4, gptq2, rtn2);
    assert_true(fabs(nf4 / full - 1) < 0.03 && fabs(gptq4 / full - 1) < 0.03);
    assert_true(gptq2 > full && gptq2 < rtn2 && rtn2 < full * 1.4);
    qb_windows_free(&calibration);
    qb_windows_free(&windows);
    qb_tokenizer_close(tokenizer);
    qb_free(data);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    qb_log_set_level(QB_LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_driver__plan_states_the_peak), /* first: its processes begin small */
        cmocka_unit_test(test_driver__writes_a_complete_checkpoint),
        cmocka_unit_test(test_driver__reports_every_module),
        cmocka_unit_test(test_driver__first_hessian_is_that_of_the_embeddings),
        cmocka_unit_test(test_driver__keeping_changes_nothing),
        cmocka_unit_test(test_driver__same_bytes_for_any_thread_count),
        cmocka_unit_test(test_driver__refuses_and_leaves_nothing),
        cmocka_unit_test(test_driver__damaged_weights_are_named),
        cmocka_unit_test(test_driver__a_nan_in_the_forward_pass_names_its_weight),
        cmocka_unit_test(test_driver__blocks_beyond_the_config_are_refused),
        cmocka_unit_test(test_driver__a_real_model_keeps_its_perplexity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
