/* Steps that float16 does not hold: weights scaled so that the function of the model stays what it is.
   Reports are checked against what the files hold, by a sum of this test's own. */
#include "base/log.h"
#include "datasets/datasets.h"
#include "kernels/grid_math.h"
#include "model/inspect.h"
#include "quant/convert.h"
#include "quant/driver.h"
#include "tests/method_support.h"

#include <math.h>

static const char config_json[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":128,"
    "\"intermediate_size\":256,\"num_hidden_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"vocab_size\":320,\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"torch_dtype\":\"float32\"}";

static void test_quant_steps__small_steps_are_what_float16_holds(void **state) {
    (void)state;
    for (float step = 1e-37F; step < 1.0F; step *= 1.37F) {
        float settled = qb_grid_settle_step(step);
        if (step >= QB_LEAST_NORMAL_SCALE) {
            assert_true(settled == step);
            continue;
        }
        assert_true(settled >= step && settled - step <= QB_LEAST_SCALE);
        assert_true(settled >= QB_LEAST_SCALE && qb_scale_as_stored(settled) == settled);
    }
    assert_true(qb_grid_settle_step(3 * QB_LEAST_SCALE) == 3 * QB_LEAST_SCALE);
}

/* ---- models ---- */

/* A factor for the tensors whose names hold `part`; row: for this one alone, or -1. */
typedef struct {
    const char *part;
    float factor;
    int64_t row;
} change;

/* The synthetic model as a directory of its own, in float32, with what `changes` say. */
static char *write_model(const char *dir, const change *changes) {
    char spec[600], *path = qb_path_join(dir, "config.json"), *out = qb_path_join(dir, "source");
    qb_model *m;
    qb_writer *w;
    assert_ok(qb_file_write_atomic(path, config_json, strlen(config_json)));
    snprintf(spec, sizeof spec, "synthetic:%s", dir);
    assert_ok(qb_model_open(spec, &m));
    assert_ok(qb_writer_create(out, true, 0, &w));
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        assert_ok(qb_writer_plan(w, t->name, QB_DTYPE_F32, t->n_dims, t->shape));
    }
    assert_ok(qb_writer_begin(w));
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        int64_t cols = t->n_dims == 2 ? t->shape[1] : 0, n = t->shape[0] * (cols ? cols : 1);
        float *x;
        assert_ok(qb_checkpoint_read_f32(m->checkpoint, t->name, t->shape[0], cols, &x));
        for (const change *c = changes; c->part; c++)
            for (int64_t k = 0; strstr(t->name, c->part) && k < n; k++)
                if (c->row < 0 || k / cols == c->row) x[k] *= c->factor;
        assert_ok(qb_writer_put(w, t->name, x, n * 4));
        qb_free(x);
    }
    assert_ok(qb_writer_put_json(w, "config.json", qb_checkpoint_config(m->checkpoint)));
    assert_ok(qb_writer_finish(w));
    qb_model_close(m);
    qb_free(path);
    return out;
}

static qb_status quantize(const char *source, const char *out, const char *method, const char *options,
                          qb_quant_report *report) {
    const qb_quant_method *how = qb_quant_method_find(method);
    qb_quant_config c = {0};
    qb_json *json;
    qb_model *m;
    qb_device *dev;
    qb_windows windows;
    assert_ok(qb_json_parse(options, strlen(options), "options", &json));
    qb_options_defaults(how->options, &c);
    assert_ok(qb_options_from_json(how->options, &c, json, "options", NULL));
    assert_ok(qb_model_open(source, &m));
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 2}, &dev));
    assert_ok(qb_random_windows(320, 8, 64, 1, &windows));
    qb_status st = qb_quantize_model(m, dev, how, &c, how->needs ? &windows : NULL,
                                     &(qb_quant_target){.dir = out, .replace = true}, report);
    qb_windows_free(&windows);
    qb_model_close(m);
    dev->backend->close(dev);
    qb_json_free(json);
    return st;
}

