/* Element types as safetensors names them, and exact conversions between float32 and the 16-bit floats. */
#pragma once

#include "base/status.h"

#include <stdint.h>
#include <string.h>

/* X(enum suffix, safetensors name, torch name, bytes an element) */
#define QB_DTYPES(X)                                                                                         \
    X(F32, "F32", "float32", 4)                                                                              \
    X(F16, "F16", "float16", 2)                                                                              \
    X(BF16, "BF16", "bfloat16", 2)                                                                           \
    X(F64, "F64", "float64", 8)                                                                              \
    X(I64, "I64", "int64", 8)                                                                                \
    X(I32, "I32", "int32", 4)                                                                                \
    X(I16, "I16", "int16", 2)                                                                                \
    X(I8, "I8", "int8", 1)                                                                                   \
    X(U8, "U8", "uint8", 1)                                                                                  \
    X(BOOL, "BOOL", "bool", 1)

typedef enum {
#define X(name, st, torch, bytes) QB_DTYPE_##name,
    QB_DTYPES(X)
#undef X
        QB_DTYPE_COUNT
} qb_dtype;

size_t qb_dtype_bytes(qb_dtype dtype);
const char *qb_dtype_name(qb_dtype dtype);       /* "F16" */
const char *qb_dtype_torch_name(qb_dtype dtype); /* "float16" */
/* Either spelling; QB_ERR_FORMAT when unknown. */
qb_status qb_dtype_parse(const char *name, qb_dtype *out) QB_NODISCARD;

/* Scalar conversions: exact upwards, round to nearest even downwards, infinities and NaN kept. */
static inline float qb_f32_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static inline uint32_t qb_bits_of_f32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}
static inline float qb_f32_of_bf16(uint16_t h) {
    return qb_f32_of_bits((uint32_t)h << 16);
}
float qb_f32_of_f16(uint16_t h);
uint16_t qb_f16_of_f32(float f);
uint16_t qb_bf16_of_f32(float f);

/* The same of n at once. */
void qb_f32_of_f16_many(const uint16_t *in, int64_t n, float *out);
void qb_f32_of_bf16_many(const uint16_t *in, int64_t n, float *out);
void qb_f16_of_f32_many(const float *in, int64_t n, uint16_t *out);

/* Whether none is NaN or infinite. */
bool qb_all_finite(const float *values, int64_t n);

/* n elements of F32, F16 or BF16 to float32 and back (other types: QB_ERR_UNSUPPORTED). */
qb_status qb_to_f32(qb_dtype dtype, const void *in, int64_t n, float *out) QB_NODISCARD;
qb_status qb_from_f32(qb_dtype dtype, const float *in, int64_t n, void *out) QB_NODISCARD;
