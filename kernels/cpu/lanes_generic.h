/* Sixteen lanes as a GCC vector, which the compiler splits into what the processor has. Included by lanes.h
 * alone. */
#pragma once

typedef float lanes __attribute__((vector_size(64)));
LANES_INLINE lanes lanes_load(const float *p) {
    lanes v = {0};
    memcpy(&v, p, sizeof v);
    return v;
}
LANES_INLINE void lanes_store(float *p, lanes v) {
    memcpy(p, &v, sizeof v);
}
typedef uint32_t lanes_codes __attribute__((vector_size(64)));
typedef int32_t lanes_whole __attribute__((vector_size(64)));
typedef uint16_t lanes_halves __attribute__((vector_size(32)));
LANES_INLINE lanes_codes lanes_halves_load(const void *p) {
    lanes_halves h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, lanes_codes);
}
/* Moved up by 13 bits a half is a float32 that is 2^112 too small, subnormals included; infinities and NaN
   (made quiet) get the full exponent. A comparison gives all ones where it holds. */
LANES_INLINE lanes lanes_load_f16(const void *p) {
    lanes_codes h = lanes_halves_load(p), magnitude = h & 0x7fff;
    lanes wide = (lanes)(magnitude << 13) * 0x1p112f;
    lanes_codes special = (lanes_codes)(magnitude >= 0x7c00) & 0x7f800000;
    lanes_codes quiet = (lanes_codes)(magnitude > 0x7c00) & 0x400000;
    return (lanes)((lanes_codes)wide | special | quiet | (h & 0x8000) << 16);
}
LANES_INLINE void lanes_store_f16(void *p, lanes v) {
    uint16_t h[LANES];
    for (int i = 0; i < LANES; i++) h[i] = qb_f16_of_f32(v[i]);
    memcpy(p, h, sizeof h);
}
LANES_INLINE lanes lanes_load_bf16(const void *p) {
    return (lanes)(lanes_halves_load(p) << 16);
}
LANES_INLINE lanes lanes_set1(float x) {
    return x - (lanes){0};
}
LANES_INLINE lanes lanes_add(lanes a, lanes b) {
    return a + b;
}
LANES_INLINE lanes lanes_sub(lanes a, lanes b) {
    return a - b;
}
LANES_INLINE lanes lanes_mul(lanes a, lanes b) {
    return a * b;
}
LANES_INLINE lanes lanes_div(lanes a, lanes b) {
    return a / b;
}
/* Without the instruction a fused operation is a library call, so here it rounds twice. */
LANES_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return a * b + c;
}
LANES_INLINE lanes lanes_fnma(lanes a, lanes b, lanes c) {
    return c - a * b;
}
LANES_INLINE lanes lanes_max(lanes a, lanes b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
LANES_INLINE lanes lanes_min(lanes a, lanes b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] < b[i] ? a[i] : b[i];
    return a;
}
/* Whole numbers have a last place of 1 above 2^23: adding and subtracting 1.5 * 2^23 rounds to nearest even.
 */
LANES_INLINE lanes lanes_round(lanes a) {
    lanes magic = lanes_set1(0x1.8p23f);
    lanes moved = a + magic;
    return moved - magic;
}

