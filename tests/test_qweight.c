/* The neutral quantized weight: tables, vectors and sizes of docs/formats.md, meaning of every field. */
#include "tests/support.h"

#include "kernels/qweight.h"

#include <math.h>

static void test_qweight__nf4_vector(void **state) {
    (void)state;
    static const uint8_t codes[8] = {10, 0, 12, 7, 8, 6, 15, 2};
    static const double want[8] = {.4922246, -2, .8814197, 0, .1591606, -.1821001, 2, -1.0501461};
    qb_qweight q;
    assert_ok(qb_qweight_alloc_codebook(2, 4, QB_CODEBOOK_NF4, 64, false, &q));
    assert_int_equal(q.n_blocks, 1);
    memcpy(q.codes, codes, 8);
    q.absmax[0] = 2;
    float out[8];
    qb_qweight_dequantize(&q, out);
    for (int i = 0; i < 8; i++) assert_true(fabs((double)out[i] - want[i]) < 1e-7);
    qb_qweight_free(&q);
}

static void test_qweight__blocks_cross_rows(void **state) {
    (void)state;
    qb_qweight q;
    assert_ok(qb_qweight_alloc_codebook(3, 43, QB_CODEBOOK_FP4, 32, true, &q));
    assert_int_equal(q.n_blocks, 5); /* 129 elements */
    for (int i = 0; i < 129; i++) q.codes[i] = (uint8_t)(i % 16);
    for (int b = 0; b < 5; b++) q.absmax[b] = (float)(b + 1);
    float out[129];
    qb_qweight_dequantize(&q, out);
    for (int i = 0; i < 129; i++) {
        /* bitsandbytes defines FP4 as these magnitudes over 12, bit 3 the sign */
        static const double magnitudes[8] = {0, 0.0625, 8, 12, 4, 6, 2, 3};
        int c = i % 16;
        double magnitude = magnitudes[c & 7];
        assert_true((double)out[i] ==
                    (double)((float)(magnitude / 12) * (float)(i / 32 + 1)) * (c & 8 ? -1 : 1));
    }
    qb_qweight_free(&q);
}

/* The positive values below 1 as bitsandbytes' own
   create_dynamic_map gives them; public ports print the same. */
static const float dynamic_map_values[127] = {
    5.5000004e-07f, 3.2500002e-06f, 7.75e-06f,      2.1249998e-05f, 4.375e-05f,     6.625e-05f,
    8.875e-05f,     0.00015625001f, 0.00026875004f, 0.00038125002f, 0.00049375003f, 0.0006062501f,
    0.00071875006f, 0.00083125f,    0.0009437501f,  0.0012812499f,  0.00184375f,    0.00240625f,
    0.00296875f,    0.0035312497f,  0.00409375f,    0.0046562497f,  0.0052187503f,  0.00578125f,
    0.00634375f,    0.00690625f,    0.00746875f,    0.00803125f,    0.00859375f,    0.009156249f,
    0.00971875f,    0.01140625f,    0.01421875f,    0.01703125f,    0.019843752f,   0.02265625f,
    0.02546875f,    0.028281251f,   0.03109375f,    0.03390625f,    0.036718752f,   0.03953125f,
    0.042343747f,   0.04515625f,    0.04796875f,    0.05078125f,    0.05359375f,    0.05640625f,
    0.059218753f,   0.06203125f,    0.06484375f,    0.067656256f,   0.070468746f,   0.07328125f,
    0.07609375f,    0.07890625f,    0.08171876f,    0.08453125f,    0.08734375f,    0.09015625f,
    0.092968754f,   0.09578126f,    0.09859375f,    0.107031256f,   0.12109375f,    0.13515624f,
    0.14921875f,    0.16328125f,    0.17734376f,    0.19140625f,    0.20546874f,    0.21953125f,
    0.23359375f,    0.24765624f,    0.26171875f,    0.27578127f,    0.28984374f,    0.30390626f,
    0.31796873f,    0.33203125f,    0.34609374f,    0.36015624f,    0.37421876f,    0.38828123f,
    0.40234375f,    0.41640624f,    0.43046874f,    0.44453126f,    0.45859373f,    0.47265625f,
    0.4867187f,     0.50078124f,    0.5148437f,     0.5289062f,     0.54296875f,    0.5570313f,
    0.5710938f,     0.58515626f,    0.5992187f,     0.61328125f,    0.6273438f,     0.6414063f,
    0.65546876f,    0.6695312f,     0.68359375f,    0.6976563f,     0.7117188f,     0.72578126f,
    0.7398437f,     0.75390625f,    0.7679688f,     0.78203124f,    0.79609376f,    0.8101562f,
    0.82421875f,    0.8382813f,     0.85234374f,    0.86640626f,    0.8804687f,     0.89453125f,
    0.9085938f,     0.92265624f,    0.93671876f,    0.9507812f,     0.96484375f,    0.9789063f,
    0.99296874f};

