/* Conversions keep every weight or refuse; inspect names what is odd; diff finds what differs. On the demo
   model, quantized without calibration. */
#include "tests/checkpoint_files.h"

#include "base/log.h"
#include "kernels/cpu/cpu.h"
#include "model/difference.h"
#include "model/inspect.h"
#include "model/modules.h"
#include "quant/convert.h"

static char *scratch;
static const char demo[] = QB_SOURCE_DIR "/bench/demo";

static const char *below(const char *name) {
    static char paths[16][1024];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static int make_scratch(void **state) {
    (void)state;
    scratch = scratch_make();
    return 0;
}
static int remove_scratch(void **state) {
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static qb_model *model_at(const char *path) {
    qb_model *m;
    assert_ok(qb_model_open(path, &m));
    return m;
}

static qb_status quantize_from(const char *from, const char *method, int bits, int group, bool symmetric,
                               bool double_quant, const char *format, const char *out) {
    qb_quant_config c = {0};
    qb_device *dev;
    qb_quant_report report;
    const qb_quant_method *m = qb_quant_method_find(method);
    qb_options_defaults(m->options, &c);
    c.bits = bits;
    c.group_size = group;
    c.symmetric = symmetric;
    c.double_quant = double_quant;
    qb_model *model = model_at(from);
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 2}, &dev));
    qb_status st = qb_quantize_model(
        model, dev, m, &c, NULL, &(qb_quant_target){.dir = out, .replace = true, .format = format}, &report);
    if (st == QB_OK) qb_quant_report_free(&report);
    dev->backend->close(dev);
    qb_model_close(model);
    return st;
}

static qb_status quantize(const char *method, int bits, int group, bool symmetric, bool double_quant,
                          const char *format, const char *out) {
    return quantize_from(demo, method, bits, group, symmetric, double_quant, format, out);
}

static qb_status convert(const char *from, const char *to, const char *out, qb_conversion *report) {
    qb_conversion mine;
    qb_model *m = model_at(from);
    qb_status st =
        qb_convert_model(m, to, &(qb_quant_target){.dir = out, .replace = true}, report ? report : &mine);
    qb_model_close(m);
    return st;
}

static void assert_same_file(const char *a, const char *b, const char *name) {
    char *x = qb_path_join(a, name), *y = qb_path_join(b, name), *p, *q;
    size_t n, k;
    assert_ok(qb_file_read(x, 64 << 20, &p, &n));
    assert_ok(qb_file_read(y, 64 << 20, &q, &k));
    assert_int_equal(n, k);
    assert_memory_equal(p, q, n);
    qb_free(x);
    qb_free(y);
    qb_free(p);
    qb_free(q);
}

static qb_json *difference(const char *a, const char *b) {
    qb_model *x = model_at(a), *y = model_at(b);
    qb_json *d;
    assert_ok(qb_difference(x, y, &d));
    qb_model_close(x);
    qb_model_close(y);
    return d;
}

static double number(const qb_json *j, const char *key) {
    return qb_json_number(qb_json_get(j, key));
}

static bool same_numbers(const char *a, const char *b) {
    qb_json *d = difference(a, b);
    bool equal = qb_json_true(qb_json_get(d, "equal"));
    assert_int_equal((int)(number(d, "modules_equal") + number(d, "modules_different")), 28);
    qb_json_free(d);
    return equal;
}

/* ---- conversions ---- */

static void test_convert__between_gptq_versions_and_back(void **state) {
    (void)state;
    /* Groups of 128 span the rows of all modules but one kind. */
    static const int bits[] = {2, 3, 4, 4, 8}, groups[] = {32, 32, 32, 128, -1};
    for (size_t i = 0; i < 5; i++) {
        qb_conversion r;
        assert_ok(quantize("rtn", bits[i], groups[i], true, false, NULL, below("v1")));
        assert_ok(convert(below("v1"), "gptq_v2", below("v2"), &r));
        assert_int_equal(r.modules, 28);
        assert_int_equal(r.rounded, 0);
        assert_ok(convert(below("v2"), "gptq", below("back"), NULL));
        assert_same_file(below("v1"), below("back"), "model.safetensors");
        assert_true(same_numbers(below("v1"), below("v2")));
        qb_model *m = model_at(below("v2"));
        assert_string_equal(qb_checkpoint_quantization(m->checkpoint)->layout, "gptq_v2");
        qb_model_close(m);
    }
}

