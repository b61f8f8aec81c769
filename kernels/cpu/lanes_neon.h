/* Sixteen lanes as four NEON registers of aarch64. Included by lanes.h alone. */
#pragma once

typedef struct {
    float32x4_t a, b, c, d;
} lanes;
#define LANES_FOUR1(type, fn, x) ((type){fn((x).a), fn((x).b), fn((x).c), fn((x).d)})
#define LANES_FOUR2(type, fn, x, y)                                                                          \
    ((type){fn((x).a, (y).a), fn((x).b, (y).b), fn((x).c, (y).c), fn((x).d, (y).d)})
LANES_INLINE lanes lanes_load(const float *p) {
    return (lanes){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
LANES_INLINE void lanes_store(float *p, lanes v) {
    vst1q_f32(p, v.a);
    vst1q_f32(p + 4, v.b);
    vst1q_f32(p + 8, v.c);
    vst1q_f32(p + 12, v.d);
}
LANES_INLINE lanes lanes_set1(float x) {
    float32x4_t v = vdupq_n_f32(x);
    return (lanes){v, v, v, v};
}
LANES_INLINE lanes lanes_add(lanes a, lanes b) {
    return LANES_FOUR2(lanes, vaddq_f32, a, b);
}
LANES_INLINE lanes lanes_sub(lanes a, lanes b) {
    return LANES_FOUR2(lanes, vsubq_f32, a, b);
}
LANES_INLINE lanes lanes_mul(lanes a, lanes b) {
    return LANES_FOUR2(lanes, vmulq_f32, a, b);
}
LANES_INLINE lanes lanes_div(lanes a, lanes b) {
    return LANES_FOUR2(lanes, vdivq_f32, a, b);
}
/* The second where one is no number, as on x86; NEON's own maximum gives NaN. */
LANES_INLINE float32x4_t lanes_quarter_max(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
LANES_INLINE lanes lanes_max(lanes a, lanes b) {
    return LANES_FOUR2(lanes, lanes_quarter_max, a, b);
}
LANES_INLINE float32x4_t lanes_quarter_min(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
LANES_INLINE lanes lanes_min(lanes a, lanes b) {
    return LANES_FOUR2(lanes, lanes_quarter_min, a, b);
}
LANES_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return (lanes){vfmaq_f32(c.a, a.a, b.a), vfmaq_f32(c.b, a.b, b.b), vfmaq_f32(c.c, a.c, b.c),
                   vfmaq_f32(c.d, a.d, b.d)};
}
LANES_INLINE lanes lanes_fnma(lanes a, lanes b, lanes c) {
    return (lanes){vfmsq_f32(c.a, a.a, b.a), vfmsq_f32(c.b, a.b, b.b), vfmsq_f32(c.c, a.c, b.c),
                   vfmsq_f32(c.d, a.d, b.d)};
}
LANES_INLINE lanes lanes_round(lanes a) {
    return LANES_FOUR1(lanes, vrndnq_f32, a);
}
/* a * 2^n for whole n in [-252, 252], in two factors so that the ends overflow and underflow as they should.
 */
LANES_INLINE float32x4_t lanes_quarter_scale2(float32x4_t a, float32x4_t n) {
    int32x4_t whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1), one = vdupq_n_s32(127);
    int32x4_t first = vshlq_n_s32(vaddq_s32(half, one), 23);
    int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), one), 23);
    return vmulq_f32(vmulq_f32(a, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}
LANES_INLINE lanes lanes_scale2(lanes a, lanes n) {
    return LANES_FOUR2(lanes, lanes_quarter_scale2, a, n);
}

typedef struct {
    uint32x4_t a, b, c, d;
} lanes_codes;
LANES_INLINE uint32x4_t lanes_codes_quarter(const uint8_t *p) {
    return vreinterpretq_u32_u8(vld1q_u8(p));
}
LANES_INLINE lanes_codes lanes_codes_load(const void *p) {
    const uint8_t *v = p;
    return (lanes_codes){lanes_codes_quarter(v), lanes_codes_quarter(v + 16), lanes_codes_quarter(v + 32),
                         lanes_codes_quarter(v + 48)};
}
LANES_INLINE void lanes_codes_store(void *p, lanes_codes c) {
    uint8_t *v = p;
    vst1q_u8(v, vreinterpretq_u8_u32(c.a));
    vst1q_u8(v + 16, vreinterpretq_u8_u32(c.b));
    vst1q_u8(v + 32, vreinterpretq_u8_u32(c.c));
    vst1q_u8(v + 48, vreinterpretq_u8_u32(c.d));
}
LANES_INLINE lanes_codes lanes_codes_set1(int32_t x) {
    uint32x4_t v = vdupq_n_u32((uint32_t)x);
    return (lanes_codes){v, v, v, v};
}
/* As operators: a shift by what is constant once inlined becomes one by an immediate. */
/* Pairs of lanes as 64 bits: the same in each; 48 of each, turned left by 64 - 16 i, 24 in each lane. */
LANES_INLINE lanes_codes lanes_codes_set1_64(uint64_t x) {
    uint32x4_t v = vreinterpretq_u32_u64(vdupq_n_u64(x));
    return (lanes_codes){v, v, v, v};
}
LANES_INLINE uint32x4_t lanes_quarter_words_24(uint32x4_t c, uint8x16_t place) {
    return vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(c), place));
}
LANES_INLINE lanes_codes lanes_codes_words_24(lanes_codes c, const int i) {
    uint8x16_t place = vld1q_u8(lanes_places_24[i]);
    return (lanes_codes){lanes_quarter_words_24(c.a, place), lanes_quarter_words_24(c.b, place),
                         lanes_quarter_words_24(c.c, place), lanes_quarter_words_24(c.d, place)};
}
LANES_INLINE lanes_codes lanes_codes_shr(lanes_codes c, int n) {
    const uint32_t by = (uint32_t)n;
    return (lanes_codes){c.a >> by, c.b >> by, c.c >> by, c.d >> by};
}
LANES_INLINE lanes_codes lanes_codes_shl(lanes_codes c, int n) {
    const uint32_t by = (uint32_t)n;
    return (lanes_codes){c.a << by, c.b << by, c.c << by, c.d << by};
}
LANES_INLINE uint32x4_t lanes_quarter_sar(uint32x4_t c, int n) {
    return vreinterpretq_u32_s32(vreinterpretq_s32_u32(c) >> n);
}
LANES_INLINE lanes_codes lanes_codes_sar(lanes_codes c, int n) {
    return (lanes_codes){lanes_quarter_sar(c.a, n), lanes_quarter_sar(c.b, n), lanes_quarter_sar(c.c, n),
                         lanes_quarter_sar(c.d, n)};
}
LANES_INLINE lanes_codes lanes_codes_and(lanes_codes a, lanes_codes b) {
    return LANES_FOUR2(lanes_codes, vandq_u32, a, b);
}
LANES_INLINE lanes_codes lanes_codes_or(lanes_codes a, lanes_codes b) {
    return LANES_FOUR2(lanes_codes, vorrq_u32, a, b);
}
LANES_INLINE lanes_codes lanes_codes_pick(lanes_codes mask, lanes_codes a, lanes_codes b) {
    return (lanes_codes){vbslq_u32(mask.a, a.a, b.a), vbslq_u32(mask.b, a.b, b.b),
                         vbslq_u32(mask.c, a.c, b.c), vbslq_u32(mask.d, a.d, b.d)};
}
LANES_INLINE lanes_codes lanes_codes_add(lanes_codes a, lanes_codes b) {
    return LANES_FOUR2(lanes_codes, vaddq_u32, a, b);
}
LANES_INLINE lanes_codes lanes_codes_sub(lanes_codes a, lanes_codes b) {
    return LANES_FOUR2(lanes_codes, vsubq_u32, a, b);
}
LANES_INLINE lanes_codes lanes_codes_mul(lanes_codes a, lanes_codes b) {
    return LANES_FOUR2(lanes_codes, vmulq_u32, a, b);
}
LANES_INLINE lanes_codes lanes_codes_u8(const void *p) {
    uint8x16_t v = vld1q_u8(p);
    uint16x8_t low = vmovl_u8(vget_low_u8(v)), high = vmovl_high_u8(v);
    return (lanes_codes){vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)),
                         vmovl_high_u16(high)};
}
LANES_INLINE float32x4_t lanes_quarter_of_codes(uint32x4_t c) {
    return vcvtq_f32_s32(vreinterpretq_s32_u32(c));
}
LANES_INLINE lanes lanes_of_codes(lanes_codes c) {
    return LANES_FOUR1(lanes, lanes_quarter_of_codes, c);
}
LANES_INLINE lanes lanes_of_i8(const void *p) {
    int8x16_t v = vld1q_s8(p);
    int16x8_t low = vmovl_s8(vget_low_s8(v)), high = vmovl_high_s8(v);
    return (lanes){vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
                   vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))};
}
LANES_INLINE lanes lanes_gather(const float *base, lanes_codes index) {
    uint32_t at[LANES];
    float v[LANES];
    lanes_codes_store(at, index);
    for (int i = 0; i < LANES; i++) v[i] = base[(int32_t)at[i]];
    return lanes_load(v);
}
LANES_INLINE lanes_codes lanes_codes_spread(uint64_t word, int bits) {
    uint32_t out[LANES];
    for (int l = 0; l < LANES; l++) out[l] = (uint32_t)(word >> (l * bits)) & ((1u << bits) - 1);
    return lanes_codes_load(out);
}
/* Sixteen floats are 64 bytes, the most that one look-up of bytes takes: lane c reads bytes 4 c to 4 c + 3.
 */
