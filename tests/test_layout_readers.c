/* Layouts that other programs write, against files packed by those programs (tools/record_reader_golden.py),
   and spoilt copies of them. */
#include "checkpoint/layout.h"
#include "quant/method.h"
#include "tests/golden_checkpoint.h"
#include "tests/method_support.h"

#include <math.h>

/* What we read of the directory is what its maker packed, to the bit. */
static void check_golden(const char *name, const char *layout, int bits, int64_t cols) {
    qb_checkpoint *ck = open_ok(golden_path(name));
    assert_string_equal(qb_checkpoint_quantization(ck)->layout, layout);
    qb_qweight q = read_golden(name, cols);
    assert_int_equal(q.bits, bits);
    assert_memory_equal(q.codes, bytes_of(ck, "true.codes", NULL), (size_t)(ROWS * cols));
    int64_t n;
    const void *zeros = bytes_of(ck, "true.zeros", &n);
    assert_int_equal(n, ROWS * q.n_groups);
    assert_memory_equal(q.zeros, zeros, (size_t)n);
    float *scales;
    assert_ok(qb_checkpoint_read_f32(ck, "true.scales", ROWS, q.n_groups, &scales));
    assert_memory_equal(q.scales, scales, (size_t)n * sizeof *scales);
    assert_int_equal(q.scale_dtype, qb_checkpoint_find(ck, "true.scales")->dtype);
    bool symmetric = true;
    for (int64_t i = 0; i < n; i++) symmetric = symmetric && q.zeros[i] == 1 << (bits - 1);
    assert_int_equal(q.symmetric, symmetric);
    assert_dequantized(ck, &q);
    qb_free(scales);
    qb_qweight_free(&q);
    qb_checkpoint_close(ck);
}

/* ---- goldens ---- */

static void test_layout_readers__gptqmodel(void **state) {
    (void)state;
    check_golden("gptqmodel-asym-v1", "gptq", 4, COLS);
    check_golden("gptqmodel-asym-v2", "gptq_v2", 4, COLS);
    check_golden("gptqmodel-sym-v1", "gptq", 4, COLS);
    check_golden("gptqmodel-sym-v2", "gptq_v2", 4, COLS);
}

/* Zero points of 0 in v1: GPTQModel borrows across fields when it writes, so a reader must add to words. */
static void test_layout_readers__gptqmodel_zero_points_of_0(void **state) {
    (void)state;
    static const int bits[] = {2, 3, 4, 8};
    for (size_t i = 0; i < 4; i++)
        for (int v = 1; v <= 2; v++) {
            char name[64];
            snprintf(name, sizeof name, "gptqmodel-%dbit-zero-v%d", bits[i], v);
            check_golden(name, v == 1 ? "gptq" : "gptq_v2", bits[i], COLS);
        }
}

static void test_layout_readers__awq(void **state) {
    (void)state;
    check_golden("awq-asym", "awq", 4, COLS);
    check_golden("awq-sym", "awq", 4, COLS);
}

static void test_layout_readers__compressed_tensors(void **state) {
    (void)state;
    check_golden("compressed-asym", "compressed-tensors", 4, COLS);
    check_golden("compressed-sym", "compressed-tensors", 4, COLS);
    check_golden("compressed-order", "compressed-tensors", 4, COLS);
    check_golden("compressed-3bit", "compressed-tensors", 3, 72); /* rows that end within a word */
    check_golden("compressed-5bit", "compressed-tensors", 5, COLS);
    check_golden("compressed-6bit", "compressed-tensors", 6, COLS);
    check_golden("compressed-8bit-channel", "compressed-tensors", 8, COLS);
    check_golden("compressed-bf16", "compressed-tensors", 4, COLS);
}

/* One weight, packed by four programs. */
static void check_same(const char *const *names, size_t n) {
    static float first[ROWS * COLS], next[ROWS * COLS];
    for (size_t i = 0; i < n; i++) {
        qb_qweight q = read_golden(names[i], COLS);
        qb_qweight_dequantize(&q, i ? next : first);
        if (i) assert_memory_equal(next, first, sizeof first);
        qb_qweight_free(&q);
    }
}