static void test_convert__writes_v1_only_where_no_zero_point_is_0(void **state) {
    (void)state;
    assert_fails(quantize("rtn", 2, 32, false, false, "gptq", below("asym")), QB_ERR_USAGE,
                 "an asymmetric weight may have one of 0");
    assert_ok(quantize("rtn", 2, 32, false, false, NULL, below("asym")));
    qb_model *m = model_at(below("asym"));
    assert_string_equal(qb_checkpoint_quantization(m->checkpoint)->layout, "gptq_v2");
    qb_model_close(m);
    assert_fails(convert(below("asym"), "gptq", below("out"), NULL), QB_ERR_UNSUPPORTED, "a zero point is 0");
    assert_false(qb_path_exists(below("out")));
}

static void test_convert__to_dense_is_what_the_layout_defines(void **state) {
    (void)state;
    qb_conversion r;
    assert_ok(quantize("rtn", 4, 32, true, false, NULL, below("w4")));
    assert_ok(convert(below("w4"), "f32", below("f32"), &r));
    assert_int_equal(r.rounded, 0);
    assert_true(same_numbers(below("w4"), below("f32")));
    assert_ok(convert(below("w4"), "f16", below("f16"), &r));
    assert_true(r.rounded > 0 && r.rounded < r.weights);
    qb_model *a = model_at(below("f32")), *b = model_at(below("f16"));
    assert_string_equal(qb_json_string(qb_json_get(qb_checkpoint_config(b->checkpoint), "torch_dtype")),
                        "float16");
    assert_true(qb_json_is_null(qb_json_get(qb_checkpoint_config(b->checkpoint), "quantization_config")));
    qb_modules modules;
    assert_ok(qb_modules_list(a, &modules));
    for (size_t i = 0; i < modules.count; i++) {
        const qb_module *module = &modules.items[i];
        qb_weight x, y;
        assert_ok(qb_checkpoint_linear(a->checkpoint, module->name, module->rows, module->cols, &x));
        assert_ok(qb_checkpoint_linear(b->checkpoint, module->name, module->rows, module->cols, &y));
        for (int64_t e = 0; e < module->rows * module->cols; e++)
            assert_int_equal(qb_f16_of_f32(((const float *)x.dense)[e]), ((const uint16_t *)y.dense)[e]);
        qb_checkpoint_free_linear(a->checkpoint, module->name, &x);
        qb_checkpoint_free_linear(b->checkpoint, module->name, &y);
    }
    qb_modules_free(&modules);
    qb_model_close(a);
    qb_model_close(b);
}

static void test_convert__refuses_what_would_lose(void **state) {
    (void)state;
    const char *out = below("refused");
    assert_ok(quantize("rtn", 4, 32, true, false, NULL, below("w4")));
    assert_ok(quantize("nf4", 4, 64, true, true, NULL, below("nf4")));
    assert_fails(convert(demo, "gptq", out, NULL), QB_ERR_UNSUPPORTED, "is dense: making gptq of it");
    assert_fails(convert(demo, "bf16", out, NULL), QB_ERR_UNSUPPORTED, "is no bfloat16");
    assert_fails(convert(below("w4"), "nf4", out, NULL), QB_ERR_UNSUPPORTED,
                 "whose values are not those of nf4");
    assert_fails(convert(below("nf4"), "fp4", out, NULL), QB_ERR_UNSUPPORTED,
                 "whose values are not those of fp4");
    assert_fails(convert(below("nf4"), "gptq", out, NULL), QB_ERR_UNSUPPORTED,
                 "whose values are not those of gptq");
    assert_fails(convert(below("w4"), "bnb4", out, NULL), QB_ERR_USAGE, "known: ");
    assert_fails(convert(below("w4"), "int3", out, NULL), QB_ERR_USAGE, "no checkpoint format 'int3'");
    assert_false(qb_path_exists(out));
    assert_ok(convert(below("nf4"), "f32", out, NULL));
    assert_true(same_numbers(below("nf4"), out));
    assert_ok(convert(below("nf4"), "nf4", below("again"), NULL));
    assert_true(same_numbers(below("nf4"), below("again")));
}