LANES_INLINE lanes_codes lanes_codes_load(const void *p) {
    lanes_codes v = {0};
    memcpy(&v, p, sizeof v);
    return v;
}
LANES_INLINE void lanes_codes_store(void *p, lanes_codes c) {
    memcpy(p, &c, sizeof c);
}
LANES_INLINE lanes_codes lanes_codes_set1(int32_t x) {
    return (lanes_codes){0} + (uint32_t)x;
}
/* Pairs of lanes as 64 bits: the same in each; 48 of each, turned left by 64 - 16 i, 24 in each lane. */
typedef uint64_t lanes_pairs __attribute__((vector_size(64)));
LANES_INLINE lanes_codes lanes_codes_set1_64(uint64_t x) {
    return (lanes_codes)((lanes_pairs){0} + x);
}
LANES_INLINE lanes_codes lanes_codes_words_24(lanes_codes c, const int i) {
    const uint64_t right = (uint64_t)(64 - 16 * i) & 63, left = (uint64_t)(16 * i) & 63;
    lanes_pairs v = (lanes_pairs)c;
    if (i) v = v >> right | v << left;
    return (lanes_codes)((v & 0xffffff) | (v << 8 & 0xffffff00000000));
}
LANES_INLINE lanes_codes lanes_codes_shr(lanes_codes c, int n) {
    return c >> (uint32_t)n;
}
LANES_INLINE lanes_codes lanes_codes_shl(lanes_codes c, int n) {
    return c << (uint32_t)n;
}
/* With the sign. */
LANES_INLINE lanes_codes lanes_codes_sar(lanes_codes c, int n) {
    return (lanes_codes)((lanes_whole)c >> n);
}
LANES_INLINE lanes_codes lanes_codes_and(lanes_codes a, lanes_codes b) {
    return a & b;
}
LANES_INLINE lanes_codes lanes_codes_or(lanes_codes a, lanes_codes b) {
    return a | b;
}
LANES_INLINE lanes_codes lanes_codes_pick(lanes_codes mask, lanes_codes a, lanes_codes b) {
    return (a & mask) | (b & ~mask);
}
LANES_INLINE lanes_codes lanes_codes_add(lanes_codes a, lanes_codes b) {
    return a + b;
}
LANES_INLINE lanes_codes lanes_codes_sub(lanes_codes a, lanes_codes b) {
    return a - b;
}
LANES_INLINE lanes_codes lanes_codes_mul(lanes_codes a, lanes_codes b) {
    return a * b;
}
LANES_INLINE lanes_codes lanes_codes_u8(const void *p) {
    const uint8_t *b = p;
    lanes_codes v = {0};
    for (int i = 0; i < LANES; i++) v[i] = b[i];
    return v;
}
LANES_INLINE lanes lanes_of_codes(lanes_codes c) {
    return __builtin_convertvector((lanes_whole)c, lanes);
}
LANES_INLINE lanes lanes_of_i8(const void *p) {
    const int8_t *b = p;
    lanes v = {0};
    for (int i = 0; i < LANES; i++) v[i] = (float)b[i];
    return v;
}
LANES_INLINE lanes lanes_gather(const float *base, lanes_codes index) {
    lanes v = {0};
    for (int i = 0; i < LANES; i++) v[i] = base[(int32_t)index[i]];
    return v;
}
LANES_INLINE lanes_codes lanes_codes_spread(uint64_t word, int bits) {
    lanes_codes v = {0};
    for (int l = 0; l < LANES; l++) v[l] = (uint32_t)(word >> (l * bits)) & ((1u << bits) - 1);
    return v;
}
LANES_INLINE lanes lanes_scale2(lanes a, lanes n) {
    for (int i = 0; i < LANES; i++) {
        int32_t whole = (int32_t)n[i], half = whole >> 1;
        float first = qb_f32_of_bits((uint32_t)(half + 127) << 23);
        float second = qb_f32_of_bits((uint32_t)(whole - half + 127) << 23);
        a[i] = a[i] * first * second;
    }
    return a;
}
typedef lanes lanes_table;
LANES_INLINE lanes_table lanes_table_load(const float *p) {
    return lanes_load(p);
}
LANES_INLINE lanes lanes_lookup16(lanes_table t, lanes_codes c) {
    lanes v = {0};
    for (int i = 0; i < LANES; i++) v[i] = t[c[i] & 15];
    return v;
}
LANES_INLINE lanes lanes_centred(lanes_table t, lanes_codes c, const int bits) {
    (void)t;
    lanes_whole centred = (lanes_whole)((c & ((1u << bits) - 1)) - (1u << (bits - 1)));
    return __builtin_convertvector(centred, lanes);
}
