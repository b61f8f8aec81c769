/* GPTQ files as older and newer programs than ours write them. */
#include "checkpoint/layout.h"
#include "tests/golden_checkpoint.h"

/* Codes and zeros of golden gptqmodel-asym-v2 in words of another width: the same bits. */
static void rewrite_words(const char *target, qb_dtype dtype) {
    qb_checkpoint *ck = open_ok(golden_path("gptqmodel-asym-v2"));
    int64_t width = (int64_t)qb_dtype_bytes(dtype);
    const uint8_t *qweight = bytes_of(ck, "m.qweight", NULL), *qzeros = bytes_of(ck, "m.qzeros", NULL);
    static uint8_t words[COLS / 2 * ROWS];
    /* Byte b of row r's stream: in words of 4 bytes at [b / 4][r], wanted at [b / width][r]. */
    for (int64_t b = 0; b < COLS / 2; b++)
        for (int64_t r = 0; r < ROWS; r++)
            words[(b / width * ROWS + r) * width + b % width] = qweight[(b / 4 * ROWS + r) * 4 + b % 4];
    qb_writer *w;
    assert_ok(qb_writer_create(target, true, 0, &w));
    assert_ok(qb_writer_plan(w, "m.qweight", dtype, 2, (int64_t[]){COLS / 2 / width, ROWS}));
    assert_ok(qb_writer_plan(w, "m.qzeros", dtype, 2, (int64_t[]){2, ROWS / 2 / width}));
    assert_ok(qb_writer_plan(w, "m.scales", QB_DTYPE_F16, 2, (int64_t[]){2, ROWS}));
    assert_ok(qb_writer_plan(w, "true.dequantized_sha256", QB_DTYPE_U8, 1, (int64_t[]){64}));
    assert_ok(qb_writer_begin(w));
    assert_ok(qb_writer_put(w, "m.qweight", words, sizeof words));
    assert_ok(qb_writer_put(w, "m.qzeros", qzeros, ROWS));
    assert_ok(qb_writer_put(w, "m.scales", bytes_of(ck, "m.scales", NULL), 2 * ROWS * 2));
    assert_ok(qb_writer_put(w, "true.dequantized_sha256", bytes_of(ck, "true.dequantized_sha256", NULL), 64));
    qb_json *config = qb_json_copy(qb_checkpoint_config(ck));
    assert_ok(qb_writer_put_json(w, "config.json", config));
    qb_json_free(config);
    assert_ok(qb_writer_finish(w));
    qb_checkpoint_close(ck);
}

static void test_gptq_dialects__in_words_of_other_widths(void **state) {
    (void)state;
    static const qb_dtype dtypes[] = {QB_DTYPE_I8, QB_DTYPE_I16, QB_DTYPE_I32, QB_DTYPE_I64};
    char *dir = scratch_make();
    char *target = qb_path_join(dir, "out");
    for (size_t i = 0; i < 4; i++) {
        rewrite_words(target, dtypes[i]);
        qb_checkpoint *ck = open_ok(target);
        qb_weight w;
        assert_ok(qb_checkpoint_linear(ck, "m", ROWS, COLS, &w));
        assert_dequantized(ck, w.packed);
        qb_weight_free(&w);
        qb_checkpoint_close(ck);
    }
    qb_free(target);
    scratch_remove(dir);
}