/* Every module's squared error and its share, read from both directories again. */
static void check_report(const char *source, const char *out, const qb_quant_report *report,
                         const char *what) {
    qb_checkpoint *a, *b;
    assert_ok(qb_checkpoint_open(source, &a));
    assert_ok(qb_checkpoint_open(out, &b));
    for (size_t i = 0; i < report->n_modules; i++) {
        const qb_module_report *m = &report->modules[i];
        char name[160];
        float *x, *y;
        qb_weight stored;
        double error = 0, norm = 0;
        if (strcmp(m->error_kind, "weight")) continue; /* test_gptq has the others */
        snprintf(name, sizeof name, "%s.weight", m->module);
        assert_ok(qb_checkpoint_read_f32(a, name, m->rows, m->cols, &x));
        assert_ok(qb_checkpoint_linear(b, m->module, m->rows, m->cols, &stored));
        assert_ok(qb_alloc((size_t)(m->rows * m->cols), sizeof *y, &y));
        qb_qweight_dequantize(stored.packed, y);
        for (int64_t k = 0; k < m->rows * m->cols; k++) {
            error += pow((double)x[k] - (double)y[k], 2);
            norm += (double)x[k] * (double)x[k];
        }
        if (!(fabs(m->error - error) <= 1e-9 * error) ||
            !(fabs(m->relative_error - error / norm) <= 1e-9 * error / norm))
            fail_msg("%s: %s: reported %.9g (%.9g), in the file %.9g (%.9g)", what, m->module, m->error,
                     m->relative_error, error, error / norm);
        qb_checkpoint_free_linear(b, m->module, &stored);
        qb_free(x);
        qb_free(y);
    }
    qb_checkpoint_close(a);
    qb_checkpoint_close(b);
}

/* v_proj times 1e-5 and o_proj times 1e5 leave the model's function as it is. */
static void test_quant_steps__reports_are_of_what_the_file_holds(void **state) {
    (void)state;
    static const change changes[] = {{"v_proj", 1e-5F, -1}, {"o_proj", 1e5F, -1}, {0}};
    static const struct {
        const char *method, *options;
        double largest; /* relative error of any module; 0: refused */
    } rows[] = {
        {"rtn", "{\"bits\":2,\"group_size\":32}", 0.6},
        {"rtn", "{\"bits\":3,\"group_size\":32}", 0.1},
        {"rtn", "{\"bits\":4,\"group_size\":32,\"sym\":false}", 0.05},
        {"rtn", "{\"bits\":4,\"group_size\":-1,\"mse\":true}", 0.1},
        {"rtn", "{\"bits\":8}", 0},
        {"gptq", "{\"bits\":4,\"group_size\":32,\"act_order\":true}", 0.1},
        {"gptq", "{\"bits\":8}", 0},
        {"nf4", "{}", 0.02},
        {"nf4", "{\"double_quant\":true}", 0.02},
        {"fp4", "{\"double_quant\":true}", 0.05},
        {"int8", "{}", 0},
    };
    char *dir = scratch_make(), *source = write_model(dir, changes), *out = qb_path_join(dir, "out");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_quant_report report;
        qb_status st = quantize(source, out, rows[i].method, rows[i].options, &report);
        if (rows[i].largest == 0) {
            assert_fails(st, QB_ERR_NUMERIC, "v_proj: row 0, group 0: weights of at most");
            continue;
        }
        if (st != QB_OK) fail_msg("%s %s: %s", rows[i].method, rows[i].options, qb_error_text());
        check_report(source, out, &report, rows[i].options);
        for (size_t k = 0; k < report.n_modules; k++)
            if (!(report.modules[k].relative_error < rows[i].largest))
                fail_msg("%s %s: %s: relative error %g", rows[i].method, rows[i].options,
                         report.modules[k].module, report.modules[k].relative_error);
        qb_quant_report_free(&report);
    }
    qb_free(out);
    qb_free(source);
    scratch_remove(dir);
}

static void test_quant_steps__what_overflows_is_refused_by_name(void **state) {
    (void)state;
    static const change changes[] = {{"o_proj", 1e9F, 5}, {0}};
    char *dir = scratch_make(), *source = write_model(dir, changes), *out = qb_path_join(dir, "out");
    qb_quant_report report;
    assert_fails(quantize(source, out, "rtn", "{\"bits\":4,\"group_size\":32}", &report), QB_ERR_NUMERIC,
                 "of row 5, group 0 does not fit float16");
    assert_non_null(strstr(qb_error_text(), "model.layers.0.self_attn.o_proj"));
    assert_fails(quantize(source, out, "gptq", "{\"bits\":4,\"group_size\":32}", &report), QB_ERR_NUMERIC,
                 "of row 5, group 0 does not fit float16");
    assert_fails(quantize(source, out, "int8", "{}", &report), QB_ERR_NUMERIC, "overflows float16");
    assert_ok(quantize(source, out, "nf4", "{\"double_quant\":true}", &report));
    check_report(source, out, &report, "nf4");
    qb_quant_report_free(&report);
    qb_free(out);
    qb_free(source);
    scratch_remove(dir);
}