/* Fields of 4 bits to words in AWQ's order (AutoAWQ's gemm layout): nibble i of a word holds field order[i].
 */
static void pack_awq(const uint8_t *fields, int64_t n, int64_t step, int32_t *words) {
    static const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    for (int64_t w = 0; w < n / 8; w++) {
        uint32_t word = 0;
        for (int i = 0; i < 8; i++) word |= (uint32_t)fields[(8 * w + order[i]) * step] << 4 * i;
        words[w] = (int32_t)word;
    }
}

static void put_awq(qb_writer *w, const qb_module *module, const qb_qweight *q, bool plan) {
    const char *const parts[] = {"qweight", "qzeros", "scales"};
    int64_t lines[] = {q->cols, q->n_groups, q->n_groups};
    for (int p = 0; p < 3; p++) {
        char name[QB_NAME_BYTES + 8];
        int64_t width = p == 2 ? q->rows : q->rows / 8;
        snprintf(name, sizeof name, "%s.%s", module->name, parts[p]);
        if (plan) {
            assert_ok(qb_writer_plan(w, name, p == 2 ? QB_DTYPE_F16 : QB_DTYPE_I32, 2,
                                     (int64_t[]){lines[p], width}));
            continue;
        }
        int32_t *words;
        assert_ok(qb_alloc((size_t)(lines[p] * width), 4, &words));
        for (int64_t i = 0; i < lines[p]; i++) {
            if (p == 0) pack_awq(q->codes + i, q->rows, q->cols, words + i * width);
            if (p == 1) pack_awq(q->zeros + i, q->rows, q->n_groups, words + i * width);
            for (int64_t r = 0; p == 2 && r < q->rows; r++)
                ((uint16_t *)words)[i * width + r] = qb_f16_of_f32(q->scales[r * q->n_groups + i]);
        }
        assert_ok(qb_writer_put(w, name, words, lines[p] * width * (p == 2 ? 2 : 4)));
        qb_free(words);
    }
}

/* The quantized model at `from` as AutoAWQ would have written it. */
static void write_awq(const char *from, const char *to) {
    static const char how[] = "{\"quant_method\":\"awq\",\"version\":\"gemm\",\"bits\":4,\"group_size\":32,"
                              "\"zero_point\":true}";
    qb_model *m = model_at(from);
    qb_modules modules;
    qb_writer *w;
    qb_json *config = qb_json_copy(qb_checkpoint_config(m->checkpoint)), *awq;
    assert_ok(qb_modules_list(m, &modules));
    assert_ok(qb_writer_create(to, true, 0, &w));
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < modules.count; i++) {
            const qb_module *module = &modules.items[i];
            qb_weight weight;
            assert_ok(qb_checkpoint_linear(m->checkpoint, module->name, module->rows, module->cols, &weight));
            put_awq(w, module, weight.packed, pass == 0);
            qb_checkpoint_free_linear(m->checkpoint, module->name, &weight);
        }
        for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
            const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
            const void *bytes;
            if (qb_modules_own(&modules, t->name)) continue;
            assert_ok(qb_checkpoint_acquire(m->checkpoint, t, &bytes));
            if (pass == 0) assert_ok(qb_writer_plan(w, t->name, t->dtype, t->n_dims, t->shape));
            if (pass == 1) assert_ok(qb_writer_put(w, t->name, bytes, t->bytes));
            qb_checkpoint_release(m->checkpoint, t);
        }
        if (pass == 0) assert_ok(qb_writer_begin(w));
    }
    assert_ok(qb_json_parse(how, strlen(how), "awq", &awq));
    qb_json_put(config, "quantization_config", awq);
    assert_ok(qb_writer_put_json(w, "config.json", config));
    assert_ok(qb_writer_finish(w));
    qb_json_free(config);
    qb_modules_free(&modules);
    qb_model_close(m);
}

