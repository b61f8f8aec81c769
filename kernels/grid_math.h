/* The arithmetic of affine grids on single values: the definition that the vectorised loops of quant/grid.inc
   and the device's kernels share. Both execute these IEEE operations in this order and contract nothing, so
   they agree to the bit. */
#pragma once

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define QB_GRID_FUNCTION static __host__ __device__ inline
#else
#define QB_GRID_FUNCTION static inline
#endif

/* Half to even for |x| < 2^22; beyond, and for infinities, the result is still on the right side of every
   clamp. Adding 1.5 * 2^23 leaves no bit below one, and unlike rintf it is one vector instruction on every
   machine. */
QB_GRID_FUNCTION float qb_grid_round_even(float x) {
    const float magic = 12582912.0F;
    return (x + magic) - magic;
}

/* The comparisons send NaN to 0, so that the conversion to an integer stays defined. */
QB_GRID_FUNCTION float qb_grid_code(float x, float scale, float zero, float maxq) {
    float q = qb_grid_round_even(x / scale) + zero;
    q = q > 0.0F ? q : 0.0F;
    return q < maxq ? q : maxq;
}

QB_GRID_FUNCTION float qb_grid_f32_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* x^2.4 for x >= 0, relative error below 3e-7: x^2 times x^(2/5), whose exponent is split exactly into a
   whole part and fifths, so that the polynomials see only small arguments. */
QB_GRID_FUNCTION float qb_grid_power_2_4(float x) {
    const int32_t least_normal = 0x00800000; /* bits of FLT_MIN */
    int32_t bits;
    memcpy(&bits, &x, 4);
    bits = bits < least_normal ? least_normal : bits;
    /* leaves the mantissa m in [sqrt(1/2), sqrt(2)); 128 keeps the shifted value positive */
    int32_t e = (int32_t)(((uint32_t)bits - 0x3F3504F3U + (128U << 23)) >> 23) - 128;
    float m = qb_grid_f32_of_bits((uint32_t)bits - ((uint32_t)e << 23));
    float t = (m - 1.0F) / (m + 1.0F), t2 = t * t;
    /* 0.4 * log2(m) = 0.8 / ln 2 * artanh(t) */
    float log_part =
        t *
        (1.15415603F + t2 * (0.384718676F + t2 * (0.230831206F + t2 * (0.164879433F + t2 * 0.128239559F))));
    float whole = qb_grid_round_even(0.4F * (float)e);
    float z = (2.0F * (float)e - 5.0F * whole) * 0.2F + log_part; /* |z| < 0.71 */
    float v = z * 0.693147181F;
    float p =
        1.0F +
        v * (1.0F +
             v * (0.5F + v * (1.66666667e-1F +
                              v * (4.16666667e-2F +
                                   v * (8.33333333e-3F +
                                        v * (1.38888889e-3F + v * (1.98412698e-4F + v * 2.48015873e-5F)))))));
    return x * x * (p * qb_grid_f32_of_bits((uint32_t)((int32_t)whole + 127) << 23));
}

/* The ends of the range that the grid spans. A step that would underflow could only divide by zero: such a
   lane is as good as an all-zero one. */
QB_GRID_FUNCTION void qb_grid_settle_range(bool symmetric, float maxq, float *lo, float *hi) {
    float a = -*lo > *hi ? -*lo : *hi;
    float low = symmetric && *lo < 0.0F ? -a : *lo;
    float high = symmetric ? a : *hi;
    bool empty = !((high - low) / maxq >= FLT_MIN);
    *lo = empty ? -1.0F : low;
    *hi = empty ? 1.0F : high;
}

/* The step that codes are chosen on. Checkpoints store float16, which below 2^-14 holds multiples of 2^-24
   alone: there it becomes the next of these, so that what is stored is what codes were chosen on, and no
   range is cut. Above, rounding moves a step by 2^-11 of itself at most and is left to the end, as the
   paper's code and its descendants do. */
QB_GRID_FUNCTION float qb_grid_settle_step(float step) {
    const float least_normal = 6.103515625e-05F, least = 5.9604644775390625e-08F;
    float exact = step / least, up = qb_grid_round_even(exact);
    up = up < exact ? up + 1.0F : up;
    return step < least_normal ? up * least : step;
}

enum { QB_GRID_SEARCH_STEPS = 80 };
/* The i-th range of the mse search: both ends shrunk by i per cent. */
QB_GRID_FUNCTION float qb_grid_shrink(int i) {
    return (float)(1.0 - i / 100.0);
}