typedef uint8x16x4_t lanes_table;
LANES_INLINE lanes_table lanes_table_load(const float *p) {
    lanes v = lanes_load(p);
    return (lanes_table){{vreinterpretq_u8_f32(v.a), vreinterpretq_u8_f32(v.b), vreinterpretq_u8_f32(v.c),
                          vreinterpretq_u8_f32(v.d)}};
}
LANES_INLINE float32x4_t lanes_quarter_lookup16(lanes_table t, uint32x4_t c) {
    uint32x4_t bytes =
        vmlaq_u32(vdupq_n_u32(0x03020100), vandq_u32(c, vdupq_n_u32(15)), vdupq_n_u32(0x04040404));
    return vreinterpretq_f32_u8(vqtbl4q_u8(t, vreinterpretq_u8_u32(bytes)));
}
LANES_INLINE lanes lanes_lookup16(lanes_table t, lanes_codes c) {
    return (lanes){lanes_quarter_lookup16(t, c.a), lanes_quarter_lookup16(t, c.b),
                   lanes_quarter_lookup16(t, c.c), lanes_quarter_lookup16(t, c.d)};
}
LANES_INLINE lanes lanes_centred(lanes_table t, lanes_codes c, const int bits) {
    (void)t;
    lanes_codes code = lanes_codes_and(c, lanes_codes_set1((1 << bits) - 1));
    return lanes_of_codes(lanes_codes_sub(code, lanes_codes_set1(1 << (bits - 1))));
}