/* The same codes, zeros and scales in another program's layout become the very files that we write. */
static void test_convert__awq_becomes_gptq(void **state) {
    (void)state;
    assert_ok(quantize("rtn", 4, 32, false, false, NULL, below("asym")));
    write_awq(below("asym"), below("awq"));
    qb_model *m = model_at(below("awq"));
    assert_string_equal(qb_checkpoint_quantization(m->checkpoint)->layout, "awq");
    qb_model_close(m);
    assert_ok(convert(below("awq"), "gptq_v2", below("from-awq"), NULL));
    assert_same_file(below("asym"), below("from-awq"), "model.safetensors");
    assert_true(same_numbers(below("awq"), below("from-awq")));
    qb_json *r = qb_inspect(below("awq"));
    assert_true(qb_json_true(qb_json_get(r, "sound")));
    qb_json_free(r);
    assert_fails(convert(below("asym"), "awq", below("out"), NULL), QB_ERR_UNSUPPORTED, "is only read");
}

/* GGUF: what its grids are decides; the float32 products are always there. */
static void test_convert__gguf_becomes_what_holds_it(void **state) {
    (void)state;
    static const char *const files[] = {QB_SOURCE_DIR "/tests/golden/gguf/k.gguf",
                                        QB_SOURCE_DIR "/tests/golden/gguf/legacy.gguf"};
    static const char *const reasons[] = {"has groups with a minimum", "hold 2, 3, 4 or 8 bits, not 5"};
    for (size_t i = 0; i < 2; i++) {
        qb_model *a = model_at(files[i]), *b;
        qb_conversion r;
        qb_json *d;
        assert_ok(qb_convert_model(a, "f32", &(qb_quant_target){.dir = below("gguf"), .replace = true}, &r));
        b = model_at(below("gguf"));
        assert_ok(qb_difference(a, b, &d));
        assert_true(qb_json_true(qb_json_get(d, "equal")));
        qb_json_free(d);
        assert_fails(qb_convert_model(a, "gptq", &(qb_quant_target){.dir = below("out")}, &r),
                     QB_ERR_UNSUPPORTED, reasons[i]);
        qb_model_close(a);
        qb_model_close(b);
    }
}

/* The first module of `from` dense again, as quantizers leave modules that they are told to skip. */
static void write_with_a_dense_module(const char *from, const char *dense, const char *to) {
    qb_model *m = model_at(from), *d = model_at(dense);
    qb_modules modules;
    qb_writer *w;
    assert_ok(qb_modules_list(m, &modules));
    modules.count = 1;
    modules.by_name[0] = 0;
    char name[QB_NAME_BYTES + 8];
    snprintf(name, sizeof name, "%s.weight", modules.items[0].name);
    const qb_tensor *own = qb_checkpoint_find(d->checkpoint, name);
    const void *bytes;
    assert_non_null(own);
    assert_ok(qb_writer_create(to, true, 0, &w));
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
            const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
            if (qb_modules_own(&modules, t->name)) continue;
            assert_ok(qb_checkpoint_acquire(m->checkpoint, t, &bytes));
            if (pass == 0) assert_ok(qb_writer_plan(w, t->name, t->dtype, t->n_dims, t->shape));
            if (pass == 1) assert_ok(qb_writer_put(w, t->name, bytes, t->bytes));
            qb_checkpoint_release(m->checkpoint, t);
        }
        assert_ok(qb_checkpoint_acquire(d->checkpoint, own, &bytes));
        if (pass == 0) assert_ok(qb_writer_plan(w, name, own->dtype, own->n_dims, own->shape));
        if (pass == 1) assert_ok(qb_writer_put(w, name, bytes, own->bytes));
        qb_checkpoint_release(d->checkpoint, own);
        if (pass == 0) assert_ok(qb_writer_begin(w));
    }
    assert_ok(qb_writer_put_json(w, "config.json", qb_checkpoint_config(m->checkpoint)));
    assert_ok(qb_writer_finish(w));
    qb_modules_free(&modules);
    qb_model_close(m);
    qb_model_close(d);
}