static void test_qweight__dynamic_map(void **state) {
    (void)state;
    const float *map = qb_dynamic_map();
    for (int i = 1; i < 256; i++) assert_true(map[i] > map[i - 1]);
    assert_true(map[127] == 0.0f && map[255] == 1.0f);
    for (int i = 0; i < 127; i++) assert_true(map[128 + i] == dynamic_map_values[i]);
    for (int i = 0; i < 127; i++) assert_true(map[i] == -map[254 - i]);
}

static void test_qweight__affine_groups_and_act_order(void **state) {
    (void)state;
    qb_qweight q;
    assert_ok(qb_qweight_alloc_affine(2, 10, 3, 4, true, &q));
    assert_int_equal(q.n_groups, 3);
    for (int c = 0; c < 10; c++) q.g_idx[c] = (c * 7) % 3;
    for (int i = 0; i < 20; i++) q.codes[i] = (uint8_t)(i % 8);
    for (int i = 0; i < 6; i++) q.scales[i] = 0.5f * (float)(i + 1), q.zeros[i] = (uint8_t)i;
    float out[20];
    qb_qweight_dequantize(&q, out);
    for (int i = 0; i < 20; i++) {
        int g = i / 10 * 3 + (i % 10 * 7) % 3;
        assert_true(out[i] == 0.5f * (float)(g + 1) * (float)(i % 8 - g));
    }
    qb_free(q.g_idx);
    q.g_idx = NULL;
    qb_qweight_dequantize(&q, out);
    for (int i = 0; i < 20; i++) {
        int g = i / 10 * 3 + i % 10 / 4;
        assert_true(out[i] == 0.5f * (float)(g + 1) * (float)(i % 8 - g));
    }
    qb_qweight_free(&q);
}

static int64_t backwards(const void *ctx, int64_t row) {
    return *(const int64_t *)ctx - 1 - row;
}

static void test_qweight__rows_are_taken_with_their_factors(void **state) {
    (void)state;
    enum { ROWS = 2, GROUPS = 16, SUPERS = GROUPS / 8 };
    const int64_t rows = ROWS;
    qb_qweight q, taken;
    assert_ok(qb_qweight_alloc_offsets(ROWS, GROUPS * 32, 4, 32, &q));
    memset(q.codes, 1, ROWS * GROUPS * 32);
    assert_fails(qb_qweight_alloc_factors(&q, 7, q.offsets != NULL), QB_ERR_INTERNAL, "16 groups");
    assert_ok(qb_qweight_alloc_factors(&q, 8, q.offsets != NULL));
    for (int i = 0; i < ROWS * GROUPS; i++)
        q.scale_factors.inner[i] = (uint8_t)i, q.offset_factors.inner[i] = (uint8_t)(100 + i);
    for (int i = 0; i < ROWS * SUPERS; i++)
        q.scale_factors.outer[i] = (float)i, q.offset_factors.outer[i] = (float)-i;
    assert_ok(qb_qweight_take_rows(&q, ROWS, backwards, &rows, &taken));
    assert_int_equal(taken.factor_groups, 8);
    for (int r = 0; r < ROWS; r++) {
        const int from = ROWS - 1 - r;
        for (int g = 0; g < GROUPS; g++) {
            assert_int_equal(taken.scale_factors.inner[r * GROUPS + g], from * GROUPS + g);
            assert_int_equal(taken.offset_factors.inner[r * GROUPS + g], 100 + from * GROUPS + g);
        }
        for (int s = 0; s < SUPERS; s++) {
            assert_true(taken.scale_factors.outer[r * SUPERS + s] == (float)(from * SUPERS + s));
            assert_true(taken.offset_factors.outer[r * SUPERS + s] == (float)-(from * SUPERS + s));
        }
    }
    qb_qweight_free(&taken);
    qb_qweight_free(&q);
}

