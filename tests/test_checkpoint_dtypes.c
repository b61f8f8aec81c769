/* Elements that are read as float32: doubles, and fp8 with its scales. */
#include "checkpoint/state.h"
#include "tests/checkpoint_files.h"
#include "tests/said.h"

#include <math.h>

static char *dir;
static int make_dir(void **state) {
    (void)state;
    dir = scratch_make();
    write_text(dir, "config.json", "{}");
    return 0;
}
static int drop_dir(void **state) {
    (void)state;
    scratch_remove(dir);
    return 0;
}

/* A safetensors file of this header and these bytes. */
static void write_file(const char *header, const void *bytes, size_t n) {
    qb_str s = {0};
    uint64_t length = strlen(header);
    qb_str_append(&s, &length, 8);
    qb_str_append(&s, header, length);
    qb_str_append(&s, bytes, n);
    write_bytes(dir, "model.safetensors", s.text, s.length);
    qb_str_free(&s);
}

/* tests/golden/e4m3.bin: torch's values (tools/record_e4m3_golden.py). */
static void test_dtypes__e4m3_codes_are_torchs(void **state) {
    (void)state;
    char *golden;
    size_t n;
    assert_ok(qb_file_read(QB_SOURCE_DIR "/tests/golden/e4m3.bin", 4096, &golden, &n));
    assert_int_equal(n, 1024);
    for (int i = 0; i < 256; i++) {
        float expected, found = qb_f32_of_e4m3((uint8_t)i);
        memcpy(&expected, golden + 4 * i, 4);
        if (isnan(expected) ? !isnan(found) : qb_bits_of_f32(expected) != qb_bits_of_f32(found))
            fail_msg("code %d is %g, expected %g", i, (double)found, (double)expected);
    }
    qb_free(golden);
}

static void test_dtypes__doubles_are_rounded_to_float32(void **state) {
    (void)state;
    static const double values[6] = {0.1, -3.0, 1e-300, 1.0 + 0x1p-30, 16777217.0, 0.5};
    const char header[] = "{\"m.weight\":{\"dtype\":\"F64\",\"shape\":[2,3],\"data_offsets\":[0,48]}}";
    qb_checkpoint *ck;
    qb_weight w;
    float *read;
    write_file(header, values, sizeof values);
    assert_ok(qb_checkpoint_open(dir, &ck));
    const qb_tensor *t = qb_checkpoint_at(ck, 0);
    assert_int_equal(t->dtype, QB_DTYPE_F32);
    assert_int_equal(t->bytes, 24);
    assert_int_equal(qb_checkpoint_tensor_bytes(ck), 48); /* as the file holds it */
    assert_string_equal(qb_checkpoint_dtype_name(ck, t), "F64");
    assert_ok(qb_checkpoint_linear(ck, "m", 2, 3, &w));
    for (int i = 0; i < 6; i++) assert_true(((const float *)w.dense)[i] == (float)values[i]);
    qb_checkpoint_free_linear(ck, "m", &w);
    assert_null(t->data);
    assert_ok(qb_checkpoint_read_f32(ck, "m.weight", 2, 3, &read));
    assert_true(read[0] == 0.1f);
    qb_free(read);
    qb_checkpoint_close(ck);
    write_file(header, (const double[6]){0, 0, 1e300}, sizeof values);
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_fails(qb_checkpoint_linear(ck, "m", 2, 3, &w), QB_ERR_NUMERIC,
                 "element 2, 1e+300, is beyond float32");
    qb_checkpoint_close(ck);
}

/* Codes 0x38 (1.0) and their neighbours in [3, 5]; the scales of each form. */
static void check_scales(const char *suffix, const char *shape, const float *scales, int n,
                         const char *config, const int *scale_of) {
    uint8_t bytes[15 + 1 + 64];
    char header[512];
    qb_checkpoint *ck;
    float *read;
    for (int i = 0; i < 16; i++) bytes[i] = (uint8_t)(0x30 + i);
    memcpy(bytes + 16, scales, (size_t)n * 4);
    snprintf(header, sizeof header,
             "{\"m.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[3,5],\"data_offsets\":[0,15]},"
             "\"pad\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[15,16]},"
             "\"m.weight%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[16,%d]}}",
             suffix, shape, 16 + 4 * n);
    write_text(dir, "config.json", config);
    write_file(header, bytes, 16 + 4 * (size_t)n);
    if (!scale_of) { /* before anything is read */
        assert_fails(qb_checkpoint_open(dir, &ck), QB_ERR_UNSUPPORTED, "are not understood");
        return;
    }
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_string_equal(qb_checkpoint_quantization(ck)->method, "");
    assert_ok(qb_checkpoint_read_f32(ck, "m.weight", 3, 5, &read));
    for (int i = 0; i < 15; i++)
        assert_true(read[i] == qb_f32_of_e4m3((uint8_t)(0x30 + i)) * scales[scale_of[i]]);
    qb_free(read);
    qb_checkpoint_close(ck);
}

static void test_dtypes__fp8_takes_the_scales_beside_it(void **state) {
    (void)state;
    static const float scales[8] = {0.5f, 3.0f, 0.125f, 7.0f, 0.3f, 11.0f, 2.0f, 9.0f};
    static const char fp8[] =
        "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[2,3]}}";
    static const char float_quantized[] =
        "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\","
        "\"config_groups\":{}}}";
    static const char dynamic[] =
        "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\","
        "\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"input_activations\":{\"dynamic\":true},"
        "\"weights\":{\"num_bits\":8,\"type\":\"float\"}}}}}";
    int one[15] = {0}, row[15], block[15];
    for (int i = 0; i < 15; i++) row[i] = i / 5, block[i] = i / 5 / 2 * 2 + i % 5 / 3;
    check_scales("_scale", "[]", scales, 1, "{}", one);
    check_scales("_scale", "[1]", scales, 1, float_quantized, one);
    check_scales("_scale", "[3,1]", scales, 3, float_quantized, row);
    said[0] = 0;
    qb_log_capture(keep, NULL);
    check_scales("_scale", "[3,1]", scales, 3, dynamic, row);
    qb_log_capture(NULL, NULL);
    assert_non_null(strstr(said, "\"input_activations\" is not applied: activations are floats here"));
    check_scales("_scale_inv", "[2,2]", scales, 4, fp8, block);
    check_scales("_scale_inv", "[2,3]", scales, 6, fp8, NULL);
    check_scales("_unrelated", "[1]", (const float[]){1.0f}, 1, "{}", one); /* none: the codes' own values */
    qb_checkpoint *ck;
    write_text(dir, "config.json", fp8);
    assert_fails(qb_checkpoint_open(dir, &ck), QB_ERR_FORMAT,
                 "tensor m.weight is F8_E4M3, and neither m.weight_scale_inv nor m.weight_scale is there");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, drop_dir)
    const struct CMUnitTest tests[] = {
        TEST(test_dtypes__e4m3_codes_are_torchs),
        TEST(test_dtypes__doubles_are_rounded_to_float32),
        TEST(test_dtypes__fp8_takes_the_scales_beside_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