static void test_convert__modules_left_dense_stay_so(void **state) {
    (void)state;
    static const struct {
        const char *method, *to, *key;
    } rows[] = {{"rtn", "gptq_v2", "dynamic"}, {"nf4", "nf4", "llm_int8_skip_modules"}};
    for (size_t i = 0; i < 2; i++) {
        qb_conversion r;
        assert_ok(quantize(rows[i].method, 4, i ? 64 : 32, true, false, NULL, below("w4")));
        write_with_a_dense_module(below("w4"), demo, below("mixed"));
        assert_ok(convert(below("mixed"), rows[i].to, below("kept"), &r));
        assert_int_equal(r.skipped, 1);
        assert_true(same_numbers(below("mixed"), below("kept")));
        qb_model *m = model_at(below("kept"));
        const qb_json *how = qb_json_get(qb_checkpoint_config(m->checkpoint), "quantization_config"),
                      *first = qb_json_first(qb_json_get(how, rows[i].key));
        assert_string_equal(i ? qb_json_string(first) : qb_json_key(first),
                            i ? "model.layers.0.self_attn.q_proj"
                              : "-:^model\\.layers\\.0\\.self_attn\\.q_proj$");
        /* a list replaces transformers' default, which is the head */
        if (i) assert_string_equal(qb_json_string(qb_json_next(first)), "lm_head");
        qb_model_close(m);
    }
    /* Another family has no such place for it. */
    assert_fails(convert(below("mixed"), "gptq", below("out"), NULL), QB_ERR_UNSUPPORTED, "is dense");
}

/* A conversion keeps to the shards that it is told. */
static void test_convert__writes_shards(void **state) {
    (void)state;
    qb_conversion r;
    assert_ok(quantize("rtn", 4, 32, true, false, NULL, below("w4")));
    qb_model *m = model_at(below("w4"));
    assert_ok(qb_convert_model(m, "gptq_v2",
                               &(qb_quant_target){.dir = below("shards"), .shard_bytes = 200000}, &r));
    qb_model_close(m);
    assert_true(qb_path_exists(below("shards/model.safetensors.index.json")));
    assert_false(qb_path_exists(below("shards/model.safetensors")));
    assert_true(same_numbers(below("w4"), below("shards")));
}

/* ---- inspect ---- */

static bool has_oddity(const qb_json *report, const char *needle, bool damage) {
    for (const qb_json *o = qb_json_first(qb_json_get(report, "oddities")); o; o = qb_json_next(o))
        if (strstr(qb_json_string(qb_json_get(o, "text")), needle) &&
            qb_json_true(qb_json_get(o, "damage")) == damage)
            return true;
    return false;
}

static void assert_odd(const char *path, const char *needle, bool damage) {
    qb_json *r = qb_inspect(path);
    char *text;
    assert_ok(qb_json_print(qb_json_get(r, "oddities"), true, &text));
    if (!has_oddity(r, needle, damage)) fail_msg("no \"%s\" in %s", needle, text);
    if (damage) assert_false(qb_json_true(qb_json_get(r, "sound")));
    qb_free(text);
    qb_json_free(r);
}

static void test_inspect__describes_what_is_there(void **state) {
    (void)state;
    assert_ok(quantize("rtn", 4, 32, true, false, NULL, below("w4")));
    qb_json *r = qb_inspect(below("w4"));
    assert_true(qb_json_true(qb_json_get(r, "sound")));
    assert_string_equal(qb_json_string(qb_json_get(r, "layout")), "gptq");
    assert_int_equal((int)number(r, "group_size"), 32);
    assert_int_equal((int)qb_json_count(qb_json_get(r, "modules")), 28);
    assert_int_equal((int)qb_json_count(qb_json_get(r, "oddities")), 0);
    /* 4 bits, a float16 scale and a 4-bit zero for 32 weights. */
    assert_true(number(r, "bits_per_weight") == 4 + 20.0 / 32);
    assert_non_null(strstr(qb_json_string(qb_json_get(r, "zero_points")), "confirms"));
    double bytes = 0;
    for (const qb_json *d = qb_json_first(qb_json_get(r, "dtypes")); d; d = qb_json_next(d))
        bytes += number(d, "bytes");
    assert_true(bytes == number(r, "tensor_bytes"));
    qb_json_free(r);
}