static double bits_of(bool codebook, int bits, int64_t group, bool symmetric, bool double_quant) {
    qb_qweight q = {.coding = codebook ? QB_CODING_CODEBOOK : QB_CODING_AFFINE,
                    .rows = 4096,
                    .cols = 4096,
                    .bits = bits,
                    .group_size = group,
                    .n_groups = group ? 4096 / group : 0,
                    .symmetric = symmetric,
                    .block_size = group,
                    .n_blocks = group ? 4096 * 4096 / group : 0,
                    .double_quant = double_quant};
    return qb_qweight_bits_per_weight(&q);
}

static void test_qweight__bits_per_weight_as_the_size_table_counts(void **state) {
    (void)state;
    assert_true(bits_of(false, 4, 128, false, false) == 4.15625);
    assert_true(bits_of(false, 4, 128, true, false) == 4.15625);
    assert_true(bits_of(false, 2, 64, false, false) == 2.28125);
    assert_true(fabs(bits_of(false, 3, 128, false, false) - 3.148) < 5e-4);
    assert_true(bits_of(false, 8, 128, false, false) == 8.1875);
    assert_true(bits_of(true, 4, 64, false, false) == 4.5);
    assert_true(fabs(bits_of(true, 4, 64, false, true) - 4.127) < 5e-4);
}

static void test_qweight__scales_round_to_half(void **state) {
    (void)state;
    qb_qweight q;
    assert_ok(qb_qweight_alloc_affine(1, 3, 4, 1, false, &q));
    q.scales[0] = 0.1f, q.scales[1] = 1e-12f, q.scales[2] = 0.0f;
    assert_ok(qb_qweight_round_scales(&q));
    assert_true(q.scales[0] == 0.0999755859375f && q.scales[1] == 0x1p-24f && q.scales[2] == 0.0f);
    q.scales[2] = 70000.0f;
    assert_fails(qb_qweight_round_scales(&q), QB_ERR_NUMERIC, "group 2");
    qb_qweight_free(&q);
}

static void test_qweight__bad_shapes_are_refused(void **state) {
    (void)state;
    qb_qweight q;
    assert_fails(qb_qweight_alloc_affine(0, 8, 4, 8, false, &q), QB_ERR_UNSUPPORTED, "[0, 8]");
    assert_fails(qb_qweight_alloc_affine(8, 8, 7, 8, false, &q), QB_ERR_UNSUPPORTED, "7 bits");
    assert_fails(qb_qweight_alloc_affine(8, 8, 4, 16, false, &q), QB_ERR_UNSUPPORTED, "group size 16");
    assert_fails(qb_qweight_alloc_codebook(8, 8, QB_CODEBOOK_NF4, 48, false, &q), QB_ERR_UNSUPPORTED, "48");
    assert_null(q.codes);
    qb_qweight_free(NULL);
    qb_weight_free(NULL);
}

static void test_qweight__describe(void **state) {
    (void)state;
    char text[48];
    qb_qweight q = {
        .coding = QB_CODING_AFFINE, .cols = 4096, .bits = 4, .group_size = 128, .symmetric = true};
    assert_string_equal(qb_qweight_describe(&q, text), "int4 g128 sym");
    q.group_size = 4096, q.symmetric = false, q.bits = 3;
    assert_string_equal(qb_qweight_describe(&q, text), "int3 per-channel asym");
    qb_qweight n = {
        .coding = QB_CODING_CODEBOOK, .codebook = QB_CODEBOOK_NF4, .block_size = 64, .double_quant = true};
    assert_string_equal(qb_qweight_describe(&n, text), "nf4 b64 dq");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qweight__nf4_vector),
        cmocka_unit_test(test_qweight__blocks_cross_rows),
        cmocka_unit_test(test_qweight__dynamic_map),
        cmocka_unit_test(test_qweight__affine_groups_and_act_order),
        cmocka_unit_test(test_qweight__rows_are_taken_with_their_factors),
        cmocka_unit_test(test_qweight__bits_per_weight_as_the_size_table_counts),
        cmocka_unit_test(test_qweight__scales_round_to_half),
        cmocka_unit_test(test_qweight__bad_shapes_are_refused),
        cmocka_unit_test(test_qweight__describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