typedef struct {
    int warnings;
    char text[400];
} heard;

static void hear(void *ctx, const char *text) {
    heard *h = ctx;
    h->warnings++;
    snprintf(h->text, sizeof h->text, "%s", text);
}

/* A dead channel costs nothing: it is said, and it becomes what float16 can do. */
static void test_quant_steps__a_dead_channel_is_said(void **state) {
    (void)state;
    static const change changes[] = {{"k_proj", 1e-12F, 3}, {0}};
    static const char *const methods[] = {"rtn", "int8"};
    char *dir = scratch_make(), *source = write_model(dir, changes), *out = qb_path_join(dir, "out");
    for (int i = 0; i < 2; i++) {
        heard h = {0};
        qb_quant_report report;
        qb_log_capture(hear, &h);
        qb_status st = quantize(source, out, methods[i], "{}", &report);
        qb_log_capture(NULL, NULL);
        assert_ok(st);
        assert_int_equal(h.warnings, 1);
        assert_non_null(strstr(h.text, "k_proj: 1 of 64 groups, the first of row 3, group 0"));
        check_report(source, out, &report, methods[i]);
        qb_quant_report_free(&report);
    }
    qb_free(out);
    qb_free(source);
    scratch_remove(dir);
}

static void test_quant_steps__what_becomes_0_in_a_conversion_is_said(void **state) {
    (void)state;
    static const change changes[] = {{"v_proj", 1e-8F, -1}, {0}};
    char *dir = scratch_make(), *source = write_model(dir, changes), *out = qb_path_join(dir, "out");
    char *dense = qb_path_join(dir, "dense");
    static const struct {
        const char *to;
        int warnings;
    } rows[] = {{"f16", 1}, {"bf16", 0}, {"f32", 0}};
    qb_quant_report report;
    assert_ok(quantize(source, out, "nf4", "{}", &report));
    qb_quant_report_free(&report);
    for (int i = 0; i < 3; i++) {
        heard h = {0};
        qb_conversion done;
        qb_model *m;
        assert_ok(qb_model_open(out, &m));
        qb_log_capture(hear, &h);
        qb_status st =
            qb_convert_model(m, rows[i].to, &(qb_quant_target){.dir = dense, .replace = true}, &done);
        qb_log_capture(NULL, NULL);
        qb_model_close(m);
        if (rows[i].warnings == 1) {
            assert_ok(st);
            assert_non_null(strstr(h.text, "v_proj.weight"));
            assert_non_null(strstr(h.text, "too small for float16 and become 0"));
        }
        assert_int_equal(h.warnings, rows[i].warnings);
    }
    qb_free(dense);
    qb_free(out);
    qb_free(source);
    scratch_remove(dir);
}

static void test_quant_steps__inspect_names_steps_with_few_bits(void **state) {
    (void)state;
    static const change changes[] = {{"v_proj", 1e-5F, -1}, {0}};
    char *dir = scratch_make(), *source = write_model(dir, changes), *out = qb_path_join(dir, "out");
    qb_quant_report report;
    assert_ok(quantize(source, out, "rtn", "{\"bits\":4,\"group_size\":32}", &report));
    qb_quant_report_free(&report);
    qb_json *found = qb_inspect(out);
    int named = 0;
    for (const qb_json *o = qb_json_first(qb_json_get(found, "oddities")); o; o = qb_json_next(o)) {
        const char *text = qb_json_string(qb_json_get(o, "text"));
        if (!strstr(text, "float16 has few bits left")) continue;
        assert_string_equal(qb_json_string(qb_json_get(o, "where")), "model.layers.0.self_attn.v_proj");
        assert_non_null(strstr(text, "256 of 256 scales lie below 6.1"));
        named++;
    }
    assert_int_equal(named, 1);
    assert_true(qb_json_true(qb_json_get(found, "sound")));
    qb_json_free(found);
    qb_free(out);
    qb_free(source);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant_steps__small_steps_are_what_float16_holds),
        cmocka_unit_test(test_quant_steps__reports_are_of_what_the_file_holds),
        cmocka_unit_test(test_quant_steps__what_overflows_is_refused_by_name),
        cmocka_unit_test(test_quant_steps__a_dead_channel_is_said),
        cmocka_unit_test(test_quant_steps__what_becomes_0_in_a_conversion_is_said),
        cmocka_unit_test(test_quant_steps__inspect_names_steps_with_few_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