/* The tensors of `from` written again, with what `change` does to them; NULL bytes leave one out. */
typedef void (*change_fn)(const qb_tensor *t, uint8_t *bytes, bool *leave_out);

static void rewrite(const char *from, const char *to, change_fn change, const char *extra) {
    qb_model *m = model_at(from);
    qb_checkpoint *ck = m->checkpoint;
    qb_writer *w;
    assert_ok(qb_writer_create(to, true, 0, &w));
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < qb_checkpoint_count(ck); i++) {
            const qb_tensor *t = qb_checkpoint_at(ck, i);
            const void *bytes;
            uint8_t *copy;
            bool leave_out = false;
            assert_ok(qb_checkpoint_acquire(ck, t, &bytes));
            assert_ok(qb_alloc((size_t)t->bytes, 1, &copy));
            memcpy(copy, bytes, (size_t)t->bytes);
            qb_checkpoint_release(ck, t);
            change(t, copy, &leave_out);
            if (!leave_out && pass == 0) assert_ok(qb_writer_plan(w, t->name, t->dtype, t->n_dims, t->shape));
            if (!leave_out && pass == 1) assert_ok(qb_writer_put(w, t->name, copy, t->bytes));
            qb_free(copy);
        }
        if (extra && pass == 0) assert_ok(qb_writer_plan(w, extra, QB_DTYPE_F32, 1, (int64_t[]){2}));
        if (extra && pass == 1) assert_ok(qb_writer_put(w, extra, (float[]){1, 2}, 8));
        if (pass == 0) assert_ok(qb_writer_begin(w));
    }
    assert_ok(qb_writer_put_json(w, "config.json", qb_checkpoint_config(ck)));
    assert_ok(qb_writer_finish(w));
    qb_model_close(m);
}

static void leave_as_is(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)t, (void)bytes, (void)leave_out;
}
static void drop_norm(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)bytes;
    *leave_out = !strcmp(t->name, "model.norm.weight");
}
static void drop_scales(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)bytes;
    *leave_out = !strcmp(t->name, "model.layers.1.mlp.up_proj.scales");
}
static void poison_norm(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)leave_out;
    if (!strcmp(t->name, "model.norm.weight")) memset(bytes, 0xff, 2);
}
static void flatten_codes(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)leave_out;
    if (strstr(t->name, "layers.0.mlp.up_proj.qweight")) memset(bytes, 0x88, (size_t)t->bytes);
}
static void drop_steps(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)leave_out;
    if (strstr(t->name, "layers.0.mlp.up_proj.scales")) memset(bytes, 0, (size_t)t->bytes);
}
static void true_zeros(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)leave_out;
    if (strstr(t->name, ".qzeros")) memset(bytes, 0x88, (size_t)t->bytes);
}
static void skew_zeros(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)leave_out;
    if (strstr(t->name, "layers.0.mlp.up_proj.qzeros")) memset(bytes, 0x55, (size_t)t->bytes);
}
static void one_code(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)leave_out;
    if (strstr(t->name, "layers.2.self_attn.k_proj.qweight")) bytes[0] ^= 1;
}
static void group_out_of_range(const qb_tensor *t, uint8_t *bytes, bool *leave_out) {
    (void)leave_out;
    if (strstr(t->name, "layers.3.mlp.gate_proj.g_idx")) bytes[0] = 200;
}

static void keep_needle(void *ctx, const char *text) {
    const char **needle = ctx;
    if (*needle && strstr(text, *needle)) *needle = NULL;
}

/* What inspect knows, whoever loads the model is told. */
static void assert_said_on_loading(const char *path, const char *needle) {
    qb_model *m;
    qb_device *dev;
    const char *left = needle;
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &dev));
    qb_log_capture(keep_needle, &left);
    assert_ok(qb_model_open(path, &m));
    assert_ok(qb_model_load(m, dev, 8, true));
    qb_log_capture(NULL, NULL);
    qb_model_close(m);
    dev->backend->close(dev);
    if (left) fail_msg("loading does not say \"%s\"", needle);
}