#define GPTQ "\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,"
static void test_gptq_dialects__dialects(void **state) {
    (void)state;
    static const struct {
        const char *config;
        qb_status status;
        const char *needle;
    } rows[] = {
        {CONFIG("\"method\":\"gptq\",\"format\":\"gptq_v2\",\"w_bit\":4,\"q_group_size\":32,\"sym\":false"),
         QB_OK, ""},
        {CONFIG(GPTQ "\"sym\":false,\"format\":\"gptq\",\"checkpoint_format\":\"gptq_v2\",\"lm_head\":true,"
                     "\"dynamic\":{\"-:lm_head\":{}},\"meta\":{\"quantizer\":\"gptqmodel:1.0\"}"),
         QB_OK, ""},
        {CONFIG(GPTQ "\"sym\":false,\"checkpoint_format\":\"gptq_v2\",\"pack_dtype\":\"float8\""),
         QB_ERR_UNSUPPORTED, "pack_dtype \"float8\""},
        {CONFIG(GPTQ "\"checkpoint_format\":\"gptq_p\""), QB_ERR_UNSUPPORTED, "checkpoint_format \"gptq_p\""},
        {CONFIG("\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":0"), QB_ERR_FORMAT, "found 0"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_spoilt("gptqmodel-asym-v2", &(spoil){.config = rows[i].config}, rows[i].status, rows[i].needle);
    /* One of several quantizers subtracted from words. */
    check_spoilt("gptqmodel-4bit-zero-v1",
                 &(spoil){.config = CONFIG(GPTQ "\"sym\":false,\"checkpoint_format\":\"gptq\",\"meta\":{"
                                                "\"quantizer\":[\"optimum:1.27\",\"gptqmodel:7.7.0\"]}")},
                 QB_OK, "");
    /* No group index, or one that was never filled in, or one of another width that is. */
    check_spoilt("gptqmodel-asym-v2", &(spoil){.tensor = "g_idx", .how = DROP}, QB_OK, "");
    check_spoilt("gptqmodel-asym-v2", &(spoil){.tensor = "g_idx", .how = RESHAPE, .shape = {COLS}}, QB_OK,
                 "");
    check_spoilt("gptqmodel-asym-v2", &(spoil){.tensor = "g_idx", .how = RETYPE, .dtype = QB_DTYPE_I64},
                 QB_OK, "");
}

/* A module of one group a row whose scales and zeros lie as files from before groups have them: in columns,
   zeros as floats times the scale. */
static void write_pregroup(const char *target, const float *products) {
    static const float ones[ROWS] = {[0 ... ROWS - 1] = 0.5F};
    uint32_t words[COLS / 8 * ROWS];
    for (size_t i = 0; i < COLS / 8 * ROWS; i++) words[i] = 0x76543210;
    qb_writer *w;
    qb_json *config;
    const char *text = CONFIG("\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-1,\"sym\":false");
    assert_ok(qb_writer_create(target, true, 0, &w));
    assert_ok(qb_writer_plan(w, "m.qweight", QB_DTYPE_I32, 2, (int64_t[]){COLS / 8, ROWS}));
    assert_ok(qb_writer_plan(w, "m.scales", QB_DTYPE_F32, 2, (int64_t[]){ROWS, 1}));
    assert_ok(qb_writer_plan(w, "m.zeros", QB_DTYPE_F32, 2, (int64_t[]){ROWS, 1}));
    assert_ok(qb_writer_begin(w));
    assert_ok(qb_writer_put(w, "m.qweight", words, sizeof words));
    assert_ok(qb_writer_put(w, "m.scales", ones, sizeof ones));
    assert_ok(qb_writer_put(w, "m.zeros", products, ROWS * sizeof *products));
    assert_ok(qb_json_parse(text, strlen(text), "test", &config));
    assert_ok(qb_writer_put_json(w, "config.json", config));
    qb_json_free(config);
    assert_ok(qb_writer_finish(w));
}

static void test_gptq_dialects__from_before_groups(void **state) {
    (void)state;
    char *dir = scratch_make();
    char *target = qb_path_join(dir, "out");
    float products[ROWS];
    for (int r = 0; r < ROWS; r++) products[r] = 0.5F * (float)(r % 16);
    write_pregroup(target, products);
    qb_checkpoint *ck = open_ok(target);
    qb_weight w;
    assert_ok(qb_checkpoint_linear(ck, "m", ROWS, COLS, &w));
    static float dense[ROWS * COLS];
    qb_qweight_dequantize(w.packed, dense);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) assert_true(dense[r * COLS + c] == 0.5F * (float)(c % 8 - r % 16));
    qb_weight_free(&w);
    qb_checkpoint_close(ck);
    products[7] = 0.5F * 3.4F;
    write_pregroup(target, products);
    ck = open_ok(target);
    assert_fails(qb_checkpoint_linear(ck, "m", ROWS, COLS, &w), QB_ERR_FORMAT,
                 "m.zeros: row 7: 1.7 is not the scale 0.5 times a 4-bit zero point");
    qb_checkpoint_close(ck);
    qb_free(target);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gptq_dialects__in_words_of_other_widths),
        cmocka_unit_test(test_gptq_dialects__dialects),
        cmocka_unit_test(test_gptq_dialects__from_before_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
