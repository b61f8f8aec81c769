/* Element types: every half against its definition, every
   rounding boundary, and the vector paths against the scalar. */
#include "tests/support.h"

#include "kernels/cpu/simd.h"
#include "kernels/dtype.h"

#include <math.h>

/* The definition of IEEE 754 binary16, by ldexp. */
static double half_value(uint32_t h) {
    int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
    double v = exponent == 31  ? (mantissa ? NAN : INFINITY)
               : exponent == 0 ? ldexp(mantissa, -24)
                               : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -v : v;
}

static void test_dtype__every_half_widens_exactly_and_comes_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = qb_f32_of_f16((uint16_t)h);
        double want = half_value(h);
        if (isnan(want)) {
            assert_true(isnan(f));
            assert_int_equal(qb_f16_of_f32(f), h | 0x200); /* a NaN becomes quiet, its payload stays */
            continue;
        }
        assert_true((double)f == want && !signbit(f) == !(h & 0x8000));
        assert_int_equal(qb_f16_of_f32(f), h);
    }
}

static void test_dtype__halfway_points_round_to_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double low = half_value(h), high = h + 1 == 0x7c00 ? 65536.0 : half_value(h + 1);
        float middle = (float)((low + high) / 2); /* exact: eleven bits and one more */
        assert_int_equal(qb_f16_of_f32(middle), h & 1 ? h + 1 : h);
        assert_int_equal(qb_f16_of_f32(nextafterf(middle, 0)), h);
        assert_int_equal(qb_f16_of_f32(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(qb_f16_of_f32(-middle), 0x8000 | (h & 1 ? h + 1 : h));
    }
    assert_int_equal(qb_f16_of_f32(INFINITY), 0x7c00);
    assert_int_equal(qb_f16_of_f32(3e38f), 0x7c00);
    assert_int_equal(qb_f16_of_f32(1e-30f), 0);
}

static void test_dtype__bfloat16_rounds_to_even_and_keeps_nan(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = qb_f32_of_bf16((uint16_t)h);
        if (isnan(f)) {
            assert_int_equal(qb_bf16_of_f32(f), h | 0x40);
            continue;
        }
        assert_int_equal(qb_bf16_of_f32(f), h);
        if ((h & 0x7fff) >= 0x7f80) continue;
        float middle = qb_f32_of_bits(h << 16 | 0x8000);
        assert_int_equal(qb_bf16_of_f32(middle), h & 1 ? h + 1 : h);
        assert_int_equal(qb_bf16_of_f32(qb_f32_of_bits(h << 16 | 0x7fff)), h);
        assert_int_equal(qb_bf16_of_f32(qb_f32_of_bits(h << 16 | 0x8001)), h + 1);
    }
    assert_int_equal(qb_bf16_of_f32(qb_f32_of_bits(0x7f800001)), 0x7fc0); /* not rounded into infinity */
}

static void check_table(const qb_simd *simd) {
    enum { N = 65536 };
    static uint16_t halves[N + 1], back[N + 1];
    static float wide[N + 1];
    for (int i = 0; i < N; i++) halves[i] = (uint16_t)i;
    for (int shift = 0; shift < 2; shift++) { /* also from an odd element: no alignment is asked */
        int n = N - 5 * shift;
        simd->f32_of_f16(halves + shift, n, wide + shift);
        for (int i = shift; i < n + shift; i++)
            assert_int_equal(qb_bits_of_f32(wide[i]), qb_bits_of_f32(qb_f32_of_f16(halves[i])));
        simd->f16_of_f32(wide + shift, n, back + shift);
        for (int i = shift; i < n + shift; i++) assert_int_equal(back[i], qb_f16_of_f32(wide[i]));
        simd->f32_of_bf16(halves + shift, n, wide + shift);
        for (int i = shift; i < n + shift; i++)
            assert_int_equal(qb_bits_of_f32(wide[i]), (uint32_t)halves[i] << 16);
        simd->bf16_of_f32(wide + shift, n, back + shift);
        for (int i = shift; i < n + shift; i++) assert_int_equal(back[i], qb_bf16_of_f32(wide[i]));
    }
    uint32_t bits = 12345; /* arbitrary floats, so that rounding is used too */
    for (int i = 0; i < N; i++) wide[i] = qb_f32_of_bits(bits = bits * 1664525u + 1013904223u);
    simd->f16_of_f32(wide, N, back);
    for (int i = 0; i < N; i++) assert_int_equal(back[i], qb_f16_of_f32(wide[i]));
    simd->bf16_of_f32(wide, N, back);
    for (int i = 0; i < N; i++) assert_int_equal(back[i], qb_bf16_of_f32(wide[i]));
}

static void test_dtype__vector_conversions_equal_the_scalar_ones(void **state) {
    (void)state;
    for (int i = 0; qb_simd_at(i); i++) check_table(qb_simd_at(i));
}

static void test_dtype__names_parse_both_ways(void **state) {
    (void)state;
    for (int i = 0; i < QB_DTYPE_COUNT; i++) {
        qb_dtype d;
        assert_ok(qb_dtype_parse(qb_dtype_name((qb_dtype)i), &d));
        assert_int_equal(d, i);
        assert_ok(qb_dtype_parse(qb_dtype_torch_name((qb_dtype)i), &d));
        assert_int_equal(d, i);
    }
    qb_dtype d;
    assert_fails(qb_dtype_parse("F8_E4M3", &d), QB_ERR_FORMAT, "F8_E4M3");
    float x = 1;
    assert_fails(qb_to_f32(QB_DTYPE_I32, &x, 1, &x), QB_ERR_UNSUPPORTED, "I32");
    assert_fails(qb_from_f32(QB_DTYPE_U8, &x, 1, &x), QB_ERR_UNSUPPORTED, "U8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtype__every_half_widens_exactly_and_comes_back),
        cmocka_unit_test(test_dtype__halfway_points_round_to_even),
        cmocka_unit_test(test_dtype__bfloat16_rounds_to_even_and_keeps_nan),
        cmocka_unit_test(test_dtype__vector_conversions_equal_the_scalar_ones),
        cmocka_unit_test(test_dtype__names_parse_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