static void test_inspect__names_damage_and_oddities(void **state) {
    (void)state;
    static const struct {
        change_fn change;
        const char *extra, *needle;
        bool damage;
        const char *spoken; /* on loading, where that is said by module */
    } rows[] = {
        {drop_norm, NULL, "holds no tensor model.norm.weight", true, NULL},
        {drop_scales, NULL, "no tensor model.layers.1.mlp.up_proj.scales", true, NULL},
        {poison_norm, NULL, "element 0 is NaN", true, NULL},
        {group_out_of_range, NULL, "is in group 200", true, NULL},
        {flatten_codes, NULL, "every code is 8", false, NULL},
        {drop_steps, NULL, "scales are 0", false, NULL},
        {true_zeros, NULL, "is labelled gptq", false, NULL},
        {skew_zeros, NULL, "1 of 28 modules has other zero points than the middle", false,
         "has other zero points than the middle"},
        {leave_as_is, "model.layers.0.self_attn.q_proj.weight", "the packed form beside it is", false, NULL},
        {leave_as_is, "model.layers.0.self_attn.q_proj.bias", "found F32 [2]", true, NULL},
        {leave_as_is, "model.layers.0.self_attn.no_such_part",
         "which nothing in a model of the family llama reads", true, NULL},
        {leave_as_is, "model.no_such_part", "the model has no use for it", false, NULL},
    };
    assert_ok(quantize("rtn", 4, 32, true, false, NULL, below("w4")));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rewrite(below("w4"), below("odd"), rows[i].change, rows[i].extra);
        assert_odd(below("odd"), rows[i].needle, rows[i].damage);
        if (!rows[i].damage)
            assert_said_on_loading(below("odd"), rows[i].spoken ? rows[i].spoken : rows[i].needle);
    }
}

/* Rounding reads linears alone: what stands beside them is looked at all the same, before anything is
   written, as a conversion does. */
static void test_convert__and_rounding_refuse_what_cannot_be_loaded(void **state) {
    (void)state;
    static const struct {
        change_fn change;
        const char *extra, *needle;
    } rows[] = {
        {drop_norm, NULL, "holds no tensor model.norm.weight"},
        {leave_as_is, "model.layers.0.self_attn.q_proj.bias", "q_proj.bias: expected"},
        {leave_as_is, "lm_head.bias", "lm_head.bias: expected"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rewrite(demo, below("part"), rows[i].change, rows[i].extra);
        assert_fails(convert(below("part"), "f32", below("out"), NULL), QB_ERR_FORMAT, rows[i].needle);
        assert_fails(quantize_from(below("part"), "rtn", 4, 32, true, false, NULL, below("out")),
                     QB_ERR_FORMAT, rows[i].needle);
        assert_fails(quantize_from(below("part"), "nf4", 4, 64, true, false, NULL, below("out")),
                     QB_ERR_FORMAT, rows[i].needle);
        assert_false(qb_path_exists(below("out")));
    }
}

static void test_inspect__survives_what_cannot_be_opened(void **state) {
    (void)state;
    assert_odd(below("absent"), "does not exist", true);
    assert_ok(quantize("rtn", 4, 32, true, false, NULL, below("w4")));
    char *bytes;
    size_t n;
    assert_ok(qb_file_read(below("w4/model.safetensors"), 64 << 20, &bytes, &n));
    static const size_t cuts[] = {0, 7, 100, 20000};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        write_bytes(below("w4"), "model.safetensors", bytes, cuts[i]);
        qb_json *r = qb_inspect(below("w4"));
        assert_false(qb_json_true(qb_json_get(r, "sound")));
        assert_non_null(qb_json_string(qb_json_get(r, "error")));
        qb_json_free(r);
    }
    write_bytes(below("w4"), "model.safetensors", bytes, n);
    /* A family that is not known: its tensors are listed all the same. */
    write_text(below("w4"), "config.json", "{\"architectures\":[\"NoSuchModel\"]}");
    qb_json *r = qb_inspect(below("w4"));
    assert_false(qb_json_true(qb_json_get(r, "sound")));
    assert_true(number(r, "tensors") > 28 * 4);
    assert_true(has_oddity(r, "NoSuchModel", true));
    qb_json_free(r);
    qb_free(bytes);
}