static void test_layout_readers__layouts_of_one_weight_agree_to_the_bit(void **state) {
    (void)state;
    static const char *const asym[] = {"gptqmodel-asym-v1", "gptqmodel-asym-v2", "awq-asym",
                                       "compressed-asym"};
    static const char *const sym[] = {"gptqmodel-sym-v1", "gptqmodel-sym-v2", "awq-sym", "compressed-sym"};
    check_same(asym, 4);
    check_same(sym, 4);
}

/* The method int8 on the weight that bitsandbytes quantized: the same codes and magnitudes. */
static void check_int8(qb_checkpoint *ck, const qb_qweight *theirs) {
    const qb_quant_method *method = qb_quant_method_find("int8");
    qb_quant_config options = {0};
    qb_module_report report = {0};
    qb_qweight q, shape;
    float *weight;
    assert_non_null(method);
    qb_options_defaults(method->options, &options);
    assert_ok(qb_checkpoint_read_f32(ck, "true.weight", ROWS, COLS, &weight));
    assert_ok(method->describe("m", ROWS, COLS, QB_DTYPE_F16, &options, &shape));
    assert_true(shape.int8_rows && shape.bits == 8 && shape.n_groups == 1);
    qb_quant_job job = {.module = "m", .rows = ROWS, .cols = COLS, .weight = weight, .config = &options};
    assert_ok(quantize_alone("int8", &job, &q, &report));
    assert_memory_equal(q.codes, theirs->codes, ROWS * COLS);
    assert_memory_equal(q.absmax, theirs->absmax, ROWS * sizeof *q.absmax);
    assert_memory_equal(q.scales, theirs->scales, ROWS * sizeof *q.scales);
    assert_true(report.relative_error > 0 && report.relative_error < 1e-3);
    qb_qweight_free(&q);
    weight[70] = 70000.0F;
    assert_fails(quantize_alone("int8", &job, &q, &report), QB_ERR_NUMERIC,
                 "row 1, column 6: 70000 overflows float16");
    qb_free(weight);
}

/* What we write of a file of theirs holds the same bytes. */
static void check_bnb8(const char *name) {
    qb_checkpoint *ck = open_ok(golden_path(name));
    assert_string_equal(qb_checkpoint_quantization(ck)->layout, "bnb8");
    qb_qweight q = read_golden(name, COLS);
    assert_true(q.int8_rows && q.symmetric);
    assert_dequantized(ck, &q);
    check_int8(ck, &q);
    char *dir = scratch_make();
    char *target = qb_path_join(dir, "out");
    const qb_layout *layout = qb_layout_for(&q);
    qb_json *config = qb_json_object();
    qb_writer *w;
    assert_string_equal(layout->name, "bnb8");
    assert_ok(qb_writer_create(target, false, 0, &w));
    assert_ok(layout->plan(w, "m", &q));
    assert_ok(qb_writer_begin(w));
    assert_ok(layout->put(w, "m", &q));
    qb_json_put(config, "quantization_config", layout->config(&q, NULL));
    char *text;
    assert_ok(qb_json_print(config, true, &text));
    assert_non_null(strstr(text, "\"llm_int8_threshold\":\t6.0")); /* a float to Python */
    qb_free(text);
    assert_ok(qb_writer_put_json(w, "config.json", config));
    assert_ok(qb_writer_finish(w));
    qb_json_free(config);
    qb_checkpoint *ours = open_ok(target);
    assert_string_equal(qb_checkpoint_quantization(ours)->layout, "bnb8");
    assert_int_equal(qb_checkpoint_count(ours), 3);
    for (size_t i = 0; i < 3; i++) {
        const qb_tensor *t = qb_checkpoint_at(ours, i), *theirs;
        assert_ok(qb_checkpoint_need(ck, t->name, &theirs));
        assert_int_equal(t->dtype, theirs->dtype);
        assert_int_equal(t->n_dims, theirs->n_dims);
        assert_memory_equal(t->shape, theirs->shape, sizeof t->shape);
        assert_memory_equal(bytes_of(ours, t->name, NULL), bytes_of(ck, t->name, NULL), (size_t)t->bytes);
    }
    qb_checkpoint_close(ours);
    qb_checkpoint_close(ck);
    qb_qweight_free(&q);
    qb_free(target);
    scratch_remove(dir);
}

