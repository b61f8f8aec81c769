#include "kernels/dtype.h"
#include "kernels/qweight.h"
#include "model/unit_rows.h"
#include "tests/support.h"

#include <math.h>
#include <string.h>

static void test_unit_rows__dense_keeps_its_dtype(void **state) {
    (void)state;
    static const float rows[] = {3, 0, -4, 0, 0, 0, 1, 1, 1};
    const float third = 1.0f / sqrtf(3.0f), want[] = {0.6f, 0, -0.8f, 0, 0, 0, third, third, third};
    static const struct {
        qb_dtype dtype;
        float within; /* half of what its last bit is worth below 1 */
    } forms[] = {{QB_DTYPE_F32, 0x1p-24f}, {QB_DTYPE_F16, 0x1p-12f}, {QB_DTYPE_BF16, 0x1p-9f}};
    for (size_t i = 0; i < 3; i++) {
        uint8_t stored[sizeof rows];
        float got[9];
        qb_weight out, in = {.rows = 3, .cols = 3, .dtype = forms[i].dtype, .dense = stored};
        assert_ok(qb_from_f32(in.dtype, rows, 9, stored));
        assert_ok(qb_weight_unit_rows(&in, &out));
        assert_int_equal(out.dtype, in.dtype);
        assert_true(out.rows == 3 && out.cols == 3 && out.dense == out.copy && in.dense == stored);
        assert_ok(qb_to_f32(out.dtype, out.dense, 9, got));
        for (int j = 0; j < 9; j++) assert_true(fabsf(got[j] - want[j]) <= forms[i].within);
        qb_weight_free(&out);
    }
}

static void test_unit_rows__packed_becomes_float32(void **state) {
    (void)state;
    enum { ROWS = 2, COLS = 32 };
    qb_qweight q;
    qb_weight out, in = {.rows = ROWS, .cols = COLS, .packed = &q};
    float values[ROWS * COLS];
    assert_ok(qb_qweight_alloc_affine(ROWS, COLS, 4, 32, false, &q));
    memset(q.codes, 0, ROWS * COLS); /* alloc leaves them as they come, and zeros at 0 */
    for (int i = 0; i < ROWS; i++) q.scales[i] = (float)(i + 1);
    qb_qweight_dequantize(&q, values);
    for (int i = 0; i < ROWS * COLS; i++) assert_true(values[i] == 0.0f);
    for (int i = 0; i < ROWS; i++) q.zeros[i] = 2;
    assert_ok(qb_weight_unit_rows(&in, &out));
    assert_int_equal(out.dtype, QB_DTYPE_F32);
    assert_null(out.packed);
    for (int i = 0; i < ROWS * COLS; i++)
        assert_true(fabsf(((const float *)out.dense)[i] + 1 / sqrtf(COLS)) < 1e-7f);
    qb_weight_free(&out);
    qb_qweight_free(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unit_rows__dense_keeps_its_dtype),
        cmocka_unit_test(test_unit_rows__packed_becomes_float32),
    };
    return cmocka_run_group_tests_name("unit rows", tests, NULL, NULL);
}