/* ---- diff ---- */

static void test_diff__finds_one_code(void **state) {
    (void)state;
    assert_ok(quantize("rtn", 4, 32, true, false, NULL, below("w4")));
    rewrite(below("w4"), below("changed"), one_code, NULL);
    qb_json *d = difference(below("w4"), below("changed"));
    assert_false(qb_json_true(qb_json_get(d, "equal")));
    assert_int_equal((int)number(d, "modules_different"), 1);
    assert_int_equal((int)number(d, "tensors_different"), 0);
    for (const qb_json *m = qb_json_first(qb_json_get(d, "modules")); m; m = qb_json_next(m)) {
        bool changed = !strcmp(qb_json_string(qb_json_get(m, "name")), "model.layers.2.self_attn.k_proj");
        assert_int_equal(qb_json_true(qb_json_get(m, "equal")), !changed);
        assert_int_equal((int)number(m, "weights_different"), changed);
        assert_int_equal((int)(number(m, "weights") - number(m, "codes_equal")), changed);
        assert_true(number(m, "scale_difference") == 0);
        assert_true((number(m, "max_error") > 0) == changed);
    }
    qb_json_free(d);
}

static void test_diff__names_what_only_one_has(void **state) {
    (void)state;
    rewrite(demo, below("without"), drop_norm, "spare");
    qb_json *d = difference(demo, below("without"));
    assert_false(qb_json_true(qb_json_get(d, "equal")));
    assert_int_equal((int)number(d, "modules_different"), 0);
    assert_string_equal(qb_json_string(qb_json_first(qb_json_get(d, "only_a"))), "model.norm.weight");
    assert_string_equal(qb_json_string(qb_json_first(qb_json_get(d, "only_b"))), "spare");
    qb_json_free(d);
}

/* The distance to what was quantized is that of the definition, computed here in another way. */
static void test_diff__measures_the_dequantized_error(void **state) {
    (void)state;
    assert_ok(quantize("nf4", 4, 64, true, false, NULL, below("nf4")));
    qb_json *d = difference(demo, below("nf4"));
    assert_int_equal((int)number(d, "modules_different"), 28);
    const qb_json *m = qb_json_first(qb_json_get(d, "modules"));
    assert_string_equal(qb_json_string(qb_json_get(m, "a")), "float16");
    assert_string_equal(qb_json_string(qb_json_get(m, "b")), "nf4 b64");
    assert_true(qb_json_is_null(qb_json_get(m, "codes_equal")));
    /* NF4 of a normal weight: about 9 % of its size. */
    assert_true(number(m, "relative_error") > 0.05 && number(m, "relative_error") < 0.13);
    qb_json_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convert__between_gptq_versions_and_back),
        cmocka_unit_test(test_convert__writes_v1_only_where_no_zero_point_is_0),
        cmocka_unit_test(test_convert__to_dense_is_what_the_layout_defines),
        cmocka_unit_test(test_convert__refuses_what_would_lose),
        cmocka_unit_test(test_convert__awq_becomes_gptq),
        cmocka_unit_test(test_convert__gguf_becomes_what_holds_it),
        cmocka_unit_test(test_convert__modules_left_dense_stay_so),
        cmocka_unit_test(test_convert__writes_shards),
        cmocka_unit_test(test_inspect__describes_what_is_there),
        cmocka_unit_test(test_inspect__names_damage_and_oddities),
        cmocka_unit_test(test_convert__and_rounding_refuse_what_cannot_be_loaded),
        cmocka_unit_test(test_inspect__survives_what_cannot_be_opened),
        cmocka_unit_test(test_diff__finds_one_code),
        cmocka_unit_test(test_diff__names_what_only_one_has),
        cmocka_unit_test(test_diff__measures_the_dequantized_error),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