static void test_layout_readers__bnb8_equals_bitsandbytes(void **state) {
    (void)state;
    check_bnb8("bnb8-half");
    check_bnb8("bnb8-float");
    check_bnb8("bnb8-bfloat");
}

#define AWQ "\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,"
#define GROUP_0(members, more)                                                                               \
    CONFIG("\"quant_method\":\"compressed-tensors\"," more                                                   \
           "\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{" members "}}}")
#define PACKED "\"format\":\"pack-quantized\","
#define W4     "\"num_bits\":4,\"type\":\"int\",\"symmetric\":false,\"strategy\":\"group\",\"group_size\":32"

static void test_layout_readers__awq_dialects(void **state) {
    (void)state;
    static const struct {
        const char *config;
        qb_status status;
        const char *needle;
    } rows[] = {
        {CONFIG("\"quant_method\":\"awq\",\"w_bit\":4,\"q_group_size\":32,\"version\":\"GEMM\""), QB_OK, ""},
        {CONFIG(AWQ "\"version\":\"exllama\""), QB_OK, ""},
        {CONFIG("\"method\":\"awq\",\"format\":\"gemm\",\"bits\":4,\"group_size\":32"), QB_OK, ""},
        {CONFIG(AWQ "\"version\":\"gemv\""), QB_ERR_UNSUPPORTED, "awq version \"gemv\" is not supported"},
        {CONFIG(AWQ "\"version\":\"gemv_fast\""), QB_ERR_UNSUPPORTED, "\"gemv_fast\""},
        {CONFIG(AWQ "\"backend\":\"llm-awq\""), QB_ERR_UNSUPPORTED, "awq backend \"llm-awq\""},
        {CONFIG("\"quant_method\":\"awq\",\"bits\":3"), QB_ERR_UNSUPPORTED, "3-bit awq"},
        {CONFIG("\"quant_method\":\"awq\",\"bits\":4,\"group_size\":0"), QB_ERR_FORMAT, "found 0"},
        {CONFIG("\"quant_method\":\"awq\",\"bits\":4,\"group_size\":16"), QB_ERR_FORMAT,
         "m.qzeros: expected I32 [4, 4], found I32 [2, 4]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_spoilt("awq-asym", &(spoil){.config = rows[i].config}, rows[i].status, rows[i].needle);
}

/* AutoAWQ's own file stands in for config.json's member, and need not name the method. */
static void test_layout_readers__awq_config_from_quant_config_json(void **state) {
    (void)state;
    char *dir = scratch_make();
    char *target = qb_path_join(dir, "out");
    spoil_golden("awq-asym", &(spoil){.config = "{}"}, target);
    write_text(target, "quant_config.json",
               "{\"zero_point\":true,\"q_group_size\":32,\"w_bit\":4,\"version\":\"GEMM\"}");
    qb_checkpoint *ck = open_ok(target);
    qb_weight w;
    assert_string_equal(qb_checkpoint_quantization(ck)->method, "awq");
    assert_ok(qb_checkpoint_linear(ck, "m", ROWS, COLS, &w));
    assert_dequantized(ck, w.packed);
    qb_weight_free(&w);
    qb_checkpoint_close(ck);
    qb_free(target);
    scratch_remove(dir);
}

static void test_layout_readers__awq_damage(void **state) {
    (void)state;
    static const uint16_t nan16 = 0x7e01;
    check_spoilt("awq-asym", &(spoil){.tensor = "qzeros", .how = DROP}, QB_ERR_FORMAT,
                 "holds no tensor m.qzeros");
    check_spoilt("awq-asym", &(spoil){.tensor = "qweight", .how = RESHAPE, .shape = {4, 64}}, QB_ERR_FORMAT,
                 "m.qweight: expected I32 [64, 4], found I32 [4, 64]");
    check_spoilt("awq-asym", &(spoil){.tensor = "scales", .how = POKE, .at = 2 * 40, .n = 2, .bytes = &nan16},
                 QB_ERR_NUMERIC, "m.scales: the scale of group 1, row 8 is nan");
    check_spoilt("awq-asym", &(spoil){.tensor = "scales", .how = RETYPE, .dtype = QB_DTYPE_I16},
                 QB_ERR_FORMAT, "m.scales: expected F16 [2, 32], found I16 [2, 32]");
}

static void test_layout_readers__compressed_tensors_dialects(void **state) {
    (void)state;
    static const struct {
        const char *config;
        qb_status status;
        const char *needle;
    } rows[] = {
        {GROUP_0(W4 ",\"actorder\":\"weight\"", PACKED), QB_OK, ""},
        {GROUP_0("\"num_bits\":4,\"symmetric\":false,\"group_size\":32", PACKED), QB_OK, ""},
        {GROUP_0(W4, "\"format\":\"nvfp4-pack-quantized\","), QB_ERR_UNSUPPORTED,
         "format \"nvfp4-pack-quantized\" is not supported (supported: pack-quantized)"},
        {GROUP_0(W4, "\"format\":\"int-quantized\","), QB_ERR_UNSUPPORTED, "\"int-quantized\""},
        {GROUP_0(W4, ""), QB_ERR_UNSUPPORTED, "\"dense\""},
        {GROUP_0("\"num_bits\":8,\"type\":\"float\"", PACKED), QB_ERR_UNSUPPORTED,
         "weights of type \"float\""},
        {GROUP_0("\"num_bits\":7", PACKED), QB_ERR_UNSUPPORTED, "num_bits 7"},
        {GROUP_0("\"num_bits\":4,\"strategy\":\"block\"", PACKED), QB_ERR_UNSUPPORTED, "strategy \"block\""},
        {GROUP_0("\"num_bits\":4,\"strategy\":\"group\"", PACKED), QB_ERR_FORMAT,
         "\"group_size\" must be positive"},
        {GROUP_0(W4 ",\"actorder\":\"group\"", PACKED), QB_ERR_FORMAT, "m.weight_g_idx is missing"},
        {GROUP_0(W4 ",\"actorder\":\"mystery\"", PACKED), QB_ERR_UNSUPPORTED, "actorder \"mystery\""},
        {GROUP_0(W4, PACKED "\"kv_cache_scheme\":{\"num_bits\":8},"), QB_OK, ""}, /* a warning */
        {GROUP_0(W4, PACKED "\"sparsity_config\":{\"format\":\"sparse-24-bitmask\"},"), QB_ERR_UNSUPPORTED,
         "sparsity_config of format \"sparse-24-bitmask\""},
        {CONFIG("\"quant_method\":\"compressed-tensors\"," PACKED "\"config_groups\":{}"), QB_ERR_FORMAT,
         "names no group"},
        {CONFIG("\"quant_method\":\"compressed-tensors\"," PACKED
                "\"config_groups\":{\"a\":{\"weights\":{\"num_bits\":4}},\"b\":{\"weights\":{\"num_bits\":"
                "8}}}"),
         QB_ERR_UNSUPPORTED, "several schemes"},
        {CONFIG("\"quant_method\":\"compressed-tensors\"," PACKED
                "\"config_groups\":{\"a\":{\"weights\":{\"num_bits\":4},\"input_activations\":{\"num_bits\":"
                "8}}}"),
         QB_ERR_UNSUPPORTED, "quantized activations"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_spoilt("compressed-asym", &(spoil){.config = rows[i].config}, rows[i].status, rows[i].needle);
}

static void test_layout_readers__compressed_tensors_damage(void **state) {
    (void)state;
    static const int64_t other = 65;
    static const int32_t outside = 2;
    static const float infinite = INFINITY;
    const char *name = "compressed-asym";
    check_spoilt(name, &(spoil){.tensor = "weight_shape", .how = POKE, .at = 8, .n = 8, .bytes = &other},
                 QB_ERR_FORMAT, "m.weight_shape says [32, 65], expected [32, 64] from the model's config");
    check_spoilt(name, &(spoil){.tensor = "weight_shape", .how = DROP}, QB_ERR_FORMAT,
                 "holds no tensor m.weight_shape");
    check_spoilt(name, &(spoil){.tensor = "weight_zero_point", .how = DROP}, QB_ERR_FORMAT,
                 "holds no tensor m.weight_zero_point");
    check_spoilt(name, &(spoil){.tensor = "weight_scale", .how = DROP}, QB_ERR_FORMAT,
                 "holds no tensor m.weight_scale");
    check_spoilt(name, &(spoil){.tensor = "weight_packed", .how = RESHAPE, .shape = {32, 7}}, QB_ERR_FORMAT,
                 "m.weight_packed: expected I32 [32, 8], found I32 [32, 7]");
    check_spoilt(name, &(spoil){.tensor = "weight_scale", .how = RETYPE, .dtype = QB_DTYPE_I16},
                 QB_ERR_FORMAT, "m.weight_scale: expected F16 [32, 2], found I16");
    check_spoilt("compressed-order",
                 &(spoil){.tensor = "weight_g_idx", .how = POKE, .at = 28, .n = 4, .bytes = &outside},
                 QB_ERR_FORMAT, "m.weight_g_idx: column 7 is in group 2, outside [0, 2)");
    check_spoilt("bnb8-half", &(spoil){.tensor = "SCB", .how = POKE, .at = 20, .n = 4, .bytes = &infinite},
                 QB_ERR_NUMERIC, "m.SCB: row 5 is inf");
}

static void test_layout_readers__bnb8_damage(void **state) {
    (void)state;
    static const uint8_t turing = 2;
    check_spoilt("bnb8-half", &(spoil){.tensor = "weight_format", .how = DROP}, QB_OK, "");
    check_spoilt("bnb8-half",
                 &(spoil){.tensor = "weight_format", .how = POKE, .at = 0, .n = 1, .bytes = &turing},
                 QB_ERR_UNSUPPORTED, "weight format 2 (col_turing) is not supported");
    check_spoilt("bnb8-half", &(spoil){.tensor = "weight", .how = RETYPE, .dtype = QB_DTYPE_U8},
                 QB_ERR_FORMAT, "m.weight: expected I8 [32, 64], found U8 [32, 64]");
    check_spoilt("bnb8-half", &(spoil){.tensor = "SCB", .how = RESHAPE, .shape = {31}}, QB_ERR_FORMAT,
                 "m.SCB: expected F32 [32], found F32 [31]");
    check_spoilt("bnb8-half",
                 &(spoil){.config = CONFIG("\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true,\"load_"
                                           "in_4bit\":true")},
                 QB_ERR_FORMAT, "load_in_4bit and load_in_8bit are both true");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_readers__gptqmodel),
        cmocka_unit_test(test_layout_readers__gptqmodel_zero_points_of_0),
        cmocka_unit_test(test_layout_readers__awq),
        cmocka_unit_test(test_layout_readers__compressed_tensors),
        cmocka_unit_test(test_layout_readers__layouts_of_one_weight_agree_to_the_bit),
        cmocka_unit_test(test_layout_readers__bnb8_equals_bitsandbytes),
        cmocka_unit_test(test_layout_readers__awq_dialects),
        cmocka_unit_test(test_layout_readers__awq_config_from_quant_config_json),
        cmocka_unit_test(test_layout_readers__awq_damage),
        cmocka_unit_test(test_layout_readers__compressed_tensors_dialects),
        cmocka_unit_test(test_layout_readers__compressed_tensors_damage),
        cmocka_unit_test(test_layout_readers__bnb8_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