LANES_INLINE float32x4_t lanes_quarter_f16(const uint8_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
LANES_INLINE lanes lanes_load_f16(const void *p) {
    const uint8_t *h = p;
    return (lanes){lanes_quarter_f16(h), lanes_quarter_f16(h + 8), lanes_quarter_f16(h + 16),
                   lanes_quarter_f16(h + 24)};
}
LANES_INLINE void lanes_store_f16(void *p, lanes v) {
    uint8_t *h = p;
    vst1_u8(h, vreinterpret_u8_f16(vcvt_f16_f32(v.a)));
    vst1_u8(h + 8, vreinterpret_u8_f16(vcvt_f16_f32(v.b)));
    vst1_u8(h + 16, vreinterpret_u8_f16(vcvt_f16_f32(v.c)));
    vst1_u8(h + 24, vreinterpret_u8_f16(vcvt_f16_f32(v.d)));
}
LANES_INLINE float32x4_t lanes_quarter_bf16(const uint8_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
LANES_INLINE lanes lanes_load_bf16(const void *p) {
    const uint8_t *h = p;
    return (lanes){lanes_quarter_bf16(h), lanes_quarter_bf16(h + 8), lanes_quarter_bf16(h + 16),
                   lanes_quarter_bf16(h + 24)};
}
