/* NF4 and FP4 against what bitsandbytes made of the same weight (golden/codebook.json, with the script that
   recorded it), and the vector of docs/formats.md. */
#include "tests/method_support.h"
#include "tests/support.h"

#include "base/json.h"
#include "quant/method.h"

#include <math.h>

enum { ROWS = 56, COLS = 160, COUNT = ROWS * COLS };

/* The same weight as in tools/record_codebook_golden.py. */
static void make_weight(float *w) {
    uint64_t state = 12345;
    for (int i = 0; i < COUNT; i++) {
        state = (state * 1103515245U + 12345U) % (1U << 31);
        int x = (int)((state >> 8) % 8192) - 4096;
        w[i] = (float)(x * (1 + i / 97 % 13)) / 65536.0F;
    }
    for (int i = 640; i < 704; i++) w[i] = 0.0F;
    w[64] = 4.0F;
}

static uint8_t *hex_bytes(const qb_json *object, const char *key, size_t *n) {
    const char *text = qb_json_string(qb_json_get(object, key));
    assert_non_null(text);
    *n = strlen(text) / 2;
    uint8_t *out;
    assert_ok(qb_alloc(*n, 1, &out));
    for (size_t i = 0; i < *n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(text + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return out;
}

static qb_qweight quantize(const char *method, float *w, int64_t rows, int64_t cols, int64_t block,
                           bool double_quant) {
    qb_quant_config config = {.block_size = block, .double_quant = double_quant};
    qb_quant_job job = {"golden", rows, cols, w, QB_DTYPE_F32, NULL, &config, NULL, NULL, NULL};
    qb_module_report report = {0};
    qb_qweight q;
    assert_ok(quantize_alone(method, &job, &q, &report));
    assert_string_equal(report.error_kind, "weight");
    return q;
}

static void check_codes(const qb_json *item, const qb_qweight *q, const float *w) {
    size_t n;
    uint8_t *packed = hex_bytes(item, "packed_hex", &n);
    assert_int_equal(n, COUNT / 2);
    for (int i = 0; i < COUNT; i++) {
        int theirs = i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4;
        if (theirs != q->codes[i])
            fail_msg("weight %d = %.9g has code %d, expected %d", i, (double)w[i], q->codes[i], theirs);
    }
    qb_free(packed);
    float *absmax = (float *)(void *)hex_bytes(item, "absmax_hex", &n);
    assert_int_equal(n, (size_t)q->n_blocks * sizeof(float));
    assert_memory_equal(absmax, q->absmax, n);
    qb_free(absmax);
}

/* bitsandbytes looks codes up in a table of 65536 entries, so values nearer than that to a midpoint may go
 * either way. */
static void check_nested(const qb_json *item, const qb_qweight *q, const float *plain) {
    size_t n;
    uint8_t *codes = hex_bytes(item, "absmax_codes_hex", &n);
    assert_int_equal(n, q->n_blocks);
    float *nested = (float *)(void *)hex_bytes(item, "nested_absmax_hex", &n);
    assert_int_equal(n, (size_t)((q->n_blocks + 255) / 256) * sizeof(float));
    float *offset = (float *)(void *)hex_bytes(item, "nested_offset_hex", &n);
    assert_true(fabsf(q->nested_offset / *offset - 1.0F) < 2e-7F); /* the order of a float32 sum */
    const float *map = qb_dynamic_map();
    int parted = 0;
    for (int64_t b = 0; b < q->n_blocks; b++) {
        assert_true(fabsf(q->nested_absmax[b / 256] / nested[b / 256] - 1.0F) < 1e-6F);
        float decoded = map[q->absmax_codes[b]] * q->nested_absmax[b / 256] + q->nested_offset;
        assert_true(decoded == q->absmax[b]);
        if (codes[b] == q->absmax_codes[b]) continue;
        assert_int_equal(abs(codes[b] - q->absmax_codes[b]), 1);
        double x = ((double)plain[b] - (double)*offset) / (double)nested[b / 256];
        double middle = ((double)map[codes[b]] + (double)map[q->absmax_codes[b]]) / 2;
        assert_true(fabs(x - middle) < 1.0 / 32768);
        parted++;
    }
    assert_true(parted <= 2);
    qb_free(codes);
    qb_free(nested);
    qb_free(offset);
}

static void test_quant_codebook__matches_bitsandbytes(void **state) {
    (void)state;
    qb_json *doc;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/codebook.json", 1 << 20, &doc));
    float w[COUNT];
    make_weight(w);
    int cases = 0;
    for (const qb_json *item = qb_json_first(qb_json_get(doc, "cases")); item; item = qb_json_next(item)) {
        const char *method = qb_json_string(qb_json_get(item, "quant_type"));
        int64_t block = (int64_t)qb_json_number(qb_json_get(item, "block_size"));
        bool double_quant = qb_json_true(qb_json_get(item, "double_quant"));
        qb_qweight q = quantize(method, w, ROWS, COLS, block, double_quant);
        if (double_quant) {
            qb_qweight plain = quantize(method, w, ROWS, COLS, block, false);
            assert_memory_equal(plain.codes, q.codes, COUNT);
            check_nested(item, &q, plain.absmax);
            qb_qweight_free(&plain);
        } else {
            check_codes(item, &q, w);
        }
        qb_qweight_free(&q);
        cases++;
    }
    assert_int_equal(cases, 7);
    qb_json_free(doc);
}

static void test_quant_codebook__nf4_vector(void **state) {
    (void)state;
    float w[8] = {0.5F, -2, 1, 0, 0.1F, -0.1F, 2, -1.2F}, back[8];
    const uint8_t codes[8] = {10, 0, 12, 7, 8, 6, 15, 2};
    const float expected[8] = {0.4922246F, -2, 0.8814197F, 0, 0.1591606F, -0.1821001F, 2, -1.0501461F};
    qb_qweight q = quantize("nf4", w, 2, 4, 64, false);
    assert_memory_equal(q.codes, codes, 8);
    assert_true(q.absmax[0] == 2.0F);
    qb_qweight_dequantize(&q, back);
    for (int i = 0; i < 8; i++) assert_true(fabsf(back[i] - expected[i]) < 1e-7F);
    qb_qweight_free(&q);
}

/* Every value of the table is its own nearest value, and the midpoint between two goes to the lower one. */
static void test_quant_codebook__tables_and_ties(void **state) {
    (void)state;
    const float *table = qb_codebook_table(QB_CODEBOOK_NF4);
    float w[32] = {0};
    memcpy(w, table, 16 * sizeof *w); /* the largest magnitude is 1 */
    for (int i = 0; i + 1 < 16; i++) w[16 + i] = (table[i] + table[i + 1]) / 2;
    qb_qweight q = quantize("nf4", w, 1, 32, 32, false);
    for (int i = 0; i < 16; i++) assert_int_equal(q.codes[i], i);
    for (int i = 0; i + 1 < 16; i++) assert_int_equal(q.codes[16 + i], i);
    qb_qweight_free(&q);
}

static void test_quant_codebook__zeros_and_tiny_blocks(void **state) {
    (void)state;
    float w[96] = {0}, back[96];
    w[40] = 1e-42F; /* below the clamp: its reciprocal would be infinite */
    for (int i = 64; i < 96; i++) w[i] = i % 2 ? 3e38F : -3e38F;
    qb_qweight q = quantize("nf4", w, 3, 32, 32, true);
    for (int i = 0; i < 64; i++) assert_int_equal(q.codes[i], 7);
    qb_qweight_dequantize(&q, back);
    for (int i = 0; i < 96; i++) assert_true(isfinite(back[i]));
    qb_qweight_free(&q);
}

static void test_quant_codebook__refuses(void **state) {
    (void)state;
    const qb_quant_method *nf4 = qb_quant_method_find("nf4");
    qb_quant_config config = {.block_size = 96};
    qb_qweight q;
    assert_fails(nf4->describe("m", 4, 4, QB_DTYPE_F16, &config, &q), QB_ERR_USAGE, "power of two");
    config.block_size = 64;
    float w[128] = {0};
    w[77] = NAN;
    qb_quant_job job = {"layer.3.q", 2, 64, w, QB_DTYPE_F32, NULL, &config, NULL, NULL, NULL};
    qb_module_report report = {0};
    assert_fails(quantize_alone("nf4", &job, &q, &report), QB_ERR_NUMERIC, "layer.3.q: weight[1, 13] is NaN");
    w[77] = -INFINITY;
    assert_fails(quantize_alone("nf4", &job, &q, &report), QB_ERR_NUMERIC, "infinite");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant_codebook__matches_bitsandbytes),
        cmocka_unit_test(test_quant_codebook__nf4_vector),
        cmocka_unit_test(test_quant_codebook__tables_and_ties),
        cmocka_unit_test(test_quant_codebook__zeros_and_tiny_blocks),
        cmocka_unit_test(test_quant_codebook__refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
