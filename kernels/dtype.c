#include "kernels/dtype.h"

#include "kernels/cpu/simd.h"

#include <strings.h>

static const struct {
    const char *name, *torch_name;
    size_t bytes;
} dtypes[QB_DTYPE_COUNT] = {
#define X(name, st, torch, bytes) [QB_DTYPE_##name] = {st, torch, bytes},
    QB_DTYPES(X)
#undef X
};

size_t qb_dtype_bytes(qb_dtype dtype) {
    return dtypes[dtype].bytes;
}
const char *qb_dtype_name(qb_dtype dtype) {
    return dtypes[dtype].name;
}
const char *qb_dtype_torch_name(qb_dtype dtype) {
    return dtypes[dtype].torch_name;
}

qb_status qb_dtype_parse(const char *name, qb_dtype *out) {
    for (int i = 0; i < QB_DTYPE_COUNT; i++)
        if (strcmp(name, dtypes[i].name) == 0 || strcmp(name, dtypes[i].torch_name) == 0) {
            *out = (qb_dtype)i;
            return QB_OK;
        }
    return qb_fail(QB_ERR_FORMAT,
                   "unknown element type \"%.40s\"; known are F32, F16, BF16, F64, I64 .. I8, U8, BOOL",
                   name);
}

/* A half's exponent moves by adding 127 - 15 = 112 to the field; infinities and NaN move twice as far (to
   255). A subnormal half is m * 2^-24, which one float32 multiplication gives exactly. */
float qb_f32_of_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t magnitude = h & 0x7fff;
    uint32_t bits;
    if (magnitude >= 0x7c00)
        bits =
            (magnitude << 13) + (224u << 23) + (magnitude > 0x7c00 ? (magnitude & 0x200 ? 0 : 1u << 22) : 0);
    else if (magnitude >= 0x0400)
        bits = (magnitude << 13) + (112u << 23);
    else
        bits = qb_bits_of_f32((float)magnitude * 0x1p-24f);
    return qb_f32_of_bits(sign | bits);
}

/* Round to nearest even in integers: adding just under half of the last kept place, plus that place's own
   lowest bit. Subnormal results let the float adder round: 0.5 has its last place at 2^-24, a subnormal
   half's unit. NaN becomes quiet and keeps the upper part of its payload, as the processors' own conversion
   does. */
uint16_t qb_f16_of_f32(float f) {
    uint32_t bits = qb_bits_of_f32(f);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t a = bits & 0x7fffffff;
    uint32_t h;
    if (a > 0x7f800000)
        h = 0x7e00 | (a >> 13 & 0x3ff);
    else if (a >= 0x477ff000) /* 65520, halfway to the first value out of range */
        h = 0x7c00;
    else if (a < 0x38800000) /* 2^-14 */
        h = qb_bits_of_f32(qb_f32_of_bits(a) + 0.5f) - 0x3f000000;
    else
        h = (a + 0xfff + (a >> 13 & 1) - (112u << 23)) >> 13;
    return (uint16_t)(sign | h);
}

uint16_t qb_bf16_of_f32(float f) {
    uint32_t bits = qb_bits_of_f32(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static qb_status unsupported(const char *what, qb_dtype dtype) {
    return qb_fail(QB_ERR_UNSUPPORTED,
                   "cannot convert %s element type %s; float32, float16 and bfloat16 are supported", what,
                   qb_dtype_name(dtype));
}

void qb_f32_of_f16_many(const uint16_t *in, int64_t n, float *out) {
    qb_simd_best()->f32_of_f16(in, n, out);
}

void qb_f32_of_bf16_many(const uint16_t *in, int64_t n, float *out) {
    qb_simd_best()->f32_of_bf16(in, n, out);
}

void qb_f16_of_f32_many(const float *in, int64_t n, uint16_t *out) {
    qb_simd_best()->f16_of_f32(in, n, out);
}

/* Without an end at each, so that many are looked at together. */
bool qb_all_finite(const float *values, int64_t n) {
    uint32_t most = 0; /* of an exponent's bits */
    for (int64_t i = 0; i < n; i++) {
        uint32_t exponent = qb_bits_of_f32(values[i]) & 0x7f800000;
        most = exponent > most ? exponent : most;
    }
    return most < 0x7f800000;
}

qb_status qb_to_f32(qb_dtype dtype, const void *in, int64_t n, float *out) {
    const qb_simd *simd = qb_simd_best();
    switch (dtype) {
    case QB_DTYPE_F32:
        memmove(out, in, (size_t)n * 4);
        return QB_OK;
    case QB_DTYPE_F16:
        simd->f32_of_f16(in, n, out);
        return QB_OK;
    case QB_DTYPE_BF16:
        simd->f32_of_bf16(in, n, out);
        return QB_OK;
    default:
        return unsupported("from", dtype);
    }
}

qb_status qb_from_f32(qb_dtype dtype, const float *in, int64_t n, void *out) {
    const qb_simd *simd = qb_simd_best();
    switch (dtype) {
    case QB_DTYPE_F32:
        memmove(out, in, (size_t)n * 4);
        return QB_OK;
    case QB_DTYPE_F16:
        simd->f16_of_f32(in, n, out);
        return QB_OK;
    case QB_DTYPE_BF16:
        simd->bf16_of_f32(in, n, out);
        return QB_OK;
    default:
        return unsupported("to", dtype);
    }
}
